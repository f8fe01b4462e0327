//! Who the client is, and what the upstream is told of it.

use std::net::IpAddr;

use crate::addr::{ClientAddr, Source};
use crate::config::model::{AddressHeader, ClientAddress};
use crate::observe::access;
use crate::wire::{Head, Known};

/// The client's true address: the peer's, unless the peer is trusted to name another. A list is read from the right,
/// for only what trusted hops appended is true; the first address that is not one of theirs is the client.
pub(super) fn client(policy: Option<&ClientAddress>, peer: ClientAddr, head: &Head) -> ClientAddr {
    let Some(policy) = policy else { return peer };
    if !is_trusted(&policy.trusted, peer) {
        return peer;
    }
    match policy.header {
        AddressHeader::CfConnectingIp => {
            head.single(Known::CfConnectingIp).ok().flatten().and_then(address).unwrap_or(peer)
        }
        AddressHeader::XForwardedFor => last_untrusted(
            policy,
            peer,
            elements(head, Known::XForwardedFor).map(|element| address(element.trim_ascii())),
        ),
        AddressHeader::Forwarded => {
            last_untrusted(policy, peer, elements(head, Known::Forwarded).map(address_of_forwarded))
        }
    }
}

/// Whether a field of the client's is never passed on: it is the edge's own to set, or speaks of one hop, or is
/// believed by something behind the edge without asking who wrote it.
pub(super) fn is_dropped(known: Known) -> bool {
    matches!(
        known,
        Known::CfConnectingIp
            | Known::ClientIp
            | Known::Connection
            | Known::ContentLength
            | Known::DaphneRootPath
            | Known::Expect
            | Known::FastlyClientIp
            | Known::Forwarded
            | Known::ForwardedFor
            | Known::FrontEndHttps
            | Known::Host
            | Known::Http2Settings
            | Known::KeepAlive
            | Known::PathInfo
            | Known::Proxy
            | Known::ProxyAuthenticate
            | Known::ProxyAuthorization
            | Known::ProxyConnection
            | Known::ScriptName
            | Known::Te
            | Known::TransferEncoding
            | Known::TrueClientIp
            | Known::Underscored
            | Known::Upgrade
            | Known::XAccel
            | Known::XClientIp
            | Known::XClusterClientIp
            | Known::XForwarded
            | Known::XForwardedFor
            | Known::XOriginalForwardedFor
            | Known::XOriginalUrl
            | Known::XRealIp
            | Known::XRequestId
            | Known::XRewriteUrl
            | Known::XScheme
            | Known::XUrlScheme
    )
}

/// Writes the fields that tell the upstream who asked for what: `X-Forwarded-For`, `-Proto`, `-Host` and `-Port`,
/// `X-Real-IP`, `Forwarded` (RFC 7239), each with one value, so that it does not matter which end a reader believes.
pub(super) fn write(out: &mut Vec<u8>, client: ClientAddr, authority: &[u8], port: u16) {
    let mut ip = Vec::with_capacity(40);
    access::ip(&mut ip, client.ip());
    line(out, b"x-forwarded-for: ", &ip);
    line(out, b"x-forwarded-proto: ", b"https");
    line(out, b"x-forwarded-host: ", authority);
    line(out, b"x-forwarded-port: ", itoa::Buffer::new().format(port).as_bytes());
    line(out, b"x-real-ip: ", &ip);
    out.extend_from_slice(b"forwarded: for=");
    match client.ip() {
        IpAddr::V4(_) => out.extend_from_slice(&ip),
        IpAddr::V6(_) => out.extend_from_slice(&[b"\"[", &ip[..], b"]\""].concat()),
    }
    out.extend_from_slice(b";host=\"");
    out.extend_from_slice(authority);
    out.extend_from_slice(b"\";proto=https\r\n");
}

/// One field line.
pub(super) fn line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn is_trusted(trusted: &[Source], address: ClientAddr) -> bool {
    trusted.iter().any(|source| source.contains(address))
}

/// Walks from the right past trusted hops. What is no address ends the walk: whoever wrote it is the last one known.
fn last_untrusted(
    policy: &ClientAddress,
    peer: ClientAddr,
    from_the_right: impl Iterator<Item = Option<ClientAddr>>,
) -> ClientAddr {
    let mut last = peer;
    for element in from_the_right {
        let Some(address) = element else { return last };
        last = address;
        if !is_trusted(&policy.trusted, address) {
            return last;
        }
    }
    last
}

/// The elements of a list field over all its lines, the last one first. A comma inside quotes splits too: such an
/// element is no address, and ends the walk.
fn elements(head: &Head, known: Known) -> impl Iterator<Item = &[u8]> {
    let lines: Vec<&[u8]> = head.all(known).collect();
    lines.into_iter().rev().flat_map(|line| line.rsplit(|b| *b == b','))
}

