//! What the window shows, and the samples that its plots are drawn from.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use time::OffsetDateTime;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use super::{explain, scrape};
use crate::addr::{Gate, Source};
use crate::admin::Status;
use crate::admin::page::{MemberView, RowView, SiteView, UpstreamView, View};
use crate::config::model::{Action, Config, Kind, Proxy, Row, Site};
use crate::observe::access::Access;
use crate::observe::history::History;
use crate::observe::metrics::{Metrics, Reading, RouteSum};
use crate::snapshot::Snapshot;
use crate::upstream::{MemberStatus, Upstream};

/// How often a sample is taken.
const PERIOD: Duration = Duration::from_secs(1);

/// The samples, while somebody may look at them. Dropping it takes no more.
#[derive(Debug)]
pub(super) struct Sampler {
    history: Arc<Mutex<History>>,
    task: JoinHandle<()>,
}

impl Sampler {
    /// Begins to take samples. Call inside a runtime.
    pub(super) fn start(metrics: Metrics) -> Self {
        let history = Arc::<Mutex<History>>::default();
        let task = tokio::spawn(sample(metrics, Arc::clone(&history)));
        Self { history, task }
    }

    pub(super) fn history(&self) -> History {
        self.history.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn sample(metrics: Metrics, history: Arc<Mutex<History>>) {
    let start = Instant::now();
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        let reading = metrics.read();
        history.lock().unwrap_or_else(PoisonError::into_inner).look(start.elapsed(), &reading);
    }
}

/// What a view is made of.
pub(super) struct Sources {
    pub(super) status: Status,
    pub(super) leaving: bool,
    pub(super) scraped: scrape::Scraped,
    pub(super) access: Access,
    pub(super) history: History,
    pub(super) snapshot: Arc<Snapshot>,
}

impl Sources {
    /// Everything that the page shows. Reads the disk: call it on a thread that may wait.
    pub(super) fn view(self) -> View {
        let Self { status, leaving, scraped, access, history, snapshot } = self;
        let (config, reading) = (&*snapshot.config, scraped.reading());
        let sources = std::iter::once(Source::public()).chain(config.sources.iter().cloned());
        let sources: Vec<Source> = sources.collect();
        let taken = scraped.reloads.last_success;
        let troubles = access.recent().troubles();
        View {
            now: OffsetDateTime::now_utc(),
            leaving,
            reload_ok: scraped.reloads.last_ok,
            in_flight: reading.in_flight,
            history,
            rows: config.rows.iter().map(|own| row(own, &sources, &status, &reading)).collect(),
            sources: sources.iter().map(|source| source.name.to_string()).collect(),
            sites: sites(config, &snapshot, &reading),
            upstreams: upstreams(&snapshot),
            certificates: scraped.certificates(&snapshot).certificates.clone(),
            troubles: troubles.iter().map(|trouble| explain::met(trouble, &snapshot, taken)).collect(),
            status,
        }
    }
}

fn row(row: &Row, sources: &[Source], status: &Status, reading: &Reading) -> RowView {
    let key = row.bind.to_string();
    let serve = status.rows.iter().find(|own| own.row == key).map(|own| own.serve.clone());
    let sum = reading.rows.get(&row.bind).copied().unwrap_or_default();
    let refused = reading.refused.iter().filter(|((bind, _), _)| *bind == row.bind);
    RowView {
        row: key,
        serve: serve.unwrap_or_default(),
        cells: sources.iter().map(|source| cell(&row.gate, source)).collect(),
        open: sum.open,
        opened: sum.opened,
        refused: refused.map(|(_, count)| count).sum(),
    }
}

/// As the matrix of `check` has it: a source that `public` lets in is let in.
fn cell(gate: &Gate, source: &Source) -> Option<bool> {
    let named = |list: &[Source]| list.iter().any(|other| other.name == source.name);
    let everyone = gate.allow.iter().any(|other| other.members.is_none());
    if named(&gate.deny) {
        return Some(false);
    }
    (named(&gate.allow) || everyone).then_some(true)
}

fn sites(config: &Config, snapshot: &Snapshot, reading: &Reading) -> Vec<SiteView> {
    let sums: HashMap<String, RouteSum> = scrape::by_site(reading, snapshot.table.labels())
        .into_iter()
        .map(|(name, sum)| (name.to_owned(), sum))
        .collect();
    let view = |site: &Site| {
        let sum = sums.get(&explain::name(site));
        let took = |share| sum.and_then(|sum| sum.total.quantile(share));
        SiteView {
            names: site
                .domains
                .iter()
                .map(ToString::to_string)
                .chain(site.redirect.iter().map(ToString::to_string))
                .collect(),
            routes: site.routes.iter().map(|route| (route.path.to_string(), explain::does(route))).collect(),
            requests: sum.map_or(0, |sum| sum.statuses.total()),
            failed: sum.map_or(0, |sum| sum.statuses.failed()),
            took: took(0.5).zip(took(0.95)),
        }
    };
    config.sites.iter().map(view).collect()
}

fn upstreams(snapshot: &Snapshot) -> Vec<UpstreamView> {
    let config = &snapshot.config;
    let member = |own: MemberStatus| MemberView {
        well: matches!(own.state, "up" | "warming"),
        target: own.target,
        address: own.address,
        state: own.state.to_owned(),
        busy: own.busy,
        error: own.error,
    };
    let view = |upstream: &Arc<Upstream>| UpstreamView {
        users: users(config, upstream.proxy()),
        members: upstream.status().into_iter().map(member).collect(),
    };
    let mut upstreams: Vec<UpstreamView> = snapshot.table.upstreams().map(view).collect();
    // In the order of the file: sites, then rows.
    let place = |upstream: &UpstreamView| {
        let first = upstream.users.first().cloned().unwrap_or_default();
        let site = config.sites.iter().position(|site| explain::name(site) == first);
        (site.unwrap_or(usize::MAX), first)
    };
    upstreams.sort_by_cached_key(|upstream| {
        (place(upstream), upstream.members.first().map(|first| first.target.clone()))
    });
    upstreams
}

/// Whose it is: sites, and rows that forward.
fn users(config: &Config, proxy: &Proxy) -> Vec<String> {
    let uses = |site: &&Site| {
        site.routes.iter().any(|route| matches!(&route.action, Action::Proxy(own) if own == proxy))
    };
    let forwards = |row: &&Row| matches!(&row.kind, Kind::Forward(forward) if forward.proxy == *proxy);
    let sites = config.sites.iter().filter(uses).map(explain::name);
    sites.chain(config.rows.iter().filter(forwards).map(|row| format!("port {}", row.bind))).collect()
}
