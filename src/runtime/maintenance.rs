//! Sites in maintenance: by a file that the configuration names, or by command. The command's word is a file in the store, so
//! that it outlives a reload and a restart, and both are looked at alike.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::admin::certificates::Told;
use crate::config::model::{Config, Site};
use crate::name::{HostPattern, Hostname};
use crate::route::SiteEntry;
use crate::snapshot::{Live, Snapshot};

/// How often the files are looked for.
const PERIOD: Duration = Duration::from_secs(1);

/// Looks after the sites of whatever configuration runs, for ever. The disk is read on a thread of its own.
pub(super) async fn watch(live: Live) {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let snapshot = live.load();
        // Its panic is in the log; the next look is a new one.
        let _ = tokio::task::spawn_blocking(move || look(&snapshot, true)).await;
    }
}

/// Looks for the files once, and tells what has changed where that is news.
pub(super) fn look(snapshot: &Snapshot, news: bool) {
    let held = held(&snapshot.config);
    for (site, entry) in sites(snapshot) {
        let by_command = match &held {
            Some(held) => !held.is_empty() && marks(site).any(|mark| held.contains(&mark)),
            // The store cannot be read just now: what it said still holds.
            None => entry.maintenance.is_on(),
        };
        let by_file = entry.maintenance.switch.as_deref().filter(|file| file.exists());
        let on = by_command || by_file.is_some();
        if entry.maintenance.set(on) && news {
            tell(site, on, by_file);
        }
    }
}

/// The sites that are in maintenance, by their first names.
pub(super) fn list(snapshot: &Snapshot) -> Vec<String> {
    sites(snapshot).filter(|(_, entry)| entry.maintenance.is_on()).map(|(site, _)| name(site)).collect()
}

/// Turns it on or off for the site that has the name, as it was typed. Writes to the disk.
pub(super) fn turn(snapshot: &Snapshot, typed: &str, on: bool) -> Told {
    match turned(snapshot, typed, on) {
        Ok(message) => Told { ok: true, message },
        Err(message) => Told { ok: false, message },
    }
}

fn turned(snapshot: &Snapshot, typed: &str, on: bool) -> Result<String, String> {
    let (site, entry) = sites(snapshot).find(|(site, _)| is_called(site, typed)).ok_or_else(|| {
        let names: Vec<String> = snapshot.config.sites.iter().map(name).collect();
        let there_is = if names.is_empty() { "none".into() } else { names.join(", ") };
        format!("no site has the name {typed:?}; there is {there_is}")
    })?;
    let folder = folder(&snapshot.config);
    let written = if on { mark(&folder, site) } else { unmark(&folder, site) };
    written.map_err(|error| format!("{}: {error}", folder.display()))?;
    look(snapshot, true);
    let name = name(site);
    match &entry.maintenance.switch {
        Some(file) if !on && entry.maintenance.is_on() => {
            Err(format!("{name} stays in maintenance while {} exists: remove that file", file.display()))
        }
        _ if on => Ok(format!("{name} is in maintenance, until `vestibule maintenance off {name}`")),
        _ => Ok(format!("{name} is served again")),
    }
}

fn mark(folder: &Path, site: &Site) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    if let Some(mark) = marks(site).next() {
        File::create(folder.join(mark))?.sync_all()?;
    }
    File::open(folder)?.sync_all()
}

fn unmark(folder: &Path, site: &Site) -> io::Result<()> {
    for mark in marks(site) {
        match fs::remove_file(folder.join(mark)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn tell(site: &Site, on: bool, file: Option<&Path>) {
    let (site, file) = (name(site), file.map(|file| file.display().to_string()));
    if on {
        tracing::warn!(site, file, "a site is in maintenance");
    } else {
        tracing::info!(site, "a site is served again after its maintenance");
    }
}

/// The marks that commands have left; None where they cannot be read.
fn held(config: &Config) -> Option<HashSet<String>> {
    match fs::read_dir(folder(config)) {
        Ok(entries) => Some(
            entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect::<HashSet<_>>(),
        ),
        Err(error) if error.kind() == ErrorKind::NotFound => Some(HashSet::new()),
        Err(_) => None,
    }
}

fn folder(config: &Config) -> PathBuf {
    config.store.path.join("maintenance")
}

/// The names that a site's mark may have: a configuration may come to name its domains in another order.
fn marks(site: &Site) -> impl Iterator<Item = String> {
    site.domains.iter().map(|domain| domain.to_string().replace('*', "_"))
}

fn sites(snapshot: &Snapshot) -> impl Iterator<Item = (&Site, &std::sync::Arc<SiteEntry>)> {
    snapshot.config.sites.iter().zip(snapshot.table.sites())
}

fn name(site: &Site) -> String {
    site.domains.first().map(ToString::to_string).unwrap_or_default()
}

/// By a pattern as it stands in the file, or by a name that the site answers to.
fn is_called(site: &Site, typed: &str) -> bool {
    let named = Hostname::parse(typed).ok();
    let pattern = HostPattern::parse(typed).ok();
    let redirected = || site.redirect.iter().any(|own| Some(own) == named.as_ref());
    site.domains
        .iter()
        .any(|own| Some(own) == pattern.as_ref() || named.as_ref().is_some_and(|named| own.matches(named)))
        || redirected()
}
