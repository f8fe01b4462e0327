//! What the socket says about upstreams.

use serde::{Deserialize, Serialize};

/// One upstream. Two that have the same targets and are spoken to differently are two.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamStatus {
    /// Its targets as typed, with commas.
    pub name: String,
    /// Requests that wait for it: while none of its targets is up, or none has a place.
    pub waiting: usize,
    /// Every address of every target.
    pub targets: Vec<TargetStatus>,
}

/// One address of a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetStatus {
    /// The target as typed.
    pub target: String,
    /// Its address; None where the target's name leads to none.
    pub address: Option<String>,
    /// `up`, `warming` (up, and given less than its share for its first seconds), `down` (takes no connection or answers
    /// nothing), `unhealthy` (its health check fails), `checking` (not asked yet), `drained` or `unresolved`.
    pub state: String,
    /// Requests that it has in progress.
    pub busy: usize,
    /// Since when it is as it is, RFC 3339 in UTC; None where nobody knows.
    pub since: Option<String>,
    /// What went wrong; None where nothing does.
    pub error: Option<String>,
}

/// A name as the query of a request to the socket carries it.
pub fn encoded(name: &str) -> String {
    let octet = |octet: u8| match octet {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b':' | b'/' => {
            char::from(octet).to_string()
        }
        _ => format!("%{octet:02X}"),
    };
    name.bytes().map(octet).collect()
}

/// What [`encoded`] made, or what a person wrote; None where it is neither.
pub(super) fn decoded(text: &str) -> Option<String> {
    let mut octets = text.bytes();
    let mut name = Vec::new();
    while let Some(octet) = octets.next() {
        let digit = |octet: Option<u8>| char::from(octet?).to_digit(16);
        let octet = match octet {
            b'%' => u8::try_from(digit(octets.next())? * 16 + digit(octets.next())?).ok()?,
            octet => octet,
        };
        name.push(octet);
    }
    String::from_utf8(name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_pass_through_a_query() {
        for name in ["django:8000", "https://[::1]:8443", "unix:/run/a b&c=%.sock", "größe:1"] {
            assert_eq!(decoded(&encoded(name)).as_deref(), Some(name));
        }
        assert_eq!(decoded("[::1]:8000").as_deref(), Some("[::1]:8000"));
        for wrong in ["%", "%4", "%zz", "%ff"] {
            assert_eq!(decoded(wrong), None);
        }
    }
}
