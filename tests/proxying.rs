//! Passing requests on and answers back: streaming, interim answers, trailers, connections used again, and never a
//! request sent twice that may have been read.

use std::io::{self, Read, Write};
use std::sync::{Barrier, Mutex, mpsc};
use std::time::Duration;

use bytes::Bytes;
use http::Request;

use crate::support::client::{self, NAME, Wire, connect};
use crate::support::edge::{Edge, ROWS};
use crate::support::h2client::H2Client;
use crate::support::port::Port;
use crate::support::upstream::{Then, Upstream};

#[test]
fn connections_to_the_upstream_are_used_again() {
    let upstream = Upstream::echo();
    let edge = edge(&upstream);
    for _ in 0..5 {
        let mut client = connect(&edge);
        let mut over_h2 = h2(&edge);
        for _ in 0..20 {
            assert_eq!(client.get("/a").unwrap().text(), "GET /a");
            assert_eq!(over_h2.ask(get("/b"), Bytes::new()).unwrap().text(), "GET /b");
        }
    }
    assert_eq!(upstream.mark(), 200);
    assert_eq!(upstream.connections(), 1, "one worker, one request at a time: one connection");
}

#[test]
fn a_client_that_waits_for_100_gets_it() {
    let upstream = Upstream::echo();
    let edge = edge(&upstream);
    let mut client = connect(&edge);
    client
        .send(format!(
            "POST /x HTTP/1.1\r\nHost: {NAME}\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
        ))
        .unwrap();
    assert_eq!(client.any_response(true).unwrap().status, 100);
    client.send("hello").unwrap();
    assert_eq!(client.response().unwrap().text(), "POST /x");
    assert_eq!(upstream.seen()[0].body, b"hello");
    assert_eq!(client.get("/next").unwrap().text(), "GET /next");
}

#[test]
fn early_hints_come_early() {
    let (send, hold) = mpsc::channel::<()>();
    let hold = Mutex::new(hold);
    let upstream = Upstream::start(move |_, stream| {
        stream.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n")?;
        let _ = hold.lock().unwrap().recv();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
        Ok(Then::Keep)
    });
    let edge = edge(&upstream);
    let mut client = connect(&edge);
    client.send(format!("GET / HTTP/1.1\r\nHost: {NAME}\r\n\r\n")).unwrap();
    let hints = client.any_response(true).unwrap();
    assert_eq!((hints.status, hints.header("link")), (103, Some("</style.css>; rel=preload")));
    send.send(()).unwrap();
    assert_eq!(client.response().unwrap().text(), "ok");
}

#[test]
fn trailers_pass_both_ways() {
    let upstream = Upstream::start(|_, stream| {
        stream.write_all(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 42\r\n\r\n",
        )?;
        Ok(Then::Keep)
    });
    let edge = edge(&upstream);
    let answer = connect(&edge)
        .ask(format!(
            "POST / HTTP/1.1\r\nHost: {NAME}\r\nTE: trailers\r\nTrailer: X-End\r\nTransfer-Encoding: chunked\r\n\r\n\
             5\r\nhello\r\n0\r\nX-End: 1\r\n\r\n"
        ))
        .unwrap();
    assert_eq!(client::find(&answer.trailers, "x-sum"), Some("42"), "{answer:?}");
    assert_eq!(client::find(&upstream.seen()[0].trailers, "x-end"), Some("1"));
    let answer = h2(&edge).ask(get("/"), Bytes::new()).unwrap();
    assert_eq!(client::find(&answer.trailers, "x-sum"), Some("42"), "{answer:?}");
}

