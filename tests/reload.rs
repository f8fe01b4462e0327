//! Reloads and the end, under load: what is right is taken as a whole, what is wrong not at all, and no request is
//! lost to either.

use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::Request;
use nix::sys::signal::Signal;

use crate::support::client::{self, NAME, connect};
use crate::support::edge::{Edge, ROWS};
use crate::support::h2client::H2Client;
use crate::support::h2raw::{H2, Outcome, WINDOW_UPDATE};
use crate::support::upstream::{Then, Upstream};
use crate::support::websocket;

const RELOADS: usize = 200;

#[test]
fn two_hundred_reloads_cost_no_request() {
    let upstream = Upstream::echo();
    let edge = Edge::start(&config(&upstream, 0));
    let load = Load::default();
    std::thread::scope(|scope| {
        scope.spawn(|| load.run("keep-alive", || Ok(connect(&edge)), |client| client.get("/load")));
        scope.spawn(|| load.run("new connections", || Ok(()), |()| connect(&edge).get("/load")));
        scope.spawn(|| {
            load.run("one HTTP/2 connection", || h2(&edge), |client| client.ask(get("/load"), Bytes::new()));
        });
        scope.spawn(|| {
            load.run("new HTTP/2 connections", || Ok(()), |()| h2(&edge)?.ask(get("/load"), Bytes::new()));
        });
        let stop = StopOnDrop(&load.stop);
        for round in 1..=RELOADS {
            let wrong = round % 3 == 0;
            edge.write_config(&if wrong { broken(&upstream, round) } else { config(&upstream, round) });
            assert_eq!(edge.reload(), !wrong, "reload {round}");
        }
        drop(stop);
    });
    assert_eq!(load.failures.lock().unwrap().as_slice(), [] as [String; 0]);
    assert!(load.requests.load(Ordering::SeqCst) > RELOADS, "{:?}", load.requests);
    // The last right file is the one that holds: its redirect tells which it was.
    let answer = connect(&edge).get("/which").unwrap();
    assert_eq!(answer.header("location"), Some(format!("/reload-{RELOADS}").as_str()), "{answer:?}");
}

/// An allow list that no longer has a client ends that client's requests on connections that are already open.
#[test]
fn an_open_connection_obeys_a_new_allow_list() {
    let upstream = Upstream::echo();
    let gate = |allow: &str| {
        format!(
            "{ROWS}\n[sources]\nnobody = [\"192.0.2.0/24\"]\n\n[[site]]\ndomains = [\"{NAME}\"]\nupstream = \"{}\"\n\
             certificate = \"internal\"\nallow = [\"{allow}\"]\n",
            upstream.address()
        )
    };
    let edge = Edge::start(&gate("public"));
    let mut over_h1 = connect(&edge);
    let mut over_h2 = h2(&edge).unwrap();
    assert_eq!(over_h1.get("/").unwrap().status, 200);
    assert_eq!(over_h2.ask(get("/"), Bytes::new()).unwrap().status, 200);
    edge.write_config(&gate("nobody"));
    assert!(edge.reload());
    assert_eq!(over_h1.get("/").unwrap().status, 403);
    assert_eq!(over_h2.ask(get("/"), Bytes::new()).unwrap().status, 403);
}

/// A site that asks for client certificates from now on lets nobody go on without one.
#[test]
fn an_open_connection_obeys_a_new_client_ca() {
    let upstream = Upstream::echo();
    let site = |more: &str| {
        let at = upstream.address();
        format!(
            "{ROWS}\n[[site]]\ndomains = [\"{NAME}\"]\nupstream = \"{at}\"\ncertificate = \"internal\"\n{more}\n"
        )
    };
    let edge = Edge::start(&site(""));
    let mut over_h1 = connect(&edge);
    let mut over_h2 = h2(&edge).unwrap();
    let mark = upstream.mark();
    edge.write_config(&site("body = \"1MiB\""));
    assert!(edge.reload());
    assert_eq!(over_h1.get("/").unwrap().status, 200, "what has not changed does not matter");
    assert_eq!(over_h2.ask(get("/"), Bytes::new()).unwrap().status, 200);
    assert_eq!(upstream.mark(), mark + 2);
    edge.write_config(&site(&format!("client_ca = \"{}\"", edge.ca().display())));
    assert!(edge.reload());
    over_h1.get("/").expect_err("no certificate was shown");
    over_h2.ask(get("/"), Bytes::new()).expect_err("no certificate was shown");
    assert_eq!(upstream.mark(), mark + 2, "nothing reaches the upstream");
}

