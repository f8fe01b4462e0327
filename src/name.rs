//! Host names: what a site may be called and what a client may ask for.
//!
//! A [`Hostname`] is a DNS name in its one canonical form: lower case, IDNA A-labels, no trailing
//! dot, never an IP address. Comparing two of them is comparing bytes.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest DNS name in octets, without the root label (RFC 1035 section 2.3.4).
const MAX_NAME: usize = 253;
/// The longest label in octets (RFC 1035 section 2.3.4).
const MAX_LABEL: usize = 63;

/// A DNS name in canonical form.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hostname(Box<str>);

/// Why a text is not a name that a site may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing at all, or nothing but a dot.
    #[error("a host name cannot be empty")]
    Empty,
    /// An IPv4 or IPv6 address, bare or in brackets, or a name whose last label is a number.
    #[error("an IP address is not a host name")]
    Address,
    /// `_` or `*`: a name for everything.
    #[error("a catch-all is not a host name")]
    CatchAll,
    /// A wildcard anywhere but as the whole first label.
    #[error("a wildcard stands for one whole first label, as in \"*.example.com\"")]
    Wildcard,
    /// A label that is empty, over 63 octets, has a hyphen at an end, or a character that DNS host names lack.
    #[error("not a DNS host name (letters, digits and hyphens, labels of 1 to 63 octets, 253 in all)")]
    Syntax,
}

impl Hostname {
    /// Reads a name as a person types it: any case, Unicode by IDNA (UTS 46), one trailing dot allowed.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let bare = text.strip_suffix('.').unwrap_or(text);
        match bare {
            "" => return Err(NameError::Empty),
            "_" | "*" => return Err(NameError::CatchAll),
            _ if bare.contains('*') => return Err(NameError::Wildcard),
            _ => {}
        }
        if is_address(bare) {
            return Err(NameError::Address);
        }
        let ascii = idna::domain_to_ascii(bare).map_err(|_| NameError::Syntax)?;
        if !is_dns_name(&ascii) {
            return Err(NameError::Syntax);
        }
        if is_address(&ascii) {
            return Err(NameError::Address);
        }
        Ok(Self(ascii.into_boxed_str()))
    }

    /// Reads the host of a Host field or `:authority`, or a TLS server name: ASCII only, any case,
    /// one trailing dot allowed. None when it is not a DNS name. Allocates once.
    pub fn from_wire(host: &[u8]) -> Option<Self> {
        let host = host.strip_suffix(b".").unwrap_or(host);
        let mut name = std::str::from_utf8(host).ok().filter(|_| host.is_ascii())?.to_owned();
        name.make_ascii_lowercase();
        (is_dns_name(&name) && !is_address(&name)).then(|| Self(name.into_boxed_str()))
    }

    /// The name as bytes compare it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What remains behind the first label: `tenants.example.com` of `a.tenants.example.com`.
    pub fn parent(&self) -> Option<&str> {
        self.0.split_once('.').map(|(_, parent)| parent)
    }
}

impl fmt::Display for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl std::borrow::Borrow<str> for Hostname {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// A name that a site answers to: one host, or every host one label below a parent.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostPattern {
    /// `app.example.com`
    Exact(Hostname),
    /// `*.tenants.example.com`, kept without its `*.`
    Wildcard(Hostname),
}

impl HostPattern {
    /// Reads `app.example.com` or `*.tenants.example.com`.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        match text.strip_prefix("*.") {
            Some(parent) => {
                let parent = Hostname::parse(parent)?;
                // "*.com" would be a catch-all under another name.
                if parent.parent().is_none() { Err(NameError::Wildcard) } else { Ok(Self::Wildcard(parent)) }
            }
            None => Hostname::parse(text).map(Self::Exact),
        }
    }

    /// Whether `name` is this one, or one label below it (RFC 9525 section 6.3).
    pub fn matches(&self, name: &Hostname) -> bool {
        match self {
            Self::Exact(own) => own == name,
            Self::Wildcard(parent) => name.parent() == Some(parent.as_str()),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => name.fmt(f),
            Self::Wildcard(parent) => write!(f, "*.{parent}"),
        }
    }
}

impl Serialize for HostPattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HostPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// Lower-case letters, digits, hyphens inside, labels of 1 to 63 octets. An underscore is let through inside
/// a name: browsers send such hosts, and it is the site table that decides.
fn is_dns_name(name: &str) -> bool {
    name.len() <= MAX_NAME && name.split('.').all(is_label)
}

fn is_label(label: &str) -> bool {
    let octet = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
    !label.is_empty()
        && label.len() <= MAX_LABEL
        && label.bytes().all(octet)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// An address in any spelling that a resolver would take for one: a last label of digits, or hexadecimal
/// behind `0x`, makes the whole an IPv4 address (WHATWG URL, "ends in a number").
fn is_address(text: &str) -> bool {
    if text.contains(':') || text.starts_with('[') {
        return true;
    }
    let last = text.rsplit('.').next().unwrap_or(text);
    let hex = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    (!last.is_empty() && last.bytes().all(|b| b.is_ascii_digit()))
        || hex.is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_one_form() {
        for (typed, expected) in [
            ("App.Example.COM", Ok("app.example.com")),
            ("app.example.com.", Ok("app.example.com")),
            ("bücher.example", Ok("xn--bcher-kva.example")),
            ("localhost", Ok("localhost")),
            ("", Err(NameError::Empty)),
            (".", Err(NameError::Empty)),
            ("_", Err(NameError::CatchAll)),
            ("*", Err(NameError::CatchAll)),
            ("a.*.example.com", Err(NameError::Wildcard)),
            ("192.0.2.1", Err(NameError::Address)),
            ("[2001:db8::1]", Err(NameError::Address)),
            ("2001:db8::1", Err(NameError::Address)),
            ("0x7f.1", Err(NameError::Address)),
            ("a.0x7f", Err(NameError::Address)),
            ("a..example.com", Err(NameError::Syntax)),
            ("-a.example.com", Err(NameError::Syntax)),
            ("a b.example.com", Err(NameError::Syntax)),
            ("example.com..", Err(NameError::Syntax)),
        ] {
            let got = Hostname::parse(typed);
            assert_eq!(got.as_ref().map(Hostname::as_str), expected.as_ref().map(|s| *s), "{typed:?}");
        }
    }

    #[test]
    fn a_wildcard_is_one_label() {
        let pattern = HostPattern::parse("*.tenants.example.com").unwrap();
        let matches = |host: &[u8]| pattern.matches(&Hostname::from_wire(host).unwrap());
        assert!(matches(b"a.tenants.example.com"));
        assert!(matches(b"A.Tenants.Example.com."));
        assert!(!matches(b"a.b.tenants.example.com"));
        assert!(!matches(b"tenants.example.com"));
        assert_eq!(HostPattern::parse("*.com"), Err(NameError::Wildcard));
        assert_eq!(HostPattern::parse("*.*.example.com"), Err(NameError::Wildcard));
    }

    #[test]
    fn the_wire_has_no_unicode_and_no_addresses() {
        for host in
            [&b"b\xc3\xbccher.example"[..], b"127.0.0.1", b"[::1]", b"", b".", b"a b", b"a\0b", b"a..b"]
        {
            assert_eq!(Hostname::from_wire(host), None, "{host:?}");
        }
    }
}
