//! What stands behind the edge: targets, pools, and sending.
//!
//! A request's way out: [`Upstream::call`] takes a [`Permit<Route>`], finds an idle connection or dials a
//! target, and gives back the head of the answer and a [`Call`] from which its body is read. Everything happens in the
//! task of the client's connection: there is no task for an upstream connection, and no channel.

mod balance;
mod call;
mod conn;
mod dial;
mod pool;
mod resolve;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use tokio::time::{Instant, sleep};

use balance::{Busy, Targets};
pub use call::{Answer, Call, Chunk};
use conn::Conn;
pub use conn::Io;
pub use pool::Pools;

use crate::addr::{Permit, Route};
use crate::config::model::Proxy;
use crate::fault::Fault;
use crate::wire::Body;

/// How long a request that is held waits before it looks for a target again, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// One upstream of the configuration. Workers share it, each with connections of its own.
#[derive(Debug)]
pub struct Upstream {
    proxy: Proxy,
    id: u64,
    targets: Targets,
    disk: Arc<DiskBudget>,
}

/// What the bodies of one upstream's exchanges may take of the disk, together, in octets.
#[derive(Debug)]
pub struct DiskBudget {
    left: AtomicU64,
}

impl DiskBudget {
    /// Takes some of it; false where less than `reserve` would be left.
    pub fn take(&self, octets: u64, reserve: u64) -> bool {
        let less = |left: u64| left.checked_sub(octets).filter(|left| *left >= reserve);
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }

    /// Gives back what was taken.
    pub fn give_back(&self, octets: u64) {
        self.left.fetch_add(octets, Ordering::Relaxed);
    }
}

/// A request on its way out.
pub struct Outgoing {
    /// The head as it goes over the wire, with its empty line.
    pub head: Bytes,
    /// The body, if there is one.
    pub body: Option<Body>,
    /// Whether the body is sent in chunks; otherwise the head has its length.
    pub chunked: bool,
    /// The method, which says how the answer is framed and whether the request may be sent twice.
    pub method: Method,
    /// Makes the body once more, where it was kept.
    pub again: Option<Box<dyn Fn() -> Body>>,
    /// Whether the answer may be a 101.
    pub upgrade: bool,
}

/// What is known of a call for the access line, however it ends.
#[derive(Debug, Clone, Default)]
pub struct Trace {
    /// The address of the last target that was tried.
    pub peer: Option<Arc<str>>,
    /// What connecting took; None on a pooled connection.
    pub connect: Option<Duration>,
    /// From the request's beginning to the head of the final answer.
    pub first_byte: Option<Duration>,
    /// How often the request was sent.
    pub tries: u32,
}

impl Upstream {
    /// A new upstream, with no connections yet.
    pub fn new(proxy: &Proxy) -> Arc<Self> {
        static IDS: AtomicU64 = AtomicU64::new(0);
        let id = IDS.fetch_add(1, Ordering::Relaxed);
        let disk = Arc::new(DiskBudget { left: AtomicU64::new(proxy.buffers.disk) });
        Arc::new(Self {
            proxy: proxy.clone(),
            id,
            targets: Targets::new(proxy.targets.len(), proxy.balance),
            disk,
        })
    }

    /// What its exchanges have on disk just now, in octets.
    pub fn on_disk(&self) -> u64 {
        self.proxy.buffers.disk.saturating_sub(self.disk.left.load(Ordering::Relaxed))
    }

    /// What its exchanges may put on disk.
    pub fn disk(&self) -> &Arc<DiskBudget> {
        &self.disk
    }

    /// What the configuration says of it.
    pub fn proxy(&self) -> &Proxy {
        &self.proxy
    }

    /// Sends a request and waits for the first head of the answer, which may be an interim one.
    ///
    /// Where the connection ends without a byte of an answer, the request goes again on a fresh one, if sending it twice
    /// is safe (RFC 9110 section 9.2.2) or nothing of it was sent: once for nothing where the connection was a pooled
    /// one, `retries` times where it was fresh. A request that kills its worker is not tried on the whole pool.
    pub async fn call(
        &self,
        permit: Permit<Route>,
        pools: &Pools,
        mut outgoing: Outgoing,
        trace: &mut Trace,
    ) -> Result<(Answer, Call), Fault> {
        let mut retries = self.proxy.retries;
        let mut pooled = true;
        loop {
            let (conn, busy) = self.connection_in_time(permit, pools, pooled, trace).await?;
            let fresh = !conn.reused;
            trace.tries += 1;
            let mut call = Call::new(conn, busy, pools.clone(), self.proxy.response_timeout, outgoing);
            match call.head().await {
                Ok(answer) => return Ok((answer, call)),
                Err(fault @ Fault::Unanswered { .. }) => {
                    let left = if fresh { retries.checked_sub(1) } else { Some(retries) };
                    let (Some(left), Some(again)) = (left, call.take_back()) else { return Err(fault) };
                    (retries, outgoing, pooled) = (left, again, false);
                }
                Err(fault) => return Err(fault),
            }
        }
    }

    /// A connection as soon as a target takes one: while none does, a deploy most often, the request waits up to `hold`.
    async fn connection_in_time(
        &self,
        permit: Permit<Route>,
        pools: &Pools,
        pooled: bool,
        trace: &mut Trace,
    ) -> Result<(Conn, Busy), Fault> {
        let mut pause = FIRST_PAUSE;
        let start = Instant::now();
        loop {
            let fault = match self.connection(permit, pools, pooled, trace).await {
                Err(fault) if fault.never_sent() && !self.proxy.hold.is_zero() => fault,
                settled => return settled,
            };
            let left = self.proxy.hold.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Err(Fault::Down { source: Box::new(fault) });
            }
            sleep(pause.min(left)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// A pooled connection or a fresh one, to the best target that takes it.
    async fn connection(
        &self,
        permit: Permit<Route>,
        pools: &Pools,
        pooled: bool,
        trace: &mut Trace,
    ) -> Result<(Conn, Busy), Fault> {
        let mut last = Fault::Unavailable("the upstream has no target");
        for index in self.targets.in_order() {
            let Some(target) = self.proxy.targets.get(index) else { continue };
            let key = pool::Key { upstream: self.id, target: index };
            if let Some(conn) = pooled.then(|| pools.take(key)).flatten() {
                trace.peer = Some(conn.peer.clone());
                trace.connect = None;
                return Ok((conn, self.targets.begin(index)));
            }
            let start = Instant::now();
            // Boxed: dialing is rare, and its state is larger than all the rest of a request's.
            let dialing =
                Box::pin(pools.dialer().dial(permit, target, key, self.proxy.connect_timeout, trace));
            let dialed = dialing.await;
            trace.connect = Some(start.elapsed());
            self.targets.note(index, dialed.is_ok());
            match dialed {
                Ok(conn) => return Ok((conn, self.targets.begin(index))),
                Err(fault) => last = fault,
            }
        }
        Err(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reserved_is_left() {
        let budget = DiskBudget { left: AtomicU64::new(10) };
        assert!(budget.take(5, 5) && !budget.take(1, 5) && budget.take(5, 0) && !budget.take(1, 0));
        budget.give_back(6);
        assert!(budget.take(1, 5));
    }
}
