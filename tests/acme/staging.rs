//! A CA that has a directory for trying: after a failure it is asked first. A second pebble stands for it.

use std::fs;

use super::pebble::{Options, Pebble};
use super::proxy::{Fault, NEW_ORDER};
use super::{NAME, config, hurry, said, wait_for_handshake};
use crate::support::PATIENCE;
use crate::support::edge::Edge;

/// An edge whose CA refuses the first order, once it did.
fn failed(ca: &Pebble, staging: &Pebble, refusals: usize) -> Edge {
    let problem = r#"{"type":"urn:ietf:params:acme:error:rejectedIdentifier","detail":"no"}"#;
    ca.proxy.fault(NEW_ORDER, refusals, Fault::Answer(400, Vec::new(), problem.into()));
    let roots = ca.folder.path().join("both.pem");
    fs::write(&roots, [ca, staging].map(|own| fs::read_to_string(own.ca_root()).unwrap()).concat()).unwrap();
    let text = config(ca, &format!("staging = \"{}\"", staging.directory()), &[NAME]);
    let edge = Edge::start(&text.replace(&ca.ca_root().display().to_string(), &roots.display().to_string()));
    said(&edge, "no certificate was obtained");
    assert_eq!(staging.proxy.orders(), 0, "not before a failure");
    edge
}

#[test]
fn after_a_failure_it_is_tried_first() {
    let ca = Pebble::start(Options::default());
    let staging = Pebble::start(Options { trusting: true, ..Options::default() });
    let edge = hurry(failed(&ca, &staging, 1), NAME);
    wait_for_handshake(&ca, NAME, PATIENCE);
    said(&edge, "the rehearsal went well");
    let (first, last) = (&staging.proxy.seen(NEW_ORDER)[0], &ca.proxy.seen(NEW_ORDER)[1]);
    assert!(first.at < last.at);
    assert_eq!((staging.proxy.orders(), ca.proxy.orders()), (1, 1));
    // What it issued is nowhere in use, and the next renewal needs no rehearsal.
    let (code, out, err) = super::certs(&edge, "renew", NAME);
    assert_eq!(code, Some(0), "{out}{err}");
    assert_eq!((staging.proxy.orders(), ca.proxy.orders()), (1, 2));
}

#[test]
fn a_name_that_fails_there_costs_nothing_at_the_ca() {
    let ca = Pebble::start(Options::default());
    let staging = Pebble::start(Options { blocked: NAME, ..Options::default() });
    let edge = hurry(failed(&ca, &staging, 1), NAME);
    let line = said(&edge, "no certificate was obtained");
    let at = format!(", at 127.0.0.1:{}", staging.proxy.port());
    assert!(line["failure"].as_str().unwrap().ends_with(&at), "{line}");
    assert_eq!((&line["failures"], ca.proxy.seen(NEW_ORDER).len()), (&2.into(), 1));
}

#[test]
fn trouble_of_its_own_keeps_nobody_from_the_ca() {
    let ca = Pebble::start(Options::default());
    let mut staging = Pebble::start(Options::default());
    let edge = failed(&ca, &staging, 1);
    staging.end();
    let edge = hurry(edge, NAME);
    wait_for_handshake(&ca, NAME, PATIENCE);
    said(&edge, "no rehearsal is possible; the CA itself is asked");
    assert_eq!(ca.proxy.orders(), 1);
}
