//! Trace context (W3C Trace Context): a client's trace goes on as it is, and where the site says so one begins here, with the
//! request's id as its own. Where spans are exported, the edge is a participant: what goes on names a span of its own.

use super::forwarded::line;
use crate::observe::spans::{Belonging, SpanId, Spans};
use crate::upstream::Attempts;
use crate::wire::{Head, Known};

/// The flag by which whoever began a trace says that it is recorded, and the one that says that its id is random.
const SAMPLED: u8 = 1;
const RANDOM: u8 = 2;

/// The trace that a request belongs to.
pub(super) struct TraceContext {
    trace: [u8; 32],
    /// The span that the request comes from; None where the trace begins here.
    parent: Option<SpanId>,
    flags: u8,
    /// The edge's own span, where one is exported.
    span: Option<SpanId>,
}

impl TraceContext {
    /// The client's trace: it brings one `traceparent`, which is in order. Otherwise neither that nor its `tracestate` means
    /// anything (section 4.3).
    pub(super) fn of(head: &Head) -> Option<Self> {
        read(head.single(Known::Traceparent).ok()??)
    }

    /// A trace that begins with the request of this id, sampled: what stands behind decides what it records, and would record
    /// nothing of one that is not.
    pub(super) fn begun(id: &str) -> Self {
        let trace = id.as_bytes().try_into().unwrap_or([b'1'; 32]);
        Self { trace, parent: None, flags: SAMPLED, span: None }
    }

    /// The edge takes part where spans are exported: of a client's trace where that is sampled, of its own as `sample` says.
    pub(super) fn recorded_by(mut self, spans: &Spans) -> Self {
        let mut sampled = self.flags & SAMPLED != 0 && spans.is_on();
        if self.parent.is_none()
            && let Some(own) = spans.samples(&self.trace)
        {
            (sampled, self.flags) = (own, if own { SAMPLED } else { 0 });
        }
        self.span = sampled.then(SpanId::random);
        self
    }

    pub(super) fn trace_id(&self) -> &str {
        std::str::from_utf8(&self.trace).unwrap_or_default()
    }

    /// Where the edge's own span belongs; None where there is none.
    pub(super) fn recorded(&self) -> Option<Belonging> {
        Some(Belonging { trace: self.trace, span: self.span?, parent: self.parent })
    }

    /// For the tries at an upstream, where they are recorded.
    pub(super) fn attempts(&self) -> Option<Box<Attempts>> {
        self.span.map(|_| Box::new(Attempts::none()))
    }

    /// Whether a field of the client's goes on as it is.
    pub(super) fn passes(&self, known: Known) -> bool {
        self.parent.is_some() && (known == Known::Tracestate || self.span.is_none())
    }

    /// Writes it for the upstream, where it is not passed on as it came. `span` is the edge's that the upstream's is below.
    pub(super) fn write(&self, out: &mut Vec<u8>, span: Option<SpanId>) {
        if self.passes(Known::Traceparent) {
            return;
        }
        let half = self.trace.get(16..).unwrap_or_default();
        let parent = span.as_ref().map_or(half, |span| span.as_str().as_bytes());
        let flags = [b'0', b'0' + (self.flags & (SAMPLED | RANDOM))];
        line(out, b"traceparent: ", &[b"00-", &self.trace[..], b"-", parent, b"-", &flags].concat());
    }
}

/// Whether a field belongs to a trace.
pub(super) fn is_part(known: Known) -> bool {
    matches!(known, Known::Traceparent | Known::Tracestate)
}

/// Section 3.2.2, and for versions to come section 3.2.4.
fn read(value: &[u8]) -> Option<TraceContext> {
    let (known, rest) = value.split_at(value.len().min(LENGTH));
    let parts: Vec<&[u8]> = known.split(|octet| *octet == b'-').collect();
    let [version, trace, parent, flags] = parts[..] else { return None };
    let in_order = is_hex(version)
        && version.len() == 2
        && version != b"ff"
        && is_id(trace)
        && is_id(parent)
        && is_hex(flags)
        && flags.len() == 2
        && (rest.is_empty() || version != b"00" && rest.starts_with(b"-"));
    let flags_of = |text| u8::from_str_radix(std::str::from_utf8(text).ok()?, 16).ok();
    let context = TraceContext {
        trace: trace.try_into().ok()?,
        parent: Some(SpanId::read(parent)?),
        flags: flags_of(flags)?,
        span: None,
    };
    in_order.then_some(context)
}

fn is_id(text: &[u8]) -> bool {
    is_hex(text) && text.iter().any(|digit| *digit != b'0')
}

fn is_hex(text: &[u8]) -> bool {
    text.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
}

/// Of a `traceparent` of version 00, in octets.
const LENGTH: usize = 55;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_read_as_the_recommendation_says() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7";
        let zeros = format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32));
        for (value, expected) in [
            (format!("00-{trace}-01"), true),
            (format!("00-{trace}-00"), true),
            (format!("cc-{trace}-01-what-will-be"), true),
            (format!("00-{trace}-01-what-will-be"), false),
            (format!("cc-{trace}-01what"), false),
            (format!("ff-{trace}-01"), false),
            (format!("00-{}-01", trace.to_uppercase()), false),
            (format!("00-{trace}-1"), false),
            (format!("00-{}-{}-01", &trace[..32], "0".repeat(16)), false),
            (format!(" 00-{trace}-01"), false),
            (zeros, false),
            (String::new(), false),
        ] {
            let read = read(value.as_bytes());
            assert_eq!(read.is_some(), expected, "{value}");
            assert!(
                read.is_none_or(|read| read.trace_id() == &trace[..32] && read.passes(Known::Traceparent))
            );
        }
    }

    #[test]
    fn what_goes_on_names_the_edge_s_span_where_there_is_one() {
        let (own, theirs) = ("0af7651916cd43dd8448eb211c80319c", "4bf92f3577b34da6a3ce929d0e0e4736");
        let brought = |flags: &str| read(format!("00-{theirs}-00f067aa0ba902b7-{flags}").as_bytes()).unwrap();
        let spans = Spans::default();
        let told = |context: TraceContext, spans: &Spans| {
            let (context, mut out) = (context.recorded_by(spans), Vec::new());
            let span = context.attempts().map(|attempts| attempts.named());
            context.write(&mut out, span);
            let text = String::from_utf8(out).unwrap();
            (text.replace(span.as_ref().map_or("none", SpanId::as_str), "SPAN"), context.recorded().is_some())
        };
        let half = format!("traceparent: 00-{own}-8448eb211c80319c");
        assert_eq!(told(TraceContext::begun(own), &spans), (format!("{half}-01\r\n"), false));
        assert_eq!(told(brought("01"), &spans), (String::new(), false));
        spans.set(Some(1.0));
        assert_eq!(
            told(TraceContext::begun(own), &spans),
            (format!("traceparent: 00-{own}-SPAN-01\r\n"), true)
        );
        assert_eq!(told(brought("ff"), &spans), (format!("traceparent: 00-{theirs}-SPAN-03\r\n"), true));
        assert_eq!(told(brought("00"), &spans), (String::new(), false));
        spans.set(Some(0.0));
        assert_eq!(told(TraceContext::begun(own), &spans), (format!("{half}-00\r\n"), false));
        assert!(told(brought("01"), &spans).1, "whoever began it has decided");
    }
}
