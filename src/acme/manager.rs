//! The manager: looks at every certificate on wall time, and sees to the ones that are due. It runs on the control thread;
//! no handshake waits for it, for a CA, or for the disk.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use time::{Duration, OffsetDateTime};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{AbortHandle, spawn_local};

use super::account::{Ca, on_disk};
use super::client::Client;
use super::command::Command;
use super::import::Lineages;
use super::notice::Notifier;
use super::pace::Pace;
use super::progress::Progress;
use super::settings::{CaSettings, Settings};
use super::solve::dns01::{self, Dns};
use super::solve::{Answers, Method};
use super::store::{CaPause, EventKind, Record, RecordId, Seal, Store};
use super::tend::{Asked, Memory, Tending, serve};
use crate::config::model::{Certificate, Serve, Site};
use crate::name::HostPattern;
use crate::snapshot::{Live, Snapshot};
use crate::tls::{self, Shared};

/// How often the clock and the configuration are looked at.
const LOOK: std::time::Duration = std::time::Duration::from_millis(500);
/// The longest time between two looks at one certificate: another edge may have renewed it.
pub(super) const TICK: Duration = Duration::minutes(1);
/// How many certificates are seen to at once.
const AT_ONCE: u32 = 8;
/// How long the record of a name that no site has any more is kept, and how often such records are looked for.
const GRACE: Duration = Duration::days(30);
const SWEEP: std::time::Duration = std::time::Duration::from_hours(6);

/// Opens the store where a site's certificate comes from a CA, takes over what certbot has, and puts what is stored to use.
/// Reads the disk.
///
/// # Errors
/// The store, or the key that seals it, cannot be used; the text says what to do.
pub fn open(snapshot: &Snapshot, certbot: &Lineages) -> Result<Option<Arc<Store>>, String> {
    if !snapshot.config.asks_a_ca() {
        return Ok(None);
    }
    let config = &snapshot.config.store;
    let seal = config.key.as_ref().map(|key| Seal::new(&key.read()?).map_err(|error| error.to_string()));
    let store = Store::open(&config.path, seal.transpose()?).map_err(|error| error.to_string())?;
    store.warnings().iter().for_each(|warning| tracing::warn!("{warning}"));
    certbot.take_over(&store, &snapshot.config, OffsetDateTime::now_utc());
    restore(&store, snapshot);
    Ok(Some(Arc::new(store)))
}

/// Looks after the certificates of whatever configuration runs, for ever. Call it inside a `LocalSet`. `store` is what
/// [`open`] gave for the first one.
pub async fn run(
    live: Live,
    shared: Arc<Shared>,
    store: Option<Arc<Store>>,
    mut commands: mpsc::Receiver<Command>,
    progress: Progress,
) {
    let answers = Rc::new(Answers(shared));
    let store = match store {
        Some(store) => store,
        None => opened(&live, &mut commands, &progress).await,
    };
    let pace = Rc::new(RefCell::new(recalled(&store).await));
    let (states, swept) = (HashMap::new(), Swept::default());
    let mut manager = Manager { live, answers, store, pace, commands, progress, states, swept };
    loop {
        let snapshot = manager.live.load();
        match manager.common(&snapshot).await {
            Ok(common) => {
                manager.progress.set_stopped(None);
                manager.watch(&snapshot, &Rc::new(common)).await;
            }
            Err(problem) => {
                tracing::error!(problem, "certificates cannot be looked after; read again in a minute");
                manager.progress.set_stopped(Some(problem.clone()));
                manager.rest(&snapshot, &problem).await;
            }
        }
    }
}

/// Every stored certificate that a site can use, its own first.
fn restore(store: &Store, snapshot: &Snapshot) {
    let records: Vec<_> =
        store.list().unwrap_or_default().iter().filter_map(|id| store.load(id).ok()?).collect();
    let acme = snapshot.config.certified().zip(snapshot.all_tls());
    for (site, tls) in acme.filter(|(site, _)| site.certificate == Certificate::Acme) {
        let sets = tls::sets(site);
        let own = |record: &&Record| sets.contains(&record.names);
        let other = |record: &&Record| {
            !sets.contains(&record.names) && sets.iter().flatten().any(|name| record.names.contains(name))
        };
        for record in records.iter().filter(own).chain(records.iter().filter(other)) {
            for bundle in record.spare.iter().chain(&record.bundle) {
                if let Err(problem) = serve(tls, &record.names, bundle) {
                    tracing::error!(%problem, "a stored certificate cannot be used");
                }
            }
        }
    }
}