#[test]
fn head_has_no_body_and_keeps_the_connection() {
    let upstream = Upstream::echo();
    let edge = edge(&upstream);
    let mut client = connect(&edge);
    for _ in 0..3 {
        let answer = client.ask(format!("HEAD /x HTTP/1.1\r\nHost: {NAME}\r\n\r\n")).unwrap();
        assert_eq!((answer.status, answer.header("content-length")), (200, Some("7")));
        assert_eq!(client.get("/y").unwrap().text(), "GET /y");
    }
    let request = Request::head(format!("https://{NAME}/x")).body(()).unwrap();
    let answer = h2(&edge).ask(request, Bytes::new()).unwrap();
    assert_eq!((answer.status, answer.header("content-length"), answer.body.len()), (200, Some("7"), 0));
}

/// A worker runs through a stream that it does not send: whoever came next on its connection would wait for that.
#[test]
fn head_of_a_stream_gives_up_its_connection() {
    let upstream = Upstream::start(|seen, stream| {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let body = if seen.method == "HEAD" { "" } else { "2\r\nok\r\n0\r\n\r\n" };
        stream.write_all(format!("{head}{body}").as_bytes())?;
        Ok(Then::Keep)
    });
    let edge = edge(&upstream);
    let mut client = connect(&edge);
    for _ in 0..2 {
        client.send(format!("HEAD /x HTTP/1.1\r\nHost: {NAME}\r\n\r\n")).unwrap();
        assert_eq!(client.any_response(false).unwrap().status, 200);
        upstream.wait_open(0);
        assert_eq!(client.get("/y").unwrap().text(), "ok");
        assert_eq!(client.get("/y").unwrap().text(), "ok");
    }
}

/// Each side waits for the other's half before it sends more: nothing on the way holds anything back.
#[test]
fn bodies_stream_both_ways_at_once() {
    let upstream = Upstream::raw(|connection| {
        connection.head().ok_or(io::ErrorKind::UnexpectedEof)?;
        connection.stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        let mut octet = [0];
        for _ in 0..10 {
            loop {
                connection.stream.read_exact(&mut octet)?;
                if octet == *b"?" {
                    break;
                }
            }
            connection.stream.write_all(b"1\r\n!\r\n")?;
        }
        connection.drain();
        Ok(())
    });
    let edge = edge_with(&upstream, "buffer_request = false");
    let mut client = connect(&edge);
    client.send(format!("POST / HTTP/1.1\r\nHost: {NAME}\r\nTransfer-Encoding: chunked\r\n\r\n")).unwrap();
    client.until(b"\r\n\r\n").unwrap();
    for _ in 0..10 {
        client.send("1\r\n?\r\n").unwrap();
        assert!(client.until(b"!").unwrap().ends_with(b"!"));
    }
}

/// Where answers are not buffered, a client that does not read stops its upstream, long before the whole answer is in the
/// edge.
#[test]
fn a_client_that_does_not_read_stops_the_upstream() {
    const WHOLE: usize = 256 << 20;
    let (stopped, written) = mpsc::channel();
    let stopped = Mutex::new(stopped);
    let upstream = Upstream::start(move |_, stream| {
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {WHOLE}\r\n\r\n")?;
        stream.set_write_timeout(Some(Duration::from_millis(500)))?; // as long as it takes to call it stopped
        let mut sum = 0;
        while let Ok(count @ 1..) = stream.write(&[b'x'; 16 << 10]) {
            sum += count;
        }
        stopped.lock().unwrap().send(sum).unwrap();
        Ok(Then::Close)
    });
    let edge = edge_with(&upstream, "buffer_response = false");
    let mut client = connect(&edge);
    client.send(format!("GET / HTTP/1.1\r\nHost: {NAME}\r\n\r\n")).unwrap();
    let sum = written.recv().unwrap();
    assert!(sum < WHOLE / 4, "{sum} octets went into the edge over HTTP/1.1");
    let mut over_h2 = h2(&edge);
    let _open = over_h2.begin(get("/")).unwrap();
    let sum = written.recv().unwrap();
    assert!(sum < WHOLE / 4, "{sum} octets went into the edge over HTTP/2");
}

