//! How fast orders may be made, so that a CA's own limits are never met.

use std::collections::{HashMap, VecDeque};

use time::{Duration, OffsetDateTime};

use super::renewal;

/// The most orders at one CA in [`SPAN`]: Let's Encrypt takes 300, and other clients of the account need some as well.
const ORDERS: usize = 280;
/// The time that [`ORDERS`] is about.
const SPAN: Duration = Duration::hours(3);

/// The orders of late, by CA.
#[derive(Debug, Default)]
pub(super) struct Pace {
    made: HashMap<String, VecDeque<OffsetDateTime>>,
    paused: HashMap<String, OffsetDateTime>,
}

impl Pace {
    /// Counts an order that is made now, or tells when there is room for it.
    pub(super) fn take(&mut self, directory: &str, now: OffsetDateTime) -> Result<(), OffsetDateTime> {
        self.room(directory, now)?;
        self.made.entry(directory.to_owned()).or_default().push_back(now);
        Ok(())
    }

    /// Whether an order may be made now, or when.
    pub(super) fn room(&mut self, directory: &str, now: OffsetDateTime) -> Result<(), OffsetDateTime> {
        if let Some(until) = renewal::waits(self.paused.get(directory).copied(), now) {
            return Err(until);
        }
        let made = self.made.entry(directory.to_owned()).or_default();
        // What lies ahead is left from a clock that jumped back.
        made.retain(|at| now - SPAN < *at && *at <= now);
        if made.len() >= ORDERS {
            return Err(made.front().map_or(now, |first| *first) + SPAN);
        }
        Ok(())
    }

    /// Counts an order that a process before this one made.
    pub(super) fn recall(&mut self, directory: &str, at: OffsetDateTime) {
        let made = self.made.entry(directory.to_owned()).or_default();
        let place = made.partition_point(|own| *own <= at);
        made.insert(place, at);
    }

    /// Leaves a CA alone until then, as it asked.
    pub(super) fn pause(&mut self, directory: &str, until: OffsetDateTime) {
        let own = self.paused.entry(directory.to_owned()).or_insert(until);
        *own = until.max(*own);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: OffsetDateTime = time::macros::datetime!(2026-11-24 00:00 UTC);

    #[test]
    fn no_span_has_more_orders_than_it_may() {
        let mut pace = Pace::default();
        let (mut now, mut made) = (T0, Vec::new());
        for _ in 0..1000 {
            match pace.take("ca", now) {
                Ok(()) => made.push(now),
                Err(until) => {
                    assert!(until > now);
                    now = until;
                }
            }
            now += Duration::seconds(1);
        }
        for (index, at) in made.iter().enumerate() {
            if let Some(later) = made.get(index + ORDERS) {
                assert!(*later - *at >= SPAN, "{at} {later}");
            }
        }
        assert!(made.len() > 3 * ORDERS && pace.take("another", T0).is_ok());
    }

    #[test]
    fn a_pause_is_kept_and_a_clock_that_jumps_back_locks_nothing() {
        let mut pace = Pace::default();
        pace.pause("ca", T0 + Duration::hours(1));
        pace.pause("ca", T0 + Duration::minutes(1));
        assert_eq!(pace.take("ca", T0), Err(T0 + Duration::hours(1)));
        assert_eq!(pace.take("ca", T0 + Duration::hours(1)), Ok(()));
        for _ in 0..ORDERS {
            pace.recall("other", T0 + Duration::days(400));
        }
        assert_eq!(pace.take("other", T0), Ok(()));
        pace.pause("ca", T0 + Duration::days(400));
        assert_eq!(pace.take("ca", T0), Ok(()), "no CA asks for that");
    }
}
