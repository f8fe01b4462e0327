//! Connections, as a person asks about them.

use std::future::Future;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::workers::LISTED;
use crate::admin::connections::{Connection, Connections};
use crate::lobby::{Guest, Stage, oldest};
use crate::observe::metrics::Labels;
use crate::snapshot::Snapshot;

/// What several sets of workers tell of their connections.
pub(super) async fn list<F>(told: Vec<F>, snapshot: &Snapshot) -> Connections
where
    F: Future<Output = (usize, Vec<Guest>)>,
{
    let (mut total, mut guests) = (0, Vec::new());
    for told in told {
        let (count, some) = told.await;
        total += count;
        guests.extend(some);
    }
    let labels = snapshot.table.labels();
    let connections = oldest(guests, LISTED).iter().map(|guest| connection(guest, labels)).collect();
    Connections { total, connections }
}

fn connection(guest: &Guest, labels: &Labels) -> Connection {
    let (site, _) = labels.names(guest.series);
    let since = OffsetDateTime::from(guest.since);
    let since = since.replace_nanosecond(0).unwrap_or(since);
    Connection {
        client: guest.client.to_string(),
        row: guest.row.to_string(),
        protocol: guest.stage.token().to_owned(),
        site: (!site.is_empty()).then(|| site.to_owned()),
        since: since.format(&Rfc3339).unwrap_or_default(),
        requests: (guest.stage != Stage::Forward).then_some(guest.requests),
    }
}
