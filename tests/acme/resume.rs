//! Killed at any point once the order exists: the same order goes on, with the same key.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::pebble::{Options, Pebble};
use super::proxy::{AUTHORIZATION, CERTIFICATE, CHALLENGE, FINALIZE, Fault, NEW_ORDER};
use super::{NAME, config, edge, record, record_path, said, wait_for_handshake};
use crate::support::PATIENCE;
use crate::support::edge::Edge;

#[test]
fn the_order_is_taken_up_again() {
    for (point, fault) in [
        (AUTHORIZATION, Fault::Hang),
        (AUTHORIZATION, Fault::Swallow),
        (CHALLENGE, Fault::Hang),
        (CHALLENGE, Fault::Swallow),
        (FINALIZE, Fault::Hang),
        (FINALIZE, Fault::Swallow),
        ("/my-order/", Fault::Hang),
        ("/my-order/", Fault::Swallow),
        (CERTIFICATE, Fault::Hang),
        (CERTIFICATE, Fault::Swallow),
    ] {
        let pebble = Pebble::start(Options::default());
        pebble.proxy.fault(point, 1, fault.clone());
        let edge = edge(&pebble, "");
        pebble.proxy.wait(point, 1);
        if point == CHALLENGE && matches!(fault, Fault::Swallow) {
            // Told, the CA looks; were the edge dead by then, the order would be lost with the name's proof.
            edge.access_line(0, "the CA's look", |line| line["status"] == 200);
        }
        let pending = record(&edge, NAME)["order"].clone();
        assert!(pending["url"].is_string() && pending["key_pem"].is_string(), "{point}");
        pebble.proxy.behave();
        let edge = edge.kill_and_start();
        wait_for_handshake(&pebble, NAME, PATIENCE);
        assert_eq!(pebble.proxy.seen(NEW_ORDER).len(), 1, "{point} {fault:?}");
        said(&edge, "an order is taken up again");
        assert_eq!(record(&edge, NAME)["bundle"]["key_pem"], pending["key_pem"], "{point}");
    }
}

#[test]
fn an_order_that_the_ca_has_forgotten_is_made_again() {
    let mut pebble = Pebble::start(Options::default());
    pebble.proxy.fault(FINALIZE, 1, Fault::Hang);
    let edge = edge(&pebble, "");
    pebble.proxy.wait(FINALIZE, 1);
    pebble.proxy.behave();
    pebble.begin();
    let edge = edge.kill_and_start();
    wait_for_handshake(&pebble, NAME, PATIENCE);
    assert_eq!(pebble.proxy.orders(), 2);
    drop(edge);
}

#[test]
fn a_damaged_record_is_set_aside_and_the_one_before_it_is_served() {
    let pebble = Pebble::start(Options::default());
    let edge = edge(&pebble, "");
    // The window is written behind the certificate: two generations have it then.
    said(&edge, "the CA suggests when to renew");
    while record(&edge, NAME)["ari"].is_null() {
        std::thread::sleep(std::time::Duration::from_millis(5)); // written right behind the line
    }
    let path = record_path(&edge, NAME);
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let edge = edge.kill_and_start();
    wait_for_handshake(&pebble, NAME, PATIENCE);
    assert_eq!(pebble.proxy.orders(), 1);
    // Both generations: one order more.
    for (path, text) in [(&path, "{"), (&path.with_extension("json.previous"), "")] {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }
    let edge = edge.kill_and_start();
    wait_for_handshake(&pebble, NAME, PATIENCE);
    assert_eq!(pebble.proxy.orders(), 2);
    drop(edge);
}

#[test]
fn of_two_edges_one_orders() {
    let pebble = Pebble::start(Options { trusting: true, ..Options::default() });
    let own = config(&pebble, "", &[NAME]);
    let store = tempfile::tempdir().unwrap();
    let store = format!("[store]\npath = \"{}/store\"\n", store.path().display());
    let first = Edge::start(&format!("{own}{store}"));
    let elsewhere = own.replace(&format!(":{}\"", pebble.ports.http), ":0\"");
    let elsewhere = elsewhere.replace(&format!("127.0.0.1:{}\"", pebble.ports.https), "127.0.0.2:0\"");
    let second = Edge::start(&format!("{elsewhere}{store}"));
    wait_for_handshake(&pebble, NAME, PATIENCE);
    let start = std::time::Instant::now();
    let roots = pebble.issuing_root();
    while crate::support::client::tls(second.address("127.0.0.2:0"), &roots, NAME, &[b"http/1.1"]).is_err() {
        assert!(start.elapsed() < PATIENCE, "the other edge takes it up");
        std::thread::sleep(std::time::Duration::from_millis(20)); // the edge tells nobody outside
    }
    assert_eq!(pebble.proxy.orders(), 1);
    drop((first, second));
}
