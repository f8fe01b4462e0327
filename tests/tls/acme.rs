//! Certificates that come while a site is served, and what a CA may ask for meanwhile.

use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use vestibule::config::model::Certificate;
use vestibule::name::Hostname;
use vestibule::tls::challenges::{self, Book};
use vestibule::tls::{Reason, Refresh, Shared, SiteTls, answer_challenge};

use super::pki::{Ca, Pair};
use super::{Listener, TLS, bare_site, client, no_authority, site};

fn empty(names: &[&str]) -> Arc<SiteTls> {
    let site = bare_site(names, Certificate::Acme);
    SiteTls::load(&site, &TLS, &Shared::new().unwrap(), no_authority).unwrap().tls
}

fn install(tls: &SiteTls, pair: &Pair) -> Result<(), String> {
    tls.install(&pair.cert, &pair.key, None).map_err(|problem| problem.to_string())
}

/// The certificate that a name is answered with.
async fn shown(listener: &Listener, ca: &Ca, name: &str) -> Option<Vec<u8>> {
    let config = Arc::new(client(ca.roots(), |_| ()));
    let stream = listener.hello(name, &config).await.ok()?;
    stream.get_ref().1.peer_certificates().map(|chain| chain[0].to_vec())
}

fn leaf(pair: &Pair) -> Vec<u8> {
    pair.chain()[0].to_vec()
}

#[tokio::test]
async fn a_name_without_a_certificate_is_refused_alone() {
    let ca = Ca::new("root");
    let (waiting, ready) = (empty(&["a.test"]), empty(&["b.test"]));
    install(&ready, &ca.server(&["b.test"])).unwrap();
    let mut listener = Listener::start(vec![("a.test", Arc::clone(&waiting)), ("b.test", ready)]);
    let config = Arc::new(client(ca.roots(), |_| ()));
    let told = listener.hello("a.test", &config).await.unwrap_err().to_string();
    assert!(told.contains("UnrecognisedName"), "{told}");
    assert_eq!(listener.outcome().await.unwrap_err(), Reason::NoCertificate);
    assert_eq!(waiting.expiry(), None);
    listener.hello("b.test", &config).await.unwrap();
    listener.outcome().await.unwrap();
    install(&waiting, &ca.server(&["a.test"])).unwrap();
    listener.hello("a.test", &config).await.unwrap();
    assert!(waiting.expiry().is_some());
}

#[tokio::test]
async fn each_set_of_names_has_its_own() {
    let ca = Ca::new("root");
    let tls = empty(&["a.test", "b.test", "*.w.test", "a.w.test"]);
    let sites = ["a.test", "b.test", "a.w.test", "*.w.test"].map(|name| (name, Arc::clone(&tls)));
    let listener = Listener::start(sites.to_vec());
    let wild = ca.server(&["*.w.test"]);
    install(&tls, &wild).unwrap();
    assert_eq!(shown(&listener, &ca, "x.w.test").await, Some(leaf(&wild)));
    assert_eq!(
        shown(&listener, &ca, "a.w.test").await,
        Some(leaf(&wild)),
        "covered by it until its own comes"
    );
    assert_eq!(shown(&listener, &ca, "a.test").await, None);
    let plain = ca.server(&["a.test", "b.test", "a.w.test"]);
    install(&tls, &plain).unwrap();
    for name in ["a.test", "b.test", "a.w.test"] {
        assert_eq!(shown(&listener, &ca, name).await, Some(leaf(&plain)));
    }
    assert_eq!(shown(&listener, &ca, "x.w.test").await, Some(leaf(&wild)));
    let wild = ca.server(&["*.w.test"]);
    install(&tls, &wild).unwrap();
    assert_eq!(shown(&listener, &ca, "x.w.test").await, Some(leaf(&wild)));
    assert_eq!(shown(&listener, &ca, "a.w.test").await, Some(leaf(&plain)));
    let in_use = tls.in_use();
    assert_eq!(in_use.iter().map(|each| each.names.len()).collect::<Vec<_>>(), [3, 1]);
    assert!(in_use.iter().all(|each| each.issuer == "root" && each.serial.len() > 8), "{in_use:?}");
}

