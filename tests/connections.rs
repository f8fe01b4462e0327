//! The list of connections: each kind is seen in it while it is open, and gone afterwards.

use std::io::Write as _;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::PATIENCE;
use crate::support::client::{NAME, Tls, Wire, connect, tcp};
use crate::support::edge::{Edge, HTTP, HTTPS, ROWS, run};
use crate::support::h2client::H2Client;
use crate::support::upstream::{Then, Upstream};
use crate::support::websocket::{ACCEPT, UPGRADE};

const FORWARD: &str = "127.0.0.3:0";

#[test]
fn each_connection_is_listed_while_it_is_open() {
    let upstream = upstream();
    let edge = edge(&upstream);
    let mut kept = connect(&edge);
    let mut two = H2Client::connect(edge.https(), &edge.ca(), NAME).unwrap();
    for _ in 0..2 {
        assert_eq!(kept.get("/").unwrap().status, 200);
        let request = Request::get(format!("https://{NAME}/")).body(()).unwrap();
        assert_eq!(two.ask(request, Bytes::new()).unwrap().status, 200);
    }
    let socket = websocket(&edge);
    let mut forwarded = Wire::new(tcp(edge.address(FORWARD)).unwrap());
    assert_eq!(forwarded.get("/").unwrap().status, 200);
    let mut plain = Wire::new(tcp(edge.address(HTTP)).unwrap());
    assert_eq!(plain.get("/").unwrap().status, 308);
    let silent = tcp(edge.https()).unwrap();
    let line = |protocol: &str, row: &str, site: Option<&str>, requests: Option<u32>| {
        json!([protocol, row, site, requests])
    };
    let expected = [
        line("h1", HTTPS, Some(NAME), Some(2)),
        line("h2", HTTPS, Some(NAME), Some(2)),
        line("websocket", HTTPS, Some(NAME), Some(1)),
        line("forward", FORWARD, None, None),
        line("h1", HTTP, Some(NAME), Some(1)),
        line("handshake", HTTPS, None, Some(0)),
    ];
    let listed = wait_for(&edge, expected.len());
    let lines = listed["connections"].as_array().unwrap().iter();
    let seen: Vec<Value> =
        lines.map(|line| json!([line["protocol"], line["row"], line["site"], line["requests"]])).collect();
    for line in &expected {
        assert!(seen.contains(line), "no {line} in {listed:#}");
    }
    let told = text(&edge, &[]);
    assert!(told.starts_with("client     port         protocol   site"), "{told}");
    assert_eq!(told.lines().filter(|line| line.starts_with("127.0.0.1  ")).count(), expected.len(), "{told}");
    drop((kept, two, socket, forwarded, plain, silent));
    wait_for(&edge, 0);
    assert_eq!(text(&edge, &[]), "no connection is open\n");
}

/// What keeps an edge that leaves is what a person wants to know then.
#[test]
fn an_edge_that_leaves_tells_of_whom_it_waits_for() {
    let upstream = upstream();
    let mut edge = edge(&upstream);
    let (socket, idle) = (websocket(&edge), connect(&edge));
    wait_for(&edge, 2);
    edge.signal(Signal::SIGTERM);
    edge.log().wait("that it leaves", |line| line.contains("leaving").then_some(()));
    let left = wait_for(&edge, 1);
    assert_eq!(left["connections"][0]["protocol"], "websocket", "{left:#}");
    drop((socket, idle));
    assert!(edge.wait().success());
}

/// More than a thousand: the oldest are told, and how many there are.
#[test]
fn of_many_connections_the_oldest_are_listed() {
    let upstream = upstream();
    let edge = edge(&upstream);
    let oldest = websocket(&edge);
    wait_for(&edge, 1);
    let many: Vec<_> = (0..1010).map(|_| tcp(edge.address(HTTP)).unwrap()).collect();
    let listed = wait_for(&edge, many.len() + 1);
    let lines = listed["connections"].as_array().unwrap();
    assert_eq!((lines.len(), &lines[0]["protocol"]), (1000, &json!("websocket")));
    assert!(text(&edge, &[]).ends_with("\nthe oldest 1000 of 1011\n"));
    drop((oldest, many));
    wait_for(&edge, 0);
}

/// A client whose WebSocket is open.
fn websocket(edge: &Edge) -> Wire<Tls> {
    let mut socket = connect(edge);
    let answer = socket.ask(format!("GET /ws HTTP/1.1\r\nHost: {NAME}\r\n{UPGRADE}\r\n")).unwrap();
    assert_eq!(answer.status, 101);
    socket
}

/// One that answers, and that takes a `WebSocket` at `/ws`.
fn upstream() -> Upstream {
    Upstream::start(|seen, stream| {
        if seen.target == "/ws" {
            write!(
                stream,
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
            )?;
        } else {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
        }
        Ok(Then::Keep)
    })
}

fn edge(upstream: &Upstream) -> Edge {
    let at = upstream.address();
    Edge::start(&format!(
        "{ROWS}\"{FORWARD}\" = {{ forward = \"{at}\", allow = [\"public\"] }}\n\
         [[site]]\ndomains = [\"{NAME}\"]\nupstream = \"{at}\"\ncertificate = \"internal\"\n\
         [limits]\nhandshake_timeout = \"10m\"\nheader_timeout = \"10m\"\n"
    ))
}

/// The list, as soon as it has so many connections in all.
#[track_caller]
pub(crate) fn wait_for(edge: &Edge, total: usize) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let listed: Value = serde_json::from_str(&text(edge, &["--format", "json"])).unwrap();
        if listed["total"] == total {
            return listed;
        }
        assert!(Instant::now() < deadline, "not {total}: {listed:#}");
        std::thread::sleep(Duration::from_millis(5)); // nobody is told when another process accepts or closes
    }
}

fn text(edge: &Edge, more: &[&str]) -> String {
    let socket = edge.folder().join("admin.sock").display().to_string();
    let (code, out, err) = run(&[&["status", "--connections", "--socket", &socket], more].concat());
    assert_eq!(code, Some(0), "{err}");
    out
}
