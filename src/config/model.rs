//! What is true: the configuration after every check. Nothing in here can be wrong, so nothing in here has a
//! `validate`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::addr::{Gate, Source};
use crate::name::{HostPattern, Hostname};

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
    /// The longest request body in octets.
    pub body: u64,
    /// What it does.
    pub action: Action,
    /// Where `files` stands in the file.
    pub files_place: Place,
}

/// A route's path, percent-decoded.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PathPattern {
    /// `/admin/`: every path that begins so.
    Prefix(String),
    /// `= /x`: this path alone.
    Exact(String),
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

/// An upstream and how it is spoken to. Two that are equal share their pools.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Proxy {
    /// At least one.
    pub targets: Vec<Target>,
    /// How long connecting to one target may take.
    pub connect_timeout: Duration,
    /// How long the upstream may say nothing while the edge waits for its answer.
    pub response_timeout: Duration,
    /// How long a request waits while no target takes a connection; zero: not at all.
    pub hold: Duration,
    /// How often a request that may be sent twice is sent again when a fresh connection ends without an answer.
    pub retries: u32,
    /// Which target is next.
    pub balance: Balance,
    /// What is kept of requests and answers for slow clients.
    pub buffers: Buffers,
}

/// How one of several targets is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Balance {
    /// The one with the fewest requests in progress.
    LeastBusy,
    /// Each in turn.
    RoundRobin,
}

/// How a slow client is kept away from a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Buffers {
    /// Read the whole request before a worker is taken.
    pub request: bool,
    /// Take the answer as fast as the worker gives it.
    pub response: bool,
    /// How much of one body is kept in memory, in octets.
    pub memory: u64,
    /// How much of all bodies together is kept on disk, in octets.
    pub disk: u64,
}

/// Where an upstream listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// `django:8000`, `[2001:db8::1]:8000`, or `https://host:port` when `tls` is set.
    Tcp {
        /// A name, resolved as its TTL ends, or an address.
        host: Arc<str>,
        /// The port.
        port: u16,
        /// TLS to the upstream, verified against the system's trust for `host`.
        tls: bool,
    },
    /// `unix:/run/gunicorn.sock`
    Unix(Arc<std::path::Path>),
}

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

/// `[store]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// The directory, 0700.
    pub path: PathBuf,
    /// What private keys are sealed with; None leaves them open.
    pub key: Option<Secret>,
}

/// A secret that stands elsewhere. Two are equal when it is the same place there.
#[derive(Debug, Clone)]
pub struct Secret {
    /// Where the secret is.
    pub source: SecretSource,
    /// Where the configuration names it.
    pub place: Place,
}

/// Where a secret is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// In a file of its own.
    File(PathBuf),
    /// In an environment variable.
    Env(String),
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for Secret {}

impl Secret {
    /// Reads it, now. The error says what to do.
    pub fn read(&self) -> Result<Vec<u8>, String> {
        match &self.source {
            SecretSource::File(path) => std::fs::read(path).map_err(|error| {
                format!(
                    "{}: the secret cannot be read: {error}; let the edge's own user read it",
                    path.display()
                )
            }),
            SecretSource::Env(name) => {
                std::env::var_os(name).map(std::os::unix::ffi::OsStringExt::into_vec).ok_or_else(|| {
                    format!("the environment variable {name} is not set; set it where the edge is started")
                })
            }
        }
    }
}

/// `[acme]`: who issues certificates, and how names are proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acme {
    /// Whom CAs may write to.
    pub email: Option<String>,
    /// At least one: the CA, and those that are tried in order when it keeps failing.
    pub cas: Vec<AcmeCa>,
    /// How names are proved; None: whatever works.
    pub challenge: Option<Challenge>,
    /// Trust for the CAs' own APIs (a PEM file) in place of the system's.
    pub ca_root: Option<PathBuf>,
    /// Certbot's directory, whose certificates are taken over where the store has none.
    pub import: Option<PathBuf>,
}

/// A CA that speaks ACME (RFC 8555).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcmeCa {
    /// As it was typed.
    pub name: String,
    /// The URL of its directory.
    pub directory: String,
    /// The URL of the directory that it has for trying, with limits of its own.
    pub staging: Option<String>,
    /// The profile to order with.
    pub profile: Option<String>,
    /// The account at the CA that the new one belongs to.
    pub eab: Option<Eab>,
}

/// An external account binding (RFC 8555 section 7.3.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Eab {
    /// The key's identifier.
    pub key_id: String,
    /// The key, in base64url.
    pub hmac: Secret,
}

/// How a name is proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Challenge {
    /// Over port 80 (RFC 8555 section 8.3).
    Http01,
    /// Over port 443 (RFC 8737).
    TlsAlpn01,
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// The unix socket that the commands speak to, 0600.
    pub socket: PathBuf,
}

impl Admin {
    /// The socket where the file names none: root's is one for the machine.
    pub fn default_socket() -> PathBuf {
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
