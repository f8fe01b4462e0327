//! One site's certificate: loaded, checked, watched, renewed. Handshakes read one pointer; the disk is looked at by
//! whoever calls [`SiteTls::refresh`].

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use time::{Duration, OffsetDateTime};

use super::authority::Authority;
use super::check::{self, About, Checked, Finding, Validity};
use super::policy::{Policy, Shared, SiteConfig};
use super::record::StoreError;
use crate::config::model::{Certificate, Place, Site, Tls, TlsVersion};
use crate::name::HostPattern;

/// How long to wait after a renewal that failed.
const RETRY: Duration = Duration::minutes(10);

/// What is wrong with a site's certificate, key or client CA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsProblem {
    /// Where the file is named in the configuration.
    pub place: Place,
    /// What is wrong, with the file's path.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

impl fmt::Display for TlsProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.help.as_ref().map_or(Ok(()), |help| write!(f, " ({help})"))
    }
}

/// A site's TLS, and what is odd about it without being wrong: an expired certificate, a key that others can read.
#[derive(Debug)]
pub struct Loaded {
    /// Ready for handshakes.
    pub tls: Arc<SiteTls>,
    /// For the log and for `check`.
    pub warnings: Vec<TlsProblem>,
}

/// What a look at the files led to.
#[derive(Debug)]
pub enum Refresh {
    /// Nothing changed.
    Unchanged,
    /// New files, or a renewed certificate, are in use from now on. [`SiteTls::warnings`] has what is odd about them.
    Reloaded,
    /// The files changed and are wrong, said once for each change. What was in use goes on.
    Kept(Vec<TlsProblem>),
    /// Nothing changed but the time: the certificate has just expired. Said once.
    Expired(TlsProblem),
}

/// One site's TLS.
pub struct SiteTls {
    recipe: Recipe,
    config: ArcSwap<SiteConfig>,
    /// Touched by [`SiteTls::refresh`] and the reports, never by a handshake.
    state: Mutex<State>,
}

impl SiteTls {
    /// Reads and checks everything that the site's certificate and client CA need. `authority` opens the internal CA,
    /// and is called only by sites that use it. Fails with every problem at once.
    pub fn load(
        site: &Site,
        tls: &Tls,
        shared: &Arc<Shared>,
        authority: impl FnOnce() -> Result<Arc<Authority>, StoreError>,
    ) -> Result<Loaded, Vec<TlsProblem>> {
        let recipe = Recipe::new(site, tls.min_version, shared, authority)?;
        let stamps = recipe.stamps();
        let made = recipe.make(OffsetDateTime::now_utc())?;
        let warnings = made.warnings();
        let state = Mutex::new(State { stamps, expired_said: made.is_expired(), made: made.facts });
        Ok(Loaded {
            tls: Arc::new(Self { recipe, config: ArcSwap::from_pointee(made.config), state }),
            warnings,
        })
    }

    /// What to answer a handshake with. Waits for nothing.
    pub fn config(&self) -> Arc<SiteConfig> {
        self.config.load_full()
    }

    /// Looks whether the files changed or an internal certificate is due, and if so loads and checks them anew. Reads
    /// the disk: for a control thread, every few seconds.
    pub fn refresh(&self) -> Refresh {
        self.refresh_at(OffsetDateTime::now_utc())
    }

    /// What is odd about the certificate in use, now.
    pub fn warnings(&self) -> Vec<TlsProblem> {
        self.state().made.warnings_at(OffsetDateTime::now_utc())
    }

    /// When the certificate in use ends to be valid.
    pub fn not_after(&self) -> OffsetDateTime {
        self.state().made.validity.not_after
    }

    fn refresh_at(&self, now: OffsetDateTime) -> Refresh {
        let mut state = self.state();
        state.made.policy.turn();
        let stamps = self.recipe.stamps();
        if stamps == state.stamps && state.made.renew_at.is_none_or(|at| now < at) {
            return state.expiry(now);
        }
        state.stamps = stamps;
        match self.recipe.make(now) {
            Ok(made) => {
                state.expired_said = made.is_expired();
                state.made = made.facts;
                self.config.store(Arc::new(made.config));
                Refresh::Reloaded
            }
            Err(problems) => {
                state.made.renew_at = state.made.renew_at.map(|_| now + RETRY);
                Refresh::Kept(problems)
            }
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for SiteTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SiteTls").field("names", &self.recipe.names).finish_non_exhaustive()
    }
}

/// What was seen at the last look.
struct State {
    stamps: Vec<Option<Stamp>>,
    made: Facts,
    expired_said: bool,
}

impl State {
    fn expiry(&mut self, now: OffsetDateTime) -> Refresh {
        if self.expired_said || now <= self.made.validity.not_after {
            return Refresh::Unchanged;
        }
        self.expired_said = true;
        self.made.untimely(now).map_or(Refresh::Unchanged, Refresh::Expired)
    }
}

/// A configuration and what is known about it.
struct Made {
    config: SiteConfig,
    facts: Facts,
    now: OffsetDateTime,
}

impl Made {
    fn warnings(&self) -> Vec<TlsProblem> {
        self.facts.warnings_at(self.now)
    }

