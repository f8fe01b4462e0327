//! Host to site, path to route: built once a configuration, read by every worker without a lock.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::bodies::{Ceiling, Shelf};
use super::maintenance::Maintenance;
use super::pages::Pages;
use super::policy::{Gates, Policy};
use crate::addr::Gate;
use crate::config::model::{Action, Config, Kind, Limits, PathPattern, Proxy, RowId, Site};
use crate::files::Folder;
use crate::name::{HostPattern, Hostname};
use crate::observe::metrics::{Labels, Series};
use crate::upstream::sticky::Key;
use crate::upstream::{Drained, Upstream};

/// Every site by row and name. A look-up costs one hash, two for a wildcard, however many sites there are.
#[derive(Debug)]
pub struct Table {
    rows: Box<[Names]>,
    sites: Box<[Arc<SiteEntry>]>,
    /// By [`RowId`].
    forwards: Box<[Option<Arc<Upstream>>]>,
    upstreams: HashMap<Proxy, Arc<Upstream>>,
    drained: Drained,
    labels: Labels,
    gates: Gates,
}

/// A site as requests meet it.
#[derive(Debug)]
pub struct SiteEntry {
    /// Its place in [`Config::sites`].
    pub index: usize,
    /// Who may use it.
    pub gate: Gate,
    /// Strict-Transport-Security's max-age; None leaves the header to Django.
    pub hsts: Option<Duration>,
    /// What it shows where the edge itself has to answer.
    pub pages: Pages,
    /// Whether it is in maintenance.
    pub maintenance: Maintenance,
    /// The first domain that is no wildcard: where `redirect` names lead, and what logs call the site.
    pub canonical: Option<Hostname>,
    /// The rows that serve it.
    pub rows: Box<[RowId]>,
    /// What its requests are counted as before their route is known.
    pub series: Series,
    redirect: Box<[Hostname]>,
    exact: Box<[(Box<[u8]>, RouteEntry)]>,
    prefixes: Box<[Prefix]>,
}

/// A route as requests meet it.
#[derive(Debug)]
pub struct RouteEntry {
    /// As the file spells it, for logs.
    pub path: PathPattern,
    /// Who may use it, beyond the site's gate.
    pub gate: Gate,
    /// The longest request body.
    pub body: Arc<Ceiling>,
    /// Where its bodies wait.
    pub shelf: Arc<Shelf>,
    /// What it does.
    pub action: RouteAction,
    /// What the edge adds to that; None: nothing.
    pub policy: Option<Arc<Policy>>,
    /// What its requests are counted as.
    pub series: Series,
}

/// What a route does.
#[derive(Debug, Clone)]
pub enum RouteAction {
    /// Hand it to an upstream.
    Proxy(Arc<Upstream>),
    /// Send the client elsewhere.
    Redirect {
        /// A path on the same host, or an absolute http(s) URL.
        to: Arc<str>,
        /// 301, 302, 303, 307 or 308.
        status: u16,
    },
    /// Answer with files.
    Files(Arc<Folder>),
    /// The same, and only where an upstream says so.
    Internal(Arc<Folder>),
}

/// The names of one row.
#[derive(Debug, Default)]
struct Names {
    exact: HashMap<Hostname, Arc<SiteEntry>>,
    /// By what stands behind the `*.`.
    wildcard: HashMap<Hostname, Arc<SiteEntry>>,
}

/// One prefix of a site, in a list that is sorted by `text`.
#[derive(Debug)]
struct Prefix {
    text: Box<[u8]>,
    /// The longest other prefix that `text` begins with: always earlier in the list.
    parent: Option<usize>,
    route: RouteEntry,
}

