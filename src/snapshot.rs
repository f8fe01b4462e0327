//! The running configuration: one frozen value behind one pointer.
//!
//! A [`Snapshot`] is prepared to its end before it is shown to anybody, and never changes afterwards. Requests load it
//! anew, so that a keep-alive connection obeys a new allow list; what must outlive a reload is carried over from the
//! previous one: upstreams with their pools, internal certificates, session-ticket keys.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::addr::is_own;
use crate::config;
use crate::config::model::{
    Action, Balance, Bind, Certificate, Config, Kind, Place, Route, Row, RowId, Serve, Site,
};
use crate::config::problem::{Problem, Problems};
use crate::files::Folder;
use crate::name::{HostPattern, Hostname};
use crate::route::{Pages, SiteEntry, Table};
use crate::tls::challenges::Book;
use crate::tls::{Authority, Shared, SiteTls, StoreError, TlsProblem};
use crate::upstream::sticky::Key;

/// The running configuration.
#[derive(Debug)]
pub struct Snapshot {
    /// 1 at the start, one more with every reload.
    pub generation: u64,
    /// What is true.
    pub config: Arc<Config>,
    /// Hosts and paths.
    pub table: Table,
    rows: HashMap<Bind, RowId>,
    /// By [`RowId`]: where the row really listens.
    ports: Box<[u16]>,
    /// What CAs may ask for just now.
    pub challenges: Book,
    /// In the order of [`Config::certified`], so that [`SiteEntry::index`] is a site's.
    tls: Box<[Arc<SiteTls>]>,
    /// What forward rows answer handshakes with: indices into `tls`.
    row_tls: HashMap<RowId, usize>,
}

/// The one pointer. Clones share it.
#[derive(Debug, Clone)]
pub struct Live(Arc<ArcSwap<Snapshot>>);

impl Snapshot {
    /// Prepares a configuration: every certificate is loaded and checked, every page read, every directory of files looked for. `port` tells the real port of a row that
    /// listens already. Returns what is odd without being wrong, or everything that is wrong at once.
    pub fn build(
        loaded: config::Loaded,
        previous: Option<&Self>,
        shared: &Arc<Shared>,
        port: impl Fn(Bind) -> u16,
    ) -> Result<(Self, Vec<Problem>), Problems> {
        let config = loaded.config;
        let mut certificates = Certificates::new(&config, previous, shared);
        let tls: Vec<_> = config.certified().filter_map(|site| certificates.load(site)).collect();
        let Certificates { mut problems, warnings, .. } = certificates;
        problems.extend(missing_folders(&config));
        problems.extend(unread_headers(&config));
        let pages = pages(&config, &mut problems);
        let key = sticky_key(&config).map_err(|problem| problems.push(problem)).ok().flatten();
        Problems::check(&loaded.source, problems)?;
        let older = previous.map(|previous| &previous.table);
        let snapshot = Self {
            generation: previous.map_or(1, |previous| previous.generation + 1),
            table: Table::build(&config, pages, older, key.as_ref()),
            rows: config.rows.iter().enumerate().map(|(index, row)| (row.bind, RowId(index))).collect(),
            ports: config.rows.iter().map(|row| port(row.bind)).collect(),
            tls: tls.into(),
            row_tls: row_tls(&config),
            challenges: shared.challenges().clone(),
            config: Arc::new(config),
        };
        Ok((snapshot, warnings))
    }

    /// The same with another configuration, which differs from its own in the members of sources alone.
    #[must_use]
    pub fn with_sources(&self, config: Config) -> Self {
        let older = self.table.sites();
        let pages = older.iter().map(|site| site.pages.clone()).collect();
        let table = Table::build(&config, pages, Some(&self.table), None);
        for (new, old) in table.sites().iter().zip(older) {
            new.maintenance.set(old.maintenance.is_on());
        }
        Self {
            generation: self.generation,
            table,
            rows: self.rows.clone(),
            ports: self.ports.clone(),
            challenges: self.challenges.clone(),
            tls: self.tls.clone(),
            row_tls: self.row_tls.clone(),
            config: Arc::new(config),
        }
    }

    /// Loads and checks what [`Snapshot::build`] would, and keeps nothing. An internal CA that does not exist yet is
    /// not made. Returns what is wrong, and what is odd.
    pub fn check(loaded: &config::Loaded, shared: &Arc<Shared>) -> (Vec<Problem>, Vec<Problem>) {
        let mut certificates = Certificates::new(&loaded.config, None, shared);
        let unmade = matches!(Authority::root_path(&loaded.config.store.path).try_exists(), Ok(false));
        for site in loaded.config.certified() {
            if !(unmade && site.certificate == Certificate::Internal) {
                certificates.load(site);
            }
        }
        certificates.problems.extend(missing_folders(&loaded.config));
        certificates.problems.extend(unread_headers(&loaded.config));
        pages(&loaded.config, &mut certificates.problems);
        (certificates.problems, certificates.warnings)
    }

