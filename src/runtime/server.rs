//! The edge from its start to its end, on the control thread.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::mpsc;
use tokio::task::{JoinSet, LocalSet};

use super::exporter::Exporter;
use super::handover::{Arrival, Program, Succession};
use super::listeners::Listeners;
use super::notify::{Notifier, Watchdog};
use super::privileges::{self, DropError};
use super::scrape::Scraped;
use super::sources::Moving;
use super::window::{Sampler, Sources};
use super::workers::Workers;
use super::{certificates, connections, explain, inventory, maintenance, upstreams};
use crate::acme::command::Command;
use crate::acme::manager;
use crate::acme::progress::Progress;
use crate::acme::store::Store;
use crate::admin::leases::{LeaseWish, LeasesTold};
use crate::admin::listen::{Desk, Listener};
use crate::admin::page;
use crate::admin::server::{Server, SocketError};
use crate::admin::{Ask, Leaving, RowStatus, Status};
use crate::config::model::{Bind, Config, Kind, Row, Serve, Site};
use crate::config::problem::{Problem, Problems};
use crate::config::{self, Loaded};
use crate::limit::connections::Connections;
use crate::net::inherit::InheritError;
use crate::net::listen::BindError;
use crate::observe::access::Access;
use crate::observe::log;
use crate::observe::metrics::Metrics;
use crate::snapshot::Live;
use crate::tls::Shared;
use crate::upstream::Keeper;

/// How long reading files, and writing the log, may each hold up the process's end.
const LAST_WORK: Duration = Duration::from_secs(1);