impl Table {
    /// Builds the table; `pages` are those of the sites, in their order. An upstream that `previous` has, word for word, is
    /// kept with its pools and its state, and so are the labels of the metrics, what was counted against a
    /// rate, the passwords that were right, and what was drained. `key` is for sticky cookies.
    pub fn build(
        config: &Config,
        pages: Vec<Pages>,
        previous: Option<&Self>,
        key: Option<&Arc<Key>>,
    ) -> Self {
        let drained = previous.map(|table| table.drained.clone()).unwrap_or_default();
        let mut labels = previous.map(|table| table.labels.clone()).unwrap_or_default();
        let mut gates = Gates::after(previous.map(|table| &table.gates));
        let mut upstreams = HashMap::new();
        let make = |proxy: &Proxy| Upstream::new(proxy, &drained, key);
        let mut upstream = |proxy: &Proxy| kept_or_new(proxy, &mut upstreams, previous, make);
        let sites: Box<[_]> = config
            .sites
            .iter()
            .enumerate()
            .zip(pages.into_iter().chain(std::iter::repeat_with(Pages::default)))
            .map(|((index, site), pages)| {
                let entry =
                    SiteEntry::build(index, site, &config.limits, &mut upstream, &mut labels, &mut gates);
                Arc::new(SiteEntry { pages, ..entry })
            })
            .collect();
        let mut rows: Box<[Names]> = config.rows.iter().map(|_| Names::default()).collect();
        for (site, entry) in config.sites.iter().zip(&sites) {
            for id in &site.rows {
                if let Some(names) = rows.get_mut(id.0) {
                    names.add(site, entry);
                }
            }
        }
        let forwards = config.rows.iter().map(|row| match &row.kind {
            Kind::Forward(forward) => Some(upstream(&forward.proxy)),
            Kind::Serve(_) => None,
        });
        let forwards = forwards.collect();
        Self { rows, sites, forwards, upstreams, drained, labels, gates: gates.settled() }
    }

    /// What a forward row forwards to.
    pub fn forward(&self, row: RowId) -> Option<&Arc<Upstream>> {
        self.forwards.get(row.0)?.as_ref()
    }

    /// The site that `host`, in its canonical form, names on a row.
    pub fn site(&self, row: RowId, host: &str) -> Option<&Arc<SiteEntry>> {
        let names = self.rows.get(row.0)?;
        names.exact.get(host).or_else(|| {
            let (_, parent) = host.split_once('.')?;
            names.wildcard.get(parent)
        })
    }

    /// Every site, in the order of the file.
    pub fn sites(&self) -> &[Arc<SiteEntry>] {
        &self.sites
    }

    /// What the metrics call its sites and routes.
    pub fn labels(&self) -> &Labels {
        &self.labels
    }

    /// What a person has taken out.
    pub fn drained(&self) -> &Drained {
        &self.drained
    }

    /// Every upstream once, in no order.
    pub fn upstreams(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        self.upstreams.values()
    }
}

impl SiteEntry {
    fn build(
        index: usize,
        site: &Site,
        limits: &Limits,
        upstream: &mut impl FnMut(&Proxy) -> Arc<Upstream>,
        labels: &mut Labels,
        gates: &mut Gates,
    ) -> Self {
        let canonical = site.domains.iter().find_map(exact_name).cloned();
        let first = || site.domains.first().map(ToString::to_string).unwrap_or_default();
        let name = canonical.as_ref().map_or_else(first, ToString::to_string);
        let room = gates.room(&name);
        let mut exact = Vec::new();
        let mut prefixes = Vec::new();
        for route in &site.routes {
            let series = labels.series(&name, &route.path.to_string());
            let policy = Policy::of(route, &name, gates);
            let (body, shelf) =
                (Ceiling::of(route.body, &route.path, &name), Shelf::of(route.buffers, limits, &room, &name));
            let action = RouteAction::of(&route.action, upstream);
            let (path, gate) = (route.path.clone(), route.gate.clone());
            let entry = RouteEntry { path, gate, body, shelf, action, policy, series };
            match &route.path {
                PathPattern::Exact(text) => exact.push((text.as_bytes().into(), entry)),
                PathPattern::Prefix(text) => prefixes.push((text.as_bytes().into(), entry)),
            }
        }
        Self {
            index,
            gate: site.gate.clone(),
            hsts: site.hsts,
            pages: Pages::default(),
            maintenance: Maintenance::of(&site.errors),
            canonical,
            rows: site.rows.as_slice().into(),
            series: labels.series(&name, ""),
            redirect: site.redirect.as_slice().into(),
            exact: sorted(exact).into(),
            prefixes: with_parents(sorted(prefixes)),
        }
    }

