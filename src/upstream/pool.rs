//! A worker's idle connections.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use super::conn::Conn;
use super::dial::Dialer;

/// How long a connection may lie idle and still be used. gunicorn's threaded workers close theirs after two seconds.
const IDLE: Duration = Duration::from_millis(1800);
/// The most idle connections that are kept for one target, a worker.
const MOST: usize = 256;

/// Which target of which upstream a connection leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) upstream: u64,
    pub(super) target: usize,
}

/// A worker's connections to all its upstreams, and the means to make more. Clones share them.
#[derive(Clone)]
pub struct Pools(Rc<Inner>);

struct Inner {
    idle: RefCell<HashMap<Key, Vec<Conn>>>,
    dialer: Dialer,
}

impl Pools {
    /// Empty pools. Call it on the worker's own runtime.
    pub fn new() -> Self {
        Self(Rc::new(Inner { idle: RefCell::default(), dialer: Dialer::default() }))
    }

    /// Closes what has lain idle too long. Called every second or so.
    pub fn sweep(&self) {
        let now = Instant::now();
        self.0.idle.borrow_mut().retain(|_, idle| {
            idle.retain_mut(|conn| now.duration_since(conn.idle_since) < IDLE && conn.io.is_quiet());
            !idle.is_empty()
        });
    }

    pub(super) fn dialer(&self) -> &Dialer {
        &self.0.dialer
    }

    /// The connection that was used last and is still good.
    pub(super) fn take(&self, key: Key) -> Option<Conn> {
        let mut pools = self.0.idle.borrow_mut();
        let idle = pools.get_mut(&key)?;
        let now = Instant::now();
        while let Some(mut conn) = idle.pop() {
            if now.duration_since(conn.idle_since) >= IDLE {
                // The last one used is the youngest: the others are older still.
                idle.clear();
                return None;
            }
            if conn.io.is_quiet() {
                conn.reused = true;
                return Some(conn);
            }
        }
        None
    }

    pub(super) fn put(&self, mut conn: Conn) {
        conn.idle_since = Instant::now();
        conn.deadline.clear();
        conn.buffer = bytes::BytesMut::new();
        let mut pools = self.0.idle.borrow_mut();
        let idle = pools.entry(conn.key).or_default();
        if idle.len() < MOST {
            idle.push(conn);
        }
    }
}

impl Default for Pools {
    fn default() -> Self {
        Self::new()
    }
}
