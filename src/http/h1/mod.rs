//! HTTP/1.0 and HTTP/1.1 with a client (RFC 9112): read a head, answer it, and again.

mod body;
mod encode;
mod wire;

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::AsyncWriteExt;

use self::body::Body;
use self::encode::Encoder;
use self::wire::{Shared, Wire};
use super::client::{Client, LEAST, share};
use super::exchange::Exchange;
use super::link::Link;
use super::pipeline;
use super::request::{Protocol, Request};
use super::response::{Payload, Response};
use super::{finish, respond, tunnel};
use crate::config::model::Limits;
use crate::fault::Fault;
use crate::lobby::{LAST_CALL, Stage};
use crate::upstream::Chunk;
use crate::wire::chunked::plain;
use crate::wire::head::{MAX_REQUEST_HEAD, MAX_TARGET, Scanner};

/// The most empty lines before a request.
const MAX_EMPTY_LINES: u8 = 4;
/// How long a client that was answered for the last time may be silent before it leaves.
const LINGER: Duration = Duration::from_secs(2);
/// How long such a client may go on sending what is thrown away. To cut it off would cost it the answer.
const MAX_LINGER: Duration = Duration::from_secs(30);

/// Serves an HTTP/1 connection to its end.
pub(super) fn serve<S: Client>(link: Rc<Link>, io: S) -> impl Future<Output = ()> {
    // Not in the future itself, which would keep room for it.
    let wire = Rc::new(RefCell::new(Wire::new(io)));
    exchanges(link, wire)
}

async fn exchanges<S: Client>(link: Rc<Link>, wire: Shared<S>) {
    let mut first = true;
    loop {
        let Ok(standing) = link.standing() else { return };
        let limits = standing.snapshot.config.limits;
        drop(standing);
        let next = match poll_fn(|cx| poll_head(&wire, &link, &limits, first, cx)).await {
            // Boxed: between two requests nothing of one is held.
            Next::Request(read) => Box::pin(exchange(&link, &wire, &limits, read)).await,
            Next::End => return farewell(&wire, Duration::ZERO).await,
        };
        match next {
            After::Keep => first = false,
            After::Close => return farewell(&wire, LINGER).await,
            After::Abort => return,
            After::Tunnel(io, behind) => {
                link.seat.speaks(Stage::WebSocket);
                return Box::pin(tunnel_through(wire, *io, behind)).await;
            }
        }
    }
}

/// What came next on the connection.
enum Next {
    /// A whole head, read or refused.
    Request(Result<Box<Request>, Fault>),
    /// Nothing more: the client left, was idle too long, or the edge drains.
    End,
}

/// What becomes of the connection after an exchange.
enum After {
    Keep,
    /// Closed in order: the client gets to read what was written.
    Close,
    /// Cut: what was written is not whole.
    Abort,
    Tunnel(Box<crate::upstream::Io>, Bytes),
}

/// Waits for a request's head: as long as a connection may be idle before its first byte, and as long as a head may take
/// from there.
fn poll_head<S: Client>(
    wire: &Shared<S>,
    link: &Link,
    limits: &Limits,
    first: bool,
    cx: &mut Context<'_>,
) -> Poll<Next> {
    let wire = &mut *wire.borrow_mut();
    loop {
        match take_head(wire) {
            Ok(Some(request)) => {
                wire.deadline.clear();
                return Poll::Ready(Next::Request(Ok(request)));
            }
            Ok(None) => {}
            Err(fault) => return Poll::Ready(Next::Request(Err(fault))),
        }
        let idle = wire.buffer.is_empty();
        let lobby = &link.worker.lobby;
        let last_call = || if first { LAST_CALL } else { lobby.last_call() };
        let leaves = || link.standing().is_err() || (lobby.is_draining() && last_call().is_zero());
        if idle && leaves() {
            return Poll::Ready(Next::End);
        }
        let before = wire.buffer.len();
        match wire.poll_read(cx) {
            Poll::Ready(Ok(1..)) if before == 0 => wire.deadline.set(limits.header_timeout),
            Poll::Ready(Ok(1..)) => {}
            Poll::Ready(_) => return Poll::Ready(Next::End),
            Poll::Pending => {
                link.seat.listen(cx.waker());
                if !wire.deadline.is_set() {
                    let waited = if idle && !first { limits.idle_timeout } else { limits.header_timeout };
                    wire.deadline.set(waited);
                    wire.rest();
                }
                if idle && lobby.is_draining() {
                    wire.deadline.set_at_most(last_call());
                }
                ready!(wire.deadline.poll_passed(cx));
                let late = if idle { Next::End } else { Next::Request(Err(Fault::RequestTimeout)) };
                return Poll::Ready(late);
            }
        }
    }
}

