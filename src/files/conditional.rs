//! Whether the client has the file already (RFC 9110 section 13).

use std::time::{Duration, SystemTime};

use super::folder::Opened;
use super::single;
use crate::wire::Head;

/// The last second that a date can say: the end of the year 9999.
const LAST_SECOND: i64 = 253_402_300_799;

/// What tells one state of a file from another.
#[derive(Debug)]
pub(super) struct Validators {
    /// With its quotes.
    pub(super) etag: String,
    /// Whole seconds, never later than now (section 8.8.2.1).
    pub(super) modified: SystemTime,
    /// Whether the date alone tells two states apart, for it is some time ago (section 8.8.2.2).
    settled: bool,
}

/// What the conditions of a request come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The file is sent.
    Send,
    /// 304
    NotModified,
    /// 412
    Failed,
}

impl Validators {
    pub(super) fn of(opened: &Opened, now: SystemTime) -> Self {
        let (seconds, nanoseconds) = opened.modified;
        let coding = opened.coding.map(|coding| format!("-{}", coding.name())).unwrap_or_default();
        let etag = format!("\"{:x}-{seconds:x}.{nanoseconds:x}-{:x}{coding}\"", opened.size, opened.inode);
        let seconds = Duration::from_secs(seconds.clamp(0, LAST_SECOND).unsigned_abs());
        let now = whole_seconds(now);
        let modified = (SystemTime::UNIX_EPOCH + seconds).min(now);
        Self { etag, modified, settled: modified + Duration::from_secs(1) < now }
    }

    /// Goes through the conditions in the order of section 13.2.2.
    pub(super) fn judge(&self, head: &Head) -> Verdict {
        let date = |name| single(head, name).and_then(date);
        if let Some(matched) = self.is_listed(head, "if-match", Comparison::Strong) {
            if !matched {
                return Verdict::Failed;
            }
        } else if date("if-unmodified-since").is_some_and(|date| self.modified > date) {
            return Verdict::Failed;
        }
        let known = match self.is_listed(head, "if-none-match", Comparison::Weak) {
            Some(matched) => matched,
            None => date("if-modified-since").is_some_and(|date| self.modified <= date),
        };
        if known { Verdict::NotModified } else { Verdict::Send }
    }

    /// Whether a range may be cut out of this state of the file (section 13.1.5).
    pub(super) fn allow_range(&self, head: &Head) -> bool {
        if head.named("if-range").next().is_none() {
            return true;
        }
        let Some(value) = single(head, "if-range") else { return false };
        if value.starts_with(b"\"") {
            return value == self.etag.as_bytes();
        }
        self.settled && date(value) == Some(self.modified)
    }

    /// Whether a list of entity tags has this one; None without a list.
    fn is_listed(&self, head: &Head, name: &str, comparison: Comparison) -> Option<bool> {
        let mut listed = None;
        for value in head.named(name) {
            let here = value.trim_ascii() == b"*"
                || Tags(value).any(|(weak, tag)| {
                    tag == self.etag.as_bytes() && (!weak || comparison == Comparison::Weak)
                });
            listed = Some(listed == Some(true) || here);
        }
        listed
    }
}

/// How entity tags are compared (section 8.8.3.2).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Strong,
    Weak,
}

/// The entity tags of a list, each with its quotes, and whether it is weak. Ends at what is none.
struct Tags<'a>(&'a [u8]);

impl<'a> Iterator for Tags<'a> {
    type Item = (bool, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let start = self.0.iter().position(|b| !matches!(b, b',' | b' ' | b'\t'))?;
        let rest = self.0.get(start..)?;
        let (weak, rest) = rest.strip_prefix(b"W/").map_or((false, rest), |rest| (true, rest));
        let end = memchr::memchr(b'"', rest.strip_prefix(b"\"")?)? + 2;
        let (tag, rest) = rest.split_at_checked(end)?;
        self.0 = rest;
        Some((weak, tag))
    }
}

