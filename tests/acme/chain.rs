//! Chains other than the CA's first, and what changes about an account.

use std::fs;
use std::time::{Duration, Instant};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::pebble::{Options, Pebble};
use super::proxy::{Fault, NEW_ACCOUNT};
use super::{NAME, config, edge, handshake, record, said, wait_for_handshake};
use crate::support::PATIENCE;
use crate::support::edge::Edge;

/// Where pebble has its other chains.
const ALTERNATE: &str = "/alternate/";

/// The common names of the issuer of the last certificate of a chain.
fn leads_to(pem: &str) -> String {
    let last = CertificateDer::pem_slice_iter(pem.as_bytes()).last().unwrap().unwrap();
    let (_, last) = X509Certificate::from_der(&last).unwrap();
    last.issuer().iter_common_name().next().unwrap().as_str().unwrap().to_owned()
}

fn root(pebble: &Pebble, index: usize) -> String {
    leads_to(&pebble.root(index))
}

fn stored(edge: &Edge) -> String {
    leads_to(record(edge, NAME)["bundle"]["chain_pem"].as_str().unwrap())
}

#[test]
fn the_chain_that_leads_to_the_preferred_root_is_served() {
    let pebble = Pebble::start(Options::default());
    let wanted = root(&pebble, 1);
    assert_ne!(wanted, root(&pebble, 0));
    let edge = edge(&pebble, &format!("preferred_chain = \"{wanted}\""));
    pebble.proxy.wait(ALTERNATE, 1);
    said(&edge, "the chain that leads to the preferred root is taken");
    assert_eq!(stored(&edge), wanted);
    let roots = pebble.folder.path().join("preferred.pem");
    fs::write(&roots, pebble.root(1)).unwrap();
    let start = Instant::now();
    while handshake(&pebble, &roots, NAME).is_err() {
        assert!(start.elapsed() < PATIENCE, "no handshake leads to the preferred root");
        std::thread::sleep(Duration::from_millis(5)); // the edge tells nobody outside
    }
    assert_eq!(pebble.proxy.orders(), 1);
}

#[test]
fn trouble_with_another_chain_costs_no_certificate() {
    for fault in [
        Fault::Answer(404, Vec::new(), "<html>".into()),
        Fault::Answer(200, Vec::new(), "no chain".into()),
        Fault::Answer(200, Vec::new(), "{}".into()),
    ] {
        let pebble = Pebble::start(Options::default());
        pebble.proxy.fault(ALTERNATE, 99, fault);
        let edge = edge(&pebble, &format!("preferred_chain = \"{}\"", root(&pebble, 1)));
        wait_for_handshake(&pebble, NAME, PATIENCE);
        said(&edge, "the CA has no chain that leads to the preferred root; its first one stays");
        assert_eq!(stored(&edge), root(&pebble, 0));
        assert_eq!(pebble.proxy.orders(), 1);
    }
}

#[test]
fn no_chain_is_fetched_that_nobody_prefers() {
    let pebble = Pebble::start(Options::default());
    let first = edge(&pebble, &format!("preferred_chain = \"{}\"", root(&pebble, 0)));
    wait_for_handshake(&pebble, NAME, PATIENCE);
    drop(first);
    let edge = edge(&pebble, "");
    wait_for_handshake(&pebble, NAME, PATIENCE);
    assert!(pebble.proxy.seen(ALTERNATE).is_empty());
    drop(edge);
}

#[test]
fn an_address_that_changed_is_told_to_the_ca() {
    let pebble = Pebble::start(Options::default());
    let text = config(&pebble, "", &[NAME]);
    let edge = Edge::start(&text);
    wait_for_handshake(&pebble, NAME, PATIENCE);
    let more = config(&pebble, "", &[NAME, "new.test"]).replace("ops@example.com", "new@example.com");
    edge.write_config(&more);
    assert!(edge.reload());
    wait_for_handshake(&pebble, "new.test", PATIENCE);
    let told = pebble.proxy.seen("/my-account/");
    let told: Vec<_> = told.iter().map(|seen| (seen.status, seen.payload["contact"].to_string())).collect();
    assert_eq!(told, [(200, "[\"mailto:new@example.com\"]".to_owned())]);
    assert_eq!(pebble.proxy.seen(NEW_ACCOUNT).len(), 1, "the account is the same");
}
