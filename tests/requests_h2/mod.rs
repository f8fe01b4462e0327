//! HTTP/2 requests as frames: each ends its stream or its connection, is answered 400 or 421, or arrives at the
//! upstream as exactly one HTTP/1.1 request that can be read in one way.

mod corpus;
mod floods;

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Duration;

use crate::support::client::NAME;
use crate::support::edge::{Edge, ROWS};
use crate::support::h2raw::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Field, H2, HEADERS, Outcome, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, block,
};
use crate::support::upstream::{Seen, Then, Upstream};

/// What must become of the frames.
enum Expect {
    /// The stream or the connection ends, or the answer is 400; nothing reaches the upstream.
    Refused,
    /// This status; nothing reaches the upstream.
    Answered(u16),
    /// This request reaches the upstream, and nothing else.
    Forwarded(Shape),
}

/// The essence of a request at the upstream.
struct Shape {
    line: &'static str,
    body: Vec<u8>,
    has: Vec<(&'static str, &'static str)>,
    lacks: Vec<&'static str>,
}

type Case = (&'static str, Box<dyn Fn(&mut H2) -> std::io::Result<()>>, Expect);

#[test]
fn every_request_is_refused_or_unambiguous() {
    let upstream = Upstream::echo();
    let edge = edge(&upstream);
    let cases = corpus::cases();
    assert!(cases.len() >= 40, "{} cases", cases.len());
    let mut failures = String::new();
    for (name, send, expect) in &cases {
        if let Err(why) = try_case(&edge, &upstream, send, expect) {
            writeln!(failures, "{name}: {why}").unwrap();
        }
    }
    assert!(failures.is_empty(), "of {} cases:\n{failures}", cases.len());
    assert_eq!(upstream.ambiguous(), Vec::<String>::new());
}

/// A stream that ends badly takes no other along, unless the connection itself is broken.
#[test]
fn a_bad_stream_leaves_its_neighbours_alone() {
    let upstream = Upstream::echo();
    let edge = edge(&upstream);
    let mut client = H2::connect(&edge).unwrap();
    client.request(1, &fields(&[]), b"").unwrap();
    client.request(3, &[(b":method", b"GET"), (b":path", b"/x")], b"").unwrap();
    client.request(5, &fields(&[(b"connection", b"close")]), b"").unwrap();
    client.request(7, &fields(&[]), b"").unwrap();
    let outcomes = client.outcomes(&[1, 3, 5, 7]).unwrap();
    let fine = Outcome::Status(200);
    assert!(
        outcomes[0] == fine && outcomes[1] != fine && outcomes[2] != fine && outcomes[3] == fine,
        "{outcomes:?}"
    );
}

/// Streams that are opened and reset at once (the "rapid reset" of 2023) neither stop the edge nor reach far.
#[test]
fn rapid_resets_end_the_connection_and_nothing_else() {
    let upstream = Upstream::echo();
    let edge = edge(&upstream);
    let mut client = H2::connect(&edge).unwrap();
    for stream in (1..8_000).step_by(2) {
        let sent = client
            .request(stream, &fields(&[]), b"")
            .and_then(|()| client.write(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
        if sent.is_err() {
            break;
        }
    }
    drop(client);
    let mut next = H2::connect(&edge).unwrap();
    next.request(1, &fields(&[]), b"").unwrap();
    assert_eq!(next.outcome(1).unwrap(), Outcome::Status(200));
    assert_eq!(upstream.ambiguous(), Vec::<String>::new());
}

/// Headers that never end (the "continuation flood" of 2024) end the connection.
#[test]
fn endless_headers_end_the_connection() {
    let upstream = Upstream::echo();
    let edge = edge(&upstream);
    let mut client = H2::connect(&edge).unwrap();
    client.write(HEADERS, END_STREAM, 1, &block(&fields(&[]))).unwrap();
    let more = block(&[(b"a", [b'b'; 8000].as_slice())]);
    let refused = (0..2000).find_map(|_| client.write(CONTINUATION, 0, 1, &more).err());
    let outcome = if refused.is_some() { Outcome::Gone(None) } else { client.outcome(1).unwrap() };
    assert!(matches!(outcome, Outcome::Gone(_) | Outcome::Reset(_)), "{outcome:?}");
    assert_eq!(upstream.mark(), 0);
}

/// An answer that does not wait for the request's body is followed by a reset, and comes before it: curl 7.88 loses one that
/// comes in the same TLS record.
#[test]
fn an_early_answer_comes_before_its_reset() {
    let upstream = Upstream::echo();
    let edge = edge(&upstream);
    let mut client = H2::connect(&edge).unwrap();
    client.request(1, &fields(&[]), b"").unwrap();
    assert_eq!(client.outcome(1).unwrap(), Outcome::Status(200));
    let mut large = fields(&[(b"content-length", b"1025")]);
    large.retain(|(name, _)| *name != b":path");
    large.insert(0, (b":path", b"/small/x"));
    client.write(HEADERS, END_HEADERS, 3, &block(&large)).unwrap();
    let answer = client.record().unwrap();
    assert_eq!(answer.get(3), Some(&HEADERS));
    let reset =
        std::iter::repeat_with(|| client.record().unwrap()).find(|record| record.get(3) != Some(&DATA));
    let expected = [&[0, 0, 4, RST_STREAM, 0][..], &3_u32.to_be_bytes(), &0_u32.to_be_bytes()].concat();
    assert_eq!(reset.unwrap(), expected);
}

/// A client may wait for a 100 over HTTP/2 as well (RFC 9110 section 10.1.1).
#[test]
fn a_client_that_waits_for_100_gets_it() {
    let upstream = Upstream::echo();
    let edge = edge(&upstream);
    let mut client = H2::connect(&edge).unwrap();
    let head = block(&fields(&[(b"expect", b"100-continue"), (b"content-length", b"5")]));
    client.write(HEADERS, END_HEADERS, 1, &head).unwrap();
    let interim = client.read_until(|frame| frame.kind == HEADERS).unwrap();
    assert_eq!(interim.flags & END_STREAM, 0);
    client.write(DATA, END_STREAM, 1, b"hello").unwrap();
    assert_eq!(client.outcome(1).unwrap(), Outcome::Status(200));
    assert_eq!(upstream.seen()[0].body, b"hello");
}

/// What is limited is the pause, not the whole: a slow reader gets everything.
#[test]
fn a_slow_reader_is_not_cut_off() {
    const WINDOW: u32 = 10;
    let upstream = Upstream::start(|_, stream| {
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}", "x".repeat(100))?;
        Ok(Then::Keep)
    });
    let edge = Edge::start(&format!(
        "{ROWS}\n[limits]\nidle_timeout = \"2s\"\n\n[[site]]\ndomains = [\"{NAME}\"]\nupstream = \"{}\"\ncertificate = \"internal\"\n",
        upstream.address()
    ));
    let mut client = H2::connect(&edge).unwrap();
    // SETTINGS_INITIAL_WINDOW_SIZE (RFC 9113 section 6.5.2).
    client.write(SETTINGS, 0, 0, &[&[0, 4], WINDOW.to_be_bytes().as_slice()].concat()).unwrap();
    client.request(1, &fields(&[]), b"").unwrap();
    let mut read = 0;
    while read < 100 {
        let frame = client.read_until(|frame| frame.stream == 1 && frame.kind != HEADERS).unwrap();
        assert_eq!(frame.kind, DATA, "{frame:?} after {read} octets");
        read += frame.payload.len();
        // The pace of the client, which is what the test is about.
        std::thread::sleep(Duration::from_millis(300));
        client.write(WINDOW_UPDATE, 0, 1, &WINDOW.to_be_bytes()).unwrap();
    }
}

fn edge(upstream: &Upstream) -> Edge {
    let at = upstream.address();
    Edge::start(&format!(
        r#"{ROWS}
[[site]]
domains = ["{NAME}", "also.localhost"]
upstream = "{at}"
certificate = "internal"
  [site.proxy]
  buffer_request = false
  [[site.route]]
  path = "/small/"
  upstream = "{at}"
  body = "1KiB"

[[site]]
domains = ["other.localhost"]
upstream = "{at}"
certificate = "internal"
"#
    ))
}

fn try_case(
    edge: &Edge,
    upstream: &Upstream,
    send: &dyn Fn(&mut H2) -> std::io::Result<()>,
    expect: &Expect,
) -> Result<(), String> {
    let mark = upstream.mark();
    let mut client = H2::connect(edge).map_err(|error| error.to_string())?;
    let written = send(&mut client);
    let outcome = client.outcome(1).map_err(|error| format!("no outcome: {error}, after {written:?}"))?;
    let seen = upstream.seen().split_off(mark);
    match expect {
        Expect::Forwarded(shape) => hold_shape(&outcome, &seen, shape),
        _ if !seen.is_empty() => Err(format!("reached the upstream: {:?}", seen[0].head)),
        Expect::Answered(status) if outcome == Outcome::Status(*status) => Ok(()),
        Expect::Refused if !matches!(outcome, Outcome::Status(status) if status != 400) => Ok(()),
        _ => Err(format!("ended in {outcome:?}")),
    }
}

fn hold_shape(outcome: &Outcome, seen: &[Seen], shape: &Shape) -> Result<(), String> {
    let [seen] = seen else {
        return Err(format!("{outcome:?}, and {} requests reached the upstream", seen.len()));
    };
    let line = format!("{} {}", seen.method, seen.target);
    if *outcome != Outcome::Status(200) || line != shape.line || seen.body != shape.body {
        return Err(format!("{outcome:?}; it became {line}, {:?}", String::from_utf8_lossy(&seen.body)));
    }
    for (name, value) in &shape.has {
        if seen.header(name) != Some(value) {
            return Err(format!("{name} is {:?}, not {value:?}", seen.header(name)));
        }
    }
    let trailing = |name: &str| seen.trailers.iter().any(|(found, _)| found == name);
    match shape.lacks.iter().find(|name| seen.header(name).is_some() || trailing(name)) {
        Some(name) => Err(format!("{name} was passed on: {:?} {:?}", seen.head, seen.trailers)),
        None => Ok(()),
    }
}

/// A whole request for `/x` of [`NAME`], with more fields behind.
fn fields<'a>(more: &[Field<'a>]) -> Vec<Field<'a>> {
    let whole: [Field<'a>; 4] =
        [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", NAME.as_bytes()), (b":path", b"/x")];
    [&whole, more].concat()
}
