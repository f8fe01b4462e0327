//! One site's certificate: loaded, checked, watched, renewed. Handshakes read one pointer; the disk is looked at by
//! whoever calls [`SiteTls::refresh`]. A site whose certificates come from a CA over time begins without one, and has
//! them put in by [`SiteTls::install`].

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use time::{Duration, OffsetDateTime};

use super::authority::Authority;
use super::check::{self, Checked, Finding, Identity, Validity};
use super::policy::{Shared, SiteConfig};
use super::recipe::{Answer, Facts, Made, RETRY, Recipe, Source, Stamp};
use super::record::StoreError;
use super::slots::{Served, Slots};
use crate::config::model::{Place, Site, Tls};
use crate::name::{HostPattern, Hostname};

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
    answer: ArcSwap<Answer>,
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
        let now = OffsetDateTime::now_utc();
        let Made { answer, facts } = recipe.make(now, &Answer::Slots(Slots::new(site)))?;
        let warnings = facts.warnings(&answer, now);
        let state = Mutex::new(State { stamps, facts, said: now, wrong: Vec::new() });
        Ok(Loaded { tls: Arc::new(Self { recipe, answer: ArcSwap::from_pointee(answer), state }), warnings })
    }

    /// What to answer a handshake for one of the site's names with; None while there is no certificate for it. Waits
    /// for nothing.
    pub fn config(&self, name: &Hostname) -> Option<Arc<SiteConfig>> {
        match &**self.answer.load() {
            Answer::One(served) => Some(Arc::clone(&served.config)),
            Answer::Slots(slots) => slots.choose(name).map(|served| Arc::clone(&served.config)),
        }
    }

    /// Whether clients must show a certificate.
    pub fn asks_clients(&self) -> bool {
        self.recipe.asks_clients()
    }

    /// Puts a new certificate of a CA to use, from the next handshake on: the chain, leaf first, and its key, as PEM.
    /// Checked as files are; refused as well when it has expired, and when it is for none of the site's certificates
    /// ([`sets`](super::sets)) as a whole.
    /// With `part_of`, it may be for some names of that set alone.
    pub fn install(
        &self,
        chain_pem: &str,
        key_pem: &str,
        part_of: Option<&[HostPattern]>,
    ) -> Result<(), TlsProblem> {
        let checked = self.checked(chain_pem, key_pem)?;
        if let Some(finding) = checked.validity.finding(OffsetDateTime::now_utc()) {
            return Err(self.refused(vec![Finding { help: None, ..finding }]));
        }
        let names = checked.names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        if self.put(checked, |slots, served| slots.install(served, part_of)) {
            return Ok(());
        }
        Err(self.refused(vec![Finding::new(format!("a certificate for {names} is none of this site's"))]))
    }

    /// Puts a stored certificate to use where there is none that is newer. One that has expired is served; one that is
    /// for some of a set's names is served for those until the set's own comes; with `part_of`, it is that set's own for now.
    /// False where it is no use.
    pub fn restore(
        &self,
        chain_pem: &str,
        key_pem: &str,
        part_of: Option<&[HostPattern]>,
    ) -> Result<bool, TlsProblem> {
        let checked = self.checked(chain_pem, key_pem)?;
        Ok(self.put(checked, |slots, served| slots.restore(served, part_of)))
    }

    /// Takes over what a site of an older configuration serves, where it is of use here.
    pub fn adopt(&self, older: &Self) {
        let answer = older.answer.load();
        let served: Vec<(&Served, Option<&[HostPattern]>)> = match &**answer {
            Answer::Slots(slots) => slots.parts().collect(),
            Answer::One(served) if matches!(older.recipe.source, Source::Files { .. }) => {
                vec![(served, None)]
            }
            Answer::One(_) => Vec::new(),
        };
        for (served, part_of) in served {
            let policy = Arc::clone(&self.state().facts.policy);
            let served = served.under(&policy, self.recipe.lowest);
            self.change(|slots| slots.restore(&served, part_of));
        }
    }

    /// What is in use, and what is missing, for the reports.
    pub fn in_use(&self) -> Vec<InUse> {
        let (renew_at, trouble) = self.state().told();
        let in_use = |names: &[HostPattern], served: Option<&Served>| {
            let identity = served.and_then(Served::identity).map_or_else(InUse::default, InUse::from);
            InUse { names: names.to_vec(), renew_at, trouble: trouble.clone(), ..identity }
        };
        match &**self.answer.load() {
            Answer::One(served) => vec![in_use(&self.recipe.names, Some(served))],
            Answer::Slots(slots) => {
                slots.sets().iter().map(|slot| in_use(&slot.names, slot.served.as_ref())).collect()
            }
        }
    }

    /// Looks whether the files changed or an internal certificate is due, and if so loads and checks them anew. Reads
    /// the disk: for a control thread, every few seconds.
    pub fn refresh(&self) -> Refresh {
        self.refresh_at(OffsetDateTime::now_utc())
    }

    /// What is odd about the certificate in use, now.
    pub fn warnings(&self) -> Vec<TlsProblem> {
        self.state().facts.warnings(&self.answer.load(), OffsetDateTime::now_utc())
    }

    /// When the first of the certificates in use ends to be valid; None while there is none.
    pub fn expiry(&self) -> Option<OffsetDateTime> {
        self.answer.load().validities().iter().map(|validity| validity.not_after).min()
    }

    fn refresh_at(&self, now: OffsetDateTime) -> Refresh {
        let mut state = self.state();
        state.facts.policy.turn();
        let stamps = self.recipe.stamps();
        let answer = self.answer.load_full();
        if stamps == state.stamps && state.facts.renew_at.is_none_or(|at| now < at) {
            return state.expiry(&answer, now);
        }
        state.stamps = stamps;
        match self.recipe.make(now, &answer) {
            Ok(Made { answer, facts }) => {
                state.said = now;
                state.facts = facts;
                state.wrong.clear();
                self.answer.store(Arc::new(answer));
                Refresh::Reloaded
            }
            Err(problems) => {
                state.facts.renew_at = state.facts.renew_at.map(|_| now + RETRY);
                state.wrong.clone_from(&problems);
                Refresh::Kept(problems)
            }
        }
    }

    fn checked(&self, chain_pem: &str, key_pem: &str) -> Result<Checked, TlsProblem> {
        let provider = self.recipe.shared.provider();
        check::check(chain_pem.as_bytes(), key_pem.as_bytes(), &[], provider)
            .map_err(|findings| self.refused(findings))
    }

    fn put(&self, checked: Checked, how: impl FnOnce(&mut Slots, &Served) -> bool) -> bool {
        let policy = Arc::clone(&self.state().facts.policy);
        let served = Served::new(checked, &policy, self.recipe.lowest);
        self.change(|slots| how(slots, &served))
    }

    /// Changes what is in use, where that can change. Nobody else does meanwhile.
    fn change(&self, change: impl FnOnce(&mut Slots) -> bool) -> bool {
        let _alone = self.state();
        let Answer::Slots(slots) = &**self.answer.load() else { return false };
        let mut slots = slots.clone();
        let changed = change(&mut slots);
        if changed {
            self.answer.store(Arc::new(Answer::Slots(slots)));
        }
        changed
    }

    fn refused(&self, findings: Vec<Finding>) -> TlsProblem {
        let messages: Vec<String> = findings.iter().map(|finding| finding.message.clone()).collect();
        let help = findings.into_iter().find_map(|finding| finding.help);
        TlsProblem { place: self.recipe.place.clone(), message: messages.join("; "), help }
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

/// A certificate in use, or the lack of one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InUse {
    /// The names that it is for, as the configuration has them.
    pub names: Vec<HostPattern>,
    /// Who issued it.
    pub issuer: String,
    /// Its serial number, in hexadecimal.
    pub serial: String,
    /// When it begins and ends to be valid; None while there is none.
    pub validity: Option<(OffsetDateTime, OffsetDateTime)>,
    /// When the edge's own CA makes another.
    pub renew_at: Option<OffsetDateTime>,
    /// Why what should be in its place is not.
    pub trouble: Option<String>,
    /// What its CA knows it by when asked when to renew it (RFC 9773 section 4.1).
    pub renewal_id: Option<String>,
}