    fn is_expired(&self) -> bool {
        self.now > self.facts.validity.not_after
    }
}

struct Facts {
    policy: Arc<Policy>,
    validity: Validity,
    renew_at: Option<OffsetDateTime>,
    place: Place,
    cert: Option<PathBuf>,
    standing: Vec<TlsProblem>,
}

impl Facts {
    fn warnings_at(&self, now: OffsetDateTime) -> Vec<TlsProblem> {
        self.untimely(now).into_iter().chain(self.standing.iter().cloned()).collect()
    }

    fn untimely(&self, now: OffsetDateTime) -> Option<TlsProblem> {
        let finding = self.validity.finding(now)?;
        Some(problem(&self.place, self.cert.as_deref(), finding))
    }
}

/// What a site's TLS is made from, again and again.
struct Recipe {
    names: Vec<HostPattern>,
    source: Source,
    place: Place,
    client_ca: Option<(PathBuf, Place)>,
    lowest: TlsVersion,
    shared: Arc<Shared>,
}

enum Source {
    Internal(Arc<Authority>),
    Files { cert: PathBuf, key: PathBuf },
}

impl Recipe {
    fn new(
        site: &Site,
        lowest: TlsVersion,
        shared: &Arc<Shared>,
        authority: impl FnOnce() -> Result<Arc<Authority>, StoreError>,
    ) -> Result<Self, Vec<TlsProblem>> {
        let place = site.certificate_place.clone();
        let source = match &site.certificate {
            Certificate::Internal => {
                Source::Internal(authority().map_err(|error| store_problem(&place, &error))?)
            }
            Certificate::Files { cert, key } => Source::Files { cert: cert.clone(), key: key.clone() },
        };
        let redirect = site.redirect.iter().cloned().map(HostPattern::Exact);
        Ok(Self {
            names: site.domains.iter().cloned().chain(redirect).collect(),
            source,
            place,
            client_ca: site.client_ca.clone().map(|path| (path, site.client_ca_place.clone())),
            lowest,
            shared: Arc::clone(shared),
        })
    }

    fn make(&self, now: OffsetDateTime) -> Result<Made, Vec<TlsProblem>> {
        let (policy, certificate) = match (self.policy(), self.certificate(now)) {
            (Ok(policy), Ok(certificate)) => (policy, certificate),
            (policy, certificate) => {
                let client_ca = policy.err().into_iter();
                return Err(client_ca.chain(certificate.err().into_iter().flatten()).collect());
            }
        };
        let (checked, renew_at) = certificate;
        let (cert, standing) = match &self.source {
            Source::Internal(_) => (None, Vec::new()),
            Source::Files { cert, key } => (Some(cert.clone()), self.open_key(key).into_iter().collect()),
        };
        let config = policy.site(self.lowest, checked.certified);
        let place = self.place.clone();
        let facts = Facts { policy, validity: checked.validity, renew_at, place, cert, standing };
        Ok(Made { config, facts, now })
    }

    fn policy(&self) -> Result<Arc<Policy>, TlsProblem> {
        let Some((path, place)) = &self.client_ca else { return Ok(self.shared.open()) };
        let problem = |finding| problem(place, Some(path), finding);
        let bytes = fs::read(path).map_err(|error| problem(unreadable(&error)))?;
        let roots = check::read_chain(&bytes).map_err(problem)?;
        self.shared.closed(roots).map_err(|error| problem(Finding::new(format!("not a CA: {error}"))))
    }

    /// The certificate, and when an internal one is to be renewed: with a third of its life left.
    fn certificate(&self, now: OffsetDateTime) -> Result<(Checked, Option<OffsetDateTime>), Vec<TlsProblem>> {
        let provider = self.shared.provider();
        match &self.source {
            Source::Internal(authority) => {
                let checked = self.issue(authority, now, provider)?;
                let life = checked.validity.not_after - checked.validity.not_before;
                let renew_at: OffsetDateTime = checked.validity.not_after - life / 3;
                // A root at its own end shortens the leaf: even then not at every look.
                Ok((checked, Some(renew_at.max(now + RETRY))))
            }
            Source::Files { cert, key } => self.read(cert, key, provider).map(|checked| (checked, None)),
        }
    }

    fn issue(
        &self,
        authority: &Authority,
        now: OffsetDateTime,
        provider: &CryptoProvider,
    ) -> Result<Checked, Vec<TlsProblem>> {
        let leaf =
            authority.issue_at(&self.names, now).map_err(|error| store_problem(&self.place, &error))?;
        let validity = Validity { not_before: leaf.not_before, not_after: leaf.not_after };
        let certified = CertifiedKey::from_der(leaf.chain, leaf.key, provider).map_err(|error| {
            vec![problem(&self.place, None, Finding::new(format!("internal CA: {error}")))]
        })?;
        Ok(Checked { certified, validity })
    }

