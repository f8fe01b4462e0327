//! The start: everything that can fail, in the order that lets it fail with the least done.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use time::OffsetDateTime;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::exporter::Exporter;
use super::handover::{Arrival, Predecessor, Program, Succession};
use super::listeners::{Listeners, Prepared};
use super::maintenance;
use super::notify::{Notifier, Watchdog};
use super::privileges::{self, Target};
use super::scrape::Scraped;
use super::server::{Edge, Origin, RunError, system, warn};
use super::signals::Signals;
use super::sources::Moving;
use super::workers::Workers;
use crate::acme;
use crate::acme::import::Lineages;
use crate::acme::manager;
use crate::admin::listen::{self, Desk, Listener};
use crate::admin::server::Server;
use crate::admin::{Ask, Leaving};
use crate::config::model::{Action, Bind, Config, Log, Route};
use crate::config::problem::{Problem, Problems};
use crate::config::{self, Loaded};
use crate::files;
use crate::net::inherit::Given;
use crate::net::listen::Bound;
use crate::observe::access::{Access, Destination};
use crate::observe::log;
use crate::snapshot::{Live, Snapshot};
use crate::tls::Shared;
use crate::upstream::Keeper;

impl Edge {
    /// Ports as root, then files as the user that will have to read them again at a reload. Only then a process before this
    /// one is told to step back.
    pub(super) async fn start(
        origin: Origin,
        loaded: Loaded,
        log: log::Log,
        program: Program,
        arrival: Arrival,
    ) -> Result<(Self, Signals, mpsc::Receiver<Ask>), RunError> {
        warn(&loaded.warnings);
        let signals = Signals::install().map_err(system("signals"))?;
        let config = &loaded.config;
        let (count, user) = (config.process.workers, Target::find(config.process.user.as_deref())?);
        let Arrival { given, admin, drained, tickets, predecessor, strays } = arrival;
        tell_strays(&strays);
        let mut sockets = Sockets::open(config, given, predecessor.is_some())?;
        let certbot = Lineages::read(config);
        become_user(user.as_ref(), config)?;
        let shared = Shared::inherit(tickets).map_err(system("session-ticket keys"))?;
        let (typed, socket) = (config.log.clone(), config.admin.socket.clone());
        let (live, moving) = first_snapshot(loaded, &shared, &sockets, &drained)?;
        let store = manager::open(&live.load(), &certbot).map_err(RunError::Store)?;
        let (server, former) = admin_socket(admin, &socket)?;
        let access = access_log(&typed)?;
        let started = OffsetDateTime::now_utc().truncate_to_second();
        let (connections, metrics, progress) = Default::default();
        let (asking, asks) = mpsc::channel(8);
        let (keeper, leaving) = (Keeper::default(), Leaving::default());
        let scraped = Scraped::new(&metrics, &live, &access, started, &progress);
        let workers = Workers::start(count, &live, &access, &metrics, &connections, &scraped.rooms)
            .map_err(system("a worker thread"))?;
        take_over(predecessor.as_ref(), &server, former.as_deref()).await?;
        sockets.listeners.commit(sockets.prepared, |bind, bound| workers.listen(bind, bound));
        let desk = Desk::new(asking.clone(), live.clone(), leaving.clone());
        let listener = sockets.admin.map(|(bind, bound)| Listener::serve(bind, bound, &desk));
        keeper.keep(live.load().table.upstreams());
        let mut edge = Self {
            exporter: Exporter::start(&live, access.spans()),
            scraped,
            progress,
            keeper,
            moving,
            origin,
            live,
            shared,
            listeners: sockets.listeners,
            workers,
            access,
            log,
            // Nobody listens until the tasks begin.
            commands: mpsc::channel(1).0,
            desk,
            sampler: None,
            listener,
            leaving,
            metrics,
            connections,
            server: Rc::new(server),
            notifier: Rc::new(Notifier::from_environment()),
            watchdog: Watchdog::from_environment(),
            tasks: JoinSet::new(),
            succession: Succession::new(program, predecessor),
            former: Vec::new(),
            asking,
            started,
        };
        edge.begin_tasks(store);
        Ok((edge, signals, asks))
    }
}

fn access_log(log: &Log) -> Result<Access, RunError> {
    let destination = Destination::open(log).map_err(system("[log] access"))?;
    Access::start(destination).map_err(system("the access log's thread"))
}

