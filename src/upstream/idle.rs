//! How long a member keeps idle connections, learnt from what it does.
//!
//! A connection that the member is about to close must not carry a request. So the limit begins below that of gunicorn's
//! threaded workers, 2 s, and grows only by what was seen: one idle connection is left alone beyond the limit, as a
//! witness, and what it outlives is proof. A close that comes sooner shrinks the limit at once.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// In milliseconds: the first limit, the least and the most.
const FIRST: u32 = 1800;
const LEAST: u32 = 200;
const MOST: u32 = 60_000;
/// How long a close that nobody expected is remembered.
const UNREST: Duration = Duration::from_mins(1);

/// What is known of one member.
#[derive(Debug)]
pub(super) struct Idle {
    limit: AtomicU32,
    /// When a connection was last closed that should have lived, in seconds of the process; 0: never.
    unrest: AtomicU32,
}

impl Default for Idle {
    fn default() -> Self {
        Self { limit: AtomicU32::new(FIRST), unrest: AtomicU32::new(0) }
    }
}

impl Idle {
    /// How long a connection may lie idle and still be used.
    pub(super) fn limit(&self) -> Duration {
        Duration::from_millis(self.limit.load(Ordering::Relaxed).into())
    }

    /// How long one connection may lie idle and not be used, to find out whether the limit could be longer.
    pub(super) fn witness(&self) -> Duration {
        self.limit() * 3 / 2 + Duration::from_secs(1)
    }

    /// A connection was found open after so long.
    pub(super) fn outlived(&self, age: Duration) {
        let (limit, age) = (self.limit.load(Ordering::Relaxed), millis(age));
        let longer = (age / 10 * 9).min(limit / 2 * 3).min(MOST);
        if longer > limit {
            self.limit.store(longer, Ordering::Relaxed);
        }
    }

    /// A connection was found closed after so long; `now` is the process's age.
    pub(super) fn closed(&self, age: Duration, now: Duration) {
        let (limit, age) = (self.limit.load(Ordering::Relaxed), millis(age));
        if age <= limit {
            self.limit.store((age / 4 * 3).max(LEAST), Ordering::Relaxed);
            let now = u32::try_from(now.as_secs()).unwrap_or(u32::MAX).max(1);
            self.unrest.store(now, Ordering::Relaxed);
        }
    }

    /// Whether connections were closed lately that should have lived, as by workers that retire: what must not be sent
    /// twice is better off on a fresh connection.
    pub(super) fn is_restless(&self, now: Duration) -> bool {
        let at = self.unrest.load(Ordering::Relaxed);
        at != 0 && now < Duration::from_secs(at.into()) + UNREST
    }
}

fn millis(age: Duration) -> u32 {
    u32::try_from(age.as_millis()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    /// Connections that are used, and a witness that is looked at every second, before a member that closes after `keep`.
    fn learn(idle: &Idle, keep: u64, rounds: usize) {
        for _ in 0..rounds {
            for age in (300..).step_by(1000).map(MS).take_while(|age| *age < idle.witness()) {
                if age >= MS(keep) {
                    idle.closed(age, MS(0));
                    break;
                }
                if age > idle.limit() {
                    idle.outlived(age);
                }
            }
        }
    }

    #[test]
    fn the_limit_stays_below_what_the_member_keeps() {
        for (keep, at_least) in [(2_000, 1_800), (5_000, 3_500), (75_000, 50_000)] {
            let idle = Idle::default();
            learn(&idle, keep, 40);
            assert!(idle.limit() >= MS(at_least) && idle.limit() < MS(keep), "{keep}: {:?}", idle.limit());
        }
    }

    #[test]
    fn a_close_shrinks_it_at_once_and_it_grows_again() {
        let idle = Idle::default();
        assert!(!idle.is_restless(MS(5000)));
        idle.closed(MS(1000), MS(5000));
        assert_eq!(idle.limit(), MS(750));
        assert!(idle.is_restless(MS(60_000)) && !idle.is_restless(MS(66_000)));
        (0..100).for_each(|_| idle.closed(MS(1), MS(5000)));
        assert_eq!(idle.limit(), MS(200));
        learn(&idle, 5_000, 40);
        assert!(idle.limit() > MS(3_000), "{:?}", idle.limit());
    }
}
