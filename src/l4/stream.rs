//! The ends of a forwarded connection.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::tls::ReadAhead;
use crate::upstream::Io;

/// One end of a forwarded connection.
pub(super) enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// What is forwarded to.
    Target(Io),
    /// TLS with a client.
    Tls(Box<TlsStream<ReadAhead<TcpStream>>>),
}

impl Stream {
    /// Reads into a buffer; 0 is the end. A TLS client that leaves without saying so has left all the same.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        let read = match self {
            Self::Tcp(tcp) => Pin::new(tcp).poll_read(cx, &mut buffer),
            Self::Target(io) => Pin::new(io).poll_read(cx, &mut buffer),
            Self::Tls(tls) => match Pin::new(tls.as_mut()).poll_read(cx, &mut buffer) {
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    Poll::Ready(Ok(()))
                }
                read => read,
            },
        };
        read.map_ok(|()| buffer.filled().len())
    }

    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Self::Target(io) => Pin::new(io).poll_write(cx, bytes),
            Self::Tls(tls) => Pin::new(tls.as_mut()).poll_write(cx, bytes),
        }
    }

    /// Sends what TLS has encrypted and not yet sent.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(_) | Self::Target(_) => Poll::Ready(Ok(())),
            Self::Tls(tls) => Pin::new(tls.as_mut()).poll_flush(cx),
        }
    }

    /// Says that nothing more will come.
    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Target(io) => Pin::new(io).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls.as_mut()).poll_shutdown(cx),
        }
    }

    /// Has the end closed by a reset once this is dropped: what it is told is that something broke. A unix socket knows no
    /// such thing.
    pub(super) fn reset(&self) {
        if let Some(tcp) = self.tcp() {
            // One that is broken already needs none.
            let _ = SockRef::from(tcp).set_linger(Some(Duration::ZERO));
        }
    }

    /// How the other end has broken off, of which nobody hears who does not read.
    pub(super) fn broken(&self) -> Option<io::Error> {
        SockRef::from(self.tcp()?).take_error().unwrap_or_else(Some)
    }

    /// The TCP connection where nothing is between it and the bytes.
    pub(super) fn plain(&self) -> Option<&TcpStream> {
        match self {
            Self::Tls(_) => None,
            Self::Tcp(_) | Self::Target(_) => self.tcp(),
        }
    }

    /// The TCP connection, under TLS or not.
    pub(super) fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Self::Tcp(tcp) => Some(tcp),
            Self::Tls(tls) => Some(tls.get_ref().0.get_ref()),
            Self::Target(io) => io.tcp(),
        }
    }
}
