//! What needs a place of its own: a small disk, the port 80, a machine where certbot has been.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;
use time::OffsetDateTime;

use super::notices::{hook, told};
use super::partial::list;
use super::pebble::{Options, Pebble, rows};
use super::proxy::{FINALIZE, Fault, NEW_ORDER};
use super::{NAME, certs, edge, handshake, metrics, said, said_late, site, table, wait_for_handshake};
use crate::support::PATIENCE;
use crate::support::edge::Edge;

/// Where the tests inside a namespace find their folder.
const PLACE: &str = "ACME_PLACE";

/// Runs an ignored test of this module in namespaces of its own, once the script has prepared them.
fn inside(flags: &str, script: &str, test: &str, place: &Path) {
    let output = Command::new("unshare")
        .args([flags, "sh", "-c", &format!("{script} && exec \"$0\" \"$@\"")])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &format!("acme::places::{test}"), "--ignored", "--nocapture"])
        .env(PLACE, place)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && told.contains("1 passed"), "{told}");
}

fn place() -> PathBuf {
    PathBuf::from(std::env::var_os(PLACE).unwrap())
}

#[test]
fn a_full_disk_costs_no_order() {
    let folder = tempfile::tempdir().unwrap();
    let script = format!("mount -t tmpfs -o size=2m none {}", folder.path().display());
    inside("-Urm", &script, "on_a_small_disk", folder.path());
}

#[test]
#[ignore = "run by the test above"]
fn on_a_small_disk() {
    let pebble = Pebble::start(Options::default());
    let problem = r#"{"type":"urn:ietf:params:acme:error:rejectedIdentifier","detail":"no"}"#;
    pebble.proxy.fault(NEW_ORDER, 1, Fault::Answer(400, Vec::new(), problem.into()));
    let store = format!("[store]\npath = \"{}/store\"\n", place().display());
    let edge =
        Edge::start(&format!("{}{}{}{store}", rows(pebble.ports, "public"), table(&pebble, ""), site(NAME)));
    said(&edge, "no certificate was obtained");
    // Full before an order: none is made.
    let ballast = place().join("ballast");
    let fill = || assert!(fs::write(&ballast, vec![7; 4 << 20]).is_err());
    fill();
    let (code, out, err) = certs(&edge, "renew", NAME);
    assert_eq!(code, Some(2), "{out}");
    assert!(err.contains("No space left on device"), "{err}");
    assert_eq!(pebble.proxy.seen(NEW_ORDER).len(), 1);
    let (_, page, _) = certs(&edge, "show", NAME);
    assert!(page.contains("it cannot be seen to: ") && page.contains("No space left on device"), "{page}");
    fs::remove_file(&ballast).unwrap();
    // Full once it exists: it is gone on with, and what it leads to is served from memory.
    let wait = vec![("retry-after", "3".to_owned())];
    pebble.proxy.fault(FINALIZE, 1, Fault::Answer(503, wait, String::new()));
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| certs(&edge, "renew", NAME));
        pebble.proxy.wait(FINALIZE, 1);
        fill();
        let (code, out, err) = asked.join().unwrap();
        assert_eq!(code, Some(0), "{out}{err}");
    });
    wait_for_handshake(&pebble, NAME, PATIENCE);
    said(&edge, "the store does not take a record; it is kept in memory, and written later");
    fs::remove_file(&ballast).unwrap();
    said_late(&edge, "the disk took what it had refused");
    assert_eq!(pebble.proxy.orders(), 1);
    // And another process finds it.
    pebble.proxy.fault(NEW_ORDER, 99, Fault::Hang);
    let edge = edge.kill_and_start();
    wait_for_handshake(&pebble, NAME, PATIENCE);
    assert_eq!(pebble.proxy.orders(), 1);
    drop(edge);
}

