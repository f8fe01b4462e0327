//! A request's way out on one connection.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http_body::Body as _;
use tokio::io::AsyncWrite;

use super::Outgoing;
use super::conn::Socket;
use crate::fault::Fault;
use crate::wire::Body;
use crate::wire::chunked::{Piece, chunk, plain};

/// Whoever reads of a request at all takes so many octets at once, and all that lie there: the smallest buffer that a
/// server is known to read into (Go's; gunicorn's has 8 KiB).
const ONE_READ: u64 = 4096;

/// A request, and what of it is still to be sent.
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(super) struct Sender {
    /// The head as it was given, for sending it again.
    pub(super) head: Bytes,
    /// What of the head, and of the framing, goes out before the piece.
    front: Bytes,
    piece: Piece,
    pub(super) body: Option<Body>,
    /// Whether the body was asked for anything yet: until then the request can be sent again.
    pub(super) touched: bool,
    pub(super) chunked: bool,
    /// Whether the head waits for the body's first piece, to go out with it: one write, and one segment, less.
    joined: bool,
    pub(super) phase: Phase,
    /// Whether the client's next piece of the body is waited for.
    pub(super) starved: bool,
    /// Whether the kernel took something since the last look.
    pub(super) moved: bool,
    /// How many octets the kernel took.
    pub(super) written: u64,
    /// In how many pieces.
    writes: u32,
}

/// How far it is.
#[derive(Debug)]
pub(super) enum Phase {
    Sending,
    Done,
    /// The upstream does not take more; its answer may tell why.
    Broken(Option<io::Error>),
}

impl Sender {
    /// All of a request. `outgoing` keeps what is needed to make it again.
    pub(super) fn new(outgoing: &mut Outgoing) -> Self {
        Self {
            front: outgoing.head.clone(),
            head: outgoing.head.clone(),
            piece: plain(Bytes::new()),
            body: outgoing.body.take(),
            touched: false,
            chunked: outgoing.chunked,
            // A body that was kept loses nothing by being begun before the connection has proved good.
            joined: outgoing.again.is_some() && !outgoing.chunked,
            phase: Phase::Sending,
            starved: false,
            moved: false,
            written: 0,
            writes: 0,
        }
    }

    /// Writes what there is and asks the body for more, until one of them has to wait. An error is the client's.
    pub(super) fn poll(&mut self, io: &mut Socket, cx: &mut Context<'_>) -> Result<(), Fault> {
        if std::mem::take(&mut self.joined) && self.body.is_some() {
            let _ = self.poll_next(cx)?;
        }
        while !matches!(self.phase, Phase::Done | Phase::Broken(_)) {
            self.starved = false;
            match self.poll_write(io, cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => {
                    self.phase = Phase::Broken(Some(error));
                    self.body = None;
                    return Ok(());
                }
                Poll::Pending => return Ok(()),
            }
            self.starved = self.poll_next(cx)?.is_pending();
            if self.starved {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Whether all of it went out in one piece, which no server reads in part.
    pub(super) fn is_one_piece(&self) -> bool {
        matches!(self.phase, Phase::Done) && self.writes == 1 && self.written <= ONE_READ
    }

    fn poll_write(&mut self, io: &mut Socket, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.front.is_empty() || self.piece.has_remaining() {
            let (data, end) = (self.piece.first_ref(), self.piece.last_ref());
            let slices = [IoSlice::new(&self.front), IoSlice::new(data), IoSlice::new(end)];
            let written = ready!(Pin::new(&mut *io).poll_write_vectored(cx, &slices))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.moved = true;
            self.written += written as u64;
            self.writes += 1;
            let front = written.min(self.front.len());
            self.front.advance(front);
            self.piece.advance(written - front);
        }
        Pin::new(io).poll_flush(cx)
    }

    /// Takes the next piece of the body.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, Fault> {
        let Some(body) = &mut self.body else {
            self.phase = Phase::Done;
            return Ok(Poll::Ready(()));
        };
        self.touched = true;
        let Poll::Ready(frame) = Pin::new(body).poll_frame(cx) else { return Ok(Poll::Pending) };
        match frame.transpose()?.map(http_body::Frame::into_data) {
            Some(Ok(data)) => self.data_frame(data),
            Some(Err(trailers)) => self.end_frame(trailers.into_trailers().ok()),
            None => self.end_frame(None),
        }
        Ok(Poll::Ready(()))
    }

    fn data_frame(&mut self, data: Bytes) {
        if self.chunked && !data.is_empty() {
            let mut front = BytesMut::with_capacity(18);
            self.piece = chunk(data, &mut front);
            self.front = front.freeze();
        } else {
            self.piece = plain(data);
        }
    }

    /// The last chunk and the trailers. A body with a length has neither.
    fn end_frame(&mut self, trailers: Option<http::HeaderMap>) {
        self.body = None;
        if !self.chunked {
            return;
        }
        let mut front = BytesMut::from(&b"0\r\n"[..]);
        for (name, value) in &trailers.unwrap_or_default() {
            front.extend_from_slice(name.as_ref());
            front.extend_from_slice(b": ");
            front.extend_from_slice(value.as_bytes());
            front.extend_from_slice(b"\r\n");
        }
        front.extend_from_slice(b"\r\n");
        self.front = front.freeze();
    }
}
