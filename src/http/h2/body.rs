//! A request's body as it comes over an HTTP/2 stream.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::RecvStream;
use http::HeaderMap;
use http_body::Frame;

use crate::fault::Fault;
use crate::http::forwarded::is_dropped;
use crate::wire::Known;
use crate::wire::deadline::Deadline;

/// Frames that are shorter are put together where they have come already: each piece costs more than its octets.
const SHORT: usize = 1024;
/// How long what is put together becomes, in octets.
const TOGETHER: usize = 16 * 1024;

/// Reads the body on demand: the stream's window opens as its data is taken.
pub(super) struct Body {
    stream: RecvStream,
    deadline: Deadline,
    /// The longest pause.
    stall: Duration,
    received: Rc<Cell<u64>>,
    /// Tells that the body was asked for, which a client may wait to hear (RFC 9110 section 10.1.1).
    demanded: Rc<Cell<bool>>,
    ended: bool,
}

impl Body {
    pub(super) fn new(
        stream: RecvStream,
        stall: Duration,
        received: Rc<Cell<u64>>,
        demanded: Rc<Cell<bool>>,
    ) -> Self {
        Self { stream, deadline: Deadline::default(), stall, received, demanded, ended: false }
    }

    fn poll_stream(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        if !self.ended {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(data)) => return Poll::Ready(Some(Ok(Frame::data(self.join(data, cx))))),
                Some(Err(error)) => return Poll::Ready(Some(Err(fault(&error)))),
                None => self.ended = true,
            }
        }
        match ready!(self.stream.poll_trailers(cx)) {
            Ok(trailers) => Poll::Ready(
                trailers.and_then(|trailers| kept(&trailers)).map(|trailers| Ok(Frame::trailers(trailers))),
            ),
            Err(error) => Poll::Ready(Some(Err(fault(&error)))),
        }
    }

    /// Data together with what has come behind it already, where it is short.
    fn join(&mut self, first: Bytes, cx: &mut Context<'_>) -> Bytes {
        self.took(&first);
        if first.len() >= SHORT {
            return first;
        }
        let Some(second) = self.take(cx) else { return first };
        let mut joined = BytesMut::from(first);
        joined.extend_from_slice(&second);
        while joined.len() < TOGETHER
            && let Some(more) = self.take(cx)
        {
            joined.extend_from_slice(&more);
        }
        joined.freeze()
    }

    /// Data that has come. What else has, as an end or an error, is found again at the next call.
    fn take(&mut self, cx: &mut Context<'_>) -> Option<Bytes> {
        let Poll::Ready(Some(Ok(data))) = self.stream.poll_data(cx) else { return None };
        self.took(&data);
        Some(data)
    }

    fn took(&mut self, data: &Bytes) {
        // Fails only for more than was received.
        let _ = self.stream.flow_control().release_capacity(data.len());
        self.received.set(self.received.get() + data.len() as u64);
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        self.demanded.set(true);
        if let Poll::Ready(frame) = self.poll_stream(cx) {
            self.deadline.clear();
            return Poll::Ready(frame);
        }
        if !self.deadline.is_set() {
            let stall = self.stall;
            self.deadline.set(stall);
        }
        self.deadline.poll_passed(cx).map(|()| Some(Err(Fault::RequestTimeout)))
    }
}

/// A stream that the client reset is its leaving; one that the protocol's rules ended was malformed.
fn fault(error: &h2::Error) -> Fault {
    if error.is_remote() || error.is_io() {
        Fault::ClientGone
    } else {
        Fault::BadRequest("the body is malformed")
    }
}

/// Trailers may not say what a head says about framing, routing or the client (RFC 9110 section 6.5.1).
fn kept(trailers: &HeaderMap) -> Option<HeaderMap> {
    let mut map = HeaderMap::new();
    for (name, value) in trailers {
        if !is_dropped(Known::of(name.as_str().as_bytes())) {
            map.append(name.clone(), value.clone());
        }
    }
    (!map.is_empty()).then_some(map)
}
