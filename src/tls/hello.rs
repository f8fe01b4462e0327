//! A `ClientHello` as raw bytes, for the one question that rustls does not answer: which versions were offered.

use std::borrow::Cow;

const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SUPPORTED_VERSIONS: u16 = 43;
const TLS_1_0: u16 = 0x0301;
const TLS_1_2: u16 = 0x0303;
const TLS_1_3: u16 = 0x0304;

/// What the first bytes of a connection are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opening {
    /// Something else than TLS.
    Foreign,
    /// TLS, in a shape that does not tell its versions.
    Unclear,
    /// A `ClientHello` that offers TLS 1.2 or better.
    Current,
    /// A `ClientHello` that offers nothing above TLS 1.1; the version to speak to it in.
    Outdated(u16),
}

/// Looks at all that has come so far.
pub(super) fn opening(raw: &[u8]) -> Opening {
    match raw {
        [HANDSHAKE, 3, ..] => offered(raw),
        [ALERT, 3, ..] => Opening::Unclear,
        // An SSL 2.0 CLIENT-HELLO (RFC 5246 appendix E.2), as clients of the last century sent for any version.
        [first, _, CLIENT_HELLO, ..] if first & 0x80 != 0 => Opening::Outdated(TLS_1_0),
        _ => Opening::Foreign,
    }
}

/// A fatal alert as the plain record that it is before keys are agreed.
pub(super) fn alert(version: u16, description: u8) -> [u8; 7] {
    let [major, minor] = version.clamp(TLS_1_0, TLS_1_2).to_be_bytes();
    [ALERT, major, minor, 0, 2, 2, description]
}

fn offered(raw: &[u8]) -> Opening {
    let message = handshake_bytes(raw);
    match versions(&message) {
        None => Opening::Unclear,
        Some((_, highest)) if highest >= TLS_1_2 => Opening::Current,
        Some((legacy, _)) => Opening::Outdated(legacy),
    }
}

/// The handshake messages of all records together (RFC 8446 section 5.1): a hello may be cut anywhere.
fn handshake_bytes(raw: &[u8]) -> Cow<'_, [u8]> {
    let mut rest = Bytes(raw);
    let mut whole = Cow::Borrowed(&[][..]);
    while let Some([HANDSHAKE, ..]) = rest.take(3) {
        let Some(fragment) = rest.list16() else { break };
        if whole.is_empty() {
            whole = Cow::Borrowed(fragment);
        } else {
            whole.to_mut().extend_from_slice(fragment);
        }
    }
    whole
}

/// The legacy version, and the highest one offered (RFC 8446 sections 4.1.2 and 4.2.1).
fn versions(message: &[u8]) -> Option<(u16, u16)> {
    let mut hello = Bytes(message);
    let [CLIENT_HELLO, ..] = hello.take(4)? else { return None };
    let legacy = hello.u16()?;
    hello.take(32)?;
    hello.list8()?;
    hello.list16()?;
    hello.list8()?;
    let mut extensions = Bytes(hello.list16().unwrap_or_default());
    while let Some(kind) = extensions.u16() {
        let body = extensions.list16()?;
        if kind == SUPPORTED_VERSIONS {
            return Some((legacy, highest(Bytes(body).list8()?)));
        }
    }
    Some((legacy, legacy))
}

/// GREASE (RFC 8701) and drafts are no versions.
fn highest(mut list: &[u8]) -> u16 {
    let mut highest = 0;
    while let Some((pair, rest)) = list.split_first_chunk::<2>() {
        let version = u16::from_be_bytes(*pair);
        if version <= TLS_1_3 {
            highest = highest.max(version);
        }
        list = rest;
    }
    highest
}

