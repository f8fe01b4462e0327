//! `vestibule status --connections`: who is connected, to what.

use std::fmt::Write as _;

use http::Method;

use super::edge::ask;
use super::{Failure, Format, RunningEdge, files, print, print_json};
use crate::admin::connections::{Connection, Connections};

/// `vestibule status --connections`
pub(super) fn list(edge: &RunningEdge, format: Format) -> Result<(), Failure> {
    let told: Connections = ask(&files::socket(edge)?, Method::GET, "/v1/connections")?;
    match format {
        Format::Text => print(&table(&told)),
        Format::Json => print_json(&told),
    }
}

fn table(told: &Connections) -> String {
    let Connections { total, connections } = told;
    let head = ["client", "port", "protocol", "site", "since", "requests"].map(str::to_owned);
    let lines: Vec<[String; 6]> = std::iter::once(head).chain(connections.iter().map(cells)).collect();
    let width = |column: usize| lines.iter().filter_map(|cells| cells.get(column)).map(String::len).max();
    let mut text = String::new();
    for cells in lines.iter().filter(|_| !connections.is_empty()) {
        let padded = cells.iter().enumerate().map(|(at, cell)| format!("{cell:<0$}", width(at).unwrap_or(0)));
        text += padded.collect::<Vec<_>>().join("  ").trim_end();
        text.push('\n');
    }
    match (connections.len(), *total) {
        (_, 0) => text += "no connection is open\n",
        // Writing to a string cannot fail.
        (listed, total) if listed < total => drop(writeln!(text, "the oldest {listed} of {total}")),
        _ => {}
    }
    text
}

fn cells(connection: &Connection) -> [String; 6] {
    let Connection { client, row, protocol, site, since, requests } = connection;
    let requests = requests.map_or_else(|| "-".to_owned(), |requests| requests.to_string());
    let site = site.clone().unwrap_or_else(|| "-".to_owned());
    [client.clone(), row.clone(), protocol.clone(), site, since.clone(), requests]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_a_table() {
        let connection = |client: &str, row: &str, protocol: &str, site: Option<&str>, requests| Connection {
            client: client.into(),
            row: row.into(),
            protocol: protocol.into(),
            site: site.map(str::to_owned),
            since: "2026-01-01T00:00:00Z".into(),
            requests,
        };
        let connections = vec![
            connection("203.0.113.7", "443", "h2", Some("app.example.com"), Some(12)),
            connection("2001:db8::1", "5432", "forward", None, None),
        ];
        let told = Connections { total: 3, connections };
        let expected = "\
client       port  protocol  site             since                 requests
203.0.113.7  443   h2        app.example.com  2026-01-01T00:00:00Z  12
2001:db8::1  5432  forward   -                2026-01-01T00:00:00Z  -
the oldest 2 of 3
";
        assert_eq!(table(&told), expected);
        assert_eq!(table(&Connections::default()), "no connection is open\n");
    }
}
