//! Limits of time, number and size: who is over one is told so, or let go, and nobody else notices.

use std::io::{Read, Write};
use std::net::TcpStream;

use bytes::Bytes;
use http::Request;

use crate::connections::wait_for;
use crate::support::client::{self, NAME, Wire, connect};
use crate::support::edge::{Edge, HTTP, ROWS};
use crate::support::h2client::H2Client;
use crate::support::h2raw::{DATA, END_HEADERS, H2, HEADERS, Outcome, block};
use crate::support::upstream::Upstream;

#[test]
fn a_head_that_does_not_end_is_a_408() {
    let upstream = Upstream::echo();
    let edge = edge(&upstream, "header_timeout = \"1s\"");
    let mut client = connect(&edge);
    client.send(format!("GET / HTTP/1.1\r\nHost: {NAME}\r\n")).unwrap();
    assert_eq!(client.response().unwrap().status, 408);
    assert!(client.rest().unwrap().is_empty());
    let mut plain = Wire::new(client::tcp(edge.address(HTTP)).unwrap());
    plain.send("GET / HTT").unwrap();
    plain.rest().unwrap();
    assert_eq!(upstream.mark(), 0);
}

/// A client that keeps sending, an octet at a time, is over the limit all the same.
#[test]
fn a_head_that_trickles_is_over_the_limit_too() {
    let upstream = Upstream::echo();
    let edge = edge(&upstream, "header_timeout = \"1s\"");
    let mut socket = client::tcp(edge.address(HTTP)).unwrap();
    socket.set_read_timeout(Some(std::time::Duration::from_millis(20))).unwrap();
    let mut octet = [0];
    let closed = (0..1000).any(|_| {
        let sent = socket.write_all(b"a");
        sent.is_err()
            || !socket.read(&mut octet).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    });
    assert!(closed, "twenty seconds of trickling were not enough");
}

#[test]
fn a_body_that_stalls_is_a_408() {
    let upstream = Upstream::echo();
    let edge = edge(&upstream, "idle_timeout = \"1s\"");
    let mut client = connect(&edge);
    client.send(format!("POST / HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: 10\r\n\r\nhalf")).unwrap();
    assert_eq!(client.response().unwrap().status, 408);
    assert!(client.rest().unwrap().is_empty());
    let mut client = H2::connect(&edge).unwrap();
    let fields: [(&[u8], &[u8]); 4] =
        [(b":method", b"POST"), (b":scheme", b"https"), (b":authority", NAME.as_bytes()), (b":path", b"/")];
    client.write(HEADERS, END_HEADERS, 1, &block(&fields)).unwrap();
    client.write(DATA, 0, 1, b"half").unwrap();
    assert_eq!(client.outcome(1).unwrap(), Outcome::Status(408));
    assert_eq!(upstream.mark(), 0, "half a request is no request");
}

#[test]
fn a_handshake_that_does_not_end_is_closed() {
    let upstream = Upstream::echo();
    let edge = edge(&upstream, "handshake_timeout = \"1s\"");
    for begun in [&b""[..], b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"] {
        let mut socket = client::tcp(edge.https()).unwrap();
        let _ = socket.write_all(begun); // by a slow client, the edge may have closed already
        hear_the_end(socket);
    }
}

#[test]
fn an_idle_connection_is_closed() {
    let upstream = Upstream::echo();
    let edge = edge(&upstream, "idle_timeout = \"1s\"");
    let mut client = connect(&edge);
    client.get("/").unwrap();
    assert!(client.rest().unwrap().is_empty());
    let mut over_h2 = H2::connect(&edge).unwrap();
    let fields: [(&[u8], &[u8]); 4] =
        [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", NAME.as_bytes()), (b":path", b"/")];
    over_h2.request(1, &fields, b"").unwrap();
    assert_eq!(over_h2.outcome(1).unwrap(), Outcome::Status(200));
    assert!(matches!(over_h2.outcome(3).unwrap(), Outcome::Gone(None | Some(0))));
}

#[test]
fn one_client_may_have_so_many_connections() {
    let upstream = Upstream::echo();
    let edge = edge(&upstream, "connections_per_client = 2");
    let mut first = connect(&edge);
    let second = connect(&edge);
    hear_the_end(client::tcp(edge.https()).unwrap());
    assert_eq!(first.get("/").unwrap().status, 200);
    drop((first, second));
    wait_for(&edge, 0);
    assert_eq!(connect(&edge).get("/").unwrap().status, 200);
}

#[test]
fn a_row_may_have_so_many_connections() {
    let upstream = Upstream::echo();
    let rows = ROWS.replacen(r#"allow = ["public"] }"#, r#"allow = ["public"], max_connections = 1 }"#, 1);
    let edge = Edge::start(&format!("{rows}{}", site(&upstream)));
    let mut only = connect(&edge);
    assert_eq!(only.get("/").unwrap().status, 200);
    hear_the_end(client::tcp(edge.https()).unwrap());
    let mut plain = Wire::new(client::tcp(edge.address(HTTP)).unwrap());
    assert_eq!(plain.get("/").unwrap().status, 308, "the other row is free");
}

/// Over HTTP/1.1 with chunks, and over HTTP/2: nobody has said how much it will be.
#[test]
fn a_body_of_unknown_length_is_measured_as_it_comes() {
    let upstream = Upstream::echo();
    let edge = edge(&upstream, "body = \"10KiB\"");
    let chunk = format!("1000\r\n{}\r\n", "x".repeat(0x1000));
    let mut client = connect(&edge);
    let head = format!("POST / HTTP/1.1\r\nHost: {NAME}\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send([head, chunk.repeat(3)].concat()).unwrap();
    assert_eq!(client.response().unwrap().status, 413);
    assert!(client.rest().unwrap().is_empty());
    let mut over_h2 = H2Client::connect(edge.https(), &edge.ca(), NAME).unwrap();
    let post = || Request::post(format!("https://{NAME}/")).body(()).unwrap();
    assert_eq!(over_h2.ask(post(), Bytes::from(vec![b'x'; 20_000])).unwrap().status, 413);
    assert_eq!(upstream.mark(), 0, "a body that was cut is no request");
    assert_eq!(over_h2.ask(post(), Bytes::from(vec![b'x'; 10_000])).unwrap().status, 200);
}

/// What the client sends behind a 413 is read for a while, so that the answer is not lost to a reset.
#[test]
fn a_413_reaches_a_client_that_goes_on_sending() {
    let upstream = Upstream::echo();
    let edge = edge(&upstream, "body = \"1MiB\"");
    for _ in 0..10 {
        let mut client = connect(&edge);
        client.send(format!("POST / HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: 2000000\r\n\r\n")).unwrap();
        let _ = client.send(vec![b'x'; 500_000]);
        assert_eq!(client.response().unwrap().status, 413);
    }
}

fn edge(upstream: &Upstream, limit: &str) -> Edge {
    Edge::start(&format!("{ROWS}\n[limits]\n{limit}\n{}", site(upstream)))
}

fn site(upstream: &Upstream) -> String {
    let at = upstream.address();
    format!("\n[[site]]\ndomains = [\"{NAME}\"]\nupstream = \"{at}\"\ncertificate = \"internal\"\n")
}

/// Nothing is said, and the connection is closed.
fn hear_the_end(mut socket: TcpStream) {
    let mut told = Vec::new();
    match socket.read_to_end(&mut told) {
        Err(error) if !client::ended(&error) => panic!("not closed: {error}"),
        _ => assert_eq!(told, b""),
    }
}
