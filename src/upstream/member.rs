//! One address of an upstream, as the whole edge sees it: how it is, and what it has to do.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;

use super::doubt::Doubt;
use super::idle::Idle;
use super::sticky::Token;

/// The weight of a member that takes its whole share.
pub(super) const FULL: u8 = 16;
/// After so many requests in a row that it took and did not answer, a member rests.
const EJECTED_AFTER: u32 = 3;
/// How long one that refused rests before it is looked at again, at first.
const SHORT_REST: Duration = Duration::from_millis(20);
/// How long one that did not answer rests, at first and at most: each time twice as long.
const LONG_REST: Duration = Duration::from_secs(1);
const LONGEST_REST: Duration = Duration::from_secs(32);
/// Counters of one member, so that workers do not share a cache line.
const SHARDS: usize = 16;

/// Why a member gets no new requests, as bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flag(u8);

impl Flag {
    /// It takes no connection, or answers nothing.
    pub(super) const DOWN: Self = Self(1);
    /// Its health check fails.
    pub(super) const SICK: Self = Self(2);
    /// It was not asked yet whether it is well.
    pub(super) const NEW: Self = Self(4);
    /// A person took it out.
    pub(super) const DRAINED: Self = Self(8);
    /// Its name no longer leads to it, or its upstream is no more.
    pub(super) const GONE: Self = Self(16);
    const ILL: u8 = Self::DOWN.0 | Self::SICK.0 | Self::NEW.0;
}

/// Where a member listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    /// Over TCP, and with the name of its certificate over TLS.
    Tcp(SocketAddr, Option<Arc<str>>),
    /// A unix socket.
    Unix(Arc<Path>),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address, _) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// One address of an upstream.
#[derive(Debug)]
pub(super) struct Member {
    /// Unlike any other's.
    pub(super) id: u64,
    /// Its target's place in the configuration.
    pub(super) target: usize,
    pub(super) address: Address,
    /// The address as text.
    pub(super) peer: String,
    /// What a sticky cookie calls it.
    pub(super) token: Option<Token>,
    /// Rung when it went down or away, for who looks after it.
    pub(super) bell: Notify,
    pub(super) idle: Idle,
    pub(super) doubt: Doubt,
    flags: AtomicU8,
    /// Of [`FULL`]: less for one that has just joined.
    weight: AtomicU8,
    /// Requests in a row that it took and did not answer.
    failures: AtomicU32,
    busy: Box<[Shard; SHARDS]>,
    /// Places that are taken, where there is a limit to them; changed by who holds the line's lock.
    pub(super) taken: AtomicUsize,
    story: Mutex<Story>,
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard(AtomicUsize);

/// What is known beyond the flags.
#[derive(Debug)]
pub(super) struct Story {
    /// Since when it is as it is.
    pub(super) since: SystemTime,
    /// The last thing that went wrong.
    pub(super) error: Option<String>,
    /// How long until it is looked at again, while it is ill.
    pub(super) rest: Duration,
    /// How often in a row it was ejected.
    ejections: u32,
    /// Looks in a row that went well, or badly.
    pub(super) passes: u32,
    pub(super) fails: u32,
}

impl Member {
    /// A member that may have requests, or with `is_new` one that must be asked first.
    pub(super) fn new(target: usize, address: Address, token: Option<Token>, is_new: bool) -> Arc<Self> {
        static IDS: AtomicU64 = AtomicU64::new(0);
        let story = Story {
            since: SystemTime::now(),
            error: None,
            rest: Duration::ZERO,
            ejections: 0,
            passes: 0,
            fails: 0,
        };
        Arc::new(Self {
            id: IDS.fetch_add(1, Ordering::Relaxed),
            target,
            peer: address.to_string(),
            address,
            token,
            bell: Notify::new(),
            idle: Idle::default(),
            doubt: Doubt::default(),
            flags: AtomicU8::new(if is_new { Flag::NEW.0 } else { 0 }),
            weight: AtomicU8::new(FULL),
            failures: AtomicU32::new(0),
            busy: Box::default(),
            taken: AtomicUsize::new(0),
            story: Mutex::new(story),
        })
    }

    /// Whether it may have new requests.
    pub(super) fn is_available(&self) -> bool {
        self.flags.load(Ordering::Acquire) == 0
    }

    /// Whether nothing is known against it but that it took no connection lately.
    pub(super) fn is_merely_down(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & !Flag::DOWN.0 == 0
    }

    /// Whether it has to be looked at before it gets requests.
    pub(super) fn is_ill(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & Flag::ILL != 0
    }

    pub(super) fn has(&self, flag: Flag) -> bool {
        self.flags.load(Ordering::Relaxed) & flag.0 != 0
    }

    /// Whether its idle connections are of no use any more.
    pub(super) fn is_leaving(&self) -> bool {
        self.has(Flag::DRAINED) || self.has(Flag::GONE)
    }

    /// False where it had the flag already.
    pub(super) fn set(&self, flag: Flag) -> bool {
        let before = self.flags.fetch_or(flag.0, Ordering::AcqRel);
        if before == 0 {
            self.story().since = SystemTime::now();
        }
        before & flag.0 == 0
    }

