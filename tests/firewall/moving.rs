//! Sources that move: leases in the edge and in the kernel, and files that change.

use std::fmt::Write as _;
use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use vestibule::firewall::switch::FOLDER;

use super::hosts::{PUBLIC, build, connects, listen, on, sh};
use super::in_namespaces;
use super::matrix::{apply, vestibule};
use crate::support::PATIENCE;
use crate::support::client::{self, NAME, Wire};
use crate::support::edge::{BINARY, Edge, ROWS, run};
use crate::support::upstream::Upstream;

const CONFIG: &str = r#"
[sources]
ci = ["198.51.100.7"]
abuse = ["198.51.100.66"]

[ports]
443 = { serve = "https", allow = ["public"], deny = ["abuse"] }
8443 = { serve = "https", allow = ["ci"] }
2222 = { host = true, allow = ["ci"] }

[[site]]
domains = ["app.test"]
upstream = "127.0.0.1:9"
certificate = "internal"
"#;

#[test]
fn a_lease_opens_and_ends() {
    in_namespaces("firewall::moving::leased");
}

#[test]
#[ignore = "run by the test above"]
fn leased() {
    build(&[&PUBLIC]);
    listen(None, 2222, "host");
    let edge = Edge::start(CONFIG);
    let config = edge.folder().join("vestibule.toml");
    let [to, to6] = PUBLIC.server;
    // Without the kernel's rules: the edge alone. It closes in silence what the kernel lets in.
    assert!(!is_served(&edge, to, 8443));
    assert!(
        allow(&config, &["ci", "192.0.2.9", "--for", "1h"])
            .contains("192.0.2.9 belongs to ci for 1h, until 20")
    );
    assert!(is_served(&edge, to, 8443) && !is_served(&edge, to6, 8443));
    apply(&config);
    assert!(connects("public", to, 2222, true), "what was leased before is in the rules");
    assert!(!connects("public", to6, 2222, false));
    allow(&config, &["ci", "2001:db8:30::/64", "--for", "1h"]);
    assert!(connects("public", to6, 2222, true) && is_served(&edge, to6, 8443));
    assert_eq!(vestibule(&["--diff"], &config).0, Some(0));

    a_lease_that_somebody_changes_is_noticed(&config);

    let listed = allow(&config, &["--list"]);
    assert!(listed.contains("ci holds 192.0.2.9/32 until 20") && listed.lines().count() == 2, "{listed}");
    let (_, shown, _) = vestibule(&[], &config);
    assert!(shown.contains("ci holds 2001:db8:30::/64 by a lease, "), "{shown}");
    let (_, probed, _) = vestibule(&["--probe", "192.0.2.9"], &config);
    assert!(probed.contains("row 2222 allows ci, which holds it by a lease"), "{probed}");
    let (_, status, _) = run(&["status", "--config", config.to_str().unwrap()]);
    assert!(status.contains("lease         ci holds 192.0.2.9/32 until 20"), "{status}");

    // A restart and a reload keep them; the end is everywhere.
    let edge = edge.kill_and_start();
    let config = edge.folder().join("vestibule.toml");
    assert!(is_served(&edge, to6, 8443));
    assert!(edge.reload() && is_served(&edge, to6, 8443));
    allow(&config, &["ci", "2001:db8:30::/64", "--end"]);
    assert!(!connects("public", to6, 2222, false));
    allow(&config, &["ci", "192.0.2.9", "--for", "2s"]);
    let until = Instant::now() + PATIENCE;
    while on("public", || {
        TcpStream::connect_timeout(
            &format!("{to}:2222").parse().unwrap(),
            std::time::Duration::from_millis(200),
        )
        .is_ok()
    }) {
        assert!(Instant::now() < until, "the kernel ends no lease");
    }
    edge.log().wait("the end of the lease", |line| line.contains("a lease has ended").then_some(()));
    assert!(!connects("public", to, 8443, false));
    assert_eq!(vestibule(&["--diff"], &config).0, Some(0));

    who_cannot_change_the_kernel_is_told(&edge);
    // Into a list of those who may not come in.
    allow(&config, &["abuse", "192.0.2.9", "--for", "1h"]);
    assert!(!connects("public", to, 443, false));
    sh("nft delete table inet vestibule");
    assert!(!is_served(&edge, to, 443));
    allow(&config, &["abuse", "192.0.2.9", "--end"]);
    assert!(is_served(&edge, to, 443));
    wrong_leases(&config);
}

/// Longer than it was given for, or for ever.
fn a_lease_that_somebody_changes_is_noticed(config: &Path) {
    for (how, told) in [(" timeout 20h", "192.0.2.9 timeout "), ("", "192.0.2.9\n+")] {
        let set = "element inet vestibule lease4_ci";
        sh(&format!("nft 'delete {set} {{ 192.0.2.9 }}; add {set} {{ 192.0.2.9{how} }}'"));
        let (code, out, _) = vestibule(&["--diff"], config);
        assert_eq!(code, Some(1));
        assert!(out.starts_with(&format!("- set lease4_ci: {told}")) && out.lines().count() == 2, "{out}");
    }
    allow(config, &["ci", "192.0.2.9", "--for", "1h"]);
    // What nft makes one range of, and what it does not.
    allow(config, &["ci", "192.0.2.10", "--for", "1h"]);
    allow(config, &["ci", "192.0.2.11", "--for", "2h"]);
    assert_eq!(vestibule(&["--diff"], config).0, Some(0));
    allow(config, &["ci", "192.0.2.10", "--end"]);
    allow(config, &["ci", "192.0.2.11", "--end"]);
}

