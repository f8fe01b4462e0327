//! A client's connection: how much it takes now, so that nothing is read for a client that does not read.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::net::unsent;
use crate::tls::ReadAhead;
use crate::upstream::READ;

/// What is read for a client at once however little it takes, in octets.
pub(super) const LEAST: usize = 16 * 1024;
/// What a client gets at once that takes it, however full its socket is.
const USUAL: usize = 64 * 1024;
/// The kernel is not asked again while there is this much room, which makes for the largest pieces.
const ENOUGH: usize = 4 * READ;

/// A connection that answers are written to.
pub(super) trait Client: AsyncRead + AsyncWrite + Unpin + 'static {
    /// How much the kernel takes now, in octets.
    fn room(&self) -> usize;
    /// Whether something that was written waits for the kernel.
    fn is_behind(&self) -> bool;
}

/// How much of an answer is read at once into this room. Who keeps up leaves most of it free, and gets large pieces; of who
/// does not, less is caught in memory where the kernel runs short of its own and takes less than it said.
pub(super) fn share(room: usize) -> usize {
    (room / 4).max(room.min(USUAL)).clamp(LEAST, READ)
}

impl Client for TcpStream {
    fn room(&self) -> usize {
        unsent::room(self).unwrap_or(LEAST)
    }

    fn is_behind(&self) -> bool {
        false
    }
}

/// TLS that takes nothing more while what it has encrypted waits: it would hold 288 KiB for a client that does not read.
pub(super) struct Tls {
    io: TlsStream<ReadAhead<TcpStream>>,
    /// What is left of the room that there was when the kernel was asked.
    room: Cell<usize>,
}

impl Client for Tls {
    fn room(&self) -> usize {
        if self.room.get() < ENOUGH {
            self.room.set(self.io.get_ref().0.get_ref().room());
        }
        self.room.get()
    }

    fn is_behind(&self) -> bool {
        self.io.get_ref().1.wants_write()
    }
}

impl Tls {
    pub(super) fn new(io: TlsStream<ReadAhead<TcpStream>>) -> Self {
        Self { io, room: Cell::new(0) }
    }

    fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_behind() { Pin::new(&mut self.io).poll_flush(cx) } else { Poll::Ready(Ok(())) }
    }

    fn took(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(octets)) = written {
            self.room.set(self.room.get().saturating_sub(octets));
        }
        written
    }
}

impl AsyncRead for Tls {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Tls {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_sent(cx))?;
        let written = Pin::new(&mut self.io).poll_write(cx, buf);
        self.took(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_sent(cx))?;
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.took(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
