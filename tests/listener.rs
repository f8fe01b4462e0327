//! `[admin] listen`: what it shows, to whom, under which names, and until when.

use std::io::Read as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::client::{self, NAME, Response, Wire};
use crate::support::edge::{Edge, ROWS};
use crate::support::lines::text;

/// As the log names its row.
const LISTEN: &str = "[admin] listen";

#[test]
fn it_shows_and_changes_nothing() {
    let edge = Edge::start(&config("listen = \"127.0.0.1:0\""));
    let at = edge.address(LISTEN);
    let ask = |line: &str| ask(at, line, &format!("Host: {at}\r\n"));
    let metrics = ask("GET /metrics HTTP/1.1");
    assert_eq!(metrics.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert!(metrics.text().contains("\nvestibule_build_info{version="), "{}", metrics.text());
    for (line, status, text) in [
        ("GET /healthz HTTP/1.1", 200, "ok\n"),
        ("GET /readyz?verbose HTTP/1.1", 200, "ok\n"),
        ("HEAD /healthz HTTP/1.1", 200, ""),
        ("POST /healthz HTTP/1.1", 405, "only GET and HEAD are answered\n"),
        ("POST /metrics HTTP/1.1", 405, "only GET and HEAD are answered\n"),
        ("POST /v1/reload HTTP/1.1", 404, "nothing is here\n"),
        ("GET /v1/status HTTP/1.1", 404, "nothing is here\n"),
        ("GET /healthz/ HTTP/1.1", 404, "nothing is here\n"),
    ] {
        let answer = ask(line);
        assert_eq!((answer.status, answer.text().as_str()), (status, text), "{line}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{line}");
    }
    assert_eq!(ask("POST /readyz HTTP/1.1").header("allow"), Some("GET, HEAD"));
}

/// A name that a stranger's page can have lead here is not answered.
#[test]
fn names_that_may_be_a_strangers_are_not_answered() {
    let edge = Edge::start(&config("listen = \"127.0.0.1:0\"\nhosts = [\"edge.internal.example\"]"));
    let at = edge.address(LISTEN);
    for (host, status) in [
        ("Host: localhost\r\n", 200),
        ("Host: 127.0.0.1:1\r\n", 200),
        ("Host: [::1]:9180\r\n", 200),
        ("Host: EDGE.internal.example:9180\r\n", 200),
        ("Host: attacker.example\r\n", 421),
        ("Host: edge.internal.example.attacker.example\r\n", 421),
        ("", 400),
        ("Host: \r\n", 400),
        ("Host: a b\r\n", 400),
        ("Host: localhost\r\nHost: attacker.example\r\n", 400),
    ] {
        for path in ["/metrics", "/healthz"] {
            let answer = ask(at, &format!("GET {path} HTTP/1.1"), host);
            assert_eq!(answer.status, status, "{path} {host:?}: {}", answer.text());
        }
    }
    let absolute = ask(at, "GET http://attacker.example/metrics HTTP/1.1", "Host: localhost\r\n");
    assert_eq!(absolute.status, 421);
    // A health check of HTTP/1.0 names nobody, and no browser speaks it.
    assert!(raw(at, "GET /healthz HTTP/1.0\r\n\r\n").starts_with("HTTP/1.0 200"));
}

#[test]
fn an_edge_that_leaves_is_not_ready_and_lives() {
    let mut edge = Edge::start(&config("listen = \"127.0.0.1:0\""));
    let at = edge.address(LISTEN);
    let mut request = client::connect(&edge);
    let head =
        format!("POST / HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n");
    request.send(head).unwrap();
    assert_eq!(request.any_response(true).unwrap().status, 100);
    edge.signal(Signal::SIGTERM);
    edge.log().wait("the drain", |line| line.contains("leaving").then_some(()));
    let host = "Host: localhost\r\n";
    let ready = ask(at, "GET /readyz HTTP/1.1", host);
    assert_eq!((ready.status, ready.text().as_str()), (503, "the edge is leaving\n"));
    for path in ["/healthz", "/metrics"] {
        assert_eq!(ask(at, &format!("GET {path} HTTP/1.1"), host).status, 200, "{path}");
    }
    drop(request);
    assert!(edge.wait().success());
    TcpStream::connect(at).unwrap_err();
}

#[test]
fn a_reload_moves_it() {
    // Addresses that no other test listens at: a port that is let go may be another edge's at once.
    let edge = Edge::start(&config(""));
    let healthy = |at| ask(at, "GET /healthz HTTP/1.1", "Host: localhost\r\n").status == 200;
    edge.write_config(&config("listen = \"127.0.0.4:0\""));
    assert!(edge.reload());
    let first = listening(&edge, "127.0.0.4");
    assert!(healthy(first));
    edge.write_config(&config("listen = \"127.0.0.4:0\"\nhosts = [\"edge.example\"]"));
    assert!(edge.reload());
    assert_eq!(ask(first, "GET /healthz HTTP/1.1", "Host: edge.example\r\n").status, 200, "the same socket");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    edge.write_config(&config(&format!("listen = \"{}\"", taken.local_addr().unwrap())));
    assert!(!edge.reload(), "a port that is taken");
    assert!(healthy(first), "the old one goes on");
    edge.write_config(&config("listen = \"127.0.0.5:0\""));
    assert!(edge.reload());
    let second = listening(&edge, "127.0.0.5");
    assert!(healthy(second));
    closes(first);
    edge.write_config(&config(""));
    assert!(edge.reload());
    closes(second);
}

/// More silent clients than there are places hold up nobody for long.
#[test]
fn clients_that_say_nothing_are_let_go() {
    let edge = Edge::start(&config("listen = \"127.0.0.1:0\""));
    let at = edge.address(LISTEN);
    let silent: Vec<TcpStream> = (0..80).map(|_| client::tcp(at).unwrap()).collect();
    assert_eq!(ask(at, "GET /healthz HTTP/1.1", "Host: localhost\r\n").status, 200);
    for mut stream in silent {
        let mut rest = Vec::new();
        assert!(stream.read_to_end(&mut rest).is_ok_and(|_| rest.is_empty()), "closed without a word");
    }
}

/// Waits until nobody listens there: a socket is closed a moment after the reload that lets it go.
#[track_caller]
fn closes(at: SocketAddr) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(at).is_ok() {
        assert!(Instant::now() < deadline, "{at} still listens");
    }
}

fn config(admin: &str) -> String {
    format!(
        "{ROWS}\n[[site]]\ndomains = [\"{NAME}\"]\nupstream = \"127.0.0.1:9\"\ncertificate = \"internal\"\n\
         [admin]\nsocket = \"./admin.sock\"\n{admin}\n"
    )
}

/// Where the log says that it listens, at this address.
#[track_caller]
fn listening(edge: &Edge, ip: &str) -> SocketAddr {
    edge.log().wait("the listener", |line| {
        let line: Value = serde_json::from_str(line).ok()?;
        let address = text(&line, "address");
        (text(&line, "row") == LISTEN && address.starts_with(ip)).then(|| address.parse().unwrap())
    })
}

fn ask(at: SocketAddr, line: &str, fields: &str) -> Response {
    Wire::new(client::tcp(at).unwrap()).ask(format!("{line}\r\n{fields}\r\n")).unwrap()
}

fn raw(at: SocketAddr, request: &str) -> String {
    let mut wire = Wire::new(client::tcp(at).unwrap());
    wire.send(request).unwrap();
    String::from_utf8(wire.rest().unwrap()).unwrap()
}
