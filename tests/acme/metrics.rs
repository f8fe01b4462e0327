//! What Prometheus reads of certificates from a running edge.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::pebble::{Options, Pebble};
use super::proxy::{Fault, NEW_ORDER};
use super::{NAME, certs, config, edge, record, said};
use crate::support::PATIENCE;
use crate::support::edge::Edge;

const OTHER: &str = "other.test";

/// The value of a certificate's gauge, now.
fn gauge(edge: &Edge, what: &str, name: &str) -> Option<i64> {
    let mut stream = UnixStream::connect(edge.folder().join("admin.sock")).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let sample = format!("vestibule_certificate_{what}{{certificate=\"{name}\",source=\"acme\"}} ");
    let value = text.lines().find_map(|line| line.strip_prefix(&sample))?;
    Some(value.parse().unwrap_or_else(|_| panic!("{what}: {value}")))
}

/// Waits until a gauge says so: what is read of the store is believed for some seconds.
#[track_caller]
fn wait_for(edge: &Edge, what: &str, name: &str, fits: impl Fn(i64) -> bool) {
    let begin = Instant::now();
    loop {
        let value = gauge(edge, what, name);
        if value.is_some_and(&fits) {
            return;
        }
        assert!(begin.elapsed() < PATIENCE, "{what} of {name} is {value:?}");
        std::thread::sleep(Duration::from_millis(50)); // a scrape is an answer to a question
    }
}

#[track_caller]
pub(super) fn is(edge: &Edge, what: &str, name: &str, expected: i64) {
    wait_for(edge, what, name, |value| value == expected);
}

fn unix(value: &serde_json::Value) -> i64 {
    OffsetDateTime::parse(value.as_str().unwrap(), &Rfc3339).unwrap().unix_timestamp()
}

#[test]
fn after_a_success_and_after_a_failure() {
    let pebble = Pebble::start(Options::default());
    let edge = edge(&pebble, "");
    said(&edge, "the CA suggests when to renew");
    is(&edge, "last_attempt_successful", NAME, 1);
    wait_for(&edge, "next_attempt_timestamp_seconds", NAME, |at| {
        record(&edge, NAME)["ari"]["chosen"]
            .as_str()
            .is_some_and(|_| at == unix(&record(&edge, NAME)["ari"]["chosen"]))
    });
    let bundle = record(&edge, NAME)["bundle"].clone();
    is(&edge, "not_after_timestamp_seconds", NAME, unix(&bundle["not_after"]));
    is(&edge, "not_before_timestamp_seconds", NAME, unix(&bundle["not_before"]));
    is(&edge, "failed_attempts", NAME, 0);
    is(&edge, "names_lacking", NAME, 0);
    // One that is asked for and fails: what is in use stays as it was.
    let problem = r#"{"type":"urn:ietf:params:acme:error:rejectedIdentifier","detail":"no"}"#;
    pebble.proxy.fault(NEW_ORDER, 1, Fault::Answer(400, Vec::new(), problem.into()));
    assert_eq!(certs(&edge, "renew", NAME).0, Some(2));
    is(&edge, "last_attempt_successful", NAME, 0);
    is(&edge, "failed_attempts", NAME, 1);
    is(&edge, "not_after_timestamp_seconds", NAME, unix(&bundle["not_after"]));
}

#[test]
fn during_a_wait() {
    let pebble = Pebble::start(Options::default());
    let (headers, hour) =
        (vec![("retry-after", "3600".to_owned())], OffsetDateTime::now_utc().unix_timestamp() + 3600);
    let problem = r#"{"type":"urn:ietf:params:acme:error:rateLimited","detail":"too many orders"}"#;
    pebble.proxy.fault(NEW_ORDER, 99, Fault::Answer(429, headers, problem.into()));
    let edge = edge(&pebble, "");
    said(&edge, "no certificate was obtained");
    is(&edge, "not_after_timestamp_seconds", NAME, 0);
    is(&edge, "last_attempt_successful", NAME, 0);
    is(&edge, "failed_attempts", NAME, 1);
    is(&edge, "next_attempt_timestamp_seconds", NAME, unix(&record(&edge, NAME)["retry"]["not_before"]));
    assert_eq!(gauge(&edge, "not_before_timestamp_seconds", NAME), None);
    // Another name waits for the same CA, without having failed.
    edge.write_config(&config(&pebble, "", &[NAME, OTHER]));
    assert!(edge.reload());
    said(&edge, "the CA's limits leave no room for an order before then");
    wait_for(&edge, "next_attempt_timestamp_seconds", OTHER, |at| (hour..hour + 60).contains(&at));
    is(&edge, "last_attempt_successful", OTHER, 1);
    is(&edge, "failed_attempts", OTHER, 0);
    assert_eq!(pebble.proxy.seen(NEW_ORDER).len(), 1);
}
