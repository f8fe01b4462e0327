//! HTTP/1.1 requests as bytes: each is refused before the upstream sees it, or arrives as exactly one request
//! that can be read in one way. The upstream itself looks for whatever could be read in two.

mod corpus;

use std::fmt::Write as _;

use crate::support::client::{NAME, Tls, Wire, connect};
use crate::support::edge::{Edge, ROWS};
use crate::support::upstream::{Seen, Upstream};

/// What must become of the bytes.
enum Expect {
    /// This status, then the connection is closed; nothing reaches the upstream.
    Refused(u16),
    /// This status; nothing reaches the upstream. The connection may stay.
    Answered(u16),
    /// The connection is closed, with or without an answer; nothing whole reaches the upstream.
    Dropped,
    /// These requests reach the upstream, and nothing else.
    Forwarded(Vec<Shape>),
}

/// The essence of a request at the upstream.
struct Shape {
    line: &'static str,
    body: &'static str,
    has: Vec<(&'static str, &'static str)>,
    lacks: Vec<&'static str>,
}

type Case = (&'static str, Vec<u8>, Expect);

#[test]
fn every_request_is_refused_or_unambiguous() {
    let upstream = Upstream::echo();
    let edge = edge(&upstream);
    let cases = corpus::cases();
    assert!(cases.len() >= 80, "{} cases", cases.len());
    let mut failures = String::new();
    for (name, bytes, expect) in &cases {
        if let Err(why) = try_case(&edge, &upstream, bytes, expect) {
            writeln!(failures, "{name}: {why}").unwrap();
        }
    }
    assert!(failures.is_empty(), "of {} cases:\n{failures}", cases.len());
    assert_eq!(upstream.ambiguous(), Vec::<String>::new());
}

/// Every name by which a client could make Django believe something about it. `_` is the same letter as `-` in WSGI.
#[test]
fn what_only_the_edge_may_say_is_dropped() {
    let upstream = Upstream::echo();
    let edge = edge(&upstream);
    for name in FORGERIES {
        for spelled in [(*name).to_owned(), name.to_ascii_uppercase(), name.replace('-', "_")] {
            let mark = upstream.mark();
            let request =
                format!("GET /forged HTTP/1.1\r\nHost: {NAME}\r\n{spelled}: 6.6.6.6\r\nEnd: yes\r\n\r\n");
            let answer = connect(&edge).ask(request).unwrap();
            assert_eq!(answer.status, 200, "{spelled}");
            let seen = upstream.wait_from(mark, &spelled, |seen| seen.target == "/forged");
            assert!(!seen.head.contains("6.6.6.6"), "{spelled} passed: {}", seen.head);
            assert_eq!(seen.header("end"), Some("yes"), "{spelled} took its neighbour along");
        }
    }
    assert_eq!(upstream.ambiguous(), Vec::<String>::new());
}

/// One connection, many requests, some of them wrong: the answers come in order, and stop at the first mistake.
#[test]
fn a_pipeline_ends_at_its_first_mistake() {
    let upstream = Upstream::echo();
    let edge = edge(&upstream);
    let mut client = connect(&edge);
    let good = |n: u32| format!("GET /pipeline/{n} HTTP/1.1\r\nHost: {NAME}\r\n\r\n");
    let text = [good(1), good(2), "GET / HTTP/1.1\r\nHost : x\r\n\r\n".to_owned(), good(3)].concat();
    client.send(text).unwrap();
    assert_eq!(client.response().unwrap().text(), "GET /pipeline/1");
    assert_eq!(client.response().unwrap().text(), "GET /pipeline/2");
    assert_eq!(client.response().unwrap().status, 400);
    assert!(client.rest().unwrap().is_empty());
    assert!(upstream.seen().iter().all(|seen| seen.target != "/pipeline/3"));
}

/// The same request, one octet at a time: framing does not depend on how the bytes arrive.
#[test]
fn a_request_may_come_octet_by_octet() {
    let upstream = Upstream::echo();
    let edge = edge(&upstream);
    let mut client = connect(&edge);
    let text = format!(
        "POST /slowly HTTP/1.1\r\nHost: {NAME}\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"
    );
    for octet in text.bytes() {
        client.send([octet]).unwrap();
    }
    assert_eq!(client.response().unwrap().text(), "POST /slowly");
    assert_eq!(upstream.seen().last().unwrap().body, b"hello world");
}

/// A client that sends all of a body that is refused at once gets to read the refusal, not a reset.
#[test]
fn a_refusal_outlives_the_body_that_it_refuses() {
    const BODY: usize = 16 << 20;
    let upstream = Upstream::echo();
    let edge = edge(&upstream);
    let mut client = connect(&edge);
    client.send(format!("POST /small/x HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: {BODY}\r\n\r\n")).unwrap();
    let block = vec![b'x'; 1 << 20];
    for _ in 0..BODY / block.len() {
        client.send(&block).unwrap();
    }
    assert_eq!(client.response().unwrap().status, 413);
    assert_eq!(upstream.mark(), 0);
}

/// What the edge says of its own says nothing about itself.
#[test]
fn an_answer_of_the_edge_gives_nothing_away() {
    let upstream = Upstream::echo();
    let edge = edge(&upstream);
    let answer =
        connect(&edge).ask("GET / HTTP/1.1\r\nHost : x\r\nAccept: application/json\r\n\r\n").unwrap();
    assert_eq!((answer.status, answer.header("connection")), (400, Some("close")));
    assert_eq!(answer.header("server"), None);
    let answer = connect(&edge)
        .ask(format!("TRACE / HTTP/1.1\r\nHost: {NAME}\r\nAccept: application/json\r\n\r\n"))
        .unwrap();
    let id = answer.header("x-request-id").expect("a request id").to_owned();
    assert!(answer.header("content-type").unwrap().starts_with("application/json"), "{answer:?}");
    assert!(answer.json().to_string().contains(&id), "{answer:?}");
    let answer =
        connect(&edge).ask(format!("TRACE / HTTP/1.1\r\nHost: {NAME}\r\nAccept: text/html\r\n\r\n")).unwrap();
    assert!(answer.header("content-type").unwrap().starts_with("text/html"), "{answer:?}");
    for word in ["vestibule", "rustls", "hyper", "127.0.0.1"] {
        assert!(
            !answer.text().contains(word) && !format!("{:?}", answer.headers).contains(word),
            "{answer:?}"
        );
    }
}

fn edge(upstream: &Upstream) -> Edge {
    Edge::start(&format!(
        r#"{ROWS}
[[site]]
domains = ["{NAME}", "also.localhost"]
upstream = "{}"
certificate = "internal"
  [site.proxy]
  buffer_request = false
  [[site.route]]
  path = "/small/"
  upstream = "{}"
  body = "1KiB"

[[site]]
domains = ["other.localhost"]
upstream = "{}"
certificate = "internal"
"#,
        upstream.address(),
        upstream.address(),
        upstream.address()
    ))
}

fn try_case(edge: &Edge, upstream: &Upstream, bytes: &[u8], expect: &Expect) -> Result<(), String> {
    let mark = upstream.mark();
    let mut client = connect(edge);
    let sent = client.send(bytes);
    if let Expect::Forwarded(shapes) = expect {
        sent.map_err(|error| error.to_string())?;
        let mut closes = false;
        for shape in shapes {
            let answer = client.response().map_err(|error| format!("no answer: {error}"))?;
            if answer.status != 200 || !(answer.text() == shape.line || shape.line.starts_with("HEAD ")) {
                return Err(format!("answered {answer:?}"));
            }
            closes |= answer.header("connection") == Some("close");
        }
        return hold_shapes(&upstream.seen()[mark..], shapes).and_then(|()| hold_after(&mut client, closes));
    }
    if matches!(expect, Expect::Dropped) {
        let _ = client.finish();
        client.rest().map_err(|error| format!("not closed: {error}"))?;
    } else {
        let answer = client.response().map_err(|error| format!("no answer: {error}"))?;
        let (Expect::Refused(status) | Expect::Answered(status)) = expect else { unreachable!() };
        if answer.status != *status {
            return Err(format!("{} where {status} was expected", answer.status));
        }
    }
    if let Expect::Refused(_) = expect {
        let rest = client.rest().map_err(|error| format!("not closed: {error}"))?;
        if !rest.is_empty() {
            return Err(format!("more than one answer: {}", rest.escape_ascii()));
        }
    }
    match upstream.seen().get(mark) {
        Some(seen) => Err(format!("reached the upstream: {:?}", seen.head)),
        None => Ok(()),
    }
}

/// The connection is where both sides think it is: a next request is answered as itself.
fn hold_after(client: &mut Wire<Tls>, closes: bool) -> Result<(), String> {
    if closes {
        return client.rest().map_err(|error| format!("not closed: {error}")).and_then(|rest| {
            if rest.is_empty() { Ok(()) } else { Err(format!("left over: {}", rest.escape_ascii())) }
        });
    }
    match client.get("/next") {
        Ok(answer) if answer.text() == "GET /next" => Ok(()),
        other => Err(format!("the next request met {other:?}")),
    }
}

fn hold_shapes(seen: &[Seen], shapes: &[Shape]) -> Result<(), String> {
    if seen.len() != shapes.len() {
        return Err(format!("{} requests reached the upstream: {seen:?}", seen.len()));
    }
    for (seen, shape) in seen.iter().zip(shapes) {
        let line = format!("{} {}", seen.method, seen.target);
        if line != shape.line || seen.body != shape.body.as_bytes() {
            return Err(format!("it became {line}, {:?}", String::from_utf8_lossy(&seen.body)));
        }
        for (name, value) in &shape.has {
            if seen.header(name) != Some(value) {
                return Err(format!("{name} is {:?}, not {value}", seen.header(name)));
            }
        }
        let trailing = |name: &str| seen.trailers.iter().any(|(found, _)| found == name);
        if let Some(name) = shape.lacks.iter().find(|name| seen.header(name).is_some() || trailing(name)) {
            return Err(format!("{name} was passed on: {:?} {:?}", seen.head, seen.trailers));
        }
    }
    Ok(())
}

const FORGERIES: &[&str] = &[
    "X-Forwarded-For",
    "X-Forwarded-Proto",
    "X-Forwarded-Host",
    "X-Forwarded-Port",
    "X-Forwarded-Protocol",
    "X-Forwarded-Ssl",
    "X-Forwarded-Scheme",
    "X-Forwarded-Prefix",
    "X-Forwarded-Server",
    "X-Forwarded-By",
    "X-Forwarded",
    "Forwarded",
    "X-Real-IP",
    "X-Request-ID",
    "X-Client-IP",
    "X-Cluster-Client-IP",
    "True-Client-IP",
    "CF-Connecting-IP",
    "Client-IP",
    "Fastly-Client-IP",
    "Forwarded-For",
    "X-Original-Forwarded-For",
    "Front-End-Https",
    "X-Scheme",
    "X-Url-Scheme",
    "Script-Name",
    "Path-Info",
    "Daphne-Root-Path",
    "Proxy",
    "X-Original-URL",
    "X-Rewrite-URL",
    "X-Accel-Redirect",
];
