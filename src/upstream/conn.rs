//! One connection to an upstream.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Instant;
use tokio_rustls::client::TlsStream;

use super::pool::Key;
use crate::wire::deadline::Deadline;

/// A connection and what belongs to it between two requests.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) io: Io,
    /// What was read and not yet used: empty while it is idle.
    pub(super) buffer: BytesMut,
    pub(super) deadline: Deadline,
    pub(super) key: Key,
    /// The target's address, for the access line.
    pub(super) peer: Arc<str>,
    /// Whether it has carried a request before.
    pub(super) reused: bool,
    pub(super) idle_since: Instant,
}

/// The socket.
#[derive(Debug)]
pub enum Io {
    /// Plain TCP.
    Tcp(TcpStream),
    /// A unix socket.
    Unix(UnixStream),
    /// TLS over TCP.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Io {
    /// Whether nothing has come since the last answer: neither the end, nor bytes that nobody asked for. `surely` asks the
    /// kernel; otherwise it is known as of the worker's last turn of the event loop, at no cost.
    pub(super) fn is_quiet(&self, surely: bool) -> bool {
        let mut byte = [0];
        let seen = match self {
            Self::Tcp(tcp) => look(tcp, surely, &mut byte, TcpStream::try_read),
            Self::Unix(unix) => look(unix, surely, &mut byte, UnixStream::try_read),
            Self::Tls(tls) => look(tls.get_ref().0, surely, &mut byte, TcpStream::try_read),
        };
        seen.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(io) => Pin::new(io).poll_read(cx, buf),
            Self::Unix(io) => Pin::new(io).poll_read(cx, buf),
            Self::Tls(io) => Pin::new(io.as_mut()).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(io) => Pin::new(io).poll_write(cx, buf),
            Self::Unix(io) => Pin::new(io).poll_write(cx, buf),
            Self::Tls(io) => Pin::new(io.as_mut()).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(io) => Pin::new(io).poll_write_vectored(cx, bufs),
            Self::Unix(io) => Pin::new(io).poll_write_vectored(cx, bufs),
            Self::Tls(io) => Pin::new(io.as_mut()).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(io) => Pin::new(io).poll_flush(cx),
            Self::Unix(io) => Pin::new(io).poll_flush(cx),
            Self::Tls(io) => Pin::new(io.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(io) => Pin::new(io).poll_shutdown(cx),
            Self::Unix(io) => Pin::new(io).poll_shutdown(cx),
            Self::Tls(io) => Pin::new(io.as_mut()).poll_shutdown(cx),
        }
    }
}

/// `try_read` answers from what the event loop has seen; a peek asks the kernel itself.
fn look<S: std::os::fd::AsFd>(
    socket: &S,
    surely: bool,
    byte: &mut [u8],
    try_read: impl Fn(&S, &mut [u8]) -> io::Result<usize>,
) -> io::Result<usize> {
    if surely {
        let mut byte = [std::mem::MaybeUninit::uninit()];
        return socket2::SockRef::from(socket).peek(&mut byte);
    }
    try_read(socket, byte)
}
