//! What certbot obtained is taken over where the store has nothing.

use std::fs;
use std::path::Path;

use rcgen::CertificateParams;
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};
use vestibule::acme::import::Lineages;
use vestibule::acme::store::{EventKind, PendingOrder, Record, RecordId, Secret, Store};
use vestibule::config::model::{Certificate, Config};
use vestibule::name::HostPattern;

use crate::support::client::{self, NAME, Wire};
use crate::support::edge::{Edge, ROWS, run};
use crate::tls::pki::{Ca, Pair};

fn names(names: &[&str]) -> Vec<HostPattern> {
    names.iter().map(|name| HostPattern::parse(name).unwrap()).collect()
}

/// Certbot's own layout: `live` has links into `archive`, and `renewal` knows the CA.
fn certbot(home: &Path, name: &str, pair: &Pair) {
    let (live, archive) = (home.join("live").join(name), home.join("archive").join(name));
    for folder in [&live, &archive, &home.join("renewal")] {
        fs::create_dir_all(folder).unwrap();
    }
    fs::write(home.join("live/README"), "This directory contains your keys and certificates.").unwrap();
    for (file, text) in [("cert", &pair.cert), ("fullchain", &pair.cert), ("privkey", &pair.key)] {
        fs::write(archive.join(format!("{file}2.pem")), text).unwrap();
        let target = format!("../../archive/{name}/{file}2.pem");
        std::os::unix::fs::symlink(target, live.join(format!("{file}.pem"))).unwrap();
    }
    let renewal = format!(
        "version = 2.1.0\ncert = {}/cert.pem\n[renewalparams]\nserver = https://ca.example/dir\n",
        live.display()
    );
    fs::write(home.join(format!("renewal/{name}.conf")), renewal).unwrap();
}

/// A configuration of one site with a CA's certificates.
fn config(domains: &str, home: &Path) -> Config {
    let text = format!("[[site]]\ndomains = [{domains}]\nupstream = 'a:80'\ncertificate = 'internal'\n");
    let mut config = vestibule::config::parse(text, "edge.toml".as_ref()).unwrap().config;
    config.sites[0].certificate = Certificate::Acme;
    config.acme.import = Some(home.to_owned());
    config
}

#[test]
fn what_certbot_obtained_is_taken_over_once() {
    let (folder, home, ca) = (TempDir::new().unwrap(), TempDir::new().unwrap(), Ca::new("root"));
    let days = |days| {
        move |params: &mut CertificateParams| {
            params.not_after = OffsetDateTime::now_utc() + Duration::days(days);
        }
    };
    let long = ca.issue(&["app.example.com", "www.example.com"], days(60));
    certbot(home.path(), "app.example.com", &ca.issue(&["app.example.com", "www.example.com"], days(20)));
    certbot(home.path(), "app.example.com-0001", &long);
    certbot(home.path(), "other", &ca.issue(&["app.example.com"], days(80)));
    certbot(home.path(), "expired", &ca.issue(&["app.example.com", "www.example.com"], days(-1)));
    let wrong = Pair { key: long.key.clone(), ..ca.issue(&["app.example.com", "www.example.com"], days(90)) };
    certbot(home.path(), "wrong", &wrong);
    fs::create_dir(home.path().join("live/empty")).unwrap();
    certbot(home.path(), "wild", &ca.server(&["*.tenants.example.com", "tenants.example.com"]));
    let config = config("'www.example.com', 'app.example.com', '*.tenants.example.com'", home.path());
    let store = Store::open(folder.path(), None).unwrap();
    let now = OffsetDateTime::now_utc();
    Lineages::read(&config).take_over(&store, &config, now);
    let plain = RecordId::of(&names(&["www.example.com", "app.example.com"]));
    let taken = store.load(&plain).unwrap().unwrap();
    let bundle = taken.bundle.unwrap();
    assert_eq!((bundle.chain_pem, bundle.key_pem.expose()), (long.cert, long.key.as_str()));
    assert_eq!((bundle.imported, bundle.directory.as_str()), (true, "https://ca.example/dir"));
    assert!(bundle.ari_id.unwrap().contains('.'));
    assert_eq!(taken.history[0].kind, EventKind::Imported);
    let wild = store.load(&RecordId::of(&names(&["*.tenants.example.com"]))).unwrap().unwrap();
    assert!(wild.bundle.is_some());
    assert_eq!(store.list().unwrap().len(), 2);
    certbot(home.path(), "longer", &ca.issue(&["app.example.com", "www.example.com"], days(85)));
    Lineages::read(&config).take_over(&store, &config, now);
    assert_eq!(store.load(&plain).unwrap().unwrap().history.len(), 1, "what the store has stays");
}

#[test]
fn nothing_is_taken_over_where_nobody_asks() {
    let (folder, home, ca) = (TempDir::new().unwrap(), TempDir::new().unwrap(), Ca::new("root"));
    certbot(home.path(), "app.example.com", &ca.server(&["app.example.com"]));
    let (store, now) = (Store::open(folder.path(), None).unwrap(), OffsetDateTime::now_utc());
    let asked = config("'app.example.com'", home.path());
    let mut off = asked.clone();
    off.acme.import = None;
    let mut internal = asked.clone();
    internal.sites[0].certificate = Certificate::Internal;
    let elsewhere = config("'app.example.com'", &home.path().join("nowhere"));
    for config in [off, internal, elsewhere, config("'other.example.com'", home.path())] {
        Lineages::read(&config).take_over(&store, &config, now);
        assert_eq!(store.list().unwrap(), []);
    }
    // What an order is under way for is left to it.
    let mut record = Record::new(names(&["app.example.com"]));
    record.order = Some(PendingOrder {
        url: "https://ca.example/order/1".into(),
        directory: "https://ca.example/dir".into(),
        key_pem: Secret::new("key"),
        names: record.names.clone(),
        created: now,
        replaces: None,
    });
    let id = RecordId::of(&record.names);
    store.save(&id, &record).unwrap();
    Lineages::read(&asked).take_over(&store, &asked, now);
    assert_eq!(store.load(&id).unwrap().unwrap(), record);
}

