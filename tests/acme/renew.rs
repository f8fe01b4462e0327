//! Renewals, under traffic.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::pebble::{Options, Pebble};
use super::proxy::{Fault, NEW_ACCOUNT, NEW_ORDER, RENEWAL};
use super::{NAME, edge, handshake, record, said, wait_for_handshake};
use crate::support::PATIENCE;

/// A life so short that several of them fit into a test, and so long that a busy machine renews in its second half.
const LIFE: u64 = 40;

#[test]
fn no_handshake_fails_and_no_order_is_spare() {
    under_traffic(LIFE, 3, Duration::from_millis(20));
}

/// An hour of lives of two minutes each.
#[test]
#[ignore = "takes an hour"]
fn an_hour_of_two_minutes_lives() {
    under_traffic(120, 58, Duration::from_millis(100));
}

/// Two visitors, for so many renewals of certificates with that life, in seconds. They take a breath after each handshake: it is
/// traffic and no flood, for the tests beside this one need the machine too.
fn under_traffic(life: u64, renewals: usize, breath: Duration) {
    let pebble = Pebble::start(Options { lives: (90 * 86_400, life), ..Options::default() });
    let edge = edge(&pebble, "profile = \"short\"");
    wait_for_handshake(&pebble, NAME, PATIENCE);
    let (roots, begin, over) = (pebble.issuing_root(), Instant::now(), AtomicBool::new(false));
    let visit = || {
        let (mut leaves, mut count) = (BTreeSet::new(), 0);
        while !over.load(Ordering::Relaxed) {
            leaves.insert(handshake(&pebble, &roots, NAME).expect("a handshake under renewal"));
            count += 1;
            std::thread::sleep(breath);
        }
        (leaves, count)
    };
    let (leaves, handshakes) = std::thread::scope(|scope| {
        let visitors = [scope.spawn(visit), scope.spawn(visit)];
        let limit = Duration::from_secs(life * (renewals as u64 + 3));
        pebble.proxy.wait_for(NEW_ORDER, renewals + 1, limit);
        over.store(true, Ordering::Relaxed);
        let [(mut all, first), (more, second)] = visitors.map(|visitor| visitor.join().unwrap());
        all.extend(more);
        (all, first + second)
    });
    let (seen, orders) = (leaves.len(), pebble.proxy.orders());
    eprintln!("{handshakes} handshakes, {seen} certificates in {orders} orders, {:?}", begin.elapsed());
    assert!(seen >= renewals && orders - seen <= 1, "{seen} certificates, {orders} orders");
    drop(edge);
}

#[test]
fn a_window_in_the_past_renews_at_once_and_says_what_is_replaced() {
    let pebble = Pebble::start(Options::default());
    let window = r#"{"suggestedWindow":{"start":"2026-01-01T00:00:00Z","end":"2026-01-02T00:00:00Z"},"explanationURL":"https://ca.test/why"}"#;
    pebble.proxy.fault(RENEWAL, 1, Fault::Answer(200, vec![("retry-after", "21600".into())], window.into()));
    let edge = edge(&pebble, "");
    pebble.proxy.wait(NEW_ORDER, 2);
    pebble.proxy.wait(RENEWAL, 2);
    assert_eq!(said(&edge, "the CA suggests when to renew")["explanation"], "https://ca.test/why");
    let orders = pebble.proxy.seen(NEW_ORDER);
    assert!(orders[0].payload["replaces"].is_null());
    assert!(orders[1].payload["replaces"].is_string(), "{:?}", orders[1]);
    assert_eq!(pebble.proxy.orders(), 2, "and once is enough");
}

#[test]
fn renewal_information_that_makes_no_sense_changes_nothing() {
    for answer in [
        "<html>not JSON</html>",
        r#"{"suggestedWindow":{"start":"2026-01-02T00:00:00Z","end":"2026-01-01T00:00:00Z"}}"#,
        r#"{"suggestedWindow":{"start":"yesterday","end":"tomorrow"}}"#,
        "",
    ] {
        let pebble = Pebble::start(Options::default());
        let headers = vec![("retry-after", "18446744073709551615".to_owned())];
        pebble.proxy.fault(RENEWAL, 9, Fault::Answer(200, headers, answer.into()));
        let edge = edge(&pebble, "");
        wait_for_handshake(&pebble, NAME, PATIENCE);
        edge.log().wait_json(0, "an opinion on it", |line| {
            line["message"].as_str().is_some_and(|message| message.ends_with("the certificate's age decides"))
        });
        assert!(record(&edge, NAME)["ari"].is_null());
        assert_eq!(pebble.proxy.orders(), 1, "{answer}");
    }
}

#[test]
fn a_replacement_that_the_ca_knows_of_or_does_not_find_is_ordered_without_saying_so() {
    for (status, kind) in [(409, "alreadyReplaced"), (500, "serverInternal")] {
        let pebble = Pebble::start(Options { lives: (90 * 86_400, LIFE), ..Options::default() });
        let edge = edge(&pebble, "profile = \"short\"");
        pebble.proxy.wait(RENEWAL, 1);
        let problem = format!(r#"{{"type":"urn:ietf:params:acme:error:{kind}","detail":"no"}}"#);
        pebble.proxy.fault(NEW_ORDER, 1, Fault::Answer(status, Vec::new(), problem));
        pebble.proxy.wait_for(NEW_ORDER, 3, Duration::from_secs(3 * LIFE));
        let orders = pebble.proxy.seen(NEW_ORDER);
        let replaces = |order: usize| orders[order].payload["replaces"].is_string();
        assert!(replaces(1) && !replaces(2), "{kind}");
        drop(edge);
    }
}

#[test]
fn an_account_that_the_ca_has_forgotten_is_made_again_once() {
    let mut pebble = Pebble::start(Options { lives: (90 * 86_400, LIFE), ..Options::default() });
    let edge = edge(&pebble, "profile = \"short\"");
    wait_for_handshake(&pebble, NAME, PATIENCE);
    pebble.begin();
    // It is renewed when half of its life is over.
    let (start, limit) = (Instant::now(), Duration::from_secs(LIFE / 2) + PATIENCE);
    while handshake(&pebble, &pebble.issuing_root(), NAME).is_err() {
        assert!(start.elapsed() < limit, "no certificate of the CA's new root");
        std::thread::sleep(Duration::from_millis(20)); // the edge tells nobody outside
    }
    let accounts = pebble.proxy.seen(NEW_ACCOUNT).iter().filter(|seen| seen.status == 201).count();
    assert_eq!(accounts, 2);
    said(&edge, "the CA does not know the account; another is made");
}
