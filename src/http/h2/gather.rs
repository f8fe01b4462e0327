//! The socket of an HTTP/2 connection: what one turn of the connection's task has to say goes out together, and what it reads
//! has an end.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::overhead::Overhead;

/// The most that waits for the end of a turn, in octets. Of 64 to 256 KiB what pays best for one large answer and for
/// many small ones together.
const MOST: usize = 128 * 1024;
/// How much is read in one turn, in octets: then the streams' tasks have theirs, and the thread's other connections. A task that
/// asks again for each request that it finds would else read on for as long as there is something.
const TURN: usize = 64 * 1024;

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
    /// How much may still be read in this turn.
    left: usize,
    overhead: Overhead,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Gather<S> {
    pub(super) fn new(io: S) -> Self {
        let inner = Inner { io, waiting: Vec::new(), written: 0, left: TURN, overhead: Overhead::new() };
        Self(Rc::new(RefCell::new(inner)))
    }

    /// Sends what was gathered: the turn's end.
    pub(super) fn poll_send(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let inner = &mut *self.0.borrow_mut();
        inner.left = TURN;
        inner.poll_send(cx)
    }

    /// Reads to the end, or as much as `most`, and forgets what comes.
    pub(super) fn poll_forget(&self, most: &mut usize, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let inner = &mut *self.0.borrow_mut();
        let mut ignored = [0; 1024];
        loop {
            let mut read = ReadBuf::new(&mut ignored);
            ready!(Pin::new(&mut inner.io).poll_read(cx, &mut read))?;
            *most = most.saturating_sub(read.filled().len());
            if read.filled().is_empty() || *most == 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// A request was begun.
    pub(super) fn request(&self) {
        self.0.borrow_mut().overhead.request();
    }

    /// Whether more has come beside requests than any client needs.
    pub(super) fn is_flooded(&self) -> bool {
        self.0.borrow_mut().overhead.is_flood()
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
        let inner = &mut *self.0.borrow_mut();
        // Whoever was told so for the first time in this turn is woken.
        if inner.left == 0 {
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut inner.io).poll_read(cx, buf);
        if polled.is_pending() {
            inner.left = 0;
        }
        ready!(polled)?;
        let read = buf.filled().get(before..).unwrap_or_default();
        inner.left = inner.left.saturating_sub(read.len());
        if inner.left == 0 {
            cx.waker().wake_by_ref();
        }
        Poll::Ready(inner.overhead.received(read).map_err(io::Error::other))
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
            let written = ready!(Pin::new(&mut inner.io).poll_write_vectored(cx, bufs))?;
            inner.overhead.sent(written);
            return Poll::Ready(Ok(written));
        }
        inner.overhead.sent(length);
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

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncWriteExt as _, duplex};

    use super::*;

    /// Reads until there is nothing more in this turn: how much.
    fn read_all<S: AsyncRead + AsyncWrite + Unpin>(gather: &mut Gather<S>, cx: &mut Context<'_>) -> usize {
        let (mut octets, mut all) = ([0; 5000], 0);
        loop {
            let mut read = ReadBuf::new(&mut octets);
            if Pin::new(&mut *gather).poll_read(cx, &mut read).is_pending() {
                return all;
            }
            all += read.filled().len();
        }
    }

    #[tokio::test]
    async fn a_turn_ends_where_there_is_nothing_more_and_after_so_much() {
        let (mut near, far) = duplex(TURN * 2);
        let mut gather = Gather::new(far);
        near.write_all(&[0; 10]).await.unwrap();
        assert_eq!(poll_fn(|cx| Poll::Ready(read_all(&mut gather, cx))).await, 10);
        near.write_all(&vec![0; TURN + 10_000]).await.unwrap();
        let mut turns = Vec::new();
        // Pending would never end but for the waker, which the reading has woken itself.
        poll_fn(|cx| {
            turns.push(read_all(&mut gather, cx));
            assert!(gather.poll_send(cx).is_ready());
            if turns.len() == 3 { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        assert_eq!(turns, [0, 14 * 5000, TURN + 10_000 - 14 * 5000]);
    }
}