/// A client that does not read keeps no worker: its answer waits at the edge, in memory and then on disk, and is whole
/// when it reads at last.
#[test]
fn a_client_that_does_not_read_keeps_no_worker() {
    const WHOLE: usize = 16 << 20;
    let (finished, done) = mpsc::channel();
    let finished = Mutex::new(finished);
    let upstream = Upstream::start(move |_, stream| {
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {WHOLE}\r\n\r\n")?;
        for piece in 0..WHOLE >> 14 {
            stream.write_all(&[u8::try_from(piece % 251).unwrap(); 16 << 10])?;
        }
        finished.lock().unwrap().send(()).unwrap();
        Ok(Then::Keep)
    });
    let edge = edge(&upstream);
    let mut client = connect(&edge);
    client.send(format!("GET / HTTP/1.1\r\nHost: {NAME}\r\n\r\n")).unwrap();
    done.recv().unwrap();
    let mut over_h2 = h2(&edge);
    let open = over_h2.begin(get("/")).unwrap();
    done.recv().unwrap();
    drop(open);
    let answer = client.response().unwrap();
    assert_eq!(answer.body.len(), WHOLE);
    assert!(
        answer
            .body
            .chunks(16 << 10)
            .enumerate()
            .all(|(piece, bytes)| bytes.iter().all(|b| usize::from(*b) == piece % 251))
    );
}

/// A worker is taken when the request is whole, and gets it with its length, however it came.
#[test]
fn a_slow_sender_takes_no_worker_before_its_request_is_whole() {
    let upstream = Upstream::start(|seen, stream| {
        let length = seen.header("content-length").unwrap_or_default();
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{length:>5}")?;
        Ok(Then::Keep)
    });
    let edge = edge_with(&upstream, "buffer_memory = \"4KiB\"");
    let mut client = connect(&edge);
    client.send(format!("POST / HTTP/1.1\r\nHost: {NAME}\r\nTransfer-Encoding: chunked\r\n\r\n")).unwrap();
    for _ in 0..50 {
        client.send([&b"400\r\n"[..], &[b'x'; 1024], b"\r\n"].concat()).unwrap();
    }
    assert_eq!(upstream.connections(), 0, "no worker is taken by half a request");
    client.send("0\r\n\r\n").unwrap();
    assert_eq!(client.response().unwrap().text(), "51200");
}

/// Where there is no room for a body to wait, its request is refused and nothing of it is sent; an answer goes at the
/// client's pace.
#[test]
fn without_room_nothing_is_half_sent() {
    let upstream = Upstream::start(|_, stream| {
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 4 << 20)?;
        stream.write_all(&vec![b'x'; 4 << 20])?;
        Ok(Then::Keep)
    });
    let edge = edge_with(&upstream, "buffer_memory = \"4KiB\"\nbuffer_disk = \"0B\"");
    let body = vec![b'x'; 100_000];
    let head = format!("POST / HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: {}\r\n\r\n", body.len());
    let answer = connect(&edge).ask([head.as_bytes(), &body].concat()).unwrap();
    assert_eq!((answer.status, answer.header("retry-after")), (507, None), "there is never room for it");
    assert_eq!(upstream.connections(), 0);
    assert_eq!(connect(&edge).get("/").unwrap().body.len(), 4 << 20);
}

#[test]
fn hop_by_hop_fields_of_an_answer_stay_on_their_hop() {
    let upstream = Upstream::start(|_, stream| {
        stream.write_all(
            b"HTTP/1.1 200 OK\r\nConnection: x-hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\n\
              Upgrade: h2c\r\nX-End: 1\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nServer: gunicorn\r\nContent-Length: 0\r\n\r\n",
        )?;
        Ok(Then::Keep)
    });
    let edge = edge(&upstream);
    let over_h1 = connect(&edge).get("/").unwrap();
    let over_h2 = h2(&edge).ask(get("/"), Bytes::new()).unwrap();
    for answer in [over_h1, over_h2] {
        for name in ["x-hop", "keep-alive", "proxy-connection", "upgrade"] {
            assert_eq!(answer.header(name), None, "{name}: {answer:?}");
        }
        assert_eq!(answer.header("x-end"), Some("1"));
        assert_eq!(answer.headers.iter().filter(|(name, _)| name == "set-cookie").count(), 2, "{answer:?}");
    }
}

