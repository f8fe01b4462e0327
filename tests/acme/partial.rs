//! One of several names of a certificate fails.

use time::{Duration, OffsetDateTime};
use vestibule::acme::store::Record;

use super::pebble::{Options, Pebble};
use super::proxy::{FINALIZE, Fault, NEW_ORDER};
use super::{NAME, alter, certs, config, handshake, hurry, record, said, wait_for_handshake};
use crate::support::PATIENCE;
use crate::support::edge::{Edge, run};

const LOST: &str = "lost.test";
const BOTH: &str = "app.test lost.test";

/// One site with both names.
fn start(pebble: &Pebble) -> Edge {
    let text = config(pebble, "", &[NAME]).replace("[\"app.test\"]", "[\"app.test\", \"lost.test\"]");
    Edge::start(&text)
}

/// The refused name's next try is due.
fn join(record: &mut Record) {
    record.refused.as_mut().unwrap().not_before = OffsetDateTime::now_utc();
}

fn leaf(pebble: &Pebble, name: &str) -> Vec<u8> {
    handshake(pebble, &pebble.issuing_root(), name).unwrap()
}

pub(super) fn list(edge: &Edge) -> String {
    let file = edge.folder().join("vestibule.toml");
    run(&["certs", "list", "--config", file.to_str().unwrap()]).1
}

#[test]
fn the_good_names_get_theirs_and_the_other_joins_later() {
    let pebble = Pebble::start(Options::default());
    pebble.lose(LOST, true);
    let edge = start(&pebble);
    let failure = said(&edge, "no certificate was obtained")["failure"].to_string();
    assert!(failure.contains("lost.test: ") && !failure.contains("app.test: "), "{failure}");
    assert_eq!(pebble.proxy.orders(), 2, "one by each method, and nothing more before the ladder's step");
    let edge = hurry(edge, BOTH);
    wait_for_handshake(&pebble, NAME, PATIENCE);
    let line = said(&edge, "a certificate is without names that were refused");
    assert!(line["names"].as_str().unwrap().starts_with("lost.test: "), "{line}");
    assert!(handshake(&pebble, &pebble.issuing_root(), LOST).is_err(), "refused alone");
    assert_eq!(record(&edge, NAME)["bundle"]["lacks"], serde_json::json!([LOST]));
    let text = list(&edge);
    assert!(text.contains("\n  ! lost.test: ") && text.contains("1 certificate: 1 failing"), "{text}");
    assert!(text.contains(": names that were refused\n"), "{text}");
    let page = certs(&edge, "show", LOST).1;
    assert!(page.contains("\nwithout       lost.test\n"), "{page}");
    assert_eq!(pebble.proxy.orders(), 3);
    // With it again: the CA still does not find it.
    let edge = alter(edge, BOTH, join);
    let line = said(&edge, "names that were refused stay without a certificate");
    assert_eq!((&line["failures"], &line["names"]), (&2.into(), &"app.test, lost.test".into()));
    wait_for_handshake(&pebble, NAME, PATIENCE);
    assert_eq!(pebble.proxy.orders(), 4);
    let retry = record(&edge, NAME)["retry"].clone();
    assert_eq!(retry["failures"], 0, "what there is, is as good as it gets");
    pebble.lose(LOST, false);
    let edge = alter(edge, BOTH, join);
    wait_for_handshake(&pebble, LOST, PATIENCE);
    assert_eq!(leaf(&pebble, NAME), leaf(&pebble, LOST));
    let text = list(&edge);
    assert!(text.ends_with("\n1 certificate: all in order\n"), "{text}");
    let record = record(&edge, NAME);
    assert!(record["refused"].is_null() && record["bundle"]["lacks"] == serde_json::json!([]), "{record}");
    assert_eq!((pebble.proxy.orders(), pebble.proxy.seen(NEW_ORDER).len()), (5, 5));
}

/// As where CAA is looked at once more before a certificate is signed (RFC 8555 section 6.7.1).
#[test]
fn a_name_that_is_refused_at_the_end_keeps_no_other_waiting() {
    let pebble = Pebble::start(Options::default());
    let body = r#"{"type": "urn:ietf:params:acme:error:caa", "detail": "one of them", "subproblems": [{
        "type": "urn:ietf:params:acme:error:caa", "detail": "CAA of lost.test forbids it",
        "identifier": {"type": "dns", "value": "lost.test"}}]}"#;
    let problem = vec![("content-type", "application/problem+json".to_owned())];
    pebble.proxy.fault(FINALIZE, 2, Fault::Answer(403, problem, body.into()));
    let edge = start(&pebble);
    let failure = said(&edge, "no certificate was obtained")["failure"].to_string();
    assert!(failure.contains("lost.test: CAA of lost.test forbids it"), "{failure}");
    let edge = hurry(edge, BOTH);
    wait_for_handshake(&pebble, NAME, PATIENCE);
    assert_eq!(record(&edge, NAME)["bundle"]["lacks"], serde_json::json!([LOST]));
}

#[test]
fn a_certificate_for_more_names_stays() {
    let pebble = Pebble::start(Options::default());
    let edge = start(&pebble);
    wait_for_handshake(&pebble, LOST, PATIENCE);
    let first = leaf(&pebble, NAME);
    pebble.lose(LOST, true);
    // The same certificate, at another moment of its life.
    let at = |left: f64| {
        move |record: &mut Record| {
            let (life, now) = (Duration::days(90), OffsetDateTime::now_utc());
            let bundle = record.bundle.as_mut().unwrap();
            (bundle.not_after, bundle.not_before) = (now + life * left, now + life * left - life);
            record.ari = None;
            record.retry.not_before = None;
        }
    };
    // An opinion of the CA's own would come before the age.
    let nothing = Fault::Answer(404, Vec::new(), String::new());
    pebble.proxy.fault(super::proxy::RENEWAL, 99, nothing);
    let mut edge = alter(edge, BOTH, at(0.3));
    for tries in 1..3 {
        said(&edge, "no certificate was obtained");
        wait_for_handshake(&pebble, LOST, PATIENCE);
        let kept = record(&edge, NAME);
        assert_eq!((&kept["retry"]["failures"], &kept["refused"]["tries"]), (&tries.into(), &tries.into()));
        assert_eq!((leaf(&pebble, NAME), leaf(&pebble, LOST)), (first.clone(), first.clone()));
        edge = alter(edge, BOTH, at(if tries == 1 { 0.2 } else { 0.1 }));
    }
    said(&edge, "a certificate is without names that were refused");
    for _ in 0..2 {
        wait_for_handshake(&pebble, LOST, PATIENCE);
        assert_ne!(leaf(&pebble, NAME), first);
        assert_eq!(leaf(&pebble, LOST), first, "what is good for it stays");
        edge = edge.kill_and_start();
    }
    pebble.lose(LOST, false);
    let edge = alter(edge, BOTH, join);
    said(&edge, "a certificate was obtained and is in use");
    assert_eq!(leaf(&pebble, NAME), leaf(&pebble, LOST));
    assert!(record(&edge, NAME)["spare"].is_null());
}
