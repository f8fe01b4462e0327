//! Trace context (W3C Trace Context, level 1): a client's trace goes on as it is, and where the site says so one begins
//! here, with the request's id as its own.

use super::forwarded::line;
use crate::wire::{Head, Known};

/// Whether the client's trace goes on: it brings one `traceparent`, which is in order. Otherwise neither that nor its
/// `tracestate` means anything (section 4.3).
pub(super) fn goes_on(head: &Head) -> bool {
    matches!(head.single(Known::Traceparent), Ok(Some(value)) if is_in_order(value))
}

/// Whether a field belongs to a trace.
pub(super) fn is_part(known: Known) -> bool {
    matches!(known, Known::Traceparent | Known::Tracestate)
}

/// Begins a trace, sampled: what stands behind decides what it records, and would record nothing of one that is not.
pub(super) fn begin(out: &mut Vec<u8>, id: &[u8]) {
    let parent = id.get(id.len() / 2..).unwrap_or_default();
    line(out, b"traceparent: ", &[b"00-", id, b"-", parent, b"-01"].concat());
}

/// Section 3.2.2, and for versions to come section 3.2.4.
fn is_in_order(value: &[u8]) -> bool {
    let (known, rest) = value.split_at(value.len().min(LENGTH));
    let parts: Vec<&[u8]> = known.split(|octet| *octet == b'-').collect();
    let [version, trace, parent, flags] = parts[..] else { return false };
    let ids = [(trace, 32), (parent, 16)];
    is_hex(version, 2)
        && version != b"ff"
        && ids.into_iter().all(|(id, length)| is_hex(id, length) && id.iter().any(|digit| *digit != b'0'))
        && is_hex(flags, 2)
        && (rest.is_empty() || version != b"00" && rest.starts_with(b"-"))
}

fn is_hex(text: &[u8], length: usize) -> bool {
    text.len() == length && text.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
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
            assert_eq!(is_in_order(value.as_bytes()), expected, "{value}");
        }
        let mut out = Vec::new();
        begin(&mut out, b"0af7651916cd43dd8448eb211c80319c");
        let value = out.strip_prefix(b"traceparent: ").and_then(|rest| rest.strip_suffix(b"\r\n")).unwrap();
        assert_eq!(value, b"00-0af7651916cd43dd8448eb211c80319c-8448eb211c80319c-01");
        assert!(is_in_order(value));
    }
}
