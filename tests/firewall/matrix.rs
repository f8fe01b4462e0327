//! Every cell of the guideline's matrix, asked from every host over both families.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use super::hosts::{self, CI, Host, OFFICE, PUBLIC, Sshd, answers, build, connects, hears, listen, sh};
use super::in_namespaces;
use crate::forward::{postgres, redis};
use crate::support::edge::{BINARY, Edge, run};

/// A container that publishes its port 8000 as 9000, and one that publishes 9001, for which there is no row.
const CONTAINER: Host =
    Host { name: "container", own: ["172.30.0.2", "fd00:30::2"], server: ["172.30.0.1", "fd00:30::1"] };

const CONFIG: &str = r#"
[sources]
internal = ["203.0.113.0/24", "2001:db8:10::/48"]
ci = ["198.51.100.7", "2001:db8:20::7"]
abuse = ["192.0.2.66"]

[ports]
80 = { serve = "http", allow = ["public"] }
443 = { serve = "https", allow = ["public"], deny = ["abuse"] }
8443 = { serve = "https", allow = ["internal"] }
22 = { host = true, allow = ["internal", "ci"] }
22222 = { host = true, allow = ["internal", "ci"] }
5432 = { forward = "127.0.0.1:@postgres@", allow = ["internal"] }
6380 = { forward = "127.0.0.1:@redis@", allow = ["internal"], tls = "redis.app.test", certificate = "internal" }
6379 = { host = true, allow = ["ci"], deny = ["internal"] }
51820 = { host = true, allow = ["public"] }
9000 = { host = true, allow = ["internal"] }
"[2001:db8:10::1]:9100" = { host = true, allow = ["internal"] }
"203.0.113.1:9100" = { host = true, allow = ["internal"] }
9100 = { host = true, allow = ["ci"] }

[[site]]
domains = ["app.test"]
upstream = "127.0.0.1:9"
certificate = "internal"
"#;

/// Port, and who reaches it: public, office, CI.
const EXPECTED: &[(u16, [bool; 3])] = &[
    (80, [true, true, true]),
    (443, [true, true, true]),
    (8443, [false, true, false]),
    (22, [false, true, true]),
    (22222, [false, true, true]),
    (5432, [false, true, false]),
    (6380, [false, true, false]),
    (6379, [false, false, true]),
    (9000, [false, true, false]),
    (9001, [false, false, false]),
    (9100, [false, true, true]),
    (7777, [false, false, false]),
];

#[test]
fn every_cell_is_what_the_table_says() {
    in_namespaces("firewall::matrix::cells");
}

#[test]
#[ignore = "run by the test above"]
fn cells() {
    build(&[&PUBLIC, &OFFICE, &CI, &CONTAINER]);
    publish_as_docker_does();
    let folder = tempfile::tempdir().unwrap();
    let (postgres, redis) = (postgres::Server::start(), redis::Server::start());
    let config = CONFIG.replace("@postgres@", &postgres.port.number().to_string());
    let edge = Edge::start(&config.replace("@redis@", &redis.port.number().to_string()));
    let _sshd = Sshd::start(folder.path());
    for port in [22222, 6379, 7777, 9100] {
        listen(None, port, "host");
    }
    listen(Some("container"), 8000, "container");
    hosts::echo(51820);
    hosts::echo(7777);
    let config = edge.folder().join("vestibule.toml");
    assert_eq!(wrong_cells(EXPECTED, true), Vec::<String>::new(), "without rules, everything is open");
    forwarded_servers_answer_the_office_alone(&edge);
    apply(&config);
    assert_eq!(wrong_cells(EXPECTED, false), Vec::<String>::new());
    forwarded_servers_answer_the_office_alone(&edge);
    datagrams_go_by_the_same_rows();
    what_is_not_ours_is_not_touched();
    the_address_of_one_row_is_its_own();
    denied_addresses_are_kept_out();
    a_change_by_somebody_else_is_noticed(&config);
}