#[test]
fn an_answer_that_ends_with_its_connection_is_framed_anew() {
    let upstream = Upstream::start(|_, stream| {
        stream.write_all(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nto the end")?;
        Ok(Then::Close)
    });
    let edge = edge(&upstream);
    let mut client = connect(&edge);
    for _ in 0..2 {
        let answer = client.get("/").unwrap();
        assert_eq!(
            (answer.text().as_str(), answer.header("transfer-encoding")),
            ("to the end", Some("chunked"))
        );
    }
    assert_eq!(h2(&edge).ask(get("/"), Bytes::new()).unwrap().text(), "to the end");
    let mut old = connect(&edge);
    old.send(format!("GET / HTTP/1.0\r\nHost: {NAME}\r\n\r\n")).unwrap();
    let text = String::from_utf8(old.rest().unwrap()).unwrap();
    assert!(
        !text.to_ascii_lowercase().contains("transfer-encoding") && text.ends_with("\r\n\r\nto the end"),
        "{text}"
    );
}

/// The upstream reads the request and closes: it may have acted. A POST is not sent again, a GET on a fresh
/// connection neither.
#[test]
fn what_may_have_been_read_is_not_sent_twice() {
    let upstream = Upstream::start(|seen, stream| match seen.target.as_str() {
        "/warm" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
            Ok(Then::Keep)
        }
        _ => Ok(Then::Close),
    });
    let edge = edge(&upstream);
    for method in ["POST", "PATCH"] {
        let mut client = connect(&edge);
        assert_eq!(client.get("/warm").unwrap().text(), "ok");
        let mark = upstream.mark();
        let request = format!("{method} /once HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: 2\r\n\r\nhi");
        assert_eq!(client.ask(request).unwrap().status, 502);
        assert_eq!(upstream.mark() - mark, 1, "{method} was sent more than once");
    }
}

#[test]
fn a_target_that_is_not_there_is_passed_over() {
    let upstream = Upstream::echo();
    let closed = "127.0.0.1:1";
    let edge = Edge::start(&format!(
        "{ROWS}\n[[site]]\ndomains = [\"{NAME}\"]\nupstream = [\"{closed}\", \"{}\"]\ncertificate = \"internal\"\n",
        upstream.address()
    ));
    for round in 0..10 {
        let request = format!("POST /{round} HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: 2\r\n\r\nhi");
        assert_eq!(connect(&edge).ask(request).unwrap().status, 200);
    }
    assert_eq!(upstream.mark(), 10);
}

/// WSGI joins repeated lines with commas, which cookies do not understand.
#[test]
fn cookies_go_in_one_line() {
    let upstream = Upstream::echo();
    let edge = edge(&upstream);
    let request = format!("GET /c HTTP/1.1\r\nHost: {NAME}\r\nCookie: a=1\r\nX: y\r\nCookie: b=2\r\n\r\n");
    assert_eq!(connect(&edge).ask(request).unwrap().status, 200);
    let seen = upstream.wait_from(0, "the request", |seen| seen.target == "/c");
    assert_eq!(seen.headers.iter().filter(|(name, _)| name == "cookie").count(), 1);
    assert_eq!(seen.header("cookie"), Some("a=1; b=2"));
}