#[test]
fn a_store_that_has_become_read_only_is_told_of() {
    let folder = tempfile::tempdir().unwrap();
    let script = format!("mount -t tmpfs -o size=2m none {}", folder.path().display());
    inside("-Urm", &script, "on_a_disk_that_becomes_read_only", folder.path());
}

#[test]
#[ignore = "run by the test above"]
fn on_a_disk_that_becomes_read_only() {
    let pebble = Pebble::start(Options::default());
    let (file, hook) = hook(pebble.folder.path(), "exit 0");
    let store = format!("[store]\npath = \"{}/store\"\n", place().display());
    let text = rows(pebble.ports, "public") + &table(&pebble, &hook) + &site(NAME) + &store;
    let mut edge = Edge::start(&text);
    wait_for_handshake(&pebble, NAME, PATIENCE);
    assert_eq!(told(&file, 1)[0].0, format!("first obtained {NAME}"));
    edge.signal(Signal::SIGKILL);
    edge.wait();
    super::alter_in(&place().join("store"), NAME, |record| {
        let (life, now) = (time::Duration::days(90), OffsetDateTime::now_utc());
        let bundle = record.bundle.as_mut().unwrap();
        (bundle.not_after, bundle.not_before) = (now + life / 100, now + life / 100 - life);
        (record.retry.failures, record.retry.last_error) = (1, Some("the CA was down".to_owned()));
    });
    remount("ro");
    let edge = edge.kill_and_start();
    let why = "Read-only file system";
    let (arguments, json) = told(&file, 2).pop().unwrap();
    assert_eq!(arguments, format!("first expiring {NAME}"));
    assert!(json["error"].as_str().unwrap().contains(why), "{json}");
    let listed = list(&edge);
    assert!(listed.contains("! it cannot be seen to: ") && listed.contains(why), "{listed}");
    metrics::is(&edge, "last_attempt_successful", NAME, 0);
    // Another look, and what it finds is told already.
    assert!(certs(&edge, "renew", NAME).2.contains(why));
    std::thread::sleep(std::time::Duration::from_secs(1)); // nothing more comes
    assert_eq!((told(&file, 2).len(), pebble.proxy.orders()), (2, 1));
    remount("rw");
    let (code, out, err) = certs(&edge, "renew", NAME);
    assert_eq!((code, pebble.proxy.orders()), (Some(0), 2), "{out}{err}");
    let listed = list(&edge);
    assert!(listed.contains("all in order"), "{listed}");
    metrics::is(&edge, "last_attempt_successful", NAME, 1);
    assert_eq!(told(&file, 3)[2].0, format!("first obtained {NAME}"));
}

fn remount(how: &str) {
    let options = format!("remount,{how}");
    assert!(Command::new("mount").args(["-o", &options]).arg(place()).status().unwrap().success());
}

#[test]
fn a_name_that_leads_here_is_seen_to() {
    let folder = tempfile::tempdir().unwrap();
    let hosts = folder.path().join("hosts");
    fs::write(&hosts, format!("127.0.0.1 localhost {NAME}\n")).unwrap();
    let script = format!("ip link set lo up && mount --bind {} /etc/hosts", hosts.display());
    inside("-Urnm", &script, "where_the_name_leads", folder.path());
}

#[test]
#[ignore = "run by the test above"]
fn where_the_name_leads() {
    let pebble = Pebble::start(Options::default());
    let own =
        rows(pebble.ports, "public") + "\"127.0.0.1:80\" = { serve = \"http\", allow = [\"public\"] }\n";
    let log = "[log]\nformat = \"json\"\nlevel = \"debug\"\n";
    let edge = Edge::start(&format!("{own}{}{}{log}", table(&pebble, ""), site(NAME)));
    wait_for_handshake(&pebble, NAME, PATIENCE);
    assert_eq!(said(&edge, "a name leads here")["name"], NAME);
    assert!(!edge.log().all().contains("a name does not lead to this edge"));
}

