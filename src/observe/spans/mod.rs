//! Requests of sampled traces, on their way to a collector.
//!
//! A worker leaves what is over in one bounded queue, whose lock is held for no longer than that takes; what finds no room
//! there is dropped and counted. The control thread takes it from there in batches. While nothing is exported, a request
//! costs one look at a number, and only where it belongs to a trace.

mod json;
mod seen;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

pub use json::encode;
pub use seen::{Belonging, Seen, SpanId, Try};

/// How many spans may wait, as OpenTelemetry's batch processor has it.
const QUEUE: usize = 2048;
/// How many go out at once, or a few more: those of one request stay together.
const BATCH: usize = 512;
/// How long a span waits for others.
const DELAY: Duration = Duration::from_secs(5);
/// All traces that begin here: the share of none is 0, and anything larger means that nothing is exported.
const ALL: u64 = 1 << 63;

/// The spans of all workers. Clones are handles of the same ones.
#[derive(Debug, Clone)]
pub struct Spans(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// The share of traces that begin here and are sampled, of [`ALL`].
    share: AtomicU64,
    queue: Mutex<Queue>,
    filled: Notify,
    outcomes: [AtomicU64; OUTCOMES.len()],
}

#[derive(Debug, Default)]
struct Queue {
    seen: Vec<Seen>,
    spans: usize,
}

/// What became of a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The collector took it.
    Exported,
    /// It found no room in the queue.
    Dropped,
    /// The collector did not take it.
    Failed,
}

const OUTCOMES: [(Outcome, &str); 3] =
    [(Outcome::Exported, "exported"), (Outcome::Dropped, "dropped"), (Outcome::Failed, "failed")];

impl Default for Spans {
    fn default() -> Self {
        let (queue, filled, outcomes) = Default::default();
        Self(Arc::new(Shared { share: AtomicU64::new(u64::MAX), queue, filled, outcomes }))
    }
}

impl Spans {
    /// Exports from now on, and samples this share of the traces that begin here; with None it exports nothing.
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share"
    )]
    pub fn set(&self, sample: Option<f64>) {
        let share = sample.map_or(u64::MAX, |sample| ((sample * ALL as f64) as u64).min(ALL));
        self.0.share.store(share, Ordering::Relaxed);
    }

    /// Whether anything is exported.
    pub fn is_on(&self) -> bool {
        self.0.share.load(Ordering::Relaxed) <= ALL
    }

    /// Whether a trace that begins here is sampled, by its id alone, as OpenTelemetry's `traceidratio` does it; None where
    /// nothing is exported.
    pub fn samples(&self, trace: &[u8; 32]) -> Option<bool> {
        let share = self.0.share.load(Ordering::Relaxed);
        let low = std::str::from_utf8(trace.get(16..)?).ok()?;
        (share <= ALL).then(|| u64::from_str_radix(low, 16).is_ok_and(|low| low >> 1 < share))
    }

    /// Leaves a request that is over.
    pub fn put(&self, seen: Seen) {
        let more = seen.spans();
        let mut queue = self.lock();
        let before = queue.spans;
        if before + more > QUEUE {
            drop(queue);
            return self.count(Outcome::Dropped, more);
        }
        queue.spans += more;
        queue.seen.push(seen);
        drop(queue);
        if before == 0 || before < BATCH && before + more >= BATCH {
            self.0.filled.notify_one();
        }
    }

    /// Waits until there is a batch, or something that has waited long enough, and takes it. One may wait at a time, and may
    /// stop at any time.
    pub async fn batch(&self) -> Vec<Seen> {
        self.until(1).await;
        // A wait that is over is as good as a batch that is full.
        let _ = timeout(DELAY, self.until(BATCH)).await;
        self.take()
    }

    /// What a batch would be just now.
    pub fn take(&self) -> Vec<Seen> {
        let mut queue = self.lock();
        let mut spans = 0;
        let fits = |seen: &&Seen| {
            spans += seen.spans();
            spans <= BATCH
        };
        let many = queue.seen.iter().take_while(fits).count().max(1).min(queue.seen.len());
        let batch: Vec<_> = queue.seen.drain(..many).collect();
        queue.spans -= batch.iter().map(Seen::spans).sum::<usize>();
        batch
    }

    /// Counts what became of spans.
    pub fn count(&self, outcome: Outcome, spans: usize) {
        if let Some(sum) = self.0.outcomes.get(outcome as usize) {
            sum.fetch_add(spans as u64, Ordering::Relaxed);
        }
    }

    /// How many spans had this outcome.
    pub fn sum(&self, outcome: Outcome) -> u64 {
        self.0.outcomes.get(outcome as usize).map_or(0, |sum| sum.load(Ordering::Relaxed))
    }

    /// Each outcome by its name.
    pub fn sums(&self) -> impl Iterator<Item = (&'static str, u64)> {
        OUTCOMES.into_iter().map(|(outcome, name)| (name, self.sum(outcome)))
    }

    async fn until(&self, spans: usize) {
        while self.lock().spans < spans {
            self.0.filled.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Whatever was being done, the queue is whole.
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(tries: usize) -> Seen {
        Seen { tries: vec![Try::default(); tries], ..Seen::default() }
    }

    #[test]
    fn a_burst_is_bounded_and_what_finds_no_room_is_counted() {
        let spans = Spans::default();
        (0..3000).for_each(|_| spans.put(seen(1)));
        assert_eq!(spans.sum(Outcome::Dropped), 6000 - 2048);
        let batches: Vec<_> =
            std::iter::repeat_with(|| spans.take()).take_while(|batch| !batch.is_empty()).collect();
        assert!(batches.iter().all(|batch| batch.len() == BATCH / 2) && batches.len() == QUEUE / BATCH);
        spans.put(seen(BATCH));
        assert_eq!(spans.take().len(), 1, "one that is larger than a batch goes alone");
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_waits_until_it_is_full_or_for_a_moment() {
        let spans = Spans::default();
        let began = tokio::time::Instant::now();
        spans.put(seen(0));
        assert_eq!((spans.batch().await.len(), began.elapsed() >= DELAY), (1, true));
        let began = tokio::time::Instant::now();
        (0..BATCH).for_each(|_| spans.put(seen(0)));
        assert_eq!((spans.batch().await.len(), began.elapsed() < DELAY), (BATCH, true));
    }

    #[test]
    fn a_share_of_the_traces_is_sampled_by_their_ids() {
        let spans = Spans::default();
        let trace = |low: u64| <[u8; 32]>::try_from(format!("{:016x}{low:016x}", 1).as_bytes()).unwrap();
        assert!(!spans.is_on() && spans.samples(&trace(0)).is_none());
        for (share, low, expected) in [
            (0.0, 0, false),
            (1.0, u64::MAX, true),
            (0.5, u64::MAX / 2 - 1, true),
            (0.5, u64::MAX / 2 + 1, false),
            (0.1, u64::MAX / 10 - 10, true),
            (0.1, u64::MAX / 10 + 10_000, false),
        ] {
            spans.set(Some(share));
            assert!(spans.is_on());
            assert_eq!(spans.samples(&trace(low)), Some(expected), "{low:x} of {share}");
        }
    }
}
