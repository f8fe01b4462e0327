//! Something is wrong with a file that a running edge was made from: what the commands say then.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};

use crate::support::PATIENCE;
use crate::support::client::{self, NAME};
use crate::support::edge::{BINARY, Edge, HTTPS, ROWS, run};
use crate::support::lines::Lines;

/// A CA that nobody answers at, with an account that has a key.
const BOUND: &str = "[sources]\nci = [\"192.0.2.7\"]\n[acme]\ndirectory = \"https://127.0.0.1:9/dir\"\n\
                     eab = { key_id = \"kid\", hmac = { file = \"hmac\" } }\n";

fn site(more: &str) -> String {
    format!("{ROWS}\n[[site]]\ndomains = [\"{NAME}\"]\nupstream = \"127.0.0.1:9\"\n{more}\n")
}

fn minimal(folder: &Path, more: &str) -> String {
    let at = folder.display();
    format!("{}[store]\npath = \"{at}/store\"\n[admin]\nsocket = \"{at}/admin.sock\"\n", site(more))
}

fn write(folder: &Path, config: &str) -> String {
    let file = folder.join("vestibule.toml");
    fs::write(&file, config).unwrap();
    file.to_str().unwrap().to_owned()
}

fn asked(edge: &Edge, words: &[&str]) -> (Option<i32>, String, String) {
    run(&[words, &["--config", edge.folder().join("vestibule.toml").to_str().unwrap()]].concat())
}

/// Asks until the answer has all of this in it.
#[track_caller]
fn wait_for(edge: &Edge, words: &[&str], expected: &[&str]) {
    let begin = Instant::now();
    loop {
        let (_, stdout, stderr) = asked(edge, words);
        if expected.iter().all(|part| stdout.contains(part)) {
            return;
        }
        assert!(begin.elapsed() < PATIENCE, "no {expected:?} in {stdout}{stderr}");
        std::thread::sleep(Duration::from_millis(50)); // files are looked at every few seconds
    }
}

/// Waits until the gauge of the last attempt says so: what was read is believed for some seconds.
#[track_caller]
fn last_attempt(edge: &Edge, source: &str, expected: u8) {
    let sample = format!(
        "vestibule_certificate_last_attempt_successful{{certificate=\"{NAME}\",source=\"{source}\"}} {expected}\n"
    );
    let begin = Instant::now();
    loop {
        let mut stream = UnixStream::connect(edge.folder().join("admin.sock")).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        if text.contains(&sample) {
            return;
        }
        assert!(begin.elapsed() < PATIENCE, "no {sample}");
        std::thread::sleep(Duration::from_millis(200)); // a scrape is an answer to a question
    }
}

#[test]
fn a_bindings_key_that_is_none_is_refused_wherever_it_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let internal = "certificate = \"internal\"";
    let edge = Edge::start(&site(internal));
    for (key, expected) in [("not base64url!", "is not base64url"), ("\n", "is empty"), ("", "is empty")] {
        for place in [folder.path(), edge.folder()] {
            fs::write(place.join("hmac"), key).unwrap();
        }
        let fallback =
            BOUND.replace("eab =", "fallback = [{ directory = \"https://127.0.0.1:9/other\", eab =");
        for (acme, at) in [
            (BOUND.to_owned(), "(acme.eab.hmac)"),
            (fallback.trim_end().to_owned() + " }]\n", "(acme.fallback[0].eab.hmac)"),
        ] {
            let file = write(folder.path(), &minimal(folder.path(), &acme));
            for command in ["check", "serve"] {
                let (code, _, stderr) = run(&[command, "--config", &file]);
                assert_eq!(code, Some(2), "{command}: {stderr}");
                for part in [expected, at, "hmac: the key of the binding kid"] {
                    assert!(stderr.contains(part), "{command}: no {part:?} in {stderr}");
                }
            }
            edge.write_config(&site(&acme));
            let (code, _, stderr) = asked(&edge, &["reload"]);
            assert!(code == Some(2) && stderr.contains(expected) && stderr.contains(at), "{stderr}");
        }
    }
}

