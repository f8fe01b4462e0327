//! The socket that the commands speak to: JSON over HTTP/1.1 over a unix socket that only the edge's own user
//! and root may open.
//!
//! `POST /v1/reload` answers a [`Reloaded`], `GET /v1/status` a [`Status`], `GET /v1/certificates` the
//! [`Certificates`], `POST /v1/certificates/renew?name=…`, `…/revoke?name=…` and `POST /v1/accounts/rekey` a [`Told`], `POST /v1/maintenance/on?name=…` and `…/off?name=…`
//! too, `GET /v1/connections` the [`Connections`], `POST /v1/drain?name=…` and `/v1/undrain?name=…` as well, `GET /v1/explain?id=…` an [`Explained`],
//! `GET /v1/leases`, `POST /v1/leases?source=…&network=…&seconds=…` and `DELETE /v1/leases?source=…&network=…` [`LeasesTold`]. A field is never renamed or given
//! another meaning within `/v1`; new ones may appear.
//!
//! What only shows is there over TCP too, where `[admin] listen` says so ([`listen`]): `GET /metrics` is the text that
//! Prometheus reads, `/healthz` answers while the process lives, `/readyz` while it takes requests, and
//! `GET /` is the [`page`].

pub mod certificates;
pub mod client;
pub mod connections;
pub mod explain;
pub mod leases;
pub mod listen;
pub mod page;
pub mod server;
pub mod upstreams;
mod web;

use std::time::Duration;

use certificates::{Certificates, Told, Wish};
use connections::Connections;
use explain::Explained;
use leases::{LeaseStatus, LeaseWish, LeasesTold};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use upstreams::UpstreamStatus;

use crate::observe::metrics::Dialect;
pub use web::Leaving;

/// How long a listener rests after an error, as when descriptors have run out.
const PAUSE: Duration = Duration::from_millis(100);

/// What the socket asks of the running edge.
#[derive(Debug)]
pub enum Ask {
    /// Read the configuration again.
    Reload(oneshot::Sender<Reloaded>),
    /// How it is.
    Status(oneshot::Sender<Status>),
    /// Which connections there are.
    Connections(oneshot::Sender<Connections>),
    /// What there is to know about its certificates.
    Certificates(oneshot::Sender<Certificates>),
    /// The metrics, as text.
    Metrics(Dialect, oneshot::Sender<String>),
    /// What the request of this id met.
    Explain(String, oneshot::Sender<Explained>),
    /// To begin (true) or end the maintenance of the site that has the name, as it was typed.
    Maintenance(bool, String, oneshot::Sender<Told>),
    /// The window, as HTML.
    Window(oneshot::Sender<String>),
    /// To do something about leases.
    Lease(LeaseWish, oneshot::Sender<LeasesTold>),
    /// To do something with the certificate for a name, as it was typed.
    Certificate(Wish, String, oneshot::Sender<Told>),
    /// To give a target, by the name that was typed, no new requests; with `undo`, to give it some again.
    Drain {
        /// A target, or one of its addresses.
        name: String,
        /// Whether it is to have requests again.
        undo: bool,
        /// What became of it.
        reply: oneshot::Sender<Told>,
    },
    /// To give the account at every CA a new key.
    Rekey(oneshot::Sender<Told>),
}

/// How the edge is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The process.
    pub pid: u32,
    /// Of the program.
    pub version: String,
    /// When it began, RFC 3339 in UTC.
    pub started: String,
    /// The configuration file; None for `vestibule up`.
    pub config: Option<String>,
    /// 1 at the start, one more with every reload.
    pub generation: u64,
    /// How many worker threads there are.
    pub workers: usize,
    /// How many client connections are open.
    pub connections: usize,
    /// The rows that listen, in the order of the file.
    pub rows: Vec<RowStatus>,
    /// The sites by their first names, in the order of the file.
    pub sites: Vec<String>,
    /// Those of them that are in maintenance.
    #[serde(default)]
    pub maintenance: Vec<String>,
    /// What stands behind the sites, by name.
    #[serde(default)]
    pub upstreams: Vec<UpstreamStatus>,
    /// How the last upgrade to another binary that did not succeed ended, or that one is under way.
    #[serde(default)]
    pub upgrade: Option<String>,
    /// Which addresses belong to a source for a while.
    #[serde(default)]
    pub leases: Vec<LeaseStatus>,
}

/// A row that listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowStatus {
    /// Its key in `[ports]`, as typed.
    pub row: String,
    /// `http`, `https` or `forward`.
    pub serve: String,
    /// Where it really listens.
    pub addresses: Vec<String>,
}

/// What became of a reload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// Whether the new configuration runs. Otherwise nothing has changed at all.
    pub ok: bool,
    /// The generation that runs now.
    pub generation: u64,
    /// What the new configuration changed; None when it was refused.
    pub difference: Option<Difference>,
    /// Warnings about the new configuration, ready to be printed; empty when there are none.
    pub warnings: String,
    /// Why it was refused, ready to be printed.
    pub problems: Option<String>,
}

impl Reloaded {
    /// Nothing has changed, for these reasons.
    pub fn refused(generation: u64, problems: String) -> Self {
        Self { ok: false, generation, difference: None, warnings: String::new(), problems: Some(problems) }
    }
}

/// What is different between two configurations.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// Rows of `[ports]`, by their keys.
    pub rows: Changes,
    /// Sites, by their first names.
    pub sites: Changes,
    /// Sources, by their names: a list of addresses that is not the same.
    pub sources: Changes,
    /// Tables that changed, as in `[limits]`.
    pub tables: Vec<String>,
    /// Keys that changed, but whose new value takes a restart.
    pub restart: Vec<String>,
}

/// What came, what went, and what is different.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    /// In the new configuration alone.
    pub added: Vec<String>,
    /// In the old configuration alone.
    pub removed: Vec<String>,
    /// In both, and not the same.
    pub changed: Vec<String>,
}

impl Difference {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl std::fmt::Display for Difference {
    /// One line a change, without a last line feed: `+ site app.example.com`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut lines = Vec::new();
        for (what, changes) in [("row", &self.rows), ("site", &self.sites), ("source", &self.sources)] {
            for (sign, names) in [("+", &changes.added), ("-", &changes.removed), ("~", &changes.changed)] {
                lines.extend(names.iter().map(|name| format!("{sign} {what} {name}")));
            }
        }
        lines.extend(self.tables.iter().map(|table| format!("~ {table}")));
        lines.extend(self.restart.iter().map(|key| format!("! {key} takes a restart")));
        f.write_str(&lines.join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_one_line_a_change() {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let difference = Difference {
            rows: Changes { added: names(&["8443"]), ..Changes::default() },
            sites: Changes {
                added: Vec::new(),
                removed: names(&["a.example.com"]),
                changed: names(&["b.example.com", "c.example.com"]),
            },
            sources: Changes { changed: names(&["abuse"]), ..Changes::default() },
            tables: names(&["[limits]"]),
            restart: names(&["[process] workers"]),
        };
        assert!(!difference.is_empty());
        assert_eq!(
            difference.to_string(),
            "+ row 8443\n- site a.example.com\n~ site b.example.com\n~ site c.example.com\n~ source abuse\n~ [limits]\n\
             ! [process] workers takes a restart"
        );
        assert_eq!(Difference::default().to_string(), "");
    }
}