    /// The row that listens there, if this configuration still has it.
    pub fn row(&self, bind: Bind) -> Option<(RowId, &Row)> {
        let id = *self.rows.get(&bind)?;
        self.config.rows.get(id.0).map(|row| (id, row))
    }

    /// The row that a connection to an address comes in on; None where the address is not the edge's.
    pub fn row_at(&self, address: SocketAddr) -> Option<RowId> {
        let ip = address.ip().to_canonical();
        let rows = || {
            let here = self.config.rows.iter().zip(&self.ports).zip(0..);
            here.filter(|((_, port), _)| **port == address.port())
                .map(|((row, _), id)| (row.bind.address(), RowId(id)))
        };
        let exact = rows().find(|(own, _)| *own == Some(ip));
        let any = || rows().find(|(own, _)| own.is_none()).filter(|_| is_own(ip));
        exact.or_else(any).map(|(_, id)| id)
    }

    /// Whether what a row forwards comes in on it again, as far as names have been looked up.
    pub fn forwards_to_itself(&self, row: RowId) -> bool {
        let (mut open, mut seen) = (vec![row], Vec::new());
        while let Some(at) = open.pop() {
            let targets = self.table.forward(at).map(|upstream| upstream.addresses()).unwrap_or_default();
            for next in targets.into_iter().filter_map(|address| self.row_at(address)) {
                if next == row {
                    return true;
                }
                if !seen.contains(&next) {
                    seen.push(next);
                    open.push(next);
                }
            }
        }
        false
    }

    /// What a site answers handshakes with.
    pub fn tls(&self, site: &SiteEntry) -> Option<&Arc<SiteTls>> {
        self.tls.get(site.index)
    }

    /// What a forward row answers handshakes with; None where it has no TLS.
    pub fn row_tls(&self, row: RowId) -> Option<&Arc<SiteTls>> {
        self.tls.get(*self.row_tls.get(&row)?)
    }

    /// What answers handshakes for each of [`Config::certified`].
    pub fn all_tls(&self) -> &[Arc<SiteTls>] {
        &self.tls
    }

    /// The port that a site's https is spoken on for a client that came in at the address `local`: that of a row for
    /// this address, else of a row for all, else of any; 443 for a site without an https row.
    pub fn https_port(&self, site: &SiteEntry, local: IpAddr) -> u16 {
        let https = || {
            let rows =
                site.rows.iter().filter_map(|id| Some((self.config.rows.get(id.0)?, self.ports.get(id.0)?)));
            rows.filter(|(row, _)| row.serve() == Some(Serve::Https))
                .map(|(row, port)| (row.bind.address(), *port))
        };
        let local = local.to_canonical();
        let here = https().find(|(address, _)| *address == Some(local));
        let anywhere = || https().find(|(address, _)| address.is_none());
        here.or_else(anywhere).or_else(|| https().next()).map_or(443, |(_, port)| port)
    }
}

impl Live {
    /// A pointer to the first configuration.
    pub fn new(snapshot: Snapshot) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(snapshot)))
    }

    /// The configuration of this moment.
    pub fn load(&self) -> Arc<Snapshot> {
        self.0.load_full()
    }

    /// Whether `snapshot` is still the one. Counts nothing that threads share.
    pub fn is_current(&self, snapshot: &Arc<Snapshot>) -> bool {
        Arc::ptr_eq(&self.0.load(), snapshot)
    }

    /// Swaps the pointer. Returns the configuration that ran until now.
    pub fn swap(&self, snapshot: Snapshot) -> Arc<Snapshot> {
        self.0.swap(Arc::new(snapshot))
    }
}

/// Loads the certificates of a whole configuration, collecting all that is wrong or odd.
struct Certificates<'a> {
    config: &'a Config,
    previous: HashMap<&'a [HostPattern], (&'a Site, &'a Arc<SiteTls>)>,
    older: Option<&'a Snapshot>,
    /// Which sites of `older` have a name.
    owners: HashMap<HostPattern, Vec<usize>>,
    shared: &'a Arc<Shared>,
    authority: Option<Arc<Authority>>,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