/// Waits for a configuration with a site whose certificate comes from a CA, and opens the store for it.
async fn opened(live: &Live, commands: &mut mpsc::Receiver<Command>, progress: &Progress) -> Arc<Store> {
    loop {
        let snapshot = live.load();
        let (mut why, mut wait) = ("no site has a certificate from a CA".to_owned(), LOOK);
        match tokio::task::spawn_blocking(move || open(&snapshot, &Lineages::read(&snapshot.config))).await {
            Ok(Ok(Some(store))) => return store,
            Ok(Err(problem)) => {
                tracing::error!(problem, "the store of certificates cannot be used; tried again in a minute");
                progress.set_stopped(Some(problem.clone()));
                (why, wait) = (problem, TICK.unsigned_abs());
            }
            _ => {}
        }
        if let Ok(Some(command)) = tokio::time::timeout(wait, commands.recv()).await {
            command.refuse(why);
        }
    }
}

/// What all certificates of one configuration have in common.
pub(super) struct Common {
    /// The one method that is to be used.
    method: Option<Method>,
    /// In the order of the configuration.
    pub(super) cas: Vec<Rc<Ca>>,
    /// Where each CA is tried without consequences, by [`Common::cas`].
    pub(super) staging: Vec<Option<Rc<Ca>>>,
    pub(super) answers: Rc<Answers>,
    /// Who writes records, for the challenge dns-01.
    pub(super) dns: Option<Dns>,
    pub(super) store: Arc<Store>,
    pub(super) room: Semaphore,
    pub(super) pace: Rc<RefCell<Pace>>,
    pub(super) progress: Progress,
    /// Who is told what becomes of certificates.
    pub(super) notifier: Rc<Notifier>,
}

struct Manager {
    live: Live,
    answers: Rc<Answers>,
    store: Arc<Store>,
    pace: Rc<RefCell<Pace>>,
    commands: mpsc::Receiver<Command>,
    progress: Progress,
    states: HashMap<RecordId, State>,
    swept: Swept,
}

/// When old records were looked for, by the wall's clock and by one that only runs.
#[derive(Default)]
struct Swept(Option<(OffsetDateTime, Instant)>);

/// One certificate's place in the manager. Dropping it ends what is being done for it at once.
#[derive(Default)]
struct State {
    memory: Rc<RefCell<Memory>>,
    task: Option<AbortHandle>,
}

impl Drop for State {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Manager {
    /// Sees to what is due until the configuration changes.
    async fn watch(&mut self, snapshot: &Arc<Snapshot>, common: &Rc<Common>) {
        let wanted = wanted(snapshot, common);
        let ids: HashSet<&RecordId> = wanted.iter().map(|(id, _)| id).collect();
        self.states.retain(|id, _| ids.contains(id));
        self.progress.retain(&ids);
        spawn_local(tidy(Rc::clone(common), ids.iter().map(|id| (*id).clone()).collect()));
        while self.live.is_current(snapshot) {
            let now = OffsetDateTime::now_utc();
            for (id, tending) in &wanted {
                self.states.entry(id.clone()).or_default().see_to(tending, now);
            }
            self.progress.remind();
            self.sweep(&ids, now).await;
            if let Ok(Some(command)) = tokio::time::timeout(LOOK, self.commands.recv()).await {
                self.obey(command, common);
            }
        }
    }