    fn read(&self, cert: &Path, key: &Path, provider: &CryptoProvider) -> Result<Checked, Vec<TlsProblem>> {
        let read = |path: &Path| {
            fs::read(path).map_err(|error| problem(&self.place, Some(path), unreadable(&error)))
        };
        let (chain_bytes, key_bytes) = match (read(cert), read(key)) {
            (Ok(chain), Ok(key)) => (chain, key),
            (chain, key) => return Err([chain.err(), key.err()].into_iter().flatten().collect()),
        };
        check::check(&chain_bytes, &key_bytes, &self.names, provider).map_err(|findings| {
            let path = |finding: &Finding| match finding.about {
                About::Chain => cert,
                About::Key => key,
            };
            findings.into_iter().map(|finding| problem(&self.place, Some(path(&finding)), finding)).collect()
        })
    }

    /// A key that every user of the machine can read is served, with a warning.
    fn open_key(&self, key: &Path) -> Option<TlsProblem> {
        let mode = fs::metadata(key).ok()?.mode() & 0o7777;
        (mode & 0o007 != 0).then(|| TlsProblem {
            place: self.place.clone(),
            message: format!(
                "{}: every user of this machine can reach this private key ({mode:04o})",
                key.display()
            ),
            help: Some(format!("run: chmod o= {}", key.display())),
        })
    }

    fn stamps(&self) -> Vec<Option<Stamp>> {
        let files = match &self.source {
            Source::Internal(_) => None,
            Source::Files { cert, key } => Some([cert, key]),
        };
        let client_ca = self.client_ca.as_ref().map(|(path, _)| path);
        files.into_iter().flatten().chain(client_ca).map(|path| Stamp::of(path)).collect()
    }
}

/// What changes when a file does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    file: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        Some(Self {
            file: (metadata.dev(), metadata.ino()),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

fn problem(place: &Place, path: Option<&Path>, finding: Finding) -> TlsProblem {
    let Finding { message, help, .. } = finding;
    let message = path.map_or_else(|| message.clone(), |path| format!("{}: {message}", path.display()));
    TlsProblem { place: place.clone(), message, help }
}

fn store_problem(place: &Place, error: &StoreError) -> Vec<TlsProblem> {
    vec![TlsProblem { place: place.clone(), message: error.to_string(), help: None }]
}

fn unreadable(error: &std::io::Error) -> Finding {
    let finding = Finding::new(format!("cannot be read: {error}"));
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => finding.help(
            "the user that the edge runs as ([process] user) reads it, and reads it again when it changes: let that \
             user read it, and enter its directories",
        ),
        _ => finding,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Gate;

    fn internal(store: &Path) -> Arc<SiteTls> {
        let site = Site {
            domains: vec![HostPattern::parse("a.localhost").unwrap()],
            redirect: Vec::new(),
            rows: Vec::new(),
            gate: Gate::open(),
            certificate: Certificate::Internal,
            certificate_place: Place::default(),
            client_ca: None,
            client_ca_place: Place::default(),
            hsts: None,
            routes: Vec::new(),
        };
        let tls = Tls { min_version: TlsVersion::V1_2 };
        let open = || Authority::open(store).map(Arc::new);
        SiteTls::load(&site, &tls, &Shared::new().unwrap(), open).unwrap().tls
    }

    #[test]
    fn an_internal_certificate_is_renewed_with_a_third_of_its_life_left() {
        let store = tempfile::tempdir().unwrap();
        let tls = internal(store.path());
        let (now, first) = (OffsetDateTime::now_utc(), tls.not_after());
        assert_eq!((first - now).whole_days(), 89);
        let before = tls.config();
        assert!(matches!(tls.refresh_at(now + Duration::days(59)), Refresh::Unchanged));
        assert!(Arc::ptr_eq(&before, &tls.config()));
        assert!(matches!(tls.refresh_at(now + Duration::days(61)), Refresh::Reloaded));
        assert!(!Arc::ptr_eq(&before, &tls.config()));
        assert_eq!((tls.not_after() - first).whole_days(), 61);
        assert!(matches!(tls.refresh_at(now + Duration::days(62)), Refresh::Unchanged));
    }

    #[test]
    fn an_expiry_is_said_once_when_it_happens() {
        let store = tempfile::tempdir().unwrap();
        let tls = internal(store.path());
        // As if nobody could renew it.
        tls.state().made.renew_at = None;
        let after = tls.not_after() + Duration::seconds(1);
        assert!(matches!(tls.refresh_at(after - Duration::minutes(1)), Refresh::Unchanged));
        match tls.refresh_at(after) {
            Refresh::Expired(problem) => assert!(problem.message.starts_with("the certificate expired on ")),
            other => panic!("{other:?}"),
        }
        assert!(matches!(tls.refresh_at(after), Refresh::Unchanged));
    }

    #[test]
    fn a_store_that_is_no_use_is_a_problem_of_the_certificates_place() {
        let store = tempfile::tempdir().unwrap();
        fs::write(store.path().join("internal"), "in the way").unwrap();
        let refused = Authority::open(store.path()).unwrap_err();
        let [problem] = store_problem(&Place::default(), &refused).try_into().unwrap();
        assert!(problem.message.contains("internal: cannot create it: "), "{problem}");
    }
}
