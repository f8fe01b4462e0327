//! The ruleset as text: what the guideline's table looks like, and that nft takes whatever is rendered.

use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;
use std::process::Command;

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use vestibule::addr::ClientAddr;
use vestibule::config;
use vestibule::firewall::kernel;
use vestibule::firewall::nft::{Rule, Ruleset, Set, Then, When};
use vestibule::firewall::plan::{Held, Plan};

use super::in_namespaces;
use crate::support::edge::{BINARY, run};

#[test]
fn the_guidelines_table() {
    let (code, out, told) =
        run(&["firewall", "--config", "tests/firewall/guideline.toml", "--format", "nft"]);
    assert_eq!(code, Some(0), "{told}");
    let path = "tests/firewall/guideline.nft";
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        fs::write(path, &out).unwrap();
    }
    assert_eq!(out, fs::read_to_string(path).unwrap());
}

#[test]
fn it_is_shown_to_people_and_programs() {
    let shown = |more: &[&str]| {
        let (code, out, told) =
            run(&[&["firewall", "--config", "tests/firewall/guideline.toml"], more].concat());
        assert_eq!(code, Some(0), "{told}");
        out
    };
    let table = "
  port / source       public  internal  ci
  HTTP 80             ✓       ✓         ✓
  HTTPS 443           ✓       ✓         ✓
  SSH/SFTP 22, 22222          ✓         ✓
  PostgreSQL 5432             ✓
  Redis 6379                  ✓
";
    assert!(shown(&[]).contains(table), "{}", shown(&[]));
    let probe = shown(&["--probe", "198.51.100.7"]);
    for line in [
        "  SSH/SFTP 22      open    row 22 allows ci\n",
        "  PostgreSQL 5432  closed  row 5432 allows internal alone\n",
        "  HTTPS 443        open    row 443 allows public\n",
    ] {
        assert!(probe.contains(line), "{probe}");
    }
    let json: serde_json::Value = serde_json::from_str(&shown(&["--format", "json"])).unwrap();
    assert_eq!(json["rows"][2]["row"], "22");
    assert_eq!(json["rows"][2]["allow"], serde_json::json!(["internal", "ci"]));
    let json: serde_json::Value =
        serde_json::from_str(&shown(&["--probe", "2001:db8:10::1", "--format", "json"])).unwrap();
    assert_eq!(
        (&json["ports"][4]["verdict"], &json["ports"][4]["source"]),
        (&"open".into(), &"internal".into())
    );
}

/// The kernel's rules keep this machine from nothing of its own, and neither does `[admin] listen`.
#[test]
fn this_machine_is_open_to_itself() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("edge.toml");
    let more = "\n[admin]\nlisten = \"127.0.0.1:9180\"\n";
    fs::write(&file, fs::read_to_string("tests/firewall/guideline.toml").unwrap() + more).unwrap();
    for (address, lines) in [
        (
            "127.0.0.1",
            [
                "  PostgreSQL 5432       open  row 5432 is open to this machine itself\n",
                "  admin 127.0.0.1:9180  open  [admin] listen is open to this machine itself\n",
                "\n  no other port is closed to this machine itself\n",
            ],
        ),
        (
            "198.51.100.7",
            [
                "  PostgreSQL 5432       closed  row 5432 allows internal alone\n",
                "  admin 127.0.0.1:9180  closed  [admin] listen allows this machine alone\n",
                "\n  every other port is closed: no row names it\n",
            ],
        ),
    ] {
        let (_, probe, _) = run(&["firewall", "--config", file.to_str().unwrap(), "--probe", address]);
        for line in lines {
            assert!(probe.contains(line), "no {line:?} in {probe}");
        }
    }
}

#[test]
fn wrong_arguments_are_told() {
    for (arguments, expected) in [
        (&["--probe", "example.com"][..], "is a name"),
        (&["--probe", "10.0.0.0/8"], "one address is probed, not a network"),
        (&["--apply", "--confirm"], "cannot be used with"),
        (&["--within", "5s"], "--apply"),
        (&["--apply", "--within", "0s"], "write 1s to 24h"),
        (&["--format", "xml"], "possible values"),
    ] {
        let (code, _, told) =
            run(&[&["firewall", "--config", "tests/firewall/guideline.toml"], arguments].concat());
        assert!(code == Some(2) && told.contains(expected), "{arguments:?}: {told}");
    }
}

/// The line for the boot, as README has it, fails where it cannot do its work, and leaves the kernel as it is.
#[test]
fn the_line_for_the_boot_fails_aloud() {
    in_namespaces("firewall::render::booted");
}