#[test]
fn certificates_that_nobody_looks_after_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("hmac");
    fs::write(&key, "aG1hYw").unwrap();
    let edge = Edge::start(&site(&BOUND.replace("\"hmac\"", &format!("{:?}", key.to_str().unwrap()))));
    fs::write(&key, "not base64url!").unwrap();
    // A lease is a new configuration, for which the key is read again.
    let (code, _, stderr) = asked(&edge, &["allow", "ci", "192.0.2.8", "--for", "1m"]);
    assert_eq!(code, Some(0), "{stderr}");
    let told = "not looked after: ";
    wait_for(&edge, &["certs"], &[&format!("  ! {told}"), "is not base64url", "1 missing, 1 failing"]);
    wait_for(&edge, &["certs", "show", NAME], &[told]);
    wait_for(&edge, &["certs", "list", "--format", "json"], &[&format!("\"trouble\": \"{told}")]);
    last_attempt(&edge, "acme", 0);
    fs::write(&key, "aG1hYw").unwrap();
    assert!(edge.reload());
    let begin = Instant::now();
    while asked(&edge, &["certs"]).1.contains(told) {
        assert!(begin.elapsed() < PATIENCE);
    }
}

#[test]
fn a_certificate_file_that_breaks_is_told_while_the_one_before_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let made = rcgen::generate_simple_self_signed(vec![NAME.to_owned()]).unwrap();
    for name in ["cert.pem", "root.pem"] {
        fs::write(at(name), made.cert.pem()).unwrap();
    }
    fs::write(at("key.pem"), made.signing_key.serialize_pem()).unwrap();
    let files = format!("certificate = {{ cert = {:?}, key = {:?} }}", at("cert.pem"), at("key.pem"));
    let edge = Edge::start(&site(&files));
    wait_for(&edge, &["certs"], &["when its files change", "1 certificate: all in order"]);
    last_attempt(&edge, "files", 1);
    fs::write(at("cert.pem"), "cut short").unwrap();
    let told = "its files are wrong, and the ones before stay in use: ";
    wait_for(&edge, &["certs"], &[&format!("  ! {told}"), "cert.pem", "1 certificate: 1 failing"]);
    wait_for(&edge, &["certs", "show", NAME], &[told, "serial"]);
    last_attempt(&edge, "files", 0);
    client::tls(edge.https(), &at("root.pem"), NAME, &[b"http/1.1"]).unwrap();
    fs::write(at("cert.pem"), made.cert.pem()).unwrap();
    wait_for(&edge, &["certs"], &["1 certificate: all in order"]);
}

#[test]
fn a_broken_file_still_says_where_the_edge_is() {
    let edge = Edge::start(&site("certificate = \"internal\""));
    let good = fs::read_to_string(edge.folder().join("vestibule.toml")).unwrap();
    let put = |text: &str| fs::write(edge.folder().join("vestibule.toml"), text).unwrap();
    for wrong in [
        good.replace("[store]", "[stroe]"),
        good.replace("\"127.0.0.1:9\"", "127.0.0.1:9"),
        good.clone() + "[sources]\nabuse = { file = \"none\" }\n",
    ] {
        put(&wrong);
        for words in [&["status"][..], &["certs"], &["drain", "127.0.0.1:9"], &["maintenance", "off", NAME]] {
            let (code, _, stderr) = asked(&edge, words);
            assert_eq!(code, Some(0), "{words:?}: {stderr}");
        }
        let (code, _, stderr) = asked(&edge, &["reload"]);
        assert!(code == Some(2) && stderr.contains("the running configuration stays as it is"), "{stderr}");
    }
    put("[[site]]\nupstream = \"never closed\n");
    let (code, _, stderr) = asked(&edge, &["status"]);
    assert!(
        code == Some(2) && stderr.contains("this is not TOML") && stderr.contains("--socket PATH"),
        "{stderr}"
    );
}

/// Root reads them at the start; whoever it is given up for would have to at every reload.
#[test]
fn what_a_reload_could_not_read_is_refused_at_once() {
    if !Uid::effective().is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(folder.path().join("abuse.txt"), "192.0.2.7\n").unwrap();
    fs::write(folder.path().join("htpasswd"), format!("alice:{BCRYPT}\n")).unwrap();
    let config = minimal(
        folder.path(),
        "certificate = \"internal\"\nauth = { file = \"htpasswd\" }\ndeny = [\"abuse\"]",
    ) + "[sources]\nabuse = { file = \"abuse.txt\" }\n[process]\nuser = \"nobody\"\n";
    let file = write(folder.path(), &config);
    let (code, _, stderr) = run(&["check", "--config", &file]);
    assert_eq!(code, Some(0), "{stderr}");
    let names = ["vestibule.toml", "abuse.txt", "htpasswd"];
    for name in names {
        fs::set_permissions(folder.path().join(name), fs::Permissions::from_mode(0o600)).unwrap();
    }
    for command in ["check", "serve"] {
        let (code, _, stderr) = run(&[command, "--config", &file]);
        assert_eq!(code, Some(2), "{command}: {stderr}");
        for name in names {
            assert!(
                stderr.contains(&format!("{name}: \"nobody\" cannot read it")),
                "{command}: {name}: {stderr}"
            );
        }
    }
}

