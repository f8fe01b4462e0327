//! Spans to a collector, by OTLP over HTTP: in batches, beside all that serves. What the collector has no time for is tried
//! again, what it refuses is counted, and no request waits for either.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Notify;
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{Instant, sleep, timeout};

use crate::client::{Client, one_line, retry_after};
use crate::config::model::Tracing;
use crate::observe::spans::{Outcome, Seen, Spans, encode};
use crate::snapshot::{Live, Snapshot};
use crate::tls::upstream::ClientTls;

/// How long the collector may take, as OpenTelemetry's exporters have it.
const ANSWER: Duration = Duration::from_secs(10);
/// The waits before each try but the first, in seconds, where the collector does not say how long to wait.
const PAUSES: [u64; 5] = [1, 2, 4, 8, 16];
/// The longest wait that it may ask for.
const LONGEST_PAUSE: Duration = Duration::from_hours(1);
/// The log is told of each kind of trouble so often.
const QUIET: Duration = Duration::from_mins(1);
/// The most of a collector's own words that the log shows, in characters.
const MAX_WORDS: usize = 200;

/// The task that exports.
#[derive(Debug)]
pub(super) struct Exporter {
    spans: Spans,
    /// The configuration was changed.
    changed: Arc<Notify>,
    leave: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Exporter {
    /// Begins. Call inside a `LocalSet`.
    pub(super) fn start(live: &Live, spans: &Spans) -> Self {
        let (changed, leave) = <(Arc<Notify>, Arc<Notify>)>::default();
        let work = Work {
            live: live.clone(),
            spans: spans.clone(),
            changed: Arc::clone(&changed),
            leave: Arc::clone(&leave),
            leaving: false,
            collector: None,
            dropped: 0,
            told: HashMap::new(),
        };
        let exporter = Self { spans: spans.clone(), changed, leave, task: spawn_local(work.run()) };
        exporter.obey(&live.load());
        exporter
    }

    /// Takes up what a configuration says.
    pub(super) fn obey(&self, snapshot: &Snapshot) {
        self.spans.set(snapshot.config.trace.as_ref().map(|trace| trace.sample));
        // Whoever does not wait just now looks by himself.
        self.changed.notify_waiters();
    }

    /// Sends what waits, each batch once, for so long at most.
    pub(super) async fn finish(&mut self, within: Duration) {
        self.leave.notify_one();
        if timeout(within, &mut self.task).await.is_err() {
            tracing::warn!("the last spans could not be exported in time");
        }
    }
}

/// What the task has.
struct Work {
    live: Live,
    spans: Spans,
    changed: Arc<Notify>,
    leave: Arc<Notify>,
    leaving: bool,
    collector: Option<Collector>,
    /// How many spans had found no room when the log was told last.
    dropped: u64,
    /// When the log was told what.
    told: HashMap<&'static str, Instant>,
}

/// Where spans go by one configuration.
struct Collector {
    generation: u64,
    tracing: Tracing,
    headers: Vec<(HeaderName, HeaderValue)>,
    client: Client,
}

/// Why spans were not taken.
struct Untaken {
    why: String,
    again: Again,
}

/// Whether another try may help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Again {
    No,
    Soon,
    /// The collector says when.
    After(Duration),
}

/// What a collector says: to what it took, and to what it did not.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Said {
    partial_success: Option<Partial>,
    message: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Partial {
    /// A number, which JSON has as text where it may be large.
    rejected_spans: Value,
    error_message: Option<String>,
}

impl Work {
    async fn run(mut self) {
        loop {
            let batch = tokio::select! {
                batch = self.spans.batch(), if !self.leaving => batch,
                () = self.leave.notified(), if !self.leaving => {
                    self.leaving = true;
                    continue;
                }
                batch = async { self.spans.take() }, if self.leaving => batch,
            };
            if batch.is_empty() && self.leaving {
                return;
            }
            self.deliver(batch).await;
            self.tell_dropped();
        }
    }

