//! How the edge did lately: a sample a second for five minutes, and one a minute for a day.

use std::collections::VecDeque;
use std::time::Duration;

use super::metrics::{Durations, Reading};

/// So many samples of a second are kept.
pub const SECONDS: usize = 300;
/// So many samples of a minute are kept.
pub const MINUTES: usize = 24 * 60;
/// So many looks are a minute.
const LOOKS: u32 = 60;

/// What a stretch of time was like.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Sample {
    /// Requests that came to their end, a second.
    pub requests: f32,
    /// Requests that were refused, connections that were not let in among them, a second.
    pub refused: f32,
    /// Answers of 500 and more, a second.
    pub failed: f32,
    /// What half of the requests took at most, in milliseconds; 0 where there were none.
    pub median: f32,
    /// What 95 of a hundred took at most, in milliseconds; 0 where there were none.
    pub slow: f32,
}

/// The samples. Takes no memory before the first look.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// The latest seconds, the oldest first.
    pub seconds: VecDeque<Sample>,
    /// The latest minutes, the oldest first.
    pub minutes: VecDeque<Sample>,
    last: Option<Look>,
    minute: Option<Look>,
    looks: u32,
}

/// Everything until some moment.
#[derive(Debug, Clone, Copy)]
struct Look {
    at: Duration,
    requests: u64,
    refused: u64,
    failed: u64,
    durations: Durations,
}

impl History {
    /// Takes a look at what was counted until `at`, since whatever moment. Call it once a second.
    pub fn look(&mut self, at: Duration, reading: &Reading) {
        let now = Look::of(at, reading);
        if let Some(last) = self.last.replace(now) {
            keep(&mut self.seconds, SECONDS, now.since(&last));
        }
        let minute = *self.minute.get_or_insert(now);
        self.looks += 1;
        if self.looks > LOOKS {
            self.looks = 1;
            self.minute = Some(now);
            keep(&mut self.minutes, MINUTES, now.since(&minute));
        }
    }
}

fn keep(samples: &mut VecDeque<Sample>, most: usize, sample: Sample) {
    if samples.len() == most {
        samples.pop_front();
    }
    samples.push_back(sample);
}

impl Look {
    fn of(at: Duration, reading: &Reading) -> Self {
        let mut look = Self {
            at,
            requests: 0,
            refused: reading.refused.values().sum::<u64>() + reading.refusals,
            failed: 0,
            durations: Durations::default(),
        };
        for sum in reading.routes.values() {
            look.requests += sum.statuses.total();
            look.failed += sum.statuses.failed();
            look.durations.add(&sum.total);
        }
        look
    }

    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "for a picture")]
    fn since(&self, earlier: &Self) -> Sample {
        let seconds = self.at.saturating_sub(earlier.at).as_secs_f64().max(0.001);
        let rate = |now: u64, then: u64| (now.saturating_sub(then) as f64 / seconds) as f32;
        let durations = self.durations.since(&earlier.durations);
        let millis =
            |share| durations.quantile(share).map_or(0.0, |time| (time.as_secs_f64() * 1000.0) as f32);
        Sample {
            requests: rate(self.requests, earlier.requests),
            refused: rate(self.refused, earlier.refused),
            failed: rate(self.failed, earlier.failed),
            median: millis(0.5),
            slow: millis(0.95),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::metrics::{Measured, Metrics};

    #[test]
    fn seconds_and_minutes_are_sampled_and_bounded() {
        let (metrics, mut history) = (Metrics::default(), History::default());
        let meter = metrics.meter();
        let took = |millis, status, fault| Measured {
            status,
            fault,
            total: Some(Duration::from_millis(millis)),
            ..Measured::default()
        };
        for second in 0..=400 {
            history.look(Duration::from_secs(second), &metrics.read());
            for measured in [took(2, 200, None), took(4, 403, Some("forbidden")), took(90, 502, Some("down"))]
            {
                meter.begin();
                meter.end(&measured);
            }
        }
        assert_eq!((history.seconds.len(), history.minutes.len()), (SECONDS, 6));
        for sample in history.seconds.iter().chain(&history.minutes) {
            assert_eq!((sample.requests, sample.refused, sample.failed), (3.0, 1.0, 1.0));
            assert!(sample.median < 5.0 && sample.slow > 50.0, "{sample:?}");
        }
        history.look(Duration::from_secs(402), &metrics.read());
        assert_eq!(history.seconds.back().map(|sample| sample.requests), Some(1.5));
    }
}
