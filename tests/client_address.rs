//! Who the client is: the peer, unless a peer that the file names says otherwise.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

use crate::support::client::{self, NAME, Response, Wire};
use crate::support::edge::{Edge, HTTPS};
use crate::support::upstream::Upstream;

/// PROXY v2 for TCP over IPv4, from 203.0.113.7:1000 to 203.0.113.1:443.
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xcb\0\x71\x07\xcb\0\x71\x01\x03\xe8\x01\xbb";
/// PROXY v2 LOCAL: a health check of the load balancer's own.
const V2_LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

#[test]
fn a_proxy_header_names_the_client() {
    let upstream = Upstream::echo();
    let edge = edge(&upstream, r#"proxy_protocol = ["here"], allow = ["public"], deny = ["abuse"]"#, "");
    for (header, client) in [
        (b"PROXY TCP4 203.0.113.7 203.0.113.1 1000 443\r\n".as_slice(), "203.0.113.7"),
        (b"PROXY TCP6 2001:db8::7 2001:db8::1 1000 443\r\n", "2001:db8::7"),
        (b"PROXY TCP6 ::ffff:203.0.113.7 ::1 1000 443\r\n", "203.0.113.7"),
        (V2, "203.0.113.7"),
    ] {
        let mark = upstream.mark();
        assert_eq!(ask(&edge, header, "").unwrap().status, 200, "{}", header.escape_ascii());
        let seen = upstream.wait_from(mark, "the request", |_| true);
        assert_eq!(seen.header("x-real-ip"), Some(client), "{}", header.escape_ascii());
        assert_eq!(seen.header("x-forwarded-for"), Some(client));
    }
    assert_eq!(upstream.ambiguous(), Vec::<String>::new());
}

/// The header is asked before the row's lists are; a broken or missing one closes the connection without a word.
#[test]
fn a_missing_or_broken_proxy_header_closes() {
    let upstream = Upstream::echo();
    let edge = edge(&upstream, r#"proxy_protocol = ["here"], allow = ["public"], deny = ["abuse"]"#, "");
    let wrong: &[&[u8]] = &[
        b"",
        b"PROXY TCP4 198.51.100.9 203.0.113.1 1000 443\r\n", // whom the row denies
        b"PROXY TCP4 203.0.113.7 203.0.113.1 1000\r\n",
        b"PROXY TCP4 203.0.113.7 203.0.113.1 1000 443\n",
        b"PROXY TCP4 2001:db8::7 2001:db8::1 1000 443\r\n",
        b"PROXY TCP4 203.0.113.7 203.0.113.1 1000 99999\r\n",
        b"PROXY TCP4  203.0.113.7 203.0.113.1 1000 443\r\n",
        b"PROXY UDP4 203.0.113.7 203.0.113.1 1000 443\r\n",
        b"proxy TCP4 203.0.113.7 203.0.113.1 1000 443\r\n",
        b"PROXY TCP4 0203.0.113.7 203.0.113.1 1000 443\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\x0c\xcb\0\x71\x07\xcb\0\x71\x01\x03\xe8\x01\xbb",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x04\xcb\0\x71\x07",
    ];
    for header in wrong {
        assert_eq!(said(&edge, header), b"", "{}", header.escape_ascii());
    }
    assert_eq!(upstream.mark(), 0);
}

/// A peer that the row does not name may not even send one; a row without the key takes no header from anybody.
#[test]
fn nobody_else_may_send_a_proxy_header() {
    let upstream = Upstream::echo();
    let elsewhere = edge(&upstream, r#"proxy_protocol = ["abuse"], allow = ["public"]"#, "");
    assert_eq!(said(&elsewhere, V2), b"");
    let plain = edge(&upstream, r#"allow = ["public"]"#, "");
    assert!(ask(&plain, V2, "").is_none());
    assert_eq!(ask(&plain, b"", "").unwrap().status, 200);
    assert_eq!(upstream.mark(), 1);
}

#[test]
fn a_load_balancers_own_connection_is_its_own() {
    let upstream = Upstream::echo();
    let edge = edge(&upstream, r#"proxy_protocol = ["here"], allow = ["public"]"#, "");
    assert_eq!(ask(&edge, V2_LOCAL, "").unwrap().status, 200);
    assert_eq!(upstream.seen()[0].header("x-real-ip"), Some("127.0.0.1"));
}

/// The list is read from the right: the first that is no trusted proxy is the client, whatever stands before.
#[test]
fn a_trusted_peers_header_is_believed_from_the_right() {
    for (name, cases) in [
        (
            "X-Forwarded-For",
            &[
                ("X-Forwarded-For: 203.0.113.7\r\n", "203.0.113.7"),
                ("X-Forwarded-For: 6.6.6.6, 203.0.113.7\r\n", "203.0.113.7"),
                ("X-Forwarded-For: 6.6.6.6, 203.0.113.7, 127.0.0.9\r\n", "203.0.113.7"),
                ("X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 203.0.113.7\r\n", "203.0.113.7"),
                ("X-Forwarded-For: 2001:db8::7\r\n", "2001:db8::7"),
                ("X-Forwarded-For: 6.6.6.6, nonsense\r\n", "127.0.0.1"),
                ("Forwarded: for=203.0.113.7\r\n", "127.0.0.1"),
                ("", "127.0.0.1"),
            ][..],
        ),
        (
            "Forwarded",
            &[
                ("Forwarded: for=203.0.113.7\r\n", "203.0.113.7"),
                ("Forwarded: for=6.6.6.6, for=\"[2001:db8::7]:4711\";proto=https\r\n", "2001:db8::7"),
                ("Forwarded: for=_hidden\r\n", "127.0.0.1"),
                ("X-Forwarded-For: 203.0.113.7\r\n", "127.0.0.1"),
            ],
        ),
        (
            "CF-Connecting-IP",
            &[
                ("CF-Connecting-IP: 203.0.113.7\r\n", "203.0.113.7"),
                ("CF-Connecting-IP: 203.0.113.7, 6.6.6.6\r\n", "127.0.0.1"),
                ("X-Forwarded-For: 203.0.113.7\r\n", "127.0.0.1"),
            ],
        ),
    ] {
        let upstream = Upstream::echo();
        let table = format!("[client_address]\ntrusted = [\"here\"]\nheader = \"{name}\"\n");
        let edge = edge(&upstream, r#"allow = ["public"]"#, &table);
        for (fields, client) in cases {
            let mark = upstream.mark();
            assert_eq!(ask(&edge, b"", fields).unwrap().status, 200, "{name}: {fields}");
            let seen = upstream.wait_from(mark, "the request", |_| true);
            assert_eq!(seen.header("x-real-ip"), Some(*client), "{name}: {fields}");
        }
        assert_eq!(upstream.ambiguous(), Vec::<String>::new());
    }
}

/// Site and route ask for the true client, not for the peer.
#[test]
fn the_second_gate_judges_the_true_client() {
    let upstream = Upstream::echo();
    let table = "[client_address]\ntrusted = [\"here\"]\nheader = \"X-Forwarded-For\"\n";
    let edge = edge(&upstream, r#"allow = ["public"]"#, table);
    let status = |fields: &str, path: &str| {
        let mut wire = dial(&edge, b"").unwrap();
        wire.ask(format!("GET {path} HTTP/1.1\r\nHost: {NAME}\r\n{fields}\r\n")).unwrap().status
    };
    assert_eq!(status("X-Forwarded-For: 203.0.113.7\r\n", "/office/"), 200);
    assert_eq!(status("X-Forwarded-For: 203.0.113.7, 6.6.6.6\r\n", "/office/"), 403);
    assert_eq!(status("", "/office/"), 403);
    assert_eq!(status("", "/"), 200);
}

fn edge(upstream: &Upstream, row: &str, more: &str) -> Edge {
    let at = upstream.address();
    Edge::start(&format!(
        r#"
[sources]
here = ["127.0.0.0/8"]
office = ["203.0.113.0/24"]
abuse = ["198.51.100.0/24"]

[ports]
"{HTTPS}" = {{ serve = "https", {row} }}

{more}
[[site]]
domains = ["{NAME}"]
upstream = "{at}"
certificate = "internal"
  [[site.route]]
  path = "/office/"
  upstream = "{at}"
  allow = ["office"]
"#
    ))
}

/// Sends the header, then a request over TLS; None when there is no handshake to be had.
fn ask(edge: &Edge, header: &[u8], fields: &str) -> Option<Response> {
    dial(edge, header)?.ask(format!("GET / HTTP/1.1\r\nHost: {NAME}\r\n{fields}\r\n")).ok()
}

fn dial(edge: &Edge, header: &[u8]) -> Option<Wire<client::Tls>> {
    let mut socket = client::tcp(edge.https()).unwrap();
    socket.write_all(header).ok()?;
    let name = ServerName::try_from(NAME).unwrap();
    let mut connection = ClientConnection::new(client::config(&edge.ca(), &[b"http/1.1"]), name).unwrap();
    while connection.is_handshaking() {
        connection.complete_io(&mut socket).ok()?;
    }
    Some(Wire::new(StreamOwned::new(connection, socket)))
}

/// What a plain socket hears that sends the header and the beginning of a handshake.
fn said(edge: &Edge, header: &[u8]) -> Vec<u8> {
    let mut socket: TcpStream =
        client::tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, edge.https().port()))).unwrap();
    let _ = socket.write_all(header);
    let name = ServerName::try_from(NAME).unwrap();
    let mut connection = ClientConnection::new(client::config(&edge.ca(), &[b"http/1.1"]), name).unwrap();
    let _ = connection.write_tls(&mut socket);
    let mut told = Vec::new();
    match socket.read_to_end(&mut told) {
        Err(error) if !client::ended(&error) => panic!("{} is not closed: {error}", header.escape_ascii()),
        _ => told,
    }
}