/// What waits "on disk" is in memory after all where the folder for it is.
fn warn_of_memory(config: &Config) {
    let waits = |route: &Route| (route.buffers.request || route.buffers.response) && route.buffers.disk > 0;
    let proxies = |route: &Route| matches!(route.action, Action::Proxy(_)) && waits(route);
    let folder = std::env::temp_dir();
    if config.sites.iter().flat_map(|site| &site.routes).any(proxies) && files::lies_in_memory(&folder) {
        let (folder, most) = (folder.display(), config::show_size(config.limits.buffer_disk));
        tracing::warn!(
            %folder, most,
            "bodies that wait on disk take memory, for the folder lies there: name one on a disk in TMPDIR, or lower \
             buffer_disk in [limits]"
        );
    }
}

/// Everything that listens on TCP.
struct Sockets {
    listeners: Listeners,
    prepared: Prepared,
    /// `[admin] listen`
    admin: Option<(Bind, Bound)>,
}

impl Sockets {
    /// Takes what is given, binds the rest, and closes what no row is for.
    fn open(config: &Config, mut given: Given, from_an_edge: bool) -> Result<Self, RunError> {
        given.forget_rows(|row| config.binds().any(|own| own.to_string() == row));
        let listeners = Listeners::default();
        let prepared = listeners.prepare(&config.rows, config.process.workers, &mut given);
        let prepared = prepared.map_err(RunError::Bind)?;
        let admin = config.admin.listen.as_ref().map(|own| {
            let held: Vec<_> = prepared.addresses().into_iter().chain(given.addresses()).collect();
            Ok((own.bind, listen::prepare(own, &held, given.take(own.bind))?))
        });
        let admin = admin.transpose().map_err(|error| RunError::Bind(vec![error]))?;
        tell_unused(&given.addresses(), from_an_edge);
        Ok(Self { listeners, prepared, admin })
    }
}

fn tell_strays(strays: &[String]) {
    for stray in strays {
        tracing::warn!("LISTEN_FDS: {stray} is no listening TCP socket; closed");
    }
}

fn tell_unused(addresses: &[SocketAddr], from_an_edge: bool) {
    for address in addresses {
        if from_an_edge {
            tracing::debug!(%address, "no row listens there any more");
            continue;
        }
        tracing::warn!(
            %address,
            "LISTEN_FDS: no row of [ports] listens there, and the socket was closed; add the row, or take the address \
             out of the .socket unit"
        );
    }
}

fn first_snapshot(
    mut loaded: Loaded,
    shared: &Arc<Shared>,
    sockets: &Sockets,
    drained: &[String],
) -> Result<(Live, Moving), RunError> {
    let moving = Moving::load(&loaded.config);
    moving.settle(&mut loaded.config);
    let port = |bind| sockets.listeners.port(&sockets.prepared, bind);
    let (snapshot, warnings) = snapshot(loaded, None, shared, port)?;
    warn(&warnings);
    warn_of_memory(&snapshot.config);
    maintenance::look(&snapshot, true);
    for name in drained {
        snapshot.table.drained().set(name, true);
    }
    for upstream in snapshot.table.upstreams() {
        upstream.obey_drained();
    }
    Ok((Live::new(snapshot), moving))
}

/// [`Snapshot::build`], which refuses as well what would keep certificates from being looked after, and what would keep
/// the first reload from being taken.
pub(super) fn snapshot(
    loaded: Loaded,
    previous: Option<&Snapshot>,
    shared: &Arc<Shared>,
    port: impl Fn(Bind) -> u16,
) -> Result<(Snapshot, Vec<Problem>), Problems> {
    let (source, mut problems) = (Arc::clone(&loaded.source), acme::unusable(&loaded));
    if previous.is_none() {
        problems.extend(privileges::unreadable(&loaded));
    }
    let built = Snapshot::build(loaded, previous, shared, port);
    problems.extend(built.as_ref().err().iter().flat_map(|more| more.list()).cloned());
    Problems::check(&source, problems)?;
    built
}

/// Takes up what another process has at `path`, or makes it. Returns where that process has it elsewhere.
fn admin_socket(
    given: Option<(OwnedFd, PathBuf)>,
    path: &Path,
) -> Result<(Server, Option<PathBuf>), RunError> {
    Ok(match given {
        Some((socket, there)) if there == path => (Server::adopt(socket, there), None),
        given => (Server::bind(path)?, given.map(|(_, there)| there)),
    })
}

/// Waits until the process before this one has stepped back. From then on the admin socket is this one's.
async fn take_over(
    predecessor: Option<&Predecessor>,
    server: &Server,
    former: Option<&Path>,
) -> Result<(), RunError> {
    if let Some(predecessor) = predecessor {
        predecessor.take_over().await.map_err(system("the process before this one"))?;
    }
    server.take();
    if let Some(former) = former {
        let _ = std::fs::remove_file(former);
    }
    Ok(())
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
