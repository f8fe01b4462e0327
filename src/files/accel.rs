//! X-Accel-Redirect: an upstream answers with the name of a file, and the edge sends the file.
//!
//! The meaning is nginx's: the upstream's body is thrown away, its content type and a few other fields stay, and what it
//! says of its own body does not.

use std::num::NonZeroU64;

use super::single;
use crate::wire::{Head, Known};

/// What stays of the upstream's field lines besides its content type. Vary is one more than in nginx: without it a cache
/// could hand one person's file to another.
const KEPT: [&str; 5] = ["content-disposition", "set-cookie", "cache-control", "expires", "vary"];

/// What an upstream says of the file that is sent for it.
#[derive(Debug, Default)]
pub struct Told {
    /// None where the file's name decides.
    pub(super) content_type: Option<Vec<u8>>,
    pub(super) kept: Head,
    /// Whether parts of the file may be asked for.
    pub(super) ranges: bool,
    /// The most octets a second.
    pub(super) rate: Option<NonZeroU64>,
    /// Whether the upstream has said how it may be cached.
    pub(super) caching: bool,
}

/// Where the answer sends the edge, as the upstream wrote it; None where it is an answer like any other.
pub fn target(head: &Head) -> Option<&[u8]> {
    let mut fields = head.fields().filter(|field| field.known == Known::XAccel);
    fields.find(|field| field.name.eq_ignore_ascii_case(b"x-accel-redirect")).map(|field| field.value)
}

/// The path of a target: what stands before its query.
pub fn path(target: &[u8]) -> &[u8] {
    target.split(|b| *b == b'?').next().unwrap_or(target)
}

impl Told {
    /// Takes what stays from an upstream's answer.
    pub fn by(head: &Head) -> Self {
        let mut kept = Head::default();
        for name in KEPT {
            head.named(name).for_each(|value| kept.push(name.as_bytes(), value));
        }
        let has = |name| head.named(name).next().is_some();
        let none = |value: &[u8]| value.eq_ignore_ascii_case(b"none");
        Self {
            content_type: content_type(head),
            kept,
            rate: single(head, "x-accel-limit-rate")
                .and_then(|value| std::str::from_utf8(value).ok()?.parse().ok()),
            ranges: !head.named("accept-ranges").any(none),
            caching: has("cache-control") || has("expires"),
        }
    }
}

/// The upstream's own, with the charset of X-Accel-Charset where it names none. An empty one leaves it to the file's name.
fn content_type(head: &Head) -> Option<Vec<u8>> {
    let mut kind = head.first(Known::ContentType).filter(|value| !value.is_empty())?.to_vec();
    let charset = single(head, "x-accel-charset").filter(|value| !value.eq_ignore_ascii_case(b"off"));
    let lower = kind.to_ascii_lowercase();
    if let Some(charset) = charset.filter(|_| lower.starts_with(b"text/"))
        && memchr::memmem::find(&lower, b"charset=").is_none()
    {
        kind.extend_from_slice(b"; charset=");
        kind.extend_from_slice(charset);
    }
    Some(kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(fields: &[(&str, &str)]) -> Head {
        let mut head = Head::default();
        for (name, value) in fields {
            head.push(name.as_bytes(), value.as_bytes());
        }
        head
    }

    #[test]
    fn what_stays_is_what_nginx_keeps() {
        let head = head(&[
            ("X-Accel-Redirect", "/private/a%20b?c=d"),
            ("X-Accel-Buffering", "no"),
            ("X-Accel-Limit-Rate", "4096"),
            ("Content-Type", "application/pdf"),
            ("Content-Length", "0"),
            ("Content-Encoding", "gzip"),
            ("Content-Disposition", "attachment"),
            ("ETag", "\"x\""),
            ("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT"),
            ("Set-Cookie", "a=b"),
            ("Set-Cookie", "c=d"),
            ("Cache-Control", "private"),
            ("X-Frame-Options", "DENY"),
            ("Accept-Ranges", "none"),
        ]);
        let told = Told::by(&head);
        let kept: Vec<String> = told.kept.fields().map(|field| field.to_string()).collect();
        assert_eq!(
            kept,
            [
                "content-disposition: attachment",
                "set-cookie: a=b",
                "set-cookie: c=d",
                "cache-control: private"
            ]
        );
        assert_eq!(told.content_type.as_deref(), Some(&b"application/pdf"[..]));
        assert!(told.caching && !told.ranges);
        assert_eq!(told.rate.map(NonZeroU64::get), Some(4096));
        assert_eq!(target(&head).map(path), Some(&b"/private/a%20b"[..]));
    }

    #[test]
    fn content_types_take_a_charset() {
        for (kind, charset, expected) in [
            ("", "", None),
            ("", "utf-8", None),
            ("text/plain", "utf-8", Some("text/plain; charset=utf-8")),
            ("text/plain", "off", Some("text/plain")),
            ("text/html; Charset=latin-1", "utf-8", Some("text/html; Charset=latin-1")),
            ("image/png", "utf-8", Some("image/png")),
        ] {
            let mut fields = vec![("Content-Type", kind)];
            fields.extend((!charset.is_empty()).then_some(("X-Accel-Charset", charset)));
            let told = Told::by(&head(&fields));
            assert_eq!(told.content_type.as_deref(), expected.map(str::as_bytes), "{kind:?} {charset:?}");
        }
    }
}