    /// Until the collector has it, or will not have it.
    async fn deliver(&mut self, batch: Vec<Seen>) {
        let count = batch.iter().map(Seen::spans).sum();
        let mut pauses = PAUSES.into_iter();
        loop {
            let Some(untaken) = self.send(&batch, count).await else { return };
            let next = if self.leaving { None } else { pauses.next() };
            let pause = match (next, untaken.again) {
                (Some(pause), Again::Soon) => jittered(Duration::from_secs(pause)),
                // A collector that asks for no wait would be asked five times at once.
                (Some(pause), Again::After(asked)) => {
                    asked.max(jittered(Duration::from_secs(pause))).min(LONGEST_PAUSE)
                }
                (None, _) | (_, Again::No) => {
                    self.spans.count(Outcome::Failed, count);
                    self.tell(&untaken.why, "spans were not exported, and are lost");
                    return;
                }
            };
            let why = format!("{}; again in {} s", untaken.why, pause.as_secs().max(1));
            self.tell(&why, "spans cannot be exported just now; tried again");
            self.wait(pause).await;
        }
    }

    /// Waits, unless the collector is another one meanwhile, or it is time to leave.
    async fn wait(&mut self, pause: Duration) {
        let generation = self.live.load().generation;
        if self.collector.as_ref().is_some_and(|known| known.generation != generation) {
            return;
        }
        tokio::select! {
            () = sleep(pause) => {}
            () = self.changed.notified() => {}
            () = self.leave.notified() => self.leaving = true,
        }
    }

    /// One try. None where the spans are counted.
    async fn send(&mut self, batch: &[Seen], count: usize) -> Option<Untaken> {
        let snapshot = self.live.load();
        let Some(tracing) = &snapshot.config.trace else {
            self.spans.count(Outcome::Dropped, count);
            // By the configuration, and not for want of room.
            self.dropped += count as u64;
            return None;
        };
        let body = encode(batch, &tracing.service, snapshot.table.labels()).into();
        let collector = match self.collector.take().filter(|known| known.generation == snapshot.generation) {
            Some(known) => Ok(known),
            None => Collector::of(snapshot.generation, tracing),
        };
        let posted = match collector {
            Ok(collector) => self.collector.insert(collector).post(body).await,
            Err(why) => Err(Untaken { why, again: Again::No }),
        };
        match posted {
            Ok(refused) => {
                self.took(count, refused);
                None
            }
            Err(untaken) => Some(untaken),
        }
    }

    /// The collector has the batch, but for what it refused of it.
    fn took(&mut self, count: usize, (lost, why): (usize, String)) {
        let lost = lost.min(count);
        self.spans.count(Outcome::Exported, count - lost);
        self.spans.count(Outcome::Failed, lost);
        if lost > 0 || !why.is_empty() {
            self.tell(
                &format!("it refused {lost} of {count}: {why}"),
                "the collector did not take all spans",
            );
        }
    }

    fn tell_dropped(&mut self) {
        let dropped = self.spans.sum(Outcome::Dropped);
        if dropped > self.dropped && self.live.load().config.trace.is_some() {
            let why = format!("{} more than the queue holds", dropped - self.dropped);
            if self.tell(&why, "spans come faster than they can be exported, and some were dropped") {
                self.dropped = dropped;
            }
        }
    }

    /// Tells the log, once in a while; false where it was told a moment ago.
    fn tell(&mut self, why: &str, message: &'static str) -> bool {
        if self.told.get(message).is_some_and(|told| told.elapsed() < QUIET) {
            return false;
        }
        self.told.insert(message, Instant::now());
        let url = self.collector.as_ref().map(|collector| &*collector.tracing.url);
        let (dropped, failed) = (self.spans.sum(Outcome::Dropped), self.spans.sum(Outcome::Failed));
        tracing::warn!(url, why, dropped, failed, "{message}");
        true
    }
}

