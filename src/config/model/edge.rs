//! What holds for the edge as a whole.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use super::Bind;
use crate::addr::{ClientAddr, Source};
use crate::name::Hostname;

/// `[tls]`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tls {
    /// The lowest version that is spoken.
    pub min_version: TlsVersion,
}

/// The TLS versions that exist here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246) with ECDHE and AEAD.
    V1_2,
    /// TLS 1.3 (RFC 8446).
    V1_3,
}

/// `[client_address]`: who is believed about the client's address, behind a load balancer or a CDN.
#[derive(Debug, Clone)]
pub struct ClientAddress {
    /// Peers whose header is believed.
    pub trusted: Vec<Source>,
    /// The one header that is believed.
    pub header: AddressHeader,
}

/// A header that carries the client's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressHeader {
    /// `X-Forwarded-For`: a list, read from the right.
    XForwardedFor,
    /// `Forwarded` (RFC 7239): a list, read from the right.
    Forwarded,
    /// `CF-Connecting-IP`: one address.
    CfConnectingIp,
}

/// `[limits]`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The most client connections at once.
    pub connections: usize,
    /// The most of them from one client (an IPv4 address, an IPv6 /64).
    pub connections_per_client: Option<usize>,
    /// The longest request body in octets, where a site or route does not say otherwise.
    pub body: u64,
    /// How much of all bodies together waits in memory, in octets.
    pub buffer_memory: u64,
    /// How much of all bodies together waits on disk, in octets.
    pub buffer_disk: u64,
    /// How long a request's head may take to arrive.
    pub header_timeout: Duration,
    /// How long a TLS handshake may take (a PROXY header included).
    pub handshake_timeout: Duration,
    /// How long a connection may stay without a request, and the longest pause inside a body or an answer.
    pub idle_timeout: Duration,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// The form of both the access lines and the log.
    pub format: LogFormat,
    /// Where access lines go.
    pub access: AccessLog,
    /// The least level that is written.
    pub level: LogLevel,
}

/// The form of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// The NCSA combined format, for access lines; the log is text.
    Combined,
    /// For a person's eyes.
    Text,
}

/// Where access lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessLog {
    /// Standard output.
    Stdout,
    /// A file, opened again on SIGUSR1.
    File(PathBuf),
    /// Nowhere.
    Off,
}

/// The least level that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are tracing's own")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// `[admin]`
#[derive(Debug, Clone)]
pub struct Admin {
    /// The unix socket that the commands speak to, 0600.
    pub socket: PathBuf,
    /// Where metrics, health and the window are shown over TCP; None: nowhere.
    pub listen: Option<Listen>,
}

/// `listen`, `allow` and `hosts` of `[admin]`
#[derive(Debug, Clone)]
pub struct Listen {
    /// Where it listens.
    pub bind: Bind,
    /// Who may look, besides this machine itself.
    pub allow: Vec<Source>,
    /// The names that it may be asked by, besides addresses and those that always mean this machine.
    pub hosts: Vec<Hostname>,
}

impl Listen {
    /// Whether a client may look.
    pub fn admits(&self, client: ClientAddr) -> bool {
        client.ip().is_loopback() || self.allow.iter().any(|source| source.contains(client))
    }
}

static DEFAULT_SOCKET: OnceLock<PathBuf> = OnceLock::new();

impl Admin {
    /// The socket where the file names none: root's is one for the machine. It stays the same for the life of a process, also
    /// of one that has given root up.
    pub fn default_socket() -> PathBuf {
        DEFAULT_SOCKET.get_or_init(Self::socket_of_user).clone()
    }

    /// Goes on with the default of the process before this one, unless it has been asked for already.
    pub fn inherit_default_socket(path: PathBuf) {
        let _ = DEFAULT_SOCKET.set(path);
    }

    fn socket_of_user() -> PathBuf {
        let user = nix::unistd::geteuid();
        let directory = std::env::var_os("XDG_RUNTIME_DIR").filter(|directory| !directory.is_empty());
        let own = || directory.map_or_else(|| format!("/run/user/{user}").into(), PathBuf::from);
        let base = if user.is_root() { PathBuf::from("/run") } else { own() };
        base.join("vestibule/admin.sock")
    }
}

/// `[process]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Worker threads; never 0 here.
    pub workers: usize,
    /// The user that the edge becomes after the ports are bound.
    pub user: Option<String>,
    /// How long requests in flight may take to finish once the edge is told to leave.
    pub grace: Duration,
}
