//! The commands that speak to the running edge: `vestibule reload` and `vestibule status`.

use std::fmt::Write as _;
use std::io;
use std::path::Path;
use std::time::Duration;

use http::Method;
use serde::de::DeserializeOwned;

use super::{Failure, Format, RunningEdge, files, print, print_json};
use crate::admin::certificates::Told;
use crate::admin::upstreams::{TargetStatus, encoded};
use crate::admin::{Reloaded, Status, client};

/// `vestibule reload`
pub(super) fn reload(edge: &RunningEdge) -> Result<(), Failure> {
    let reloaded: Reloaded = ask(&files::socket(edge)?, Method::POST, "/v1/reload")?;
    if let Some(problems) = reloaded.problems {
        return Err(Failure::wrong(problems + "the running configuration stays as it is\n"));
    }
    let _ = io::Write::write_all(&mut io::stderr(), reloaded.warnings.as_bytes());
    let changes = reloaded.difference.unwrap_or_default();
    let changes = if changes.is_empty() { "nothing has changed".to_owned() } else { changes.to_string() };
    print(&format!("reloaded: generation {}\n{changes}\n", reloaded.generation))
}

/// `vestibule status`
pub(super) fn status(edge: &RunningEdge, format: Format) -> Result<(), Failure> {
    let status: Status = ask(&files::socket(edge)?, Method::GET, "/v1/status")?;
    match format {
        Format::Text => print(&table(&status)),
        Format::Json => print_json(&status),
    }
}

/// `vestibule drain UPSTREAM`
pub(super) fn drain(name: &str, undo: bool, edge: &RunningEdge) -> Result<(), Failure> {
    let word = if undo { "undrain" } else { "drain" };
    let target = format!("/v1/{word}?name={}", encoded(name));
    let told: Told = ask(&files::socket(edge)?, Method::POST, &target)?;
    if told.ok { print(&format!("{}\n", told.message)) } else { Err(Failure::new(told.message)) }
}

fn table(status: &Status) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &dyn std::fmt::Display| {
        let _ = writeln!(text, "{name:<14}{value}");
    };
    line("version", &status.version);
    line("process", &status.pid);
    line("started", &status.started);
    line("configuration", &status.config.as_deref().unwrap_or("none (vestibule up)"));
    line("generation", &status.generation);
    line("workers", &status.workers);
    line("connections", &status.connections);
    for row in &status.rows {
        line("port", &format_args!("{} {} on {}", row.row, row.serve, row.addresses.join(", ")));
    }
    for lease in &status.leases {
        line("lease", &super::allow::line(lease));
    }
    for site in &status.sites {
        let note = if status.maintenance.contains(site) { " (in maintenance)" } else { "" };
        line("site", &format_args!("{site}{note}"));
    }
    for target in merged(status.upstreams.iter().flat_map(|upstream| &upstream.targets)) {
        line("upstream", &shown(&target));
    }
    for upstream in &status.upstreams {
        if upstream.waiting > 0 {
            line("waiting", &format_args!("{} requests for {}", upstream.waiting, upstream.name));
        }
    }
    if let Some(upgrade) = &status.upgrade {
        line("upgrade", upgrade);
    }
    text
}

/// What several sites share stands once, with what it does for all of them.
fn merged<'a>(all: impl Iterator<Item = &'a TargetStatus>) -> Vec<TargetStatus> {
    let mut merged: Vec<TargetStatus> = Vec::new();
    for status in all {
        let same = |known: &&mut TargetStatus| {
            TargetStatus { busy: 0, ..(**known).clone() } == TargetStatus { busy: 0, ..status.clone() }
        };
        match merged.iter_mut().find(same) {
            Some(known) => known.busy += status.busy,
            None => merged.push(status.clone()),
        }
    }
    merged
}