#[tokio::test]
async fn what_is_wrong_is_refused_and_the_old_one_stays() {
    let ca = Ca::new("root");
    let tls = empty(&["a.test", "b.test"]);
    let (good, other) = (ca.server(&["a.test", "b.test"]), ca.server(&["a.test", "b.test"]));
    install(&tls, &good).unwrap();
    let now = OffsetDateTime::now_utc();
    let expired = ca.issue(&["a.test", "b.test"], |params| params.not_after = now - Duration::hours(1));
    let early = ca.issue(&["a.test", "b.test"], |params| params.not_before = now + Duration::hours(1));
    for (pair, expected) in [
        (Pair { key: other.key, ..good.clone() }, "the key does not match the certificate"),
        (Pair { cert: "x".into(), ..good.clone() }, "no certificate in it"),
        (ca.server(&["a.test"]), "a certificate for a.test is none of this site's"),
        (expired.clone(), "the certificate expired on "),
        (early, "the certificate is not valid before "),
    ] {
        let told = install(&tls, &pair).unwrap_err();
        assert!(told.starts_with(expected), "{told}");
    }
    let listener = Listener::start(vec![("a.test", Arc::clone(&tls))]);
    assert_eq!(shown(&listener, &ca, "a.test").await, Some(leaf(&good)));
    assert!(!tls.restore(&expired.cert, &expired.key, None).unwrap(), "it is no newer");
    assert!(
        empty(&["a.test", "b.test"]).restore(&expired.cert, &expired.key, None).unwrap(),
        "better than nothing"
    );
}

#[tokio::test]
async fn a_site_with_more_names_keeps_what_it_has_for_the_others() {
    let ca = Ca::new("root");
    let (old, new) = (empty(&["a.test", "b.test"]), empty(&["a.test", "c.test"]));
    let before = ca.server(&["a.test", "b.test"]);
    install(&old, &before).unwrap();
    new.adopt(&old);
    let listener = Listener::start(vec![("a.test", Arc::clone(&new)), ("c.test", Arc::clone(&new))]);
    assert_eq!(shown(&listener, &ca, "a.test").await, Some(leaf(&before)));
    assert_eq!(shown(&listener, &ca, "c.test").await, None);
    let after = ca.server(&["a.test", "c.test"]);
    install(&new, &after).unwrap();
    assert_eq!(shown(&listener, &ca, "a.test").await, Some(leaf(&after)));
    assert_eq!(shown(&listener, &ca, "c.test").await, Some(leaf(&after)));
}

#[tokio::test]
async fn a_site_that_turns_from_files_to_a_ca_begins_with_its_files() {
    let (ca, dir) = (Ca::new("root"), TempDir::new().unwrap());
    let pair = ca.server(&["a.test"]);
    let files = site(&["a.test"], &pair, dir.path(), None);
    let files = SiteTls::load(&files, &TLS, &Shared::new().unwrap(), no_authority).unwrap().tls;
    let tls = empty(&["a.test"]);
    tls.adopt(&files);
    let listener = Listener::start(vec![("a.test", tls)]);
    assert_eq!(shown(&listener, &ca, "a.test").await, Some(leaf(&pair)));
}

#[test]
fn an_installed_certificate_stays_when_the_client_ca_changes() {
    let (ca, dir) = (Ca::new("root"), TempDir::new().unwrap());
    let mut site = site(&["a.test"], &ca.server(&["a.test"]), dir.path(), Some(&ca));
    site.certificate = Certificate::Acme;
    let tls = SiteTls::load(&site, &TLS, &Shared::new().unwrap(), no_authority).unwrap().tls;
    install(&tls, &ca.server(&["a.test"])).unwrap();
    let before = tls.expiry();
    std::fs::write(dir.path().join("clients.pem"), Ca::new("another").pem()).unwrap();
    assert!(matches!(tls.refresh(), Refresh::Reloaded));
    assert!(before.is_some() && tls.expiry() == before);
    std::fs::write(dir.path().join("clients.pem"), "not a CA").unwrap();
    assert!(matches!(tls.refresh(), Refresh::Kept(_)));
}

