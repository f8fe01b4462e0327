//! The sites and their routes.

use std::path::PathBuf;
use std::time::Duration;

use super::{Buffers, Errors, Place, Policy, Proxy, RowId};
use crate::addr::Gate;
use crate::name::{HostPattern, Hostname};

/// One `[[site]]`.
#[derive(Debug, Clone)]
pub struct Site {
    /// At least one; the first that is no wildcard is the canonical name.
    pub domains: Vec<HostPattern>,
    /// Names that are sent to the canonical one with a 308.
    pub redirect: Vec<Hostname>,
    /// The rows that serve it.
    pub rows: Vec<RowId>,
    /// Who may use it.
    pub gate: Gate,
    /// Where its certificate comes from.
    pub certificate: Certificate,
    /// Where `certificate` stands in the file.
    pub certificate_place: Place,
    /// The CA that clients' certificates must chain to (a PEM file): the site's own, else `[tls] client_ca`.
    pub client_ca: Option<PathBuf>,
    /// Where `client_ca` stands in the file.
    pub client_ca_place: Place,
    /// Strict-Transport-Security's max-age (RFC 6797); None leaves the header to Django.
    pub hsts: Option<Duration>,
    /// What it answers where the edge itself has to.
    pub errors: Errors,
    /// Longest match is the table's work; the order here is the file's, and the site's own upstream, where it has
    /// one, is a route for the prefix `/` at the end.
    pub routes: Vec<Route>,
}

/// Where a site's certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Certificate {
    /// An ACME CA, as `[acme]` says.
    Acme,
    /// The edge's own CA, for development.
    Internal,
    /// PEM files, watched.
    Files {
        /// The chain, leaf first.
        cert: PathBuf,
        /// The private key.
        key: PathBuf,
    },
}

/// One `[[site.route]]`.
#[derive(Debug, Clone)]
pub struct Route {
    /// What it matches.
    pub path: PathPattern,
    /// Who may use it, beyond the site's gate.
    pub gate: Gate,
    /// The longest request body.
    pub body: BodyLimit,
    /// What waits at the edge of what goes to its upstream and comes from it.
    pub buffers: Buffers,
    /// What it does.
    pub action: Action,
    /// What the edge adds to that.
    pub policy: Policy,
    /// Where `files` stands in the file.
    pub files_place: Place,
}

/// The longest request body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyLimit {
    /// In octets.
    pub octets: u64,
    /// Whose `body` it is.
    pub set_by: SetBy,
}

/// Where a key stands that counts for a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetBy {
    /// `[[site.route]]`
    Route,
    /// `[[site]]`
    Site,
    /// `[limits]`, or nowhere.
    Limits,
}

/// A route's path, percent-decoded.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PathPattern {
    /// `/admin/`: every path that begins so.
    Prefix(String),
    /// `= /x`: this path alone.
    Exact(String),
}

impl std::fmt::Display for PathPattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Prefix(path) => f.write_str(path),
            Self::Exact(path) => write!(f, "= {path}"),
        }
    }
}

/// What a route does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Hand it to an upstream.
    Proxy(Proxy),
    /// Send the client elsewhere.
    Redirect {
        /// A path on the same host, or an absolute http(s) URL.
        to: String,
        /// 301, 302, 303, 307 or 308.
        status: u16,
    },
    /// Answer with files.
    Files(Files),
}

/// The files of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The directory. What is left of a path behind the route's prefix names a file below it; the route of one path
    /// alone has the file of that path's last segment.
    pub folder: PathBuf,
    /// What Cache-Control says where the upstream does not.
    pub cache: FileCache,
    /// Reached through X-Accel-Redirect alone.
    pub internal: bool,
    /// Whether the files may be strangers': they are sent with a sandboxing Content-Security-Policy, and none is
    /// taken for the compressed form of another.
    pub sandbox: bool,
}

/// What Cache-Control says of files (RFC 9111 section 5.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileCache {
    /// Nothing.
    Unsaid,
    /// They are fresh for so long.
    For(Duration),
    /// Those with a hash in their name never change (RFC 8246), all others are asked for again each time.
    Immutable,
}