/// As Docker's NAT does, for both families, at the same priority.
fn publish_as_docker_does() {
    for (family, to) in [("ip", "172.30.0.2"), ("ip6", "[fd00:30::2]")] {
        sh(&format!(
            "nft 'add table {family} nat; add chain {family} nat PREROUTING {{ type nat hook prerouting priority dstnat; }}; \
             add rule {family} nat PREROUTING fib daddr type local tcp dport {{ 9000, 9001 }} dnat to {to}:8000'"
        ));
    }
}

/// Asks every cell, and prints what was expected and what was seen. Returns those that differ.
pub(super) fn wrong_cells(table: &[(u16, [bool; 3])], all_open: bool) -> Vec<String> {
    let mut cells = Vec::new();
    for (port, expected) in table {
        for (host, open) in [&PUBLIC, &OFFICE, &CI].into_iter().zip(expected) {
            cells.extend(host.server.map(|to| (host.name, to, *port, *open || all_open)));
        }
    }
    let lines: Vec<(bool, String)> = std::thread::scope(|scope| {
        let ask = |(host, to, port, open)| {
            scope.spawn(move || {
                let seen = connects(host, to, port, open);
                let word = |open| if open { "open" } else { "closed" };
                let line = format!("{host:6} to {to}:{port}: expected {}, seen {}", word(open), word(seen));
                (seen == open, line)
            })
        };
        let asked: Vec<_> = cells.into_iter().map(ask).collect();
        asked.into_iter().map(|asked| asked.join().unwrap()).collect()
    });
    eprintln!("{}", lines.iter().map(|(_, line)| line.as_str()).collect::<Vec<_>>().join("\n"));
    let wrong: Vec<String> = lines.iter().filter(|(right, _)| !right).map(|(_, line)| line.clone()).collect();
    eprintln!("{} of {} cells as expected", lines.len() - wrong.len(), lines.len());
    wrong
}

/// By their own clients. The edge keeps the others out where the kernel does not, and the other way round.
fn forwarded_servers_answer_the_office_alone(edge: &Edge) {
    let ca = edge.ca();
    std::thread::scope(|scope| {
        for host in [&PUBLIC, &OFFICE, &CI] {
            for to in host.server {
                let (expected, ca) = (host.name == OFFICE.name, ca.to_str().unwrap());
                let psql = ["psql", "-h", to, "-U", "edge", "-d", "postgres", "-Atc", "select 'PO' || 'NG'"];
                let tls = ["--tls", "--cacert", ca, "--sni", "redis.app.test"];
                let redis = [&["redis-cli", "-h", to, "-p", "6380"], &tls[..], &["ping"]].concat();
                for words in [psql.to_vec(), redis] {
                    scope.spawn(move || {
                        let told = told(host, &words, expected);
                        assert_eq!(told.trim() == "PONG", expected, "{} {words:?}: {told}", host.name);
                    });
                }
            }
        }
    });
}