/// While the upstream restarts, requests wait for it instead of failing: a POST too, for nothing of it was sent.
#[test]
fn a_request_waits_while_the_upstream_restarts() {
    let port = Port::reserve();
    let address = port.address();
    let edge = Edge::start(&format!(
        "{ROWS}\n[[site]]\ndomains = [\"{NAME}\"]\nupstream = \"{address}\"\ncertificate = \"internal\"\n\
         [site.proxy]\nhold = \"60s\"\n"
    ));
    let mut clients: Vec<_> = (0..10).map(|_| connect(&edge)).collect();
    for client in &mut clients {
        client.send(format!("POST / HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: 2\r\n\r\nhi")).unwrap();
    }
    // The edge has read them all, and looked, once this one has given up.
    let mut impatient = connect(&edge);
    impatient.send(format!("GET /impatient HTTP/1.1\r\nHost: {NAME}\r\n\r\n")).unwrap();
    drop(impatient);
    edge.access_line(0, "a line for who gave up", |line| {
        line["path"] == "/impatient" && line["status"] == 499
    });
    let listener = std::net::TcpListener::bind(address).unwrap();
    let answering = std::thread::spawn(move || {
        for _ in 0..10 {
            let (mut stream, _) = listener.accept().unwrap();
            let mut seen = Vec::new();
            let mut octet = [0];
            while !seen.ends_with(b"\r\n\r\nhi") {
                stream.read_exact(&mut octet).unwrap();
                seen.extend_from_slice(&octet);
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").unwrap();
        }
    });
    assert!(clients.iter_mut().all(|client| client.response().unwrap().status == 200));
    answering.join().unwrap();
}

#[test]
fn a_request_waits_no_longer_than_it_may() {
    let closed = "127.0.0.1:1";
    let edge = Edge::start(&format!(
        "{ROWS}\n[[site]]\ndomains = [\"{NAME}\"]\nupstream = \"{closed}\"\ncertificate = \"internal\"\n\
         [site.proxy]\nhold = \"100ms\"\n"
    ));
    let answer = connect(&edge).get("/").unwrap();
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("5")));
    let line = edge.access_line(0, "a line that says why", |line| line["path"] == "/");
    assert_eq!(line["refused"], "down");
}