/// Where the configuration comes from, at the start and at every reload.
#[derive(Debug, Clone)]
pub enum Origin {
    /// A file.
    File(PathBuf),
    /// A text that no file holds, and a name for it in messages.
    Text(String, &'static str),
}

impl Origin {
    /// Reads and checks it.
    pub fn load(&self) -> Result<Loaded, Problems> {
        match self {
            Self::File(path) => config::load(path),
            Self::Text(text, name) => {
                let mut loaded = config::parse(text.clone(), Path::new(name))?;
                // Nobody wrote it, so that nobody could do what a warning says.
                loaded.warnings.clear();
                Ok(loaded)
            }
        }
    }
}

/// What is known once the edge serves.
#[derive(Debug)]
pub struct Ready {
    /// The rows, in the order of the file, and where they really listen.
    pub rows: Vec<(Bind, Kind, Vec<SocketAddr>)>,
}

/// Why the edge could not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration, or a certificate that it names.
    #[error("{0}")]
    Config(#[from] Problems),
    /// What another process opened for this one.
    #[error(transparent)]
    Inherit(#[from] InheritError),
    /// Rows that cannot be bound: all of them.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Bind(Vec<BindError>),
    /// The user to become.
    #[error(transparent)]
    User(#[from] DropError),
    /// The store of certificates.
    #[error("{0}")]
    Store(String),
    /// The admin socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// Something that the operating system refused.
    #[error("{what}: {source}")]
    System {
        /// What was being done.
        what: String,
        /// What it said.
        source: io::Error,
    },
    /// A worker thread came to an end by itself.
    #[error("a worker thread has ended by itself; the log says why")]
    WorkerLost,
}

/// Runs an edge until it is told to leave. `ready` is called once it serves.
///
/// # Errors
/// Whatever keeps it from starting, with nothing left bound.
pub fn run(origin: Origin, ready: impl FnOnce(&Ready)) -> Result<(), RunError> {
    use_small_pages();
    let (program, arrival) = (Program::of_this_process(), Arrival::claim()?);
    let predecessor = arrival.predecessor.as_ref().and_then(|own| own.try_clone().ok());
    let ended = serve(origin, program, arrival, ready);
    if let (Some(predecessor), Err(error)) = (predecessor, &ended) {
        predecessor.refuse(&error.to_string());
    }
    ended
}

fn serve(
    origin: Origin,
    program: Program,
    arrival: Arrival,
    ready: impl FnOnce(&Ready),
) -> Result<(), RunError> {
    let loaded = origin.load()?;
    // Before there are threads: each inherits it.
    privileges::forbid_new_privileges().map_err(system("no_new_privs"))?;
    let log = log::init(&loaded.config.log).map_err(system("the log"))?;
    log_panics(log.clone());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(system("the control thread's runtime"))?;
    let ended = LocalSet::new().block_on(&runtime, async {
        let (mut edge, signals, asks) = Edge::start(origin, loaded, log.clone(), program, arrival).await?;
        let told = edge.tell_ready();
        ready(&told);
        edge.run(signals, asks).await
    });
    // A disk that hangs must not keep the process from leaving.
    runtime.shutdown_timeout(LAST_WORK);
    log.flush(LAST_WORK);
    ended
}

/// Memory comes in pages of 4 KiB, not of 2 MiB (prctl(2)): an idle TLS connection takes 12 KiB so and not 16.6, one over
/// HTTP/2 30 KiB and not 44, the edge at rest 3 MiB less, and requests no more time. A kernel without large pages refuses.
fn use_small_pages() {
    let _ = nix::sys::prctl::set_thp_disable(true);
}

/// A running edge.
pub(super) struct Edge {
    pub(super) origin: Origin,
    pub(super) live: Live,
    pub(super) shared: Arc<Shared>,
    pub(super) listeners: Listeners,
    pub(super) workers: Workers,
    pub(super) access: Access,
    pub(super) exporter: Exporter,
    pub(super) log: log::Log,
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) progress: Progress,
    pub(super) scraped: Scraped,
    pub(super) desk: Desk,
    /// What `[admin] listen` asks for.
    pub(super) listener: Option<Listener>,
    pub(super) leaving: Leaving,
    pub(super) keeper: Keeper,
    pub(super) metrics: Metrics,
    pub(super) connections: Connections,
    pub(super) server: Rc<Server>,
    pub(super) notifier: Rc<Notifier>,
    pub(super) watchdog: Watchdog,
    /// What is done beside serving, for as long as this process serves.
    pub(super) tasks: JoinSet<()>,
    pub(super) succession: Succession,
    /// Workers from before a process that took over and failed: they finish what they have.
    pub(super) former: Vec<Workers>,
    pub(super) asking: mpsc::Sender<Ask>,
    pub(super) started: OffsetDateTime,
    /// Samples for the window, while there is a listener that shows it.
    pub(super) sampler: Option<Sampler>,
    pub(super) moving: Moving,
}

impl Edge {
    /// Begins what is done beside serving. Without a store, the one that looks after certificates opens it.
    pub(super) fn begin_tasks(&mut self, store: Option<Arc<Store>>) {
        let (server, asking, leaving) = (Rc::clone(&self.server), self.asking.clone(), self.leaving.clone());
        self.tasks.spawn_local(async move {
            let Err(error) = server.run(asking, leaving).await;
            tracing::error!(%error, "the admin socket cannot be served");
        });
        self.tasks.spawn_local(certificates::watch(self.live.clone()));
        self.tasks.spawn_local(maintenance::watch(self.live.clone()));
        let (commands, told) = mpsc::channel(8);
        self.commands = commands;
        self.sampler = self.listener.as_ref().map(|_| self.scraped.sampler());
        let (live, shared, progress) = (self.live.clone(), Arc::clone(&self.shared), self.progress.clone());
        self.tasks.spawn_local(manager::run(live, shared, store, told, progress));
    }

    fn tell_ready(&self) -> Ready {
        let config = Arc::clone(&self.live.load().config);
        self.tell_listening(&config, |_| true);
        self.tell_shown();
        let pid = std::process::id();
        tracing::info!(version = env!("CARGO_PKG_VERSION"), pid, workers = config.process.workers, "ready");
        let rows = config.rows.iter();
        let row = |bind| self.listeners.addresses(bind).to_vec();
        Ready { rows: rows.map(|own| (own.bind, own.kind.clone(), row(own.bind))).collect() }
    }

    /// One line for each address of the rows that `is_new` picks.
    pub(super) fn tell_listening(&self, config: &Config, is_new: impl Fn(Bind) -> bool) {
        for row in config.rows.iter().filter(|row| is_new(row.bind)) {
            for address in self.listeners.addresses(row.bind) {
                tracing::info!(row = %row.bind, serve = name(&row.kind), %address, "listening");
            }
        }
    }

    /// One line for each address of `[admin] listen`.
    pub(super) fn tell_shown(&self) {
        for address in self.listener.iter().flat_map(|listener| &listener.addresses) {
            tracing::info!(row = "[admin] listen", serve = "admin", %address, "listening");
        }
    }

    /// Answers whatever does not change the configuration.
    pub(super) fn answer(&self, ask: Ask) {
        match ask {
            Ask::Status(reply) => drop(reply.send(self.status())),
            Ask::Connections(reply) => {
                let told = self.former.iter().chain([&self.workers]).map(Workers::guests).collect();
                let snapshot = self.live.load();
                tokio::spawn(async move { reply.send(connections::list(told, &snapshot).await) });
            }
            Ask::Certificates(reply) => {
                let (snapshot, progress) = (self.live.load(), self.progress.clone());
                tokio::task::spawn_blocking(move || reply.send(inventory::running(&snapshot, &progress)));
            }
            Ask::Metrics(dialect, reply) => {
                let scraped = self.scraped.clone();
                tokio::task::spawn_blocking(move || reply.send(scraped.text(dialect)));
            }
            Ask::Window(reply) => {
                let sources = self.window();
                tokio::task::spawn_blocking(move || reply.send(page::render(&sources.view())));
            }
            Ask::Explain(id, reply) => {
                let (snapshot, recent) = (self.live.load(), self.access.recent().clone());
                let taken = self.scraped.reloads.last_success;
                tokio::task::spawn_blocking(move || {
                    drop(reply.send(explain::explain(&recent, &snapshot, taken, &id)));
                });
            }
            Ask::Maintenance(on, name, reply) => {
                let snapshot = self.live.load();
                tokio::task::spawn_blocking(move || reply.send(maintenance::turn(&snapshot, &name, on)));
            }
            Ask::Certificate(wish, name, reply) => {
                let told =
                    inventory::told(wish, name, Arc::clone(&self.live.load().config), self.commands.clone());
                tokio::spawn(async move { reply.send(told.await) });
            }
            Ask::Drain { name, undo, reply } => {
                drop(reply.send(upstreams::drain(&self.live.load(), &name, undo)));
            }
            Ask::Rekey(reply) => {
                let told = inventory::rekeyed(self.commands.clone());
                tokio::spawn(async move { reply.send(told.await) });
            }
            Ask::Lease(LeaseWish::List, reply) => {
                let leases = self.moving.leases();
                drop(reply.send(LeasesTold { ok: true, message: String::new(), leases }));
            }
            Ask::Lease(_, reply) => {
                let message = "the edge is leaving or being upgraded: ask again in a moment".to_owned();
                drop(reply.send(LeasesTold { message, ..LeasesTold::default() }));
            }
            // Nobody else asks for this.
            Ask::Reload(_) => {}
        }
    }

    fn window(&self) -> Sources {
        Sources {
            status: self.status(),
            leaving: self.leaving.has_begun(),
            scraped: self.scraped.clone(),
            access: self.access.clone(),
            history: self.sampler.as_ref().map(Sampler::history).unwrap_or_default(),
            snapshot: self.live.load(),
        }
    }

    pub(super) fn status(&self) -> Status {
        let snapshot = self.live.load();
        let config = &snapshot.config;
        let row = |row: &Row| RowStatus {
            row: row.bind.to_string(),
            serve: name(&row.kind).to_owned(),
            addresses: self.listeners.addresses(row.bind).iter().map(ToString::to_string).collect(),
        };
        let site = |site: &Site| site.domains.first().map(ToString::to_string);
        Status {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: self.started.format(&Rfc3339).unwrap_or_default(),
            leases: self.moving.leases(),
            config: match &self.origin {
                Origin::File(path) => {
                    Some(std::path::absolute(path).unwrap_or_else(|_| path.clone()).display().to_string())
                }
                Origin::Text(..) => None,
            },
            generation: snapshot.generation,
            workers: config.process.workers,
            connections: self.workers.open(),
            rows: config.rows.iter().map(row).collect(),
            sites: config.sites.iter().filter_map(site).collect(),
            maintenance: maintenance::list(&snapshot),
            upstreams: upstreams::all(&snapshot),
            upgrade: self.succession.told.clone(),
        }
    }
}

/// One line a warning.
pub(super) fn warn(warnings: &[Problem]) {
    for Problem { place, message, help } in warnings {
        tracing::warn!(key = place.path, help = help.as_deref(), "{message}");
    }
}

/// A panic ends one connection; the log is where it is to be found.
fn log_panics(log: log::Log) {
    std::panic::set_hook(Box::new(move |info| {
        let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let message = info.payload_as_str().unwrap_or("no message");
        tracing::error!(thread, place, message, "a task panicked: a bug of the edge, please report it");
        // The control thread's own panic ends the process.
        log.flush(LAST_WORK);
    }));
}

fn name(kind: &Kind) -> &'static str {
    match kind {
        Kind::Serve(Serve::Http) => "http",
        Kind::Serve(Serve::Https) => "https",
        Kind::Forward(_) => "forward",
    }
}

pub(super) fn system(what: impl ToString) -> impl FnOnce(io::Error) -> RunError {
    move |source| RunError::System { what: what.to_string(), source }
}
