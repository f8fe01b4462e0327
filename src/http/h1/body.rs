//! A request's body as it comes over an HTTP/1 connection.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::Frame;
use tokio::io::{AsyncRead, AsyncWrite};

use super::wire::{Shared, Wire};
use crate::fault::Fault;
use crate::http::forwarded::is_dropped;
use crate::wire::chunked::{Decoded, Decoder};
use crate::wire::deadline::Deadline;
use crate::wire::{Framing, Head};

/// Reads the body on demand; the 100 that the client may wait for goes out at the first demand.
pub(super) struct Body<S> {
    wire: Shared<S>,
    state: State,
    deadline: Deadline,
    /// The longest pause.
    stall: Duration,
    received: Rc<Cell<u64>>,
}

enum State {
    Length(u64),
    Chunked(Decoder),
    Done,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Body<S> {
    /// The body that `framing` announces; None when it announces none.
    pub(super) fn new(
        wire: &Shared<S>,
        framing: Framing,
        expects_continue: bool,
        stall: Duration,
        received: Rc<Cell<u64>>,
    ) -> Option<Self> {
        let state = match framing {
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Chunked(Decoder::default()),
            Framing::None | Framing::Close => return None,
        };
        let mut shared = wire.borrow_mut();
        shared.body_done = false;
        shared.expects_continue = expects_continue;
        Some(Self { wire: Rc::clone(wire), state, deadline: Deadline::default(), stall, received })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> http_body::Body for Body<S> {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let this = &mut *self;
        let mut wire = this.wire.borrow_mut();
        if std::mem::take(&mut wire.expects_continue) && wire.buffer.is_empty() {
            wire.out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
            // The connection's own loop writes it, for it looks after this very poll.
        }
        loop {
            match this.state.take(&mut wire) {
                Ok(Some(Piece::Data(data))) => {
                    this.received.set(this.received.get() + data.len() as u64);
                    wire.body_done = matches!(this.state, State::Done);
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Ok(Some(Piece::Trailers(trailers))) => {
                    this.state = State::Done;
                    wire.body_done = true;
                    return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
                }
                Ok(None) => {}
                Err(fault) => return Poll::Ready(Some(Err(fault))),
            }
            match wire.poll_read(cx) {
                Poll::Ready(Ok(1..)) => this.deadline.clear(),
                Poll::Ready(_) => return Poll::Ready(Some(Err(Fault::ClientGone))),
                Poll::Pending => {
                    if !this.deadline.is_set() {
                        this.deadline.set(this.stall);
                    }
                    return this.deadline.poll_passed(cx).map(|()| Some(Err(Fault::RequestTimeout)));
                }
            }
        }
    }
}

enum Piece {
    Data(Bytes),
    /// The end, with trailers or without.
    Trailers(Option<HeaderMap>),
}

impl State {
    fn take<S>(&mut self, wire: &mut Wire<S>) -> Result<Option<Piece>, Fault> {
        match self {
            Self::Done => Ok(Some(Piece::Trailers(None))),
            _ if wire.buffer.is_empty() => Ok(None),
            Self::Length(left) => {
                let take = usize::try_from(*left).unwrap_or(usize::MAX).min(wire.buffer.len());
                *left -= take as u64;
                if *left == 0 {
                    *self = Self::Done;
                }
                Ok(Some(Piece::Data(wire.buffer.split_to(take).freeze())))
            }
            Self::Chunked(decoder) => match decoder.decode(&mut wire.buffer).map_err(Fault::BadRequest)? {
                Decoded::Data(data) => Ok(Some(Piece::Data(data))),
                Decoded::End(head) => Ok(Some(Piece::Trailers(trailers(&head)))),
                Decoded::More => Ok(None),
            },
        }
    }
}

/// Trailers may not say what a head says about framing, routing or the client (RFC 9110 section 6.5.1).
fn trailers(head: &Head) -> Option<HeaderMap> {
    let mut map = HeaderMap::new();
    for field in head.fields().filter(|field| !is_dropped(field.known)) {
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(field.name), HeaderValue::from_bytes(field.value))
        {
            map.append(name, value);
        }
    }
    (!map.is_empty()).then_some(map)
}