impl Collector {
    fn of(generation: u64, tracing: &Tracing) -> Result<Self, String> {
        let headers = tracing.read_headers()?;
        Ok(Self { generation, tracing: tracing.clone(), headers, client: Client::new(ClientTls::new()) })
    }

    /// Posts a batch. Returns how many of it were refused, and why.
    async fn post(&self, body: Bytes) -> Result<(usize, String), Untaken> {
        let mut request = Request::builder().method(Method::POST).uri(&self.tracing.url);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let request = request.header(CONTENT_TYPE, "application/json").body(Full::from(body));
        let request = request.map_err(|error| Untaken { why: error.to_string(), again: Again::No })?;
        match timeout(ANSWER, self.client.exchange(request)).await {
            Ok(Ok(answer)) => judge(&answer),
            Ok(Err(error)) => Err(Untaken { why: error.to_string(), again: Again::Soon }),
            Err(_) => Err(Untaken { why: "it did not answer in time".to_owned(), again: Again::Soon }),
        }
    }
}

/// What an answer says of the spans (the OTLP specification, "OTLP/HTTP Response").
fn judge(answer: &Response<Bytes>) -> Result<(usize, String), Untaken> {
    let status = answer.status();
    let said: Said = serde_json::from_slice(answer.body()).unwrap_or_default();
    if status.is_success() {
        let partial = said.partial_success.unwrap_or_default();
        let refused = &partial.rejected_spans;
        let refused = refused.as_str().map_or_else(|| refused.as_u64(), |number| number.parse().ok());
        let refused = usize::try_from(refused.unwrap_or_default()).unwrap_or(usize::MAX);
        return Ok((refused, one_line(&partial.error_message.unwrap_or_default(), MAX_WORDS)));
    }
    let passing = matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    );
    let why = format!("it answered {status} {}", one_line(&said.message.unwrap_or_default(), MAX_WORDS));
    let asked = answer.headers().get(RETRY_AFTER).and_then(retry_after);
    let again = if passing { asked.map_or(Again::Soon, Again::After) } else { Again::No };
    Err(Untaken { why: why.trim_end().to_owned(), again })
}

/// Edges that were turned away together do not come back together.
fn jittered(pause: Duration) -> Duration {
    let share = f64::from(getrandom::u32().unwrap_or_default()) / f64::from(u32::MAX);
    pause.mul_f64(0.5 + share)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, wait: &str, body: &'static str) -> Response<Bytes> {
        let response = Response::builder().status(status).header(RETRY_AFTER, wait);
        response.body(Bytes::from_static(body.as_bytes())).unwrap()
    }

    #[test]
    fn answers_are_judged_as_the_specification_says() {
        for (body, expected) in [
            ("", 0),
            ("{}", 0),
            ("{\"partialSuccess\":null}", 0),
            ("{\"partialSuccess\":{\"rejectedSpans\":\"3\"}}", 3),
            ("{\"partialSuccess\":{\"rejectedSpans\":4}}", 4),
            ("{\"partialSuccess\":{\"rejectedSpans\":\"5\",\"errorMessage\":null}}", 5),
            ("{\"partialSuccess\":{\"rejectedSpans\":-1}}", 0),
        ] {
            let judged = judge(&answer(200, "1", body)).ok();
            assert_eq!(judged.map(|(refused, _)| refused), Some(expected), "{body}");
        }
        for (status, wait, expected) in [
            (429, "7", Again::After(Duration::from_secs(7))),
            (503, "soon", Again::Soon),
            (502, "0", Again::After(Duration::ZERO)),
            (504, "", Again::Soon),
            (400, "7", Again::No),
            (500, "7", Again::No),
            (307, "7", Again::No),
        ] {
            let untaken = judge(&answer(status, wait, "{\"code\":3,\"message\":\"no\\nno\"}")).unwrap_err();
            assert_eq!(untaken.again, expected, "{status}");
            assert!(untaken.why.ends_with("no no"), "{}", untaken.why);
        }
    }
}
