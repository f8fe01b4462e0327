//! From an empty store to a served certificate.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::named::Named;
use super::pebble::{Options, Pebble, rows};
use super::proxy::{CHALLENGE, Fault, NEW_ACCOUNT, NEW_ORDER};
use super::{FIRST_RETRY, NAME, config, edge, handshake, record, said, site, table, wait_for_handshake};
use crate::support::PATIENCE;
use crate::support::edge::{Edge, run};

#[test]
fn by_either_challenge() {
    for challenge in ["http-01", "tls-alpn-01"] {
        let pebble = Pebble::start(Options::default());
        let edge = edge(&pebble, &format!("challenge = \"{challenge}\""));
        let took = wait_for_handshake(&pebble, NAME, PATIENCE);
        eprintln!("from ready to the first good handshake by {challenge}: {took:?}");
        assert_eq!(pebble.proxy.orders(), 1);
        said(&edge, "a certificate was obtained and is in use");
    }
}

/// What a forward row is called is proved as a site's name is, and looked after as one.
#[test]
fn for_a_forward_row() {
    for challenge in ["http-01", "tls-alpn-01"] {
        let pebble = Pebble::start(Options::default());
        let row =
            "\"127.0.0.3:0\" = { forward = \"127.0.0.1:1\", allow = [\"public\"], tls = \"db.test\" }\n";
        let acme = table(&pebble, &format!("challenge = \"{challenge}\""));
        let site = site(NAME).replace("\"acme\"", "\"internal\"");
        let edge = Edge::start(&format!("{}{row}{acme}{site}", rows(pebble.ports, "public")));
        said(&edge, "a certificate was obtained and is in use");
        let address = edge.address("127.0.0.3:0");
        assert!(crate::support::client::tls(address, &pebble.issuing_root(), "db.test", &[]).is_ok());
        assert_eq!(record(&edge, "db.test")["names"], serde_json::json!(["db.test"]));
    }
}

#[test]
fn by_the_challenge_that_works() {
    let pebble = Pebble::start(Options::default());
    // Nobody answers on the CA's own way to port 80.
    let rows = rows(pebble.ports, "public")
        .replace(&format!(":{}\" = {{ serve = \"http\"", pebble.ports.http), ":0\" = { serve = \"http\"");
    let edge = Edge::start(&format!("{rows}{}{}", table(&pebble, ""), site(NAME)));
    wait_for_handshake(&pebble, NAME, PATIENCE);
    assert_eq!(pebble.proxy.orders(), 2, "http-01 failed, and the next was tried at once");
    said(&edge, "names were not proved");
}

#[test]
fn with_an_external_account() {
    let key = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
    let pebble = Pebble::start(Options { binding: Some(("kid-1", key)), ..Options::default() });
    let secret = pebble.folder.path().join("hmac");
    fs::write(&secret, format!("{key}\n")).unwrap();
    let edge = edge(
        &pebble,
        &format!("eab = {{ key_id = \"kid-1\", hmac = {{ file = \"{}\" }} }}", secret.display()),
    );
    wait_for_handshake(&pebble, NAME, PATIENCE);
    assert_eq!(pebble.proxy.seen(NEW_ACCOUNT).len(), 1);
    drop(edge);
}

#[test]
fn without_the_binding_that_the_ca_needs_it_says_so_once() {
    let key = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
    let pebble = Pebble::start(Options { binding: Some(("kid-1", key)), ..Options::default() });
    let edge = edge(&pebble, "");
    let line = said(&edge, "no certificate was obtained");
    assert!(line["failure"].as_str().unwrap().contains("name it as [acme] eab"), "{line}");
    assert_eq!(record(&edge, NAME)["retry"]["failures"], 4, "tried again in a day");
}

/// The table of what an outsider sees: while a challenge is pending, a closed row answers exactly that.
#[test]
fn through_rows_that_nobody_else_may_use() {
    for (challenge, closed_port) in [("http-01", 0), ("tls-alpn-01", 1)] {
        let pebble = Pebble::start(Options::default());
        // The challenge stays pending for as long as the CA's answer hangs.
        pebble.proxy.fault(CHALLENGE, 1, Fault::Hang);
        let text = format!(
            "[sources]\noffice = [\"192.0.2.0/24\"]\n{}{}{}",
            rows(pebble.ports, "office"),
            table(&pebble, &format!("challenge = \"{challenge}\"")),
            site(NAME)
        );
        let edge = Edge::start(&text);
        pebble.proxy.wait(CHALLENGE, 1);
        let port = [pebble.ports.http, pebble.ports.https][closed_port];
        for request in [
            "GET / HTTP/1.1\r\nhost: app.test\r\n\r\n",
            "GET /.well-known/acme-challenge/x HTTP/1.1\r\nhost: app.test\r\n\r\n",
            "\x16\x03\x01\0\x05",
        ] {
            let mut tcp = TcpStream::connect(("127.0.0.1", port)).unwrap();
            tcp.write_all(request.as_bytes()).unwrap();
            tcp.shutdown(std::net::Shutdown::Write).unwrap();
            let mut answer = Vec::new();
            let _ = tcp.read_to_end(&mut answer);
            assert_eq!(String::from_utf8_lossy(&answer), "", "a closed door is silent");
        }
        assert!(handshake(&pebble, &pebble.issuing_root(), NAME).is_err());
        // The same order goes on in another process, past the same closed doors.
        pebble.proxy.behave();
        let edge = edge.kill_and_start();
        said(&edge, "a certificate was obtained and is in use");
        assert_eq!(pebble.proxy.orders(), 1);
        assert!(handshake(&pebble, &pebble.issuing_root(), NAME).is_err(), "the door stays closed");
    }
}

