//! What is true: the configuration after every check. Nothing in here can be wrong, so nothing in here has a
//! `validate`.

mod acme;
mod answer;
mod compress;
mod edge;
mod errors;
mod ports;
mod proxy;
mod site;

pub use acme::*;
pub use answer::*;
pub use compress::*;
pub use edge::*;
pub use errors::*;
pub use ports::*;
pub use proxy::*;
pub use site::*;

use crate::addr::Source;

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
