//! How many octets of something are taken: by everybody together, whichever thread they are on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Octets that were taken and not given back. Clones count together. What there is of them is said anew each time, for a
/// reload may change it.
#[derive(Debug, Clone, Default)]
pub struct Room(Arc<AtomicU64>);

/// Where the bodies of all sites wait.
#[derive(Debug, Clone, Default)]
pub struct Rooms {
    /// In memory.
    pub memory: Room,
    /// On disk.
    pub disk: Room,
}

impl Room {
    /// Takes some; false where more than `limit` would be taken, and then nothing is.
    #[must_use]
    pub fn take(&self, octets: u64, limit: u64) -> bool {
        let more = |taken: u64| taken.checked_add(octets).filter(|taken| *taken <= limit);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// Gives back what was taken.
    pub fn give_back(&self, octets: u64) {
        if octets > 0 {
            self.0.fetch_sub(octets, Ordering::Relaxed);
        }
    }

    /// How many are taken.
    pub fn taken(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_taken_than_there_is() {
        let room = Room::default();
        let other = room.clone();
        assert!(room.take(5, 10) && other.take(5, 10) && !room.take(1, 10));
        assert!(!room.take(u64::MAX, u64::MAX), "the sum is past any number");
        room.give_back(6);
        assert!(!other.take(1, 4), "a lower limit holds for what is taken later");
        assert!(other.take(6, 10));
        assert_eq!(room.taken(), 10);
    }

    #[test]
    fn threads_never_pass_the_limit_together() {
        let room = Room::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..2000 {
                        if room.take(3, 7) {
                            assert!(room.taken() <= 7);
                            room.give_back(3);
                        }
                    }
                });
            }
        });
        assert_eq!(room.taken(), 0);
    }
}
