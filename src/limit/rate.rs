//! Requests counted by client or key, against a rate. One table serves every worker.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::gcra::{Gcra, Verdict, nanos};
use crate::config::model::{self, Per};

/// A rate and those who are counted against it. A client costs 16 octets, all of them 2 MiB at most.
#[derive(Debug)]
pub struct Rate {
    /// What requests are told apart by.
    pub per: Per,
    /// `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers).
    pub policy: String,
    gcra: Gcra,
    begin: Instant,
    hasher: RandomState,
    shards: [Mutex<Shard>; SHARDS],
}

/// Whom a request counts against: a number that nobody outside can predict, so that no secret is kept and no two clients
/// can be made to look like one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key(u64);

/// A request that passed, and how its client stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// How many more would pass now.
    pub left: u64,
    /// In how many seconds the whole allowance is there again.
    pub full: u64,
}

/// A request that is one too many. The next one passes after this time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Over(pub Duration);

impl Rate {
    /// A rate that nobody has used yet.
    pub fn new(rate: &model::Rate) -> Self {
        let seconds = seconds(rate.every);
        Self {
            per: rate.per.clone(),
            policy: format!("\"{}\";q={};w={seconds}", rate.per.word(), rate.limit),
            gcra: Gcra::new(rate.limit, rate.every, rate.burst),
            begin: Instant::now(),
            hasher: RandomState::new(),
            shards: std::array::from_fn(|_| Mutex::default()),
        }
    }

    /// Whom a request counts against.
    pub fn key(&self, of: impl Hash) -> Key {
        // 0 is a place that nobody has.
        Key(self.hasher.hash_one(of) | 1)
    }

    /// Counts a request.
    ///
    /// # Errors
    /// It is one too many, and not counted.
    pub fn take(&self, key: Key, now: Instant) -> Result<Standing, Over> {
        let now = self.moment(now);
        let mut shard = self.shard(key);
        match self.gcra.decide(shard.due(key), now) {
            Verdict::Pass { due, left, full } => {
                shard.remember(key, due, now);
                Ok(Standing { left, full: seconds(full) })
            }
            Verdict::Wait(wait) => Err(Over(wait)),
        }
    }

    /// Takes back that a request was counted.
    pub fn give_back(&self, key: Key, now: Instant) {
        let mut shard = self.shard(key);
        let due = self.gcra.give_back(shard.due(key));
        shard.remember(key, due, self.moment(now));
    }

    /// `RateLimit`: what is left, and when there is more.
    pub fn told(&self, standing: Result<Standing, Over>) -> String {
        let (left, seconds) = match standing {
            Ok(standing) => (standing.left, standing.full),
            Err(over) => (0, over.seconds()),
        };
        format!("\"{}\";r={left};t={seconds}", self.per.word())
    }

    fn moment(&self, now: Instant) -> u64 {
        nanos(now.saturating_duration_since(self.begin))
    }

    fn shard(&self, Key(key): Key) -> MutexGuard<'_, Shard> {
        let [low, ..] = key.to_be_bytes();
        let shard = self.shards.get(usize::from(low) % SHARDS).unwrap_or(&self.shards[0]);
        // A thread that panicked while it held a shard left it whole.
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Over {
    /// `Retry-After`, in whole seconds, never 0.
    pub fn seconds(self) -> u64 {
        seconds(self.0)
    }
}

/// Whole seconds, the begun one counted.
fn seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

/// So that workers seldom meet at a lock.
const SHARDS: usize = 64;
/// Places among which a client's own is looked for.
const WAYS: usize = 8;
/// The most sets of a shard, a power of two: 131,072 clients in all.
const MAX_SETS: usize = 256;

/// A hash table that forgets. It grows while those in it matter, up to its bound; then whoever has used least makes room,
/// so that a flood of addresses pushes out itself, and not the one who is being held back.
#[derive(Debug, Default)]
struct Shard {
    /// None, or a power of two.
    sets: Vec<[Place; WAYS]>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Place {
    /// 0 where it is free.
    key: u64,
    /// See [`Gcra::decide`]. One that is past is as good as none.
    due: u64,
}

impl Shard {
    fn due(&self, key: Key) -> u64 {
        let own = self.set(key).and_then(|set| set.iter().find(|place| place.key == key.0));
        own.map_or(0, |place| place.due)
    }

