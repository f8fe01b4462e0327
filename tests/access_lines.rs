//! One access line a request, whatever became of it.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::observing::scrape;
use crate::support::PATIENCE;
use crate::support::client::{self, NAME, Wire, connect};
use crate::support::edge::{Edge, HTTP, HTTPS, ROWS};
use crate::support::h2client::H2Client;
use crate::support::upstream::{Then, Upstream};

#[test]
fn a_line_says_what_a_request_met() {
    let upstream = Upstream::echo();
    let edge = edge(&upstream);
    let answer = connect(&edge)
        .ask(format!(
            "POST /a%20b?c=d HTTP/1.1\r\nHost: {NAME}\r\nUser-Agent: \"me\"\r\nReferer: https://r/\r\nContent-Length: 5\r\n\r\nhello"
        ))
        .unwrap();
    let line = line(&edge, "/a%20b?c=d");
    for (name, value) in [
        ("client", json!("127.0.0.1")),
        ("method", json!("POST")),
        ("host", json!(NAME)),
        ("protocol", json!("HTTP/1.1")),
        ("status", json!(200)),
        ("request_bytes", json!(5)),
        ("response_bytes", json!(answer.body.len())),
        ("upstream", json!(upstream.address().to_string())),
        ("tls", json!("TLSv1.3")),
        ("request_id", json!(upstream.seen()[0].header("x-request-id").unwrap())),
        ("row", json!(HTTPS)),
        ("site", json!(NAME)),
        ("referer", json!("https://r/")),
        ("user_agent", json!("\"me\"")),
    ] {
        assert_eq!(line[name], value, "{name} in {line}");
    }
    for name in ["time", "cipher"] {
        assert!(line[name].is_string(), "{name} in {line}");
    }
    for name in ["connect_ms", "first_byte_ms", "total_ms"] {
        assert!(line[name].is_number(), "{name} in {line}");
    }
    assert_eq!(line.get("refused"), None, "{line}");
}

#[test]
fn a_line_says_why_a_request_was_refused() {
    let upstream = Upstream::echo();
    let edge = edge(&upstream);
    for (request, status, why) in [
        ("TRACE /trace HTTP/1.1\r\nHost: app.localhost\r\n\r\n", 405, "method"),
        ("GET /elsewhere HTTP/1.1\r\nHost: other.localhost\r\n\r\n", 421, "misdirected"),
        ("GET /office/x HTTP/1.1\r\nHost: app.localhost\r\n\r\n", 403, "forbidden"),
        ("GET /dots/../x HTTP/1.1\r\nHost: app.localhost\r\n\r\n", 400, "bad_request"),
        ("GET /dead/x HTTP/1.1\r\nHost: app.localhost\r\n\r\n", 502, "unreachable"),
        (
            "POST /much HTTP/1.1\r\nHost: app.localhost\r\nContent-Length: 9999999999\r\n\r\n",
            413,
            "body_too_large",
        ),
    ] {
        let path = request.split(' ').nth(1).unwrap();
        assert_eq!(connect(&edge).ask(request).unwrap().status, status, "{request}");
        let line = line(&edge, path);
        assert_eq!((&line["status"], &line["refused"]), (&json!(status), &json!(why)), "{line}");
    }
    let mark = edge.mark();
    assert_eq!(connect(&edge).ask("GET /head HTTP/1.1\r\nBad Name: x\r\n\r\n").unwrap().status, 400);
    let line = edge.access_line(mark, "a line for what could not be read", |_| true);
    assert_eq!((&line["status"], &line["refused"]), (&json!(400), &json!("bad_request")), "{line}");
}

#[test]
fn redirects_and_http_2_have_their_lines_too() {
    let upstream = Upstream::echo();
    let edge = edge(&upstream);
    let mut wire = Wire::new(client::tcp(edge.address(HTTP)).unwrap());
    wire.ask(format!("GET /plain HTTP/1.1\r\nHost: {NAME}\r\n\r\n")).unwrap();
    let plain = line(&edge, "/plain");
    assert_eq!(
        (&plain["status"], &plain["row"], plain.get("tls")),
        (&json!(308), &json!(HTTP), None),
        "{plain}"
    );
    let mut client = H2Client::connect(edge.https(), &edge.ca(), NAME).unwrap();
    client.ask(Request::get(format!("https://{NAME}/two")).body(()).unwrap(), Bytes::new()).unwrap();
    let two = line(&edge, "/two");
    assert_eq!((&two["status"], &two["protocol"]), (&json!(200), &json!("HTTP/2.0")), "{two}");
}

