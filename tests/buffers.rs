//! Where bodies wait: by route, within the room of the whole edge, and on a disk that is full or gone.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;

use crate::support::PATIENCE;
use crate::support::client::{NAME, Response, Tls, Wire, connect, connect_to};
use crate::support::edge::{Edge, ROWS, run};
use crate::support::h2client::H2Client;
use crate::support::h2raw::{self, H2};
use crate::support::lines::text;
use crate::support::upstream::{Then, Upstream};
use crate::support::websocket::{ACCEPT, UPGRADE};

/// A second site of the same upstream.
const OTHER: &str = "other.localhost";

#[test]
fn a_route_has_its_requests_and_answers_buffered_or_not() {
    let upstream = echo_of_length();
    let routes = "[site.proxy]\nbuffer_request = false\n\
                  [[site.route]]\npath = \"/kept/\"\nbuffer_request = true\n\
                  [[site.route]]\npath = \"/small/\"\nbuffer_request = true\nbuffer_memory = \"4KiB\"\n";
    let edge = edge(&upstream, routes, "");
    for path in ["/kept/", "/small/"] {
        let before = upstream.connections();
        let mut client = half_sent(&edge, path, 100_000);
        assert_eq!(upstream.connections(), before, "no worker is taken by half a request");
        client.send(vec![b'x'; 50_000]).unwrap();
        assert_eq!(client.response().unwrap().text(), "100000");
    }
    let (begun, heads) = mpsc::channel();
    let begun = Mutex::new(begun);
    let upstream = Upstream::raw(move |connection| {
        let head = connection.head().ok_or(io::ErrorKind::UnexpectedEof)?;
        begun.lock().unwrap().send(head.target).unwrap();
        connection.drain();
        Ok(())
    });
    let routes = "[[site.route]]\npath = \"/live/\"\nbuffer_request = false\n";
    let edge = self::edge(&upstream, routes, "");
    let _open = half_sent(&edge, "/live/", 100_000);
    assert_eq!(heads.recv().unwrap(), "/live/", "the worker is taken at once");
    let _waiting = half_sent(&edge, "/", 100_000);
    assert!(heads.try_recv().is_err());
}

/// A client that reads nothing: of a route that buffers, the worker gets rid of all; of one that does not, it waits.
#[test]
fn answers_stop_where_they_are_not_buffered() {
    const WHOLE: usize = 64 << 20;
    let (finished, done) = mpsc::channel();
    let finished = Mutex::new(finished);
    let upstream = Upstream::start(move |seen, stream| {
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {WHOLE}\r\n\r\n")?;
        // As long as it takes to call it stopped.
        let patience = if seen.target == "/live/" { Duration::from_millis(500) } else { PATIENCE };
        stream.set_write_timeout(Some(patience))?;
        let mut sum = 0;
        while let Ok(count @ 1..) = stream.write(&vec![b'x'; (16 << 10).min(WHOLE - sum)]) {
            sum += count;
        }
        finished.lock().unwrap().send((seen.target.clone(), sum)).unwrap();
        Ok(Then::Close)
    });
    let routes = "[[site.route]]\npath = \"/live/\"\nbuffer_response = false\n";
    let edge = edge(&upstream, routes, "");
    for (path, is_whole) in [("/", true), ("/live/", false)] {
        let mut client = connect(&edge);
        client.send(format!("GET {path} HTTP/1.1\r\nHost: {NAME}\r\n\r\n")).unwrap();
        let (target, sum) = done.recv().unwrap();
        assert_eq!((target.as_str(), sum == WHOLE), (path, is_whole), "{sum}");
    }
}

#[test]
fn a_route_without_an_upstream_has_no_buffers() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("edge.toml");
    let routes = "[[site]]\ndomains = [\"a.example.com\"]\nupstream = \"django:8000\"\n\
                  [[site.route]]\npath = \"/static/\"\nfiles = \".\"\nbuffer_response = true\n\
                  [[site.route]]\npath = \"/old/\"\nredirect = { to = \"/\" }\nbuffer_memory = \"64KiB\"\n\
                  [[site.route]]\npath = \"/x/\"\nbuffer_request = \"no\"\n\
                  [[site.route]]\npath = \"/y/\"\nbuffer_disk = \"1GiB\"\n";
    fs::write(&file, routes).unwrap();
    let (code, _, stderr) = run(&["check", "--config", file.to_str().unwrap()]);
    assert_eq!(code, Some(2), "{stderr}");
    assert_eq!(stderr.matches("nothing of this route goes to an upstream").count(), 2, "{stderr}");
    assert!(
        stderr.contains("expected true or false, found text") && stderr.contains("buffer_disk"),
        "{stderr}"
    );
    assert_eq!(stderr.matches("error: ").count(), 4, "{stderr}");
}

