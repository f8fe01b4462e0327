//! A worker's idle connections.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use tokio::time::Instant;

use super::balance::Dice;
use super::conn::Conn;
use super::member::Member;
use crate::tls::upstream::ClientTls;

/// The most idle connections that are kept for one member, a worker.
const MOST: usize = 256;

/// A worker's connections to all its upstreams, and the means to make more. Clones share them.
#[derive(Clone)]
pub struct Pools(Rc<Inner>);

struct Inner {
    lanes: RefCell<HashMap<u64, Rc<Lane>, BuildHasherDefault<Plain>>>,
    dice: Dice,
    tls: ClientTls,
    /// Which of a member's counters is this worker's.
    shard: usize,
}

/// A worker's way to one member.
pub(super) struct Lane {
    pub(super) member: Arc<Member>,
    /// The member's address: counted by this worker alone.
    pub(super) peer: Arc<str>,
    /// The one that was used last is last.
    idle: RefCell<Vec<Conn>>,
    shard: usize,
}

/// A request in a member's count.
pub(super) struct Busy(pub(super) Rc<Lane>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.member.end(self.0.shard);
    }
}

/// Members outlive workers, so that what is noted of them is by one clock.
static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);

impl Pools {
    /// Empty pools. Call it on the worker's own runtime.
    pub fn new() -> Self {
        static WORKERS: AtomicUsize = AtomicUsize::new(0);
        Self(Rc::new(Inner {
            lanes: RefCell::default(),
            dice: Dice::new(),
            tls: ClientTls::default(),
            shard: WORKERS.fetch_add(1, Ordering::Relaxed),
        }))
    }

    /// Closes what has lain idle too long, or leads to who is no longer there. Called every second or so.
    pub fn sweep(&self) {
        let now = Instant::now();
        self.0.lanes.borrow_mut().retain(|_, lane| {
            lane.sweep(now);
            // A request that is on its way holds its lane, and gives its connection back to it.
            Rc::strong_count(lane) > 1 || !lane.idle.borrow().is_empty()
        });
    }

    pub(super) fn dice(&self) -> &Dice {
        &self.0.dice
    }

    pub(super) fn tls(&self) -> &ClientTls {
        &self.0.tls
    }

    /// The worker's way to a member.
    pub(super) fn lane(&self, member: &Arc<Member>) -> Rc<Lane> {
        let mut lanes = self.0.lanes.borrow_mut();
        let lane = lanes.entry(member.id).or_insert_with(|| {
            let (member, peer) = (Arc::clone(member), member.peer.as_str().into());
            Rc::new(Lane { member, peer, idle: RefCell::default(), shard: self.0.shard })
        });
        Rc::clone(lane)
    }
}

impl Default for Pools {
    fn default() -> Self {
        Self::new()
    }
}

impl Lane {
    /// The connection that was used last and is still good. What must not be sent twice gets none while the member closes
    /// connections that should have lived.
    pub(super) fn take(&self, may_go_twice: bool) -> Option<Conn> {
        let mut idle = self.idle.borrow_mut();
        let mut conn = idle.pop()?;
        let now = Instant::now();
        if !may_go_twice && self.member.idle.is_restless(now - *BEGAN) {
            idle.push(conn);
            return None;
        }
        loop {
            let age = now.duration_since(conn.idle_since);
            if age >= self.member.idle.limit() {
                // The youngest of those that are left: the sweep learns from it.
                idle.push(conn);
                return None;
            }
            if conn.socket.is_quiet() {
                conn.reused = true;
                return Some(conn);
            }
            self.member.idle.closed(age, now - *BEGAN);
            conn = idle.pop()?;
        }
    }

    pub(super) fn put(&self, mut conn: Conn) {
        if self.member.is_leaving() {
            return;
        }
        conn.idle_since = Instant::now();
        conn.deadline.clear();
        conn.buffer = bytes::BytesMut::new();
        let mut idle = self.idle.borrow_mut();
        if idle.len() < MOST {
            idle.push(conn);
        }
    }

    /// Counts a request for as long as it lives.
    pub(super) fn begin(self: &Rc<Self>) -> Busy {
        self.member.begin(self.shard);
        Busy(Rc::clone(self))
    }

    /// A reused connection ended before it brought an answer.
    pub(super) fn failed_reuse(&self, idle_since: Instant) {
        let now = Instant::now();
        self.member.idle.closed(now - idle_since, now - *BEGAN);
    }

    fn sweep(&self, now: Instant) {
        let mut idle = self.idle.borrow_mut();
        if self.member.is_leaving() {
            return idle.clear();
        }
        let (limit, witness) = (self.member.idle.limit(), self.member.idle.witness());
        let mut oldest = Duration::ZERO;
        idle.retain_mut(|conn| {
            let age = now.duration_since(conn.idle_since);
            let quiet = conn.socket.is_quiet();
            if quiet {
                oldest = oldest.max(age);
            } else {
                self.member.idle.closed(age, now - *BEGAN);
            }
            quiet && age < witness
        });
        self.member.idle.outlived(oldest);
        // One of those that are too old to be used stays and shows how long it lives.
        let old = idle.iter().take_while(|conn| now.duration_since(conn.idle_since) >= limit).count();
        idle.drain(..old.saturating_sub(1));
    }
}

/// Ids are spread well enough as they are.
#[derive(Default)]
struct Plain(u64);

impl Hasher for Plain {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, octets: &[u8]) {
        for octet in octets {
            self.0 = self.0 << 8 | u64::from(*octet);
        }
    }

    fn write_u64(&mut self, id: u64) {
        // The table looks at the highest bits and at the lowest.
        self.0 = id.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}
