//! A reload: prepared to its end beside the running configuration, then taken over in one step or not at all.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use super::difference::{add_pages, difference, keep_fixed};
use super::listeners::Prepared;
use super::maintenance;
use super::server::{Edge, warn};
use super::start::snapshot;
use crate::admin::listen::{self, Listener};
use crate::admin::{Difference, Reloaded};
use crate::config::model::{Bind, Config, Listen, Row};
use crate::config::problem::{Problem, Problems, SourceText, render};
use crate::net::inherit::Given;
use crate::net::listen::{BindError, Bound};
use crate::observe::access::Destination;
use crate::snapshot::Snapshot;

/// A configuration that is ready to be swapped in. Dropping it leaves no trace.
struct Next {
    snapshot: Snapshot,
    rows: Prepared,
    /// `[admin] listen`, where it is another one.
    shown: Option<(Bind, Bound)>,
    access: Option<Destination>,
    difference: Difference,
    warnings: Vec<Problem>,
    source: Arc<SourceText>,
}

impl Edge {
    /// Reads the configuration again and takes it over, or says why not, in the log too.
    pub(super) async fn reload(&mut self) -> Reloaded {
        let prepared = self.prepare().await;
        self.scraped.reloads.count(prepared.is_ok());
        match prepared {
            Ok(next) => self.take_over(next).await,
            Err(problems) => {
                tracing::error!(problems, "reload refused: the running configuration stays");
                Reloaded::refused(self.live.load().generation, problems)
            }
        }
    }

    /// Everything that can fail. The error is text to be printed.
    async fn prepare(&self) -> Result<Next, String> {
        let origin = self.origin.clone();
        let mut loaded = off_thread(move || origin.load()).await?.map_err(|problems| problems.to_string())?;
        let old = self.live.load();
        let mut difference = difference(&old.config, &loaded.config);
        keep_fixed(&old.config, &mut loaded.config);
        self.moving.settle(&mut loaded.config);
        let log = &loaded.config.log;
        let access = if *log == old.config.log { None } else { Some(Destination::open(log)) };
        let access = access.transpose().map_err(|error| format!("error: [log] access: {error}\n"))?;
        let workers = old.config.process.workers;
        let rows = self.listeners.prepare(&loaded.config.rows, workers, &mut Given::default());
        let rows = rows.map_err(|errors| cannot_listen(&errors, old.config.process.user.as_deref()))?;
        let shown =
            self.prepare_shown(&loaded.config, &rows).map_err(|error| cannot_listen(&[error], None))?;
        let port = |row: &Row| (row.bind, self.listeners.port(&rows, row.bind));
        let ports: HashMap<_, _> = loaded.config.rows.iter().map(port).collect();
        let port = move |bind: Bind| ports.get(&bind).copied().unwrap_or_else(|| bind.port());
        let mut warnings = std::mem::take(&mut loaded.warnings);
        let source = Arc::clone(&loaded.source);
        let (shared, before) = (Arc::clone(&self.shared), Arc::clone(&old));
        let (snapshot, more) = off_thread(move || {
            let built = snapshot(loaded, Some(&old), &shared, port)?;
            // Its sites begin as those that run are.
            maintenance::look(&built.0, false);
            Ok::<_, Problems>(built)
        })
        .await?
        .map_err(|problems| problems.to_string())?;
        warnings.extend(more);
        add_pages(&mut difference, &before, &snapshot);
        Ok(Next { snapshot, rows, shown, access, difference, warnings, source })
    }

    /// None where the listener that there is stays, or none is asked for.
    fn prepare_shown(&self, config: &Config, rows: &Prepared) -> Result<Option<(Bind, Bound)>, BindError> {
        let new = |own: &&Listen| self.listener.as_ref().is_none_or(|listener| listener.bind != own.bind);
        let Some(own) = config.admin.listen.as_ref().filter(new) else { return Ok(None) };
        let held: Vec<_> = self.listeners.all_addresses().chain(rows.addresses()).collect();
        listen::prepare(own, &held, Vec::new()).map(|bound| Some((own.bind, bound)))
    }

    /// Nothing in here can fail.
    async fn take_over(&mut self, next: Next) -> Reloaded {
        let Next { snapshot, rows, shown, access, difference, warnings, source } = next;
        let (config, generation) = (Arc::clone(&snapshot.config), snapshot.generation);
        self.keeper.keep(snapshot.table.upstreams());
        let known: Vec<_> = self.live.swap(snapshot).config.rows.iter().map(|row| row.bind).collect();
        let Self { listeners, workers, .. } = self;
        listeners.commit(rows, |bind, bound| workers.listen(bind, bound));
        listeners.retain(&config.rows, |bind| workers.close(bind));
        workers.look().await;
        self.exporter.obey(&self.live.load());
        self.show(&config, shown);
        if let Some(access) = access {
            self.access.switch(access);
            self.log.set_level(config.log.level);
        }
        warn(&warnings);
        self.tell_listening(&config, |bind| !known.contains(&bind));
        for key in &difference.restart {
            tracing::warn!(key, "a change takes a restart, and waits for it");
        }
        let changes = difference.to_string().replace('\n', ", ");
        tracing::info!(generation, changes, "reloaded");
        let warnings = render("warning", &source, &warnings);
        Reloaded { ok: true, generation, difference: Some(difference), warnings, problems: None }
    }
}

impl Edge {
    /// Takes up what `[admin] listen` says now.
    fn show(&mut self, config: &Config, shown: Option<(Bind, Bound)>) {
        if config.admin.listen.is_none() {
            (self.listener, self.sampler) = (None, None);
        }
        if let Some((bind, bound)) = shown {
            self.listener = Some(Listener::serve(bind, bound, &self.desk));
            self.sampler.get_or_insert_with(|| self.scraped.sampler());
            self.tell_shown();
        }
    }
}

/// The rows that cannot be bound, as text to be printed. `user` is whom root was given up for.
fn cannot_listen(errors: &[BindError], user: Option<&str>) -> String {
    let mut lines: Vec<_> = errors.iter().map(|error| format!("error: {error}\n")).collect();
    let denied = errors.iter().any(|error| error.source.kind() == io::ErrorKind::PermissionDenied);
    lines.extend(user.filter(|_| denied).map(|user| {
        format!("help: root was given up for \"{user}\" at the start; a restart binds the new port\n")
    }));
    lines.concat()
}

/// Reads files and checks certificates on a thread of its own, so that the admin socket stays awake.
async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    let mistake = |_| "error: a mistake of the edge's own; its log says more\n".to_owned();
    tokio::task::spawn_blocking(work).await.map_err(mistake)
}
