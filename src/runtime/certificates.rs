//! Certificate files that change are taken up while the edge runs.

use std::time::{Duration, Instant};

use time::format_description::well_known::Rfc3339;
use tokio::time::sleep;

use crate::config::model::Site;
use crate::snapshot::{Live, Snapshot};
use crate::tls::{Refresh, SiteTls, TlsProblem};

/// How long after a look the files are looked at again, at least.
const PERIOD: Duration = Duration::from_secs(2);
/// That many times as long as a look takes is the pause behind it: those of 10,000 sites take half a percent of a processor.
const LAZINESS: u32 = 200;
/// A look that takes longer counts as this long: what it waited for may be the disk.
const LONGEST: Duration = Duration::from_millis(150);

/// Looks after the certificates of whatever configuration runs, for ever. The disk is read on a thread of its own.
pub(super) async fn watch(live: Live) {
    // The certificates were loaded just now.
    let mut pause = PERIOD;
    loop {
        sleep(pause).await;
        let (snapshot, begun) = (live.load(), Instant::now());
        // Its panic is in the log; the next look is a new one.
        let _ = tokio::task::spawn_blocking(move || look(&snapshot)).await;
        pause = PERIOD.max(begun.elapsed().min(LONGEST) * LAZINESS);
    }
}

fn look(snapshot: &Snapshot) {
    for (site, tls) in snapshot.config.certified().zip(snapshot.all_tls()) {
        tell(site, tls);
    }
}

fn tell(site: &Site, tls: &SiteTls) {
    let name = || site.domains.first().map(ToString::to_string).unwrap_or_default();
    let warn =
        |problem: &TlsProblem| tracing::warn!(site = name(), %problem, "a certificate needs attention");
    match tls.refresh() {
        Refresh::Unchanged => {}
        Refresh::Reloaded => {
            let not_after = tls.expiry().and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_default();
            tracing::info!(site = name(), not_after, "a new certificate is in use");
            tls.warnings().iter().for_each(warn);
        }
        Refresh::Kept(problems) => {
            for problem in problems {
                tracing::error!(site = name(), %problem, "a new certificate is wrong; the one before stays in use");
            }
        }
        Refresh::Expired(problem) => {
            tracing::error!(site = name(), %problem, "a certificate has expired and is still served");
        }
    }
}