    fn remember(&mut self, key: Key, due: u64, now: u64) {
        while self.is_crowded(key, now) {
            self.grow();
        }
        let at = self.index(key);
        let set = self.sets.get_mut(at).map(|set| set.iter_mut());
        // The client's own place, else that of whoever has used least.
        let place = set.and_then(|set| set.min_by_key(|place| (place.key != key.0, place.due)));
        if let Some(place) = place {
            *place = Place { key: key.0, due };
        }
    }

    /// Whether a client has no place, and would have to take that of another who still matters.
    fn is_crowded(&self, key: Key, now: u64) -> bool {
        let full = |set: &[Place; WAYS]| set.iter().all(|place| place.key != key.0 && place.due > now);
        self.sets.len() < MAX_SETS && self.set(key).is_none_or(full)
    }

    /// Twice as many sets: each gives those whose next bit is set to its other half.
    fn grow(&mut self) {
        let half = self.sets.len();
        self.sets.resize((half * 2).max(1), Default::default());
        let (lower, upper) = self.sets.split_at_mut(half);
        for (stays, moves) in lower.as_flattened_mut().iter_mut().zip(upper.as_flattened_mut()) {
            if bits(Key(stays.key)) & half != 0 {
                *moves = std::mem::take(stays);
            }
        }
    }

    fn set(&self, key: Key) -> Option<&[Place; WAYS]> {
        self.sets.get(self.index(key))
    }

    fn index(&self, key: Key) -> usize {
        bits(key) & self.sets.len().saturating_sub(1)
    }
}

/// The bits that choose a set; those that choose a shard are others, and the last is always 1.
fn bits(Key(key): Key) -> usize {
    let [.., high, low, _] = key.to_be_bytes();
    usize::from(u16::from_be_bytes([high, low]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(limit: u64, every: Duration, burst: u64) -> Rate {
        Rate::new(&model::Rate { per: Per::Client, limit, every, burst })
    }

    #[test]
    fn clients_are_counted_apart_and_told_how_they_stand() {
        let rate = rate(10, Duration::from_mins(1), 1);
        let (now, alice, bob) = (Instant::now(), rate.key("alice"), rate.key("bob"));
        assert_eq!(rate.take(alice, now), Ok(Standing { left: 1, full: 6 }));
        assert_eq!(rate.take(alice, now), Ok(Standing { left: 0, full: 12 }));
        let over = rate.take(alice, now + Duration::from_millis(100));
        assert_eq!(over, Err(Over(Duration::from_millis(5_900))));
        assert_eq!(rate.take(bob, now).map(|standing| standing.left), Ok(1));
        rate.give_back(alice, now);
        assert!(rate.take(alice, now).is_ok());
        assert!(rate.take(alice, now + Duration::from_secs(6)).is_ok());
        assert_eq!(rate.policy, "\"client\";q=10;w=60");
        assert_eq!(rate.told(over), "\"client\";r=0;t=6");
    }

    #[test]
    fn workers_count_together() {
        let rate = rate(7, Duration::from_hours(1), 99);
        let (now, key) = (Instant::now(), rate.key("all"));
        let passed: usize = std::thread::scope(|scope| {
            let count = || (0..200).filter(|_| rate.take(key, now).is_ok()).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(count)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(passed, 100);
    }

    #[test]
    fn nobody_is_forgotten_while_there_is_room() {
        let rate = rate(1, Duration::from_hours(1), 0);
        let now = Instant::now();
        let passed = |now| (0..8_000).filter(|client| rate.take(rate.key(client), now).is_ok()).count();
        assert_eq!((passed(now), passed(now)), (8_000, 0));
        let places =
            || rate.shards.iter().map(|shard| shard.lock().unwrap().sets.len()).sum::<usize>() * WAYS;
        let grown = places();
        assert_eq!(passed(now + Duration::from_hours(2)), 8_000);
        assert_eq!(places(), grown, "those who are past make room");
    }

    #[test]
    fn a_flood_neither_grows_without_end_nor_frees_whom_it_is_to_free() {
        let rate = rate(60, Duration::from_mins(1), 4);
        let (now, held) = (Instant::now(), rate.key("held"));
        while rate.take(held, now).is_ok() {}
        for stranger in 0..1_000_000_u32 {
            let _ = rate.take(rate.key(stranger), now);
        }
        assert!(rate.take(held, now).is_err());
        let most = SHARDS * MAX_SETS * WAYS * size_of::<Place>();
        let octets = |shard: &Mutex<Shard>| size_of_val(shard.lock().unwrap().sets.as_slice());
        assert_eq!((rate.shards.iter().map(octets).sum::<usize>(), most), (2 << 20, 2 << 20));
    }
}