/// A WebSocket that was open before a reload goes on after it.
#[test]
fn a_websocket_survives_reloads() {
    let upstream = Upstream::start(|_, stream| {
        use std::io::Read;
        write!(
            stream,
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {}\r\n\r\n",
            websocket::ACCEPT
        )?;
        let mut octets = [0; 64];
        loop {
            let count = stream.read(&mut octets)?;
            if count == 0 {
                return Ok(Then::Close);
            }
            stream.write_all(&octets[..count])?;
        }
    });
    let edge = Edge::start(&config(&upstream, 0));
    let mut socket = connect(&edge);
    let fields = websocket::UPGRADE;
    assert_eq!(socket.ask(format!("GET /ws HTTP/1.1\r\nHost: {NAME}\r\n{fields}\r\n")).unwrap().status, 101);
    for round in 1..5 {
        edge.write_config(&config(&upstream, round));
        assert!(edge.reload());
        socket.send(b"still here").unwrap();
        assert_eq!(socket.exactly(10).unwrap(), b"still here");
    }
}

#[test]
fn term_lets_requests_in_flight_finish() {
    let (arrived, in_flight) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let upstream = held(arrived, released);
    let mut edge = Edge::start(&config(&upstream, 0));
    let mut over_h1 = connect(&edge);
    over_h1.send(format!("GET /held HTTP/1.1\r\nHost: {NAME}\r\n\r\n")).unwrap();
    in_flight.recv().unwrap();
    let mut over_h2 = h2(&edge).unwrap();
    let mut idle = connect(&edge);
    idle.get("/idle").unwrap();
    std::thread::scope(|scope| {
        let answer = scope.spawn(|| over_h2.ask(get("/held"), Bytes::new()));
        in_flight.recv().unwrap();
        edge.signal(Signal::SIGTERM);
        assert_eq!(idle.rest().unwrap(), b"", "an idle connection is closed at once");
        assert!(edge.is_running(), "it left before its requests were done");
        release.send(()).unwrap();
        release.send(()).unwrap();
        assert_eq!(over_h1.response().unwrap().text(), "/held");
        assert_eq!(answer.join().unwrap().unwrap().text(), "/held");
    });
    assert!(edge.wait().success());
    assert!(client::tcp(edge.https()).is_err(), "something still listens");
}

/// A client that does not know yet that this was all: what it sends meanwhile is no reason for a reset, which could take the
/// end of an answer from it.
#[test]
fn a_client_over_http2_may_send_until_it_knows() {
    let upstream = Upstream::echo();
    let mut edge = Edge::start(&config(&upstream, 0));
    let mut client = H2::connect(&edge).unwrap();
    let fields: [(&[u8], &[u8]); 4] =
        [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", NAME.as_bytes()), (b":path", b"/")];
    client.request(1, &fields, b"").unwrap();
    assert_eq!(client.outcome(1).unwrap(), Outcome::Status(200));
    edge.signal(Signal::SIGTERM);
    let end = std::iter::repeat_with(|| client.read()).find_map(Result::err).unwrap();
    assert!(client::ended(&end), "{end}");
    for _ in 0..3 {
        client.write(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]).unwrap();
    }
    drop(client);
    assert!(edge.wait().success());
}