#[test]
fn a_client_that_left_has_a_line() {
    let upstream = Upstream::start(|_, stream| {
        write!(stream, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        while stream.write_all(b"4\r\nmore\r\n").is_ok() {}
        Ok(Then::Close)
    });
    let edge = edge(&upstream);
    let mut client = connect(&edge);
    client.send(format!("GET /left HTTP/1.1\r\nHost: {NAME}\r\n\r\n")).unwrap();
    client.exactly(1000).unwrap();
    client.vanish();
    let line = line(&edge, "/left");
    assert!(line["refused"] == "client_gone" || line["status"] == 499, "{line}");
}

/// What a client writes cannot forge a line of its own.
#[test]
fn a_line_stays_one_line() {
    let upstream = Upstream::echo();
    let edge = edge(&upstream);
    let agent = "x\\n{\\\"status\\\":200}\u{2028}\t\"}";
    connect(&edge)
        .ask(format!("GET /forged HTTP/1.1\r\nHost: {NAME}\r\nUser-Agent: {agent}\r\n\r\n"))
        .unwrap();
    assert_eq!(line(&edge, "/forged")["user_agent"], agent);
}

#[test]
fn usr1_opens_the_file_again() {
    let upstream = Upstream::echo();
    let folder = tempfile::tempdir().unwrap();
    let (log, old) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
    let mut edge = Edge::start(&format!(
        "{ROWS}\n[log]\naccess = \"{}\"\n\n[[site]]\ndomains = [\"{NAME}\"]\nupstream = \"{}\"\n\
         certificate = \"internal\"\n",
        log.display(),
        upstream.address()
    ));
    connect(&edge).get("/before").unwrap();
    wait_for(&log, "/before");
    fs::rename(&log, &old).unwrap();
    let mark = edge.log().mark();
    edge.signal(Signal::SIGUSR1);
    edge.log().wait_from(mark, "opened again", |line| line.contains("opened again").then_some(()));
    connect(&edge).get("/after").unwrap();
    edge.signal(Signal::SIGTERM); // every line is written by the time that the process has left
    assert!(edge.wait().success());
    let (old, new) = (fs::read_to_string(old).unwrap(), fs::read_to_string(log).unwrap());
    assert!(old.contains("/before") && !old.contains("/after"), "{old}");
    assert!(new.contains("/after") && !new.contains("/before"), "{new}");
}

/// A full disk costs lines, which are counted, and nothing else; once there is room, lines are written again.
#[test]
fn a_full_disk_costs_lines_and_no_request() {
    let upstream = Upstream::echo();
    let small = tempfile::tempdir().unwrap();
    let at = small.path().display();
    let script = format!("mount -t tmpfs -o size=64k none {at} && exec \"$@\"");
    let config = format!(
        "{ROWS}\n[log]\nformat = \"json\"\naccess = \"{at}/access.log\"\n\n[[site]]\ndomains = [\"{NAME}\"]\n\
         upstream = \"{}\"\ncertificate = \"internal\"\n",
        upstream.address()
    );
    let edge = Edge::start_behind(&["unshare", "-Urm", "sh", "-c", &script, "sh"], &config);
    // The disk as the edge sees it.
    let disk = PathBuf::from(format!("/proc/{}/root{at}", edge.pid()));
    let (log, ballast) = (disk.join("access.log"), disk.join("ballast"));
    let mut client = connect(&edge);
    let mut asked = 0;
    let mut ask = |path: &str| {
        assert_eq!(client.get(path).unwrap().status, 200, "{path}");
        asked += 1;
        asked
    };
    ask("/before");
    wait_for(&log, "/before");
    for round in 1..=2 {
        assert!(fs::write(&ballast, vec![7; 1 << 20]).is_err(), "the disk is not full");
        // What is left of the file's last page takes some lines yet.
        let before = dropped(&edge);
        while dropped(&edge) < before + 20 {
            ask("/meanwhile");
        }
        fs::remove_file(&ballast).unwrap();
        let after = format!("/after-{round}");
        ask(&after);
        wait_for(&log, &after);
    }
    let asked = ask("/end");
    wait_for(&log, "/end");
    let text = fs::read_to_string(&log).unwrap();
    let (whole, cut): (Vec<_>, Vec<_>) =
        text.lines().partition(|line| serde_json::from_str::<Value>(line).is_ok());
    // A line that lost no more than its end counts as dropped, though it is there.
    let told = u64::try_from(whole.len()).unwrap() + dropped(&edge);
    assert!((asked..=asked + 2).contains(&told) && cut.len() <= 2, "{told} of {asked} lines; cut: {cut:?}");
    let mut times = 0;
    edge.log().wait("the second end of it", |line| {
        times += usize::from(line.contains("access lines are written again"));
        (times == 2).then_some(())
    });
    let told = edge.log().all();
    let count = |what: &str| told.lines().filter(|line| line.contains(what)).count();
    assert_eq!(count("access lines cannot be written and are dropped"), 2, "once each time:\n{told}");
    assert_eq!(count("access lines are written again"), 2, "{told}");
    assert!(told.contains("No space left on device") && told.contains(&format!("{at}/access.log")), "{told}");
}

/// How many lines the edge says that it has dropped.
fn dropped(edge: &Edge) -> u64 {
    let text = scrape(edge, "*/*");
    let mut lines = text.lines();
    lines
        .find_map(|line| line.strip_prefix("vestibule_access_lines_dropped_total "))
        .unwrap()
        .parse()
        .unwrap()
}

/// Lines are written off the hot path, a moment later.
fn wait_for(log: &Path, text: &str) {
    let deadline = Instant::now() + PATIENCE;
    while !fs::read_to_string(log).unwrap().contains(text) {
        assert!(Instant::now() < deadline, "{text} does not come into {}", log.display());
        std::thread::sleep(Duration::from_millis(5)); // a file tells nobody that it grew
    }
}

fn edge(upstream: &Upstream) -> Edge {
    let at = upstream.address();
    Edge::start(&format!(
        r#"{ROWS}
[sources]
office = ["203.0.113.0/24"]

[[site]]
domains = ["{NAME}"]
upstream = "{at}"
certificate = "internal"
  [site.proxy]
  hold = "0s"
  [[site.route]]
  path = "/office/"
  upstream = "{at}"
  allow = ["office"]
  [[site.route]]
  path = "/dead/"
  upstream = "127.0.0.1:1"

[[site]]
domains = ["other.localhost"]
upstream = "{at}"
certificate = "internal"
"#
    ))
}

fn line(edge: &Edge, path: &str) -> Value {
    edge.access_line(0, path, |line| line["path"] == path)
}