/// All sites and all workers share it: what finds no room is refused and may come again, and nothing of it is sent.
#[test]
fn the_room_of_the_whole_edge_is_shared_by_all_sites() {
    let upstream = echo_of_length();
    let limits = "[limits]\nbuffer_memory = \"1MiB\"\nbuffer_disk = \"1MiB\"\n";
    let edge =
        Edge::start(&format!("{ROWS}{limits}{}{}", site(NAME, &upstream, ""), site(OTHER, &upstream, "")));
    let first = half_sent(&edge, "/", 1_000_000);
    let mut second = half_sent_to(&edge, OTHER, "/", 1_000_000);
    assert_eq!(upstream.connections(), 0);
    wait_until(&edge, |on_disk| on_disk >= 2 * (500_000 - 65_536));
    // 869 KB of 1 MiB wait on disk.
    let third = post(&edge, 400_000);
    assert_eq!((third.status, third.header("retry-after")), (503, Some("5")));
    let told = said(&edge, "a request's body finds no room to wait in");
    assert!(told.contains("buffer_disk of all sites, 1MiB, is used up: raise it in [limits]"), "{told}");
    assert_eq!((upstream.connections(), upstream.mark()), (0, 0), "nothing was half sent");
    drop(first);
    wait_until(&edge, |on_disk| on_disk <= 500_000);
    second.send(vec![b'x'; 500_000]).unwrap();
    assert_eq!(second.response().unwrap().text(), "1000000");
    wait_until(&edge, |on_disk| on_disk == 0);
    assert_eq!(post(&edge, 1_000_000).text(), "1000000");
    // Its answer may come before its room is given back.
    wait_until(&edge, |on_disk| on_disk == 0);
    let answer = post(&edge, 3_000_000);
    assert_eq!((answer.status, answer.header("retry-after")), (507, None), "in an empty edge");
    let told = said(&edge, "it is longer than all that may wait on disk, 1MiB: raise buffer_disk");
    assert!(told.contains(NAME), "{told}");
    assert!(scrape(&edge).contains("vestibule_buffer_limit_bytes{where=\"disk\"} 1048576"));
    assert!(scrape(&edge).contains("vestibule_request_faults_total{reason=\"no_room\"} 1"));
}

/// What finds no room in memory goes to disk, long before a body has used up its own part.
#[test]
fn without_memory_bodies_wait_on_disk() {
    let upstream = echo_of_length();
    let proxy = "[site.proxy]\nbuffer_memory = \"64MiB\"\n";
    let limits = "[limits]\nbuffer_memory = \"1MiB\"\n";
    let edge = edge(&upstream, proxy, limits);
    let mut client = half_sent(&edge, "/", 6_000_000);
    wait_until(&edge, |on_disk| on_disk >= 3_000_000 - (1 << 20));
    client.send(vec![b'x'; 3_000_000]).unwrap();
    assert_eq!(client.response().unwrap().text(), "6000000");
}

/// One octet at a time, in chunks of its own: what waits is what was sent, and not a buffer for each.
#[test]
fn small_pieces_take_little_memory() {
    let upstream = echo_of_length();
    let edge = edge(&upstream, "", "");
    let mut clients: Vec<_> = (0..20).map(|_| connect(&edge)).collect();
    let head = format!("POST / HTTP/1.1\r\nHost: {NAME}\r\nTransfer-Encoding: chunked\r\n\r\n");
    for client in &mut clients {
        client.send(&head).unwrap();
    }
    let before = edge.peak_memory();
    for _ in 0..50 {
        // Each record holds many chunks, and each chunk is a piece.
        for client in &mut clients {
            client.send("1\r\nx\r\n".repeat(1000)).unwrap();
        }
    }
    for client in &mut clients {
        client.send("0\r\n\r\n").unwrap();
        assert_eq!(client.response().unwrap().text(), "50000");
    }
    let grown = edge.peak_memory().saturating_sub(before);
    assert!(grown < 24 << 20, "{grown} octets for a million");
}

