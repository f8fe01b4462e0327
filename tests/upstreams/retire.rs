//! Workers that retire and servers that restart, under load: a real gunicorn, and no request lost.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::{closed, edge};
use crate::support::client::{NAME, connect};
use crate::support::django::Django;
use crate::support::edge::Edge;

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
    let address = closed().to_string();
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
                std::thread::sleep(std::time::Duration::from_millis(5)); // the clients tell nobody
            }
            django.leave();
            django = Django::gunicorn_with("gthread", Some(&address), &[]);
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(tally.bad.into_inner(), 0);
}
