//! Numbers that one thread writes and any thread may read.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::labels::Series;

/// A number of one thread's own: a load and a store, never a locked operation. Two writers would lose counts, which is why
/// only a [`Meter`](super::Meter) writes, and that stays on its thread.
#[derive(Debug, Default)]
pub(super) struct Cell(AtomicU64);

impl Cell {
    pub(super) fn add(&self, count: u64) {
        self.0.store(self.get().wrapping_add(count), Ordering::Relaxed);
    }

    pub(super) fn sub(&self, count: u64) {
        self.0.store(self.get().wrapping_sub(count), Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What can be summed over threads.
pub(super) trait Cells: Default {
    /// The sum of several.
    type Sum: Default;

    /// Adds these to a sum.
    fn add_to(&self, sum: &mut Self::Sum);
}

impl Cells for Cell {
    type Sum = u64;

    fn add_to(&self, sum: &mut u64) {
        *sum = sum.wrapping_add(self.get());
    }
}

/// The upper bounds of a histogram's buckets, in microseconds: from what files take to what people give up on.
pub(super) const BOUNDS: [u64; 14] = [
    1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000, 30_000_000,
];

/// How long something took, by bucket.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    buckets: [Cell; BOUNDS.len() + 1],
    micros: Cell,
}

/// Several histograms together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Durations {
    /// How many durations fell between one bound and the next; the last is beyond them all.
    pub buckets: [u64; BOUNDS.len() + 1],
    /// All durations together, in microseconds.
    pub micros: u64,
}

impl Histogram {
    pub(super) fn observe(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let at = BOUNDS.partition_point(|bound| *bound < micros);
        if let Some(bucket) = self.buckets.get(at) {
            bucket.add(1);
        }
        self.micros.add(micros);
    }
}

impl Cells for Histogram {
    type Sum = Durations;

    fn add_to(&self, sum: &mut Durations) {
        sum.buckets.iter_mut().zip(&self.buckets).for_each(|(sum, bucket)| bucket.add_to(sum));
        self.micros.add_to(&mut sum.micros);
    }
}

impl Durations {
    /// How many there are.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Adds others to these.
    pub fn add(&mut self, other: &Self) {
        self.buckets.iter_mut().zip(&other.buckets).for_each(|(sum, more)| *sum += more);
        self.micros += other.micros;
    }

    /// What came since an earlier look.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut since = *self;
        since.buckets.iter_mut().zip(&earlier.buckets).for_each(|(sum, old)| *sum = sum.saturating_sub(*old));
        since.micros = self.micros.saturating_sub(earlier.micros);
        since
    }

    /// The duration that this share of them, from 0 to 1, does not exceed: between the bounds of its bucket as if the bucket
    /// were evenly filled, and the highest bound for what lies beyond. None where there are none.
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an estimate"
    )]
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let rank = share * self.count() as f64;
        let (mut below, mut lower) = (0.0, 0.0);
        for (bucket, upper) in self.buckets.iter().zip(BOUNDS) {
            let count = *bucket as f64;
            if count > 0.0 && below + count >= rank {
                let within = (rank - below) / count;
                return Some(Duration::from_micros((lower + within * (upper as f64 - lower)) as u64));
            }
            (below, lower) = (below + count, upper as f64);
        }
        (self.count() > 0).then_some(Duration::from_micros(lower as u64))
    }
}

/// Cells by label, as the thread that writes them has them. There are few labels: a fault's words, rows, TLS versions.
#[derive(Debug)]
pub(super) struct Family<K, C> {
    own: RefCell<Labelled<K, C>>,
    shown: Shown<K, C>,
}

impl<K: Copy + Eq, C: Cells> Family<K, C> {
    pub(super) fn new(shown: &Shown<K, C>) -> Self {
        Self { own: RefCell::default(), shown: shown.clone() }
    }

    /// The cells of a label. The first time takes a lock.
    pub(super) fn of(&self, key: K) -> Arc<C> {
        let mut own = self.own.borrow_mut();
        if let Some((_, cells)) = own.iter().find(|(known, _)| *known == key) {
            return Arc::clone(cells);
        }
        let cells = self.shown.add(key);
        own.push((key, Arc::clone(&cells)));
        cells
    }
}

/// The same, where a label is a number and there are many.
#[derive(Debug)]
pub(super) struct Numbered<C> {
    own: RefCell<Vec<Option<Arc<C>>>>,
    shown: Shown<Series, C>,
}

impl<C: Cells> Numbered<C> {
    pub(super) fn new(shown: &Shown<Series, C>) -> Self {
        Self { own: RefCell::default(), shown: shown.clone() }
    }

    /// Has something done with the cells of a series. The first time takes a lock.
    pub(super) fn with(&self, series: Series, work: impl FnOnce(&C)) {
        let mut own = self.own.borrow_mut();
        if own.len() <= series.index() {
            own.resize_with(series.index() + 1, || None);
        }
        if let Some(place) = own.get_mut(series.index()) {
            work(place.get_or_insert_with(|| self.shown.add(series)));
        }
    }
}

/// Cells by label, as other threads see them.
#[derive(Debug)]
pub(super) struct Shown<K, C>(Arc<Mutex<Labelled<K, C>>>);

type Labelled<K, C> = Vec<(K, Arc<C>)>;

impl<K, C> Clone for Shown<K, C> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K, C> Default for Shown<K, C> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K: Copy, C: Cells> Shown<K, C> {
    fn add(&self, key: K) -> Arc<C> {
        let cells = Arc::<C>::default();
        self.lock().push((key, Arc::clone(&cells)));
        cells
    }

    /// Adds what this thread has to the sums of all.
    pub(super) fn add_to(&self, sums: &mut BTreeMap<K, C::Sum>)
    where
        K: Ord,
    {
        for (key, cells) in &*self.lock() {
            cells.add_to(sums.entry(*key).or_default());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Labelled<K, C>> {
        // A push either happened or did not.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_fall_into_their_buckets() {
        let histogram = Histogram::default();
        for micros in [0, 1_000, 1_001, 30_000_000, 30_000_001, u64::MAX] {
            histogram.observe(Duration::from_micros(micros));
        }
        let mut sum = Durations::default();
        histogram.add_to(&mut sum);
        assert_eq!((sum.buckets[0], sum.buckets[1], sum.buckets[13], sum.buckets[14]), (2, 1, 1, 2));
        assert_eq!(sum.count(), 6);
    }

    #[test]
    fn quantiles_lie_where_their_bucket_does() {
        let mut sum = Durations::default();
        assert_eq!(sum.quantile(0.5), None);
        (sum.buckets[2], sum.buckets[6]) = (90, 10); // up to 5 ms, up to 100 ms
        assert_eq!(sum.quantile(0.45), Some(Duration::from_micros(3_750)));
        assert_eq!(sum.quantile(0.95), Some(Duration::from_millis(75)));
        let beyond = Durations { buckets: std::array::from_fn(|at| u64::from(at == 14)), micros: 1 };
        assert_eq!(beyond.quantile(0.5), Some(Duration::from_secs(30)));
    }
}
