//! A CA that misbehaves.

use vestibule::acme::store::Store;

use super::pebble::{Options, Pebble};
use super::proxy::{CERTIFICATE, CHALLENGE, FINALIZE, Fault, NEW_ACCOUNT, NEW_ORDER};
use super::{
    FIRST_RETRY, NAME, certs, config, edge, handshake, hurry, record, said, said_late, wait_for_handshake,
};
use crate::support::PATIENCE;

const HTML: &str = "<html><body>Bad Gateway</body></html>";

#[test]
fn storms_of_bad_nonces_are_outlived() {
    let pebble = Pebble::start(Options { nonces_refused: 60, ..Options::default() });
    let edge = edge(&pebble, "");
    wait_for_handshake(&pebble, NAME, PATIENCE);
    assert_eq!(pebble.proxy.orders(), 1);
    drop(edge);
}

#[test]
fn passing_trouble_is_waited_out_without_a_second_order() {
    for (path, headers) in [
        ("/dir", vec![]),
        (NEW_ACCOUNT, vec![("retry-after", "1".to_owned())]),
        (NEW_ORDER, vec![("content-type", "text/html".to_owned())]),
        (FINALIZE, vec![]),
        (CERTIFICATE, vec![("retry-after", "2".to_owned())]),
    ] {
        let pebble = Pebble::start(Options::default());
        pebble.proxy.fault(path, 2, Fault::Answer(503, headers, HTML.into()));
        let edge = edge(&pebble, "");
        wait_for_handshake(&pebble, NAME, PATIENCE);
        assert_eq!(pebble.proxy.orders(), 1, "{path}");
        drop(edge);
    }
}

#[test]
fn a_cut_answer_is_asked_for_again() {
    for path in [CHALLENGE, CERTIFICATE, "/my-order/", "/authZ/"] {
        let pebble = Pebble::start(Options::default());
        pebble.proxy.fault(path, 1, Fault::Cut);
        let edge = edge(&pebble, "");
        wait_for_handshake(&pebble, NAME, PATIENCE);
        assert_eq!(pebble.proxy.orders(), 1, "{path}");
        drop(edge);
    }
}

/// Every call has a deadline, and the edge answers meanwhile.
#[test]
fn a_ca_that_hangs_is_given_up_and_asked_again() {
    let pebble = Pebble::start(Options::default());
    pebble.proxy.fault(NEW_ORDER, 1, Fault::Hang);
    let edge = edge(&pebble, "");
    pebble.proxy.wait(NEW_ORDER, 1);
    let failure = said_late(&edge, "no certificate was obtained")["failure"].to_string();
    assert!(failure.contains("did not answer: it took too long"), "{failure}");
    let edge = hurry(edge, NAME);
    wait_for_handshake(&pebble, NAME, PATIENCE);
    assert_eq!(pebble.proxy.orders(), 1);
    drop(edge);
}

#[test]
fn a_rate_limit_is_kept_for_every_name_and_across_a_restart() {
    for (status, headers, body) in [
        (
            429,
            vec![("retry-after", "3600".to_owned())],
            r#"{"type":"urn:ietf:params:acme:error:rateLimited","detail":"too many orders"}"#,
        ),
        (503, vec![("retry-after", "3600".to_owned())], HTML),
    ] {
        let pebble = Pebble::start(Options::default());
        pebble.proxy.fault(NEW_ORDER, 99, Fault::Answer(status, headers, body.into()));
        let edge = edge(&pebble, "");
        said(&edge, "no certificate was obtained");
        let until = time(&record(&edge, NAME)["retry"]["not_before"]);
        assert!(until > now() + 3590 && until < now() + 3600 * 13 / 10, "{until}");
        edge.write_config(&config(&pebble, "", &[NAME, "other.test"]));
        let edge = edge.kill_and_start();
        // Looks at the clock: nothing is to be seen, for the other name neither.
        std::thread::sleep(std::time::Duration::from_secs(2));
        assert_eq!(pebble.proxy.seen(NEW_ORDER).len(), 1);
        drop(edge);
    }
}

/// Most CAs but Let's Encrypt do not say when to renew, and know nothing of what an order replaces.
#[test]
fn a_ca_without_renewal_information_renews() {
    let pebble = Pebble::start(Options::default());
    let at = pebble.directory();
    let base = at.strip_suffix("/dir").unwrap();
    let directory = format!(
        r#"{{"newNonce": "{base}/nonce-plz", "newAccount": "{base}/sign-me-up", "newOrder": "{base}/order-plz",
            "revokeCert": "{base}/revoke-cert", "keyChange": "{base}/rollover-account-key"}}"#
    );
    let json = vec![("content-type", "application/json".to_owned())];
    pebble.proxy.fault("/dir", 99, Fault::Answer(200, json, directory));
    let edge = edge(&pebble, "");
    wait_for_handshake(&pebble, NAME, PATIENCE);
    for orders in 2..4 {
        let (code, _, stderr) = certs(&edge, "renew", NAME);
        assert_eq!((code, pebble.proxy.orders()), (Some(0), orders), "{stderr}");
    }
}

