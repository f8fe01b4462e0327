//! The rows of the firewall.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{Certificate, Proxy};
use crate::addr::{Gate, Source};
use crate::name::Hostname;

/// Index of a row in [`super::Config::rows`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RowId(pub usize);

/// One row of `[ports]`.
#[derive(Debug, Clone)]
pub struct Row {
    /// Where it listens.
    pub bind: Bind,
    /// What it is there for.
    pub kind: Kind,
    /// Who may connect.
    pub gate: Gate,
    /// The peers that must send a PROXY header; None: nobody may.
    pub proxy_protocol: Option<Vec<Source>>,
    /// The most connections open on this row at once.
    pub max_connections: Option<usize>,
    /// The most of them from one client (an IPv4 address, an IPv6 /64).
    pub max_connections_per_client: Option<usize>,
    /// The kernel's accept queue, in connections.
    pub backlog: u32,
}

impl Row {
    /// What it serves; None for a row that serves no sites.
    pub fn serve(&self) -> Option<Serve> {
        match self.kind {
            Kind::Serve(serve) => Some(serve),
            Kind::Forward(_) => None,
        }
    }
}

/// A row of `[ports]` for a daemon of the host's own, TCP and UDP: the edge has no part in it.
#[derive(Debug, Clone)]
pub struct HostRow {
    /// Where the daemon listens.
    pub bind: Bind,
    /// Who may connect.
    pub gate: Gate,
}

/// The addresses of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Bind {
    /// Every address of the machine, IPv4 and IPv6.
    All(u16),
    /// One address.
    One(SocketAddr),
}

impl Bind {
    /// The port number; 0 lets the kernel choose.
    pub fn port(self) -> u16 {
        match self {
            Self::All(port) => port,
            Self::One(address) => address.port(),
        }
    }

    /// The one address, if it is one.
    pub fn address(self) -> Option<IpAddr> {
        match self {
            Self::All(_) => None,
            Self::One(address) => Some(address.ip()),
        }
    }
}

impl std::fmt::Display for Bind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::All(port) => port.fmt(f),
            Self::One(address) => address.fmt(f),
        }
    }
}

/// What a row is there for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// The sites, or the way to them.
    Serve(Serve),
    /// Whatever is spoken behind it: TCP, byte for byte.
    Forward(Arc<Forward>),
}

/// What a row serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serve {
    /// Redirects to https, and nothing else.
    Http,
    /// The sites.
    Https,
}

/// Where a row forwards to, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    /// The targets, none of which speaks TLS, and how they are connected to. What is only for requests has no meaning.
    pub proxy: Proxy,
    /// How long both sides may be silent; None: for as long as both are there.
    pub idle_timeout: Option<Duration>,
    /// What the target is told of the client.
    pub send_proxy: Option<ProxyVersion>,
    /// TLS that is ended here.
    pub tls: Option<ForwardTls>,
}

/// The versions of the PROXY protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyVersion {
    /// One line of text.
    V1,
    /// A binary block.
    V2,
}

/// TLS that is ended before forwarding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardTls {
    /// What the row is called.
    pub name: Hostname,
    /// Where its certificate comes from; None: it is that of the site which has the name, and so are all of its TLS.
    pub certificate: Option<Certificate>,
    /// The CA that clients' certificates must chain to (a PEM file).
    pub client_ca: Option<PathBuf>,
}
