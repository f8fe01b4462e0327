//! HTTP/2 with a client (RFC 9113), on the `h2` crate: each stream is a task, and a request like any other.

mod answer;
mod backlog;
mod body;
mod duplex;
mod gather;
mod head;
mod overhead;

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use h2::server::{Connection, SendResponse};
use h2::{Reason, RecvStream};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

use self::backlog::{Backlog, Piece};
use self::body::Body;
use self::gather::Gather;
use super::exchange::Exchange;
use super::link::Link;
use super::response::{Payload, Response};
use super::{pipeline, respond};
use crate::config::model::Limits;
use crate::fault::Fault;
use crate::lobby::LAST_CALL;
use crate::wire::deadline::Deadline;
use crate::wire::head::MAX_REQUEST_HEAD;

/// The most requests at once on one connection.
const MAX_STREAMS: u32 = 128;
/// How much of a request's body may be under way, in octets: a stream's and a connection's window.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// What tiny DATA frames that nobody has read yet may cost beside their content, as the `h2` crate reckons it: enough for a stream's
/// window in frames of 32 octets, as clients send who write line by line, and for a turn's reading in frames of one.
const SMALL_FRAMES: usize = 2 * 1024 * 1024;
/// How much of an answer waits in a stream for the client, in octets.
const SEND_BUFFER: usize = 256 * 1024;
/// How long a client that was told to leave may still send, and how much, in octets: what may be on its way fills the window, and
/// a flood has no end.
const LINGER: Duration = Duration::from_secs(2);
const MAX_LINGER: usize = 2 * CONNECTION_WINDOW as usize;
/// From how many requests that the client took back at once a connection ends, where they are the most of its requests
/// (CVE-2023-44487).
const MAX_CANCELLED: u64 = 200;

/// Serves an HTTP/2 connection to its end.
pub(super) fn serve<S: AsyncRead + AsyncWrite + Unpin + 'static>(
    link: Rc<Link>,
    io: S,
) -> impl Future<Output = ()> {
    // Not in the future itself, which would keep room for it.
    let io = Gather::new(io);
    requests(link, io)
}

async fn requests<S: AsyncRead + AsyncWrite + Unpin + 'static>(link: Rc<Link>, io: Gather<S>) {
    let Ok(standing) = link.standing() else { return };
    let limits = standing.snapshot.config.limits;
    drop(standing);
    let Ok(Some(mut connection)) = timeout(limits.header_timeout, shake(&io)).await else { return };
    let streams = Rc::new(Streams::new(link, limits));
    let mut leaving = Leaving::default();
    poll_fn(|cx| {
        let polled = poll_connection(&mut connection, &io, &streams, &mut leaving, cx);
        // What keeps the client from reading is a stream's own matter; here only a broken connection counts.
        if let Poll::Ready(Err(_)) = io.poll_send(cx) { Poll::Ready(()) } else { polled }
    })
    .await;
    drop(connection);
    if leaving.said {
        // Boxed, so that a connection at rest keeps no room for it.
        Box::pin(farewell(io)).await;
    }
}

/// Says that this was all, and reads on for a moment: what a client has on the way, window updates at least, would otherwise be
/// answered with a reset, which may take the end of an answer from it (RFC 9112 section 9.6).
async fn farewell<S: AsyncRead + AsyncWrite + Unpin>(mut io: Gather<S>) {
    let rest = async {
        io.shutdown().await?;
        let mut most = MAX_LINGER;
        poll_fn(|cx| io.poll_forget(&mut most, cx)).await
    };
    let _ = timeout(LINGER, rest).await;
}

/// The preface and the settings of both sides (RFC 9113 section 3.4).
async fn shake<S: AsyncRead + AsyncWrite + Unpin>(io: &Gather<S>) -> Option<Connection<Gather<S>, Piece>> {
    let mut handshake = pin!(settings().handshake(io.clone()));
    poll_fn(|cx| {
        let shaken = handshake.as_mut().poll(cx);
        if shaken.is_pending() && matches!(io.poll_send(cx), Poll::Ready(Err(_))) {
            return Poll::Ready(None);
        }
        shaken.map(Result::ok)
    })
    .await
}

