//! Making connections.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use bytes::BytesMut;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout};

use super::Trace;
use super::conn::{Conn, Io};
use super::pool::Key;
use super::resolve::Resolver;
use crate::addr::{Permit, Route};
use crate::config::model::Target;
use crate::fault::Fault;
use crate::tls::upstream::ClientTls;
use crate::wire::deadline::Deadline;

/// What a worker keeps for dialing.
#[derive(Default)]
pub(super) struct Dialer {
    resolver: Resolver,
    tls: ClientTls,
}

impl Dialer {
    /// Connects to one target within `limit`. The permit proves that the client may reach it.
    pub(super) async fn dial(
        &self,
        _permit: Permit<Route>,
        target: &Target,
        key: Key,
        limit: Duration,
        trace: &mut Trace,
    ) -> Result<Conn, Fault> {
        let connecting = async {
            match target {
                Target::Unix(path) => connect_unix(path, trace).await,
                Target::Tcp { host, port, tls } => self.connect_tcp(host, *port, *tls, trace).await,
            }
        };
        let io = match timeout(limit, connecting).await {
            Ok(connected) => connected.map_err(refused)?,
            Err(_) => return Err(Fault::ConnectTimeout),
        };
        Ok(Conn {
            io,
            buffer: BytesMut::new(),
            deadline: Deadline::default(),
            key,
            peer: trace.peer.clone().unwrap_or_default(),
            reused: false,
            idle_since: Instant::now(),
        })
    }

    async fn connect_tcp(&self, host: &str, port: u16, tls: bool, trace: &mut Trace) -> io::Result<Io> {
        let tcp = match host.parse::<IpAddr>() {
            Ok(ip) => connect_any(&[ip], port, trace).await?,
            Err(_) => self.connect_name(host, port, trace).await?,
        };
        tcp.set_nodelay(true)?;
        if !tls {
            return Ok(Io::Tcp(tcp));
        }
        let stream = self.tls.connect(host, tcp).await?;
        Ok(Io::Tls(Box::new(stream)))
    }

    /// Tries the addresses that are known, and then once more those of a fresh look, where they differ: a
    /// container that was replaced has another address long before the old answer's TTL ends.
    async fn connect_name(&self, host: &str, port: u16, trace: &mut Trace) -> io::Result<TcpStream> {
        trace.peer = Some(format!("{host}:{port}").into());
        let known = self.resolver.addresses(host).await?;
        let error = match connect_any(&known, port, trace).await {
            Ok(tcp) => return Ok(tcp),
            Err(error) => error,
        };
        self.resolver.forget(host);
        let fresh = self.resolver.addresses(host).await?;
        if fresh == known { Err(error) } else { connect_any(&fresh, port, trace).await }
    }
}

/// A target that speaks TLS otherwise than it should is no better for waiting; one that is not there may come.
fn refused(source: io::Error) -> Fault {
    match source.kind() {
        io::ErrorKind::InvalidData => {
            Fault::UpstreamBroken { reason: "its TLS handshake failed", source: Some(source) }
        }
        _ => Fault::Unreachable { source },
    }
}

async fn connect_unix(path: &Path, trace: &mut Trace) -> io::Result<Io> {
    trace.peer = Some(format!("unix:{}", path.display()).into());
    UnixStream::connect(path).await.map(Io::Unix)
}

/// The first address that takes the connection.
async fn connect_any(addresses: &[IpAddr], port: u16, trace: &mut Trace) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for ip in addresses {
        let address = SocketAddr::new(*ip, port);
        trace.peer = Some(address.to_string().into());
        match TcpStream::connect(address).await {
            Ok(tcp) => return Ok(tcp),
            Err(error) => last = error,
        }
    }
    Err(last)
}
