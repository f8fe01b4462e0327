//! An answer as HTTP/2 sends it.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderValue, StatusCode};
use tokio::io::AsyncWriteExt;

use super::backlog::{Piece, Share};
use super::duplex::Duplex;
use super::head;
use crate::config::model::Limits;
use crate::fault::Fault;
use crate::http::client::LEAST;
use crate::http::exchange::Exchange;
use crate::http::response::{Payload, Response};
use crate::http::{finish, tunnel};
use crate::upstream::{Chunk, Io};
use crate::wire::deadline::Deadline;

/// Sends an answer to its end, or resets the stream where that cannot be reached.
pub(super) async fn send(
    exchange: &mut Exchange,
    stream: &mut SendResponse<Piece>,
    response: Response,
    websocket: Option<RecvStream>,
    share: Share,
    limits: &Limits,
) {
    let Response { status, head, length, mut payload, .. } = response;
    let tunnel = matches!(payload, Payload::Tunnel(..));
    // Any success says that the WebSocket is open (RFC 8441 section 5).
    let first = match poll_fn(|cx| Poll::Ready(payload.first(share.most(), cx))).await {
        _ if websocket.is_some() && !tunnel && status.is_success() => {
            Err(Fault::UpstreamBroken { reason: "it did not switch to WebSocket", source: None })
        }
        first => first,
    };
    let first = match first {
        Ok(first) => first,
        Err(fault) => {
            let failed = finish::fault(exchange, fault);
            return Box::pin(send(exchange, stream, failed, None, share, limits)).await;
        }
    };
    let mut answer = http::Response::new(());
    // A WebSocket that HTTP/1.1 opens with 101 is opened by 200 here (RFC 8441 section 5).
    *answer.status_mut() = if tunnel { StatusCode::OK } else { status };
    *answer.headers_mut() = head::fields(&head);
    if let Some(length) = length.filter(|_| !tunnel && status != StatusCode::NO_CONTENT) {
        answer.headers_mut().insert(http::header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    if tunnel {
        answer.headers_mut().remove(http::header::SEC_WEBSOCKET_ACCEPT);
    }
    exchange.status = answer.status().as_u16();
    let Ok(stream) = stream.send_response(answer, payload.is_empty()) else {
        exchange.fault = Some(Fault::ClientGone);
        return;
    };
    match (payload, websocket) {
        (Payload::Tunnel(io, behind), Some(receive)) => {
            join(Duplex::new(stream, receive, share), *io, behind).await;
        }
        (payload, _) if payload.is_empty() => {}
        (payload, _) => {
            let mut sender = Sender::new(stream, payload, first, share);
            if let Err(fault) = poll_fn(|cx| sender.poll(exchange, limits, cx)).await {
                sender.stream.send_reset(Reason::INTERNAL_ERROR);
                exchange.fault.get_or_insert(fault);
            }
        }
    }
}

/// A body on its way.
struct Sender {
    stream: SendStream<Piece>,
    payload: Payload,
    /// What lay behind the head already.
    first: Option<Chunk>,
    share: Share,
    data: Piece,
    /// Whether `data` is the last of it.
    ended: bool,
    deadline: Deadline,
    /// How much the connection had taken as the deadline was set.
    taken: u64,
}

impl Sender {
    fn new(stream: SendStream<Piece>, payload: Payload, first: Option<Chunk>, share: Share) -> Self {
        let (data, deadline) = (Piece::default(), Deadline::default());
        Self { stream, payload, first, share, data, ended: false, deadline, taken: 0 }
    }

    fn poll(
        &mut self,
        exchange: &mut Exchange,
        limits: &Limits,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Fault>> {
        if let Some(chunk) = self.first.take()
            && self.take(chunk, exchange, cx)?
        {
            return Poll::Ready(Ok(()));
        }
        loop {
            if !self.data.has_remaining() {
                let Poll::Ready(most) = self.share.poll_most(cx) else {
                    self.payload.poll_ahead(self.share.most(), cx);
                    return self.poll_stuck(limits, cx);
                };
                self.deadline.clear();
                match self.payload.poll_chunk(most, cx) {
                    Poll::Ready(chunk) => {
                        if self.take(chunk?, exchange, cx)? {
                            return Poll::Ready(Ok(()));
                        }
                    }
                    Poll::Pending => return self.stream.poll_reset(cx).map(|_| Err(Fault::ClientGone)),
                }
            }
            let Poll::Ready(open) = self.poll_window(limits, cx) else {
                self.payload.poll_ahead(self.share.most(), cx);
                return Poll::Pending;
            };
            open?;
            let room = self.stream.capacity().min(self.data.remaining());
            let last = self.ended && room == self.data.remaining();
            let piece = self.data.split_to(room);
            self.stream.send_data(piece, last).map_err(|_| Fault::ClientGone)?;
            if last {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Takes a piece; true when there is nothing more to send. An end that is known with the last data goes out with it.
    fn take(&mut self, chunk: Chunk, exchange: &mut Exchange, cx: &mut Context<'_>) -> Result<bool, Fault> {
        match chunk {
            Chunk::Data(data) => {
                exchange.sent += data.len() as u64;
                self.ended = self.payload.is_at_end()
                    && matches!(self.payload.poll_chunk(LEAST, cx), Poll::Ready(Ok(Chunk::End(None))));
                let small = self.ended && data.len() <= LEAST;
                self.data = if small { Piece::small(data) } else { self.share.hold(data) };
                Ok(false)
            }
            Chunk::End(trailers) => {
                let sent = match trailers
                    .map(|trailers| head::passing_fields(&trailers))
                    .filter(|map| !map.is_empty())
                {
                    Some(trailers) => self.stream.send_trailers(trailers),
                    None => self.stream.send_data(Piece::default(), true),
                };
                sent.map(|()| true).map_err(|_| Fault::ClientGone)
            }
        }
    }

    /// Waits until the client's window has room.
    fn poll_window(&mut self, limits: &Limits, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        self.stream.reserve_capacity(self.data.remaining());
        while self.stream.capacity() == 0 {
            match self.stream.poll_capacity(cx) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(_) => return Poll::Ready(Err(Fault::ClientGone)),
                Poll::Pending => {
                    if !self.deadline.is_set() {
                        self.deadline.set(limits.idle_timeout);
                    }
                    ready!(self.deadline.poll_passed(cx));
                    return Poll::Ready(Err(Fault::ClientGone));
                }
            }
        }
        self.deadline.clear();
        Poll::Ready(Ok(()))
    }

    /// Waits until the client has taken what this answer holds: ready when it does not, or is gone.
    fn poll_stuck(&mut self, limits: &Limits, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        let taken = self.share.taken();
        if !self.deadline.is_set() || taken != self.taken {
            self.taken = taken;
            self.deadline.set(limits.idle_timeout);
        }
        if self.deadline.poll_passed(cx).is_ready() {
            return Poll::Ready(Err(Fault::ClientGone));
        }
        self.stream.poll_reset(cx).map(|_| Err(Fault::ClientGone))
    }
}

/// From here on the stream carries a WebSocket.
async fn join(mut client: Duplex, upstream: Io, behind: Bytes) {
    if client.write_all(&behind).await.is_ok() {
        tunnel::join(client, upstream).await;
    }
}
