//! The challenge dns-01, with a real name server that the CA asks as well.

use std::fs;
use std::process::Command;
use std::time::Instant;

use serde_json::Value;

use super::named::Named;
use super::pebble::{Options, Pebble, rows};
use super::proxy::{CHALLENGE, FINALIZE, Fault};
use super::{NAME, handshake, record, said, site, table, wait_for_handshake};
use crate::support::edge::{Edge, run};
use crate::support::{PATIENCE, program};

/// A CA that asks this name server.
pub(super) fn pebble(named: &Named) -> Pebble {
    Pebble::start(Options { names: Some(named.address()), ..Options::default() })
}

/// A site with all of these names.
fn site_of(names: &[&str]) -> String {
    site(&names.join("\", \""))
}

pub(super) fn config(pebble: &Pebble, acme: &str, names: &[&str]) -> String {
    format!("{}{}{}", rows(pebble.ports, "public"), table(pebble, acme), site_of(names))
}

fn by_dns(named: &Named) -> String {
    format!("challenge = \"dns-01\"\n{}", named.rfc2136("edge"))
}

#[test]
fn a_name_and_its_wildcard_have_certificates_of_their_own() {
    let named = Named::start();
    let pebble = pebble(&named);
    let begin = Instant::now();
    let edge = Edge::start(&config(&pebble, &by_dns(&named), &[NAME, "*.app.test", "own.app.test"]));
    wait_for_handshake(&pebble, "any.app.test", PATIENCE);
    eprintln!("from nothing to the first good handshake by dns-01, for a wildcard: {:?}", begin.elapsed());
    for name in [NAME, "own.app.test"] {
        wait_for_handshake(&pebble, name, PATIENCE);
    }
    assert_eq!(pebble.proxy.orders(), 2, "one certificate for the plain names, one for the wildcard");
    let roots = pebble.issuing_root();
    let shown = |name| handshake(&pebble, &roots, name).unwrap();
    assert_eq!(shown(NAME), shown("own.app.test"), "a name of its own goes before the wildcard");
    assert_eq!(shown("any.app.test"), shown("other.app.test"));
    assert_ne!(shown(NAME), shown("any.app.test"));
    assert!(handshake(&pebble, &roots, "two.labels.app.test").is_err());
    for name in ["_acme-challenge.app.test.", "_acme-challenge.own.app.test."] {
        named.wait_for_txt(name, 0);
    }
    for stored in [NAME, "wildcard.app.test"] {
        assert_eq!(record(&edge, stored)["published"], Value::Array(vec![]), "{stored}");
    }
    the_commands_know_the_wildcard(&pebble, &edge, &shown("any.app.test"));
}

fn the_commands_know_the_wildcard(pebble: &Pebble, edge: &Edge, first: &[u8]) {
    let file = edge.folder().join("vestibule.toml");
    let certs = |words: &[&str]| {
        let (code, stdout, stderr) =
            run(&[&["certs"], words, &["--config", file.to_str().unwrap()]].concat());
        assert_eq!(code, Some(0), "{stdout}{stderr}");
        stdout
    };
    assert!(certs(&["list"]).contains("*.app.test"));
    assert!(certs(&["show", "*.app.test"]).contains("dns-01"));
    let second = pebble.proxy.orders();
    certs(&["renew", "*.app.test"]);
    assert_eq!(pebble.proxy.orders(), second + 1);
    let roots = pebble.issuing_root();
    assert_ne!(handshake(pebble, &roots, "any.app.test").unwrap(), first);
    certs(&["revoke", "*.app.test"]);
}

#[test]
fn it_is_the_last_of_those_that_are_tried() {
    let named = Named::start();
    let pebble = pebble(&named);
    // The CA's own ways to the edge end nowhere, so that the first two fail.
    let text = config(&pebble, &named.rfc2136("edge"), &[NAME]);
    let text = text.replace(&format!("127.0.0.1:{}\"", pebble.ports.http), "127.0.0.1:0\"");
    let text = text.replace(&format!("127.0.0.1:{}\"", pebble.ports.https), "127.0.0.2:0\"");
    let edge = Edge::start(&text);
    said(&edge, "a certificate was obtained and is in use");
    assert_eq!(pebble.proxy.orders(), 3);
    assert!(record(&edge, NAME)["history"].to_string().contains("by dns-01"));
}