/// A worker that takes a request and dies without a word: what may be sent twice is sent again, what may not is a 502.
#[test]
fn only_what_may_run_twice_is_sent_to_another_worker() {
    let dying = Upstream::start(|seen, stream| {
        if seen.target == "/second" {
            return Ok(Then::Close);
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
        Ok(Then::Close)
    });
    let edge = edge(&dying);
    let mark = dying.mark();
    assert_eq!(connect(&edge).get("/second").unwrap().status, 502);
    assert_eq!(dying.mark() - mark, 3, "once, and twice again");
    let post = format!("POST /second HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: 2\r\n\r\nhi");
    let mark = dying.mark();
    assert_eq!(connect(&edge).ask(post).unwrap().status, 502);
    assert_eq!(dying.mark() - mark, 1, "never twice");
}

#[test]
fn the_longest_route_wins() {
    let (first, second) = (Upstream::echo(), Upstream::echo());
    let edge = Edge::start(&format!(
        r#"{ROWS}
[[site]]
domains = ["{NAME}"]
certificate = "internal"
  [[site.route]]
  path = "/app/"
  upstream = "{}"
  [[site.route]]
  path = "/app/deep/"
  upstream = "{}"
  [[site.route]]
  path = "= /app/exact"
  redirect = {{ to = "/new", status = 308 }}
"#,
        first.address(),
        second.address()
    ));
    let mut client = connect(&edge);
    for (path, status) in [
        ("/app/x", 200),
        ("/app/deep/x", 200),
        ("/app/exact", 308),
        ("/app/exact/", 200),
        ("/", 404),
        ("/apple", 404),
    ] {
        assert_eq!(client.get(path).unwrap().status, status, "{path}");
    }
    let targets =
        |upstream: &Upstream| upstream.seen().into_iter().map(|seen| seen.target).collect::<Vec<_>>();
    assert_eq!(targets(&first), ["/app/x", "/app/exact/"]);
    assert_eq!(targets(&second), ["/app/deep/x"]);
}

/// An edge behind an edge: TLS to the upstream, verified against the machine's trust, and the outer edge's word about
/// the client replaced by the inner one's own.
#[test]
fn an_upstream_may_speak_tls() {
    let upstream = Upstream::echo();
    let site = |name: &str, to: &str| {
        format!("{ROWS}\n[[site]]\ndomains = [{name}]\nupstream = \"{to}\"\ncertificate = \"internal\"\n")
    };
    let inner = Edge::start(&site(&format!("\"localhost\", \"{NAME}\""), &upstream.address().to_string()));
    let to = format!("https://localhost:{}", inner.https().port());
    let outer = site(&format!("\"{NAME}\""), &to);
    let trusting = Edge::start_with(&outer, &[("SSL_CERT_FILE", &inner.ca())]);
    for _ in 0..3 {
        assert_eq!(connect(&trusting).get("/x").unwrap().text(), "GET /x");
    }
    assert_eq!(h2(&trusting).ask(get("/y"), Bytes::new()).unwrap().text(), "GET /y");
    assert_eq!(upstream.seen()[0].header("host"), Some(NAME));
    assert_eq!(upstream.ambiguous(), Vec::<String>::new());
    let mark = upstream.mark();
    assert_eq!(
        connect(&Edge::start(&outer)).get("/x").unwrap().status,
        502,
        "nobody vouches for the inner edge"
    );
    assert_eq!(upstream.mark(), mark);
}

/// A client that sends its requests without waiting for answers.
#[test]
fn a_long_pipeline_is_answered_in_order() {
    let upstream = Upstream::echo();
    let edge = edge(&upstream);
    let mut client: Wire<client::Tls> = connect(&edge);
    let text: String =
        (0..200).fold(String::new(), |text, n| text + &format!("GET /{n} HTTP/1.1\r\nHost: {NAME}\r\n\r\n"));
    client.send(text).unwrap();
    for n in 0..200 {
        assert_eq!(client.response().unwrap().text(), format!("GET /{n}"));
    }
}

/// A request that its worker does not survive is tried once more, and not on every connection that is idle.
#[test]
fn a_request_that_kills_its_worker_meets_two_of_them() {
    const IDLE: usize = 5;
    let together = Barrier::new(IDLE);
    let upstream = Upstream::start(move |seen, stream| {
        if seen.target == "/deadly" {
            return Ok(Then::Close);
        }
        together.wait();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
        Ok(Then::Keep)
    });
    let edge = edge_with(&upstream, "retries = 0");
    let mut clients: Vec<_> = (0..IDLE).map(|_| connect(&edge)).collect();
    for client in &mut clients {
        client.send(format!("GET / HTTP/1.1\r\nHost: {NAME}\r\n\r\n")).unwrap();
    }
    for client in &mut clients {
        assert_eq!(client.response().unwrap().status, 200);
    }
    assert_eq!(clients[0].get("/deadly").unwrap().status, 502);
    let deaths = upstream.seen().iter().filter(|seen| seen.target == "/deadly").count();
    assert_eq!(deaths, 2, "one on a pooled connection, one on a fresh one");
}

/// Date is the edge's to add where it is missing (RFC 9110 section 6.6.1), and only there.
#[test]
fn an_answer_has_one_date() {
    const OWN: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    let upstream = Upstream::start(|seen, stream| {
        let date = if seen.target == "/own" { format!("Date: {OWN}\r\n") } else { String::new() };
        write!(stream, "HTTP/1.1 200 OK\r\n{date}Content-Length: 2\r\n\r\nok")?;
        Ok(Then::Keep)
    });
    let edge = edge(&upstream);
    for (path, own) in [("/own", true), ("/none", false)] {
        for answer in [connect(&edge).get(path).unwrap(), h2(&edge).ask(get(path), Bytes::new()).unwrap()] {
            let dates: Vec<_> = answer.headers.iter().filter(|(name, _)| name == "date").collect();
            assert!(dates.len() == 1 && (dates[0].1 == OWN) == own, "{path}: {dates:?}");
        }
    }
}

/// Trailers that speak of the upstream's own hop would end an HTTP/2 stream as malformed.
#[test]
fn hop_by_hop_trailers_stay_on_their_hop() {
    let upstream = Upstream::start(|_, stream| {
        stream.write_all(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 1\r\n\
              Connection: x\r\nTransfer-Encoding: gzip\r\nContent-Length: 7\r\nX-Accel-Redirect: /x\r\n\r\n",
        )?;
        Ok(Then::Keep)
    });
    let edge = edge(&upstream);
    for answer in [connect(&edge).get("/").unwrap(), h2(&edge).ask(get("/"), Bytes::new()).unwrap()] {
        assert_eq!(answer.text(), "ok");
        let names: Vec<_> = answer.trailers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["x-sum"]);
    }
}