    /// Passes a command on to the one that it is about.
    fn obey(&mut self, command: Command, common: &Rc<Common>) {
        let (id, asked) = match command {
            Command::Renew(id, reply) => (id, Asked::Renew(reply)),
            Command::Revoke(id, reply) => (id, Asked::Revoke(reply)),
            Command::Rekey(reply) => {
                let common = Rc::clone(common);
                spawn_local(async move { reply.send(rekey(&common).await) });
                return;
            }
        };
        match self.states.get(&id) {
            Some(state) => state.memory.borrow_mut().ask(asked),
            None => asked.answer(Err("nobody looks after that certificate just now".to_owned())),
        }
    }

    /// Waits for a while, or until the configuration changes. Whoever asks for something meanwhile is told why it is not done.
    async fn rest(&mut self, snapshot: &Arc<Snapshot>, problem: &str) {
        let begin = Instant::now();
        while self.live.is_current(snapshot) && begin.elapsed() < TICK {
            if let Ok(Some(command)) = tokio::time::timeout(LOOK, self.commands.recv()).await {
                command.refuse(format!("certificates cannot be looked after: {problem}"));
            }
        }
    }

    async fn common(&self, snapshot: &Snapshot) -> Result<Common, String> {
        let config = Arc::clone(&snapshot.config);
        let settings = tokio::task::spawn_blocking(move || Settings::of(&config)).await;
        let settings = settings.unwrap_or_else(|_| Err("a mistake of the edge's own".to_owned()))?;
        let ca = |own: &CaSettings| {
            let client = Client::new(settings.trust.clone());
            Rc::new(Ca::new(own.clone(), client, settings.email.as_deref(), Arc::clone(&self.store)))
        };
        let rehearsal = |own: &CaSettings| {
            let directory = own.staging.clone()?;
            Some(ca(&CaSettings { directory, binding: None, ..own.clone() }))
        };
        Ok(Common {
            cas: settings.cas.iter().map(ca).collect(),
            staging: settings.cas.iter().map(rehearsal).collect(),
            method: settings.method,
            answers: Rc::clone(&self.answers),
            dns: settings.dns,
            store: Arc::clone(&self.store),
            room: Semaphore::new(AT_ONCE as usize),
            pace: Rc::clone(&self.pace),
            progress: self.progress.clone(),
            notifier: Rc::new(settings.notifier),
        })
    }

