//! Which of several upstreams is asked.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{addresses, command, config, edge, named, say, wait_for_status};
use crate::support::client::{NAME, Response, connect};
use crate::support::edge::Edge;
use crate::support::port::Port;
use crate::support::upstream::{Then, Upstream};

#[test]
fn each_has_its_share() {
    let upstreams = [named("a"), named("b"), named("c")];
    for balance in ["least-busy", "round-robin"] {
        let proxy = format!("balance = \"{balance}\"");
        let edge = edge(&addresses(&upstreams.each_ref()), &proxy);
        let marks = upstreams.each_ref().map(Upstream::mark);
        let mut client = connect(&edge);
        (0..90).for_each(|_| assert_eq!(client.get("/").unwrap().status, 200));
        for (upstream, mark) in upstreams.iter().zip(marks) {
            let share = upstream.mark() - mark;
            assert!((10..=60).contains(&share), "{balance}: {share}");
            assert!(balance != "round-robin" || share == 30, "{share}");
        }
    }
}

/// The cookie of an answer, and its attributes.
fn cookie(answer: &Response) -> Option<(String, String)> {
    let field = answer.header("set-cookie")?;
    let (pair, attributes) = field.split_once("; ")?;
    Some((pair.to_owned(), attributes.to_owned()))
}

fn ask(edge: &Edge, cookie: &str) -> Response {
    connect(edge).ask(format!("GET / HTTP/1.1\r\nHost: {NAME}\r\nCookie: a=b; {cookie}\r\n\r\n")).unwrap()
}

#[test]
fn a_cookie_brings_a_client_back() {
    let (a, b, c) = (named("a"), named("b"), named("c"));
    let all = addresses(&[&a, &b, &c]);
    let sticky = "balance = \"sticky\"\nhold = \"1s\"";
    let mut edge = edge(&all, sticky);
    let first = ask(&edge, "");
    let (pair, attributes) = cookie(&first).unwrap();
    assert_eq!(attributes, "Path=/; Secure; HttpOnly; SameSite=Lax");
    assert!(pair.starts_with("__Host-vestibule=") && !pair.contains("127"), "{pair}");
    for round in 0..30 {
        if round == 10 {
            edge.write_config(&config(&all, &format!("{sticky}\nretries = 1")));
            assert!(edge.reload());
        }
        if round == 20 {
            edge = edge.kill_and_start();
        }
        let again = ask(&edge, &pair);
        assert_eq!((again.text(), cookie(&again)), (first.text(), None), "round {round}");
    }
    for forged in
        ["__Host-vestibule=AAAAAAAAAAAAAAAAAAAAAA", "__Host-vestibule=127.0.0.1", "__Host-vestibule="]
    {
        assert!(cookie(&ask(&edge, forged)).is_some_and(|(fresh, _)| fresh != forged), "{forged}");
    }
    // Its own goes away: another takes its place, and stays.
    let mut left: Vec<_> = [("a", a), ("b", b), ("c", c)].into();
    left.retain(|(name, _)| *name != first.text());
    let other = ask(&edge, &pair);
    let (moved, _) = cookie(&other).unwrap();
    assert!(other.status == 200 && other.text() != first.text(), "{other:?}");
    (0..10).for_each(|_| assert_eq!(ask(&edge, &moved).text(), other.text()));
}

#[test]
fn one_that_is_unwell_is_asked_for_its_health_alone() {
    let well = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&well);
    let changing = Upstream::start(move |seen, stream| match seen.target.as_str() {
        "/healthz?deep" if !told.load(Ordering::SeqCst) => {
            std::io::Write::write_all(stream, b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")?;
            Ok(Then::Keep)
        }
        _ => say(stream, "changing"),
    });
    let steady = named("steady");
    let proxy = "health = { path = \"/healthz?deep\", every = \"100ms\", fails = 2 }\n";
    let edge = edge(&addresses(&[&changing, &steady]), proxy);
    let seen = changing.wait_from(0, "a health check", |seen| seen.target == "/healthz?deep");
    for (name, value) in [("host", NAME), ("x-forwarded-proto", "https"), ("connection", "close")] {
        assert_eq!(seen.header(name), Some(value), "{}", seen.head);
    }
    wait_for_status(&edge, "one is unhealthy", |all| {
        let targets = &all[0]["targets"];
        targets[0]["state"] == "unhealthy"
            && targets[0]["error"] == "/healthz?deep answered 500 Internal Server Error"
            && targets[1]["state"] == "up"
    });
    let mut client = connect(&edge);
    (0..30).for_each(|_| assert_eq!(client.get("/").unwrap().text(), "steady"));
    well.store(true, Ordering::SeqCst);
    wait_for_status(&edge, "it has recovered", |all| {
        all[0]["targets"][0]["state"].as_str().is_some_and(|state| ["up", "warming"].contains(&state))
    });
    while client.get("/").unwrap().text() != "changing" {}
    well.store(false, Ordering::SeqCst);
    wait_for_status(&edge, "it has failed", |all| all[0]["targets"][0]["state"] == "unhealthy");
    (0..30).for_each(|_| assert_eq!(client.get("/").unwrap().text(), "steady"));
}

