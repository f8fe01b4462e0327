//! The line in which requests wait: for a member that is up, and for a place at one where there is a limit.
//!
//! First come, first served. Nobody looks again by himself: whoever makes something possible (a member that is well
//! again, a place that is given back) lets the first ones go. Where many wait for a member that has just come back, a few
//! are let go at once, and one more for each that has its connection: a listening socket's queue is short.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::Upstream;
use super::balance::Dice;
use super::member::Member;
use super::sticky::Token;

/// How many are let go at once.
const AT_ONCE: usize = 32;

/// The line of one upstream.
#[derive(Debug)]
pub(super) struct Line {
    /// The most requests at once at one member.
    limit: Option<usize>,
    /// The most that wait.
    most: usize,
    /// How many wait.
    waiting: AtomicUsize,
    queue: Mutex<Queue>,
}

#[derive(Debug)]
struct Queue {
    next: u64,
    waiting: BTreeMap<u64, oneshot::Sender<Pass>>,
    /// Those that were let go and have no connection yet.
    going: usize,
    dice: Dice,
}

/// One request's place in the line, which it keeps when it has to go back.
#[derive(Debug, Default)]
pub(super) struct Turn {
    ticket: Option<u64>,
    deadline: Option<Instant>,
}

/// What lets a request go on.
#[derive(Debug)]
pub(super) struct Pass {
    pub(super) place: Option<Place>,
    /// To be dropped once there is a connection, or cannot be.
    pub(super) going: Option<Going>,
    /// The member that the request is to try, although it took no connection before.
    pub(super) scout: Option<Arc<Member>>,
}

/// A place at a member, where there is a limit to them.
#[derive(Debug)]
pub(super) struct Place {
    upstream: Arc<Upstream>,
    pub(super) member: Arc<Member>,
}

/// One that was let go.
#[derive(Debug)]
pub(super) struct Going(Arc<Upstream>);

/// Why nobody waits any longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// As many wait as may.
    Full,
    /// The time is over.
    TooLong,
}

impl Line {
    pub(super) fn new(limit: Option<usize>, most: usize) -> Self {
        let queue = Queue { next: 0, waiting: BTreeMap::new(), going: 0, dice: Dice::new() };
        Self { limit, most, waiting: AtomicUsize::new(0), queue: Mutex::new(queue) }
    }

    /// Whether a request may not simply go to the member that suits it.
    pub(super) fn must_ask(&self) -> bool {
        self.limit.is_some() || self.waiting() > 0
    }

    pub(super) fn has_limit(&self) -> bool {
        self.limit.is_some()
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// A place at once, where nobody waits for one.
    pub(super) fn enter(
        upstream: &Arc<Upstream>,
        wants: Option<&Token>,
        may: impl Fn(&Member) -> bool,
    ) -> Option<Place> {
        let queue = upstream.line.lock();
        let first = queue.waiting.is_empty();
        first.then(|| upstream.line.take_place(upstream, &queue.dice, wants, may)).flatten()
    }

    /// Waits for the request's turn, no longer than `limit` from its first wait on.
    pub(super) async fn wait(
        upstream: &Arc<Upstream>,
        turn: &mut Turn,
        limit: Duration,
    ) -> Result<Pass, Ended> {
        let deadline = *turn.deadline.get_or_insert_with(|| Instant::now() + limit);
        let (sender, receiver) = oneshot::channel();
        let ticket = upstream.line.join(turn, sender)?;
        let _leaving = Leaving { line: &upstream.line, ticket };
        // What became possible before the request stood in the line, nobody would tell it.
        Self::advance(upstream);
        match timeout_at(deadline, receiver).await {
            Ok(Ok(pass)) => Ok(pass),
            _ => Err(Ended::TooLong),
        }
    }

    /// Lets those go that can.
    pub(super) fn advance(upstream: &Arc<Upstream>) {
        while upstream.line.waiting() > 0 {
            let Some((sender, pass)) = upstream.line.first(upstream) else { return };
            // One that has left lets the next one go by dropping its pass.
            let _ = sender.send(pass);
        }
    }

    /// Lets the first one go to a member that took no connection before: what it finds is true for all. False where nobody
    /// waits.
    pub(super) fn send_scout(upstream: &Arc<Upstream>, member: &Arc<Member>) -> bool {
        let line = &upstream.line;
        let mut queue = line.lock();
        let Some((_, sender)) = queue.waiting.pop_first() else { return false };
        queue.going += 1;
        line.count(&queue);
        let place = line.limit.map(|_| take(upstream, member));
        drop(queue);
        let going = Some(Going(Arc::clone(upstream)));
        let _ = sender.send(Pass { place, going, scout: Some(Arc::clone(member)) });
        true
    }

    fn join(&self, turn: &mut Turn, sender: oneshot::Sender<Pass>) -> Result<u64, Ended> {
        let mut queue = self.lock();
        if queue.waiting.len() >= self.most {
            return Err(Ended::Full);
        }
        let next = queue.next;
        let ticket = *turn.ticket.get_or_insert(next);
        queue.next += u64::from(ticket == next);
        queue.waiting.insert(ticket, sender);
        self.count(&queue);
        Ok(ticket)
    }

    fn first(&self, upstream: &Arc<Upstream>) -> Option<(oneshot::Sender<Pass>, Pass)> {
        let mut queue = self.lock();
        if queue.going >= AT_ONCE || queue.waiting.is_empty() {
            return None;
        }
        let place = match self.limit {
            Some(_) => Some(self.take_place(upstream, &queue.dice, None, Member::is_available)?),
            None => upstream.is_available().then_some(None)?,
        };
        let (_, sender) = queue.waiting.pop_first()?;
        queue.going += 1;
        self.count(&queue);
        drop(queue);
        Some((sender, Pass { place, going: Some(Going(Arc::clone(upstream))), scout: None }))
    }

    /// Called with the lock held, which `dice` comes from.
    fn take_place(
        &self,
        upstream: &Arc<Upstream>,
        dice: &Dice,
        wants: Option<&Token>,
        may: impl Fn(&Member) -> bool,
    ) -> Option<Place> {
        let limit = self.limit.unwrap_or(usize::MAX);
        let members = upstream.members.load();
        let has_place = |member: &Member| may(member) && member.taken.load(Ordering::Relaxed) < limit;
        let member = upstream.chooser.choose(&members, dice, wants, has_place)?;
        Some(take(upstream, member))
    }

    fn count(&self, queue: &Queue) {
        self.waiting.store(queue.waiting.len(), Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Called with the lock held.
fn take(upstream: &Arc<Upstream>, member: &Arc<Member>) -> Place {
    member.taken.fetch_add(1, Ordering::Relaxed);
    Place { upstream: Arc::clone(upstream), member: Arc::clone(member) }
}

impl Drop for Place {
    fn drop(&mut self) {
        let queue = self.upstream.line.lock();
        self.member.taken.fetch_sub(1, Ordering::Relaxed);
        drop(queue);
        Line::advance(&self.upstream);
    }
}

impl Drop for Going {
    fn drop(&mut self) {
        self.0.line.lock().going -= 1;
        Line::advance(&self.0);
    }
}

/// Takes a request out of the line, in whatever way its wait ends.
struct Leaving<'l> {
    line: &'l Line,
    ticket: u64,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        let mut queue = self.line.lock();
        queue.waiting.remove(&self.ticket);
        self.line.count(&queue);
    }
}
