//! What a person asks for: `certs renew`, `certs revoke`; and an account's key that is a year old.

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use nix::sys::signal::Signal;
use time::{Duration, OffsetDateTime};
use vestibule::acme::store::Store;

use super::pebble::{Options, Pebble};
use super::proxy::Fault;
use super::{NAME, certs, edge, record, said, wait_for_handshake};
use crate::support::PATIENCE;
use crate::support::edge::run;

#[test]
fn renewing_and_revoking() {
    let pebble = Pebble::start(Options::default());
    let edge = edge(&pebble, "");
    wait_for_handshake(&pebble, NAME, PATIENCE);
    let first = record(&edge, NAME)["bundle"]["key_pem"].clone();
    let (code, out, err) = certs(&edge, "renew", NAME);
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(out.contains("app.test has a new certificate, valid until "), "{out}");
    assert_eq!(pebble.proxy.orders(), 2);
    assert_ne!(record(&edge, NAME)["bundle"]["key_pem"], first, "each has a key of its own");
    let (code, out, err) = certs(&edge, "revoke", NAME);
    assert_eq!(code, Some(0), "{out}{err}");
    assert_eq!(pebble.proxy.seen("/revoke-cert").len(), 1);
    pebble.proxy.wait("/order-plz", 3);
    pebble.proxy.wait("renewalInfo", 2);
    let history = record(&edge, NAME)["history"].to_string();
    assert!(history.contains("revoked"), "{history}");
    // One that somebody else revoked, or whose revocation the CA has done and could not say, is as good as revoked.
    let problem = r#"{"type":"urn:ietf:params:acme:error:alreadyRevoked","detail":"it is"}"#;
    pebble.proxy.fault("/revoke-cert", 1, Fault::Answer(400, Vec::new(), problem.into()));
    let (code, out, err) = certs(&edge, "revoke", NAME);
    assert_eq!(code, Some(0), "{out}{err}");
    pebble.proxy.wait("/order-plz", 4);
}

#[test]
fn an_accounts_key_is_changed_after_a_year() {
    let pebble = Pebble::start(Options::default());
    let edge = edge(&pebble, "");
    wait_for_handshake(&pebble, NAME, PATIENCE);
    said(&edge, "the CA suggests when to renew");
    let store = Store::open(&edge.folder().join("store"), None).unwrap();
    let mut account = store.account(&pebble.directory()).unwrap().unwrap();
    let old = account.credentials.clone();
    account.created = OffsetDateTime::now_utc() - Duration::days(366);
    store.save_account(&pebble.directory(), &account).unwrap();
    let edge = edge.kill_and_start();
    let (code, out, err) = certs(&edge, "renew", NAME);
    assert_eq!(code, Some(0), "{out}{err}");
    said(&edge, "the account has a new key");
    assert_ne!(store.account(&pebble.directory()).unwrap().unwrap().credentials, old);
    // And the new one is good for the next start.
    let edge = edge.kill_and_start();
    assert_eq!(certs(&edge, "renew", NAME).0, Some(0));
    assert_eq!(pebble.proxy.seen("/sign-me-up").len(), 1);
}

#[test]
fn an_accounts_key_is_changed_when_a_person_asks() {
    let pebble = Pebble::start(Options::default());
    let edge = edge(&pebble, "");
    wait_for_handshake(&pebble, NAME, PATIENCE);
    let store = Store::open(&edge.folder().join("store"), None).unwrap();
    let old = store.account(&pebble.directory()).unwrap().unwrap().credentials;
    let file = edge.folder().join("vestibule.toml");
    let (code, out, err) = run(&["certs", "rekey", "--config", file.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{out}{err}");
    assert_eq!(out, format!("new keys for the accounts at 127.0.0.1:{}\n", pebble.proxy.port()));
    assert_eq!(pebble.proxy.seen("/rollover-account-key").len(), 1);
    assert_ne!(store.account(&pebble.directory()).unwrap().unwrap().credentials, old);
    // It is good for this process and for the next one.
    assert_eq!(certs(&edge, "renew", NAME).0, Some(0));
    let edge = edge.kill_and_start();
    assert_eq!(certs(&edge, "renew", NAME).0, Some(0));
    assert_eq!(pebble.proxy.seen("/sign-me-up").len(), 1);
}

/// A process that dies between the CA's change of the key and the disk leaves one that the CA does not know.
#[test]
fn an_account_whose_key_is_lost_is_made_again() {
    let pebble = Pebble::start(Options::default());
    let mut edge = edge(&pebble, "");
    wait_for_handshake(&pebble, NAME, PATIENCE);
    edge.signal(Signal::SIGKILL);
    edge.wait();
    let store = Store::open(&edge.folder().join("store"), None).unwrap();
    let mut account = store.account(&pebble.directory()).unwrap().unwrap();
    let other = rcgen::KeyPair::generate().unwrap().serialize_der();
    account.credentials["key_pkcs8"] = BASE64_URL_SAFE_NO_PAD.encode(other).into();
    store.save_account(&pebble.directory(), &account).unwrap();
    let edge = edge.kill_and_start();
    let (code, out, err) = certs(&edge, "renew", NAME);
    assert_eq!(code, Some(0), "{out}{err}");
    said(&edge, "the CA does not know the account; another is made");
    assert_eq!(pebble.proxy.orders(), 2);
}
