//! What stands behind a site, and how it is spoken to.

use std::sync::Arc;
use std::time::Duration;

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
    /// Whether a request that belongs to no trace (W3C Trace Context) begins one.
    pub begins_traces: bool,
    /// Which target is next.
    pub balance: Balance,
    /// The name of the cookie that brings a client back to its target; None where nothing does.
    pub cookie: Option<Arc<str>>,
    /// The most requests at once at one address of a target; None: no limit.
    pub concurrency: Option<usize>,
    /// The most requests that wait.
    pub queue: usize,
    /// How long a request waits for a place where there is a limit.
    pub queue_timeout: Duration,
    /// How targets are asked whether they are well.
    pub health: Option<Health>,
}

impl Proxy {
    /// Targets that are connected to and not spoken to.
    pub fn plain(targets: Vec<Target>, connect_timeout: Duration) -> Self {
        Self {
            targets,
            connect_timeout,
            response_timeout: Duration::ZERO,
            hold: Duration::ZERO,
            retries: 0,
            begins_traces: false,
            balance: Balance::LeastBusy,
            cookie: None,
            concurrency: None,
            queue: usize::MAX,
            queue_timeout: Duration::ZERO,
            health: None,
        }
    }
}

/// How one of several targets is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Balance {
    /// The one with the fewest requests in progress.
    LeastBusy,
    /// Each in turn.
    RoundRobin,
    /// The one that the client was at, by a cookie; else the one with the fewest requests in progress.
    Sticky,
}

/// How targets are asked whether they are well.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Health {
    /// The path, with its query.
    pub path: Arc<str>,
    /// The Host that they are asked with.
    pub host: Arc<str>,
    /// How often each is asked while it is well.
    pub every: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// How many answers in a row must be bad before it gets no requests.
    pub fails: u32,
    /// How many must be good before it gets some again.
    pub passes: u32,
    /// The one good status; None: whatever is no error, 200 to 399.
    pub status: Option<u16>,
}

impl Health {
    /// Whether a status is a good one.
    pub fn is_well(&self, status: u16) -> bool {
        self.status.map_or((200..400).contains(&status), |good| good == status)
    }
}

/// How a route keeps slow clients away from a worker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Buffers {
    /// Read the whole request before a worker is taken.
    pub request: bool,
    /// Take the answer as fast as the worker gives it.
    pub response: bool,
    /// How much of one body is kept in memory, in octets.
    pub memory: u64,
    /// How much of all bodies of the site together is kept on disk, in octets.
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

impl std::fmt::Display for Target {
    /// As a person types it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp { host, port, tls } => {
                f.write_str(if *tls { "https://" } else { "" })?;
                if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
            }
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}