impl InUse {
    /// What the first certificate of a PEM file says of itself; nothing where there is none.
    pub fn of_pem(chain: &str) -> Self {
        let chain = check::read_chain(chain.as_bytes()).unwrap_or_default();
        chain.first().and_then(check::identity).map_or_else(Self::default, Self::from)
    }

    /// Whether one of its names is good for this one.
    pub fn covers(&self, name: &HostPattern) -> bool {
        self.names.iter().any(|has| check::covers(has, name))
    }
}

impl From<Identity> for InUse {
    fn from(identity: Identity) -> Self {
        let Identity { names, issuer, serial, validity, renewal_id } = identity;
        let validity = Some((validity.not_before, validity.not_after));
        Self { names, issuer, serial, validity, renew_at: None, trouble: None, renewal_id }
    }
}

/// What was seen at the last look.
struct State {
    stamps: Vec<Option<Stamp>>,
    facts: Facts,
    /// Every expiry until then was told.
    said: OffsetDateTime,
    /// What was wrong at the last change, where it was; what is in use is from before it.
    wrong: Vec<TlsProblem>,
}

impl State {
    /// When the edge's own CA makes another, and why what changed is not in use.
    fn told(&self) -> (Option<OffsetDateTime>, Option<String>) {
        let wrong: Vec<&str> = self.wrong.iter().map(|problem| problem.message.as_str()).collect();
        (self.facts.renew_at, Some(wrong.join("; ")).filter(|_| !wrong.is_empty()))
    }