/// What clients over HTTP/1.1 asked for and never read waits with the upstream where no disk takes it, and so does what a
/// WebSocket has for them.
#[test]
fn connections_that_nobody_reads_take_little_memory() {
    const MANY: usize = 24;
    const WARM: usize = 4;
    let (upstream, done) = endless();
    for (path, fields) in [("/", ""), ("/ws", UPGRADE)] {
        let edge = edge_without_spares(&upstream, "buffer_memory = \"4KiB\"\nbuffer_disk = \"0B\"\n");
        let mut clients: Vec<_> = (0..WARM + MANY).map(|_| connect(&edge)).collect();
        let ask = |clients: &mut [Wire<Tls>]| {
            for client in &mut *clients {
                client.send(format!("GET {path} HTTP/1.1\r\nHost: {NAME}\r\n{fields}\r\n")).unwrap();
            }
            for _ in clients {
                done.recv().unwrap();
            }
            edge.peak_memory()
        };
        // The first ones bring what all need, the program's own pages for one.
        let (first, others) = clients.split_at_mut(WARM);
        let before = ask(first);
        let held = ask(others) - before;
        assert!(held < (MANY as u64) * 384 * 1024, "{held} octets for {MANY} connections at {path}");
    }
}

/// A client whose windows never end and who never reads: its streams share what its connection may hold.
#[test]
fn streams_that_nobody_reads_take_little_memory() {
    const MANY: u32 = 96;
    let (upstream, done) = endless();
    let edge = edge_without_spares(&upstream, "buffer_memory = \"4KiB\"\nbuffer_disk = \"0B\"\n");
    let ask = |client: &mut H2| {
        let most = 0x7fff_ffff_u32;
        let settings = [&h2raw::INITIAL_WINDOW_SIZE.to_be_bytes()[..], &most.to_be_bytes()].concat();
        client.write(h2raw::SETTINGS, 0, 0, &settings).unwrap();
        client.write(h2raw::WINDOW_UPDATE, 0, 0, &(most - 0xffff).to_be_bytes()).unwrap();
        let fields: [h2raw::Field<'_>; 4] = [
            (b":method", b"GET"),
            (b":scheme", b"https"),
            (b":authority", NAME.as_bytes()),
            (b":path", b"/"),
        ];
        for stream in 0..MANY {
            client.request(1 + 2 * stream, &fields, b"").unwrap();
        }
        for _ in 0..MANY {
            done.recv().unwrap();
        }
        edge.peak_memory()
    };
    let mut clients = [(); 3].map(|()| H2::connect(&edge).unwrap());
    let [before, _, after] = clients.each_mut().map(ask);
    let held = (after - before) / 2;
    assert!(held < 12 << 20, "{held} octets for {MANY} streams");
}

/// An upstream whose answers do not end, and what tells each time that one of them is not taken any more.
fn endless() -> (Upstream, mpsc::Receiver<()>) {
    let (stopped, done) = mpsc::channel();
    let stopped = Mutex::new(stopped);
    let upstream = Upstream::raw(move |connection| {
        let head = connection.head().ok_or(io::ErrorKind::UnexpectedEof)?;
        let begin = match head.target.as_str() {
            "/ws" => format!(
                "101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
            ),
            _ => format!("200 OK\r\nContent-Length: {}\r\n\r\n", u32::MAX),
        };
        write!(connection.stream, "HTTP/1.1 {begin}")?;
        connection.stream.set_write_timeout(Some(Duration::from_millis(500)))?; // as long as it takes to call it stopped
        let piece = vec![b'x'; 64 << 10];
        while let Ok(1..) = connection.stream.write(&piece) {}
        stopped.lock().unwrap().send(()).unwrap();
        connection.drain();
        Ok(())
    });
    (upstream, done)
}

