//! The internal CA: made once, kept to ourselves, trusted by hand.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Barrier};

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tempfile::TempDir;
use vestibule::cli::certs;
use vestibule::config::model::Certificate;
use vestibule::name::{HostPattern, Hostname};
use vestibule::tls::{Authority, Shared, SiteTls, StoreError};

use super::pki::{Ca, chmod};
use super::{Listener, TLS, bare_site, client};

#[test]
fn the_ca_is_made_once_and_kept_from_others() {
    let store = TempDir::new().unwrap();
    let first = Authority::open(&store.path().join("certs")).unwrap();
    let again = Authority::open(&store.path().join("certs")).unwrap();
    assert_eq!(first.root(), again.root());
    let dir = store.path().join("certs/internal");
    for (path, expected) in [
        (store.path().join("certs"), 0o700),
        (dir.clone(), 0o700),
        (dir.join("authority.pem"), 0o600),
        (dir.join("root.pem"), 0o644),
    ] {
        assert_eq!(mode(&path), expected, "{}", path.display());
    }
    assert_eq!(files(&dir), ["authority.pem", "root.pem"], "no draft is left");
    let root = fs::read_to_string(Authority::root_path(&store.path().join("certs"))).unwrap();
    assert!(!root.contains("PRIVATE") && root.matches("BEGIN").count() == 1, "{root}");
}

#[test]
fn two_that_race_end_with_one_ca() {
    for _ in 0..5 {
        let store = TempDir::new().unwrap();
        let start = Barrier::new(8);
        let roots: Vec<_> = std::thread::scope(|scope| {
            let open = || {
                start.wait();
                Authority::open(store.path()).unwrap().root().clone()
            };
            let racers: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
            racers.into_iter().map(|racer| racer.join().unwrap()).collect()
        });
        assert!(roots.windows(2).all(|pair| pair[0] == pair[1]));
        let published = CertificateDer::from_pem_file(Authority::root_path(store.path())).unwrap();
        assert_eq!(published, roots[0]);
        assert_eq!(files(&store.path().join("internal")), ["authority.pem", "root.pem"]);
    }
}

#[test]
fn loose_permissions_are_refused_with_the_remedy() {
    let store = TempDir::new().unwrap();
    drop(Authority::open(store.path()).unwrap());
    let (dir, record) = (store.path().join("internal"), store.path().join("internal/authority.pem"));
    for (path, loose, tight) in
        [(&dir, 0o755, 0o700), (&dir, 0o710, 0o700), (&record, 0o640, 0o600), (&record, 0o604, 0o600)]
    {
        chmod(path, loose);
        let message = Authority::open(store.path()).unwrap_err().to_string();
        assert!(message.ends_with(&format!("run: chmod {tight:o} {}", path.display())), "{message}");
        chmod(path, tight);
        drop(Authority::open(store.path()).unwrap());
    }
}

#[test]
fn a_damaged_record_is_an_error_and_stays_as_it_is() {
    let store = TempDir::new().unwrap();
    drop(Authority::open(store.path()).unwrap());
    let record = store.path().join("internal/authority.pem");
    let good = fs::read_to_string(&record).unwrap();
    let (certificate, key) = good.split_at(good.find("-----BEGIN PRIVATE").unwrap());
    let other = Ca::new("other");
    let leaf = other.server(&["a.test"]);
    for (text, expected) in [
        (String::new(), "no certificate in it"),
        (good[..40].to_owned(), "no certificate in it"),
        (certificate.to_owned(), "no usable private key in it"),
        (key.to_owned(), "no certificate in it"),
        (certificate.to_owned() + &leaf.key, "the private key in it is not the certificate's"),
        (leaf.cert.clone() + &leaf.key, "the certificate in it is not a CA's"),
    ] {
        fs::write(&record, &text).unwrap();
        let error = Authority::open(store.path()).unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!(fs::read_to_string(&record).unwrap(), text);
    }
    // A key before its certificate is fine, and does not leak into the public file.
    fs::write(&record, key.to_owned() + certificate).unwrap();
    fs::remove_file(Authority::root_path(store.path())).unwrap();
    drop(Authority::open(store.path()).unwrap());
    assert!(!fs::read_to_string(Authority::root_path(store.path())).unwrap().contains("PRIVATE"));
}

#[tokio::test]
async fn a_client_that_trusts_the_root_is_content_with_every_name() {
    let store = TempDir::new().unwrap();
    let authority = Arc::new(Authority::open(store.path()).unwrap());
    let mut site = bare_site(&["app.localhost", "*.t.localhost"], Certificate::Internal);
    site.redirect = vec![Hostname::parse("www.localhost").unwrap()];
    let loaded = SiteTls::load(&site, &TLS, &Shared::new().unwrap(), || Ok(authority)).unwrap();
    assert_eq!(loaded.warnings, []);
    let names = ["app.localhost", "*.t.localhost", "www.localhost"];
    let mut edge = Listener::start(names.map(|name| (name, loaded.tls.clone())).into());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(Authority::root_path(store.path())).unwrap()).unwrap();
    let config = Arc::new(client(roots, |_| ()));
    for name in ["app.localhost", "one.t.localhost", "www.localhost"] {
        edge.hello(name, &config).await.unwrap();
        assert_eq!(edge.outcome().await.unwrap().name, name);
    }
}

/// What strict verifiers ask for, by openssl's own reading of RFC 5280.
#[test]
fn openssl_finds_nothing_wrong_with_root_and_leaf() {
    let store = TempDir::new().unwrap();
    let authority = Authority::open(store.path()).unwrap();
    let leaf = authority.issue(&[HostPattern::parse("*.t.localhost").unwrap()]).unwrap();
    fs::write(store.path().join("leaf.der"), &leaf.chain[0]).unwrap();
    let root = Authority::root_path(store.path());
    let run = |program: &mut Command| {
        let done = program.current_dir(store.path()).output().unwrap();
        let said =
            String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{said}");
        said
    };
    run(Command::new("openssl").args(["x509", "-inform", "der", "-in", "leaf.der", "-out", "leaf.pem"]));
    let verify = ["verify", "-x509_strict", "-purpose", "sslserver", "-verify_hostname", "a.t.localhost"];
    run(Command::new("openssl").args(verify).arg("-CAfile").arg(&root).arg("leaf.pem"));
    let text = run(Command::new("openssl").args(["x509", "-noout", "-text", "-in"]).arg(&root));
    for expected in
        ["vestibule internal CA (", "CA:TRUE, pathlen:0", "Certificate Sign, CRL Sign", "prime256v1"]
    {
        assert!(text.contains(expected), "{expected} in {text}");
    }
}

#[test]
fn trust_says_where_the_root_is_and_makes_none() {
    let store = TempDir::new().unwrap();
    assert!(matches!(certs::trust(store.path()), Err(StoreError::Missing { .. })));
    assert_eq!(files(store.path()), Vec::<String>::new());
    let store = store.path().join("it's here");
    drop(Authority::open(&store).unwrap());
    let said = certs::trust(&store).unwrap();
    let root = format!("'{}'", Authority::root_path(&store).display().to_string().replace('\'', r"'\''"));
    for expected in
        ["curl --cacert", "/usr/local/share/ca-certificates/", "update-ca-certificates", "certutil -d sql:"]
    {
        assert!(said.contains(expected), "{said}");
    }
    assert!(said.matches(&root).count() >= 5, "{said}");
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn files(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