/// One address of an upstream in one line.
fn shown(status: &TargetStatus) -> String {
    let TargetStatus { target, address, state, busy, since, error } = status;
    let mut text = target.clone();
    if let Some(address) = address.as_ref().filter(|address| *address != target) {
        let _ = write!(text, " at {address}");
    }
    let _ = write!(text, ": {state}");
    if let Some(since) = since {
        let _ = write!(text, " since {since}");
    }
    if *busy > 0 {
        let _ = write!(text, ", {busy} in progress");
    }
    if let Some(error) = error {
        let _ = write!(text, ", {}", error.escape_debug());
    }
    text
}

pub(super) fn ask<T: DeserializeOwned>(socket: &Path, method: Method, target: &str) -> Result<T, Failure> {
    waited_for(client::ask(socket, method, target))
}

/// The same, for who cannot wait for an edge that hangs.
pub(super) fn ask_within<T: DeserializeOwned>(
    patience: Duration,
    socket: &Path,
    method: Method,
    target: &str,
) -> Result<T, Failure> {
    waited_for(client::ask_within(patience, socket, method, target))
}

fn waited_for<T>(answer: impl Future<Output = Result<T, client::ClientError>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(format_args!("cannot begin: {error}")))?;
    runtime.block_on(answer).map_err(Failure::new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::RowStatus;
    use crate::admin::leases::LeaseStatus;
    use crate::admin::upstreams::UpstreamStatus;

    #[test]
    fn a_status_is_a_table() {
        let row = RowStatus {
            row: "443".into(),
            serve: "https".into(),
            addresses: vec!["0.0.0.0:443".into(), "[::]:443".into()],
        };
        let target = |target: &str, address: &str, state: &str, busy, error: Option<&str>| TargetStatus {
            target: target.into(),
            address: Some(address.into()),
            state: state.into(),
            busy,
            since: Some("2026-01-01T00:00:00Z".into()),
            error: error.map(str::to_owned),
        };
        let targets = vec![
            target("django:8000", "10.0.0.5:8000", "up", 2, None),
            target("10.0.0.9:8000", "10.0.0.9:8000", "down", 0, Some("connection refused")),
        ];
        let status = Status {
            pid: 7,
            version: "0.1.0".into(),
            started: "2026-01-01T00:00:00Z".into(),
            config: Some("/etc/vestibule/vestibule.toml".into()),
            generation: 2,
            workers: 4,
            connections: 12,
            rows: vec![row],
            sites: vec!["app.example.com".into(), "shop.example.com".into()],
            maintenance: vec!["shop.example.com".into()],
            leases: vec![LeaseStatus {
                source: "ci".into(),
                network: "198.51.100.7/32".parse().unwrap(),
                until: "2026-01-01T00:30:00Z".into(),
                seconds_left: 90,
            }],
            upstreams: vec![UpstreamStatus {
                name: "django:8000, 10.0.0.9:8000".into(),
                waiting: 3,
                targets,
            }],
            upgrade: Some("failed".into()),
        };
        let expected = "\
version       0.1.0
process       7
started       2026-01-01T00:00:00Z
configuration /etc/vestibule/vestibule.toml
generation    2
workers       4
connections   12
port          443 https on 0.0.0.0:443, [::]:443
lease         ci holds 198.51.100.7/32 until 2026-01-01T00:30:00Z, 90s more
site          app.example.com
site          shop.example.com (in maintenance)
upstream      django:8000 at 10.0.0.5:8000: up since 2026-01-01T00:00:00Z, 2 in progress
upstream      10.0.0.9:8000: down since 2026-01-01T00:00:00Z, connection refused
waiting       3 requests for django:8000, 10.0.0.9:8000
upgrade       failed
";
        assert_eq!(table(&status), expected);
    }

    #[test]
    fn what_two_sites_share_is_one_line() {
        let target = |state: &str, busy| TargetStatus {
            target: "django:8000".into(),
            address: Some("10.0.0.5:8000".into()),
            state: state.into(),
            busy,
            since: None,
            error: None,
        };
        let all = [target("up", 2), target("up", 3), target("down", 0)];
        assert_eq!(merged(all.iter()), [target("up", 5), target("down", 0)]);
    }
}