/// A warning is all that it is: the CA may see more.
#[test]
fn a_name_that_seems_to_lead_elsewhere_is_ordered_all_the_same() {
    let pebble = Pebble::start(Options::default());
    let edge = edge(&pebble, "");
    let why = said(&edge, "seen from here, a name does not lead to this edge; a CA may refuse it");
    assert!(why["why"].as_str().unwrap().starts_with("it does not resolve"), "{why}");
    wait_for_handshake(&pebble, NAME, PATIENCE);
    assert_eq!(super::record(&edge, NAME)["retry"]["failures"], 0);
    assert_eq!(pebble.proxy.orders(), 1);
}

/// Debian's certbot obtains a certificate, with an account of its own; the edge serves it, and renews it when that is due.
#[test]
fn what_a_real_certbot_has_obtained_is_served_and_renewed() {
    let pebble = Pebble::start(Options { lives: (90 * 86_400, 90 * 86_400), ..Options::default() });
    let home = certbot(&pebble);
    assert_eq!(pebble.proxy.orders(), 1);
    let edge = edge(&pebble, &format!("import = \"{}\"", home.display()));
    let roots = pebble.issuing_root();
    let first = handshake(&pebble, &roots, NAME).expect("served from the first handshake on");
    let (_, page, _) = certs(&edge, "show", NAME);
    assert!(page.contains("acme, imported"), "{page}");
    assert_eq!(pebble.proxy.orders(), 1, "no order was needed");
    // Its order was another account's, which the CA may refuse to have replaced.
    let (code, out, err) = certs(&edge, "renew", NAME);
    assert_eq!(code, Some(0), "{out}{err}");
    assert_eq!(pebble.proxy.orders(), 2);
    assert_ne!(handshake(&pebble, &roots, NAME).unwrap(), first);
}

/// As where nginx had the redirected name on port 80 alone.
#[test]
fn what_certbot_has_for_some_of_the_names_is_served_until_there_is_one_for_all() {
    let www = "www.app.test";
    let pebble = Pebble::start(Options { lives: (90 * 86_400, 90 * 86_400), ..Options::default() });
    let import = format!("import = \"{}\"", certbot(&pebble).display());
    pebble.proxy.fault(NEW_ORDER, 1, Fault::Hang);
    let sites = site(NAME).replace("certificate =", &format!("redirect = [\"{www}\"]\ncertificate ="));
    let edge = Edge::start(&(rows(pebble.ports, "public") + &table(&pebble, &import) + &sites));
    let roots = pebble.issuing_root();
    handshake(&pebble, &roots, NAME).expect("served from the first handshake on");
    handshake(&pebble, &roots, www).expect_err("nobody has a certificate for it");
    pebble.proxy.wait(NEW_ORDER, 2);
    pebble.proxy.behave();
    let edge = edge.kill_and_start();
    wait_for_handshake(&pebble, www, PATIENCE);
    handshake(&pebble, &roots, NAME).unwrap();
    assert!(super::record(&edge, NAME)["bundle"]["lacks"].as_array().is_none_or(Vec::is_empty));
}

/// What Debian's certbot makes of its first certificate.
fn certbot(pebble: &Pebble) -> PathBuf {
    let home = pebble.folder.path().join("letsencrypt");
    let output = Command::new("certbot")
        .args(["certonly", "--non-interactive", "--agree-tos", "--standalone", "-m", "ops@example.com"])
        .args(["-d", NAME, "--server", &pebble.directory()])
        .args([
            "--http-01-port",
            &pebble.ports.http.to_string(),
            "--http-01-address",
            "127.0.0.1",
            "--config-dir",
        ])
        .arg(&home)
        .arg("--work-dir")
        .arg(pebble.folder.path().join("work"))
        .arg("--logs-dir")
        .arg(pebble.folder.path().join("logs"))
        .env("REQUESTS_CA_BUNDLE", pebble.ca_root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    home
}
