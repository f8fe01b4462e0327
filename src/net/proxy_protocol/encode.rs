//! Writing headers, for targets that are to know who the client is.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::v2::SIGNATURE;

/// What TLS was spoken with the client, for version 2's extensions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TlsFacts<'a> {
    /// The name that the client was answered under.
    pub name: &'a str,
    /// As in `TLSv1.3`.
    pub version: &'a str,
    /// The suite's IANA name.
    pub suite: &'a str,
    /// The protocol that ALPN chose.
    pub alpn: Option<&'a [u8]>,
    /// Whether the client showed a certificate, which was verified.
    pub certified: bool,
}

/// A version 1 line.
pub fn v1(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let (source, destination) = alike(source, destination);
    let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    let (from, to) = (source.ip(), destination.ip());
    format!("PROXY {family} {from} {to} {} {}\r\n", source.port(), destination.port()).into_bytes()
}

/// A version 2 block, with extensions that tell of the TLS that was ended.
pub fn v2(source: SocketAddr, destination: SocketAddr, tls: Option<TlsFacts<'_>>) -> Vec<u8> {
    let (source, destination) = alike(source, destination);
    let mut block = Vec::with_capacity(128);
    octets(&mut block, source.ip());
    octets(&mut block, destination.ip());
    block.extend(source.port().to_be_bytes());
    block.extend(destination.port().to_be_bytes());
    if let Some(tls) = tls {
        extensions(&mut block, tls);
    }
    let family = if source.is_ipv4() { 0x11 } else { 0x21 };
    let length = u16::try_from(block.len()).unwrap_or(u16::MAX);
    let mut header = SIGNATURE.to_vec();
    header.extend([0x21, family]);
    header.extend(length.to_be_bytes());
    header.extend(block);
    header
}

/// Both ends in one family: a proxy before this one may have named two.
fn alike(source: SocketAddr, destination: SocketAddr) -> (SocketAddr, SocketAddr) {
    let canonical = |end: SocketAddr| SocketAddr::new(end.ip().to_canonical(), end.port());
    let (source, destination) = (canonical(source), canonical(destination));
    if source.is_ipv4() == destination.is_ipv4() {
        return (source, destination);
    }
    (mapped(source), mapped(destination))
}

fn mapped(end: SocketAddr) -> SocketAddr {
    let ip: Ipv6Addr = match end.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    SocketAddr::new(ip.into(), end.port())
}

fn octets(out: &mut Vec<u8>, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => out.extend(ip.octets()),
        IpAddr::V6(ip) => out.extend(ip.octets()),
    }
}

const ALPN: u8 = 0x01;
const AUTHORITY: u8 = 0x02;
const SSL: u8 = 0x20;
const SSL_VERSION: u8 = 0x21;
const SSL_CIPHER: u8 = 0x23;
/// The client spoke TLS.
const CLIENT_SSL: u8 = 0x01;
/// It showed a certificate on this connection or on the one whose session this one resumes.
const CLIENT_CERT: u8 = 0x02 | 0x04;

fn extensions(out: &mut Vec<u8>, tls: TlsFacts<'_>) {
    if let Some(alpn) = tls.alpn {
        extension(out, ALPN, alpn);
    }
    extension(out, AUTHORITY, tls.name.as_bytes());
    let mut ssl = vec![if tls.certified { CLIENT_SSL | CLIENT_CERT } else { CLIENT_SSL }];
    // 0: the certificate was verified. Without one there was nothing to verify.
    ssl.extend(u32::from(!tls.certified).to_be_bytes());
    extension(&mut ssl, SSL_VERSION, tls.version.as_bytes());
    extension(&mut ssl, SSL_CIPHER, tls.suite.as_bytes());
    extension(out, SSL, &ssl);
}

/// Names, versions and suites are far shorter than a length can say.
fn extension(out: &mut Vec<u8>, kind: u8, value: &[u8]) {
    let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
    out.push(kind);
    out.extend(length.to_be_bytes());
    out.extend(value.iter().take(length.into()));
}
