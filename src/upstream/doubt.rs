//! Whether a member is about to leave.
//!
//! A server that stops answers what comes on connections that it has, each time with `Connection: close`, and takes new ones
//! only into a queue that it will never look into again: what is sent there is lost, and nobody can tell that it was never
//! read. So after such an answer of a member that kept connections before, what must not be sent twice waits before it
//! goes on a new connection: until another answer keeps its connection (a single worker has retired), until the member
//! takes no more connections (then `hold` is for it), or until enough time is over.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::timeout;

/// How long a doubt lasts. gunicorn keeps idle connections, and its queue, for two seconds when it is told to stop.
const LASTS: Duration = Duration::from_millis(2500);
/// How long one doubt is renewed by answers that close. A server that stops is gone by then; another closes as it likes.
const RENEWED: Duration = Duration::from_secs(10);
/// When an answer that closes begins another doubt, after the last one of the doubt before, in milliseconds.
const STALE: u64 = 5000;
/// After so many doubts in a row that nothing came of there are no more: the member closes connections as it likes.
const VAIN: u32 = 2;

/// What is known of one member.
#[derive(Debug, Default)]
pub(super) struct Doubt {
    /// Whether it ever kept a connection.
    keeps: AtomicBool,
    /// When the doubt began or was renewed, in milliseconds of the process; 0: there is none.
    since: AtomicU64,
    /// When it began.
    first: AtomicU64,
    /// Doubts in a row that nothing came of.
    vain: AtomicU32,
    settled: Notify,
}

impl Doubt {
    /// The doubt of this moment, for [`Doubt::kept`].
    pub(super) fn now(&self) -> u64 {
        self.since.load(Ordering::Relaxed)
    }

    /// A request that was begun under this doubt got an answer that keeps its connection.
    pub(super) fn kept(&self, doubt: u64) {
        if !self.keeps.load(Ordering::Relaxed) {
            self.keeps.store(true, Ordering::Relaxed);
        }
        if doubt != 0 && self.now() == doubt {
            self.settle();
        }
    }

    /// An answer closed its connection.
    pub(super) fn closed(&self) {
        self.closed_at(uptime());
    }

    fn closed_at(&self, now: u64) {
        if !self.keeps.load(Ordering::Relaxed) || self.vain.load(Ordering::Relaxed) >= VAIN {
            return;
        }
        // Whoever waits for a doubt has ended it long before that.
        if now.saturating_sub(self.now()) > STALE {
            self.first.store(now, Ordering::Relaxed);
        }
        let lasted = Duration::from_millis(now.saturating_sub(self.first.load(Ordering::Relaxed)));
        if lasted < RENEWED {
            self.since.store(now, Ordering::Relaxed);
        }
    }

    /// It takes no connections, or takes them again: there was something in it.
    pub(super) fn confirm(&self) {
        self.vain.store(0, Ordering::Relaxed);
        // Who comes in its place may close every connection.
        self.keeps.store(false, Ordering::Relaxed);
        self.settle();
    }

    pub(super) fn is_there(&self) -> bool {
        self.now() != 0
    }

    /// Waits until it is over.
    pub(super) async fn wait(&self) {
        let settled = self.settled.notified();
        let since = self.now();
        if since == 0 {
            return;
        }
        let left = (Duration::from_millis(since) + LASTS).saturating_sub(Duration::from_millis(uptime()));
        let over = timeout(left, settled).await.is_err();
        // What began anew meanwhile goes on.
        if over && self.since.compare_exchange(since, 0, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.vain.fetch_add(1, Ordering::Relaxed);
            self.settled.notify_waiters();
        }
    }

    fn settle(&self) {
        self.since.store(0, Ordering::Relaxed);
        self.settled.notify_waiters();
    }
}

/// In milliseconds; never 0.
fn uptime() -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(START.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_not_renewed_for_ever() {
        let doubt = Doubt::default();
        doubt.kept(0);
        for (now, since) in [
            (6000, 6000),
            (9000, 9000),
            (13_000, 13_000),
            (15_999, 15_999),
            (16_000, 15_999),
            (20_000, 15_999),
            (21_000, 21_000),
            (25_000, 25_000),
        ] {
            doubt.closed_at(now);
            assert_eq!(doubt.now(), since);
        }
        doubt.settle();
        doubt.closed_at(25_001);
        assert_eq!(doubt.now(), 25_001);
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_with_a_proof_or_by_itself() {
        let doubt = Doubt::default();
        doubt.closed();
        assert!(!doubt.is_there(), "one that never keeps a connection tells nothing by closing one");
        doubt.kept(doubt.now());
        doubt.closed();
        let before = doubt.now();
        assert!(doubt.is_there());
        doubt.kept(0);
        assert!(doubt.is_there(), "a request from before the doubt proves nothing");
        tokio::join!(doubt.wait(), async { doubt.kept(before) });
        assert!(!doubt.is_there());
        for left in [true, true, false] {
            doubt.closed();
            assert_eq!(doubt.is_there(), left);
            doubt.wait().await;
            assert!(!doubt.is_there());
        }
        doubt.confirm();
        doubt.closed();
        assert!(!doubt.is_there(), "another may be in its place");
        doubt.kept(0);
        doubt.closed();
        assert!(doubt.is_there());
    }
}
