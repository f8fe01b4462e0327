//! What a worker counts, and the sum over all workers.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::cells::{Cell, Cells, Durations, Family, Histogram, Numbered, Shown};
use super::labels::Series;
use super::status::{ByStatus, Statuses};
use crate::config::model::Bind;

/// The meters of every worker. Clones are handles of the same ones.
#[derive(Debug, Clone, Default)]
pub struct Metrics(Arc<Mutex<Vec<Shard>>>);

/// One worker's cells, as other threads see them.
#[derive(Debug, Clone, Default)]
struct Shard {
    routes: Shown<Series, RouteCells>,
    faults: Shown<&'static str, Cell>,
    rows: Shown<Bind, RowCells>,
    refused: Shown<(Bind, &'static str), Cell>,
    handshakes: Shown<(&'static str, bool), Cell>,
    failures: Shown<&'static str, Cell>,
    forwards: Shown<Bind, ForwardCells>,
    ends: Shown<(Bind, &'static str), Cell>,
    plain: Arc<Plain>,
}

/// Cells without a label.
#[derive(Debug, Default)]
struct Plain {
    in_flight: Cell,
    retries: Cell,
    refusals: Cell,
}

/// What a worker counts with. It stays on its thread.
#[derive(Debug)]
pub struct Meter {
    routes: Numbered<RouteCells>,
    faults: Family<&'static str, Cell>,
    rows: Family<Bind, RowCells>,
    refused: Family<(Bind, &'static str), Cell>,
    handshakes: Family<(&'static str, bool), Cell>,
    failures: Family<&'static str, Cell>,
    forwards: Family<Bind, ForwardCells>,
    ends: Family<(Bind, &'static str), Cell>,
    plain: Arc<Plain>,
}

/// A request that is over.
#[derive(Debug, Clone, Copy, Default)]
pub struct Measured {
    /// The site and the route that it met.
    pub series: Series,
    /// The status of its answer; 0 for none.
    pub status: u16,
    /// Why it was refused or failed: `Fault::token`.
    pub fault: Option<&'static str>,
    /// From its head to its answer's end; None where it became something else, as a WebSocket.
    pub total: Option<Duration>,
    /// From its head to the head of the upstream's answer.
    pub first_byte: Option<Duration>,
    /// How often it was sent again.
    pub retries: u32,
    /// Octets of its body.
    pub received: u64,
    /// Octets of its answer's body.
    pub sent: u64,
}

/// The requests of one route.
#[derive(Debug, Default)]
struct RouteCells {
    statuses: Statuses,
    total: Histogram,
    first_byte: Histogram,
    received: Cell,
    sent: Cell,
}

/// The requests of one route, of all workers.
#[derive(Debug, Clone, Default)]
pub struct RouteSum {
    /// By the status of their answers.
    pub statuses: ByStatus,
    /// How long they took.
    pub total: Durations,
    /// How long the upstream took to begin its answer.
    pub first_byte: Durations,
    /// Octets of their bodies.
    pub received: u64,
    /// Octets of their answers' bodies.
    pub sent: u64,
}

/// The connections of one row.
#[derive(Debug, Default)]
struct RowCells {
    opened: Cell,
    open: Cell,
}

/// The connections of one row, of all workers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RowSum {
    /// How many were let in since the start.
    pub opened: u64,
    /// How many are open.
    pub open: u64,
}

/// What one row has forwarded.
#[derive(Debug, Default)]
struct ForwardCells {
    received: Cell,
    sent: Cell,
}

/// What one row has forwarded, of all workers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ForwardSum {
    /// Octets from clients.
    pub received: u64,
    /// Octets to clients.
    pub sent: u64,
}

/// Everything that was counted, summed over the workers.
#[derive(Debug, Clone, Default)]
pub struct Reading {
    /// Requests that are over, by site and route.
    pub routes: BTreeMap<Series, RouteSum>,
    /// Requests that were refused or failed, by why.
    pub faults: BTreeMap<&'static str, u64>,
    /// Connections by row.
    pub rows: BTreeMap<Bind, RowSum>,
    /// Connections that were closed unheard, or for a flood of frames, by row and why.
    pub refused: BTreeMap<(Bind, &'static str), u64>,
    /// Handshakes by version, and whether a ticket spared the certificate.
    pub handshakes: BTreeMap<(&'static str, bool), u64>,
    /// Handshakes that failed, by why.
    pub failures: BTreeMap<&'static str, u64>,
    /// Octets forwarded, by row.
    pub forwards: BTreeMap<Bind, ForwardSum>,
    /// Forwarded connections that ended, by row and why.
    pub ends: BTreeMap<(Bind, &'static str), u64>,
    /// Requests that are not over.
    pub in_flight: u64,
    /// How often requests were sent to an upstream again.
    pub retries: u64,
    /// Requests that were refused: neither the upstream's failure, nor the client's having left.
    pub refusals: u64,
}

impl Metrics {
    /// Another worker's meter.
    pub fn meter(&self) -> Meter {
        let shard = Shard::default();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(shard.clone());
        Meter {
            routes: Numbered::new(&shard.routes),
            faults: Family::new(&shard.faults),
            rows: Family::new(&shard.rows),
            refused: Family::new(&shard.refused),
            handshakes: Family::new(&shard.handshakes),
            failures: Family::new(&shard.failures),
            forwards: Family::new(&shard.forwards),
            ends: Family::new(&shard.ends),
            plain: shard.plain,
        }
    }

    /// What all workers have counted until now. Each number is true of its own moment.
    pub fn read(&self) -> Reading {
        let shards = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut sum = Reading::default();
        for shard in &shards {
            shard.routes.add_to(&mut sum.routes);
            shard.faults.add_to(&mut sum.faults);
            shard.rows.add_to(&mut sum.rows);
            shard.refused.add_to(&mut sum.refused);
            shard.handshakes.add_to(&mut sum.handshakes);
            shard.failures.add_to(&mut sum.failures);
            shard.forwards.add_to(&mut sum.forwards);
            shard.ends.add_to(&mut sum.ends);
            shard.plain.in_flight.add_to(&mut sum.in_flight);
            shard.plain.retries.add_to(&mut sum.retries);
            shard.plain.refusals.add_to(&mut sum.refusals);
        }
        sum
    }
}

impl Meter {
    /// A request has begun.
    pub fn begin(&self) {
        self.plain.in_flight.add(1);
    }

    /// A request that had begun is over.
    pub fn end(&self, measured: &Measured) {
        self.plain.in_flight.sub(1);
        self.routes.with(measured.series, |cells| cells.count(measured));
        if let Some(fault) = measured.fault {
            self.faults.of(fault).add(1);
            if measured.status < 499 {
                self.plain.refusals.add(1);
            }
        }
        if measured.retries > 0 {
            self.plain.retries.add(measured.retries.into());
        }
    }

    /// A connection was let in on a row; it counts as open until the answer is dropped.
    pub fn connection(&self, row: Bind) -> Open {
        let cells = self.rows.of(row);
        cells.opened.add(1);
        cells.open.add(1);
        Open { cells, _own: std::marker::PhantomData }
    }

    /// A connection was closed unheard, or for a flood of frames, in one word why.
    pub fn refused(&self, row: Bind, why: &'static str) {
        self.refused.of((row, why)).add(1);
    }

    /// A handshake was finished, with this version, by a ticket or in full.
    pub fn handshake(&self, version: &'static str, resumed: bool) {
        self.handshakes.of((version, resumed)).add(1);
    }

    /// A handshake was refused, in one word why.
    pub fn handshake_failed(&self, why: &'static str) {
        self.failures.of(why).add(1);
    }

    /// What a row forwards is counted by the answer.
    pub fn forwarding(&self, row: Bind) -> Forwarding {
        Forwarding { cells: self.forwards.of(row), _own: std::marker::PhantomData }
    }

    /// A forwarded connection has ended, in one word why.
    pub fn forward_ended(&self, row: Bind, why: &'static str) {
        self.ends.of((row, why)).add(1);
    }
}

impl RouteCells {
    fn count(&self, measured: &Measured) {
        self.statuses.count(measured.status);
        self.received.add(measured.received);
        self.sent.add(measured.sent);
        if let Some(total) = measured.total {
            self.total.observe(total);
        }
        if let Some(first_byte) = measured.first_byte {
            self.first_byte.observe(first_byte);
        }
    }
}

impl Cells for RouteCells {
    type Sum = RouteSum;

    fn add_to(&self, sum: &mut RouteSum) {
        self.statuses.add_to(&mut sum.statuses);
        self.total.add_to(&mut sum.total);
        self.first_byte.add_to(&mut sum.first_byte);
        self.received.add_to(&mut sum.received);
        self.sent.add_to(&mut sum.sent);
    }
}

impl Cells for ForwardCells {
    type Sum = ForwardSum;

    fn add_to(&self, sum: &mut ForwardSum) {
        self.received.add_to(&mut sum.received);
        self.sent.add_to(&mut sum.sent);
    }
}

impl Cells for RowCells {
    type Sum = RowSum;

    fn add_to(&self, sum: &mut RowSum) {
        self.opened.add_to(&mut sum.opened);
        self.open.add_to(&mut sum.open);
    }
}

/// A connection that counts as open. It stays on its worker's thread.
#[derive(Debug)]
#[must_use = "the connection counts as closed when this is dropped"]
pub struct Open {
    cells: Arc<RowCells>,
    _own: std::marker::PhantomData<Rc<()>>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.cells.open.sub(1);
    }
}

/// Counts what a row forwards. It stays on its worker's thread.
#[derive(Debug)]
pub struct Forwarding {
    cells: Arc<ForwardCells>,
    _own: std::marker::PhantomData<Rc<()>>,
}

impl Forwarding {
    /// So many octets came from a client.
    pub fn received(&self, octets: u64) {
        self.cells.received.add(octets);
    }

    /// So many octets went to a client.
    pub fn sent(&self, octets: u64) {
        self.cells.sent.add(octets);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_summed_up() {
        let metrics = Metrics::default();
        let row = Bind::All(443);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let meter = metrics.meter();
                    let open = meter.connection(row);
                    for status in [200, 200, 502] {
                        meter.begin();
                        meter.end(&Measured {
                            status,
                            fault: (status == 502).then_some("unreachable"),
                            total: Some(Duration::from_millis(3)),
                            sent: 10,
                            ..Measured::default()
                        });
                    }
                    meter.handshake("TLSv1.3", false);
                    meter.refused(row, "address");
                    meter.begin();
                    drop(open);
                    std::mem::forget(meter.connection(row));
                });
            }
        });
        let sum = metrics.read();
        let route = &sum.routes[&Series::NONE];
        assert_eq!(route.statuses.each().collect::<Vec<_>>(), [("200".into(), 6), ("502".into(), 3)]);
        assert_eq!((route.total.count(), route.sent, route.first_byte.count()), (9, 90, 0));
        assert_eq!((sum.faults["unreachable"], sum.rows[&row]), (3, RowSum { opened: 6, open: 3 }));
        assert_eq!((sum.refused[&(row, "address")], sum.handshakes[&("TLSv1.3", false)]), (3, 3));
        assert_eq!(sum.in_flight, 3);
    }
}
