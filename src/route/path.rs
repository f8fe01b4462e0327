//! The path as routes are matched against it. What is forwarded is always the path as it came.
//!
//! A gate on `/admin/` is only worth something when every spelling of that path meets it, so the path is
//! percent-decoded once, slashes included, and runs of slashes count as one. What two programs might resolve
//! differently is refused rather than guessed at: dot segments, control characters, broken encodings.

use std::borrow::Cow;

use crate::fault::Fault;

/// Why a path cannot be matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadPath {
    /// It does not begin with a slash.
    #[error("the path does not begin with a slash")]
    Relative,
    /// A percent sign without two hexadecimal digits behind it (RFC 3986 section 2.1).
    #[error("a percent sign in the path has no two hexadecimal digits behind it")]
    Encoding,
    /// An octet below 0x20, or 0x7f, bare or encoded.
    #[error("a control character in the path")]
    Control,
    /// A segment that is `.` or `..`, bare or encoded.
    #[error("a dot segment in the path")]
    DotSegment,
}

impl From<BadPath> for Fault {
    fn from(bad: BadPath) -> Self {
        Self::BadRequest(match bad {
            BadPath::Relative => "path: does not begin with a slash",
            BadPath::Encoding => "path: broken percent-encoding",
            BadPath::Control => "path: control character",
            BadPath::DotSegment => "path: dot segment",
        })
    }
}

/// The form of `path` (without its query) that routes are matched against: percent-decoded once, with every
/// run of slashes as one. Borrows when the path is that already.
pub fn normalize(path: &[u8]) -> Result<Cow<'_, [u8]>, BadPath> {
    if path.first() != Some(&b'/') {
        return Err(BadPath::Relative);
    }
    if is_plain(path) {
        return Ok(Cow::Borrowed(path));
    }
    let decoded = if memchr::memchr(b'%', path).is_some() { Cow::Owned(decode(path)?) } else { path.into() };
    if decoded.iter().copied().any(is_control) {
        return Err(BadPath::Control);
    }
    let merged = merge_slashes(decoded);
    if merged.split(|&b| b == b'/').any(|segment| matches!(segment, b"." | b"..")) {
        return Err(BadPath::DotSegment);
    }
    Ok(merged)
}

/// Whether nothing in it needs a second look. One pass, for it runs for every request.
fn is_plain(path: &[u8]) -> bool {
    let mut odd = false;
    let mut behind_slash = false;
    for &b in path {
        odd |= is_control(b) || b == b'%' || (behind_slash && matches!(b, b'/' | b'.'));
        behind_slash = b == b'/';
    }
    !odd
}

fn is_control(b: u8) -> bool {
    b < 0x20 || b == 0x7f
}

fn decode(path: &[u8]) -> Result<Vec<u8>, BadPath> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut bytes = path.iter();
    while let Some(&b) = bytes.next() {
        decoded.push(match b {
            b'%' => hex(bytes.next())? << 4 | hex(bytes.next())?,
            _ => b,
        });
    }
    Ok(decoded)
}

fn hex(digit: Option<&u8>) -> Result<u8, BadPath> {
    match digit {
        Some(&b @ b'0'..=b'9') => Ok(b - b'0'),
        Some(&b @ b'a'..=b'f') => Ok(b - b'a' + 10),
        Some(&b @ b'A'..=b'F') => Ok(b - b'A' + 10),
        _ => Err(BadPath::Encoding),
    }
}

