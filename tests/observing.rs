//! Metrics: what a scrape says after requests, refusals and reloads.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::PATIENCE;
use crate::support::client::{self, NAME, connect};
use crate::support::edge::{Edge, HTTPS, ROWS};
use crate::support::upstream::Upstream;

#[test]
fn what_happened_is_counted() {
    let upstream = Upstream::echo();
    let edge = edge(&upstream);
    for path in ["/", "/a", "/admin/x"] {
        connect(&edge).get(path).unwrap();
    }
    connect(&edge).get("/old/").unwrap();
    let refused = client::tls(edge.https(), &edge.ca(), "nobody.localhost", &[b"http/1.1"]);
    assert!(refused.is_err());
    let closed = format!("vestibule_connections_open{{row=\"{HTTPS}\"}} 0");
    let text = scrape_until(&edge, &closed);
    for sample in [
        format!("vestibule_requests_total{{site=\"{NAME}\",route=\"/\",status=\"200\"}} 2"),
        format!("vestibule_requests_total{{site=\"{NAME}\",route=\"/admin/\",status=\"403\"}} 1"),
        format!("vestibule_requests_total{{site=\"{NAME}\",route=\"/old/\",status=\"308\"}} 1"),
        format!("vestibule_request_duration_seconds_count{{site=\"{NAME}\"}} 4"),
        format!("vestibule_upstream_duration_seconds_count{{site=\"{NAME}\"}} 2"),
        "vestibule_request_faults_total{reason=\"forbidden\"} 1".to_owned(),
        "vestibule_tls_handshake_failures_total{reason=\"unknown_name\"} 1".to_owned(),
        format!("vestibule_connections_total{{row=\"{HTTPS}\"}} 5"),
        "vestibule_requests_in_flight 0".to_owned(),
        "vestibule_buffered_bytes{where=\"memory\"} 0".to_owned(),
        "vestibule_buffered_bytes{where=\"disk\"} 0".to_owned(),
        "vestibule_reloads_total{result=\"ok\"} 0".to_owned(),
        "vestibule_config_last_reload_successful 1".to_owned(),
    ] {
        assert!(text.lines().any(|line| line == sample), "{sample}\n{text}");
    }
    for begins in [
        "vestibule_tls_handshakes_total{version=\"TLSv1.3\",",
        &format!(
            "vestibule_certificate_not_after_timestamp_seconds{{certificate=\"{NAME}\",source=\"internal\"}} 1"
        ),
        "process_resident_memory_bytes ",
        "vestibule_build_info{version=\"",
    ] {
        assert!(text.lines().any(|line| line.starts_with(begins)), "{begins}\n{text}");
    }
}

#[test]
fn reloads_are_counted_and_counts_outlive_them() {
    let upstream = Upstream::echo();
    let edge = edge(&upstream);
    connect(&edge).get("/").unwrap();
    edge.write_config("[[site]]\nno = 1\n");
    assert!(!edge.reload());
    let text = scrape(&edge, "*/*");
    assert!(text.contains("vestibule_reloads_total{result=\"failed\"} 1\n"), "{text}");
    assert!(text.contains("vestibule_config_last_reload_successful 0\n"), "{text}");
    edge.write_config(&config(&upstream));
    assert!(edge.reload());
    connect(&edge).get("/").unwrap();
    let text = scrape_until(
        &edge,
        &format!("vestibule_requests_total{{site=\"{NAME}\",route=\"/\",status=\"200\"}} 2"),
    );
    assert!(text.contains("vestibule_config_last_reload_successful 1\n"), "{text}");
}

/// Hosts, paths and methods of a client's own are in no label.
#[test]
fn a_client_cannot_make_labels() {
    let upstream = Upstream::echo();
    let edge = edge(&upstream);
    for n in 0..20 {
        let request = format!("GET /made-up-{n} HTTP/1.1\r\nHost: made-up-{n}.localhost\r\n\r\n");
        assert_eq!(connect(&edge).ask(request).unwrap().status, 421);
        let request = format!("MADEUP{n} /made-up-{n} HTTP/1.1\r\nHost: {NAME}\r\n\r\n");
        connect(&edge).ask(request).unwrap();
    }
    let text = scrape_until(&edge, "vestibule_requests_total{site=\"\",route=\"\",status=\"421\"} 20");
    assert!(!text.to_ascii_lowercase().contains("made"), "{text}");
}

#[test]
fn openmetrics_for_whoever_asks() {
    let upstream = Upstream::echo();
    let edge = edge(&upstream);
    let text = scrape(&edge, "application/openmetrics-text;version=1.0.0,text/plain;q=0.5");
    assert!(
        text.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n"),
        "{text}"
    );
    assert!(text.ends_with("# EOF\n"), "{text}");
}

fn edge(upstream: &Upstream) -> Edge {
    Edge::start(&config(upstream))
}

fn config(upstream: &Upstream) -> String {
    let at = upstream.address();
    format!(
        r#"{ROWS}
[sources]
office = ["203.0.113.0/24"]

[[site]]
domains = ["{NAME}"]
upstream = "{at}"
certificate = "internal"
  [[site.route]]
  path = "/admin/"
  allow = ["office"]
  [[site.route]]
  path = "/old/"
  redirect = {{ to = "/new/", status = 308 }}
"#
    )
}

/// Scrapes until this sample is among the lines: a request is counted a moment after its client has the answer.
#[track_caller]
fn scrape_until(edge: &Edge, sample: &str) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let text = scrape(edge, "*/*");
        if text.lines().any(|line| line == sample) {
            return text;
        }
        assert!(Instant::now() < deadline, "{sample}\n{text}");
        std::thread::sleep(Duration::from_millis(5)); // nobody is told when a counter moves
    }
}

/// What the admin socket answers, head and all.
pub(crate) fn scrape(edge: &Edge, accept: &str) -> String {
    ask(
        &edge.folder().join("admin.sock"),
        &format!("GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\n"),
    )
}

fn ask(socket: &Path, request: &str) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "{request}Connection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
