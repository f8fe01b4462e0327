//! Who waits, and in which order.

use std::io::Write as _;
use std::sync::{Arc, Barrier, Condvar, Mutex};

use super::{addresses, edge, say, wait, wait_for_status};
use crate::support::client::{NAME, Tls, Wire, connect};
use crate::support::edge::Edge;
use crate::support::port::Port;
use crate::support::upstream::{Then, Upstream};

/// An upstream that answers only as often as it is told to, and knows how many ask at once.
#[derive(Clone, Default)]
struct Turnstile(Arc<(Mutex<Counts>, Condvar)>);

#[derive(Default)]
struct Counts {
    inside: usize,
    most: usize,
    free: usize,
}

impl Turnstile {
    fn upstream(&self) -> Upstream {
        let own = self.clone();
        Upstream::start(move |seen, stream| {
            own.pass();
            say(stream, &seen.target)
        })
    }

    fn pass(&self) {
        let (counts, changed) = &*self.0;
        let mut counts = counts.lock().unwrap();
        counts.inside += 1;
        counts.most = counts.most.max(counts.inside);
        counts = changed.wait_while(counts, |counts| counts.free == 0).unwrap();
        counts.free -= 1;
        counts.inside -= 1;
    }

    fn let_go(&self, count: usize) {
        self.0.0.lock().unwrap().free += count;
        self.0.1.notify_all();
    }

    fn most(&self) -> usize {
        self.0.0.lock().unwrap().most
    }
}

fn send(edge: &Edge, path: &str) -> Wire<Tls> {
    let mut client = connect(edge);
    client.send(format!("GET {path} HTTP/1.1\r\nHost: {NAME}\r\n\r\n")).unwrap();
    client
}

#[test]
fn no_more_at_once_than_there_are_places_and_first_come_first_served() {
    let turnstile = Turnstile::default();
    let upstream = turnstile.upstream();
    let edge = edge(&addresses(&[&upstream]), "concurrency = 2\nqueue = 4\nqueue_timeout = \"60s\"");
    let mut clients: Vec<_> = ["/0", "/1"].map(|path| send(&edge, path)).into();
    upstream.wait_from(0, "/0", |seen| seen.target == "/0");
    upstream.wait_from(0, "/1", |seen| seen.target == "/1");
    for (count, path) in [(1, "/2"), (2, "/3"), (3, "/4"), (4, "/5")] {
        clients.push(send(&edge, path));
        wait_for_status(&edge, path, wait(count));
    }
    let full = connect(&edge).get("/6").unwrap();
    assert_eq!((full.status, full.header("retry-after")), (503, Some("5")));
    for path in ["/2", "/3", "/4", "/5"] {
        let mark = upstream.mark();
        turnstile.let_go(1);
        assert_eq!(upstream.wait_from(mark, path, |_| true).target, path);
    }
    turnstile.let_go(2);
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.response().unwrap().text(), format!("/{number}"));
    }
    assert_eq!(turnstile.most(), 2);
    assert_eq!(upstream.mark(), 6);
}

#[test]
fn a_client_that_reads_slowly_keeps_no_place() {
    const LENGTH: usize = 16 << 20;
    let upstream = Upstream::start(|seen, stream| {
        if seen.target != "/large" {
            return say(stream, &seen.target);
        }
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n")?;
        stream.write_all(&vec![b'x'; LENGTH])?;
        Ok(Then::Keep)
    });
    let edge = edge(&addresses(&[&upstream]), "concurrency = 1\nqueue_timeout = \"60s\"");
    let mut slow = send(&edge, "/large");
    upstream.wait_from(0, "/large", |seen| seen.target == "/large");
    assert_eq!(connect(&edge).get("/next").unwrap().text(), "/next");
    assert_eq!(slow.response().unwrap().body.len(), LENGTH);
}

#[test]
fn whoever_waits_too_long_or_leaves_takes_no_place() {
    let turnstile = Turnstile::default();
    let upstream = turnstile.upstream();
    let held = |timeout: &str| {
        let proxy = format!("concurrency = 1\nqueue_timeout = \"{timeout}\"");
        let (mark, edge) = (upstream.mark(), edge(&addresses(&[&upstream]), &proxy));
        let first = send(&edge, "/first");
        upstream.wait_from(mark, "/first", |seen| seen.target == "/first");
        (edge, first)
    };
    let (hurried, _first) = held("300ms");
    let late = connect(&hurried).get("/late").unwrap();
    assert_eq!((late.status, late.header("retry-after")), (503, Some("5")));
    let (edge, mut first) = held("60s");
    let leaving = send(&edge, "/leaving");
    wait_for_status(&edge, "it waits", wait(1));
    drop(leaving);
    wait_for_status(&edge, "it has left", wait(0));
    turnstile.let_go(3);
    assert_eq!(first.response().unwrap().text(), "/first");
    assert_eq!(connect(&edge).get("/next").unwrap().text(), "/next");
    assert_eq!(upstream.mark(), 3);
}

/// While nothing is up, requests stand in the order in which they came; what comes up serves them so.
#[test]
fn a_deploy_is_waited_out_in_order() {
    let port = Port::reserve();
    let address = port.address();
    let edge = edge(&[address.to_string()], "hold = \"60s\"\nqueue = 8");
    let mut clients = Vec::new();
    for number in 0..8 {
        clients.push(send(&edge, &format!("/{number}")));
        wait_for_status(&edge, "it waits", wait(number + 1));
    }
    let full = connect(&edge).get("/8").unwrap();
    assert_eq!((full.status, full.header("retry-after")), (503, Some("5")));
    // None is answered before all have a connection of their own.
    let all = Barrier::new(clients.len());
    let upstream = Upstream::raw_at(address, move |connection| {
        let number = connection.number.to_string();
        while connection.request().is_some() {
            all.wait();
            say(&mut connection.stream, &number)?;
        }
        Ok(())
    });
    for (number, client) in clients.iter_mut().enumerate() {
        let told = client.response().unwrap();
        assert_eq!((told.status, told.text()), (200, number.to_string()));
    }
    assert_eq!(upstream.mark(), 8);
    wait_for_status(&edge, "nobody waits", wait(0));
}

/// Without `hold` nothing waits: what is down is tried all the same, and answers as soon as it is there.
#[test]
fn without_hold_a_failure_is_told_at_once() {
    let port = Port::reserve();
    let address = port.address();
    let edge = edge(&[address.to_string(), "127.0.0.1:1".to_owned()], "hold = \"0s\"");
    let mut client = connect(&edge);
    (0..3).for_each(|_| assert_eq!(client.get("/").unwrap().status, 502));
    let upstream = Upstream::raw_at(address, |connection| {
        while connection.request().is_some() {
            say(&mut connection.stream, "there")?;
        }
        Ok(())
    });
    assert_eq!(client.get("/").unwrap().text(), "there");
    drop(upstream);
}