/// Takes a head from what was read, once it is whole. A few empty lines before it are skipped (RFC 9112 section 2.2).
fn take_head<S>(wire: &mut Wire<S>) -> Result<Option<Box<Request>>, Fault> {
    while wire.buffer.starts_with(b"\r\n") {
        wire.buffer.advance(2);
        wire.empty_lines += 1;
        if wire.empty_lines > MAX_EMPTY_LINES {
            return Err(Fault::BadRequest("too many empty lines before the request"));
        }
    }
    if wire.buffer.as_ref() == b"\r" {
        return Ok(None);
    }
    let end = wire
        .scanner
        .find_end(&wire.buffer)
        .map_err(|_| Fault::BadRequest("a line ends without a carriage return"))?;
    match end {
        Some(end) if end > MAX_REQUEST_HEAD => Err(Fault::HeadTooLarge),
        Some(end) => {
            wire.empty_lines = 0;
            wire.scanner = Scanner::default();
            Request::from_h1(&wire.buffer.split_to(end)).map(|request| Some(Box::new(request)))
        }
        None if !wire.scanner.has_line() && wire.buffer.len() > MAX_TARGET + 64 => Err(Fault::TargetTooLong),
        None if wire.buffer.len() > MAX_REQUEST_HEAD => Err(Fault::HeadTooLarge),
        None => Ok(None),
    }
}

/// One exchange, from a head to the end of its answer.
async fn exchange<S: Client>(
    link: &Rc<Link>,
    wire: &Shared<S>,
    limits: &Limits,
    read: Result<Box<Request>, Fault>,
) -> After {
    let (request, fault) = match read {
        Ok(request) => (Some(*request), None),
        Err(fault) => (None, Some(fault)),
    };
    let mut exchange = Exchange::new(link, request);
    let response = if let Some(fault) = fault {
        respond::fault(&mut exchange, fault)
    } else {
        let Some(response) = handle(wire, &mut exchange, limits).await else {
            exchange.fault = Some(Fault::ClientGone);
            return After::Abort;
        };
        response
    };
    // Who left inside its body has no answer; 499 is for the log.
    if matches!(response.payload, Payload::Silence) || matches!(exchange.fault, Some(Fault::ClientGone)) {
        return After::Abort;
    }
    let (response, first) = look_behind(wire, &mut exchange, response).await;
    let (mut encoder, tunnel, keep) = begin(wire, link, &exchange, response);
    if let Some(chunk) = first {
        encoder.take(&mut wire.borrow_mut().out, chunk, &mut exchange.sent);
    }
    finish(wire, &mut exchange, limits, encoder, tunnel, keep).await
}

/// Runs the pipeline and, beside it, writes interim answers and watches for the client's leaving; None when it left.
async fn handle<S: Client>(wire: &Shared<S>, exchange: &mut Exchange, limits: &Limits) -> Option<Response> {
    let body = exchange.request.as_ref().and_then(|request| {
        let received = Rc::clone(&exchange.received);
        Body::new(wire, request.framing, request.expects_continue, limits.idle_timeout, received)
    });
    let modern = exchange.request.as_ref().is_some_and(|request| request.protocol == Protocol::Http11);
    let mut interim = |answer: &crate::upstream::Answer| {
        if modern {
            encode::interim(&mut wire.borrow_mut().out, answer);
        }
    };
    let body = body.map(|body| Box::new(body) as crate::wire::Body);
    let mut handling = pin!(pipeline::handle(exchange, body, &mut interim));
    poll_fn(|cx| {
        if let Poll::Ready(response) = handling.as_mut().poll(cx) {
            return Poll::Ready(Some(response));
        }
        let mut wire = wire.borrow_mut();
        if !wire.out.is_empty() {
            match wire.poll_write(&mut plain(Bytes::new()), limits.idle_timeout, cx) {
                Poll::Ready(Err(_)) => return Poll::Ready(None),
                Poll::Ready(Ok(())) | Poll::Pending => {}
            }
        }
        wire.poll_gone(cx).map(|()| None)
    })
    .await
}

/// What lies behind the head already; another answer where that is a failure.
async fn look_behind<S: Client>(
    wire: &Shared<S>,
    exchange: &mut Exchange,
    mut response: Response,
) -> (Response, Option<Chunk>) {
    let most = if response.is_brief() { LEAST } else { share(wire.borrow().io.room()) };
    match poll_fn(|cx| Poll::Ready(response.payload.first(most, cx))).await {
        Ok(first) => (response, first),
        Err(fault) => (finish::fault(exchange, fault), None),
    }
}