/// It may be another machine, or somebody else who checks: a warning.
#[test]
fn a_check_warns_of_what_the_user_may_not_write() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
    let root_only = folder.path().join("closed");
    fs::create_dir_all(root_only.join("letsencrypt/live")).unwrap();
    fs::set_permissions(root_only.join("letsencrypt/live"), fs::Permissions::from_mode(0o000)).unwrap();
    fs::set_permissions(&root_only, fs::Permissions::from_mode(0o555)).unwrap();
    let at = |path: &str| root_only.join(path).display().to_string();
    let text = site("certificate = \"acme\"")
        + &format!("[acme]\nimport = \"{}\"\n[store]\npath = \"{}\"\n", at("letsencrypt"), at("store"))
        + &format!("[log]\naccess = \"{}\"\n[admin]\nsocket = \"{}\"\n", at("a.log"), at("run/a.sock"));
    let file = write(folder.path(), &text);
    let mut command = Command::new(BINARY);
    command.args(["check", "--config", &file]);
    if Uid::effective().is_root() {
        command.uid(65_534);
    }
    let output = command.output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{told}");
    for key in ["(store.path)", "(log.access)", "(admin.socket)", "(acme.import)"] {
        assert!(told.contains(key), "{key}: {told}");
    }
    assert_eq!(told.matches("may not write there: Permission denied").count(), 3, "{told}");
    assert_eq!(told.matches("may not read there: Permission denied").count(), 1, "{told}");
}

/// A user who has not logged in, as in a container, has no directory below /run/user.
#[test]
fn without_a_directory_for_sockets() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
    let command = |words: &[&str]| {
        let mut command = Command::new(BINARY);
        command.args(words).current_dir(&folder).env("HOME", folder.path());
        command.env_remove("XDG_RUNTIME_DIR").env_remove("XDG_DATA_HOME");
        if Uid::effective().is_root() {
            command.uid(65_534);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    let uid = if Uid::effective().is_root() { 65_534 } else { Uid::effective().as_raw() };
    if Path::new(&format!("/run/user/{uid}")).exists() {
        return;
    }
    let up = ["up", "--domain", NAME, "--to", "127.0.0.1:9", "--http", "1080", "--https", "0"];
    let mut child = command(&up).spawn().unwrap();
    let stderr = Lines::follow(child.stderr.take().unwrap());
    stderr.wait("ready", |line| line.contains("ready").then_some(()));
    let socket = folder.path().join(format!(".local/share/vestibule/up-{}.sock", child.id()));
    let (code, _, told) = run(&["status", "--socket", socket.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{told}");
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGTERM).unwrap();
    assert!(child.wait().unwrap().success());

    let file = write(folder.path(), &(site("certificate = \"internal\"") + "[store]\npath = \"store\"\n"));
    let output = command(&["serve", "--config", &file]).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("XDG_RUNTIME_DIR is not set") && told.contains("[admin] socket"), "{told}");
}

/// The kernel prefers a socket of one address, and the sites of a row for all would be without it.
#[test]
fn the_admin_listener_takes_nothing_from_a_row_for_all_addresses() {
    let text = |row: &str, listen: &str| {
        site("certificate = \"internal\"").replace(HTTPS, row) + &format!("[admin]\nlisten = \"{listen}\"\n")
    };
    for (row, listen, fine) in [
        ("9180", "127.0.0.1:9180", false),
        ("127.0.0.1:9180", "127.0.0.1:9180", false),
        ("127.0.0.9:9180", "127.0.0.1:9180", true),
        ("9181", "127.0.0.1:9180", true),
    ] {
        let loaded = vestibule::config::parse(text(row, listen), Path::new("edge.toml"));
        assert_eq!(loaded.is_ok(), fine, "{row} {listen}: {:?}", loaded.err());
    }
}

const BCRYPT: &str = "$2y$05$bvIG6Nmid91Mu9RcmmWZfO5HJIMCT8riNW0hEp8f6/FuA2/mHZFpe";