/// What a command prints that runs on a host. Only an answer that is not expected is waited for no longer than this.
fn told(host: &Host, words: &[&str], expected: bool) -> String {
    let patience = if expected { "60" } else { "2" };
    let mut command = Command::new("ip");
    command.args(["netns", "exec", host.name, "timeout", patience]).args(words);
    let output = command.env("PGPASSWORD", postgres::PASSWORD).stdin(Stdio::null()).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn datagrams_go_by_the_same_rows() {
    for (host, port, open) in [(&PUBLIC, 51820, true), (&PUBLIC, 7777, false), (&OFFICE, 7777, false)] {
        for to in host.server {
            assert_eq!(answers(host.name, to, port, open), open, "{} to {to}:{port}", host.name);
        }
    }
}

/// Routed traffic, containers on their way out, what the server itself asks for, and pings.
fn what_is_not_ours_is_not_touched() {
    listen(Some("ci"), 4000, "ci");
    listen(Some("office"), 4000, "office");
    for (from, to) in [("office", CI.own), ("container", OFFICE.own)] {
        for to in to {
            assert!(connects(from, to, 4000, true), "{from} to {to}");
        }
    }
    for (address, word) in [(CI.own[0], "ci"), (OFFICE.own[1], "office")] {
        let mut stream = std::net::TcpStream::connect((address, 4000)).unwrap();
        let mut told = String::new();
        std::io::Read::read_to_string(&mut stream, &mut told).unwrap();
        assert_eq!(told, word);
    }
    for to in PUBLIC.server {
        sh(&format!("ip netns exec public ping -c 1 -W 20 {to}"));
    }
    // The container reaches the host as any address does: where a row is public, and where none is not.
    assert!(connects("container", CONTAINER.server[0], 443, true));
    assert!(!connects("container", CONTAINER.server[0], 5432, false));
    assert_eq!(hears("office", OFFICE.server[0], 9000), "container", "the port is the container's, by NAT");
    assert!(std::net::TcpStream::connect(("127.0.0.1", 7777)).is_ok(), "this machine itself");
    assert!(std::net::TcpStream::connect((PUBLIC.server[0], 7777)).is_ok(), "by its outer address too");
}

/// At 203.0.113.1 the row for all addresses has no say.
fn the_address_of_one_row_is_its_own() {
    assert!(!connects("ci", OFFICE.server[0], 9100, false));
    assert!(connects("office", OFFICE.server[0], 9100, true));
    assert!(!connects("office", CI.server[0], 9100, false));
}

fn denied_addresses_are_kept_out() {
    sh("ip -n public addr del 192.0.2.9/24 dev eth0 && ip -n public addr add 192.0.2.66/24 dev eth0");
    assert!(!connects("public", PUBLIC.server[0], 443, false));
    assert!(connects("public", PUBLIC.server[0], 80, true));
    sh("ip -n public addr del 192.0.2.66/24 dev eth0 && ip -n public addr add 192.0.2.9/24 dev eth0");
}

fn a_change_by_somebody_else_is_noticed(config: &Path) {
    let (code, out, told) = vestibule(&["--diff"], config);
    assert_eq!((code, out.as_str()), (Some(0), "the kernel has what the configuration says\n"), "{told}");
    for (change, undo, expected) in [
        (
            "add element inet vestibule v4_ci { 192.0.2.9 }",
            "delete element inet vestibule v4_ci { 192.0.2.9 }",
            "- set v4_ci: 192.0.2.9\n",
        ),
        (
            "insert rule inet vestibule doors tcp dport 7777 accept",
            "delete rule inet vestibule doors handle $(nft -a list chain inet vestibule doors | sed -n '/7777/s/.*handle //p')",
            "- chain doors: tcp dport 7777 accept\n",
        ),
    ] {
        sh(&format!("nft \"{change}\""));
        let (code, out, _) = vestibule(&["--diff"], config);
        assert_eq!((code, out.as_str()), (Some(1), expected));
        sh(&format!("nft \"{undo}\""));
        assert_eq!(vestibule(&["--diff"], config).0, Some(0));
    }
    let text = fs::read_to_string(config).unwrap();
    fs::write(config, text.replace("22222 = {", "22223 = {")).unwrap();
    let (code, out, _) = vestibule(&["--diff"], config);
    assert!(
        code == Some(1) && out.contains("+ chain port_22223") && out.contains("- chain port_22222"),
        "{out}"
    );
    fs::write(config, text).unwrap();
    sh("nft add table inet other && nft delete table inet vestibule");
    assert_eq!(vestibule(&["--diff"], config).0, Some(1));
    sh("nft list table inet other");
}

/// Puts the rules in force, for good: what nobody confirms is taken back after a minute, which may be in the middle of a test.
/// Who confirms does it in another session.
#[track_caller]
pub(super) fn apply(config: &Path) {
    let (code, out, told) = vestibule(&["--apply"], config);
    assert_eq!(code, Some(0), "{out}{told}");
    sh(&format!("setsid --wait {BINARY} firewall --config {} --confirm", config.display()));
}

pub(super) fn vestibule(arguments: &[&str], config: &Path) -> (Option<i32>, String, String) {
    run(&[&["firewall", "--config", config.to_str().unwrap()], arguments].concat())
}
