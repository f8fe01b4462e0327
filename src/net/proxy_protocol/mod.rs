//! The PROXY protocol, versions 1 and 2, as `proxy-protocol.txt` of `HAProxy` defines it: how a load balancer in front
//! names the client, whether or not to be believed is for the caller to say; and how the edge names it to others.

pub mod encode;
mod v1;
mod v2;

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt};

/// What a header says. Both addresses are None where the sender speaks for itself (LOCAL, as for a health check)
/// or does not know (UNKNOWN, UNSPEC): the connection's own ends hold then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Header {
    /// The client.
    pub source: Option<SocketAddr>,
    /// Where the client connected to.
    pub destination: Option<SocketAddr>,
}

/// What the bytes that are there make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed {
    /// A whole header, and how many octets it takes.
    Whole(Header, usize),
    /// The beginning of one, which takes at least so many octets more: never 0, never more than the header has.
    Missing(usize),
}

/// Why bytes are not a header. None of these may be answered; the connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// They begin otherwise.
    #[error("the connection does not begin with a PROXY header")]
    Absent,
    /// A version 1 line that is not exactly as the protocol has it.
    #[error("malformed PROXY line: {0}")]
    Line(&'static str),
    /// A version 2 block that is not.
    #[error("malformed PROXY v2 header: {0}")]
    Block(&'static str),
}

/// Why no header could be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// What came is no header.
    #[error(transparent)]
    Malformed(#[from] Error),
    /// The connection ended or failed before the header did.
    #[error("the connection broke off before its PROXY header was whole: {0}")]
    Io(#[from] io::Error),
}

/// The most octets of a version 2 header; room for a client's certificate in its extensions.
pub const MAX: usize = 16 * 1024;

/// Parses what stands at the head of a connection.
///
/// # Errors
/// The bytes are not the beginning of any header. What is wrong is told as soon as it can be known.
pub fn parse(bytes: &[u8]) -> Result<Parsed, Error> {
    match bytes.first() {
        None => Ok(Parsed::Missing(v1::SHORTEST)),
        Some(b'P') => v1::parse(bytes),
        Some(_) => v2::parse(bytes),
    }
}

/// Reads a header, and not one octet beyond it: what follows, a `ClientHello` say, is still in the socket.
///
/// Has no deadline of its own.
///
/// # Errors
/// See [`ReadError`].
pub async fn read<IO: AsyncRead + Unpin>(io: &mut IO) -> Result<Header, ReadError> {
    let mut bytes = Vec::with_capacity(v1::LONGEST);
    loop {
        let missing = match parse(&bytes)? {
            Parsed::Whole(header, _) => return Ok(header),
            Parsed::Missing(missing) => missing as u64,
        };
        if (&mut *io).take(missing).read_to_end(&mut bytes).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
}

#[cfg(test)]
mod tests;