/// A CA's own client: it trusts nobody, for the certificate is signed by nobody.
fn validator(protocols: &[&str]) -> Arc<ClientConfig> {
    let mut config = client(RootCertStore::empty(), |_| ());
    config.dangerous().set_certificate_verifier(Arc::new(super::pki::Anything));
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    Arc::new(config)
}

async fn validate(listener: &Listener, protocols: &[&str], name: &str) -> Option<Vec<u8>> {
    let socket = TcpStream::connect(listener.address).await.unwrap();
    let connector = TlsConnector::from(validator(protocols));
    let mut stream = connector.connect(ServerName::try_from(name.to_owned()).unwrap(), socket).await.ok()?;
    let chain = stream.get_ref().1.peer_certificates().unwrap()[0].to_vec();
    let acme = stream.get_ref().1.alpn_protocol() == Some(b"acme-tls/1");
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert!(rest.is_empty(), "the handshake is the whole answer");
    acme.then_some(chain)
}

#[tokio::test]
async fn a_pending_challenge_is_answered_by_tls() {
    let (ca, book, shared) = (Ca::new("root"), Book::default(), Shared::new().unwrap());
    let tls = empty(&["a.test"]);
    let mut listener = Listener::with_book(vec![("a.test", Arc::clone(&tls))], book.clone());
    assert_eq!(validate(&listener, &["acme-tls/1"], "a.test").await, None);
    assert_eq!(listener.outcome().await.unwrap_err(), Reason::NoCertificate);
    let name = Hostname::parse("a.test").unwrap();
    let guard = book.insert_alpn(&name, challenges::answer(&shared, &name, "token.thumbprint").unwrap());
    let shown = validate(&listener, &["acme-tls/1"], "a.test").await.unwrap();
    assert_eq!(listener.outcome().await.unwrap_err(), Reason::Challenge);
    let (_, parsed) = x509_parser::parse_x509_certificate(&shown).unwrap();
    let oid = "1.3.6.1.5.5.7.1.31";
    let extension = parsed.iter_extensions().find(|each| each.oid.to_id_string() == oid).unwrap();
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, b"token.thumbprint");
    assert!(extension.critical);
    assert_eq!(extension.value, [&[4, 32], hash.as_ref()].concat());
    for (protocols, name) in [(&["acme-tls/1", "http/1.1"][..], "a.test"), (&["acme-tls/1"], "b.test")] {
        assert_eq!(validate(&listener, protocols, name).await, None, "{protocols:?} {name}");
    }
    install(&tls, &ca.server(&["a.test"])).unwrap();
    listener.hello("a.test", &Arc::new(client(ca.roots(), |_| ()))).await.unwrap();
    drop(guard);
    assert_eq!(validate(&listener, &["acme-tls/1"], "a.test").await, None);
}

#[tokio::test]
async fn a_closed_port_answers_challenges_and_nothing_else() {
    let (book, shared) = (Book::default(), Shared::new().unwrap());
    let name = Hostname::parse("a.test").unwrap();
    let _guard = book.insert_alpn(&name, challenges::answer(&shared, &name, "token.thumbprint").unwrap());
    for (protocol, expected) in [("acme-tls/1", Reason::Challenge), ("http/1.1", Reason::UnknownName)] {
        let (inside, outside) = tokio::io::duplex(1 << 16);
        let connector = TlsConnector::from(validator(&[protocol]));
        let asking = connector.connect(ServerName::try_from("a.test").unwrap(), outside);
        let (refusal, asked) = tokio::join!(answer_challenge(inside, &book), asking);
        assert_eq!(refusal.reason, expected);
        assert_eq!(asked.is_ok(), expected == Reason::Challenge);
    }
    for raw in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\x16\x03\x01\x00\x01\xff", b"\x80\x2e\x01\x00\x02", b""] {
        let (inside, mut outside) = tokio::io::duplex(1 << 16);
        outside.write_all(raw).await.unwrap();
        outside.shutdown().await.unwrap();
        assert_ne!(answer_challenge(inside, &book).await.reason, Reason::Challenge);
        let mut heard = Vec::new();
        outside.read_to_end(&mut heard).await.unwrap();
        assert!(heard.is_empty(), "{raw:?} heard {heard:?}");
    }
}
