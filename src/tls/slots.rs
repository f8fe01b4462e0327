//! The certificates of a site that come and go while it is served: one for its plain names, one for each wildcard.

use std::sync::Arc;

use rustls::sign::CertifiedKey;

use super::check::{self, Checked, Identity, Validity};
use super::policy::{Policy, SiteConfig};
use crate::config::model::{Site, TlsVersion};
use crate::name::{HostPattern, Hostname};

/// The names of a site, as its certificates have them: one certificate for all plain names, redirected ones included,
/// and one for each wildcard.
pub fn sets(site: &Site) -> Vec<Vec<HostPattern>> {
    let redirect = site.redirect.iter().cloned().map(HostPattern::Exact);
    let is_plain = |name: &HostPattern| matches!(name, HostPattern::Exact(_));
    let (plain, wild): (Vec<_>, Vec<_>) = site.domains.iter().cloned().chain(redirect).partition(is_plain);
    let plain = Some(plain).filter(|names| !names.is_empty());
    plain.into_iter().chain(wild.into_iter().map(|name| vec![name])).collect()
}

/// A certificate in use.
#[derive(Clone)]
pub(super) struct Served {
    certified: CertifiedKey,
    pub(super) validity: Validity,
    names: Vec<HostPattern>,
    pub(super) config: Arc<SiteConfig>,
}

impl Served {
    pub(super) fn new(checked: Checked, policy: &Policy, lowest: TlsVersion) -> Self {
        let Checked { certified, validity, names } = checked;
        Self { config: Arc::new(policy.site(lowest, certified.clone())), certified, validity, names }
    }

    /// The same certificate under another policy.
    pub(super) fn under(&self, policy: &Policy, lowest: TlsVersion) -> Self {
        Self { config: Arc::new(policy.site(lowest, self.certified.clone())), ..self.clone() }
    }

    /// What it says of itself.
    pub(super) fn identity(&self) -> Option<Identity> {
        self.certified.cert.first().and_then(check::identity)
    }

    fn covers(&self, name: &HostPattern) -> bool {
        self.names.iter().any(|has| check::covers(has, name))
    }
}

/// What there is for each set of names.
#[derive(Clone)]
pub(super) struct Slots {
    sets: Vec<Slot>,
    /// Certificates of other sets, or older ones, that are good for some of the names until their own come.
    spares: Vec<Served>,
}

#[derive(Clone)]
pub(super) struct Slot {
    pub(super) names: Vec<HostPattern>,
    pub(super) served: Option<Served>,
}

impl Slot {
    /// Whether its own certificate is for all of it.
    fn is_whole(&self) -> bool {
        self.served.as_ref().is_some_and(|served| self.names.iter().all(|name| served.covers(name)))
    }
}

impl Slots {
    pub(super) fn new(site: &Site) -> Self {
        let slot = |names| Slot { names, served: None };
        Self { sets: sets(site).into_iter().map(slot).collect(), spares: Vec::new() }
    }

    pub(super) fn sets(&self) -> &[Slot] {
        &self.sets
    }

    /// What a name is answered with: its set's own certificate where that covers it, else any other that does.
    pub(super) fn choose(&self, name: &Hostname) -> Option<&Served> {
        let pattern = HostPattern::Exact(name.clone());
        let has = |slot: &&Slot| slot.names.contains(&pattern);
        let matches = |slot: &&Slot| slot.names.iter().any(|own| own.matches(name));
        let own = self.sets.iter().find(has).or_else(|| self.sets.iter().find(matches));
        own.and_then(|slot| slot.served.as_ref())
            .filter(|served| served.covers(&pattern))
            .or_else(|| self.all().find(|served| served.covers(&pattern)))
    }

    /// Everything in use.
    pub(super) fn all(&self) -> impl Iterator<Item = &Served> {
        self.sets.iter().filter_map(|slot| slot.served.as_ref()).chain(&self.spares)
    }

    /// The same, each with the set whose own it is without covering all of it.
    pub(super) fn parts(&self) -> impl Iterator<Item = (&Served, Option<&[HostPattern]>)> {
        let own = self.sets.iter().filter_map(|slot| {
            let part_of = Some(&*slot.names).filter(|_| !slot.is_whole());
            Some((slot.served.as_ref()?, part_of))
        });
        own.chain(self.spares.iter().map(|spare| (spare, None)))
    }

    /// Takes a new certificate up for each set that it is for, or for some names of one. False where there is none.
    pub(super) fn install(&mut self, served: &Served, part_of: Option<&[HostPattern]>) -> bool {
        let homes = self.homes(served, part_of);
        for home in &homes {
            self.place(*home, served);
        }
        !homes.is_empty()
    }

    /// Takes an older certificate up where there is none that is newer; if it is not for a whole set, for the names
    /// that have none. False where it is no use.
    pub(super) fn restore(&mut self, served: &Served, part_of: Option<&[HostPattern]>) -> bool {
        let homes = self.homes(served, part_of);
        let newer = |slot: &Slot| {
            slot.served.as_ref().is_none_or(|own| own.validity.not_before < served.validity.not_before)
        };
        let open: Vec<usize> =
            homes.iter().copied().filter(|home| self.sets.get(*home).is_some_and(newer)).collect();
        for home in &open {
            self.place(*home, served);
        }
        if open.is_empty() { self.spare(served) } else { true }
    }

    /// The same certificates under another policy.
    pub(super) fn under(&self, policy: &Policy, lowest: TlsVersion) -> Self {
        let served = |served: &Served| served.under(policy, lowest);
        let slot = |slot: &Slot| Slot { names: slot.names.clone(), served: slot.served.as_ref().map(served) };
        Self { sets: self.sets.iter().map(slot).collect(), spares: self.spares.iter().map(served).collect() }
    }

    /// The sets whose names a certificate has as they stand; without any, those that it covers. One that is for a part of a
    /// set is for that one.
    fn homes(&self, served: &Served, part_of: Option<&[HostPattern]>) -> Vec<usize> {
        let with = |fits: &dyn Fn(&HostPattern) -> bool| -> Vec<usize> {
            let sets = self.sets.iter().enumerate();
            sets.filter(|(_, slot)| slot.names.iter().all(fits)).map(|(index, _)| index).collect()
        };
        if let Some(names) = part_of {
            let is_it = |slot: &Slot| slot.names == names && names.iter().any(|name| served.covers(name));
            return self.sets.iter().position(is_it).into_iter().collect();
        }
        let own = with(&|name| served.names.contains(name));
        if own.is_empty() { with(&|name| served.covers(name)) } else { own }
    }

    fn place(&mut self, home: usize, served: &Served) {
        let before = self.sets.get_mut(home).and_then(|slot| slot.served.replace(served.clone()));
        if self.sets.iter().all(Slot::is_whole) {
            self.spares.clear();
        } else if let Some(before) = before {
            self.spare(&before);
        }
    }

    fn spare(&mut self, served: &Served) -> bool {
        let is_lacking = |name: &&HostPattern| !self.all().any(|other| other.covers(name));
        let mut lacking = self.sets.iter().flat_map(|slot| &slot.names).filter(is_lacking);
        let useful = lacking.any(|name| served.covers(name));
        if useful {
            self.spares.push(served.clone());
        }
        useful
    }
}