fn settings() -> h2::server::Builder {
    let mut builder = h2::server::Builder::new();
    builder
        .max_concurrent_streams(MAX_STREAMS)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(u32::try_from(MAX_REQUEST_HEAD).unwrap_or(u32::MAX))
        .max_send_buffer_size(SEND_BUFFER)
        .data_frame_budget(SMALL_FRAMES)
        .enable_connect_protocol();
    builder
}

/// The requests of one connection.
struct Streams {
    link: Rc<Link>,
    /// As they were when the connection began.
    limits: Limits,
    open: Cell<u64>,
    total: Cell<u64>,
    cancelled: Cell<u64>,
    backlog: Backlog,
}

/// How far the connection's end has come.
#[derive(Default)]
struct Leaving {
    deadline: Deadline,
    said: bool,
}

fn poll_connection<S: AsyncRead + AsyncWrite + Unpin + 'static>(
    connection: &mut Connection<Gather<S>, Piece>,
    io: &Gather<S>,
    streams: &Rc<Streams>,
    leaving: &mut Leaving,
    cx: &mut Context<'_>,
) -> Poll<()> {
    loop {
        match connection.poll_accept(cx) {
            Poll::Ready(Some(Ok((request, respond)))) => {
                io.request();
                // Boxed: the runtime would move its 2 KiB four times (2 % of a small request).
                tokio::task::spawn_local(Box::pin(streams.begin().serve(request, respond)));
                continue;
            }
            Poll::Ready(Some(Err(error))) if is_calm(&error) => {
                streams.tell_flood();
                // The crate has said GOAWAY, which the client is to read.
                leaving.said = true;
                return Poll::Ready(());
            }
            Poll::Ready(_) => return Poll::Ready(()),
            Poll::Pending => {}
        }
        streams.link.seat.listen(cx.waker());
        if leaving.said {
            return leaving.poll_over(streams, cx);
        }
        if streams.are_abuse() || io.is_flooded() {
            streams.tell_flood();
            connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
            leaving.said = true;
            continue;
        }
        let leave = streams.link.worker.lobby.is_draining() || streams.link.standing().is_err();
        if !leave && leaving.poll_idle(streams, cx).is_pending() {
            return Poll::Pending;
        }
        // GOAWAY; what is open is answered, and the frames go out at the next turn of this loop.
        connection.graceful_shutdown();
        leaving.said = true;
        leaving.deadline.clear();
    }
}

/// Whether the `h2` crate has ended a flood by itself.
fn is_calm(error: &h2::Error) -> bool {
    error.is_go_away() && error.is_library() && error.reason() == Some(Reason::ENHANCE_YOUR_CALM)
}

impl Leaving {
    /// Ready when the connection has been without a request too long.
    fn poll_idle(&mut self, streams: &Streams, cx: &mut Context<'_>) -> Poll<()> {
        if streams.open.get() > 0 {
            self.deadline.clear();
            return Poll::Pending;
        }
        if !self.deadline.is_set() {
            self.deadline.set(if streams.total.get() == 0 {
                streams.limits.header_timeout
            } else {
                streams.limits.idle_timeout
            });
        }
        self.deadline.poll_passed(cx)
    }

    /// Ready when a client that was told to leave, and has no open request, has had its time.
    fn poll_over(&mut self, streams: &Streams, cx: &mut Context<'_>) -> Poll<()> {
        if streams.open.get() > 0 {
            self.deadline.clear();
            return Poll::Pending;
        }
        if !self.deadline.is_set() {
            self.deadline.set(streams.limits.handshake_timeout);
        }
        if streams.link.worker.lobby.is_draining() {
            self.deadline.set_at_most(LAST_CALL);
        }
        self.deadline.poll_passed(cx)
    }
}

impl Streams {
    fn new(link: Rc<Link>, limits: Limits) -> Self {
        let (open, total, cancelled) = (Cell::new(0), Cell::new(0), Cell::new(0));
        Self { link, limits, open, total, cancelled, backlog: Backlog::default() }
    }

    fn begin(self: &Rc<Self>) -> Stream {
        self.open.set(self.open.get() + 1);
        self.total.set(self.total.get() + 1);
        Stream(Rc::clone(self))
    }

    fn tell_flood(&self) {
        let Link { worker, bind, peer, .. } = &*self.link;
        worker.lobby.meter.refused(*bind, "flood");
        tracing::info!(client = %peer, row = %bind, "closed: a flood of HTTP/2 frames");
    }

