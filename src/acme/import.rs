//! Certificates that certbot obtained, taken over where the store has none: the first start then needs no order.
//!
//! Certbot's directory is root's alone, and the store belongs to the edge's own user: what fits is read before root is
//! given up, and stored afterwards. Nothing in certbot's directory is changed.

use std::cmp::Reverse;
use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use time::OffsetDateTime;

use super::store::{Bundle, EventKind, Record, RecordId, Secret, Store, StoreError, sets};
use crate::config::model::{Certificate, Config};
use crate::name::HostPattern;
use crate::tls::{self, InUse};

/// What certbot has, read.
#[derive(Debug, Default)]
pub struct Lineages(Vec<Lineage>);

/// One of certbot's certificates.
struct Lineage {
    /// Where it is: `live/NAME`.
    path: PathBuf,
    chain_pem: String,
    key_pem: Secret,
    identity: InUse,
    /// The URL of the directory of its CA.
    directory: String,
}

impl Lineages {
    /// Reads certbot's directory, where `[acme] import` names one and a site wants a certificate from a CA. What cannot be
    /// read is told in the log, and left out.
    pub fn read(config: &Config) -> Self {
        let wanted = config.asks_a_ca();
        let Some(home) = config.acme.import.as_deref().filter(|_| wanted) else { return Self::default() };
        let live = home.join("live");
        let entries = match fs::read_dir(&live) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Self::default(),
            Err(error) => {
                tracing::warn!(directory = %live.display(), %error, "certbot's certificates cannot be read, and are not taken over");
                return Self::default();
            }
        };
        let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        paths.sort();
        Self(
            paths
                .into_iter()
                .filter(|path| path.is_dir())
                .filter_map(|path| Lineage::read(home, path))
                .collect(),
        )
    }

    /// Stores, for every certificate that the configuration asks for and the store lacks, the one of certbot's that covers
    /// the most of its names and lasts longest; where it lacks some, one for all is ordered meanwhile. Waits for the disk.
    /// What the disk refuses is told in the log: it is ordered then.
    pub fn take_over(&self, store: &Store, config: &Config, now: OffsetDateTime) {
        if self.0.is_empty() {
            return;
        }
        let acme = config.certified().filter(|site| site.certificate == Certificate::Acme);
        for names in acme.flat_map(sets) {
            if let Err(error) = self.fill(store, &names, now) {
                tracing::warn!(%error, "a certificate of certbot's could not be stored");
            }
        }
    }

    fn fill(&self, store: &Store, names: &[HostPattern], now: OffsetDateTime) -> Result<(), StoreError> {
        let id = RecordId::of(names);
        let empty = |record: &Record| record.bundle.is_none() && record.order.is_none();
        if !store.load(&id)?.as_ref().is_none_or(empty) {
            return Ok(());
        }
        let Some((lineage, bundle)) = self.best(names, now) else { return Ok(()) };
        // Whoever has the lock orders already.
        let Some(_lock) = store.lock(&id)? else { return Ok(()) };
        let mut record = store.load(&id)?.unwrap_or_else(|| Record::new(names.to_vec()));
        if !empty(&record) {
            return Ok(());
        }
        let (from, not_after) = (lineage.path.display().to_string(), bundle.not_after.date());
        record.bundle = Some(bundle);
        record.note(now, EventKind::Imported, from.clone());
        store.save(&id, &record)?;
        tracing::info!(certificate = %id, from, %not_after, "a certificate of certbot's was taken over");
        Ok(())
    }

    /// The one that covers the most of the names and lasts longest.
    fn best(&self, names: &[HostPattern], now: OffsetDateTime) -> Option<(&Lineage, Bundle)> {
        let fitting = self.0.iter().filter_map(|lineage| Some((lineage, lineage.bundle(names, now)?)));
        fitting.min_by_key(|(_, bundle)| (bundle.lacks.len(), Reverse(bundle.not_after)))
    }
}

impl Lineage {
    fn read(home: &Path, path: PathBuf) -> Option<Self> {
        let file = |name: &str| {
            let file = path.join(name);
            let text = fs::read_to_string(&file);
            text.inspect_err(
                |error| tracing::warn!(file = %file.display(), %error, "not taken over: it cannot be read"),
            )
            .ok()
        };
        let (chain_pem, key_pem) = (file("fullchain.pem")?, Secret::new(file("privkey.pem")?));
        let identity = InUse::of_pem(&chain_pem);
        let directory =
            path.file_name().and_then(|name| server(home, &name.to_string_lossy())).unwrap_or_default();
        Some(Self { path, chain_pem, key_pem, identity, directory })
    }

    /// For those of the names that it covers; None where it is good for none of them now.
    fn bundle(&self, names: &[HostPattern], now: OffsetDateTime) -> Option<Bundle> {
        let (not_before, not_after) =
            self.identity.validity.filter(|(from, until)| *from <= now && now < *until)?;
        let (covered, lacks): (Vec<_>, Vec<_>) =
            names.iter().cloned().partition(|name| self.identity.covers(name));
        if covered.is_empty() {
            return None;
        }
        let fits = tls::fits(self.chain_pem.as_bytes(), self.key_pem.expose().as_bytes(), &covered);
        let from = self.path.display();
        fits.inspect_err(|why| tracing::warn!(%from, why, "a certificate of certbot's cannot be taken over"))
            .ok()?;
        Some(Bundle {
            key_pem: self.key_pem.clone(),
            chain_pem: self.chain_pem.clone(),
            directory: self.directory.clone(),
            profile: None,
            issued: now,
            not_before,
            not_after,
            ari_id: self.identity.renewal_id.clone(),
            imported: true,
            lacks,
        })
    }
}

impl fmt::Debug for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lineage").field("path", &self.path).finish_non_exhaustive()
    }
}

/// The CA of a certificate, as certbot will renew it: `server` in `renewal/NAME.conf`.
fn server(home: &Path, name: &str) -> Option<String> {
    let text = fs::read_to_string(home.join("renewal").join(format!("{name}.conf"))).ok()?;
    let entry = |line: &str| {
        let (key, value) = line.split_once('=')?;
        (key.trim() == "server").then(|| value.trim().to_owned())
    };
    text.lines().find_map(entry)
}
