//! The edge from its start to its end, on the control thread.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::mpsc;
use tokio::task::LocalSet;

use super::listeners::{Listeners, Prepared};
use super::privileges::{self, DropError, Target};
use super::scrape::Scraped;
use super::signals::{Signals, Told};
use super::workers::Workers;
use super::{certificates, drain, explain, inventory, maintenance, upstreams};
use crate::acme::command::Command;
use crate::acme::import::Lineages;
use crate::acme::manager;
use crate::acme::progress::Progress;
use crate::admin::listen::{self, Desk, Listener};
use crate::admin::server::{Server, SocketError};
use crate::admin::{Ask, Leaving, RowStatus, Status};
use crate::config::model::{Bind, Config, Kind, Row, Serve, Site};
use crate::config::problem::{Problem, Problems};
use crate::config::{self, Loaded};
use crate::limit::connections::Connections;
use crate::net::listen::BindError;
use crate::observe::access::{Access, Destination};
use crate::observe::log;
use crate::observe::metrics::Metrics;
use crate::snapshot::{Live, Snapshot};
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
        let (mut edge, signals, asks) = Edge::start(origin, loaded, log.clone())?;
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
    pub(super) log: log::Log,
    pub(super) commands: mpsc::Sender<Command>,
    progress: Progress,
    pub(super) scraped: Scraped,
    pub(super) desk: Desk,
    /// What `[admin] listen` asks for.
    pub(super) listener: Option<Listener>,
    pub(super) leaving: Leaving,
    pub(super) keeper: Keeper,
    started: OffsetDateTime,
}

impl Edge {
    /// Everything that can fail, in the order that lets it fail with the least done: ports as root, then files as the
    /// user that will have to read them again at a reload.
    fn start(
        origin: Origin,
        loaded: Loaded,
        log: log::Log,
    ) -> Result<(Self, Signals, mpsc::Receiver<Ask>), RunError> {
        warn(&loaded.warnings);
        let signals = Signals::install().map_err(system("signals"))?;
        let config = &loaded.config;
        let (count, socket) = (config.process.workers, config.admin.socket.clone());
        let user = Target::find(config.process.user.as_deref())?;
        let mut listeners = Listeners::default();
        let prepared = listeners.prepare(&config.rows, count).map_err(RunError::Bind)?;
        let held = prepared.addresses();
        let shown = config.admin.listen.as_ref().map(|own| Ok((own.bind, listen::prepare(own, &held)?)));
        let shown = shown.transpose().map_err(|error| RunError::Bind(vec![error]))?;
        let certbot = Lineages::read(config);
        become_user(user.as_ref(), config)?;
        let access = config.log.clone();
        let shared = Shared::new().map_err(system("session-ticket keys"))?;
        let live = first_snapshot(loaded, &shared, &listeners, &prepared)?;
        let store = manager::open(&live.load(), &certbot).map_err(RunError::Store)?;
        let server = Server::bind(&socket)?;
        let destination = Destination::open(&access).map_err(system("[log] access"))?;
        let access = Access::start(destination).map_err(system("the access log's thread"))?;
        let connections = Connections::default();
        let metrics = Metrics::default();
        let workers = Workers::start(count, &live, &access, &metrics, &connections)
            .map_err(system("a worker thread"))?;
        listeners.commit(prepared, |bind, bound| workers.listen(bind, bound));
        let (asking, asks) = mpsc::channel(8);
        let leaving = Leaving::default();
        let desk = Desk::new(asking.clone(), live.clone(), leaving.clone());
        let listener = shown.map(|(bind, bound)| Listener::serve(bind, bound, &desk));
        let told = leaving.clone();
        tokio::spawn(async move { server.run(asking, told).await });
        tokio::spawn(certificates::watch(live.clone()));
        tokio::spawn(maintenance::watch(live.clone()));
        let (commands, told) = mpsc::channel(8);
        let progress = Progress::default();
        let managing = manager::run(live.clone(), Arc::clone(&shared), store, told, progress.clone());
        tokio::task::spawn_local(managing);
        let started = OffsetDateTime::now_utc().truncate_to_second();
        let scraped = Scraped::new(metrics, live.clone(), access.clone(), started, progress.clone());
        let keeper = Keeper::default();
        keeper.keep(live.load().table.upstreams());
        let edge = Self {
            origin,
            live,
            shared,
            listeners,
            workers,
            access,
            log,
            commands,
            progress,
            scraped,
            desk,
            listener,
            leaving,
            keeper,
            started,
        };
        Ok((edge, signals, asks))
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

    /// Obeys signals and the admin socket until one of them says to leave.
    async fn run(&mut self, mut signals: Signals, mut asks: mpsc::Receiver<Ask>) -> Result<(), RunError> {
        loop {
            tokio::select! {
                told = signals.next() => match told {
                    Told::Leave => break,
                    Told::Reload => drop(self.reload().await),
                    Told::Reopen => self.access.reopen(),
                    Told::HandOver => tracing::warn!("USR2: this version has no hand-over to a new binary; ignored"),
                },
                Some(ask) = asks.recv() => match ask {
                    Ask::Reload(reply) => drop(reply.send(self.reload().await)),
                    ask => self.answer(ask),
                },
                Some(()) = self.workers.ended() => return Err(RunError::WorkerLost),
            }
        }
        drain::drain(self, signals, asks).await;
        Ok(())
    }

    /// Answers whatever does not change the configuration.
    pub(super) fn answer(&self, ask: Ask) {
        match ask {
            Ask::Status(reply) => drop(reply.send(self.status())),
            Ask::Certificates(reply) => {
                let (snapshot, progress) = (self.live.load(), self.progress.clone());
                tokio::task::spawn_blocking(move || reply.send(inventory::running(&snapshot, &progress)));
            }
            Ask::Metrics(dialect, reply) => {
                let scraped = self.scraped.clone();
                tokio::task::spawn_blocking(move || reply.send(scraped.text(dialect)));
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
            // Nobody else asks for this.
            Ask::Reload(_) => {}
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
        }
    }
}

/// One line a warning.
pub(super) fn warn(warnings: &[Problem]) {
    for Problem { place, message, help } in warnings {
        tracing::warn!(key = place.path, help = help.as_deref(), "{message}");
    }
}

fn first_snapshot(
    loaded: Loaded,
    shared: &Arc<Shared>,
    listeners: &Listeners,
    prepared: &Prepared,
) -> Result<Live, RunError> {
    let (snapshot, warnings) = Snapshot::build(loaded, None, shared, |bind| listeners.port(prepared, bind))?;
    warn(&warnings);
    maintenance::look(&snapshot, true);
    Ok(Live::new(snapshot))
}

/// Gives root up, where a user is named. The directories that the edge writes to are made first, for its parents
/// may be root's.
fn become_user(user: Option<&Target>, config: &Config) -> Result<(), RunError> {
    if let Some(user) = user {
        for path in [Some(config.store.path.as_path()), config.admin.socket.parent()].into_iter().flatten() {
            user.make_dir(path).map_err(system(path.display()))?;
        }
        user.become_it()?;
        tracing::info!(user = config.process.user, "root was given up");
    }
    match privileges::raise_open_files() {
        Ok(limit) => tracing::debug!(limit, "open files"),
        Err(error) => tracing::warn!(%error, "the limit on open files stays what it was"),
    }
    Ok(())
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

fn system(what: impl ToString) -> impl FnOnce(io::Error) -> RunError {
    move |source| RunError::System { what: what.to_string(), source }
}
