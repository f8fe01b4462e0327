//! The dead man's switch, with a real sshd between hosts.

use std::fs;
use std::path::Path;
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::hosts::{CI, OFFICE, Sshd, build, sh};
use super::in_namespaces;
use super::matrix::vestibule;
use crate::support::PATIENCE;
use crate::support::edge::BINARY;

const OPEN: &str = r#"
[sources]
internal = ["203.0.113.0/24"]
[ports]
443 = { serve = "https", allow = ["public"] }
22 = { host = true, allow = ["internal"] }
[[site]]
domains = ["app.test"]
upstream = "127.0.0.1:9"
certificate = "internal"
"#;

#[test]
fn nobody_locks_themselves_out() {
    in_namespaces("firewall::switch::locked_out");
}

#[test]
#[ignore = "run by the test above"]
fn locked_out() {
    build(&[&OFFICE, &CI]);
    let folder = tempfile::tempdir().unwrap();
    let sshd = Sshd::start(folder.path());
    let write = |name: &str, text: &str| {
        let file = folder.path().join(name);
        fs::write(&file, text).unwrap();
        format!("{BINARY} firewall --config {}", file.display())
    };
    let open = write("open.toml", OPEN);
    let closed = write("closed.toml", &OPEN.replace("22 = {", "22222 = {"));
    let office = |command: &str| sshd.login(&OFFICE, 20, command);

    let (done, told) = office(&format!("{closed} --apply"));
    assert!(!done && told.contains("would keep you out: you came from 203.0.113.7 to port 22"), "{told}");
    assert!(told.contains("no row opens port 22") && table().is_none(), "{told}");

    // The first rules ever, confirmed through the connection that applied them: in vain.
    let (done, told) = office(&format!("{open} --apply --within 1h && {open} --confirm"));
    assert!(!done && told.contains("this is the connection that applied the rules"), "{told}");
    let (done, told) = office(&format!("{open} --confirm"));
    assert!(done && told.contains("confirmed"), "{told}");
    assert!(!office(&format!("{open} --confirm")).0, "nothing is left to confirm");
    let (done, told) = office(&format!("{open} --apply"));
    assert!(done && told.contains("has these rules already"), "{told}");
    assert!(!sshd.login(&CI, 2, "true").0, "the rules are in force");
    let before = table();

    // Rules that cut ssh off, and nobody who could confirm them: ssh comes back by itself, the watcher's terminal long gone.
    let (done, told) = office(&format!("{closed} --apply --force --within 12s"));
    assert!(done, "{told}");
    assert!(table() != before && !sshd.login(&OFFICE, 2, "true").0, "the rules do cut ssh off");
    wait_for(&|| table() == before, "the rules from before");
    let (done, told) = office("true");
    assert!(done, "{told}");
    let (done, told) = office(&format!("{open} --confirm"));
    assert!(!done && told.contains("the last ones were taken back"), "{told}");

    // Two that nobody confirms, one over the other: what comes back is what was confirmed.
    let (done, told) = office(&format!("{closed} --apply --force --within 1h && {open} --apply --within 3s"));
    assert!(done, "{told}");
    wait_for(&|| !Path::new("/run/vestibule-firewall/pending").exists(), "the end of the wait");
    assert_eq!(table(), before);

    // A watcher that is killed: the next command sees that the time is over.
    let (done, told) = office(&format!("{closed} --apply --force --within 10s"));
    assert!(done, "{told}");
    let deadline = kill_watcher();
    wait_for(&|| uptime() > deadline, "the end of the time");
    let told = vestibule(&["--confirm"], Path::new("/none")).2;
    assert!(told.contains("the rules from before are back"), "{told}");
    assert_eq!(table(), before);

    racing_applies_end_with_one_of_them(folder.path());
}

/// The time that is given where nobody says another.
#[test]
#[ignore = "by hand: it takes more than the minute"]
fn a_minute_later_ssh_works_again() {
    in_namespaces("firewall::switch::a_minute");
}

#[test]
#[ignore = "run by the test above"]
fn a_minute() {
    build(&[&OFFICE]);
    let folder = tempfile::tempdir().unwrap();
    let sshd = Sshd::start(folder.path());
    let file = folder.path().join("closed.toml");
    fs::write(&file, OPEN.replace("22 = {", "22222 = {")).unwrap();
    let (done, told) =
        sshd.login(&OFFICE, 20, &format!("{BINARY} firewall --config {} --apply --force", file.display()));
    let applied = Instant::now();
    assert!(done && told.contains("come back in 1m"), "{told}");
    let mut tries = 0;
    while !sshd.login(&OFFICE, 2, "true").0 {
        tries += 1;
        assert!(applied.elapsed().as_secs() < 120, "ssh stays cut");
    }
    let passed = applied.elapsed();
    eprintln!("{told}{tries} logins in vain, and one after {passed:.1?}");
    assert!(tries > 0 && passed.as_secs() >= 55 && table().is_none());
}

fn racing_applies_end_with_one_of_them(folder: &Path) {
    sh("nft delete table inet vestibule");
    let commands: Vec<String> = (0..8)
        .map(|number| {
            let file = folder.join(format!("race-{number}.toml"));
            fs::write(&file, OPEN.replace("22 = {", &format!("220{number} = {{"))).unwrap();
            format!("{BINARY} firewall --config {} --apply --within 12s &", file.display())
        })
        .collect();
    sh(&format!("{} wait", commands.join(" ")));
    let rules = table().unwrap();
    assert_eq!(rules.matches("th dport 220").count(), 1, "{rules}");
    wait_for(&|| table().is_none(), "no table, as it was before the first of them");
    wait_for(&|| !Path::new("/run/vestibule-firewall/previous.nft").exists(), "a tidy end");
}

/// The watcher is the one process that knows the token. Returns when it would have acted.
fn kill_watcher() -> f64 {
    let pending: serde_json::Value =
        serde_json::from_str(&fs::read_to_string("/run/vestibule-firewall/pending").unwrap()).unwrap();
    let token = pending["token"].as_str().unwrap();
    let processes = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse::<i32>().ok());
    let knows =
        |pid: &i32| fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.contains(token));
    let watchers: Vec<i32> = processes.filter(knows).collect();
    assert_eq!(watchers.len(), 1, "one watcher");
    kill(Pid::from_raw(watchers[0]), Signal::SIGKILL).unwrap();
    pending["deadline"].as_f64().unwrap()
}

fn uptime() -> f64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).unwrap();
    std::time::Duration::from(now).as_secs_f64()
}

/// What the kernel has of ours, without what moves by itself.
fn table() -> Option<String> {
    let listed = sh("nft -s list table inet vestibule 2>/dev/null || true");
    (!listed.is_empty()).then_some(listed)
}

#[track_caller]
fn wait_for(condition: &dyn Fn() -> bool, what: &str) {
    let deadline = Instant::now() + 2 * PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not come");
        std::thread::sleep(std::time::Duration::from_millis(20)); // the kernel tells nobody
    }
}