#[test]
fn a_record_is_written_where_its_alias_points() {
    let named = Named::start_with("_acme-challenge.app CNAME app.alias.test.\n");
    let pebble = pebble(&named);
    // The CA's look is held up, so that the record stands.
    pebble.proxy.fault(CHALLENGE, 1, Fault::Hang);
    let edge = Edge::start(&config(&pebble, &by_dns(&named), &["*.app.test"]));
    pebble.proxy.wait(CHALLENGE, 1);
    assert_eq!(record(&edge, "wildcard.app.test")["published"][0]["name"], "app.alias.test.");
    assert_eq!(named.txt("app.alias.test.").len(), 1);
    pebble.proxy.behave();
    let edge = edge.kill_and_start();
    wait_for_handshake(&pebble, "any.app.test", PATIENCE);
    assert_eq!(pebble.proxy.orders(), 1);
    named.wait_for_txt("app.alias.test.", 0);
    drop(edge);
}

/// The zone's wildcard is an alias, and so every name in it is one; the record itself takes its place.
#[test]
fn a_wildcards_alias_is_not_followed() {
    let named = Named::start_with("*.w CNAME elsewhere.example.\n");
    let pebble = pebble(&named);
    let edge = Edge::start(&config(&pebble, &by_dns(&named), &["*.w.test"]));
    wait_for_handshake(&pebble, "any.w.test", PATIENCE);
    named.wait_for_txt("_acme-challenge.w.test.", 0);
    drop(edge);
}

#[test]
fn what_a_killed_process_left_is_removed() {
    for (point, name) in [(CHALLENGE, "a site that is still there"), (FINALIZE, "one whose name is proved")] {
        let named = Named::start();
        let pebble = pebble(&named);
        pebble.proxy.fault(point, 1, Fault::Hang);
        let edge = Edge::start(&config(&pebble, &by_dns(&named), &[NAME]));
        pebble.proxy.wait(point, 1);
        named.wait_for_txt("_acme-challenge.app.test.", usize::from(point == CHALLENGE));
        pebble.proxy.behave();
        let edge = edge.kill_and_start();
        wait_for_handshake(&pebble, NAME, PATIENCE);
        assert_eq!(pebble.proxy.orders(), 1, "{name}");
        named.wait_for_txt("_acme-challenge.app.test.", 0);
        drop(edge);
    }
}

#[test]
fn what_a_removed_site_left_is_removed() {
    let named = Named::start();
    let pebble = pebble(&named);
    pebble.proxy.fault(CHALLENGE, 1, Fault::Hang);
    let edge = Edge::start(&config(&pebble, &by_dns(&named), &[NAME]));
    pebble.proxy.wait(CHALLENGE, 1);
    named.wait_for_txt("_acme-challenge.app.test.", 1);
    edge.write_config(&config(&pebble, &by_dns(&named), &["other.test"]));
    assert!(edge.reload());
    named.wait_for_txt("_acme-challenge.app.test.", 0);
    said(&edge, "what an order had left in the DNS was removed");
}

#[test]
fn what_nobody_can_remove_any_more_is_named() {
    let named = Named::start();
    let pebble = pebble(&named);
    pebble.proxy.fault(CHALLENGE, 1, Fault::Hang);
    let edge = Edge::start(&config(&pebble, &by_dns(&named), &[NAME]));
    pebble.proxy.wait(CHALLENGE, 1);
    let value = named.txt("_acme-challenge.app.test.").concat();
    edge.write_config(&config(&pebble, "", &["other.test"]));
    assert!(edge.reload());
    let line = said(&edge, "a challenge's record was left, and [acme] has no dns to remove it by");
    assert_eq!((&line["name"], &line["value"]), (&"_acme-challenge.app.test.".into(), &value.into()));
}

