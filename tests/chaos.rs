//! Bad luck and bad will: random bytes, clients that leave, upstreams that lie or die. Each has a clear outcome, and
//! leaves nothing behind: no panic, no open connection, no answer that belongs to another.

use std::io::{self, Read, Write};
use std::net::Shutdown;

use bytes::Bytes;
use http::Request;

use crate::support::client::{self, NAME, connect};
use crate::support::edge::{Edge, HTTP, ROWS};
use crate::support::h2client::H2Client;
use crate::support::upstream::{Connection, Seen, Then, Upstream};

#[test]
fn random_bytes_get_nowhere() {
    let upstream = Upstream::echo();
    let edge = edge(&upstream, "");
    let mut dice = Dice(7);
    for round in 0..300 {
        let length = 1 + dice.below(3000);
        let mut bytes: Vec<u8> = (0..length).map(|_| dice.octet()).collect();
        match round % 4 {
            0 => bytes.splice(..0, [22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]).for_each(drop), // as a ClientHello begins
            1 => bytes.splice(..0, *b"GET / HTTP/1.1\r\nHost: app.localhost\r\n").for_each(drop),
            _ => {}
        }
        match round % 3 {
            0 => say(client::tcp(edge.https()).unwrap(), &bytes),
            1 => say(client::tcp(edge.address(HTTP)).unwrap(), &bytes),
            _ => say(client::tls(edge.https(), &edge.ca(), NAME, &[b"http/1.1"]).unwrap(), &bytes),
        }
    }
    hold(&edge, &upstream, 0);
}

#[test]
fn random_frames_get_nowhere() {
    let upstream = Upstream::echo();
    let edge = edge(&upstream, "");
    let mut dice = Dice(11);
    for round in 0..200_u8 {
        let mut tls = client::tls(edge.https(), &edge.ca(), NAME, &[b"h2"]).unwrap();
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
        for _ in 0..dice.below(8) {
            let payload: Vec<u8> = (0..dice.below(60)).map(|_| dice.octet()).collect();
            let length = u8::try_from(payload.len()).unwrap();
            bytes.extend([0, 0, length, round % 11, dice.octet(), 0, 0, 0, dice.octet() % 4]);
            bytes.extend(payload);
        }
        let _ = tls.write_all(&bytes);
    }
    hold(&edge, &upstream, 0);
}

/// A request over HTTP/1.1, cut after each of its octets; the client then closes, or resets.
#[test]
fn a_client_may_leave_at_any_octet() {
    let upstream = Upstream::echo();
    let edge = edge(&upstream, "");
    let whole =
        format!("POST /left HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: 20\r\n\r\n01234567890123456789");
    for cut in 0..=whole.len() {
        let mut client = connect(&edge);
        client.send(&whole[..cut]).unwrap();
        if cut % 2 == 0 { client.vanish() } else { drop(client) }
    }
    // Only the last was whole, and may be tried once more where the connection to the upstream was not fresh.
    hold(&edge, &upstream, 2);
}

/// A TLS handshake, cut after some of its octets.
#[test]
fn a_handshake_may_be_cut_anywhere() {
    let upstream = Upstream::echo();
    let edge = edge(&upstream, "");
    let config = client::config(&edge.ca(), &[b"h2", b"http/1.1"]);
    let name = rustls::pki_types::ServerName::try_from(NAME).unwrap();
    let mut hello = Vec::new();
    rustls::ClientConnection::new(config, name).unwrap().write_tls(&mut hello).unwrap();
    for cut in (0..hello.len()).step_by(5) {
        let mut socket = client::tcp(edge.https()).unwrap();
        socket.write_all(&hello[..cut]).unwrap();
        if cut % 2 == 0 {
            socket.shutdown(Shutdown::Write).unwrap();
        }
    }
    hold(&edge, &upstream, 0);
}