#[test]
fn a_full_disk_is_a_507_and_nothing_is_half_sent() {
    let upstream = echo_of_length();
    let disk = tempfile::tempdir().unwrap();
    let page = disk.path().join("507.html");
    fs::write(&page, "no room: {status}").unwrap();
    let pages = format!("[site.errors]\n507 = \"{}\"\n", page.display());
    // Pages are read at the start, before the small disk hides them.
    let small = tempfile::tempdir().unwrap();
    let at = small.path().display();
    let script = format!("mount -t tmpfs -o size=1m none {at} && TMPDIR={at} exec \"$@\"");
    let config = format!("{ROWS}{}", site(NAME, &upstream, &pages));
    let edge = Edge::start_behind(&["unshare", "-Urm", "sh", "-c", &script, "sh"], &config);
    let told = said(&edge, "bodies that wait on disk take memory");
    assert!(told.contains(&at.to_string()), "{told}");
    for _ in 0..3 {
        let answer = post(&edge, 2_000_000);
        assert_eq!((answer.status, answer.text().as_str()), (507, "no room: 507"));
        assert_eq!(answer.header("retry-after"), None);
    }
    let told = said(&edge, "a request's body finds no room to wait in");
    for part in [at.to_string().as_str(), "No space left on device", "make room there", "TMPDIR", NAME] {
        assert!(told.contains(part), "{part} is not in {told}");
    }
    let mut over_h2 = H2Client::connect(edge.https(), &edge.ca(), NAME).unwrap();
    let request = Request::post(format!("https://{NAME}/")).body(()).unwrap();
    assert_eq!(over_h2.ask(request, Bytes::from(vec![b'x'; 2_000_000])).unwrap().status, 507);
    assert_eq!((upstream.connections(), upstream.mark()), (0, 0), "nothing was half sent");
    // Its answer may come before its room is given back.
    wait_until(&edge, |on_disk| on_disk == 0);
    assert_eq!(post(&edge, 900_000).text(), "900000", "what was given up is free again");
}

/// An answer that finds no room goes at its client's pace, and is whole.
#[test]
fn an_answer_needs_no_disk() {
    let upstream = Upstream::start(|_, stream| {
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 32 << 20)?;
        stream.write_all(&vec![b'x'; 32 << 20])?;
        Ok(Then::Keep)
    });
    let folder = tempfile::tempdir().unwrap();
    let edge = edge_at(&upstream, &folder.path().join("gone"));
    let mut client = connect(&edge);
    client.send(format!("GET / HTTP/1.1\r\nHost: {NAME}\r\n\r\n")).unwrap();
    said(&edge, "an answer finds no room to wait in, and goes at its client's pace");
    assert_eq!(client.response().unwrap().body.len(), 32 << 20);
}

#[test]
fn a_temporary_folder_that_is_gone_is_told_and_found_again() {
    let upstream = echo_of_length();
    let folder = tempfile::tempdir().unwrap();
    let spools = folder.path().join("spools");
    fs::create_dir(&spools).unwrap();
    let edge = edge_at(&upstream, &spools);
    assert_eq!(post(&edge, 200_000).text(), "200000");
    assert_eq!(fs::read_dir(&spools).unwrap().count(), 0, "what waits has no name");
    fs::remove_dir(&spools).unwrap();
    let before = upstream.mark();
    assert_eq!(post(&edge, 200_000).status, 507);
    assert_eq!(upstream.mark(), before);
    let told = said(&edge, "a request's body finds no room to wait in");
    assert!(
        told.contains("spools") && told.contains("No such file") && told.contains("make the folder"),
        "{told}"
    );
    assert_eq!(post(&edge, 60_000).text(), "60000", "memory is there all the same");
    fs::create_dir(&spools).unwrap();
    assert_eq!(post(&edge, 200_000).text(), "200000");
}