impl<'a> Certificates<'a> {
    fn new(config: &'a Config, previous: Option<&'a Snapshot>, shared: &'a Arc<Shared>) -> Self {
        Self {
            config,
            previous: previous_sites(config, previous),
            older: previous,
            owners: previous.map(owners).unwrap_or_default(),
            shared,
            authority: None,
            problems: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// None where something is wrong.
    fn load(&mut self, site: &Site) -> Option<Arc<SiteTls>> {
        if let Some(kept) = self.kept(site) {
            return Some(kept);
        }
        let authority = &mut self.authority;
        let store = &self.config.store.path;
        let open = || -> Result<Arc<Authority>, StoreError> {
            match authority {
                Some(open) => Ok(Arc::clone(open)),
                None => Ok(Arc::clone(authority.insert(Arc::new(Authority::open(store)?)))),
            }
        };
        match SiteTls::load(site, &self.config.tls, self.shared, open) {
            Ok(loaded) => {
                self.warnings.extend(loaded.warnings.into_iter().map(problem));
                self.adopt(site, &loaded.tls);
                Some(loaded.tls)
            }
            Err(problems) => {
                self.problems.extend(problems.into_iter().map(problem));
                None
            }
        }
    }

    /// A certificate of the edge's own CA, or of an ACME CA, stays in use for the same names. Files are read again: a
    /// reload that names wrong ones is to be refused.
    fn kept(&self, site: &Site) -> Option<Arc<SiteTls>> {
        let (old, tls) = self.previous.get(site.domains.as_slice())?;
        let same = matches!(site.certificate, Certificate::Internal | Certificate::Acme)
            && old.certificate == site.certificate
            && old.client_ca.is_none()
            && site.client_ca.is_none()
            && old.redirect == site.redirect;
        same.then(|| Arc::clone(tls))
    }

    /// A site that is to have certificates from an ACME CA begins with those that the previous configuration has for
    /// its names.
    fn adopt(&self, site: &Site, tls: &SiteTls) {
        if site.certificate != Certificate::Acme {
            return;
        }
        let owners: BTreeSet<usize> =
            names(site).filter_map(|name| self.owners.get(&name)).flatten().copied().collect();
        for owner in owners {
            if let Some(older) = self.older.and_then(|older| older.tls.get(owner)) {
                tls.adopt(older);
            }
        }
    }
}

/// The certificates that a new configuration may take over, by their sites' domains.
fn previous_sites<'a>(
    config: &Config,
    previous: Option<&'a Snapshot>,
) -> HashMap<&'a [HostPattern], (&'a Site, &'a Arc<SiteTls>)> {
    let same = |old: &&Snapshot| old.config.store == config.store && old.config.tls == config.tls;
    let sites = previous.filter(same).map(|old| old.config.certified().zip(&old.tls));
    sites.into_iter().flatten().map(|(site, tls)| (site.domains.as_slice(), (site, tls))).collect()
}

fn owners(snapshot: &Snapshot) -> HashMap<HostPattern, Vec<usize>> {
    let mut owners: HashMap<HostPattern, Vec<usize>> = HashMap::new();
    for (index, site) in snapshot.config.certified().enumerate() {
        names(site).for_each(|name| owners.entry(name).or_default().push(index));
    }
    owners
}

/// Everything that a site is called.
fn names(site: &Site) -> impl Iterator<Item = HostPattern> {
    site.domains.iter().cloned().chain(site.redirect.iter().cloned().map(HostPattern::Exact))
}

/// Whose certificate each forward row with TLS shows: its own name's, else that of the site which has the name.
fn row_tls(config: &Config) -> HashMap<RowId, usize> {
    let owner = |name: &Hostname| {
        let exact = |site: &Site| names(site).any(|own| own == HostPattern::Exact(name.clone()));
        let named = config.named.iter().position(exact).map(|index| config.sites.len() + index);
        let matching = |site: &Site| names(site).any(|own| own.matches(name));
        named
            .or_else(|| config.sites.iter().position(exact))
            .or_else(|| config.sites.iter().position(matching))
    };
    let rows = config.rows.iter().enumerate().filter_map(|(index, row)| match &row.kind {
        Kind::Forward(forward) => Some((RowId(index), owner(&forward.tls.as_ref()?.name)?)),
        Kind::Serve(_) => None,
    });
    rows.collect()
}

/// The routes whose files cannot be served.
fn missing_folders(config: &Config) -> impl Iterator<Item = Problem> {
    config.sites.iter().flat_map(|site| &site.routes).filter_map(|route| {
        let Action::Files(files) = &route.action else { return None };
        let (message, help) = Folder::new(files).check().err()?;
        Some(Problem::new(route.files_place.clone(), message, help))
    })
}

/// What a collector of traces wants to be told, where that cannot be read.
fn unread_headers(config: &Config) -> Option<Problem> {
    let trace = config.trace.as_ref()?;
    let (place, message) = (&trace.headers.as_ref()?.place, trace.read_headers().err()?);
    Some(Problem::new(place.clone(), message, ""))
}