#[test]
fn each_name_by_itself() {
    let pebble = Pebble::start(Options::default());
    let edge = Edge::start(&config(&pebble, "", &["blocked.test", NAME, "other.test"]));
    for name in [NAME, "other.test"] {
        wait_for_handshake(&pebble, name, PATIENCE);
    }
    let line = said(&edge, "no certificate was obtained");
    assert_eq!(line["names"], "blocked.test");
    assert!(handshake(&pebble, &pebble.issuing_root(), "blocked.test").is_err());
    let refused = &record(&edge, "blocked.test")["retry"];
    assert!(refused["last_error"].as_str().unwrap().contains("blocked"), "{refused}");
}

#[test]
fn a_site_that_a_reload_brings_is_seen_to_at_once_and_one_that_it_takes_stops() {
    let pebble = Pebble::start(Options::default());
    let edge = Edge::start(&config(&pebble, "", &[NAME]));
    wait_for_handshake(&pebble, NAME, PATIENCE);
    edge.write_config(&config(&pebble, "", &["new.test"]));
    assert!(edge.reload());
    wait_for_handshake(&pebble, "new.test", PATIENCE);
    assert!(handshake(&pebble, &pebble.issuing_root(), NAME).is_err(), "it is answered no more");
    assert!(record(&edge, NAME)["bundle"].is_object(), "its record is kept");
    edge.write_config(&config(&pebble, "", &["new.test", NAME]));
    assert!(edge.reload());
    wait_for_handshake(&pebble, NAME, PATIENCE);
    assert_eq!(pebble.proxy.orders(), 2, "what was kept is served again");
}

#[test]
fn while_the_ca_is_down_the_edge_serves_and_then_recovers() {
    let mut pebble = Pebble::start(Options::default());
    pebble.end();
    let text = config(&pebble, "", &[NAME])
        + "[[site]]\ndomains = [\"own.test\"]\ncertificate = \"internal\"\n[[site.route]]\npath = \"= /\"\nredirect = { to = \"/x\" }\n";
    let edge = Edge::start(&text);
    let failed = said(&edge, "no certificate was obtained");
    assert_eq!(failed["failures"], 1);
    let address = ([127, 0, 0, 1], pebble.ports.https).into();
    let own = crate::support::client::tls(address, &edge.ca(), "own.test", &[b"http/1.1"]);
    assert!(own.is_ok(), "the others live");
    pebble.begin();
    wait_for_handshake(&pebble, NAME, FIRST_RETRY);
    assert_eq!(pebble.proxy.orders(), 1);
    assert_eq!(pebble.proxy.seen(NEW_ORDER).len(), 1);
}

/// As many sites as an edge may have in one file: the CA's limit on orders is held, and nobody waits for the others.
#[test]
#[ignore = "takes a minute, and half of a machine"]
fn a_thousand_sites_keep_to_the_cas_limits() {
    let pebble = Pebble::start(Options { trusting: true, ..Options::default() });
    let names: Vec<String> = (0..1000).map(|number| format!("site-{number}.test")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let begin = Instant::now();
    let edge = Edge::start(&config(&pebble, "", &names));
    eprintln!("1,000 sites are ready after {:?}", begin.elapsed());
    pebble.proxy.wait_for(NEW_ORDER, 280, Duration::from_mins(5));
    eprintln!("280 orders after {:?}", begin.elapsed());
    // As long as all others would take.
    std::thread::sleep(Duration::from_secs(20));
    assert_eq!(pebble.proxy.orders(), 280);
    let status = fs::read_to_string(format!("/proc/{}/status", edge.pid())).unwrap();
    eprintln!("{}", status.lines().find(|line| line.starts_with("VmRSS")).unwrap());
    handshake(&pebble, &pebble.issuing_root(), "site-0.test").unwrap();
    let file = edge.folder().join("vestibule.toml");
    let begin = Instant::now();
    let (_, list, _) = run(&["certs", "list", "--config", file.to_str().unwrap()]);
    let lines: Vec<&str> = list.lines().collect();
    let some = [&lines[..4], &["…"], &lines[720..723], &["…"], &lines[999..]].concat();
    eprintln!("certs list, in {:?}:\n{}", begin.elapsed(), some.join("\n"));
    assert_eq!(lines.last(), Some(&"1000 certificates: 720 missing"));
    assert!(lines[1].contains("the CA's limits"), "{}", lines[1]);
}

/// The ways from nothing to a handshake, timed: run it alone.
#[test]
fn from_nothing_to_the_first_good_handshake() {
    let key = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
    let named = Named::start();
    let secret = named.key("hmac");
    fs::write(&secret, key).unwrap();
    let eab = format!("eab = {{ key_id = \"kid-1\", hmac = {{ file = \"{}\" }} }}", secret.display());
    let by_dns = format!("challenge = \"dns-01\"\n{}", named.rfc2136("edge"));
    let dns = || Options { names: Some(named.address()), ..Options::default() };
    let bound = || Options { binding: Some(("kid-1", key)), ..Options::default() };
    for (way, options, acme, domain, name) in [
        ("http-01", Options::default(), "challenge = \"http-01\"", NAME, NAME),
        ("tls-alpn-01", Options::default(), "challenge = \"tls-alpn-01\"", NAME, NAME),
        ("dns-01, a wildcard", dns(), &by_dns, "*.app.test", "any.app.test"),
        ("http-01, with an external account", bound(), &eab, NAME, NAME),
    ] {
        let pebble = Pebble::start(options);
        let begin = Instant::now();
        let edge = Edge::start(&config(&pebble, acme, &[domain]));
        wait_for_handshake(&pebble, name, PATIENCE);
        eprintln!("from the start to the first good handshake by {way}: {:?}", begin.elapsed());
        assert_eq!(pebble.proxy.orders(), 1, "{way}");
        drop(edge);
    }
}