    fn expiry(&mut self, answer: &Answer, now: OffsetDateTime) -> Refresh {
        let due = |validity: &Validity| self.said <= validity.not_after && validity.not_after < now;
        let first = answer.validities().into_iter().filter(due).min_by_key(|validity| validity.not_after);
        let Some(expired) = first else { return Refresh::Unchanged };
        self.said = expired.not_after + Duration::NANOSECOND;
        self.facts.untimely(&expired, now).map_or(Refresh::Unchanged, Refresh::Expired)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::super::recipe::store_problem;
    use super::*;
    use crate::addr::Gate;
    use crate::config::model::{Certificate, TlsVersion};

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
            errors: crate::config::model::Errors::default(),
            routes: Vec::new(),
        };
        let tls = Tls { min_version: TlsVersion::V1_2 };
        let open = || Authority::open(store).map(Arc::new);
        SiteTls::load(&site, &tls, &Shared::new().unwrap(), open).unwrap().tls
    }

    fn config(tls: &SiteTls) -> Arc<SiteConfig> {
        tls.config(&Hostname::parse("a.localhost").unwrap()).unwrap()
    }

    #[test]
    fn an_internal_certificate_is_renewed_with_a_third_of_its_life_left() {
        let store = tempfile::tempdir().unwrap();
        let tls = internal(store.path());
        let (now, first) = (OffsetDateTime::now_utc(), tls.expiry().unwrap());
        assert_eq!((first - now).whole_days(), 89);
        let before = config(&tls);
        assert!(matches!(tls.refresh_at(now + Duration::days(59)), Refresh::Unchanged));
        assert!(Arc::ptr_eq(&before, &config(&tls)));
        assert!(matches!(tls.refresh_at(now + Duration::days(61)), Refresh::Reloaded));
        assert!(!Arc::ptr_eq(&before, &config(&tls)));
        assert_eq!((tls.expiry().unwrap() - first).whole_days(), 61);
        assert!(matches!(tls.refresh_at(now + Duration::days(62)), Refresh::Unchanged));
    }

    #[test]
    fn an_expiry_is_said_once_when_it_happens() {
        let store = tempfile::tempdir().unwrap();
        let tls = internal(store.path());
        // As if nobody could renew it.
        tls.state().facts.renew_at = None;
        let after = tls.expiry().unwrap() + Duration::seconds(1);
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