/// Writes the head into the connection's buffer and settles how the connection goes on.
fn begin<S: Client>(
    wire: &Shared<S>,
    link: &Link,
    exchange: &Exchange,
    response: Response,
) -> (Encoder, Option<(Box<crate::upstream::Io>, Bytes)>, bool) {
    let mut wire = wire.borrow_mut();
    wire.expects_continue = false;
    let request = exchange.request.as_ref();
    let keep = !response.close
        && !link.worker.lobby.is_draining()
        && request.is_some_and(Request::keeps_alive)
        // What nobody will read would be taken for the next request.
        && (wire.body_done || response.payload.is_upstreams());
    let protocol = request.map_or(Protocol::Http11, |request| request.protocol);
    Encoder::begin(&mut wire.out, response, protocol, keep)
}

async fn finish<S: Client>(
    wire: &Shared<S>,
    exchange: &mut Exchange,
    limits: &Limits,
    mut encoder: Encoder,
    tunnel: Option<(Box<crate::upstream::Io>, Bytes)>,
    keep: bool,
) -> After {
    let written = poll_fn(|cx| poll_answer(wire, exchange, limits, &mut encoder, cx)).await;
    match (written, tunnel) {
        (Err(fault), _) => {
            exchange.fault.get_or_insert(fault);
            After::Abort
        }
        (Ok(()), Some((io, behind))) => After::Tunnel(io, behind),
        (Ok(()), None) if !keep || encoder.ends_with_connection() => After::Close,
        (Ok(()), None) if wire.borrow().body_done => After::Keep,
        (Ok(()), None) => After::Close,
    }
}

/// Moves the answer from the upstream to the client, each as fast as the other.
fn poll_answer<S: Client>(
    wire: &Shared<S>,
    exchange: &mut Exchange,
    limits: &Limits,
    encoder: &mut Encoder,
    cx: &mut Context<'_>,
) -> Poll<Result<(), Fault>> {
    loop {
        let mut waiting = false;
        // Nothing more is read while something that was written waits.
        if encoder.wants_more() && !wire.borrow().io.is_behind() {
            let most = if encoder.brief { LEAST } else { share(wire.borrow().io.room()) };
            match encoder.payload.poll_chunk(most, cx) {
                Poll::Ready(Ok(chunk)) => encoder.take(&mut wire.borrow_mut().out, chunk, &mut exchange.sent),
                Poll::Ready(Err(fault)) => return Poll::Ready(Err(fault)),
                Poll::Pending => waiting = true,
            }
        }
        let mut wire = wire.borrow_mut();
        let written = wire.poll_write(&mut encoder.piece, limits.idle_timeout, cx);
        let Poll::Ready(written) = written else {
            drop(wire);
            encoder.payload.poll_ahead(LEAST, cx);
            return Poll::Pending;
        };
        written.map_err(|_| Fault::ClientGone)?;
        if encoder.is_done() {
            return Poll::Ready(Ok(()));
        }
        if waiting {
            return wire.poll_gone(cx).map(|()| Err(Fault::ClientGone));
        }
    }
}

/// Closes in order: what was written arrives, even where the client is still sending (RFC 9112 section 9.6).
async fn farewell<S: Client>(wire: &Shared<S>, linger: Duration) {
    wire.borrow_mut().deadline.set(linger);
    let closing = poll_fn(|cx| {
        let wire = &mut *wire.borrow_mut();
        if Pin::new(&mut wire.io).poll_shutdown(cx).is_pending() {
            return wire.deadline.poll_passed(cx);
        }
        loop {
            wire.buffer.clear();
            match wire.poll_read(cx) {
                Poll::Ready(Ok(1..)) => wire.deadline.set(linger),
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return wire.deadline.poll_passed(cx),
            }
        }
    });
    let _ = tokio::time::timeout(MAX_LINGER, closing).await;
}

/// From here on both sides speak what they agreed on.
async fn tunnel_through<S: Client>(wire: Shared<S>, mut upstream: crate::upstream::Io, behind: Bytes) {
    let Ok(wire) = Rc::try_unwrap(wire) else { return };
    let Wire { mut io, buffer, .. } = wire.into_inner();
    if io.write_all(&behind).await.is_ok() && upstream.write_all(&buffer).await.is_ok() {
        tunnel::join(io, upstream).await;
    }
}
