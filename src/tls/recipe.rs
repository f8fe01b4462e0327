//! What a site's TLS is made from, again and again.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use time::{Duration, OffsetDateTime};

use super::authority::Authority;
use super::check::{self, About, Checked, Finding, Validity};
use super::policy::{Policy, Shared};
use super::record::StoreError;
use super::site::TlsProblem;
use super::slots::{Served, Slots};
use crate::config;
use crate::config::model::{Certificate, Place, Site, TlsVersion};
use crate::name::HostPattern;

/// The largest file of certificates in octets.
const MAX_FILE: u64 = 16 << 20;
/// How long to wait after a renewal that failed.
pub(super) const RETRY: Duration = Duration::minutes(10);

/// What a site's TLS is made from, again and again.
pub(super) struct Recipe {
    pub(super) names: Vec<HostPattern>,
    pub(super) source: Source,
    pub(super) place: Place,
    client_ca: Option<(PathBuf, Place)>,
    pub(super) lowest: TlsVersion,
    pub(super) shared: Arc<Shared>,
}

/// A certificate, and when it is to be made anew.
type Renewable = (Checked, Option<OffsetDateTime>);

pub(super) enum Source {
    Acme,
    Internal(Arc<Authority>),
    Files { cert: PathBuf, key: PathBuf },
}

impl Recipe {
    pub(super) fn new(
        site: &Site,
        lowest: TlsVersion,
        shared: &Arc<Shared>,
        authority: impl FnOnce() -> Result<Arc<Authority>, StoreError>,
    ) -> Result<Self, Vec<TlsProblem>> {
        let place = site.certificate_place.clone();
        let source = match &site.certificate {
            Certificate::Acme => Source::Acme,
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

    pub(super) fn asks_clients(&self) -> bool {
        self.client_ca.is_some()
    }

    /// `before` is what was in use until now: what comes from elsewhere stays.
    pub(super) fn make(&self, now: OffsetDateTime, before: &Answer) -> Result<Made, Vec<TlsProblem>> {
        let (policy, certificate) = match (self.policy(), self.certificate(now)) {
            (Ok(policy), Ok(certificate)) => (policy, certificate),
            (policy, certificate) => {
                let client_ca = policy.err().into_iter();
                return Err(client_ca.chain(certificate.err().into_iter().flatten()).collect());
            }
        };
        let (cert, standing) = match &self.source {
            Source::Internal(_) | Source::Acme => (None, Vec::new()),
            Source::Files { cert, key } => (Some(cert.clone()), self.open_key(key).into_iter().collect()),
        };
        let (answer, renew_at) = match (certificate, before) {
            (Some((checked, renew_at)), _) => {
                (Answer::One(Box::new(Served::new(checked, &policy, self.lowest))), renew_at)
            }
            (None, Answer::Slots(slots)) => (Answer::Slots(slots.under(&policy, self.lowest)), None),
            (None, Answer::One(served)) => (Answer::One(Box::new(served.under(&policy, self.lowest))), None),
        };
        let facts = Facts { policy, renew_at, place: self.place.clone(), cert, standing };
        Ok(Made { answer, facts })
    }

    fn policy(&self) -> Result<Arc<Policy>, TlsProblem> {
        let Some((path, place)) = &self.client_ca else { return Ok(self.shared.open()) };
        let problem = |finding| problem(place, Some(path), finding);
        let bytes = config::read_bounded(path, MAX_FILE).map_err(|error| problem(unreadable(&error)))?;
        let roots = check::read_chain(&bytes).map_err(problem)?;
        self.shared.closed(roots).map_err(|error| problem(Finding::new(format!("not a CA: {error}"))))
    }

    /// The certificate, and when an internal one is to be renewed: with a third of its life left. None where it comes
    /// from elsewhere.
    fn certificate(&self, now: OffsetDateTime) -> Result<Option<Renewable>, Vec<TlsProblem>> {
        let provider = self.shared.provider();
        match &self.source {
            Source::Internal(authority) => {
                let checked = self.issue(authority, now, provider)?;
                let life = checked.validity.not_after - checked.validity.not_before;
                let renew_at: OffsetDateTime = checked.validity.not_after - life / 3;
                // A root at its own end shortens the leaf: even then not at every look.
                Ok(Some((checked, Some(renew_at.max(now + RETRY)))))
            }
            Source::Files { cert, key } => {
                self.read(cert, key, provider).map(|checked| Some((checked, None)))
            }
            Source::Acme => Ok(None),
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
        Ok(Checked { certified, validity, names: self.names.clone() })
    }

    fn read(&self, cert: &Path, key: &Path, provider: &CryptoProvider) -> Result<Checked, Vec<TlsProblem>> {
        let read = |path: &Path| {
            config::read_bounded(path, MAX_FILE)
                .map_err(|error| problem(&self.place, Some(path), unreadable(&error)))
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

    pub(super) fn stamps(&self) -> Vec<Option<Stamp>> {
        let files = match &self.source {
            Source::Internal(_) | Source::Acme => None,
            Source::Files { cert, key } => Some([cert, key]),
        };
        let client_ca = self.client_ca.as_ref().map(|(path, _)| path);
        files.into_iter().flatten().chain(client_ca).map(|path| Stamp::of(path)).collect()
    }
}

/// What handshakes are answered with.
pub(super) enum Answer {
    /// One certificate for every name.
    One(Box<Served>),
    /// As they come.
    Slots(Slots),
}

impl Answer {
    pub(super) fn validities(&self) -> Vec<Validity> {
        match self {
            Self::One(served) => vec![served.validity],
            Self::Slots(slots) => slots.all().map(|served| served.validity).collect(),
        }
    }
}

/// What handshakes are to be answered with, and what is known about it.
pub(super) struct Made {
    pub(super) answer: Answer,
    pub(super) facts: Facts,
}

pub(super) struct Facts {
    pub(super) policy: Arc<Policy>,
    pub(super) renew_at: Option<OffsetDateTime>,
    pub(super) place: Place,
    cert: Option<PathBuf>,
    standing: Vec<TlsProblem>,
}

impl Facts {
    pub(super) fn warnings(&self, answer: &Answer, now: OffsetDateTime) -> Vec<TlsProblem> {
        let untimely = answer.validities().into_iter().filter_map(|validity| self.untimely(&validity, now));
        untimely.chain(self.standing.iter().cloned()).collect()
    }

    pub(super) fn untimely(&self, validity: &Validity, now: OffsetDateTime) -> Option<TlsProblem> {
        let finding = validity.finding(now)?;
        Some(problem(&self.place, self.cert.as_deref(), finding))
    }
}

/// What changes when a file does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
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

pub(super) fn store_problem(place: &Place, error: &StoreError) -> Vec<TlsProblem> {
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