/// Clients that connected and asked nothing, before their handshake and after it, do not hold up an edge that leaves.
#[test]
fn term_does_not_wait_for_the_silent() {
    let upstream = Upstream::echo();
    let limits = "\n[limits]\nheader_timeout = \"5m\"\nhandshake_timeout = \"5m\"\n";
    let config = config(&upstream, 0).replace("grace = \"10s\"", "grace = \"5m\"") + limits;
    let mut edge = Edge::start(&config);
    let _silent = client::tcp(edge.https()).unwrap();
    let _shaken = connect(&edge);
    let mut over_h2 = h2(&edge).unwrap();
    over_h2.ask(get("/idle"), Bytes::new()).unwrap();
    edge.signal(Signal::SIGTERM);
    assert!(edge.wait().success());
}

#[test]
fn term_ends_what_is_not_finished_within_grace() {
    let (arrived, in_flight) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let upstream = held(arrived, released);
    let config = config(&upstream, 0).replace("grace = \"10s\"", "grace = \"200ms\"");
    let mut edge = Edge::start(&config);
    let mut client = connect(&edge);
    client.send(format!("GET /held HTTP/1.1\r\nHost: {NAME}\r\n\r\n")).unwrap();
    in_flight.recv().unwrap();
    edge.signal(Signal::SIGTERM);
    assert!(edge.wait().success());
    assert!(client.response().is_err());
    drop(release);
}

/// Answers `/held` when it is released, and says when one has arrived.
fn held(arrived: mpsc::Sender<()>, released: mpsc::Receiver<()>) -> Upstream {
    let (arrived, released) = (Mutex::new(arrived), Arc::new(Mutex::new(released)));
    Upstream::start(move |seen, stream| {
        if seen.target == "/held" {
            arrived.lock().unwrap().send(()).unwrap();
            let _ = released.lock().unwrap().recv();
        }
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{}", seen.target.len(), seen.target)?;
        Ok(Then::Keep)
    })
}

/// Requests without a pause until it is told to stop.
#[derive(Default)]
struct Load {
    stop: AtomicBool,
    requests: AtomicUsize,
    failures: Mutex<Vec<String>>,
}

impl Load {
    fn run<C>(
        &self,
        kind: &str,
        connect: impl Fn() -> std::io::Result<C>,
        mut ask: impl FnMut(&mut C) -> std::io::Result<client::Response>,
    ) {
        let mut client = connect().unwrap();
        while !self.stop.load(Ordering::SeqCst) {
            self.requests.fetch_add(1, Ordering::SeqCst);
            let failure = match ask(&mut client) {
                Ok(answer) if answer.text() == "GET /load" => continue,
                Ok(answer) => format!("{kind}: {answer:?}"),
                Err(error) => format!("{kind}: {error}"),
            };
            self.failures.lock().unwrap().push(failure);
            return;
        }
    }
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn config(upstream: &Upstream, round: usize) -> String {
    format!(
        r#"{ROWS}
[process]
grace = "10s"

[[site]]
domains = ["{NAME}"]
upstream = "{}"
certificate = "internal"
  [[site.route]]
  path = "= /which"
  redirect = {{ to = "/reload-{round}", status = 307 }}
"#,
        upstream.address()
    )
}

/// Files that are wrong in different ways.
fn broken(upstream: &Upstream, round: usize) -> String {
    let right = config(upstream, round);
    match round % 4 {
        0 => right.replace("[[site]]", "[[site]"),
        1 => right.replace("upstream =", "upstraem ="),
        2 => right.replace(
            "certificate = \"internal\"",
            "certificate = { cert = \"none.pem\", key = \"none.pem\" }",
        ),
        _ => right.replace(NAME, "127.0.0.1"),
    }
}

fn h2(edge: &Edge) -> std::io::Result<H2Client> {
    H2Client::connect(edge.https(), &edge.ca(), NAME)
}

fn get(path: &str) -> Request<()> {
    Request::get(format!("https://{NAME}{path}")).body(()).unwrap()
}
