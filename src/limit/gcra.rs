//! How often something may happen: the generic cell rate algorithm, which needs one number a client.

use std::time::Duration;

/// A rate, as the algorithm takes it. Times are nanoseconds since any one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gcra {
    /// Between two that come evenly spaced.
    interval: u64,
    /// How far ahead of that they may run.
    tolerance: u64,
}

/// What is decided of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It passes.
    Pass {
        /// The new `due`, to be remembered.
        due: u64,
        /// How many more would pass at this moment.
        left: u64,
        /// When as many would pass as ever do.
        full: Duration,
    },
    /// It does not, and leaves no trace; the next one passes after this time.
    Wait(Duration),
}

impl Gcra {
    /// `limit` in each `every`, `burst` of which may come before they are due: in no span as long as `every` do more than
    /// `limit` + `burst` pass, and at once `burst` + 1. A limit of 0 is taken for 1.
    pub fn new(limit: u64, every: Duration, burst: u64) -> Self {
        let interval = nanos(every).div_ceil(limit.max(1));
        Self { interval, tolerance: interval.saturating_mul(burst) }
    }

    /// Decides on a request of this moment. `due` is what the last one that passed left; 0 where there was none.
    pub fn decide(self, due: u64, now: u64) -> Verdict {
        let ahead = due.saturating_sub(now);
        if ahead > self.tolerance {
            return Verdict::Wait(Duration::from_nanos(ahead - self.tolerance));
        }
        let behind = ahead.saturating_add(self.interval);
        let left = (self.tolerance.saturating_add(self.interval) - behind) / self.interval.max(1);
        Verdict::Pass { due: now.saturating_add(behind), left, full: Duration::from_nanos(behind) }
    }

    /// The `due` of one who is given a request back that has passed.
    pub fn give_back(self, due: u64) -> u64 {
        due.saturating_sub(self.interval)
    }
}

/// Five hundred years, where it is longer.
pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// The moments of those that pass.
    fn passing(rate: Gcra, moments: impl IntoIterator<Item = u64>) -> Vec<u64> {
        let mut due = 0;
        let mut passes = |now: u64| match rate.decide(due, now) {
            Verdict::Pass { due: next, .. } => {
                due = next;
                true
            }
            Verdict::Wait(_) => false,
        };
        moments.into_iter().filter(|now| passes(*now)).collect()
    }

    #[test]
    fn a_burst_passes_and_then_one_an_interval() {
        let minute = Duration::from_mins(1);
        for (limit, burst, at_once, in_the_first_minute) in
            [(10, 5, 6, 15), (10, 0, 1, 10), (10, 9, 10, 19), (1, 0, 1, 1)]
        {
            let rate = Gcra::new(limit, minute, burst);
            let now = 7 * SECOND;
            assert_eq!(passing(rate, [now; 100]).len(), at_once, "{limit} {burst}");
            let each_second = (0..60).flat_map(|second| [now + second * SECOND; 20]);
            assert_eq!(passing(rate, each_second).len(), in_the_first_minute, "{limit} {burst}");
        }
    }

    #[test]
    fn what_is_told_is_true() {
        let rate = Gcra::new(10, Duration::from_mins(1), 2);
        for (due, now, expected) in [
            (0, 100, Verdict::Pass { due: 106, left: 2, full: Duration::from_secs(6) }),
            (106, 100, Verdict::Pass { due: 112, left: 1, full: Duration::from_secs(12) }),
            (112, 100, Verdict::Pass { due: 118, left: 0, full: Duration::from_secs(18) }),
            (118, 100, Verdict::Wait(Duration::from_secs(6))),
            (118, 105, Verdict::Wait(Duration::from_secs(1))),
            (118, 106, Verdict::Pass { due: 124, left: 0, full: Duration::from_secs(18) }),
            (118, 500, Verdict::Pass { due: 506, left: 2, full: Duration::from_secs(6) }),
        ] {
            let told = match rate.decide(due * SECOND, now * SECOND) {
                Verdict::Pass { due, left, full } => Verdict::Pass { due: due / SECOND, left, full },
                wait @ Verdict::Wait(_) => wait,
            };
            assert_eq!(told, expected, "{due} {now}");
        }
        assert_eq!(rate.give_back(118 * SECOND), 112 * SECOND);
    }

    #[test]
    fn extremes_do_no_harm() {
        let slow = Gcra::new(1, Duration::MAX, u64::MAX);
        assert!(matches!(slow.decide(u64::MAX, 0), Verdict::Pass { due: u64::MAX, .. }));
        assert!(matches!(Gcra::new(0, Duration::ZERO, 0).decide(0, 0), Verdict::Pass { .. }));
    }

    proptest! {
        #[test]
        fn no_span_sees_more_than_limit_and_burst(
            limit in 1..50_u64,
            burst in 0..50_u64,
            every in 1..100_000_u64,
            mut moments in proptest::collection::vec(0..300_000_u64, 0..400),
        ) {
            moments.sort_unstable();
            let passed = passing(Gcra::new(limit, Duration::from_nanos(every), burst), moments);
            for start in &passed {
                let within = passed.iter().filter(|moment| (*start..start + every).contains(moment)).count() as u64;
                prop_assert!(within <= limit + burst, "{within} of {limit} + {burst}");
            }
        }

        #[test]
        fn whoever_waits_as_told_passes(
            limit in 1..50_u64, burst in 0..50_u64, every in 1..100_000_u64, due in 0..300_000_u64, now in 0..300_000_u64,
        ) {
            let rate = Gcra::new(limit, Duration::from_nanos(every), burst);
            if let Verdict::Wait(wait) = rate.decide(due, now) {
                let later = now + nanos(wait);
                let waits = |now| matches!(rate.decide(due, now), Verdict::Wait(_));
                prop_assert!(waits(later - 1) && !waits(later));
            }
        }
    }
}
