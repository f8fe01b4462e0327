//! Certificate files: what is refused, what is served with a warning, and what happens when they change.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use tempfile::TempDir;
use time::{Duration, OffsetDateTime};
use vestibule::config::model::{Certificate, Site};
use vestibule::name::Hostname;
use vestibule::tls::{Loaded, Reason, Refresh, Shared, SiteTls, TlsProblem};

use super::pki::{Ca, Pair, chmod};
use super::{Listener, TLS, client, no_authority, site};

fn load(site: &Site) -> Result<Loaded, Vec<TlsProblem>> {
    SiteTls::load(site, &TLS, &Shared::new().unwrap(), no_authority)
}

fn messages(problems: &[TlsProblem]) -> Vec<String> {
    problems.iter().map(ToString::to_string).collect()
}

/// The one problem of these files, without the directory's name.
fn problem_of(cert: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> String {
    let dir = TempDir::new().unwrap();
    let empty = Pair { cert: String::new(), key: String::new() };
    let site = site(&["a.test", "*.t.test"], &empty, dir.path(), None);
    fs::write(dir.path().join("cert.pem"), cert).unwrap();
    fs::write(dir.path().join("key.pem"), key).unwrap();
    let problems = load(&site).unwrap_err();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(problems[0].place, site.certificate_place);
    messages(&problems)[0].replace(&format!("{}/", dir.path().display()), "")
}

#[test]
fn each_mistake_has_its_message() {
    let (ca, names) = (Ca::new("root"), ["a.test", "*.t.test"]);
    let middle = ca.intermediate("middle");
    let (good, other, below) = (ca.server(&names), ca.server(&names), middle.server(&names));
    let der = good.chain()[0].to_vec();
    let cases = [
        (problem_of(&good.cert, &other.key), "key.pem: the key does not match the certificate"),
        (problem_of("", &good.key), "cert.pem: no certificate in it"),
        (problem_of(&der, &good.key), "cert.pem: no certificate in it"),
        (problem_of(&good.key, &good.key), "cert.pem: no certificate in it"),
        (
            problem_of("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n", &good.key),
            "cert.pem: not a PEM",
        ),
        (
            problem_of("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", &good.key),
            "cert.pem: certificate 1 in it does not parse",
        ),
        (problem_of(&good.cert, ""), "key.pem: no private key in it"),
        (problem_of(&good.cert, &good.cert), "key.pem: no private key in it"),
        (
            problem_of(&good.cert, good.key.replace("PRIVATE", "ENCRYPTED PRIVATE")),
            "key.pem: the private key is encrypted (decrypt it with: openssl pkey",
        ),
        (
            problem_of(&good.cert, OLD_ENCRYPTED),
            "key.pem: the private key is encrypted (decrypt it with: openssl pkey",
        ),
        (
            problem_of(&good.cert[..200], &good.key),
            "cert.pem: not a PEM file: it ends before its -----END line",
        ),
        (
            problem_of(&good.cert, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
            "key.pem: a private key that cannot be used",
        ),
        (
            problem_of(middle.pem() + &below.cert, &below.key),
            "cert.pem: the key's own certificate is number 2 in the file (put it first",
        ),
        (
            problem_of(other.cert.clone() + &good.cert, &good.key),
            "cert.pem: the key's own certificate is number 2 in the file (put it first",
        ),
        (
            problem_of(below.cert.clone() + &ca.pem() + &middle.pem(), &below.key),
            "cert.pem: certificate 2 in the file did not issue certificate 1",
        ),
        (
            problem_of(below.cert.clone() + &middle.pem() + &Ca::new("root").pem(), &below.key),
            "cert.pem: certificate 3 in the file did not issue certificate 2",
        ),
    ];
    for (found, expected) in cases {
        assert!(found.starts_with(expected), "expected: {expected}\n   found: {found}");
    }
}

/// As `openssl ec -aes128` writes it.
const OLD_ENCRYPTED: &str = "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n\
                             -----END EC PRIVATE KEY-----\n";

/// Opening a pipe would wait for its writer, and a device never ends.
#[test]
fn what_is_no_file_is_refused_unread() {
    let (ca, dir) = (Ca::new("root"), TempDir::new().unwrap());
    let site = site(&["a.test"], &ca.server(&["a.test"]), dir.path(), None);
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    fs::remove_file(&cert).unwrap();
    nix::unistd::mkfifo(&cert, nix::sys::stat::Mode::S_IRUSR).unwrap();
    fs::remove_file(&key).unwrap();
    std::os::unix::fs::symlink("/dev/zero", &key).unwrap();
    let problems = messages(&load(&site).unwrap_err());
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems.iter().all(|problem| problem.ends_with("not a regular file")), "{problems:?}");
}

#[test]
fn a_whole_chain_in_order_is_fine() {
    let (ca, dir) = (Ca::new("root"), TempDir::new().unwrap());
    let middle = ca.intermediate("middle");
    let mut pair = middle.server(&["a.test"]);
    pair.cert = pair.cert + &middle.pem() + &ca.pem();
    assert_eq!(load(&site(&["a.test"], &pair, dir.path(), None)).unwrap().warnings, []);
}

#[test]
fn all_names_that_are_not_covered_are_listed() {
    let (ca, dir) = (Ca::new("root"), TempDir::new().unwrap());
    let pair = ca.server(&["A.test", "*.w.test"]);
    let names = ["a.test", "one.w.test", "two.one.w.test", "*.w.test", "*.one.w.test", "b.test"];
    let mut site = site(&names, &pair, dir.path(), None);
    site.redirect = vec![Hostname::parse("www.a.test").unwrap()];
    let problems = messages(&load(&site).unwrap_err());
    let expected = "the certificate does not cover: two.one.w.test, *.one.w.test, b.test, www.a.test \
                    (it covers: a.test, *.w.test)";
    assert!(problems[0].ends_with(expected), "{problems:?}");
}

#[test]
fn a_short_rsa_key_is_refused() {
    let dir = TempDir::new().unwrap();
    let run = |arguments: &[&str]| {
        let done = Command::new("openssl").args(arguments).current_dir(dir.path()).output().unwrap();
        assert!(done.status.success(), "{done:?}");
    };
    let request =
        ["req", "-x509", "-nodes", "-subj", "/CN=a", "-addext", "subjectAltName=DNS:a.test,DNS:*.t.test"];
    for (bits, refused) in [("1024", true), ("2048", false)] {
        let key = format!("rsa:{bits}");
        run(&[&request[..], &["-newkey", &key, "-keyout", "k.pem", "-out", "c.pem"]].concat());
        let certificate =
            Certificate::Files { cert: dir.path().join("c.pem"), key: dir.path().join("k.pem") };
        match load(&super::bare_site(&["a.test", "*.t.test"], certificate)) {
            Ok(_) => assert!(!refused),
            Err(problems) => {
                assert!(refused && problems.len() == 1, "{problems:?}");
                assert!(
                    problems[0].message.contains("an RSA key of 1024 bits; 2048 is the least"),
                    "{problems:?}"
                );
            }
        }
    }
}

#[test]
fn all_files_are_reported_at_once() {
    let (ca, dir) = (Ca::new("root"), TempDir::new().unwrap());
    let mut site = site(&["a.test"], &ca.server(&["a.test"]), dir.path(), Some(&ca));
    for file in ["cert.pem", "key.pem", "clients.pem"] {
        fs::remove_file(dir.path().join(file)).unwrap();
    }
    let problems = load(&site).unwrap_err();
    assert_eq!(problems.len(), 3);
    assert_eq!(problems[0].place, site.client_ca_place);
    assert!(problems.iter().all(|problem| problem.message.contains("cannot be read: No such file")));
    site.client_ca = Some(dir.path().to_owned());
    assert!(messages(&load(&site).unwrap_err())[0].contains("not a regular file"));
}

#[test]
fn a_client_ca_that_is_none_is_refused() {
    let (ca, dir) = (Ca::new("root"), TempDir::new().unwrap());
    let site = site(&["a.test"], &ca.server(&["a.test"]), dir.path(), Some(&ca));
    fs::write(dir.path().join("clients.pem"), "hello").unwrap();
    let problems = load(&site).unwrap_err();
    assert_eq!(problems[0].place, site.client_ca_place);
    assert!(problems[0].message.ends_with("clients.pem: no certificate in it"), "{problems:?}");
}

#[test]
fn out_of_its_time_a_certificate_is_served_with_a_warning() {
    let (ca, dir) = (Ca::new("root"), TempDir::new().unwrap());
    let now = OffsetDateTime::now_utc();
    let expired = ca.issue(&["a.test"], |params| params.not_after = now - Duration::days(1));
    let early = ca.issue(&["a.test"], |params| params.not_before = now + Duration::days(2));
    let warning = |pair: &Pair| {
        let loaded = load(&site(&["a.test"], pair, dir.path(), None)).unwrap();
        assert_eq!(loaded.warnings, loaded.tls.warnings());
        (messages(&loaded.warnings).concat(), loaded.tls)
    };
    let (message, _) = warning(&early);
    assert!(message.contains(&format!("not valid before {}", (now + Duration::days(2)).date())), "{message}");
    let (message, tls) = warning(&expired);
    assert!(message.contains(&format!("expired on {}", (now - Duration::days(1)).date())), "{message}");
    let edge = Listener::start(vec![("a.test", tls)]);
    let address = edge.address.to_string();
    let run = Command::new("openssl")
        .args(["s_client", "-connect", &address, "-servername", "a.test"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&run.stdout).contains("BEGIN CERTIFICATE"), "{run:?}");
}

#[test]
fn a_key_that_everybody_can_read_is_a_warning() {
    let (ca, dir) = (Ca::new("root"), TempDir::new().unwrap());
    let site = site(&["a.test"], &ca.server(&["a.test"]), dir.path(), None);
    for (mode, warned) in [(0o600, false), (0o640, false), (0o644, true), (0o604, true)] {
        chmod(&dir.path().join("key.pem"), mode);
        let warnings = messages(&load(&site).unwrap().warnings).concat();
        assert_eq!(
            warnings.contains(&format!("({mode:04o}) (run: chmod o= ")),
            warned,
            "{mode:o}: {warnings}"
        );
    }
}

#[tokio::test]
async fn changed_files_are_loaded_and_wrong_ones_are_not() {
    let (old, new, dir) = (Ca::new("old"), Ca::new("new"), TempDir::new().unwrap());
    let tls = load(&site(&["a.test"], &old.server(&["a.test"]), dir.path(), None)).unwrap().tls;
    let mut edge = Listener::start(vec![("a.test", Arc::clone(&tls))]);
    let trusts = async |edge: &mut Listener, ca: &Ca| {
        let met = edge.hello("a.test", &Arc::new(client(ca.roots(), |_| ()))).await.is_ok();
        let outcome = edge.outcome().await;
        assert!(outcome.is_ok() || outcome == Err(Reason::ClientAlert), "{outcome:?}");
        met
    };
    assert!(matches!(tls.refresh(), Refresh::Unchanged));
    assert!(trusts(&mut edge, &old).await);

    // A renewal writes two files, one after the other: between them they do not match.
    let renewed = new.server(&["a.test"]);
    fs::write(dir.path().join("cert.pem"), &renewed.cert).unwrap();
    assert_kept(&tls, "key.pem: the key does not match the certificate");
    assert!(trusts(&mut edge, &old).await && !trusts(&mut edge, &new).await);
    replace(dir.path(), "key.pem", &renewed.key);
    assert!(matches!(tls.refresh(), Refresh::Reloaded));
    assert!(matches!(tls.refresh(), Refresh::Unchanged));
    assert!(trusts(&mut edge, &new).await && !trusts(&mut edge, &old).await);

    fs::remove_file(dir.path().join("key.pem")).unwrap();
    assert_kept(&tls, "key.pem: cannot be read: No such file");
    replace(dir.path(), "key.pem", &renewed.key);
    assert!(matches!(tls.refresh(), Refresh::Reloaded));
    replace(dir.path(), "cert.pem", &new.server(&["b.test"]).cert);
    assert_kept(&tls, "the certificate does not cover: a.test");
    assert!(trusts(&mut edge, &new).await);
}

#[tokio::test]
async fn a_changed_client_ca_decides_from_the_next_handshake_on() {
    let (ca, old, new, dir) = (Ca::new("root"), Ca::new("old"), Ca::new("new"), TempDir::new().unwrap());
    let tls = load(&site(&["a.test"], &ca.server(&["a.test"]), dir.path(), Some(&old))).unwrap().tls;
    let mut edge = Listener::start(vec![("a.test", Arc::clone(&tls))]);
    let alice = old.client("alice");
    let config =
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(ca.roots())
            .with_client_auth_cert(alice.chain(), alice.private())
            .unwrap();
    let config = Arc::new(config);
    for resumed in [false, true] {
        edge.hello("a.test", &config).await.unwrap();
        assert_eq!(edge.outcome().await.unwrap().resumed, resumed);
    }
    replace(dir.path(), "clients.pem", &new.pem());
    assert!(matches!(tls.refresh(), Refresh::Reloaded));
    edge.hello("a.test", &config).await.unwrap_err();
    assert_eq!(edge.outcome().await, Err(Reason::ClientCertificate));
}

/// A problem is said once for each change.
#[track_caller]
fn assert_kept(tls: &SiteTls, expected: &str) {
    match tls.refresh() {
        Refresh::Kept(problems) => assert!(messages(&problems)[0].contains(expected), "{problems:?}"),
        other => panic!("{other:?}"),
    }
    assert!(matches!(tls.refresh(), Refresh::Unchanged));
}

/// As careful programs write: beside it, then renamed over it.
fn replace(dir: &Path, name: &str, text: &str) {
    let draft = dir.join("draft");
    fs::write(&draft, text).unwrap();
    fs::rename(draft, dir.join(name)).unwrap();
}