fn merge_slashes(path: Cow<'_, [u8]>) -> Cow<'_, [u8]> {
    if memchr::memmem::find(&path, b"//").is_none() {
        return path;
    }
    let mut merged = path.into_owned();
    merged.dedup_by(|next, last| *next == b'/' && *last == b'/');
    Cow::Owned(merged)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_have_one_form() {
        for (path, expected) in [
            ("/", Ok("/")),
            ("/admin/", Ok("/admin/")),
            ("/%61dmin/", Ok("/admin/")),
            ("/admin%2Fx", Ok("/admin/x")),
            ("/admin%2fx", Ok("/admin/x")),
            ("//admin///x", Ok("/admin/x")),
            ("/admin/%2F/x", Ok("/admin/x")),
            ("/%2561dmin/", Ok("/%61dmin/")),
            ("/.well-known/x", Ok("/.well-known/x")),
            ("/a/...", Ok("/a/...")),
            ("/a/..b/.c", Ok("/a/..b/.c")),
            ("/a+b;c=d,e", Ok("/a+b;c=d,e")),
            ("/b%C3%BCcher/", Ok("/bücher/")),
            ("/bücher/", Ok("/bücher/")),
            ("", Err(BadPath::Relative)),
            ("*", Err(BadPath::Relative)),
            ("a/b", Err(BadPath::Relative)),
            ("%2Fa", Err(BadPath::Relative)),
            ("/a%", Err(BadPath::Encoding)),
            ("/a%2", Err(BadPath::Encoding)),
            ("/a%zz", Err(BadPath::Encoding)),
            ("/a%+1", Err(BadPath::Encoding)),
            ("/a%%61", Err(BadPath::Encoding)),
            ("/a%00", Err(BadPath::Control)),
            ("/a%0d%0aX:y", Err(BadPath::Control)),
            ("/a\0", Err(BadPath::Control)),
            ("/a\tb", Err(BadPath::Control)),
            ("/a\x7f", Err(BadPath::Control)),
            ("/a%7f", Err(BadPath::Control)),
            ("/.", Err(BadPath::DotSegment)),
            ("/..", Err(BadPath::DotSegment)),
            ("/a/./b", Err(BadPath::DotSegment)),
            ("/static/../admin/", Err(BadPath::DotSegment)),
            ("/static/%2e%2e/admin/", Err(BadPath::DotSegment)),
            ("/static/.%2E/admin/", Err(BadPath::DotSegment)),
            ("/static%2f..%2fadmin/", Err(BadPath::DotSegment)),
            ("/static/..//admin/", Err(BadPath::DotSegment)),
        ] {
            let got = normalize(path.as_bytes());
            assert_eq!(got.as_deref(), expected.as_ref().map(|s| s.as_bytes()), "{path:?}");
        }
    }

    #[test]
    fn a_clean_path_is_borrowed() {
        for path in ["/", "/a/b.c", "/.well-known/acme-challenge/x", "/b\u{fc}cher/"] {
            assert!(matches!(normalize(path.as_bytes()), Ok(Cow::Borrowed(_))), "{path:?}");
        }
    }

    proptest! {
        #[test]
        fn what_comes_out_is_clean(path in "/[/.%a-f0-9\\\\;A-F\u{1}-\u{ff}]{0,24}") {
            if let Ok(clean) = normalize(path.as_bytes()) {
                prop_assert_eq!(clean.first(), Some(&b'/'));
                prop_assert!(memchr::memmem::find(&clean, b"//").is_none());
                prop_assert!(!clean.iter().copied().any(is_control));
                prop_assert!(!clean.split(|&b| b == b'/').any(|segment| segment == b"." || segment == b".."));
                if !clean.contains(&b'%') {
                    let again = normalize(&clean);
                    prop_assert_eq!(again.as_deref(), Ok(&*clean));
                }
            }
        }

        #[test]
        fn an_encoded_octet_is_the_octet(text in "/[a-z/]{0,16}", at in 1_usize..16) {
            let Some(&octet) = text.as_bytes().get(at) else { return Ok(()) };
            let spelled = format!("{}%{octet:02X}{}", &text[..at], &text[at + 1..]);
            prop_assert_eq!(normalize(spelled.as_bytes()), normalize(text.as_bytes()));
        }

        #[test]
        fn no_bytes_panic(path in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = normalize(&path);
        }
    }
}