    /// False where it did not have the flag.
    pub(super) fn clear(&self, flag: Flag) -> bool {
        let before = self.flags.fetch_and(!flag.0, Ordering::AcqRel);
        if before == flag.0 {
            self.story().since = SystemTime::now();
        }
        before & flag.0 != 0
    }

    /// It took no connection. True where that is news.
    pub(super) fn refused(&self, why: String) -> bool {
        let mut story = self.story();
        story.error = Some(why);
        if self.is_ill() {
            return false;
        }
        (story.rest, story.passes) = (SHORT_REST, 0);
        drop(story);
        self.down()
    }

    /// It took a request and did not answer. True where it is to rest: after several in a row, and never the last one
    /// that is available.
    pub(super) fn unanswered(&self, why: String, is_last: bool) -> bool {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
        let mut story = self.story();
        story.error = Some(why);
        if failures < EJECTED_AFTER || is_last || self.is_ill() {
            return false;
        }
        story.rest = (LONG_REST * 2_u32.pow(story.ejections.min(5))).min(LONGEST_REST);
        story.ejections += 1;
        story.passes = 0;
        drop(story);
        self.failures.store(EJECTED_AFTER - 1, Ordering::Relaxed);
        self.down()
    }

    /// It answered.
    pub(super) fn answered(&self) {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
            self.story().ejections = 0;
        }
    }

    fn down(&self) -> bool {
        let is_news = self.set(Flag::DOWN);
        if is_news {
            self.doubt.confirm();
            self.bell.notify_one();
        }
        is_news
    }

    /// It is well again: true where it was not.
    pub(super) fn recovered(&self, weight: u8) -> bool {
        self.weight.store(weight, Ordering::Relaxed);
        self.doubt.confirm();
        self.story().error = None;
        let well = [Flag::SICK, Flag::NEW, Flag::DOWN].map(|flag| self.clear(flag));
        well.contains(&true)
    }

    /// It takes less than its share for a while.
    pub(super) fn cool_down(&self, weight: u8) {
        self.weight.store(weight, Ordering::Relaxed);
    }

    pub(super) fn weight(&self) -> u8 {
        self.weight.load(Ordering::Relaxed)
    }

    /// It takes a little more of its share. False once it takes the whole.
    pub(super) fn warm_up(&self) -> bool {
        let weight = self.weight().saturating_add(1).min(FULL);
        self.weight.store(weight, Ordering::Relaxed);
        weight < FULL
    }

    /// Counts a request in, on a worker's own counter.
    pub(super) fn begin(&self, shard: usize) {
        self.shard(shard, |count| count.fetch_add(1, Ordering::Relaxed));
    }

    pub(super) fn end(&self, shard: usize) {
        self.shard(shard, |count| count.fetch_sub(1, Ordering::Relaxed));
    }

    /// Requests that it has and has not answered to the end.
    pub(super) fn busy(&self) -> usize {
        // One worker's counter may be read before another's: never less than nothing.
        self.busy.iter().map(|shard| shard.0.load(Ordering::Relaxed)).fold(0, usize::wrapping_add)
    }

    pub(super) fn story(&self) -> MutexGuard<'_, Story> {
        self.story.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shard<T>(&self, shard: usize, change: impl FnOnce(&AtomicUsize) -> T) {
        if let Some(Shard(count)) = self.busy.get(shard % SHARDS) {
            change(count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member() -> Arc<Member> {
        Member::new(0, Address::Unix(Path::new("/x").into()), None, false)
    }

    #[test]
    fn one_that_answers_nothing_rests_ever_longer_and_the_last_one_never() {
        let member = member();
        let fail = |is_last| member.unanswered("silence".into(), is_last);
        assert_eq!([fail(false), fail(false), fail(true), fail(false)], [false, false, false, true]);
        assert_eq!((member.is_available(), member.story().rest), (false, Duration::from_secs(1)));
        assert!(member.recovered(FULL) && member.is_available() && !member.recovered(FULL));
        assert!(fail(false), "the first failure after a rest is enough");
        assert_eq!(member.story().rest, Duration::from_secs(2));
        member.recovered(FULL);
        member.answered();
        assert_eq!([fail(false), fail(false), fail(false)], [false, false, true]);
        assert_eq!(member.story().rest, Duration::from_secs(1));
    }

    #[test]
    fn it_is_available_once_nothing_speaks_against_it() {
        let member = member();
        assert!(member.refused("refused".into()) && !member.refused("refused".into()));
        assert!(member.set(Flag::DRAINED) && !member.set(Flag::DRAINED));
        member.recovered(1);
        assert!(!member.is_available() && member.is_leaving() && !member.is_ill());
        assert!(member.clear(Flag::DRAINED) && member.is_available());
        assert_eq!(member.weight(), 1);
        while member.warm_up() {}
        assert_eq!(member.weight(), FULL);
    }

    #[test]
    fn requests_are_counted_whoever_counts() {
        let member = member();
        (0..40).for_each(|shard| member.begin(shard));
        (0..39).for_each(|shard| member.end(shard));
        assert_eq!(member.busy(), 1);
    }
}
