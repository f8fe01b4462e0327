//! The socket of an HTTP/1 connection, its buffers and its deadline: shared by the connection and the body that is
//! read from it, in one task.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::wire::chunked::Piece;
use crate::wire::deadline::Deadline;
use crate::wire::head::Scanner;
use crate::wire::scratch::poll_read_into;

/// How much of the requests behind the current one is read ahead, in octets.
const READ_AHEAD: usize = 32 * 1024;

/// What both ends of the connection's task hold.
pub(super) type Shared<S> = Rc<RefCell<Wire<S>>>;

/// One HTTP/1 connection's socket.
pub(super) struct Wire<S> {
    pub(super) io: S,
    /// What was read and not yet used.
    pub(super) buffer: BytesMut,
    /// What waits to be written before anything else: heads, interim answers, chunk lines.
    pub(super) out: BytesMut,
    pub(super) deadline: Deadline,
    /// Whether the current request's body was read to its end.
    pub(super) body_done: bool,
    /// Whether the client waits for a 100, which may go out until the answer begins.
    pub(super) expects_continue: bool,
    /// How far the next request's head was looked through.
    pub(super) scanner: Scanner,
    /// Empty lines that were skipped before the next request.
    pub(super) empty_lines: u8,
    ended: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub(super) fn new(io: S) -> Self {
        Self {
            io,
            buffer: BytesMut::new(),
            out: BytesMut::new(),
            deadline: Deadline::default(),
            body_done: true,
            expects_continue: false,
            scanner: Scanner::default(),
            empty_lines: 0,
            ended: false,
        }
    }

    /// Reads once; 0 is the end.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.ended {
            return Poll::Ready(Ok(0));
        }
        let read = ready!(poll_read_into(&mut self.io, &mut self.buffer, cx));
        self.ended = !matches!(read, Ok(1..));
        Poll::Ready(read)
    }

    /// Ready when the client has left, while its request is being answered. Requests that it sends ahead are kept, up
    /// to a bound behind which it is no longer listened to.
    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.body_done && self.buffer.len() < READ_AHEAD {
            match ready!(self.poll_read(cx)) {
                Ok(1..) => {}
                _ => return Poll::Ready(()),
            }
        }
        Poll::Pending
    }

    /// Writes what waits, and then a piece of a body. `stall` bounds each pause of the client.
    pub(super) fn poll_write(
        &mut self,
        piece: &mut Piece,
        stall: Duration,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.out.is_empty() || piece.has_remaining() {
            let slices =
                [IoSlice::new(&self.out), IoSlice::new(piece.first_ref()), IoSlice::new(piece.last_ref())];
            let Poll::Ready(written) = Pin::new(&mut self.io).poll_write_vectored(cx, &slices) else {
                return self.poll_write_stalled(stall, cx);
            };
            let written = written?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let front = written.min(self.out.len());
            self.out.advance(front);
            piece.advance(written - front);
            self.deadline.clear();
        }
        self.poll_flush(stall, cx)
    }

    /// Hands to the kernel what TLS still holds.
    fn poll_flush(&mut self, stall: Duration, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.io).poll_flush(cx) {
            Poll::Ready(flushed) => {
                self.deadline.clear();
                Poll::Ready(flushed)
            }
            Poll::Pending => self.poll_write_stalled(stall, cx),
        }
    }

    fn poll_write_stalled(&mut self, stall: Duration, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.deadline.is_set() {
            self.deadline.set(stall);
        }
        ready!(self.deadline.poll_passed(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Gives back memory that an idle connection does not need.
    pub(super) fn rest(&mut self) {
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
        if self.out.is_empty() {
            self.out = BytesMut::new();
        }
    }
}
