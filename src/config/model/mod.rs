//! What is true: the configuration after every check. Nothing in here can be wrong, so nothing in here has a
//! `validate`.

mod acme;
mod answer;
mod edge;
mod proxy;
mod site;

use std::net::{IpAddr, SocketAddr};

pub use acme::*;
pub use answer::*;
pub use edge::*;
pub use proxy::*;
pub use site::*;

use crate::addr::{Gate, Source};

/// A whole, valid configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// `[sources]`, in the order of the file, without the built-in `public`.
    pub sources: Vec<Source>,
    /// `[ports]`, in the order of the file. Sites name them by index.
    pub rows: Vec<Row>,
    /// `[[site]]`, in the order of the file.
    pub sites: Vec<Site>,
    /// `[acme]`
    pub acme: Acme,
    /// `[tls]`
    pub tls: Tls,
    /// `[store]`
    pub store: Store,
    /// `[client_address]`; None when the table is missing: the peer is the client.
    pub client_address: Option<ClientAddress>,
    /// `[limits]`
    pub limits: Limits,
    /// `[log]`
    pub log: Log,
    /// `[admin]`
    pub admin: Admin,
    /// `[process]`
    pub process: Process,
}

/// Where in the file something stands, for errors that are found after the file was read. The default is the file
/// as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Place {
    /// Byte offsets of the value in the file.
    pub span: std::ops::Range<usize>,
    /// The path of the key, as in `site[0].certificate`.
    pub path: String,
}

/// Index of a row in [`Config::rows`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RowId(pub usize);

/// One row of `[ports]`.
#[derive(Debug, Clone)]
pub struct Row {
    /// Where it listens.
    pub bind: Bind,
    /// What it speaks.
    pub serve: Serve,
    /// Who may connect.
    pub gate: Gate,
    /// The peers that must send a PROXY header; None: nobody may.
    pub proxy_protocol: Option<Vec<Source>>,
    /// The most connections open on this row at once.
    pub max_connections: Option<usize>,
    /// The kernel's accept queue, in connections.
    pub backlog: u32,
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

/// What a row serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serve {
    /// Redirects to https, and nothing else.
    Http,
    /// The sites.
    Https,
}
