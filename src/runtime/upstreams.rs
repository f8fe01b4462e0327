//! Upstreams, as a person asks about them: how each is, and which are to have nothing to do.

use std::sync::Arc;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::admin::certificates::Told;
use crate::admin::upstreams::{TargetStatus, UpstreamStatus};
use crate::snapshot::Snapshot;
use crate::upstream::{MemberStatus, Upstream};

/// Every upstream, by name.
pub(super) fn all(snapshot: &Snapshot) -> Vec<UpstreamStatus> {
    sorted(snapshot).into_iter().map(|(name, upstream)| status(name, upstream)).collect()
}

/// Takes a target out, or one address of one, or lets it in again.
pub(super) fn drain(snapshot: &Snapshot, name: &str, undo: bool) -> Told {
    let known = snapshot.table.upstreams().any(|upstream| upstream.is_called(name));
    let changed = (known || undo) && snapshot.table.drained().set(name, !undo);
    if !known && !changed {
        return Told { ok: false, message: unknown(snapshot, name) };
    }
    for upstream in snapshot.table.upstreams() {
        upstream.obey_drained();
    }
    let message = match (undo, changed) {
        (true, true) => format!("{name} has requests again"),
        (true, false) => format!("{name} was not drained"),
        (false, _) => drained(snapshot, name),
    };
    if changed {
        tracing::info!(upstream = name, "{}", if undo { "no longer drained" } else { "drained" });
    }
    Told { ok: true, message }
}

/// What a person who has just drained something wants to know.
fn drained(snapshot: &Snapshot, name: &str) -> String {
    let concerned = || snapshot.table.upstreams().filter(|upstream| upstream.is_called(name));
    let is_meant = |status: &MemberStatus| status.target == name || status.address.as_deref() == Some(name);
    let busy: usize =
        concerned().flat_map(|upstream| upstream.status()).filter(is_meant).map(|status| status.busy).sum();
    let mut message = format!("{name} gets no new requests; it has {busy} in progress");
    if concerned().any(|upstream| !upstream.is_available()) {
        message +=
            "\nnothing else is up in its place: requests wait for as long as `hold` says, and fail then";
    }
    message
}

fn unknown(snapshot: &Snapshot, name: &str) -> String {
    let targets = snapshot.table.upstreams().flat_map(|upstream| upstream.status());
    let mut known: Vec<String> = targets.map(|status| status.target).collect();
    known.sort_unstable();
    known.dedup();
    format!("no upstream is called {name:?}; those that are: {}", known.join(", "))
}

fn sorted(snapshot: &Snapshot) -> Vec<(String, &Arc<Upstream>)> {
    let mut all: Vec<_> = snapshot.table.upstreams().map(|upstream| (upstream.name(), upstream)).collect();
    all.sort_by(|(a, _), (b, _)| a.cmp(b));
    all
}

fn status(name: String, upstream: &Upstream) -> UpstreamStatus {
    let target = |status: MemberStatus| TargetStatus {
        target: status.target,
        address: status.address,
        state: status.state.to_owned(),
        busy: status.busy,
        since: status
            .since
            .and_then(|since| OffsetDateTime::from(since).truncate_to_second().format(&Rfc3339).ok()),
        error: status.error,
    };
    UpstreamStatus {
        name,
        waiting: upstream.waiting(),
        targets: upstream.status().into_iter().map(target).collect(),
    }
}