    /// Whether any of its names leads to the canonical one.
    pub fn has_redirects(&self) -> bool {
        !self.redirect.is_empty()
    }

    /// Whether `host`, in its canonical form, is a name that only leads to [`Self::canonical`].
    pub fn is_redirect(&self, host: &str) -> bool {
        self.redirect.iter().any(|name| name.as_str() == host)
    }

    /// The route for a path that [`normalize`](super::normalize) made: an exact one, else the longest prefix,
    /// letter for letter, as nginx has it.
    pub fn route(&self, path: &[u8]) -> Option<&RouteEntry> {
        if let Ok(at) = self.exact.binary_search_by(|(text, _)| (**text).cmp(path)) {
            return self.exact.get(at).map(|(_, route)| route);
        }
        // Whatever sorts between a prefix of the path and the path itself begins with that prefix, so the
        // answer is the last entry that sorts before the path, or one of the prefixes of that entry.
        let last = self.prefixes.partition_point(|prefix| *prefix.text <= *path).checked_sub(1)?;
        let mut candidate = self.prefixes.get(last)?;
        while !path.starts_with(&candidate.text) {
            candidate = self.prefixes.get(candidate.parent?)?;
        }
        Some(&candidate.route)
    }
}

impl RouteEntry {
    /// The name that a path of this route has below the directory of its files: what follows the prefix, or the last
    /// segment of the one path.
    pub fn file_name<'p>(&self, path: &'p [u8]) -> &'p [u8] {
        match &self.path {
            PathPattern::Prefix(prefix) => path.strip_prefix(prefix.as_bytes()).unwrap_or_default(),
            PathPattern::Exact(_) => path.rsplit(|b| *b == b'/').next().unwrap_or_default(),
        }
    }
}

impl RouteAction {
    fn of(action: &Action, upstream: &mut impl FnMut(&Proxy) -> Arc<Upstream>) -> Self {
        match action {
            Action::Proxy(proxy) => Self::Proxy(upstream(proxy)),
            Action::Redirect { to, status } => Self::Redirect { to: to.as_str().into(), status: *status },
            Action::Files(files) if files.internal => Self::Internal(Folder::new(files)),
            Action::Files(files) => Self::Files(Folder::new(files)),
        }
    }
}

impl Names {
    fn add(&mut self, site: &Site, entry: &Arc<SiteEntry>) {
        for pattern in &site.domains {
            let (names, name) = match pattern {
                HostPattern::Exact(name) => (&mut self.exact, name),
                HostPattern::Wildcard(parent) => (&mut self.wildcard, parent),
            };
            names.entry(name.clone()).or_insert_with(|| Arc::clone(entry));
        }
        for name in &site.redirect {
            self.exact.entry(name.clone()).or_insert_with(|| Arc::clone(entry));
        }
    }
}

fn exact_name(pattern: &HostPattern) -> Option<&Hostname> {
    match pattern {
        HostPattern::Exact(name) => Some(name),
        HostPattern::Wildcard(_) => None,
    }
}

fn kept_or_new(
    proxy: &Proxy,
    upstreams: &mut HashMap<Proxy, Arc<Upstream>>,
    previous: Option<&Table>,
    make: impl FnOnce(&Proxy) -> Arc<Upstream>,
) -> Arc<Upstream> {
    if let Some(known) = upstreams.get(proxy) {
        return Arc::clone(known);
    }
    let kept = previous.and_then(|table| table.upstreams.get(proxy)).cloned();
    let upstream = kept.unwrap_or_else(|| make(proxy));
    upstreams.insert(proxy.clone(), Arc::clone(&upstream));
    upstream
}

/// Sorted by text; of two that are equal the first in the file stays.
fn sorted(mut routes: Vec<(Box<[u8]>, RouteEntry)>) -> Vec<(Box<[u8]>, RouteEntry)> {
    routes.sort_by(|(a, _), (b, _)| a.cmp(b));
    routes.dedup_by(|(later, _), (first, _)| later == first);
    routes
}

