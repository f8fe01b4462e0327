//! What one request met: what was noted of it, beside what the configuration says.

use time::OffsetDateTime;

use crate::addr::{ClientAddr, Gate, Source};
use crate::admin::explain::{Explained, GateMet, Met, Millis, Verdict};
use crate::config::model::{Action, Config, FileCache, Route, Row, Site};
use crate::fault::Fault;
use crate::observe::recent::{Recent, Recorded};
use crate::observe::rfc3339;
use crate::snapshot::Snapshot;

/// Answers for one id. `taken` is when the running configuration was taken. Looks through all that is kept: call it on a
/// thread that may wait.
pub(super) fn explain(recent: &Recent, snapshot: &Snapshot, taken: OffsetDateTime, id: &str) -> Explained {
    let request = recent.find(id).map(|recorded| met(&recorded, snapshot, taken));
    Explained { request, kept: recent.extent().requests }
}

/// What a request met, as far as it is known.
pub(super) fn met(recorded: &Recorded, snapshot: &Snapshot, taken: OffsetDateTime) -> Met {
    let (site, route) = snapshot.table.labels().names(recorded.series);
    let config = &*snapshot.config;
    let own_site = config.sites.iter().find(|own| name(own) == site);
    let own_route = own_site.and_then(|own| own.routes.iter().find(|own| own.path.to_string() == route));
    Met {
        id: recorded.id.clone(),
        trace_id: recorded.trace_id.clone(),
        time: rfc3339(recorded.time),
        client: recorded.client.to_string(),
        method: recorded.method.clone(),
        host: recorded.host.clone(),
        path: recorded.path.clone(),
        protocol: recorded.protocol.clone(),
        tls: recorded.tls.clone(),
        site: site.to_owned(),
        route: route.to_owned(),
        does: own_route.map(does).unwrap_or_default(),
        gates: gates(recorded, config, own_site, own_route),
        status: recorded.status,
        refused: recorded.refused.clone(),
        why: recorded.why.clone(),
        upstream: recorded.upstream.clone(),
        tries: recorded.tries,
        connect_ms: recorded.connect.map(Millis::of),
        first_byte_ms: recorded.first_byte.map(Millis::of),
        total_ms: Millis::of(recorded.total),
        request_bytes: recorded.received,
        response_bytes: recorded.sent,
        changed_since: OffsetDateTime::from(recorded.time) < taken,
    }
}

/// A site as the metrics call it.
pub(super) fn name(site: &Site) -> String {
    use crate::name::HostPattern;
    let exact = site.domains.iter().find(|name| matches!(name, HostPattern::Exact(_)));
    exact.or(site.domains.first()).map(ToString::to_string).unwrap_or_default()
}

pub(super) fn does(route: &Route) -> String {
    match &route.action {
        Action::Proxy(proxy) => {
            let targets: Vec<_> = proxy.targets.iter().map(ToString::to_string).collect();
            format!("hands it to {}", targets.join(", "))
        }
        Action::Redirect { to, status } => format!("sends it to {to} with {status}"),
        Action::Files(files) => {
            let fresh = if files.cache == FileCache::Immutable { ", for ever fresh" } else { "" };
            format!("answers with files of {}{fresh}", files.folder.display())
        }
    }
}

/// The gates in their order. Which of two refused is not noted, and is asked again.
fn gates(recorded: &Recorded, config: &Config, site: Option<&Site>, route: Option<&Route>) -> Vec<GateMet> {
    let client = ClientAddr::new(recorded.client);
    let forbidden = recorded.refused == Fault::Forbidden.token();
    let passes = |gate: &Gate| gate.admit(client).is_ok();
    let row = config.rows.iter().find(|row: &&Row| row.bind.to_string() == recorded.row);
    let at_row = if forbidden && site.is_none() { Verdict::Refused } else { Verdict::LetIn };
    let reached = route.is_some();
    let at_site = match site {
        Some(_) if !reached => Verdict::NotAsked,
        Some(site) if forbidden && !passes(&site.gate) => Verdict::Refused,
        _ => Verdict::LetIn,
    };
    let at_route = match at_site {
        Verdict::LetIn if forbidden => Verdict::Refused,
        Verdict::LetIn => Verdict::LetIn,
        _ => Verdict::NotAsked,
    };
    let row = row.map(|row| gate(format!("row {}", row.bind), &row.gate, at_row));
    let site = site.map(|site| gate(format!("site {}", name(site)), &site.gate, at_site));
    let route = route.map(|route| gate(format!("route {}", route.path), &route.gate, at_route));
    [row, site, route].into_iter().flatten().collect()
}

fn gate(name: String, gate: &Gate, verdict: Verdict) -> GateMet {
    let names = |sources: &[Source]| sources.iter().map(|source| source.name.to_string()).collect();
    GateMet { gate: name, allow: names(&gate.allow), deny: names(&gate.deny), verdict }
}