/// A reader that gives None where the bytes end.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }

    fn u16(&mut self) -> Option<u16> {
        let (taken, rest) = self.0.split_first_chunk::<2>()?;
        self.0 = rest;
        Some(u16::from_be_bytes(*taken))
    }

    fn list8(&mut self) -> Option<&'a [u8]> {
        let (len, rest) = self.0.split_first()?;
        self.0 = rest;
        self.take((*len).into())
    }

    fn list16(&mut self) -> Option<&'a [u8]> {
        let len = self.u16()?;
        self.take(len.into())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A `ClientHello`'s message with one suite, and the extensions given.
    fn hello(legacy: u16, extensions: Option<&[u8]>) -> Vec<u8> {
        let mut body = legacy.to_be_bytes().to_vec();
        body.extend([7; 32]);
        body.extend([0, 0, 2, 0x00, 0x2f, 1, 0]);
        if let Some(extensions) = extensions {
            body.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
            body.extend(extensions);
        }
        let [_, len @ ..] = u32::try_from(body.len()).unwrap().to_be_bytes();
        [&[CLIENT_HELLO][..], &len, &body].concat()
    }

    fn records(message: &[u8], size: usize) -> Vec<u8> {
        let record = |part: &[u8]| {
            [&[HANDSHAKE, 3, 1][..], &u16::try_from(part.len()).unwrap().to_be_bytes(), part].concat()
        };
        message.chunks(size).flat_map(record).collect()
    }

    #[test]
    fn the_highest_version_counts() {
        let none = [0, 0, 0, 0].as_slice();
        let versions = [0, 43, 0, 7, 6, 0x3a, 0x3a, 3, 4, 3, 3].as_slice();
        let old_versions = [0, 43, 0, 5, 4, 3, 2, 3, 1].as_slice();
        for (legacy, extensions, expected) in [
            (0x0303, Some(none), Opening::Current),
            (0x0303, Some(versions), Opening::Current),
            (0x0303, None, Opening::Current),
            (0x0302, Some(none), Opening::Outdated(0x0302)),
            (0x0301, None, Opening::Outdated(0x0301)),
            (0x0300, None, Opening::Outdated(0x0300)),
            (0x0303, Some(old_versions), Opening::Outdated(0x0303)),
            (0x0303, Some(&[0, 43, 0, 9, 1]), Opening::Unclear),
        ] {
            let message = hello(legacy, extensions);
            assert_eq!(opening(&records(&message, 16_384)), expected, "{legacy:04x} {extensions:?}");
            assert_eq!(opening(&records(&message, 9)), expected, "in small records");
        }
    }

    #[test]
    fn what_is_not_tls_is_foreign() {
        for (raw, expected) in [
            (&b"GET / HTTP/1.1\r\n"[..], Opening::Foreign),
            (b"SSH-2.0-x", Opening::Foreign),
            (b"", Opening::Foreign),
            (b"\x16", Opening::Foreign),
            (b"\x80\x2e\x01\x00\x02", Opening::Outdated(TLS_1_0)),
            (b"\x15\x03\x01\x00\x02\x02\x28", Opening::Unclear),
            (b"\x16\x03\x01\x00\x05\x02\0\0\x01\0", Opening::Unclear),
        ] {
            assert_eq!(opening(raw), expected, "{raw:?}");
        }
    }

    #[test]
    fn an_alert_speaks_the_clients_version() {
        assert_eq!(alert(0x0300, 70), [21, 3, 1, 0, 2, 2, 70]);
        assert_eq!(alert(0x0302, 70), [21, 3, 2, 0, 2, 2, 70]);
        assert_eq!(alert(0x0304, 112), [21, 3, 3, 0, 2, 2, 112]);
    }

    proptest! {
        #[test]
        fn any_bytes_have_an_answer(raw in prop::collection::vec(any::<u8>(), 0..400)) {
            opening(&raw);
            opening(&[&[HANDSHAKE, 3, 1], &raw[..]].concat());
            opening(&records(&[&[CLIENT_HELLO, 0, 1, 0, 3, 3], &raw[..]].concat(), 100));
        }
    }
}
