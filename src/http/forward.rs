//! A request handed to its upstream, and the answer taken back.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use aws_lc_rs::digest;
use bytes::Bytes;
use http::{Method, StatusCode};
use http_body::Frame;

use super::exchange::{Exchange, RequestId};
use super::files;
use super::forwarded::{self, line};
use super::pipeline::Interim;
use super::request::{Protocol, Request};
use super::response::{Payload, Response};
use super::spool::{self, Ahead};
use super::trace::{self, TraceContext};
use crate::addr::{ClientAddr, Permit, Route};
use crate::fault::Fault;
use crate::observe::spans::SpanId;
use crate::route::{Ceiling, RouteEntry, Shelf};
use crate::upstream::{Answer, Call, Outgoing, Upstream, sticky};
use crate::wire::Known;
use crate::wire::{Body, Framing, Head, framing};

/// Sends the request and waits for the head of the answer; interim answers go to the client as they come.
pub(super) async fn forward(
    exchange: &mut Exchange,
    permit: Permit<Route>,
    upstream: &Arc<Upstream>,
    route: &RouteEntry,
    body: Option<Body>,
    interim: Interim<'_>,
) -> Result<Response, Fault> {
    let Some(request) = &exchange.request else { return Err(Fault::internal("a request without a head")) };
    let body = body.map(|body| Limited::new(body, &route.body, exchange.id));
    let context = exchange.context(upstream.proxy().begins_traces);
    exchange.trace.attempts = context.and_then(TraceContext::attempts);
    let outgoing = outgoing(exchange, request, upstream, &route.shelf, body).await?;
    let (mut answer, mut call) =
        upstream.call(permit, &exchange.worker.pools, outgoing, &mut exchange.trace).await?;
    while answer.status.is_informational() && answer.status != StatusCode::SWITCHING_PROTOCOLS {
        // The edge's own 100 went out when the body was asked for.
        if answer.status != StatusCode::CONTINUE {
            interim(&answer);
        }
        answer = call.head().await?;
    }
    exchange.trace.first_byte = Some(exchange.elapsed());
    if let Some(attempts) = &mut exchange.trace.attempts {
        attempts.answered(answer.status.as_u16());
    }
    if files::is_handed_over(&answer.head) {
        return Box::pin(files::follow(exchange, &answer, call)).await;
    }
    response(exchange, request, upstream, &route.shelf, answer, call)
}

/// The request as it goes out. Where bodies are buffered it is read to its end first, and goes out with its length,
/// unless it has trailers to bring.
async fn outgoing(
    exchange: &Exchange,
    request: &Request,
    upstream: &Upstream,
    shelf: &Arc<Shelf>,
    body: Option<Body>,
) -> Result<Outgoing, Fault> {
    let (mut body, mut framing, mut again) = (body, request.framing, None);
    if let Some(incoming) = body.take_if(|_| shelf.buffers.request) {
        let collected = spool::collect(incoming, shelf, &exchange.worker, &exchange.id).await?;
        if collected.trailers.is_none() {
            framing = if collected.length == 0 { Framing::None } else { Framing::Length(collected.length) };
        }
        body = (framing != Framing::None).then(|| collected.replay());
        again = Some(Box::new(move || collected.replay()) as Box<dyn Fn() -> Body>);
    }
    Ok(Outgoing {
        head: head(&Stamp::of(exchange), request, framing),
        body,
        again,
        chunked: framing == Framing::Chunked,
        method: if request.websocket { Method::GET } else { request.method.clone() },
        upgrade: request.websocket,
        wants: upstream.cookie().and_then(|name| sticky::token(request.head.all(Known::Cookie), name)),
    })
}

/// Reads the head of an HTTP/1 request and writes the one that an upstream would get: what every request costs in
/// memory alone, for benchmarks.
///
/// # Errors
/// The head is refused.
pub fn rewrite(text: &[u8], client: ClientAddr, id: &str) -> Result<Bytes, Fault> {
    let request = Request::from_h1(text)?;
    let trace = TraceContext::of(&request.head);
    let stamp = Stamp { client, name: b"", id, gated: false, trace: trace.as_ref(), span: None };
    Ok(head(&stamp, &request, request.framing))
}

/// What the edge says of a request on its own account.
struct Stamp<'a> {
    client: ClientAddr,
    /// The TLS server name; empty without TLS.
    name: &'a [u8],
    /// The request's id.
    id: &'a str,
    /// Whether Authorization was for the edge, which has looked at it: it is no business of the upstream.
    gated: bool,
    /// The trace that the request belongs to.
    trace: Option<&'a TraceContext>,
    /// The span of the edge's that the upstream's own is to be below.
    span: Option<SpanId>,
}