/// The log says which `body` it was that a request did not fit into.
#[test]
fn a_413_names_its_setting() {
    let upstream = Upstream::echo();
    let site_of = |name: &str, more: &str| site(name, &upstream, more);
    let first = site_of(NAME, "body = \"20KiB\"\n[[site.route]]\npath = \"/small/\"\nbody = \"10KiB\"\n");
    let edge = Edge::start(&format!("{ROWS}[limits]\nbody = \"30KiB\"\n{first}{}", site_of(OTHER, "")));
    for (host, path, setting) in [
        (NAME, "/small/", format!("body = \"10KiB\" of the [[site.route]] \"/small/\" of {NAME}")),
        (NAME, "/", format!("body = \"20KiB\" of the [[site]] {NAME}")),
        (OTHER, "/", "body = \"30KiB\" in [limits]".to_owned()),
    ] {
        for framing in ["Content-Length: 40000", "Transfer-Encoding: chunked"] {
            let mark = edge.log().mark();
            let mut client = connect_to(&edge, host);
            client.send(format!("POST {path} HTTP/1.1\r\nHost: {host}\r\n{framing}\r\n\r\n")).unwrap();
            if framing.ends_with("chunked") {
                let _ = client.send(format!("9c40\r\n{}\r\n0\r\n\r\n", "x".repeat(40_000)));
            }
            let answer = client.response().unwrap();
            assert_eq!(answer.status, 413);
            let line = edge.log().wait_json(mark, "the line about the body", |line| {
                text(line, "message").contains("longer than it may be (413)")
            });
            assert_eq!(text(&line, "setting"), setting);
            assert_eq!(text(&line, "request_id"), answer.header("x-request-id").unwrap());
        }
    }
    assert_eq!(upstream.mark(), 0);
}

/// Answers with the length of what came.
fn echo_of_length() -> Upstream {
    Upstream::start(|seen, stream| {
        let length = seen.body.len().to_string();
        assert!(seen.body.iter().all(|b| *b == b'x'));
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{length}", length.len())?;
        Ok(Then::Keep)
    })
}

fn site(name: &str, upstream: &Upstream, more: &str) -> String {
    let at = upstream.address();
    format!("\n[[site]]\ndomains = [\"{name}\"]\nupstream = \"{at}\"\ncertificate = \"internal\"\n{more}\n")
}

fn edge(upstream: &Upstream, more: &str, tables: &str) -> Edge {
    Edge::start(&format!("{ROWS}{tables}{}", site(NAME, upstream, more)))
}

/// Its allocator gives back at once what is freed: what is seen of its memory is in use.
fn edge_without_spares(upstream: &Upstream, proxy: &str) -> Edge {
    let site = site(NAME, upstream, &format!("[site.proxy]\n{proxy}"));
    Edge::start_with(&format!("{ROWS}{site}"), &[("MIMALLOC_PURGE_DELAY", Path::new("0"))])
}

/// With this folder for what waits on disk.
fn edge_at(upstream: &Upstream, spools: &Path) -> Edge {
    Edge::start_with(&format!("{ROWS}{}", site(NAME, upstream, "")), &[("TMPDIR", spools)])
}

fn post(edge: &Edge, octets: usize) -> Response {
    let mut client = half_sent(edge, "/", octets);
    let _ = client.send(vec![b'x'; octets / 2]);
    client.response().unwrap()
}

fn half_sent(edge: &Edge, path: &str, octets: usize) -> Wire<Tls> {
    half_sent_to(edge, NAME, path, octets)
}

/// A connection that has sent the head of a request and half of its body, if the edge takes that.
fn half_sent_to(edge: &Edge, host: &str, path: &str, octets: usize) -> Wire<Tls> {
    let mut client = connect_to(edge, host);
    let head = format!("POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {octets}\r\n\r\n");
    client.send(head).unwrap();
    let _ = client.send(vec![b'x'; octets / 2]);
    client
}

/// The first line of the log that has this in its message.
fn said(edge: &Edge, message: &str) -> String {
    edge.log().wait(message, |line| line.contains(message).then(|| line.to_owned()))
}

/// Waits until this holds of the octets that wait on disk.
#[track_caller]
fn wait_until(edge: &Edge, holds: impl Fn(u64) -> bool) {
    let start = Instant::now();
    loop {
        let text = scrape(edge);
        let value =
            text.lines().find_map(|line| line.strip_prefix("vestibule_buffered_bytes{where=\"disk\"} "));
        if holds(value.unwrap().parse().unwrap()) {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "{text}");
        std::thread::sleep(Duration::from_millis(10)); // between two looks
    }
}

fn scrape(edge: &Edge) -> String {
    let mut stream = UnixStream::connect(edge.folder().join("admin.sock")).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}
