//! The dead man's switch, with a real sshd between hosts.

use std::fs;
use std::path::Path;
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::hosts::{CI, OFFICE, Sshd, build, sh};
use super::in_namespaces;
use super::matrix::{apply, vestibule};
use super::moving::{allow, leased_in_kernel};
use crate::support::PATIENCE;
use crate::support::edge::{BINARY, Edge};

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
    the_watcher_outlives_a_lack_of_memory();
    let deadline = kill_watchers();
    wait_for(&|| uptime() > deadline, "the end of the time");
    let (_, shown, _) = vestibule(&[], &folder.path().join("open.toml"));
    assert!(shown.contains("is over, and they are not taken back yet"), "{shown}");
    let told = vestibule(&["--confirm"], Path::new("/none")).2;
    assert!(told.contains("the rules from before are back"), "{told}");
    assert_eq!(table(), before);

    a_shared_connection_is_as_old_as_it_is(&sshd, folder.path(), &open);
    racing_applies_end_with_one_of_them(folder.path());
}

/// Applied on the console, and confirmed by a login through a connection that was there before.
fn a_shared_connection_is_as_old_as_it_is(sshd: &Sshd, folder: &Path, open: &str) {
    let (socket, own) = (format!("ControlPath={}/shared", folder.display()), "ControlPath=none");
    let by = |socket: &str, more: &[&str], command: &str| {
        sshd.login_by(&[&["-o", socket], more].concat(), &OFFICE, 20, command)
    };
    let keeps = ["-o", "ControlMaster=yes", "-o", "ControlPersist=yes"];
    let (done, told) = by(&socket, &keeps, "true");
    assert!(done, "{told}");
    sh("nft delete table inet vestibule");
    assert_eq!(vestibule(&["--apply", "--within", "1h"], &folder.join("open.toml")).0, Some(0));
    let (done, told) = by(&socket, &[], &format!("{open} --confirm"));
    assert!(!done && told.contains("was open before the rules were applied"), "{told}");
    let (done, told) = by(own, &[], &format!("{open} --confirm"));
    assert!(done, "{told}");
    by(&socket, &["-O", "exit"], "");
}

fn the_watcher_outlives_a_lack_of_memory() {
    // Lowering it takes a right that a container may lack.
    let may = !sh("(echo -1000 >/proc/self/oom_score_adj) 2>/dev/null && echo may || true").is_empty();
    for watcher in watchers() {
        let spared = fs::read_to_string(format!("/proc/{watcher}/oom_score_adj")).unwrap();
        assert_eq!(spared.trim() == "-1000", may);
    }
}

/// Whoever applies over rules that wait, and fails, leaves them waiting.
#[test]
fn a_watcher_that_cannot_begin_disarms_nothing() {
    in_namespaces("firewall::switch::without_watcher");
}

#[test]
#[ignore = "run by the test above"]
fn without_watcher() {
    let folder = tempfile::tempdir().unwrap();
    let (open, other) = (folder.path().join("open.toml"), folder.path().join("other.toml"));
    fs::write(&open, OPEN).unwrap();
    fs::write(&other, OPEN.replace("22 = {", "22222 = {")).unwrap();
    // Its own program is what it starts as the watcher: here, it cannot find it.
    let lame = format!(
        "mkdir {0}/proc && mount -t tmpfs none {0}/proc && mkdir {0}/proc/sys && mount --rbind /proc/sys {0}/proc/sys && \
         mount --rbind {0}/proc /proc && ! {BINARY} firewall --config {1} --apply 2>&1",
        folder.path().display(),
        other.display()
    );
    let lame = |older: bool| {
        let told = sh(&format!("unshare -m sh -ec '{lame}'; rmdir {}/proc", folder.path().display()));
        assert!(told.contains("nobody would take the rules back"), "{told}");
        assert_eq!(Path::new("/run/vestibule-firewall/pending").exists(), older);
    };
    lame(false);
    assert_eq!(table(), None);
    let (code, _, told) = vestibule(&["--apply", "--within", "8s"], &open);
    assert_eq!(code, Some(0), "{told}");
    let applied = table();
    lame(true);
    assert_eq!(table(), applied, "the older rules are in force, and wait");
    wait_for(&|| table().is_none(), "no table, as it was before");
}

/// What came and what ended while rules waited is so in the rules from before, too.
#[test]
fn rules_come_back_with_the_leases_of_the_moment() {
    in_namespaces("firewall::switch::leases_meanwhile");
}

#[test]
#[ignore = "run by the test above"]
fn leases_meanwhile() {
    let edge = Edge::start(OPEN);
    let (config, other) = (edge.folder().join("vestibule.toml"), edge.folder().join("other.toml"));
    fs::write(&other, fs::read_to_string(&config).unwrap().replace("22 = {", "22222 = {")).unwrap();
    let lease = |address: &str, more: &[&str]| allow(&config, &[&["internal", address], more].concat());
    let wait_in_vain = |meanwhile: &dyn Fn()| {
        let (code, _, told) = vestibule(&["--apply", "--within", "4s"], &other);
        assert_eq!(code, Some(0), "{told}");
        meanwhile();
        wait_for(&|| !table().unwrap().contains("22222"), "the rules from before");
    };
    lease("192.0.2.1", &["--for", "1h"]);
    lease("192.0.2.3", &["--for", "1h"]);
    apply(&config);
    wait_in_vain(&|| {
        lease("192.0.2.1", &["--end"]);
        lease("192.0.2.5", &["--for", "1h"]);
    });
    assert_eq!(leased_in_kernel("internal"), ["192.0.2.3", "192.0.2.5"]);
    assert_eq!(vestibule(&["--diff"], &config).0, Some(0));
    // Without an edge, its store tells.
    wait_in_vain(&|| {
        lease("192.0.2.7", &["--for", "1h"]);
        lease("192.0.2.3", &["--end"]);
        edge.signal(Signal::SIGKILL);
    });
    assert_eq!(leased_in_kernel("internal"), ["192.0.2.5", "192.0.2.7"]);
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

/// Kills whoever would take the rules back. Returns when that would have been.
fn kill_watchers() -> f64 {
    let watchers = watchers();
    assert!(!watchers.is_empty());
    for watcher in watchers {
        kill(watcher, Signal::SIGKILL).unwrap();
    }
    let pending: serde_json::Value =
        serde_json::from_str(&fs::read_to_string("/run/vestibule-firewall/pending").unwrap()).unwrap();
    pending["deadline"].as_f64().unwrap()
}

/// The watchers of this network: other tests have theirs.
fn watchers() -> Vec<Pid> {
    let network = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/net")).ok();
    let own = network("self");
    let watches = |pid: &String| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.ends_with(b"\0firewall\0--watch\0") && network(pid) == own
    };
    let processes =
        fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().into_string().ok());
    processes.filter(watches).map(|pid| Pid::from_raw(pid.parse().unwrap())).collect()
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