impl<'a> Stamp<'a> {
    fn of(exchange: &'a Exchange) -> Self {
        let name = exchange.link.tls.as_ref().map(|tls| tls.name.as_str().as_bytes());
        Self {
            client: exchange.client,
            name: name.unwrap_or_default(),
            id: &exchange.id,
            gated: exchange.user.get().is_some(),
            trace: exchange.context(false),
            span: exchange.trace.attempts.as_ref().map(|attempts| attempts.named()),
        }
    }
}

/// The head as the upstream gets it.
fn head(stamp: &Stamp<'_>, request: &Request, framing: Framing) -> Bytes {
    let mut out = Vec::with_capacity(1024);
    let method = if request.websocket { "GET" } else { request.method.as_str() };
    let own_key = request.websocket && request.protocol == Protocol::Http2;
    out.extend_from_slice(method.as_bytes());
    out.push(b' ');
    out.extend_from_slice(request.target());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    let authority = match request.authority {
        Some(authority) => request.head.slice(authority.whole),
        // HTTP/1.0 without Host: the handshake named the site.
        None => stamp.name,
    };
    line(&mut out, b"host: ", authority);
    let passes = |known| stamp.trace.is_some_and(|trace| trace.passes(known));
    copy_fields(&mut out, &request.head, |known| {
        forwarded::is_dropped(known)
            || trace::is_part(known) && !passes(known)
            || own_key && known == Known::SecWebSocketKey
            || stamp.gated && known == Known::Authorization
    });
    let port = request.authority.and_then(|authority| authority.port).unwrap_or(443);
    forwarded::write(&mut out, stamp.client, authority, port);
    line(&mut out, b"x-request-id: ", stamp.id.as_bytes());
    if let Some(trace) = stamp.trace {
        trace.write(&mut out, stamp.span);
    }
    let via: &[u8] = match request.protocol {
        Protocol::Http10 => b"1.0 vestibule",
        Protocol::Http11 => b"1.1 vestibule",
        Protocol::Http2 => b"2 vestibule",
    };
    line(&mut out, b"via: ", via);
    frame(&mut out, stamp, request, framing);
    out.extend_from_slice(b"\r\n");
    out.into()
}

/// The fields about this hop: framing, and the upgrade that is asked for.
fn frame(out: &mut Vec<u8>, stamp: &Stamp<'_>, request: &Request, framing: Framing) {
    if request.websocket {
        line(out, b"connection: ", b"Upgrade");
        line(out, b"upgrade: ", b"websocket");
        if request.protocol == Protocol::Http2 {
            // HTTP/2 has no key; HTTP/1.1 asks for one (RFC 8441 section 5.1).
            line(out, b"sec-websocket-key: ", websocket_key(stamp.id).as_bytes());
        }
        return;
    }
    match framing {
        Framing::Length(length) => {
            line(out, b"content-length: ", itoa::Buffer::new().format(length).as_bytes());
        }
        Framing::Chunked => line(out, b"transfer-encoding: ", b"chunked"),
        // Some upstreams wait for a length where a method may have a body (RFC 9110 section 8.6).
        Framing::None | Framing::Close
            if matches!(request.method, Method::POST | Method::PUT | Method::PATCH) =>
        {
            line(out, b"content-length: ", b"0");
        }
        Framing::None | Framing::Close => {}
    }
}

/// Sixteen octets in base64, as different from one request to the next as their ids.
fn websocket_key(id: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(id.as_bytes().get(..16).unwrap_or_default())
}

/// Whether the upstream speaks WebSocket from here on, and has read this request: over HTTP/2 nobody else could tell
/// (RFC 6455 section 4.1).
fn check_switch(head: &Head, request: &Request, id: RequestId) -> Result<(), Fault> {
    let broken = |reason| Err(Fault::UpstreamBroken { reason, source: None });
    if !head.first(Known::Upgrade).is_some_and(|value| value.eq_ignore_ascii_case(b"websocket")) {
        return broken("it switched to another protocol than WebSocket");
    }
    let expected = || websocket_accept(&websocket_key(&id));
    if request.protocol == Protocol::Http2
        && head.first(Known::SecWebSocketAccept) != Some(expected().as_bytes())
    {
        return broken("its Sec-WebSocket-Accept is not that of the key");
    }
    Ok(())
}

/// What a server says to a key.
fn websocket_accept(key: &str) -> String {
    use base64::Engine as _;
    const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    let digest = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, format!("{key}{GUID}").as_bytes());
    base64::engine::general_purpose::STANDARD.encode(digest)
}

/// Copies field lines but those that `dropped` names and those that Connection names (RFC 9110 section 7.6.1). Several
/// Cookie lines become one: WSGI would join them with commas, which cookies do not understand.
fn copy_fields(out: &mut Vec<u8>, head: &Head, dropped: impl Fn(Known) -> bool) {
    let nominated = head.nominated();
    let passes = |name: &[u8], known| !dropped(known) && !is_among(&nominated, name);
    for field in head.fields().filter(|field| field.known != Known::Cookie && passes(field.name, field.known))
    {
        out.extend_from_slice(field.name);
        out.extend_from_slice(b": ");
        out.extend_from_slice(field.value);
        out.extend_from_slice(b"\r\n");
    }
    let cookies: Vec<&[u8]> = head.all(Known::Cookie).collect();
    if !cookies.is_empty() && passes(b"cookie", Known::Cookie) {
        line(out, b"cookie: ", &cookies.join(&b"; "[..]));
    }
}