/// The CA is down, the store is new: what certbot has is served from the first handshake on, and sealed.
#[test]
fn a_first_start_needs_no_ca_where_certbot_has_been() {
    let (home, ca) = (TempDir::new().unwrap(), Ca::new("root"));
    let key = home.path().join("store.key");
    fs::write(&key, [0x80; 32]).unwrap();
    certbot(home.path(), NAME, &ca.server(&[NAME]));
    let root = home.path().join("root.pem");
    fs::write(&root, ca.pem()).unwrap();
    let edge = Edge::start(&format!(
        "{ROWS}[[site]]\ndomains = ['{NAME}']\nupstream = '127.0.0.1:9'\n[site.proxy]\nhold = '0s'\n\
         [[site]]\ndomains = ['none.test']\nupstream = '127.0.0.1:9'\n\
         [acme]\ndirectory = 'https://127.0.0.1:9/directory'\nimport = '{}'\n\
         [store]\npath = 'store'\nkey = {{ file = '{}' }}\n",
        home.path().display(),
        key.display()
    ));
    let served = client::tls(edge.https(), &root, NAME, &[b"http/1.1"]).unwrap();
    assert_eq!(Wire::new(served).get("/").unwrap().status, 502);
    assert!(client::tls(edge.https(), &root, "none.test", &[b"http/1.1"]).is_err());
    let file = edge.folder().join("vestibule.toml");
    let certs = |words: &[&str]| {
        let (code, stdout, stderr) = run(&[words, &["--config", file.to_str().unwrap()]].concat());
        assert_eq!(code, Some(0), "{stderr}");
        stdout
    };
    let listed = certs(&["certs"]);
    assert!(
        listed.contains(" root ") && listed.contains("none yet") && listed.contains(": 1 missing"),
        "{listed}"
    );
    let page = certs(&["certs", "show", NAME]);
    assert!(page.contains("source        acme, imported\n") && page.contains("imported  "), "{page}");
    let folder = edge.folder().to_owned();
    for entry in fs::read_dir(folder.join("store/acme/certificates")).unwrap() {
        let path = entry.unwrap().path();
        assert!(!fs::read_to_string(&path).unwrap_or_default().contains("PRIVATE KEY"), "{}", path.display());
    }
}

/// Nobody runs: the store is shown, and nothing in it is touched.
#[test]
fn the_store_is_listed_where_no_edge_runs() {
    let (folder, home, ca) = (TempDir::new().unwrap(), TempDir::new().unwrap(), Ca::new("root"));
    certbot(home.path(), "app.example.com", &ca.server(&["app.example.com"]));
    let config = config("'app.example.com'", home.path());
    let store = Store::open(&folder.path().join("store"), None).unwrap();
    Lineages::read(&config).take_over(&store, &config, OffsetDateTime::now_utc());
    let file = folder.path().join("edge.toml");
    let at = folder.path().display();
    fs::write(
        &file,
        format!(
            "[[site]]\ndomains = ['app.example.com', 'more.example.com']\nupstream = 'a:80'\n\
             [[site]]\ndomains = ['app.example.com']\nports = [8443]\nupstream = 'a:80'\n\
             [ports]\n443 = {{ serve = 'https', allow = ['public'] }}\n8443 = {{ serve = 'https', allow = ['public'] }}\n\
             [store]\npath = '{at}/store'\n[admin]\nsocket = '{at}/none.sock'\n"
        )
        .replace("'a:80'\n[[site]]", "'a:80'\nports = [443]\n[[site]]"),
    )
    .unwrap();
    let (code, stdout, stderr) = run(&["certs", "list", "--config", file.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(
        stdout.contains("app.example.com +1  none yet") && stdout.contains("app.example.com     root"),
        "{stdout}"
    );
    assert!(stdout.ends_with("No edge runs here: this is what its store has.\n"), "{stdout}");
}

#[test]
fn a_check_reads_the_secrets() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("short.key"), "hunter2").unwrap();
    let file = folder.path().join("edge.toml");
    let text = "[[site]]\ndomains = ['app.example.com']\nupstream = 'a:80'\n\
                [acme]\neab = { key_id = 'kid', hmac = { file = 'missing' } }\n[store]\nkey = { file = 'short.key' }\n";
    fs::write(&file, text).unwrap();
    let (code, _, stderr) = run(&["check", "--config", file.to_str().unwrap()]);
    assert_eq!(code, Some(2), "{stderr}");
    for expected in
        ["not a key of 32 bytes", "(store.key)", "missing: the secret cannot be read", "(acme.eab.hmac)"]
    {
        assert!(stderr.contains(expected), "no {expected:?} in {stderr}");
    }
    assert!(!stderr.contains("hunter2"), "{stderr}");
}