/// Its own wait holds for the CA that asks for it.
#[test]
fn a_rate_limit_of_one_ca_leaves_the_next() {
    let (first, second) = (Pebble::start(Options::default()), Pebble::start(Options::default()));
    let busy = vec![("retry-after", "86400".to_owned())];
    let body = r#"{"type":"urn:ietf:params:acme:error:rateLimited","detail":"too many orders"}"#;
    first.proxy.fault(NEW_ORDER, 99, Fault::Answer(429, busy, body.into()));
    let edge = crate::support::edge::Edge::start(&with_fallback(&first, &second));
    said(&edge, "no certificate was obtained");
    let until = time(&record(&edge, NAME)["retry"]["not_before"]);
    assert!(until < now() + 120, "{until}");
    wait_for_handshake(&second, NAME, FIRST_RETRY);
    assert_eq!((first.proxy.orders(), second.proxy.orders()), (0, 1));
    let pause = record(&edge, NAME)["retry"]["ca_pause"].clone();
    assert_eq!(pause["directory"], first.directory(), "for the next process");
}

/// Whoever has the account's key can end it at the CA, for good.
#[test]
fn a_deactivated_account_is_told_and_left_alone() {
    let pebble = Pebble::start(Options::default());
    let edge = edge(&pebble, "");
    said(&edge, "the CA suggests when to renew");
    let store = Store::open(&edge.folder().join("store"), None).unwrap();
    pebble.proxy.deactivate(store.account(&pebble.directory()).unwrap().unwrap().credentials);
    // One name more, for the process that knows the account, and then for one that has it from the store.
    edge.write_config(&config(&pebble, "", &[NAME, "other.test"]));
    assert!(edge.reload());
    let line = said(&edge, "no certificate was obtained");
    let failure = line["failure"].as_str().unwrap();
    assert!(failure.contains("deactivated") && failure.contains("move its file in the store's"), "{line}");
    let until = time(&record(&edge, "other.test")["retry"]["not_before"]);
    assert!(until > now() + 23 * 3600, "a day: {until}");
    let edge = edge.kill_and_start();
    wait_for_handshake(&pebble, NAME, PATIENCE);
    let (code, _, stderr) = certs(&edge, "renew", NAME);
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("deactivated"), "{stderr}");
    let asked =
        |path: &str, status| pebble.proxy.seen(path).iter().filter(|seen| seen.status == status).count();
    // With `replaces` and, as that might be what is refused, without.
    assert_eq!((asked(NEW_ORDER, 201), asked(NEW_ORDER, 403)), (1, 3));
    let accounts = pebble.proxy.seen(NEW_ACCOUNT);
    let made = accounts.iter().filter(|seen| seen.payload["onlyReturnExisting"] != true).count();
    assert_eq!((made, accounts.len()), (1, 3), "each process asks once whether the CA knows it");
    // Looks at the clock: nothing more comes.
    let all = pebble.proxy.seen("").len();
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert_eq!(pebble.proxy.seen("").len(), all);
    handshake(&pebble, &pebble.issuing_root(), NAME).expect("what there is, is served");
}

#[test]
fn when_the_first_ca_keeps_failing_the_next_is_asked() {
    let mut first = Pebble::start(Options::default());
    let second = Pebble::start(Options::default());
    first.end();
    let edge = crate::support::edge::Edge::start(&with_fallback(&first, &second));
    said(&edge, "no certificate was obtained");
    assert!(handshake(&second, &second.issuing_root(), NAME).is_err());
    wait_for_handshake(&second, NAME, FIRST_RETRY);
    assert_eq!((first.proxy.orders(), second.proxy.orders()), (0, 1));
}

/// A configuration with both CAs. Both APIs are trusted, and both look at the same edge.
fn with_fallback(first: &Pebble, second: &Pebble) -> String {
    let roots = first.folder.path().join("both.pem");
    let both =
        [first.ca_root(), second.ca_root()].map(|path| std::fs::read_to_string(path).unwrap()).concat();
    std::fs::write(&roots, both).unwrap();
    config(second, "", &[NAME])
        .replace(&second.directory(), &first.directory())
        .replace(&second.ca_root().display().to_string(), &roots.display().to_string())
        .replace("email =", &format!("fallback = [{{ directory = \"{}\" }}]\nemail =", second.directory()))
}

fn now() -> i64 {
    time::OffsetDateTime::now_utc().unix_timestamp()
}

fn time(value: &serde_json::Value) -> i64 {
    let text = value.as_str().unwrap();
    time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339)
        .unwrap()
        .unix_timestamp()
}