    fn are_abuse(&self) -> bool {
        self.cancelled.get() > MAX_CANCELLED && self.cancelled.get() * 2 > self.total.get()
    }
}

/// One request's place in its connection.
struct Stream(Rc<Streams>);

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
        if self.0.open.get() == 0 {
            self.0.link.seat.wake();
        }
    }
}

impl Stream {
    async fn serve(self, request: http::Request<RecvStream>, mut respond: SendResponse<Piece>) {
        let bodiless = request.body().is_end_stream();
        let (mut exchange, body, refusal) = self.read(request);
        let answered = match refusal {
            Some(refusal) => Some((refusal, None)),
            None => self.handle(&mut exchange, body, &mut respond).await,
        };
        match answered {
            None => {
                self.0.cancelled.set(self.0.cancelled.get() + 1);
                exchange.fault = Some(Fault::ClientGone);
            }
            Some((Response { payload: Payload::Silence, .. }, _)) => {
                respond.send_reset(Reason::REFUSED_STREAM);
                self.0.link.seat.wake();
            }
            Some((response, websocket)) => {
                let share = self.0.backlog.share();
                answer::send(&mut exchange, &mut respond, response, websocket, share, &self.0.limits).await;
                drop(exchange);
                if !bodiless {
                    // A body that nobody reads ends with a reset as `respond` goes. curl 7.88 loses an answer that comes in one
                    // TLS record with it: the connection has its turn first.
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    /// Reads the head; one that is malformed has its answer at once. Not a part of [`Stream::serve`], which would carry
    /// all that it needs to its end.
    fn read(&self, request: http::Request<RecvStream>) -> (Exchange, RecvStream, Option<Response>) {
        let (parts, body) = request.into_parts();
        let fault = match head::read(&parts, body.is_end_stream()) {
            Ok(request) => return (Exchange::new(&self.0.link, Some(request)), body, None),
            Err(fault) => fault,
        };
        let mut exchange = Exchange::new(&self.0.link, None);
        let mut response = respond::fault(&mut exchange, fault);
        if parts.method == http::Method::HEAD {
            response.payload = Payload::Empty;
        }
        (exchange, body, Some(response))
    }

    /// Runs the pipeline and watches for the client's change of mind; None when it took the request back. The stream
    /// comes back for a WebSocket, which goes on with it.
    async fn handle(
        &self,
        exchange: &mut Exchange,
        stream: RecvStream,
        respond: &mut SendResponse<Piece>,
    ) -> Option<(Response, Option<RecvStream>)> {
        let websocket = exchange.request.as_ref().is_some_and(|request| request.websocket);
        let mut expects_continue =
            exchange.request.as_ref().is_some_and(|request| request.expects_continue && !websocket);
        let demanded = Rc::new(Cell::new(false));
        let (body, kept) = match (websocket, stream.is_end_stream()) {
            (true, _) => (None, Some(stream)),
            (false, true) => (None, None),
            (false, false) => {
                let received = Rc::clone(&exchange.received);
                let body = Body::new(stream, self.0.limits.idle_timeout, received, Rc::clone(&demanded));
                (Some(Box::new(body) as crate::wire::Body), None)
            }
        };
        let respond = std::cell::RefCell::new(respond);
        let mut interim = |answer: &crate::upstream::Answer| {
            // A stream that was reset meanwhile needs no hints.
            let _ = respond.borrow_mut().send_informational(head::interim(answer));
        };
        let mut handling = pin!(pipeline::handle(exchange, body, &mut interim));
        let response = poll_fn(|cx| {
            if let Poll::Ready(response) = handling.as_mut().poll(cx) {
                return Poll::Ready(Some(response));
            }
            let mut respond = respond.borrow_mut();
            if demanded.get() && std::mem::take(&mut expects_continue) {
                let _ = respond.send_informational(go_on());
            }
            respond.poll_reset(cx).map(|_| None)
        })
        .await?;
        Some((response, kept))
    }
}

/// 100 (RFC 9110 section 15.2.1).
fn go_on() -> http::Response<()> {
    let mut response = http::Response::new(());
    *response.status_mut() = http::StatusCode::CONTINUE;
    response
}
