//! Trace context (W3C Trace Context, level 1): a client's trace goes on as it is, and where the site says so one begins
//! here, with the request's id as its own.

use super::forwarded::line;
use crate::wire::{Head, Known};

/// The trace that a request belongs to.
pub(super) struct TraceContext {
    trace: [u8; 32],
    /// The span that the request comes from; None where the trace begins here.
    parent: Option<[u8; 16]>,
}

impl TraceContext {
    /// The client's trace: it brings one `traceparent`, which is in order. Otherwise neither that nor its `tracestate` means
    /// anything (section 4.3).
    pub(super) fn of(head: &Head) -> Option<Self> {
        read(head.single(Known::Traceparent).ok()??)
    }

    /// A trace that begins with the request of this id.
    pub(super) fn begun(id: &str) -> Self {
        Self { trace: id.as_bytes().try_into().unwrap_or([b'1'; 32]), parent: None }
    }

    pub(super) fn is_begun(&self) -> bool {
        self.parent.is_none()
    }

    pub(super) fn trace_id(&self) -> &str {
        std::str::from_utf8(&self.trace).unwrap_or_default()
    }

    /// Writes it for the upstream, sampled: what stands behind decides what it records, and would record nothing of one
    /// that is not.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let parent = self.trace.get(16..).unwrap_or_default();
        line(out, b"traceparent: ", &[b"00-", &self.trace[..], b"-", parent, b"-01"].concat());
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
    let context = TraceContext { trace: trace.try_into().ok()?, parent: Some(parent.try_into().ok()?) };
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
            assert!(read.is_none_or(|read| read.trace_id() == &trace[..32] && !read.is_begun()));
        }
        let (begun, mut out) = (TraceContext::begun("0af7651916cd43dd8448eb211c80319c"), Vec::new());
        assert!(begun.is_begun());
        begun.write(&mut out);
        let value = out.strip_prefix(b"traceparent: ").and_then(|rest| rest.strip_suffix(b"\r\n")).unwrap();
        assert_eq!(value, b"00-0af7651916cd43dd8448eb211c80319c-8448eb211c80319c-01");
        assert!(read(value).is_some());
    }
}