/// Nothing is sent before the first check has passed, however long that takes; then what waits is answered.
#[test]
fn the_first_request_waits_for_the_first_check() {
    let well = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&well);
    let upstream = Upstream::start(move |_, stream| {
        if told.load(Ordering::SeqCst) {
            return say(stream, "well");
        }
        std::io::Write::write_all(stream, b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")?;
        Ok(Then::Close)
    });
    let edge = edge(&addresses(&[&upstream]), "hold = \"60s\"\nhealth = { path = \"/healthz\" }");
    let mut client = connect(&edge);
    client.send(format!("POST / HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: 2\r\n\r\nhi")).unwrap();
    wait_for_status(&edge, "it waits", super::wait(1));
    assert!(upstream.seen().iter().all(|seen| seen.target == "/healthz"));
    well.store(true, Ordering::SeqCst);
    assert_eq!(client.response().unwrap().text(), "well");
}

/// One that takes requests and says nothing is left alone after a few, as long as another is there.
#[test]
fn one_that_does_not_answer_is_left_alone() {
    let dead = Upstream::start(|_, _| Ok(Then::Close));
    let good = named("good");
    let edge = edge(&addresses(&[&dead, &good]), "balance = \"round-robin\"");
    let mut client = connect(&edge);
    (0..100).for_each(|_| assert_eq!(client.get("/").unwrap().text(), "good"));
    // Half of them would be its share; the pauses between those that it gets grow, from a second on.
    assert!(dead.mark() <= 12, "{} requests went to it", dead.mark());
    let alone = super::edge(&addresses(&[&dead]), "");
    let mut client = connect(&alone);
    (0..5).for_each(|_| assert_eq!(client.get("/").unwrap().status, 502));
}

#[test]
fn one_that_is_drained_finishes_and_gets_nothing_new() {
    let (held, release) = (Arc::new(AtomicBool::new(true)), Arc::new(std::sync::Barrier::new(2)));
    let (told, gate) = (Arc::clone(&held), Arc::clone(&release));
    let old = Upstream::start(move |seen, stream| {
        if seen.target == "/long" && told.swap(false, Ordering::SeqCst) {
            gate.wait();
        }
        say(stream, "old")
    });
    let edge = edge(&addresses(&[&old]), "");
    let name = old.address().to_string();
    let mut idle = connect(&edge);
    idle.get("/").unwrap();
    let mut long = connect(&edge);
    long.send(format!("GET /long HTTP/1.1\r\nHost: {NAME}\r\n\r\n")).unwrap();
    old.wait_from(0, "the long request", |seen| seen.target == "/long");

    let (code, _, error) = command(&edge, &["drain", "nobody:8000"]);
    assert!(code == Some(2) && error.contains(&name), "{error}");
    let (code, out, _) = command(&edge, &["drain", &name]);
    assert!(code == Some(0) && out.contains("1 in progress") && out.contains("nothing else is up"), "{out}");
    old.wait_open(1);
    let new = named("new");
    edge.write_config(&config(&addresses(&[&old, &new]), ""));
    assert!(edge.reload());
    let mut client = connect(&edge);
    (0..30).for_each(|_| assert_eq!(client.get("/").unwrap().text(), "new"));
    release.wait();
    assert_eq!(long.response().unwrap().text(), "old");
    old.wait_open(0);
    wait_for_status(&edge, "it is drained", |all| all[0]["targets"][0]["state"] == "drained");
    let (_, metrics, _) = command(&edge, &["status"]);
    assert!(metrics.contains(&format!("{name}: drained since")), "{metrics}");
    assert_eq!(command(&edge, &["drain", &name, "--undo"]).1, format!("{name} has requests again\n"));
    while client.get("/").unwrap().text() != "old" {}
}

/// Requests find the one that is there, without a failure on the way, and the other is told about.
#[test]
fn one_that_is_not_there_is_seen_and_counted() {
    let good = named("good");
    let port = Port::reserve();
    let missing = port.address();
    let upstreams = [missing.to_string(), good.address().to_string()];
    let edge = edge(&upstreams, "balance = \"round-robin\"");
    let mut client = connect(&edge);
    (0..20).for_each(|_| assert_eq!(client.get("/").unwrap().text(), "good"));
    let status = wait_for_status(&edge, "one is down", |all| all[0]["targets"][0]["state"] == "down");
    assert!(status[0]["targets"][0]["error"].as_str().unwrap().contains("refused"), "{status}");
    let later = Upstream::raw_at(missing, |connection| {
        while connection.request().is_some() {
            say(&mut connection.stream, "later")?;
        }
        Ok(())
    });
    while client.get("/").unwrap().text() != "later" {}
    drop(later);
}

/// What the edge itself lacks says nothing of a target.
#[test]
fn a_lack_of_descriptors_takes_nobody_out() {
    let upstream = named("here");
    let edge = edge(&addresses(&[&upstream]), "hold = \"60s\"");
    let limit = |soft: &str| {
        let words = [format!("--pid={}", edge.pid()), format!("--nofile={soft}:")];
        assert!(Command::new("prlimit").args(words).status().unwrap().success());
    };
    let mut client = connect(&edge);
    edge.wait_for_clients(1);
    limit("3");
    assert_eq!(client.get("/").unwrap().status, 503);
    limit("1024");
    assert_eq!(client.get("/").unwrap().text(), "here");
    let log = edge.log().all();
    assert!(!log.contains("\"down\""), "{log}");
}