/// Commands that run at once leave in the kernel what the edge has, also where a unit has loaded the rules.
#[test]
fn leases_given_at_once_are_the_same_everywhere() {
    in_namespaces("firewall::moving::at_once");
}

#[test]
#[ignore = "run by the test above"]
fn at_once() {
    let edge = Edge::start(CONFIG);
    let config = edge.folder().join("vestibule.toml");
    let file = edge.folder().join("rules.nft");
    sh(&format!(
        "{BINARY} firewall --config {} --format nft >{1} && nft -f {1}",
        config.display(),
        file.display()
    ));
    for round in 0..4 {
        let command = |number: u8| {
            let how = if number % 3 == round % 3 { "--end" } else { "--for 1h" };
            let address = 2 * number + 1;
            format!("{BINARY} allow --config {} ci 192.0.2.{address} {how} 2>&1 || true &", config.display())
        };
        sh(&format!("{} wait", (0..24).map(command).collect::<Vec<_>>().join(" ")));
        let json: serde_json::Value =
            serde_json::from_str(&allow(&config, &["--list", "--format", "json"])).unwrap();
        let leases = json["leases"].as_array().unwrap().iter();
        let network = |lease: &serde_json::Value| lease["network"].as_str().unwrap().replace("/32", "");
        let mut told: Vec<String> = leases.map(network).collect();
        told.sort();
        assert!(told.len() >= 8, "{told:?}");
        assert_eq!(leased_in_kernel("ci"), told, "round {round}");
    }
    assert!(!Path::new(FOLDER).exists(), "nothing was applied by vestibule");
}

/// The addresses that a source holds by leases, in the kernel's rules.
pub(super) fn leased_in_kernel(source: &str) -> Vec<String> {
    let listed = sh(&format!("nft list set inet vestibule lease4_{source}"));
    let words = listed.split(|letter: char| !letter.is_ascii_digit() && letter != '.');
    let mut found: Vec<String> =
        words.filter(|word| word.parse::<std::net::Ipv4Addr>().is_ok()).map(str::to_owned).collect();
    found.sort();
    found
}

/// What was done, what was not, and the line that does it.
fn who_cannot_change_the_kernel_is_told(edge: &Edge) {
    let config = edge.folder().join("vestibule.toml").display().to_string();
    let again = format!("\n    sudo {BINARY} allow --config {config} ci 192.0.2.9 --for 1h");
    let wish = ["allow", "--config", &config, "ci", "192.0.2.9", "--for", "1h"];
    let without_right = |more: &[&str]| {
        let words = [&["--bounding-set=-net_admin", BINARY], &wish[..], more].concat();
        let output = Command::new("setpriv").args(words).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let told = without_right(&[]);
    assert!(told.contains("belongs to ci for 1h") && told.contains("in the edge, that is"), "{told}");
    assert!(told.trim_end().ends_with(&again), "{told}");
    let json: serde_json::Value = serde_json::from_str(&without_right(&["--format", "json"])).unwrap();
    assert!(json["message"].as_str().unwrap().contains("for root to see"), "{json}");
    assert!(!connects("public", PUBLIC.server[0], 2222, false), "the kernel was not asked");
    allow(Path::new(&config), &["ci", "192.0.2.9", "--end"]);

    let socket = edge.folder().join("admin.sock").display().to_string();
    let wish = ["allow", "--socket", &socket, "ci", "192.0.2.9", "--for", "1h"];
    let nobody = ["--reuid=65534", "--clear-groups", BINARY];
    let output = Command::new("setpriv").args([&nobody[..], &wish[..]].concat()).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.code() == Some(2) && told.contains("nothing was done, in the edge neither"),
        "{told}"
    );
    assert!(told.contains(&format!("\n    sudo {BINARY} allow --socket {socket} ci")), "{told}");
}

fn wrong_leases(config: &Path) {
    for (arguments, expected) in [
        (&["ci", "example.com", "--for", "1m"][..], "is a name"),
        (&["ci", "198.51.100.7/24", "--for", "1m"], "has bits set beyond its prefix"),
        (&["ci", "10.0.0.0/8", "--for", "1m"], "make it a source"),
        (&["ci", "0.0.0.0", "--for", "1m"], "nobody's address"),
        (&["ci", "192.0.2.9", "--for", "25h"], "write 1s to 24h"),
        (&["ci", "192.0.2.9", "--for", "30"], "as in \"30s\""),
        (&["ci", "192.0.2.9"], "say for how long"),
        (&["ci"], "<ADDRESS>"),
        (&["c i", "192.0.2.9", "--for", "1m"], "cannot be the name"),
        (&["office", "192.0.2.9", "--for", "1m"], "no source is named \"office\"; there is ci, abuse"),
        (&["public", "192.0.2.9", "--for", "1m"], "everyone already"),
        (&["ci", "192.0.2.9", "--end"], "has no lease in ci"),
    ] {
        let (code, _, told) = run(&[&["allow", "--config", config.to_str().unwrap()], arguments].concat());
        assert!(code == Some(2) && told.contains(expected), "{arguments:?}: {told}");
    }
    assert_eq!(allow(config, &[]), "no address belongs to a source by a lease\n");
}