fn is_among(names: &[Vec<u8>], name: &[u8]) -> bool {
    names.iter().any(|own| own.eq_ignore_ascii_case(name))
}

/// The upstream's answer as the client gets it.
fn response(
    exchange: &Exchange,
    request: &Request,
    upstream: &Upstream,
    shelf: &Arc<Shelf>,
    answer: Answer,
    mut call: Call,
) -> Result<Response, Fault> {
    let Answer { status, mut head, framing } = answer;
    let length = match framing {
        Framing::Length(length) => Some(length),
        Framing::None if request.method == Method::HEAD || status == StatusCode::NOT_MODIFIED => {
            framing::content_length(&head).unwrap_or_default()
        }
        Framing::None => Some(0),
        Framing::Chunked | Framing::Close => None,
    };
    let events = is_event_stream(&head);
    let at_once = events || !shelf.buffers.response || wants_no_buffer(&head);
    if status == StatusCode::SWITCHING_PROTOCOLS {
        check_switch(&head, request, exchange.id)?;
    }
    let nominated = head.nominated();
    head.retain(|known, name| !is_hop(known) && !is_among(&nominated, name));
    if let Some(cookie) = call.cookie(upstream) {
        head.push(b"set-cookie", &cookie);
    }
    if status == StatusCode::SWITCHING_PROTOCOLS {
        let (io, behind) =
            call.into_tunnel().ok_or_else(|| Fault::internal("a tunnel without a connection"))?;
        let payload = Payload::Tunnel(Box::new(io), behind);
        return Ok(Response { status, head, length: None, payload, close: true });
    }
    if head.first(Known::Date).is_none() {
        // RFC 9110 section 6.6.1.
        head.push(b"date", exchange.worker.clock.http_date().as_bytes());
    }
    if events {
        call.wait_for_ever();
    }
    let payload = match framing {
        Framing::None => {
            call.end();
            Payload::Empty
        }
        _ if at_once => Payload::Upstream(Box::new(call)),
        _ => Payload::Ahead(Box::new(Ahead::new(call, shelf, &exchange.worker))),
    };
    Ok(Response { status, head, length, payload, close: false })
}

/// Whether a field of the upstream's speaks of its own hop, or to the edge alone.
pub(super) fn is_hop(known: Known) -> bool {
    matches!(
        known,
        Known::Connection
            | Known::ContentLength
            | Known::KeepAlive
            | Known::ProxyConnection
            | Known::TransferEncoding
            | Known::Te
            | Known::Upgrade
            | Known::XAccel
    )
}

/// `X-Accel-Buffering: no`, by which an application asks for its answer to pass straight through.
fn wants_no_buffer(head: &Head) -> bool {
    head.fields().any(|field| {
        field.name.eq_ignore_ascii_case(b"x-accel-buffering") && field.value.eq_ignore_ascii_case(b"no")
    })
}

fn is_event_stream(head: &Head) -> bool {
    const EVENTS: &[u8] = b"text/event-stream";
    head.first(Known::ContentType)
        .and_then(|value| value.get(..EVENTS.len()))
        .is_some_and(|kind| kind.eq_ignore_ascii_case(EVENTS))
}

/// Tells the log which setting a body is too long for, and by how much where its client has said so.
pub(super) fn too_large(ceiling: &Ceiling, length: Option<u64>, id: RequestId) -> Fault {
    let setting = &*ceiling.setting;
    tracing::warn!(request_id = %id, setting, length, "a request's body is longer than it may be (413)");
    Fault::BodyTooLarge
}

/// A body that may not be longer than its route allows.
struct Limited {
    body: Body,
    left: u64,
    ceiling: Arc<Ceiling>,
    /// The request's.
    id: RequestId,
}

impl Limited {
    #[allow(clippy::new_ret_no_self, reason = "what reads a body asks for no more of it")]
    fn new(body: Body, ceiling: &Arc<Ceiling>, id: RequestId) -> Body {
        Box::new(Self { body, left: ceiling.octets, ceiling: Arc::clone(ceiling), id })
    }
}

impl http_body::Body for Limited {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame {
            let length = frame.data_ref().map_or(0, |data| data.len() as u64);
            match self.left.checked_sub(length) {
                Some(left) => self.left = left,
                None => return Poll::Ready(Some(Err(too_large(&self.ceiling, None, self.id)))),
            }
        }
        Poll::Ready(frame)
    }
}