/// The pages of every site, in the order of the file.
fn pages(config: &Config, problems: &mut Vec<Problem>) -> Vec<Pages> {
    let load = |site: &Site| match Pages::load(&site.errors) {
        Ok(pages) => pages,
        Err(wrong) => {
            problems
                .extend(wrong.into_iter().map(|(place, message, help)| Problem::new(place, message, help)));
            Pages::default()
        }
    };
    config.sites.iter().map(load).collect()
}

/// What sticky cookies are made with, where there are any.
fn sticky_key(config: &Config) -> Result<Option<Arc<Key>>, Problem> {
    let is_sticky =
        |route: &Route| matches!(&route.action, Action::Proxy(proxy) if proxy.balance == Balance::Sticky);
    if !config.sites.iter().flat_map(|site| &site.routes).any(is_sticky) {
        return Ok(None);
    }
    let wrong = |error: StoreError| Problem::new(Place::default(), error.to_string(), "");
    Key::open(&config.store.path).map(|key| Some(Arc::new(key))).map_err(wrong)
}

fn problem(problem: TlsProblem) -> Problem {
    Problem { place: problem.place, message: problem.message, help: problem.help }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loaded(store: &std::path::Path, sites: &str) -> config::Loaded {
        let text = format!(
            r#"
            [store]
            path = "{}"
            [ports]
            "127.0.0.1:80" = {{ serve = "http", allow = ["public"] }}
            "127.0.0.1:0" = {{ serve = "https", allow = ["public"] }}
            443 = {{ serve = "https", allow = ["public"] }}
            {sites}
            "#,
            store.display()
        );
        config::parse(text, "edge.toml".as_ref()).unwrap_or_else(|problems| panic!("{problems}"))
    }

    fn site(name: &str, more: &str) -> String {
        format!("[[site]]\ndomains = [\"{name}\"]\nupstream = \"django:8000\"\n{more}\n")
    }

    fn port(bind: Bind) -> u16 {
        if bind.port() == 0 { 8443 } else { bind.port() }
    }

    #[test]
    fn a_reload_keeps_internal_certificates_and_redirects_know_the_port() {
        let folder = tempfile::tempdir().unwrap();
        let shared = Shared::new().unwrap();
        let internal = "certificate = \"internal\"";
        let (a, b) = (site("a.example.com", internal), site("b.example.com", internal));
        let one_row = format!("{internal}\nports = [\"127.0.0.1:80\", 443]");
        let c = site("c.example.com", &one_row);
        let (first, _) =
            Snapshot::build(loaded(folder.path(), &(a.clone() + &c)), None, &shared, port).unwrap();
        let (second, _) =
            Snapshot::build(loaded(folder.path(), &(b + &a)), Some(&first), &shared, port).unwrap();
        assert_eq!((first.generation, second.generation), (1, 2));
        assert!(Arc::ptr_eq(&first.all_tls()[0], &second.all_tls()[1]));
        let sites = first.table.sites();
        for (site, local, expected) in [
            (0, "127.0.0.1", 8443),
            (0, "::ffff:127.0.0.1", 8443),
            (0, "192.0.2.1", 443),
            (1, "127.0.0.1", 443),
        ] {
            assert_eq!(first.https_port(&sites[site], local.parse().unwrap()), expected, "{site} at {local}");
        }
        assert_eq!(first.row(Bind::All(443)).unwrap().0, RowId(2));
        assert!(first.row(Bind::All(444)).is_none());
    }

    #[test]
    fn every_wrong_certificate_is_told_at_once_and_a_check_makes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let shared = Shared::new().unwrap();
        let missing = "certificate = { cert = \"/none/cert.pem\", key = \"/none/key.pem\" }";
        let store = folder.path().join("store");
        let sites = site("a.example.com", missing) + &site("b.example.com", "certificate = \"internal\"");
        let (problems, _) = Snapshot::check(&loaded(&store, &sites), &shared);
        let text: String = problems.into_iter().map(|problem| problem.message).collect();
        assert!(text.contains("/none/cert.pem") && text.contains("/none/key.pem"), "{text}");
        assert!(!store.exists(), "a check makes no CA");
        assert!(Snapshot::build(loaded(&store, &sites), None, &shared, port).is_err());
    }

    #[test]
    fn the_pointer_is_swapped_whole() {
        let folder = tempfile::tempdir().unwrap();
        let shared = Shared::new().unwrap();
        let sites = site("a.example.com", "certificate = \"internal\"");
        let build = |previous: Option<&Snapshot>| {
            Snapshot::build(loaded(folder.path(), &sites), previous, &shared, port).unwrap().0
        };
        let live = Live::new(build(None));
        let first = live.load();
        assert!(live.is_current(&first));
        live.swap(build(Some(&first)));
        assert!(!live.is_current(&first));
        assert_eq!(live.load().generation, 2);
    }
}
