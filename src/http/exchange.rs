//! One request and its answer, as a record. Dropping it writes the one access line, however the exchange ended.

use std::cell::{Cell, OnceCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::link::Link;
use super::request::Request;
use super::trace::TraceContext;
use super::worker::Worker;
use crate::addr::ClientAddr;
use crate::fault::Fault;
use crate::observe::access::{Line, Tls};
use crate::observe::metrics::{Measured, Series};
use crate::observe::spans::{Belonging, Seen, Try};
use crate::route::{Policy, SiteEntry};
use crate::upstream::{Attempt, Trace};
use crate::wire::Known;

/// A request's record.
pub(super) struct Exchange {
    pub(super) worker: Rc<Worker>,
    pub(super) link: Rc<Link>,
    pub(super) id: RequestId,
    /// None when the head could not be read.
    pub(super) request: Option<Request>,
    /// The true client.
    pub(super) client: ClientAddr,
    pub(super) site: Option<Arc<SiteEntry>>,
    /// What the route adds; None: nothing, or no route was found.
    pub(super) policy: Option<Arc<Policy>>,
    /// How its client stands with the route's rate, as `RateLimit` tells it.
    pub(super) standing: OnceCell<String>,
    /// Who said the password that the route asks for.
    pub(super) user: OnceCell<Box<str>>,
    /// What it is counted as.
    pub(super) series: Series,
    pub(super) trace: Trace,
    /// The trace that it belongs to, once somebody has asked.
    context: OnceCell<Option<TraceContext>>,
    pub(super) fault: Option<Fault>,
    /// 0 until an answer was begun.
    pub(super) status: u16,
    /// Octets of the request's body that were read.
    pub(super) received: Rc<Cell<u64>>,
    /// Octets of the answer's body that were written.
    pub(super) sent: u64,
    time: SystemTime,
    /// When the head was whole.
    pub(super) start: Instant,
}

impl Exchange {
    pub(super) fn new(link: &Rc<Link>, request: Option<Request>) -> Self {
        link.worker.lobby.meter.begin();
        link.seat.count_request();
        Self {
            worker: Rc::clone(&link.worker),
            link: Rc::clone(link),
            id: link.worker.ids.make(),
            request,
            client: link.peer,
            site: None,
            policy: None,
            standing: OnceCell::new(),
            user: OnceCell::new(),
            series: Series::NONE,
            trace: Trace::default(),
            context: OnceCell::new(),
            fault: None,
            status: 0,
            received: Rc::default(),
            sent: 0,
            time: SystemTime::now(),
            start: Instant::now(),
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let line = self.line();
        self.worker.lobby.meter.end(&self.measured(&line));
        self.worker.lobby.access.write(&line);
        self.tell_broken();
        if let Some(belonging) = self.context(false).and_then(TraceContext::recorded) {
            let seen = self.seen(&line, belonging);
            self.worker.lobby.access.spans().put(seen);
        }
    }
}

impl Exchange {
    /// Since the head was whole.
    pub(super) fn elapsed(&self) -> std::time::Duration {
        self.start.elapsed()
    }

    /// The site that was found, and what its requests are counted as until a route is.
    pub(super) fn found(&mut self, site: Arc<SiteEntry>) {
        self.series = site.series;
        // A handshake has named it already.
        if self.link.tls.is_none() {
            self.link.seat.is_for(site.series);
        }
        self.site = Some(site);
    }

    /// What an upstream did to it, for the access line has no room for more than a word.
    fn tell_broken(&self) {
        let (error, source) = match &self.fault {
            Some(fault @ Fault::UpstreamBroken { source, .. }) => (fault, source.as_ref()),
            Some(fault @ Fault::Unanswered { .. }) => (fault, None),
            _ => return,
        };
        let upstream = self.trace.peer.as_deref().unwrap_or_default();
        let source = source.map(tracing::field::display);
        tracing::warn!(request_id = %self.id, upstream, %error, source, "an upstream failed a request");
    }

    /// The trace that it belongs to: its client's or, where it `begins` one and its client has none, its own. The first who
    /// asks decides.
    pub(super) fn context(&self, begins: bool) -> Option<&TraceContext> {
        let found = || {
            let request = self.request.as_ref()?;
            let brought = TraceContext::of(&request.head);
            let context = brought.or_else(|| begins.then(|| TraceContext::begun(&self.id)))?;
            Some(context.recorded_by(self.worker.lobby.access.spans()))
        };
        self.context.get_or_init(found).as_ref()
    }

    /// What it tells a collector.
    fn seen(&self, line: &Line<'_>, belonging: Belonging) -> Seen {
        let attempts = self.trace.attempts.iter().flat_map(|attempts| attempts.all());
        let tell = |attempt: &Attempt| Try {
            span: attempt.span,
            peer: Arc::clone(&attempt.peer),
            began: attempt.began.saturating_duration_since(self.start),
            took: attempt.ended.map_or_else(|| attempt.began.elapsed(), |ended| ended - attempt.began),
            status: attempt.status,
            // What it still waited for at the end, the end kept from coming.
            error: attempt.error.or_else(|| line.refused().filter(|_| attempt.ended.is_none())),
        };
        Seen::of(line, belonging, attempts.map(tell).collect())
    }

    fn measured(&self, line: &Line<'_>) -> Measured {
        let is_websocket = self.request.as_ref().is_some_and(|request| request.websocket);
        Measured {
            series: self.series,
            status: line.status,
            fault: line.refused(),
            total: (!is_websocket).then_some(line.total),
            first_byte: line.first_byte,
            retries: self.trace.tries.saturating_sub(1),
            received: line.request_bytes,
            sent: line.response_bytes,
        }
    }

    fn line(&self) -> Line<'_> {
        let left = matches!(self.fault, Some(Fault::ClientGone));
        let mut line = Line {
            status: if left && self.status == 0 { 499 } else { self.status },
            request_bytes: self.received.get(),
            response_bytes: self.sent,
            upstream: self.trace.peer.as_deref(),
            connect: self.trace.connect,
            first_byte: self.trace.first_byte,
            total: self.start.elapsed(),
            tls: self.link.tls.as_ref().map(|tls| Tls {
                version: tls.version,
                suite: tls.suite,
                resumed: tls.resumed,
            }),
            request_id: &self.id,
            trace_id: self.context(false).map_or("", TraceContext::trace_id),
            row: &self.link.row_name,
            site: self
                .site
                .as_ref()
                .and_then(|site| site.canonical.as_ref())
                .map(crate::name::Hostname::as_str),
            fault: self.fault.as_ref(),
            series: self.series,
            tries: self.trace.tries,
            user: self.user.get().map(|user| &**user),
            ..Line::new(self.time, self.client.ip())
        };
        if let Some(request) = &self.request {
            line.host = request.host().unwrap_or_default();
            line.method = request.method.as_str();
            line.path = request.target();
            line.protocol = request.protocol.as_str();
            line.referer = request.head.first(Known::Referer);
            line.user_agent = request.head.first(Known::UserAgent);
        }
        line
    }
}

/// 128 random bits in hexadecimal.
#[derive(Clone, Copy)]
pub(super) struct RequestId([u8; 32]);

impl std::ops::Deref for RequestId {
    type Target = str;

    fn deref(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl std::fmt::Display for RequestId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self)
    }
}

/// A worker's source of request ids: unique, not secret. `SplitMix64` from a random start.
pub(super) struct RequestIds(Cell<(u64, u64)>);

impl RequestIds {
    pub(super) fn new() -> Self {
        let seed = || getrandom::u64().unwrap_or_else(|_| u64::from(std::process::id()));
        Self(Cell::new((seed(), seed())))
    }

    pub(super) fn make(&self) -> RequestId {
        let (first, second) = self.0.get();
        self.0.set((first.wrapping_add(GOLDEN), second.wrapping_add(GOLDEN)));
        let bits = (u128::from(mix(first)) << 64) | u128::from(mix(second));
        let mut text = [0; 32];
        for (digits, octet) in text.chunks_exact_mut(2).zip(bits.to_be_bytes()) {
            digits.copy_from_slice(&[digit(octet >> 4), digit(octet & 15)]);
        }
        RequestId(text)
    }
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

fn digit(value: u8) -> u8 {
    if value < 10 { b'0' + value } else { b'a' + value - 10 }
}

fn mix(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}