    /// Removes the records of names that no site has had for long.
    async fn sweep(&mut self, used: &HashSet<&RecordId>, now: OffsetDateTime) {
        if !self.swept.is_due(now) {
            return;
        }
        let used: Vec<RecordId> = used.iter().map(|id| (*id).clone()).collect();
        match on_disk(&self.store, move |store| store.forget_after(&used, GRACE, now)).await {
            Ok(gone) if gone.is_empty() => {}
            Ok(gone) => tracing::info!(?gone, "records of names that no site has any more are removed"),
            Err(failure) => tracing::warn!(%failure, "old records could not be removed"),
        }
    }
}

impl State {
    /// Begins a look where one is due and none is under way.
    fn see_to(&mut self, tending: &Rc<Tending>, now: OffsetDateTime) {
        if self.task.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        // A clock that jumped back must not put a look off for longer than a tick.
        let next = self.memory.borrow().next;
        if next.is_none_or(|next| next <= now || next > now + TICK) {
            let (tending, memory) = (Rc::clone(tending), Rc::clone(&self.memory));
            self.task = Some(spawn_local(async move { tending.look(&memory).await }).abort_handle());
        }
    }
}

/// Gives every account a new key, while no order is under way: each speaks with the key that it began with.
async fn rekey(common: &Common) -> Result<String, String> {
    let Ok(_alone) = common.room.acquire_many(AT_ONCE).await else {
        return Err("the edge leaves".to_owned());
    };
    let (mut changed, mut failed) = (Vec::new(), Vec::new());
    for ca in common.cas.iter().chain(common.staging.iter().flatten()) {
        match ca.rekey().await {
            Ok(true) => changed.push(ca.host()),
            Ok(false) => {}
            Err(failure) => failed.push(format!("{}: {failure}", ca.host())),
        }
    }
    match (changed.as_slice(), failed.as_slice()) {
        ([], []) => {
            Err("there is no account yet; the first order makes one, with a key of its own".to_owned())
        }
        (_, []) => Ok(format!("new keys for the accounts at {}", changed.join(", "))),
        _ => Err(failed.join("; ")),
    }
}

impl Swept {
    /// Whether old records are to be looked for: some hours after the start, and then every few, and only where the clock has
    /// run evenly since. One that jumps must not make records old.
    fn is_due(&mut self, now: OffsetDateTime) -> bool {
        let (wall, steady) = *self.0.get_or_insert((now, Instant::now()));
        if steady.elapsed() < SWEEP {
            return false;
        }
        self.0 = Some((now, Instant::now()));
        let ran = Duration::try_from(steady.elapsed()).unwrap_or(Duration::MAX);
        ((now - wall) - ran).abs() < Duration::HOUR
    }
}

/// The certificates that the configuration asks for.
fn wanted(snapshot: &Snapshot, common: &Rc<Common>) -> Vec<(RecordId, Rc<Tending>)> {
    let sites = snapshot.config.certified().zip(snapshot.all_tls());
    let acme = sites.filter(|(site, _)| site.certificate == Certificate::Acme);
    let tending = |(site, tls)| {
        tls::sets(site).into_iter().map(move |names| {
            let id = RecordId::of(&names);
            let methods = methods(snapshot, site, &names, common);
            let (common, tls) = (Rc::clone(common), Arc::clone(tls));
            (id.clone(), Rc::new(Tending { id, names, tls, methods, common }))
        })
    };
    acme.flat_map(tending).collect()
}

/// The ways in which names of the site can be proved, in the order in which they are tried. A wildcard has one alone
/// (RFC 8555 section 8.4).
fn methods(snapshot: &Snapshot, site: &Site, names: &[HostPattern], common: &Common) -> Vec<Method> {
    let by_dns = common.dns.as_ref().map(|_| Method::Dns01);
    if names.iter().any(|name| matches!(name, HostPattern::Wildcard(_))) {
        return by_dns.into_iter().collect();
    }
    let serves = |wanted| {
        site.rows
            .iter()
            .any(|id| snapshot.config.rows.get(id.0).is_some_and(|row| row.serve() == Some(wanted)))
    };
    let all = [(Serve::Http, Method::Http01), (Serve::Https, Method::TlsAlpn01)];
    let by_row = all.into_iter().filter(|(serve, _)| serves(*serve)).map(|(_, method)| method);
    match common.method {
        Some(method) => vec![method],
        None => by_row.chain(by_dns).collect(),
    }
}

/// Takes away what orders for names that no site has any more have left in the DNS.
async fn tidy(common: Rc<Common>, used: HashSet<RecordId>) {
    let read = move |store: &Store| {
        let mut left = store.list()?;
        left.retain(|id| {
            let record = || store.load(id).ok().flatten();
            !used.contains(id) && record().is_some_and(|record| !record.published.is_empty())
        });
        Ok(left)
    };
    for id in on_disk(&common.store, read).await.unwrap_or_default() {
        if let Err(failure) = dns01::tidy(common.dns.as_ref(), &common.store, &id).await {
            tracing::warn!(certificate = %id, %failure, "what an order had left in the DNS could not be removed");
        }
    }
}

/// The orders that other processes made of late, and what CAs asked of them, out of the store.
async fn recalled(store: &Arc<Store>) -> Pace {
    let read = |store: &Store| {
        let mut pace = Pace::default();
        for id in store.list()? {
            let Ok(Some(record)) = store.load(&id) else { continue };
            if let Some(CaPause { directory, until }) = &record.retry.ca_pause {
                pace.pause(directory, *until);
            }
            let directory = record.bundle.as_ref().map(|bundle| bundle.directory.as_str());
            let pending = record.order.as_ref().map(|order| order.directory.as_str());
            let Some(directory) = pending.or(directory) else { continue };
            for event in record.history.iter().filter(|event| event.kind == EventKind::Ordered) {
                pace.recall(directory, event.at);
            }
        }
        Ok(pace)
    };
    on_disk(store, read).await.unwrap_or_default()
}
