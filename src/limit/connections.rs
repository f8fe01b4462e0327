//! How many connections are open: in all, on one row, from one client.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::network;
use crate::addr::ClientAddr;
use crate::config::model::Bind;

/// The open connections of every worker. Clones count together.
#[derive(Debug, Clone, Default)]
pub struct Connections {
    total: Count,
    rows: Arc<Mutex<HashMap<Bind, RowCount>>>,
    clients: Arc<Clients>,
}

/// The open connections of one row. Clones count together; a row that outlives a reload takes its count along.
#[derive(Debug, Clone, Default)]
pub struct RowCount {
    total: Count,
    clients: Arc<Clients>,
}

/// How many connections may be open, as the configuration of the moment says.
#[derive(Debug, Clone, Copy)]
pub struct Ceilings {
    /// In all.
    pub total: usize,
    /// On the row.
    pub row: Option<usize>,
    /// From one client: an IPv4 address, or an IPv6 /64, for whoever has one address of it has them all.
    pub client: Option<usize>,
    /// From one client on the row.
    pub row_client: Option<usize>,
}

/// The ceiling that a connection would have broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// [`Ceilings::total`]
    #[error("the edge has as many connections as it may")]
    Total,
    /// [`Ceilings::row`]
    #[error("the row has as many connections as it may")]
    Row,
    /// [`Ceilings::client`]
    #[error("the client has as many connections as it may")]
    Client,
    /// [`Ceilings::row_client`]
    #[error("the client has as many connections as it may on the row")]
    RowClient,
}

impl Full {
    /// One word for metrics.
    pub fn token(self) -> &'static str {
        match self {
            Self::Total => "connections",
            Self::Row => "max_connections",
            Self::Client => "connections_per_client",
            Self::RowClient => "max_connections_per_client",
        }
    }
}

/// A counted connection, until it is dropped.
#[derive(Debug)]
#[must_use = "the connection counts as closed when this is dropped"]
pub struct Guard {
    _total: Slot,
    _row: Slot,
    _clients: [Option<ClientSlot>; 2],
}

impl Connections {
    /// Counts a connection. Without a ceiling for clients they are not told apart: what is open then does not count
    /// against one that a reload brings.
    ///
    /// # Errors
    /// The ceiling that is met; nothing is counted then.
    pub fn try_open(&self, client: ClientAddr, row: &RowCount, ceilings: Ceilings) -> Result<Guard, Full> {
        let total = self.total.take(ceilings.total).ok_or(Full::Total)?;
        let slot = row.total.take(ceilings.row.unwrap_or(usize::MAX)).ok_or(Full::Row)?;
        let one = |clients, ceiling: Option<usize>, full| match ceiling {
            Some(ceiling) => ClientSlot::take(clients, client, ceiling).map(Some).ok_or(full),
            None => Ok(None),
        };
        let clients = [
            one(&self.clients, ceilings.client, Full::Client)?,
            one(&row.clients, ceilings.row_client, Full::RowClient)?,
        ];
        Ok(Guard { _total: total, _row: slot, _clients: clients })
    }

    /// How many are open.
    pub fn open(&self) -> usize {
        self.total.get()
    }

    /// The count of the row that listens there, the same one before and after a reload.
    pub fn row(&self, bind: Bind) -> RowCount {
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        rows.entry(bind).or_default().clone()
    }
}

impl RowCount {
    /// How many are open on the row.
    pub fn open(&self) -> usize {
        self.total.get()
    }
}

#[derive(Debug, Clone, Default)]
struct Count(Arc<AtomicUsize>);

impl Count {
    fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Never lets the count past the ceiling, not even for a moment that another worker could see.
    fn take(&self, ceiling: usize) -> Option<Slot> {
        let more = |count| if count < ceiling { Some(count + 1) } else { None };
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Slot(self.clone()))
    }
}

/// One of a count.
#[derive(Debug)]
struct Slot(Count);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts by client, in shards so that workers seldom meet at a lock; a client without a connection has no entry.
#[derive(Debug, Default)]
struct Clients {
    shards: [Mutex<HashMap<IpAddr, usize>>; SHARDS],
    hasher: RandomState,
}

const SHARDS: usize = 16;

