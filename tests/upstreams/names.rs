//! Names that lead elsewhere, nowhere, or to several addresses: in a namespace with a name server of the tests' own.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::process::Command;

use super::{edge, say, wait, wait_for_status};
use crate::support::client::{NAME, connect};
use crate::support::dns::{Dns, Mood};
use crate::support::upstream::Upstream;

const PORT: u16 = 8000;

/// Runs the tests below where port 53, /etc/resolv.conf and /etc/hosts are theirs.
#[test]
fn names_are_followed() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let resolv = file("resolv.conf", "nameserver 127.0.0.1\nsearch test\noptions timeout:1 attempts:1\n");
    let hosts = file("hosts", "127.0.0.1 localhost\n127.0.0.21 known\n");
    let script = format!(
        "ip link set lo up && mount --bind {resolv} /etc/resolv.conf && mount --bind {hosts} /etc/hosts && exec \"$0\" \"$@\""
    );
    let output = Command::new("unshare")
        .args(["-Urnm", "sh", "-c", &script])
        .arg(std::env::current_exe().unwrap())
        .args(["upstreams::names::inside", "--ignored", "--nocapture", "--test-threads", "1"])
        .env("VESTIBULE_TEST_HOSTS", &hosts)
        .env("VESTIBULE_TEST_RESOLV", &resolv)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && told.contains("1 passed"), "{told}");
}

/// One test, so that the server is started once.
#[test]
#[ignore = "run by the test above"]
fn inside() {
    let dns = Dns::start();
    an_address_that_changes(&dns);
    several_addresses(&dns);
    a_name_that_is_not_there_yet(&dns);
    a_server_in_trouble(&dns);
    hosts_come_first(&dns);
    hosts_are_enough();
}

fn an_address_that_changes(dns: &Dns) {
    let (a, b) = (ip("127.0.0.11"), ip("127.0.0.12"));
    let old = at(a, "old");
    dns.set("django.test", &[a], 600);
    // A search domain is put behind the short name, as Compose's users write it.
    let edge = edge(&[format!("django:{PORT}")], "hold = \"60s\"");
    let mut client = connect(&edge);
    assert_eq!(client.get("/").unwrap().text(), "old");
    // Gone from one moment to the next, long before the TTL's end: the request that meets it is answered by the new one.
    let new = at(b, "new");
    dns.set("django.test", &[b], 600);
    drop(old);
    (0..20).for_each(|_| assert_eq!(client.get("/").unwrap().text(), "new"));
    let post = format!("POST / HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: 2\r\n\r\nhi");
    assert_eq!(client.ask(post).unwrap().text(), "new");
    // And on, while both are there: the old one is left to itself.
    let third = at(a, "third");
    dns.set("django.test", &[a], 1);
    while client.get("/").unwrap().text() != "third" {}
    new.wait_open(0);
    let mark = new.mark();
    (0..20).for_each(|_| assert_eq!(client.get("/").unwrap().text(), "third"));
    assert_eq!(new.mark(), mark);
    drop(third);
}

fn several_addresses(dns: &Dns) {
    let all = [ip("127.0.0.11"), ip("127.0.0.12"), ip("::1")];
    let upstreams = [at(all[0], "a"), at(all[1], "b"), at(all[2], "c")];
    dns.set("several.test", &all[..2], 1);
    let edge = edge(&[format!("several.test:{PORT}")], "balance = \"round-robin\"");
    let mut client = connect(&edge);
    (0..20).for_each(|_| assert_eq!(client.get("/").unwrap().status, 200));
    assert_eq!([0, 1, 2].map(|index| upstreams[index].mark()), [10, 10, 0]);
    dns.set("several.test", &all, 1);
    while client.get("/").unwrap().text() != "c" {}
    let status =
        wait_for_status(&edge, "three are up", |all| all[0]["targets"].as_array().unwrap().len() == 3);
    assert_eq!(status[0]["targets"][2]["address"], format!("[::1]:{PORT}"), "{status}");
    dns.set("several.test", &all[1..], 1);
    upstreams[0].wait_open(0);
    wait_for_status(&edge, "two are left", |all| all[0]["targets"].as_array().unwrap().len() == 2);
    let mark = upstreams[0].mark();
    (0..20).for_each(|_| assert_eq!(client.get("/").unwrap().status, 200));
    assert_eq!(upstreams[0].mark(), mark);
}

fn a_name_that_is_not_there_yet(dns: &Dns) {
    let edge = edge(&[format!("later.test:{PORT}")], "hold = \"60s\"");
    let mut client = connect(&edge);
    client.send(format!("POST / HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: 2\r\n\r\nhi")).unwrap();
    wait_for_status(&edge, "it waits", wait(1));
    wait_for_status(&edge, "why is told", |all| {
        let target = &all[0]["targets"][0];
        target["state"] == "unresolved"
            && target["error"].as_str().is_some_and(|error| error.contains("no address"))
    });
    let upstream = at(ip("127.0.0.11"), "later");
    dns.set("later.test", &[ip("127.0.0.11")], 600);
    assert_eq!(client.response().unwrap().text(), "later");
    drop(upstream);
}

/// A server that fails, says nothing or says nonsense takes nothing away that was known.
fn a_server_in_trouble(dns: &Dns) {
    let upstream = at(ip("127.0.0.11"), "there");
    dns.set("trouble.test", &[ip("127.0.0.11")], 1);
    let edge = edge(&[format!("trouble.test:{PORT}")], "hold = \"0s\"");
    let mut client = connect(&edge);
    assert_eq!(client.get("/").unwrap().text(), "there");
    for mood in [Mood::Failing, Mood::Garbage, Mood::Silent] {
        dns.be(mood);
        let asked = dns.asked();
        while dns.asked() < asked + 4 {
            assert_eq!(client.get("/").unwrap().text(), "there", "{mood:?}");
        }
    }
    dns.be(Mood::Well);
    drop(upstream);
}

fn hosts_come_first(dns: &Dns) {
    dns.set("known.test", &[ip("127.0.0.99")], 600);
    let (first, second) = (at(ip("127.0.0.21"), "first"), at(ip("127.0.0.22"), "second"));
    let edge = edge(&[format!("known:{PORT}")], "");
    let mut client = connect(&edge);
    assert_eq!(client.get("/").unwrap().text(), "first");
    fs::write(std::env::var("VESTIBULE_TEST_HOSTS").unwrap(), "127.0.0.1 localhost\n127.0.0.22 known\n")
        .unwrap();
    drop(first);
    while client.get("/").unwrap().text() != "second" {}
    drop(second);
}

/// Where resolv.conf names no server at all, what /etc/hosts knows is known.
fn hosts_are_enough() {
    fs::write(std::env::var("VESTIBULE_TEST_RESOLV").unwrap(), "# nobody\n").unwrap();
    let upstream = at(ip("127.0.0.22"), "known");
    let edge = edge(&[format!("known:{PORT}"), format!("elsewhere:{PORT}")], "");
    assert_eq!(connect(&edge).get("/").unwrap().text(), "known");
    wait_for_status(&edge, "why is told", |all| {
        all[0]["targets"][1]["error"].as_str().is_some_and(|error| error.contains("/etc/resolv.conf"))
    });
    drop(upstream);
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn at(ip: IpAddr, word: &'static str) -> Upstream {
    Upstream::raw_at(SocketAddr::new(ip, PORT), move |connection| -> io::Result<()> {
        while connection.request().is_some() {
            say(&mut connection.stream, word)?;
        }
        Ok(())
    })
}