#[track_caller]
pub(super) fn allow(config: &Path, arguments: &[&str]) -> String {
    let (code, out, told) = run(&[&["allow", "--config", config.to_str().unwrap()], arguments].concat());
    assert_eq!(code, Some(0), "{arguments:?}: {told}");
    out
}

/// Whether the edge shakes hands with the host: whom it refuses it hears nothing of.
fn is_served(edge: &Edge, to: &'static str, port: u16) -> bool {
    let ca = edge.ca();
    let to = std::net::SocketAddr::new(to.parse().unwrap(), port);
    on("public", move || client::tls(to, &ca, "app.test", &[b"http/1.1"]).is_ok())
}

#[test]
fn a_file_that_changes_is_read_again() {
    let upstream = Upstream::echo();
    let (edge, list, _folder) = with_list(&upstream, "127.0.0.9\n");
    assert!(asks(&edge));
    let mark = edge.log().mark();
    fs::write(&list, "127.0.0.0/8 # all of it\n").unwrap();
    edge.log()
        .wait_from(mark, "the file", |line| line.contains("has changed, and was read again").then_some(()));
    assert!(!asks(&edge));
    for (text, why) in [
        ("127.0.0.9\n127.0.0.300\n", "line 2: \\\"127.0.0.300\\\" is not an address"),
        ("", "names no address"),
        ("0.0.0.0/1\n128.0.0.0/1\n", "holds every IPv4 address"),
    ] {
        let mark = edge.log().mark();
        fs::write(&list, text).unwrap();
        edge.log().wait_from(mark, "the mistake", |line| line.contains(why).then_some(()));
        assert!(!asks(&edge), "the addresses before stay");
    }
    fs::remove_file(&list).unwrap();
    let mark = edge.log().mark();
    fs::write(list.with_extension("new"), "127.0.0.9\n").unwrap();
    fs::rename(list.with_extension("new"), &list).unwrap();
    edge.log().wait_from(mark, "the new file", |line| line.contains("read again").then_some(()));
    assert!(asks(&edge));
}

/// A million rows are read anew while clients ask without a pause.
#[test]
fn a_million_rows_are_taken_up_under_load() {
    let upstream = Upstream::echo();
    let (edge, list, _folder) = with_list(&upstream, "192.0.2.1\n");
    let (stop, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let ask = || {
            while !stop.load(Ordering::Relaxed) {
                assert!(asks(&edge), "a connection failed");
                asked.fetch_add(1, Ordering::Relaxed);
            }
        };
        let clients: Vec<_> = (0..2).map(|_| scope.spawn(ask)).collect();
        for round in 0..2_u32 {
            let mut text = String::with_capacity(20 << 20);
            for row in 0..1_000_000_u32 {
                let _ = writeln!(text, "{}", std::net::Ipv4Addr::from(0x0b00_0000 + row * 2 + round));
            }
            let mark = edge.log().mark();
            fs::write(&list, text).unwrap();
            edge.log().wait_from(mark, "a million rows", |line| {
                line.contains("\"networks\":1000000").then_some(())
            });
            let mark = edge.log().mark();
            edge.signal(nix::sys::signal::Signal::SIGHUP);
            edge.log().wait_from(mark, "a reload", |line| line.contains("\"reloaded\"").then_some(()));
        }
        stop.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().unwrap();
        }
    });
    assert!(asked.load(Ordering::Relaxed) > 2);
}

/// An edge whose https row denies what a file lists.
fn with_list(upstream: &Upstream, text: &str) -> (Edge, std::path::PathBuf, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("abuse.txt");
    fs::write(&list, text).unwrap();
    let rows = ROWS.replacen("allow = [\"public\"]", "allow = [\"public\"], deny = [\"abuse\"]", 1);
    let edge = Edge::start(&format!(
        "[sources]\nabuse = {{ file = \"{}\" }}\n{rows}\n[[site]]\ndomains = [\"{NAME}\"]\nupstream = \"{}\"\n\
         certificate = \"internal\"\n",
        list.display(),
        upstream.address()
    ));
    (edge, list, folder)
}

/// Whether a new connection is served.
fn asks(edge: &Edge) -> bool {
    let connected = client::tls(edge.https(), &edge.ca(), NAME, &[b"http/1.1"]);
    connected.is_ok_and(|tls| Wire::new(tls).get("/").is_ok_and(|answer| answer.status == 200))
}