#[test]
#[ignore = "run by the test above"]
fn booted() {
    let readme = fs::read_to_string("README.md").unwrap();
    let line = readme.split_once("At boot, nobody confirms").and_then(|(_, rest)| rest.split('`').nth(1));
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("config")).unwrap();
    let run = |config: &str| {
        fs::write(folder.path().join("config/vestibule.toml"), config).unwrap();
        let path = format!(
            "{}:{}",
            std::path::Path::new(BINARY).parent().unwrap().display(),
            std::env::var("PATH").unwrap()
        );
        let mut command = Command::new("sh");
        command.args(["-c", line.unwrap()]).current_dir(folder.path()).env("PATH", path);
        let done = command.output().unwrap().status.success();
        (done, kernel::listed().unwrap())
    };
    let config = fs::read_to_string("tests/firewall/guideline.toml").unwrap();
    let (done, applied) = run(&config);
    assert!(done && applied.is_some());
    assert_eq!(run(&config.replace("internal", "nobody = ")), (false, applied.clone()));
    assert_eq!(run(&config.replacen("22 = {", "22222 = {", 1)), (false, applied), "a row twice");
}

#[test]
fn the_kernel_takes_every_ruleset() {
    in_namespaces("firewall::render::taken");
}

#[test]
#[ignore = "run by the test above"]
fn taken() {
    let mut runner = TestRunner::deterministic();
    for _ in 0..60 {
        let (text, leases) = table().new_tree(&mut runner).unwrap().current();
        let plan = Plan::new(&config::parse(text.clone(), "edge.toml".as_ref()).unwrap().config, leases);
        let ruleset = Ruleset::new(&plan).text();
        checked(&ruleset);
        let loaded = kernel::load(&ruleset);
        assert!(loaded.is_ok(), "{}\n{text}\n{ruleset}", loaded.unwrap_err());
        // A lease's own change, over whatever was there.
        assert!(kernel::sync_leases(&plan.leases).unwrap());
    }
}

#[test]
fn what_cannot_be_applied_changes_nothing() {
    in_namespaces("firewall::render::not_applied");
}

#[test]
#[ignore = "run by the test above"]
fn not_applied() {
    let config = ["firewall", "--config", "tests/firewall/guideline.toml"];
    let (_, whole, _) = run(&[&config[..], &["--format", "nft"]].concat());
    kernel::load(&whole).unwrap();
    let listed = kernel::listed().unwrap();
    assert!(listed.is_some());
    // A text that was cut: nft takes all of it or nothing.
    let begin = whole.find("\tset ").unwrap();
    for cut in (begin..whole.rfind('}').unwrap()).step_by(17) {
        assert!(kernel::load(&whole[..cut]).is_err(), "{}", &whole[..cut]);
    }
    // Nobody who may.
    let apply = [&config[..], &["--apply", "--force"]].concat();
    let words = [&["--bounding-set=-net_admin", BINARY], &apply[..]].concat();
    let output = Command::new("setpriv").args(words).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && told.contains("run this with sudo"), "{told}");
    assert_eq!(kernel::listed().unwrap(), listed);
    // No program to do it with: what needs none works.
    assert!(Command::new("mount").args(["-t", "tmpfs", "none", "/usr/sbin"]).status().unwrap().success());
    let (code, _, told) = run(&apply);
    assert!(code == Some(2) && told.contains("apt-get install nftables"), "{told}");
    assert_eq!(run(&[&config[..], &["--format", "nft"]].concat()).1, whole);
    assert!(run(&config).1.contains("the program nft is not installed"));
}

/// As a person would ask nft itself before anything is loaded.
#[track_caller]
fn checked(ruleset: &str) {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(&file, ruleset).unwrap();
    let output = Command::new("/usr/sbin/nft").args(["-c", "-f"]).arg(file.path()).output().unwrap();
    assert!(output.status.success(), "{}\n{ruleset}", String::from_utf8_lossy(&output.stderr));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// What the rules do with a packet is what the plan says that its sender meets.
    #[test]
    fn rules_and_probe_agree((text, leases) in table(), clients in proptest::collection::vec(address(), 20)) {
        let plan = Plan::new(&config::parse(text, "edge.toml".as_ref()).unwrap().config, leases);
        let ruleset = Ruleset::new(&plan);
        let locals: Vec<IpAddr> = ["192.0.2.10", "192.0.2.11", "2001:db8::10", "2001:db8::11"].map(|ip| ip.parse().unwrap()).into();
        for client in clients {
            for local in locals.iter().filter(|local| local.is_ipv4() == client.is_ipv4()) {
                for port in [22, 80, 443, 5432, 8443, 7000, 1] {
                    let met = plan.meets(ClientAddr::new(client), *local, port);
                    let open = met.is_some_and(|(door, verdict)| verdict.is_open() || (door.knock && door.gate.deny.iter().all(|source| !source.contains(ClientAddr::new(client)))));
                    prop_assert_eq!(passes(&ruleset, client, *local, port), open, "{} to {}:{}", client, local, port);
                }
            }
        }
    }
}