/// Clients such as urllib3 hand a chunk over once its line end has come.
#[test]
fn a_chunk_is_whole_before_the_next_one_comes() {
    let (send, hold) = mpsc::channel::<()>();
    let hold = Mutex::new(hold);
    let upstream = Upstream::raw(move |connection| {
        connection.head();
        if connection.exactly(8).as_deref() != Some(b"3\r\nabc\r\n") {
            return Ok(());
        }
        let stream = &mut connection.stream;
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")?;
        let _ = hold.lock().unwrap().recv();
        stream.write_all(b"2\r\nyo\r\n0\r\n\r\n")?;
        connection.drain();
        Ok(())
    });
    let edge = edge_with(&upstream, "buffer_request = false\nbuffer_response = false");
    let mut client = connect(&edge);
    client
        .send(format!("POST / HTTP/1.1\r\nHost: {NAME}\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"))
        .unwrap();
    client.until(b"\r\n\r\n5\r\nhello\r\n").unwrap();
    client.send("0\r\n\r\n").unwrap();
    drop(send);
    client.until(b"2\r\nyo\r\n0\r\n\r\n").unwrap();
}

/// A client that has seen nothing of an answer sends its request once more.
#[test]
fn an_upstream_that_fails_right_behind_its_head_is_told_of() {
    let upstream = Upstream::raw(|connection| {
        connection.head();
        connection.stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n")?;
        connection.drain();
        Ok(())
    });
    for proxy in ["", "buffer_response = false"] {
        let edge = edge_with(&upstream, proxy);
        assert_eq!(connect(&edge).get("/").unwrap().status, 502);
        assert_eq!(h2(&edge).ask(get("/"), Bytes::new()).unwrap().status, 502);
        for _ in 0..2 {
            let line = edge.access_line(0, "the request", |line| line["status"] == 502);
            assert_eq!(line["refused"], "upstream_broken");
        }
    }
}

