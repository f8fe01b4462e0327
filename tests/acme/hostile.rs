//! A CA that errs, or means harm; clocks that were wrong.

use std::time::Duration;

use time::OffsetDateTime;

use super::pebble::{Options, Pebble, free_port, rows};
use super::proxy::{AUTHORIZATION, CERTIFICATE, CHALLENGE, FINALIZE, Fault, NEW_ORDER, RENEWAL};
use super::{NAME, alter, certs, config, edge, hurry, record, said, site, table, wait_for_handshake};
use crate::support::PATIENCE;
use crate::support::edge::Edge;

/// A certificate of nobody's, for the site's name, with a key that nobody has.
fn foreign() -> String {
    let params = rcgen::CertificateParams::new([NAME.to_owned()]).unwrap();
    params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()
}

#[test]
fn a_chain_that_cannot_be_served_is_refused_and_the_old_certificate_stays() {
    let pem = vec![("content-type", "application/pem-certificate-chain".to_owned())];
    let pebble = Pebble::start(Options::default());
    let edge = edge(&pebble, "");
    wait_for_handshake(&pebble, NAME, PATIENCE);
    let first = record(&edge, NAME)["bundle"].clone();
    for (fault, expected) in [
        (Fault::Answer(200, pem.clone(), foreign()), "the key does not match the certificate"),
        (
            Fault::Answer(200, pem.clone(), foreign().repeat(100)),
            "too long to be served: over 10 certificates",
        ),
        (Fault::Answer(200, pem, "<html>not a chain</html>".into()), "no certificate in it"),
        (Fault::Endless, "the answer is too long"),
    ] {
        pebble.proxy.behave();
        pebble.proxy.fault(CERTIFICATE, 99, fault.clone());
        let (code, _, stderr) = certs(&edge, "renew", NAME);
        assert_eq!(code, Some(2), "{fault:?}");
        assert!(stderr.contains(expected), "{stderr}");
        assert_eq!(record(&edge, NAME)["bundle"], first, "{fault:?}");
        wait_for_handshake(&pebble, NAME, PATIENCE);
    }
    assert!(edge.peak_memory() < 200 << 20, "two gigabytes were not taken: {}", edge.peak_memory());
    assert_eq!(pebble.proxy.orders(), 5, "one for each time that a person asked");
}

#[test]
fn a_proof_for_a_name_that_was_not_ordered_is_not_given() {
    let pebble = Pebble::start(Options::default());
    let foreign = r#"{"status":"pending","identifier":{"type":"dns","value":"victim.test"},
        "challenges":[{"type":"http-01","url":"https://127.0.0.1:1/x","token":"abc","status":"pending"}]}"#;
    pebble.proxy.fault(AUTHORIZATION, 9, Fault::Answer(200, Vec::new(), foreign.into()));
    let edge = edge(&pebble, "");
    let line = said(&edge, "no certificate was obtained");
    let expected = "the CA wants a proof for victim.test, which was not ordered";
    assert_eq!(line["failure"], expected);
    assert!(pebble.proxy.seen(CHALLENGE).is_empty());
}

#[test]
fn a_directory_that_has_moved_is_told_with_its_new_place() {
    let pebble = Pebble::start(Options::default());
    let to = vec![("location", "https://ca.test/v2".to_owned())];
    pebble.proxy.fault("/dir", 9, Fault::Answer(301, to, String::new()));
    let edge = edge(&pebble, "");
    let failure = said(&edge, "no certificate was obtained")["failure"].to_string();
    assert!(failure.contains("moved to https://ca.test/v2; write that as the directory"), "{failure}");
    assert_eq!(pebble.proxy.seen("").len(), 1, "and nobody is asked elsewhere");
}

#[test]
fn a_ca_that_asks_for_time_is_given_it() {
    let pebble = Pebble::start(Options::default());
    let wait = vec![("retry-after", "3".to_owned())];
    let order =
        r#"{"status":"processing","identifiers":[],"authorizations":[],"finalize":"https://127.0.0.1:1/f"}"#;
    pebble.proxy.fault("/my-order/", 1, Fault::Answer(200, wait, order.into()));
    let edge = edge(&pebble, "");
    wait_for_handshake(&pebble, NAME, PATIENCE);
    let looks = pebble.proxy.seen("/my-order/");
    let pause = looks[1].at - looks[0].at;
    assert!(pause >= Duration::from_secs(3), "{pause:?}");
    assert_eq!(pebble.proxy.orders(), 1);
    drop(edge);
}

#[test]
fn a_window_that_is_always_in_the_past_makes_no_storm() {
    let pebble = Pebble::start(Options::default());
    // And without a Retry-After, which not every CA sends.
    let window = r#"{"suggestedWindow":{"start":"2026-01-01T00:00:00Z","end":"2026-01-02T00:00:00Z"}}"#;
    pebble.proxy.fault(RENEWAL, 99, Fault::Answer(200, Vec::new(), window.into()));
    let edge = edge(&pebble, "");
    pebble.proxy.wait(NEW_ORDER, 2);
    pebble.proxy.wait(RENEWAL, 2);
    std::thread::sleep(Duration::from_secs(3)); // some looks of the manager's
    assert_eq!(pebble.proxy.orders(), 2);
    let (_, page, _) = certs(&edge, "show", NAME);
    assert!(page.contains(": the CA's window"), "{page}");
}