/// In any of the three forms of section 5.6.7.
fn date(value: &[u8]) -> Option<SystemTime> {
    httpdate::parse_http_date(std::str::from_utf8(value).ok()?).ok()
}

fn whole_seconds(time: SystemTime) -> SystemTime {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::Verdict::{Failed, NotModified, Send};
    use super::*;

    const AT: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const AFTER: &str = "Sunday, 06-Nov-94 08:49:38 GMT";

    fn validators(settled: bool) -> Validators {
        Validators { etag: "\"a,b\"".into(), modified: date(AT.as_bytes()).unwrap(), settled }
    }

    fn head(fields: &[(&str, &str)]) -> Head {
        let mut head = Head::default();
        for (name, value) in fields {
            head.push(name.as_bytes(), value.as_bytes());
        }
        head
    }

    #[test]
    fn conditions_are_judged_in_their_order() {
        const TAG: &str = "\"a,b\"";
        for (fields, expected) in [
            (&[][..], Send),
            (&[("If-Match", TAG)], Send),
            (&[("If-Match", "*")], Send),
            (&[("If-Match", "\"x\", \"a,b\"")], Send),
            (&[("If-Match", "\"x\""), ("If-Match", TAG)], Send),
            (&[("If-Match", "\"x\"")], Failed),
            (&[("If-Match", "W/\"a,b\"")], Failed),
            (&[("If-Match", "")], Failed),
            (&[("If-Match", "\"a")], Failed),
            (&[("If-Match", TAG), ("If-Unmodified-Since", BEFORE)], Send),
            (&[("If-Unmodified-Since", AT)], Send),
            (&[("If-Unmodified-Since", AFTER)], Send),
            (&[("If-Unmodified-Since", BEFORE)], Failed),
            (&[("If-Unmodified-Since", "yesterday")], Send),
            (&[("If-None-Match", TAG)], NotModified),
            (&[("If-None-Match", "W/\"a,b\"")], NotModified),
            (&[("If-None-Match", "*")], NotModified),
            (&[("If-None-Match", "\"x\" , ,W/\"y\",\"a,b\"")], NotModified),
            (&[("If-None-Match", "\"x\"")], Send),
            (&[("If-None-Match", "a,b")], Send),
            (&[("If-None-Match", "\"x\""), ("If-Modified-Since", AT)], Send),
            (&[("If-Modified-Since", AT)], NotModified),
            (&[("If-Modified-Since", AFTER)], NotModified),
            (&[("If-Modified-Since", BEFORE)], Send),
            (&[("If-Modified-Since", AT), ("If-Modified-Since", AT)], Send),
            (&[("If-Modified-Since", "0")], Send),
            (&[("If-Match", "\"x\""), ("If-None-Match", TAG)], Failed),
            (&[("If-Match", TAG), ("If-None-Match", TAG)], NotModified),
            (&[("If-Unmodified-Since", BEFORE), ("If-Modified-Since", AT)], Failed),
        ] {
            assert_eq!(validators(true).judge(&head(fields)), expected, "{fields:?}");
        }
    }

    #[test]
    fn a_range_is_of_the_state_that_the_client_knows() {
        for (value, settled, expected) in [
            ("\"a,b\"", false, true),
            ("\"x\"", true, false),
            ("W/\"a,b\"", true, false),
            (AT, true, true),
            (AT, false, false),
            (AFTER, true, false),
            ("a,b", true, false),
            ("", true, false),
        ] {
            assert_eq!(validators(settled).allow_range(&head(&[("If-Range", value)])), expected, "{value:?}");
        }
        assert!(validators(false).allow_range(&head(&[])));
        assert!(!validators(true).allow_range(&head(&[("If-Range", AT), ("If-Range", AT)])));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(value in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..64)) {
            for name in ["if-match", "if-none-match", "if-modified-since", "if-range"] {
                let mut head = Head::default();
                head.push(name.as_bytes(), &value);
                let _ = (validators(true).judge(&head), validators(true).allow_range(&head));
            }
        }
    }
}