/// Over HTTP/2 any success says that the WebSocket is open, and only the edge can tell that it is not.
#[test]
fn a_websocket_over_http_2_opens_where_the_upstream_has_opened_it() {
    let upstream = Upstream::start(|seen, stream| {
        let head = match seen.target.as_str() {
            "/page" => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            "/other" => "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\n",
            "/wrong" => {
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
            }
            _ => "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        };
        stream.write_all(head.as_bytes())?;
        Ok(Then::Close)
    });
    let edge = edge(&upstream);
    for path in ["/page", "/other", "/wrong", "/none"] {
        let request = Request::connect(format!("https://{NAME}{path}"))
            .extension(h2::ext::Protocol::from_static("websocket"))
            .body(())
            .unwrap();
        let mut client = h2(&edge);
        client.ask(Request::get(format!("https://{NAME}/first")).body(()).unwrap(), Bytes::new()).unwrap();
        let (answer, ..) = client.connect_websocket(request).unwrap();
        assert_eq!(answer.status(), 502, "{path}");
    }
}

/// HTTP/2 has no Sec-WebSocket-Key; one that a client sends all the same must not stand beside the edge's own.
#[test]
fn a_websocket_over_http_2_has_one_key() {
    let upstream = Upstream::start(|_, stream| {
        stream.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")?;
        Ok(Then::Keep)
    });
    let edge = edge(&upstream);
    let request = Request::connect(format!("https://{NAME}/ws"))
        .extension(h2::ext::Protocol::from_static("websocket"))
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        .body(())
        .unwrap();
    let mut client = h2(&edge);
    client.ask(get("/first"), Bytes::new()).unwrap();
    let (answer, ..) = client.connect_websocket(request).unwrap();
    assert_eq!(answer.status(), 403);
    let seen = upstream.wait_from(0, "the upgrade", |seen| seen.target == "/ws");
    let keys: Vec<_> = seen.headers.iter().filter(|(name, _)| name == "sec-websocket-key").collect();
    assert!(keys.len() == 1 && keys[0].1 != "dGhlIHNhbXBsZSBub25jZQ==", "{keys:?}");
}

/// A client that stops in the middle of its body is let go of, even where the answer has begun.
#[test]
fn a_body_that_stalls_ends_an_answer_that_waits_for_it() {
    let upstream = Upstream::raw(|connection| {
        connection.head();
        connection.stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n")?;
        connection.drain();
        Ok(())
    });
    let edge = edge_with(&upstream, "buffer_request = false\n[limits]\nidle_timeout = \"2s\"");
    let mut client = connect(&edge);
    client.send(format!("POST / HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: 10\r\n\r\nhello")).unwrap();
    client.until(b"2\r\nok\r\n").unwrap();
    let rest = client.rest();
    assert!(rest.as_ref().map_or_else(client::ended, Vec::is_empty), "{rest:?}");
    upstream.wait_open(0);
}

fn edge(upstream: &Upstream) -> Edge {
    edge_with(upstream, "")
}

/// An edge with lines of `[site.proxy]`.
fn edge_with(upstream: &Upstream, proxy: &str) -> Edge {
    Edge::start(&format!(
        "{ROWS}\n[process]\nworkers = 1\n\n[[site]]\ndomains = [\"{NAME}\"]\nupstream = \"{}\"\n\
         certificate = \"internal\"\n[site.proxy]\n{proxy}\n",
        upstream.address()
    ))
}

fn h2(edge: &Edge) -> H2Client {
    H2Client::connect(edge.https(), &edge.ca(), NAME).unwrap()
}

fn get(path: &str) -> Request<()> {
    Request::get(format!("https://{NAME}{path}")).body(()).unwrap()
}

#[test]
fn a_trace_goes_on_and_one_begins_where_the_site_says_so() {
    const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
    let upstream = Upstream::echo();
    for (proxy, begins) in [("", false), ("trace = \"begin\"", true)] {
        let edge = edge_with(&upstream, proxy);
        let seen = |fields: &str| {
            let mark = upstream.mark();
            connect(&edge).ask(format!("GET / HTTP/1.1\r\nHost: {NAME}\r\n{fields}\r\n")).unwrap();
            upstream.wait_from(mark, "the request", |_| true)
        };
        let kept = seen(&format!("traceparent: {TRACE}\r\ntracestate: a=1\r\n"));
        assert_eq!((kept.header("traceparent"), kept.header("tracestate")), (Some(TRACE), Some("a=1")));
        let twice = format!("traceparent: {TRACE}\r\nTraceparent: {}\r\n", TRACE.replace('4', "5"));
        for fields in ["", "tracestate: a=1\r\n", "traceparent: 00-1-2-01\r\ntracestate: a=1\r\n", &twice] {
            let seen = seen(fields);
            assert_eq!(seen.header("tracestate"), None, "{fields}");
            let id = seen.header("x-request-id").unwrap();
            let own = format!("00-{id}-{}-01", &id[16..]);
            assert_eq!(seen.header("traceparent"), begins.then_some(own.as_str()), "{fields}");
        }
    }
}