#[test]
fn what_a_wrong_clock_has_noted_holds_nothing_up() {
    let pebble = Pebble::start(Options::default());
    let problem = r#"{"type":"urn:ietf:params:acme:error:rejectedIdentifier","detail":"no"}"#;
    pebble.proxy.fault(NEW_ORDER, 1, Fault::Answer(400, Vec::new(), problem.into()));
    let first = edge(&pebble, "");
    said(&first, "no certificate was obtained");
    let ahead = OffsetDateTime::now_utc() + time::Duration::days(3650);
    let edge = alter(first, NAME, |record| {
        record.retry.not_before = Some(ahead);
        let directory = pebble.directory();
        record.retry.ca_pause = Some(vestibule::acme::store::CaPause { directory, until: ahead });
        record.history.iter_mut().for_each(|event| event.at = ahead);
    });
    wait_for_handshake(&pebble, NAME, PATIENCE);
    assert_eq!(pebble.proxy.orders(), 1);
    drop(edge);
}

/// Five failed authorizations a name and hour is what Let's Encrypt allows.
#[test]
fn a_name_that_leads_elsewhere_fails_five_times_an_hour_at_the_most() {
    let pebble = Pebble::start(Options::default());
    let elsewhere = rows(pebble.ports, "public")
        .replace(&format!(":{}\"", pebble.ports.http), ":0\"")
        .replace(&format!(":{}\"", pebble.ports.https), &format!(":{}\"", free_port()));
    let mut edge = Edge::start(&format!("{elsewhere}{}{}", table(&pebble, ""), site(NAME)));
    said(&edge, "seen from here, a name does not lead to this edge; a CA may refuse it");
    let mut waited = Duration::ZERO;
    for tries in 1.. {
        let line = said(&edge, "no certificate was obtained");
        assert_eq!(line["failures"], tries);
        let next = record(&edge, NAME)["retry"]["not_before"].as_str().unwrap().to_owned();
        let next = OffsetDateTime::parse(&next, &time::format_description::well_known::Rfc3339).unwrap();
        waited += (next - OffsetDateTime::now_utc()).unsigned_abs();
        if waited > Duration::from_hours(1) {
            break;
        }
        edge = hurry(edge, NAME);
    }
    let failed = pebble.proxy.seen(CHALLENGE).len();
    assert!((2..=5).contains(&failed), "{failed} authorizations");
}

#[test]
fn a_reload_while_an_order_is_under_way_loses_nothing() {
    let pebble = Pebble::start(Options::default());
    let wait = vec![("retry-after", "2".to_owned())];
    pebble.proxy.fault(FINALIZE, 1, Fault::Answer(503, wait, String::new()));
    let edge = edge(&pebble, "");
    pebble.proxy.wait(FINALIZE, 1);
    edge.write_config(&config(&pebble, "", &[NAME, "new.test"]));
    assert!(edge.reload());
    for name in ["new.test", NAME] {
        wait_for_handshake(&pebble, name, PATIENCE);
    }
    assert_eq!(pebble.proxy.orders(), 2, "one for each name");
}

#[test]
fn a_name_in_letters_of_the_world() {
    let pebble = Pebble::start(Options::default());
    let edge = Edge::start(&config(&pebble, "", &["bücher.test"]));
    wait_for_handshake(&pebble, "xn--bcher-kva.test", PATIENCE);
    let (code, out, err) = certs(&edge, "renew", "Bücher.test");
    assert_eq!(code, Some(0), "{out}{err}");
    assert_eq!(pebble.proxy.orders(), 2);
}

#[test]
fn how_far_an_order_is_shows_while_it_waits() {
    let pebble = Pebble::start(Options::default());
    let wait = |seconds: u8| vec![("retry-after", seconds.to_string())];
    pebble.proxy.fault(FINALIZE, 1, Fault::Answer(503, wait(4), String::new()));
    let edge = edge(&pebble, "challenge = \"tls-alpn-01\"");
    pebble.proxy.wait(FINALIZE, 1);
    let host = format!("127.0.0.1:{}", pebble.proxy.port());
    let file = edge.folder().join("vestibule.toml");
    let (_, list, _) = crate::support::edge::run(&["certs", "list", "--config", file.to_str().unwrap()]);
    assert!(
        list.contains("being ordered for ") && list.contains(&format!("waiting for {host} to sign")),
        "{list}"
    );
    for step in [
        "asking {} for an order",
        "waiting for {} to look, by tls-alpn-01",
        "fetching the certificate from {}",
    ] {
        assert_eq!(said(&edge, &step.replace("{}", &host))["names"], NAME);
    }
    wait_for_handshake(&pebble, NAME, PATIENCE);
    pebble.proxy.fault(FINALIZE, 1, Fault::Answer(503, wait(4), String::new()));
    let (code, out, told) = certs(&edge, "renew", NAME);
    assert_eq!(code, Some(0), "{out}{told}");
    assert!(told.contains(&format!("waiting for {host} to sign …\n")), "{told}");
}