/// `for=` of one element of Forwarded (RFC 7239 section 4).
fn address_of_forwarded(element: &[u8]) -> Option<ClientAddr> {
    let mut found = None;
    for pair in element.split(|b| *b == b';') {
        let mut parts = pair.trim_ascii().splitn(2, |b| *b == b'=');
        let (name, value) = (parts.next()?, parts.next()?);
        if name.eq_ignore_ascii_case(b"for") {
            if found.is_some() {
                return None;
            }
            let quoted = value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
            found = Some(address(quoted.unwrap_or(value))?);
        }
    }
    found
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`.
fn address(text: &[u8]) -> Option<ClientAddr> {
    let text = std::str::from_utf8(text).ok()?;
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some(ClientAddr::new(ip));
    }
    if let Ok(socket) = text.parse::<std::net::SocketAddr>() {
        return Some(ClientAddr::new(socket.ip()));
    }
    let inside = text.strip_prefix('[')?.strip_suffix(']')?;
    inside.parse::<std::net::Ipv6Addr>().ok().map(|ip| ClientAddr::new(ip.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::CidrSet;

    fn policy(header: AddressHeader) -> ClientAddress {
        let set: CidrSet = ["10.0.0.0/8", "2001:db8:1::/48"].iter().map(|net| net.parse().unwrap()).collect();
        let source = Source::new("lb", set);
        ClientAddress { trusted: vec![source], header }
    }

    fn told(header: AddressHeader, peer: &str, lines: &[(&str, &str)]) -> String {
        let mut head = Head::default();
        for (name, value) in lines {
            head.push(name.as_bytes(), value.as_bytes());
        }
        client(Some(&policy(header)), ClientAddr::new(peer.parse().unwrap()), &head).to_string()
    }

    #[test]
    fn only_trusted_peers_are_believed_and_only_from_the_right() {
        let xff = |peer, value| told(AddressHeader::XForwardedFor, peer, &[("X-Forwarded-For", value)]);
        assert_eq!(xff("192.0.2.9", "203.0.113.1"), "192.0.2.9");
        assert_eq!(xff("10.0.0.1", "203.0.113.1"), "203.0.113.1");
        assert_eq!(xff("10.0.0.1", "198.51.100.1, 203.0.113.1"), "203.0.113.1");
        assert_eq!(xff("10.0.0.1", "198.51.100.1, 203.0.113.1, 10.2.3.4"), "203.0.113.1");
        assert_eq!(xff("10.0.0.1", "junk, 10.2.3.4"), "10.2.3.4");
        assert_eq!(xff("10.0.0.1", "203.0.113.1, "), "10.0.0.1");
        assert_eq!(xff("::ffff:10.0.0.1", "::ffff:203.0.113.1"), "203.0.113.1");
        assert_eq!(xff("10.0.0.1", "[2001:db8::9]:1234"), "2001:db8::9");
        let two = told(
            AddressHeader::XForwardedFor,
            "10.0.0.1",
            &[("x-forwarded-for", "198.51.100.1"), ("x-forwarded-for", "203.0.113.7")],
        );
        assert_eq!(two, "203.0.113.7");
        // Another header than the one named is not read.
        assert_eq!(
            told(AddressHeader::CfConnectingIp, "10.0.0.1", &[("x-forwarded-for", "203.0.113.1")]),
            "10.0.0.1"
        );
        assert_eq!(
            told(AddressHeader::CfConnectingIp, "10.0.0.1", &[("cf-connecting-ip", "203.0.113.1")]),
            "203.0.113.1"
        );
    }

    #[test]
    fn forwarded_of_rfc_7239() {
        let forwarded = |value| told(AddressHeader::Forwarded, "10.0.0.1", &[("Forwarded", value)]);
        assert_eq!(forwarded("for=203.0.113.1;proto=http, for=10.1.1.1"), "203.0.113.1");
        assert_eq!(forwarded("For=\"[2001:db8::9]:4711\""), "2001:db8::9");
        assert_eq!(forwarded("for=unknown, for=10.1.1.1"), "10.1.1.1");
        assert_eq!(forwarded("for=_hidden"), "10.0.0.1");
        assert_eq!(forwarded("for=203.0.113.1;for=203.0.113.2"), "10.0.0.1");
    }

    #[test]
    fn the_upstream_is_told_once() {
        let mut out = Vec::new();
        write(&mut out, ClientAddr::new("2001:db8::9".parse().unwrap()), b"app.test:8443", 8443);
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("x-forwarded-for: 2001:db8::9\r\n"));
        assert!(
            text.ends_with("forwarded: for=\"[2001:db8::9]\";host=\"app.test:8443\";proto=https\r\n"),
            "{text}"
        );
    }
}