fn with_parents(routes: Vec<(Box<[u8]>, RouteEntry)>) -> Box<[Prefix]> {
    let mut prefixes: Vec<Prefix> = Vec::with_capacity(routes.len());
    for (text, route) in routes {
        let mut parent = prefixes.len().checked_sub(1);
        while let Some(prefix) = parent.and_then(|at| prefixes.get(at)) {
            if text.starts_with(&prefix.text) {
                break;
            }
            parent = prefix.parent;
        }
        prefixes.push(Prefix { text, parent, route });
    }
    prefixes.into()
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use proptest::prelude::*;

    use super::*;
    use crate::config::model::{
        AccessLog, Acme, Admin, Balance, Bind, BodyLimit, Buffers, Certificate, Errors, Kind, Limits, Log,
        LogFormat, LogLevel, Place, Process, Route, Row, Serve, SetBy, Store, Target, Tls, TlsVersion,
    };

    #[test]
    fn a_name_finds_its_site_on_its_rows() {
        let mut second = site(&["b.example.com", "*.a.example.com"], &[], &[]);
        second.rows = vec![RowId(1)];
        let first = site(&["a.example.com", "*.example.com"], &["www.a.example.com"], &[]);
        let table = Table::build(&config(vec![first, second]), Vec::new(), None, None);
        for (row, host, expected) in [
            (0, "a.example.com", Some(0)),
            (0, "www.a.example.com", Some(0)),
            (0, "x.a.example.com", None),
            (0, "b.example.com", Some(0)),
            (0, "example.com", None),
            (0, "com", None),
            (1, "b.example.com", Some(1)),
            (1, "x.a.example.com", Some(1)),
            (1, "www.a.example.com", Some(0)),
            (1, "x.y.example.com", None),
            (2, "a.example.com", None),
        ] {
            let got = table.site(RowId(row), host).map(|site| site.index);
            assert_eq!(got, expected, "{host} on row {row}");
        }
        let found = table.site(RowId(0), "www.a.example.com").unwrap();
        assert!(found.is_redirect("www.a.example.com"));
        assert!(!found.is_redirect("a.example.com"));
        assert_eq!(found.canonical.as_ref().map(Hostname::as_str), Some("a.example.com"));
    }

    #[test]
    fn the_longest_prefix_wins_and_exact_before_it() {
        let routes = ["/", "/admin/", "/admin/log", "= /admin/", "/static", "= /x"];
        let table =
            Table::build(&config(vec![site(&["a.example.com"], &[], &routes)]), Vec::new(), None, None);
        for (path, expected) in [
            ("/", "/"),
            ("/admin", "/"),
            ("/admin/", "= /admin/"),
            ("/admin/x", "/admin/"),
            ("/admin/lo", "/admin/"),
            ("/admin/logs", "/admin/log"),
            ("/admin0", "/"),
            ("/statics", "/static"),
            ("/x", "= /x"),
            ("/x/", "/"),
            ("/zzz", "/"),
        ] {
            assert_eq!(
                table.sites()[0].route(path.as_bytes()).map(spelled).as_deref(),
                Some(expected),
                "{path}"
            );
        }
    }

    #[test]
    fn an_unchanged_upstream_is_kept() {
        let before =
            config(vec![site(&["a.example.com"], &[], &["/"]), site(&["b.example.com"], &[], &["/"])]);
        let old = Table::build(&before, Vec::new(), None, None);
        assert_eq!(old.upstreams().count(), 1, "equal upstreams are one");
        let mut after = before.clone();
        after.sites.remove(0);
        let mut changed = proxy();
        changed.connect_timeout *= 2;
        after.sites[0].routes.push(route("/ws/", Action::Proxy(changed)));
        let new = Table::build(&after, Vec::new(), Some(&old), None);
        let of = |table: &Table, path: &str| match &table.sites()[0].route(path.as_bytes()).unwrap().action {
            RouteAction::Proxy(upstream) => Arc::clone(upstream),
            _ => panic!("a proxy route"),
        };
        assert!(Arc::ptr_eq(&of(&old, "/"), &of(&new, "/")));
        assert!(!Arc::ptr_eq(&of(&old, "/ws/"), &of(&new, "/ws/")));
    }

    proptest! {
        #[test]
        fn the_longest_prefix_is_the_naive_one(
            prefixes in proptest::collection::vec("/[ab/]{0,5}", 0..12),
            paths in proptest::collection::vec("/[abc/]{0,8}", 8),
        ) {
            let routes: Vec<&str> = prefixes.iter().map(String::as_str).collect();
            let table = Table::build(&config(vec![site(&["a.example.com"], &[], &routes)]), Vec::new(), None, None);
            for path in paths {
                let naive = routes.iter().filter(|prefix| path.starts_with(**prefix)).max_by_key(|p| p.len());
                let got = table.sites()[0].route(path.as_bytes()).map(spelled);
                prop_assert_eq!(got.as_deref(), naive.copied(), "{}", path);
            }
        }
    }

    fn spelled(route: &RouteEntry) -> String {
        route.path.to_string()
    }

    fn proxy() -> Proxy {
        let target = Target::Tcp { host: "django".into(), port: 8000, tls: false };
        let second = Duration::from_secs(1);
        Proxy {
            targets: vec![target],
            connect_timeout: second,
            response_timeout: second,
            hold: second,
            retries: 2,
            begins_traces: false,
            balance: Balance::LeastBusy,
            cookie: None,
            concurrency: None,
            queue: 1,
            queue_timeout: second,
            health: None,
        }
    }

    fn route(path: &str, action: Action) -> Route {
        let path = match path.strip_prefix("= ") {
            Some(exact) => PathPattern::Exact(exact.to_owned()),
            None => PathPattern::Prefix(path.to_owned()),
        };
        let policy = crate::config::model::Policy::default();
        let body = BodyLimit { octets: 1024, set_by: SetBy::Limits };
        let (gate, files_place, buffers) = (Gate::open(), Place::default(), Buffers::default());
        Route { path, gate, body, buffers, action, policy, files_place }
    }

    fn site(domains: &[&str], redirect: &[&str], routes: &[&str]) -> Site {
        Site {
            domains: domains.iter().map(|name| HostPattern::parse(name).unwrap()).collect(),
            redirect: redirect.iter().map(|name| Hostname::parse(name).unwrap()).collect(),
            rows: vec![RowId(0), RowId(1)],
            gate: Gate::open(),
            certificate: Certificate::Internal,
            certificate_place: Place::default(),
            client_ca: None,
            client_ca_place: Place::default(),
            hsts: None,
            errors: Errors::default(),
            routes: routes.iter().map(|path| route(path, Action::Proxy(proxy()))).collect(),
        }
    }

    fn config(sites: Vec<Site>) -> Config {
        let row = |serve| Row {
            bind: Bind::One(SocketAddr::from(([127, 0, 0, 1], 0))),
            kind: Kind::Serve(serve),
            gate: Gate::open(),
            proxy_protocol: None,
            max_connections: None,
            max_connections_per_client: None,
            backlog: 16,
        };
        let second = Duration::from_secs(1);
        Config {
            source_files: Vec::new(),
            host_rows: Vec::new(),
            sources: Vec::new(),
            rows: vec![row(Serve::Http), row(Serve::Https)],
            sites,
            named: Vec::new(),
            tls: Tls { min_version: TlsVersion::V1_2 },
            store: Store { path: "certs".into(), key: None },
            acme: Acme {
                email: None,
                cas: Vec::new(),
                challenge: None,
                dns: None,
                ca_root: None,
                import: None,
                hook: None,
                webhook: None,
            },
            trace: None,
            client_address: None,
            limits: Limits {
                connections: 16,
                connections_per_client: None,
                body: 1024,
                buffer_memory: 1024,
                buffer_disk: 1024,
                header_timeout: second,
                handshake_timeout: second,
                idle_timeout: second,
            },
            log: Log { format: LogFormat::Text, access: AccessLog::Off, level: LogLevel::Info },
            admin: Admin { socket: "admin.sock".into(), listen: None },
            process: Process { workers: 1, user: None, grace: second },
        }
    }
}