#[test]
fn what_a_name_server_refuses_is_said_with_the_fix() {
    let named = Named::start();
    let pebble = pebble(&named);
    let wrong = named.key("wrong");
    let good = fs::read_to_string(named.key("edge")).unwrap();
    let other = fs::read_to_string(named.key("unknown")).unwrap();
    fs::write(&wrong, other.replace("unknown", "edge")).unwrap();
    fs::write(named.key("sha512"), good.replace("hmac-sha256", "hmac-sha512")).unwrap();
    let closed = format!("127.0.0.1:{}", super::pebble::free_port());
    let elsewhere = named.rfc2136("edge");
    let unreachable =
        elsewhere.replace(&format!("server = \"{}\"", named.address()), &format!("server = \"{closed}\""));
    for (dns, name, expected) in [
        (named.rfc2136("wrong"), NAME, "has another secret for the key edge. (BADSIG); give both sides"),
        (
            named.rfc2136("unknown"),
            NAME,
            "does not know the key unknown. with hmac-sha256 (BADKEY); give its",
        ),
        (named.rfc2136("sha512"), NAME, "(BADKEY); give its configuration the same key"),
        (
            named.rfc2136("stranger"),
            NAME,
            "lets the key stranger. change nothing at _acme-challenge.app.test.",
        ),
        (named.rfc2136("edge"), "app.example", "has no zone with _acme-challenge.app.example."),
        (unreachable, NAME, "does not answer: Connection refused"),
    ] {
        let edge = Edge::start(&config(&pebble, &format!("challenge = \"dns-01\"\n{dns}"), &[name]));
        let failure = said(&edge, "no certificate was obtained")["failure"].as_str().unwrap().to_owned();
        assert!(
            failure.starts_with(&format!("{name}: writing the record: the name server 127.0.0.1:")),
            "{failure}"
        );
        assert!(failure.contains(expected), "{failure}");
        let record = record(&edge, name);
        assert!(record["order"]["url"].is_string(), "the order is gone on with");
    }
    assert!(pebble.proxy.seen(CHALLENGE).is_empty(), "no CA was asked to look in vain");
}

#[test]
fn a_record_that_does_not_come_out_is_said_with_the_server_that_lacks_it() {
    let (named, stale) = (Named::start(), Named::start());
    let pebble = pebble(&named);
    let dns = by_dns(&named).replace(
        &format!("nameservers = [\"{}\"]", named.address()),
        &format!("nameservers = [\"{}\", \"{}\"], propagation = \"1s\"", named.address(), stale.address()),
    );
    let edge = Edge::start(&config(&pebble, &dns, &[NAME]));
    let failure = said(&edge, "no certificate was obtained")["failure"].as_str().unwrap().to_owned();
    let expected = format!("the name server {} still lacks the record", stale.address());
    assert!(failure.contains(&expected) && failure.contains("raise `propagation`"), "{failure}");
    named.wait_for_txt("_acme-challenge.app.test.", 0);
    assert!(pebble.proxy.seen(CHALLENGE).is_empty());
}

/// A name server that this machine cannot reach is the CA's to judge; without a resolver, a name is taken for no alias.
#[test]
fn a_name_server_that_is_silent_holds_nothing_up() {
    let named = Named::start();
    let pebble = pebble(&named);
    let dns = by_dns(&named).replace(
        &format!("nameservers = [\"{}\"]", named.address()),
        &format!("nameservers = [\"{}\", \"127.0.0.1:{}\"]", named.address(), super::pebble::free_port()),
    );
    let dead = format!("resolvers = [\"127.0.0.1:{}\"]", super::pebble::free_port());
    let dns = dns.replace(&format!("resolvers = [\"{}\"]", named.address()), &dead);
    let edge = Edge::start(&config(&pebble, &dns, &[NAME]));
    wait_for_handshake(&pebble, NAME, PATIENCE);
    drop(edge);
}

/// Where nothing is named, the machine's resolver and the zone's own name servers are asked: in a namespace of its own, where they
/// are on the port that is theirs.
#[test]
fn the_zones_own_name_servers_are_asked() {
    let folder = tempfile::tempdir().unwrap();
    let resolver = folder.path().join("resolv.conf");
    fs::write(&resolver, "nameserver 127.0.0.1\n").unwrap();
    let script = format!(
        "ip link set lo up && mount --bind {} /etc/resolv.conf && exec \"$0\" \"$@\"",
        resolver.display()
    );
    let output = Command::new("unshare")
        .args(["-Urnm", "sh", "-c", &script])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "acme::dns::in_a_namespace_of_its_own", "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && told.contains("1 passed"), "{told}");
}

