//! The commands that speak to the running edge: `vestibule reload` and `vestibule status`.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use http::Method;
use serde::de::DeserializeOwned;

use super::{Failure, Format, RunningEdge, files, print, print_json};
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
    for site in &status.sites {
        let note = if status.maintenance.contains(site) { " (in maintenance)" } else { "" };
        line("site", &format_args!("{site}{note}"));
    }
    text
}

pub(super) fn ask<T: DeserializeOwned>(socket: &Path, method: Method, target: &str) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(format_args!("cannot begin: {error}")))?;
    runtime.block_on(client::ask(socket, method, target)).map_err(Failure::new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::RowStatus;

    #[test]
    fn a_status_is_a_table() {
        let row = RowStatus {
            row: "443".into(),
            serve: "https".into(),
            addresses: vec!["0.0.0.0:443".into(), "[::]:443".into()],
        };
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
site          app.example.com
site          shop.example.com (in maintenance)
";
        assert_eq!(table(&status), expected);
    }
}
