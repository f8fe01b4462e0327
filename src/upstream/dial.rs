//! Making connections.

use std::io;
use std::time::Duration;

use nix::errno::Errno;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::conn::{Conn, Socket};
use super::member::Address;
use crate::addr::Permit;
use crate::fault::Fault;
use crate::tls::upstream::ClientTls;

/// Connects to an address within `limit`. The permit proves that the client may reach it.
pub(super) async fn dial<Scope>(
    _permit: Permit<Scope>,
    address: &Address,
    tls: &ClientTls,
    limit: Duration,
) -> Result<Conn, Fault> {
    match timeout(limit, connect(address, tls)).await {
        Ok(connected) => connected.map(Conn::new).map_err(refused),
        Err(_) => Err(Fault::ConnectTimeout),
    }
}

/// Connects for the edge's own sake: nobody's request goes this way.
pub(super) async fn connect(address: &Address, tls: &ClientTls) -> io::Result<Socket> {
    match address {
        Address::Unix(path) => UnixStream::connect(path).await.map(Socket::Unix),
        Address::Tcp(address, name) => {
            let tcp = TcpStream::connect(address).await?;
            tcp.set_nodelay(true)?;
            match name {
                None => Ok(Socket::Tcp(tcp)),
                Some(name) => Ok(Socket::Tls(Box::new(tls.connect(name, tcp).await?))),
            }
        }
    }
}

/// Whether it is the edge that cannot connect, to whomever: it says nothing of the target.
pub(super) fn is_own(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM))
}

/// A target that speaks TLS otherwise than it should is no better for waiting; one that is not there may come.
fn refused(source: io::Error) -> Fault {
    match source.kind() {
        _ if is_own(&source) => Fault::Unavailable("its descriptors or the memory for sockets have run out"),
        io::ErrorKind::InvalidData => {
            Fault::UpstreamBroken { reason: "its TLS handshake failed", source: Some(source) }
        }
        _ => Fault::Unreachable { source },
    }
}
