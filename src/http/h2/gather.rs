//! The socket of an HTTP/2 connection: what one turn of the connection's task has to say goes out together.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The most that waits for the end of a turn, in octets. Of 64 to 256 KiB what pays best for one large answer and for
/// many small ones together.
const MOST: usize = 128 * 1024;

thread_local! {
    /// The buffer of whichever connection has its turn: those that wait hold none, unless the client does not read.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A stream that gathers small writes. The `h2` crate flushes after every frame of data; here that is left to
/// [`Gather::poll_send`], which the connection's task calls when it has nothing more to say: the answers of several
/// streams then cost one TLS record and one system call. Clones share it.
pub(super) struct Gather<S>(Rc<RefCell<Inner<S>>>);

struct Inner<S> {
    io: S,
    waiting: Vec<u8>,
    /// How much of `waiting` was written.
    written: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Gather<S> {
    pub(super) fn new(io: S) -> Self {
        Self(Rc::new(RefCell::new(Inner { io, waiting: Vec::new(), written: 0 })))
    }

    /// Sends what was gathered.
    pub(super) fn poll_send(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().poll_send(cx)
    }
}

impl<S> Clone for Gather<S> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Inner<S> {
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest @ [_, ..]) = self.waiting.get(self.written..) {
            match ready!(Pin::new(&mut self.io).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.written += written,
            }
        }
        if self.waiting.capacity() > 0 {
            self.written = 0;
            self.waiting.clear();
            SPARE.set(std::mem::take(&mut self.waiting));
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Gather<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.borrow_mut().io).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Gather<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let inner = &mut *self.0.borrow_mut();
        let length: usize = bufs.iter().map(|buf| buf.len()).sum();
        if inner.waiting.len() + length > MOST {
            ready!(inner.poll_drain(cx))?;
        }
        if length > MOST {
            return Pin::new(&mut inner.io).poll_write_vectored(cx, bufs);
        }
        if inner.waiting.capacity() == 0 {
            inner.waiting = SPARE.take();
        }
        for buf in bufs {
            inner.waiting.extend_from_slice(buf);
        }
        Poll::Ready(Ok(length))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let inner = &mut *self.0.borrow_mut();
        ready!(inner.poll_drain(cx))?;
        Pin::new(&mut inner.io).poll_shutdown(cx)
    }
}