/// What the rules do with a TCP packet, as the kernel would work it out.
fn passes(ruleset: &Ruleset, from: IpAddr, to: IpAddr, port: u16) -> bool {
    let holds = |set: &Set| {
        set.spans
            .iter()
            .any(|span| span.first <= from && from <= span.last && span.first.is_ipv4() == from.is_ipv4())
    };
    let fits = |when: &When| match when {
        When::To(address) => *address == to,
        When::Tcp(own) | When::TcpOrUdp(own) => *own == port,
        When::From(v4, name) => {
            *v4 == from.is_ipv4()
                && ruleset.sets.iter().any(|set| set.name == *name && set.v4 == *v4 && holds(set))
        }
    };
    let first =
        |rules: &[Rule]| rules.iter().find(|rule| rule.when.iter().all(fits)).map(|rule| rule.then.clone());
    match first(&ruleset.doors) {
        Some(Then::Jump(name)) => {
            let chain = ruleset.gates.iter().find(|chain| chain.name == name).unwrap();
            first(&chain.rules) == Some(Then::Accept)
        }
        then => then == Some(Then::Accept),
    }
}

/// A configuration with its leases.
fn table() -> impl Strategy<Value = (String, Vec<Held>)> {
    let sources = proptest::collection::vec(proptest::collection::vec(network(), 1..6), NAMES.len());
    let rows = subsequence(
        vec![
            "22",
            "80",
            "\"192.0.2.10:22\"",
            "\"192.0.2.10:443\"",
            "5432",
            "\"[2001:db8::10]:443\"",
            "8443",
            "9000",
        ],
        0..=8,
    );
    let lists = proptest::collection::vec(
        (subsequence(NAMES.to_vec(), 1..=4), subsequence(NAMES.to_vec(), 0..=2), any::<bool>()),
        9,
    );
    let leases = proptest::collection::vec((select(NAMES.to_vec()), network(), 1_u64..90_000), 0..6);
    (sources, rows, lists, leases, any::<bool>()).prop_map(|(sources, rows, lists, leases, acme)| {
        let mut text = String::from("[sources]\n");
        for (name, nets) in NAMES.iter().zip(sources) {
            let _ = writeln!(text, "\"{name}\" = {nets:?}");
        }
        text += "[ports]\n";
        for (key, (allow, deny, public)) in ["443"].into_iter().chain(rows).zip(lists) {
            let allow = if public { vec!["public"] } else { allow };
            let what = match key {
                _ if key.contains("443") => "serve = \"https\"",
                "80" => "serve = \"http\"",
                "7000" => "forward = \"a:7000\"",
                _ => "host = true, exposed = true",
            };
            let _ = writeln!(text, "{key} = {{ {what}, allow = {allow:?}, deny = {deny:?} }}");
        }
        let certificate = if acme { "acme" } else { "internal" };
        let _ = writeln!(
            text,
            "[[site]]\ndomains = ['a.test']\nupstream = 'a:80'\ncertificate = '{certificate}'"
        );
        let held = |(source, network, left): (&str, String, u64)| Held {
            source: source.into(),
            network: if network.contains('/') {
                network.parse().unwrap()
            } else {
                network.parse::<IpAddr>().unwrap().into()
            },
            left: std::time::Duration::from_secs(left),
        };
        (text, leases.into_iter().map(held).collect())
    })
}

/// Names that are hard on nft: digits and keywords first.
const NAMES: [&str; 5] = ["internal", "4ci", "drop", "lease_internal", "a.b-c"];

/// Networks that touch and overlap.
fn network() -> impl Strategy<Value = String> {
    prop_oneof![
        (0..=255_u32, 24..=32_u8).prop_map(|(low, prefix)| ipnet::Ipv4Net::new(
            (0xc633_6400 | low).into(),
            prefix
        )
        .unwrap()
        .trunc()
        .to_string()),
        (0..=255_u128, 120..=128_u8).prop_map(|(low, prefix)| ipnet::Ipv6Net::new(
            ((0x2001_0db8 << 96) | low).into(),
            prefix
        )
        .unwrap()
        .trunc()
        .to_string()),
        (0..=15_u128, 48..=64_u8).prop_map(|(low, prefix)| ipnet::Ipv6Net::new(
            ((0x2001_0db8 << 96) | (low << 64)).into(),
            prefix
        )
        .unwrap()
        .trunc()
        .to_string()),
        Just("203.0.113.7".to_owned()),
    ]
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        (0..=255_u32).prop_map(|low| IpAddr::from((0xc633_6400 | low).to_be_bytes())),
        (0..=300_u128).prop_map(|low| IpAddr::from(((0x2001_0db8 << 96) | low).to_be_bytes())),
        (0..=20_u128).prop_map(|low| IpAddr::from(((0x2001_0db8 << 96) | (low << 64) | 9).to_be_bytes())),
        Just(IpAddr::from([203, 0, 113, 7])),
    ]
}