#[test]
#[ignore = "run by the test above"]
fn in_a_namespace_of_its_own() {
    let named = Named::start_at(53, "");
    let pebble = pebble(&named);
    let dns = format!(
        "challenge = \"dns-01\"\ndns = {{ provider = \"rfc2136\", server = \"ns.test\", key = {{ file = \"{}\" }}, \
         propagation = \"10s\" }}",
        named.key("edge").display()
    );
    let edge = Edge::start(&config(&pebble, &dns, &["*.app.test"]));
    wait_for_handshake(&pebble, "any.app.test", PATIENCE);
    named.wait_for_txt("_acme-challenge.app.test.", 0);
    let told = edge.log().all();
    assert!(
        !told.contains("the CA is asked to look all the same") && !told.contains("taken for none"),
        "{told}"
    );
}

/// A hook as people write them: `nsupdate` with the key.
#[test]
fn a_hook_writes_the_record() {
    let named = Named::start();
    let pebble = pebble(&named);
    let hook = named.key("hook");
    let script = format!(
        "#!/bin/sh\nset -e\n\
         [ \"$1\" = present ] && line=\"update add $2 60 TXT $3\" || line=\"update delete $2 TXT $3\"\n\
         printf 'server 127.0.0.1 {}\\n%s\\nsend\\n' \"$line\" | nsupdate -k {}\n",
        named.address().port(),
        named.key("edge").display()
    );
    program::write(&hook, &script);
    let dns = format!(
        "challenge = \"dns-01\"\ndns = {{ provider = \"exec\", command = [\"{0}\"], resolvers = [\"{1}\"], \
         nameservers = [\"{1}\"] }}",
        hook.display(),
        named.address()
    );
    let edge = Edge::start(&config(&pebble, &dns, &["*.app.test"]));
    wait_for_handshake(&pebble, "any.app.test", PATIENCE);
    named.wait_for_txt("_acme-challenge.app.test.", 0);
    drop(edge);
    program::write(&hook, "#!/bin/sh\necho 'no zone for that' >&2\nexit 7\n");
    let edge = Edge::start(&config(&pebble, &dns, &[NAME]));
    let failure = said(&edge, "no certificate was obtained")["failure"].as_str().unwrap().to_owned();
    let expected = "asked about _acme-challenge.app.test., failed: exit status: 7: no zone for that";
    assert!(failure.contains(expected), "{failure}");
}

#[test]
fn a_check_reads_the_key_and_looks_for_the_hook() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("edge.toml");
    fs::write(folder.path().join("tsig"), "key edge { algorithm hmac-md5; secret \"aHVudGVyMg==\"; };")
        .unwrap();
    fs::write(folder.path().join("token"), "\n").unwrap();
    fs::write(folder.path().join("hook"), "#!/bin/sh\n").unwrap();
    let key = |file| format!("provider = 'rfc2136', server = 'ns1', key = {{ file = '{file}' }}");
    for (dns, expected) in [
        (key("missing"), ["missing: the secret cannot be read", "(acme.dns.key)"]),
        (key("tsig"), ["\"hmac-md5\" is not one of hmac-sha256", "tsig-keygen -a hmac-sha256"]),
        (
            "provider = 'cloudflare', token = { file = 'token' }".into(),
            ["not an API token", "(acme.dns.token)"],
        ),
        ("provider = 'exec', command = ['hook']".into(), ["hook is not a program", "(acme.dns)"]),
        ("provider = 'exec', command = ['none']".into(), ["none: No such file", "(acme.dns)"]),
    ] {
        let text =
            format!("[[site]]\ndomains = ['*.app.test']\nupstream = 'a:80'\n[acme]\ndns = {{ {dns} }}\n");
        fs::write(&file, text).unwrap();
        let (code, _, stderr) = run(&["check", "--config", file.to_str().unwrap()]);
        assert_eq!(code, Some(2), "{stderr}");
        for part in expected {
            assert!(stderr.contains(part), "no {part:?} in {stderr}");
        }
        assert!(!stderr.contains("aHVudGVyMg"), "{stderr}");
    }
}
