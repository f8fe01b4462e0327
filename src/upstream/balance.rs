//! Which target is next.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::config::model::Balance;

/// How long a target that took no connection is asked only after all others.
const REST: Duration = Duration::from_secs(1);

/// The targets of one upstream, as all workers see them.
#[derive(Debug)]
pub(super) struct Targets {
    balance: Balance,
    states: Box<[Arc<State>]>,
    turn: AtomicUsize,
    since: Instant,
}

/// How one target is doing.
#[derive(Debug, Default)]
struct State {
    /// Requests that it has and has not answered to the end.
    busy: AtomicUsize,
    /// When it last took no connection, in milliseconds of [`Targets::since`]; 0 for never, or not since it last did.
    failed: AtomicU64,
}

/// A request in a target's count.
#[derive(Debug)]
pub(super) struct Busy(Option<Arc<State>>);

impl Drop for Busy {
    fn drop(&mut self) {
        if let Some(state) = &self.0 {
            state.busy.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Targets {
    pub(super) fn new(count: usize, balance: Balance) -> Self {
        let states = (0..count).map(|_| Arc::default()).collect();
        Self { balance, states, turn: AtomicUsize::new(0), since: Instant::now() }
    }

    /// Every target once, the best first, those that rest last.
    pub(super) fn in_order(&self) -> impl Iterator<Item = usize> + use<> {
        let count = self.states.len();
        let (first, resting) = if count > 1 { (self.first(), self.resting()) } else { (0, 0) };
        let rests = move |index: &usize| *index < 64 && resting >> index & 1 == 1;
        let turns = move || (0..count).map(move |turn| (first + turn) % count);
        turns().filter(move |index| !rests(index)).chain(turns().filter(rests))
    }

    /// Counts a request to a target, where there is a choice to be made by the count.
    pub(super) fn begin(&self, index: usize) -> Busy {
        let state = self.states.get(index).filter(|_| self.states.len() > 1);
        if let Some(state) = state {
            state.busy.fetch_add(1, Ordering::Relaxed);
        }
        Busy(state.cloned())
    }

    /// Remembers whether a target took a connection.
    pub(super) fn note(&self, index: usize, connected: bool) {
        let now = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
        if let Some(state) = self.states.get(index) {
            state.failed.store(if connected { 0 } else { now }, Ordering::Relaxed);
        }
    }

    fn first(&self) -> usize {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let count = self.states.len();
        let in_turn = (0..count).map(|step| turn.wrapping_add(step) % count);
        match self.balance {
            Balance::RoundRobin => turn % count,
            // Of targets that are as busy, the next in turn.
            Balance::LeastBusy => in_turn.min_by_key(|index| self.busy(*index)).unwrap_or_default(),
        }
    }

    fn busy(&self, index: usize) -> usize {
        self.states.get(index).map_or(0, |state| state.busy.load(Ordering::Relaxed))
    }

    /// Which of the first 64 targets rest, as bits.
    fn resting(&self) -> u64 {
        let now = self.since.elapsed();
        let rests = |state: &Arc<State>| {
            let failed = state.failed.load(Ordering::Relaxed);
            failed != 0 && now < Duration::from_millis(failed) + REST
        };
        self.states
            .iter()
            .take(64)
            .enumerate()
            .fold(0, |bits, (index, state)| bits | u64::from(rests(state)) << index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(targets: &Targets) -> Vec<usize> {
        targets.in_order().collect()
    }

    #[test]
    fn each_in_turn() {
        let targets = Targets::new(3, Balance::RoundRobin);
        assert_eq!([order(&targets), order(&targets)], [vec![0, 1, 2], vec![1, 2, 0]]);
    }

    #[test]
    fn the_least_busy_first_and_those_that_rest_last() {
        let targets = Targets::new(3, Balance::LeastBusy);
        let (_first, second) = (targets.begin(0), targets.begin(1));
        assert_eq!(order(&targets).first(), Some(&2));
        drop(second);
        let _third = targets.begin(2);
        assert_eq!(order(&targets).first(), Some(&1));
        targets.note(1, false);
        assert_eq!(order(&targets).last(), Some(&1));
        targets.note(1, true);
        assert_eq!(order(&targets).first(), Some(&1));
    }
}