impl Clients {
    fn shard(&self, key: IpAddr) -> Option<MutexGuard<'_, HashMap<IpAddr, usize>>> {
        let [low, ..] = self.hasher.hash_one(key).to_le_bytes();
        // A thread that panicked while it held a count left it whole.
        let shard = self.shards.get(usize::from(low) % SHARDS);
        shard.map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One of a client's count.
#[derive(Debug)]
struct ClientSlot {
    clients: Arc<Clients>,
    key: IpAddr,
}

impl ClientSlot {
    fn take(clients: &Arc<Clients>, client: ClientAddr, ceiling: usize) -> Option<Self> {
        let key = network(client);
        let mut shard = clients.shard(key)?;
        let count = shard.get(&key).copied().unwrap_or_default();
        if count >= ceiling {
            return None;
        }
        shard.insert(key, count + 1);
        Some(Self { clients: Arc::clone(clients), key })
    }
}

impl Drop for ClientSlot {
    fn drop(&mut self) {
        let Some(mut shard) = self.clients.shard(self.key) else { return };
        match shard.get_mut(&self.key) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                shard.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: Ceilings = Ceilings { total: usize::MAX, row: None, client: None, row_client: None };

    fn client(ip: &str) -> ClientAddr {
        ClientAddr::new(ip.parse().unwrap())
    }

    #[test]
    fn each_ceiling_holds_and_a_closed_connection_makes_room() {
        let alice = client("192.0.2.1");
        for (ceilings, full) in [
            (Ceilings { total: 2, ..OPEN }, Full::Total),
            (Ceilings { row: Some(2), ..OPEN }, Full::Row),
            (Ceilings { client: Some(2), ..OPEN }, Full::Client),
            (Ceilings { row_client: Some(2), ..OPEN }, Full::RowClient),
        ] {
            let (connections, row) = (Connections::default(), RowCount::default());
            let first = connections.try_open(alice, &row, ceilings).unwrap();
            let second = connections.try_open(alice, &row, ceilings).unwrap();
            assert_eq!(connections.try_open(alice, &row, ceilings).unwrap_err(), full);
            assert_eq!((connections.open(), row.open()), (2, 2));
            drop(first);
            let third = connections.try_open(alice, &row, ceilings).unwrap();
            drop((second, third));
            assert_eq!((connections.open(), row.open()), (0, 0));
        }
    }

    #[test]
    fn rows_and_clients_are_counted_apart() {
        let (connections, http, https) = (Connections::default(), RowCount::default(), RowCount::default());
        let ceilings = Ceilings { row: Some(2), client: Some(1), ..OPEN };
        let mut guards = Vec::new();
        for (row, ip, full) in [
            (&http, "192.0.2.1", None),
            (&http, "192.0.2.1", Some(Full::Client)),
            (&https, "::ffff:192.0.2.1", Some(Full::Client)),
            (&http, "192.0.2.2", None),
            (&http, "192.0.2.3", Some(Full::Row)),
            (&https, "2001:db8:0:1::1", None),
            (&https, "2001:db8:0:1:ffff::2", Some(Full::Client)),
            (&https, "2001:db8:0:2::1", None),
        ] {
            let result = connections.try_open(client(ip), row, ceilings);
            assert_eq!(result.as_ref().err().copied(), full, "{ip}");
            guards.extend(result);
        }
        assert_eq!(connections.open(), 4);
    }

    #[test]
    fn ceilings_may_change_between_calls() {
        let (connections, row, alice) = (Connections::default(), RowCount::default(), client("192.0.2.1"));
        let uncounted = connections.try_open(alice, &row, OPEN).unwrap();
        let counted = connections.try_open(alice, &row, Ceilings { client: Some(1), ..OPEN }).unwrap();
        let lower = Ceilings { total: 1, ..OPEN };
        assert_eq!(connections.try_open(alice, &row, lower).unwrap_err(), Full::Total);
        drop((uncounted, counted));
        assert!(connections.try_open(alice, &row, lower).is_ok());
    }

    #[test]
    fn no_client_is_remembered_once_it_is_gone() {
        let (connections, row) = (Connections::default(), RowCount::default());
        let ceilings = Ceilings { client: Some(1), ..OPEN };
        let guards: Vec<_> = (0..=255_u8)
            .map(|n| ClientAddr::new([192, 0, 2, n].into()))
            .map(|client| connections.try_open(client, &row, ceilings).unwrap())
            .collect();
        drop(guards);
        assert!(connections.clients.shards.iter().all(|shard| shard.lock().unwrap().is_empty()));
    }

    #[test]
    fn workers_never_pass_a_ceiling_together() {
        let (connections, row, alice) = (Connections::default(), RowCount::default(), client("192.0.2.1"));
        let ceilings = Ceilings { total: 3, row: Some(3), client: Some(2), row_client: None };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        let guard = connections.try_open(alice, &row, ceilings);
                        assert!(connections.open() <= 3 && row.open() <= 3);
                        drop(guard);
                    }
                });
            }
        });
        assert_eq!((connections.open(), row.open()), (0, 0));
    }
}