/// Clients that leave while the answer comes, over both protocols: the upstream's connection ends with them.
#[test]
fn a_client_may_leave_in_the_middle_of_an_answer() {
    let upstream = Upstream::start(|_, stream| {
        write!(stream, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        loop {
            stream.write_all(b"400\r\n")?;
            stream.write_all(&[b'x'; 1024])?;
            stream.write_all(b"\r\n")?;
        }
    });
    let edge = edge(&upstream, "");
    for round in 0..10 {
        let mut client = connect(&edge);
        client.send(format!("GET /endless HTTP/1.1\r\nHost: {NAME}\r\n\r\n")).unwrap();
        client.exactly(20_000).unwrap();
        if round % 2 == 0 {
            client.vanish();
        } else {
            drop(client);
        }

        let mut client = H2Client::connect(edge.https(), &edge.ca(), NAME).unwrap();
        let (_, mut body) = client.begin(get("/endless")).unwrap();
        client.wait(async { body.data().await.unwrap().map_err(io::Error::other) }).unwrap();
    }
    upstream.wait_open(0);
    hold_edge(&edge);
}

/// Answers that are no HTTP/1.1, or could be read in two ways.
#[test]
fn garbage_from_an_upstream_is_a_502() {
    let upstream = Upstream::raw(|connection| {
        let seen = connection.head().ok_or(io::ErrorKind::UnexpectedEof)?;
        let number: usize = seen.target.trim_start_matches('/').parse().map_err(io::Error::other)?;
        connection
            .stream
            .write_all(&GARBAGE[number].1.replace('\n', "\r\n").replace("\r\r\n", "\n").into_bytes())?;
        connection.stream.shutdown(Shutdown::Write)?;
        connection.drain();
        Ok(())
    });
    let edge = edge(&upstream, "");
    for (number, (what, _)) in GARBAGE.iter().enumerate() {
        let answer =
            connect(&edge).get(&format!("/{number}")).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(answer.status, 502, "{what}: {answer:?}");
        assert!(!answer.text().contains("secret"), "{what}: {answer:?}");
        let mut client = H2Client::connect(edge.https(), &edge.ca(), NAME).unwrap();
        let answer = client.ask(get(&format!("/{number}")), Bytes::new()).unwrap();
        assert_eq!(answer.status, 502, "{what} over HTTP/2: {answer:?}");
    }
    upstream.wait_open(0);
    hold_edge(&edge);
}

/// A head that does not end, ten megabytes of it: a 502 long before, and a connection that is not used again.
#[test]
fn an_endless_head_is_a_502() {
    let upstream = Upstream::raw(|connection| {
        while let Some(seen) = connection.request() {
            if seen.target == "/endless" {
                connection.stream.write_all(b"HTTP/1.1 200 OK\r\n")?;
                for number in 0..100_000 {
                    write!(connection.stream, "X-{number}: {}\r\n", "x".repeat(90))?;
                }
            }
            answer(connection, &seen)?;
        }
        Ok(())
    });
    let edge = edge(&upstream, "");
    for _ in 0..3 {
        assert_eq!(connect(&edge).get("/endless").unwrap().status, 502);
        assert_eq!(connect(&edge).get("/short").unwrap().text(), "/short");
    }
    hold_edge(&edge);
}

/// What each upstream says; `\n` stands for CRLF, and `\r\n` for a bare LF.
const GARBAGE: &[(&str, &str)] = &[
    ("no word", ""),
    ("no HTTP", "secret garbage\n\n"),
    ("half a status line", "HTTP/1.1 2"),
    ("half a head", "HTTP/1.1 200 OK\nContent-Le"),
    ("bare LF", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ("another version", "HTTP/2.0 200 OK\nContent-Length: 0\n\n"),
    ("no version", "200 OK\nContent-Length: 0\n\n"),
    ("a status below 100", "HTTP/1.1 099 OK\nContent-Length: 0\n\n"),
    ("a status beyond 599", "HTTP/1.1 600 OK\nContent-Length: 0\n\n"),
    ("a status of four digits", "HTTP/1.1 2000 OK\nContent-Length: 0\n\n"),
    ("a status that is no number", "HTTP/1.1 abc OK\nContent-Length: 0\n\n"),
    ("both lengths", "HTTP/1.1 200 OK\nContent-Length: 6\nTransfer-Encoding: chunked\n\n6\nsecret\n0\n\n"),
    ("two lengths", "HTTP/1.1 200 OK\nContent-Length: 6\nContent-Length: 5\n\nsecret"),
    ("a signed length", "HTTP/1.1 200 OK\nContent-Length: +6\n\nsecret"),
    ("a negative length", "HTTP/1.1 200 OK\nContent-Length: -1\n\nsecret"),
    ("another coding", "HTTP/1.1 200 OK\nTransfer-Encoding: gzip\n\nsecret"),
    ("a folded line", "HTTP/1.1 200 OK\nA: b\n secret\nContent-Length: 0\n\n"),
    ("a space before the colon", "HTTP/1.1 200 OK\nContent-Length : 0\n\n"),
    ("a NUL", "HTTP/1.1 200 OK\nA: b\0c\nContent-Length: 0\n\n"),
    ("an empty name", "HTTP/1.1 200 OK\n: b\nContent-Length: 0\n\n"),
    (
        "an upgrade that nobody asked for",
        "HTTP/1.1 101 Switching Protocols\nUpgrade: websocket\nConnection: upgrade\n\n",
    ),
];

/// An upstream that breaks off a body that it has begun: the client sees that it is cut, never a shorter whole.
#[test]
fn a_cut_answer_is_seen_as_cut() {
    let upstream = Upstream::start(|seen, stream| {
        stream.write_all(match seen.target.as_str() {
            "/length" => b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf".as_slice(),
            "/chunk" => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\nhalf",
            "/last" => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
            "/lie" => {
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nbad\r\n\r\n0\r\n\r\n"
            }
            _ => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhalf\r\n0\r\n\r\n",
        })?;
        Ok(Then::Close)
    });
    let edge = edge(&upstream, "");
    for path in ["/length", "/chunk", "/last", "/lie", "/long"] {
        let mut client = connect(&edge);
        let answer = client.get(path);
        assert!(answer.as_ref().is_err_and(client::ended), "{path}: {answer:?}");
        let mut client = H2Client::connect(edge.https(), &edge.ca(), NAME).unwrap();
        let answer = client.ask(get(path), Bytes::new());
        assert!(answer.is_err(), "{path} over HTTP/2: {answer:?}");
    }
    hold_edge(&edge);
}

/// Bytes behind an answer, and bytes that come unasked, never become the next one's.
#[test]
fn what_is_too_much_is_nobodys_answer() {
    let upstream = Upstream::start(|seen, stream| {
        let body = seen.target.trim_start_matches('/').to_owned();
        let extra = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret";
        let head = match &body[..4] {
            "none" => "204 No Content\r\n\r\n".to_owned(),
            "same" => "304 Not Modified\r\n\r\n".to_owned(),
            _ => format!("200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()),
        };
        stream.write_all(format!("HTTP/1.1 {head}{extra}").as_bytes())?; // at once, so that all of it is there
        Ok(Then::Keep)
    });
    let edge = edge(&upstream, "");
    let mut client = connect(&edge);
    let mut over_h2 = H2Client::connect(edge.https(), &edge.ca(), NAME).unwrap();
    for round in 0..30 {
        for (kind, status) in [("none", 204), ("body", 200), ("same", 304)] {
            let path = format!("/{kind}{round}");
            let answer = client.get(&path).unwrap();
            assert_eq!(answer.status, status, "{path}: {answer:?}");
            assert!(status != 200 || answer.text() == path[1..], "{path}: {answer:?}");
            let answer = over_h2.ask(get(&path), Bytes::new()).unwrap();
            assert_eq!(answer.status, status, "{path} over HTTP/2: {answer:?}");
            assert!(status != 200 || answer.text() == path[1..], "{path} over HTTP/2: {answer:?}");
        }
    }
    drop((client, over_h2));
    hold_edge(&edge);
}

/// An upstream that says nothing is a 504 after `response_timeout`, and its connection is not used again.
#[test]
fn silence_is_a_504() {
    let upstream = Upstream::raw(|connection| {
        while let Some(seen) = connection.request() {
            match seen.target.as_str() {
                "/silent" => connection.drain(),
                _ => answer(connection, &seen)?,
            }
        }
        Ok(())
    });
    let edge = edge(&upstream, "[site.proxy]\nresponse_timeout = \"1s\"\n");
    assert_eq!(connect(&edge).get("/silent").unwrap().status, 504);
    assert_eq!(connect(&edge).get("/loud").unwrap().text(), "/loud");
    hold_edge(&edge);
}

/// An upstream that answers before it has read the request, and closes: its answer counts.
#[test]
fn an_early_answer_reaches_the_client() {
    let upstream = Upstream::raw(|connection| {
        while let Some(seen) = connection.head() {
            let body = seen.target;
            write!(
                connection.stream,
                "HTTP/1.1 413 No\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )?;
            connection.stream.shutdown(Shutdown::Write)?;
            connection.drain();
        }
        Ok(())
    });
    let edge = edge(&upstream, "[site.proxy]\nbuffer_request = false\n");
    let mut client = connect(&edge);
    client
        .send(format!("POST /early HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: 1000000\r\n\r\nbegun"))
        .unwrap();
    let answer = client.response().unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (413, "/early"));
    drop(client);
    hold_edge(&edge);
}

/// An upstream that closes idle connections at once: a GET never notices, whatever moment it falls into.
#[test]
fn connections_that_go_stale_are_not_felt() {
    let upstream = Upstream::start(|seen, stream| {
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{}", seen.target.len(), seen.target)?;
        Ok(Then::Close)
    });
    let edge = edge(&upstream, "");
    let mut client = connect(&edge);
    for round in 0..300 {
        let path = format!("/{round}");
        assert_eq!(client.get(&path).unwrap().text(), path);
    }
    drop(client);
    hold_edge(&edge);
}

/// Many clients at once, of whom some leave in the middle, before an upstream that closes, dawdles and dies at
/// random: whoever gets an answer gets their own.
#[test]
fn no_answer_is_mixed_up_with_anothers() {
    let upstream = Upstream::raw(|connection| {
        let mut dice = Dice(u64::try_from(connection.number).unwrap() + 1);
        while let Some(seen) = connection.request() {
            match dice.below(12) {
                0 => return connection.stream.shutdown(Shutdown::Both),
                1 => {
                    write!(
                        connection.stream,
                        "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{}",
                        seen.target
                    )?;
                    return connection.stream.shutdown(Shutdown::Both);
                }
                2 => {
                    let long = seen.target.repeat(500);
                    write!(
                        connection.stream,
                        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{long}",
                        long.len()
                    )?;
                }
                _ => answer(connection, &seen)?,
            }
        }
        Ok(())
    });
    let edge = edge(&upstream, "");
    std::thread::scope(|scope| {
        for client in 0..6_u64 {
            let edge = &edge;
            scope.spawn(move || if client % 2 == 0 { mix_h1(edge, client) } else { mix_h2(edge, client) });
        }
    });
    assert_eq!(upstream.ambiguous(), Vec::<String>::new());
    hold_edge(&edge);
}

fn mix_h1(edge: &Edge, number: u64) {
    let mut dice = Dice(number + 100);
    let mut client = connect(edge);
    let mut whole = 0;
    for round in 0..150 {
        let path = format!("/{number}-{round}-");
        if dice.below(10) == 0 {
            let _ = client.send(format!("GET {path} HTTP/1.1\r\nHost: {NAME}\r\n\r\n"));
            let _ = client.exactly(dice.below(40));
            client.vanish();
            client = connect(edge);
            continue;
        }
        match client.get(&path) {
            Ok(answer) => whole += usize::from(is_own(&answer, &path)),
            Err(error) if client::ended(&error) => client = connect(edge),
            Err(error) => panic!("{path}: {error}"),
        }
    }
    assert!(whole > 80, "only {whole} answers were whole");
}

fn mix_h2(edge: &Edge, number: u64) {
    let mut client = H2Client::connect(edge.https(), &edge.ca(), NAME).unwrap();
    let mut whole = 0;
    for round in 0..150 {
        let path = format!("/{number}-{round}-");
        if let Ok(answer) = client.ask(get(&path), Bytes::new()) {
            whole += usize::from(is_own(&answer, &path));
        }
    }
    assert!(whole > 80, "only {whole} answers were whole");
}

/// Whether it is the upstream's whole answer to this path; fails the test when it is an answer to another.
fn is_own(answer: &client::Response, path: &str) -> bool {
    if answer.status == 502 {
        return false;
    }
    assert_eq!(answer.status, 200, "{path}: {answer:?}");
    let text = answer.text();
    assert!(text.starts_with(path) && text.replace(path, "").is_empty(), "{path} got {text}");
    true
}

fn edge(upstream: &Upstream, more: &str) -> Edge {
    let at = upstream.address();
    Edge::start(&format!(
        "{ROWS}\n[limits]\nheader_timeout = \"5s\"\nhandshake_timeout = \"5s\"\n\n[[site]]\ndomains = [\"{NAME}\"]\n\
         upstream = \"{at}\"\ncertificate = \"internal\"\n{more}"
    ))
}

fn answer(connection: &mut Connection, seen: &Seen) -> io::Result<()> {
    write!(
        connection.stream,
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{}",
        seen.target.len(),
        seen.target
    )
}

fn get(path: &str) -> Request<()> {
    Request::get(format!("https://{NAME}{path}")).body(()).unwrap()
}

/// Sends, says that this was all, and reads until the edge has had enough.
fn say(mut stream: impl Read + Write, bytes: &[u8]) {
    let _ = stream.write_all(bytes);
    let _ = stream.write_all(b"\r\n\r\n\r\n\r\n");
    drop(stream);
}

/// The edge still serves, nothing has panicked, and no more than `whole` requests came through beside the last one.
fn hold(edge: &Edge, upstream: &Upstream, whole: usize) {
    let answer = connect(edge).get("/still-there").unwrap();
    assert_eq!(answer.text(), "GET /still-there");
    hold_edge(edge);
    assert_eq!(upstream.ambiguous(), Vec::<String>::new());
    let seen = upstream.seen();
    assert!(seen.len() <= whole + 1, "{seen:?}");
}

/// Nothing has panicked, and every client's connection is closed: what is left are listeners, the pool, and the
/// process's own.
fn hold_edge(edge: &Edge) {
    edge.wait_until_no_client();
    assert!(!edge.log().all().contains("panicked"), "{}", edge.log().all());
}

/// The same throws every time (xorshift64*).
struct Dice(u64);

impl Dice {
    fn throw(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.throw()).unwrap() % end
    }

    fn octet(&mut self) -> u8 {
        self.throw().to_le_bytes()[0]
    }
}
