//! Workers that retire and servers that restart, under load: a real gunicorn, and no request lost.

use std::io::Read as _;
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use socket2::SockRef;

use super::{edge, say, wait, wait_for_status};
use crate::support::client::{NAME, Tls, Wire, connect};
use crate::support::django::Django;
use crate::support::edge::Edge;
use crate::support::port::Port;
use crate::support::upstream::Upstream;

/// What a client that keeps asking has seen.
#[derive(Default)]
struct Tally {
    good: AtomicUsize,
    bad: AtomicUsize,
}

/// Asks until told to stop, every fourth time with a POST. A connection that the edge closes in good order is made anew.
fn keep_asking(edge: &Edge, stop: impl Fn(usize) -> bool, tally: &Tally) {
    let mut client = connect(edge);
    for round in 0.. {
        if stop(round) {
            return;
        }
        let request = if round % 4 == 0 {
            format!("POST /echo HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: 5\r\n\r\nhello")
        } else {
            format!("GET /status/200 HTTP/1.1\r\nHost: {NAME}\r\n\r\n")
        };
        let answer = client.ask(request);
        if answer.as_ref().is_ok_and(|answer| answer.status == 200) {
            tally.good.fetch_add(1, Ordering::Relaxed);
        } else {
            eprintln!("round {round}: {answer:?}");
            tally.bad.fetch_add(1, Ordering::Relaxed);
            client = connect(edge);
        }
    }
}

#[test]
fn workers_retire_and_no_request_is_lost() {
    for class in ["sync", "gthread"] {
        let django = Django::gunicorn_with(class, None, &["--workers", "4", "--max-requests", "50"]);
        let edge = edge(std::slice::from_ref(&django.upstream), "");
        let tally = Tally::default();
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| keep_asking(&edge, |round| round == 100, &tally));
            }
        });
        assert_eq!((tally.good.into_inner(), tally.bad.into_inner()), (1600, 0), "{class}");
    }
}

#[test]
fn twenty_restarts_are_not_felt() {
    let port = Port::reserve();
    let address = port.address().to_string();
    let mut django = Django::gunicorn_with("gthread", Some(&address), &[]);
    let edge = edge(std::slice::from_ref(&address), "hold = \"60s\"");
    let (tally, done) = (Tally::default(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| keep_asking(&edge, |_| done.load(Ordering::Relaxed), &tally));
        }
        for _ in 0..20 {
            let before = tally.good.load(Ordering::Relaxed);
            while tally.good.load(Ordering::Relaxed) < before + 20 {
                std::thread::sleep(Duration::from_millis(5)); // the clients tell nobody
            }
            django.leave();
            django = Django::gunicorn_with("gthread", Some(&address), &[]);
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(tally.bad.into_inner(), 0);
}

/// A POST whose body has so many octets.
fn post(edge: &Edge, length: usize) -> Wire<Tls> {
    let mut client = connect(edge);
    let body = "x".repeat(length);
    client
        .send(format!("POST / HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: {length}\r\n\r\n{body}"))
        .unwrap();
    client
}

/// The connection that the edge has made, once a request lies in it.
fn sent_to(server: &TcpListener) -> TcpStream {
    let stream = server.accept().unwrap().0;
    assert!(stream.peek(&mut [0]).unwrap() > 0);
    stream
}

#[test]
fn what_a_server_that_stopped_has_not_read_goes_to_the_next() {
    let port = Port::reserve();
    let address = port.address();
    let server = TcpListener::bind(address).unwrap();
    let edge = edge(&[address.to_string()], "hold = \"60s\"");
    let mut client = post(&edge, 200);
    let stream = sent_to(&server);
    drop(server);
    drop(stream);
    wait_for_status(&edge, "it waits", wait(1));
    let next = Upstream::raw_at(address, |connection| {
        while connection.request().is_some() {
            say(&mut connection.stream, "next")?;
        }
        Ok(())
    });
    assert_eq!(client.response().unwrap().text(), "next");
    assert_eq!(next.seen().iter().filter(|seen| seen.body.len() == 200).count(), 1);
}

#[test]
fn what_a_server_may_have_read_in_part_is_not_sent_twice() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let edge = edge(&[server.local_addr().unwrap().to_string()], "hold = \"60s\"");
    let mut client = post(&edge, 8192);
    let mut stream = sent_to(&server);
    drop(server);
    stream.read_exact(&mut [0; 100]).unwrap();
    drop(stream);
    assert_eq!(client.response().unwrap().status, 502);
}

#[test]
fn a_reset_alone_is_no_proof() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let edge = edge(&[server.local_addr().unwrap().to_string()], "");
    let mut client = post(&edge, 200);
    let mut stream = sent_to(&server);
    while stream.read(&mut [0; 4096]).unwrap() == 4096 {}
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
    assert_eq!(client.response().unwrap().status, 502);
    server.set_nonblocking(true).unwrap();
    while let Ok((mut look, _)) = server.accept() {
        assert_eq!(look.read(&mut [0]).unwrap(), 0, "it was sent twice");
    }
}
