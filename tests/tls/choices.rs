//! What is agreed upon: groups, suites, protocols, client certificates.

use std::sync::Arc;

use rustls::crypto::SupportedKxGroup;
use rustls::crypto::aws_lc_rs::kx_group::{SECP256R1, SECP384R1, X25519, X25519MLKEM768};
use rustls::{ClientConfig, HandshakeKind};
use tempfile::TempDir;
use vestibule::config::model::{Tls, TlsVersion};
use vestibule::tls::{Alpn, Reason, Shared, SiteTls};

use super::pki::{Ca, Pair};
use super::{Listener, client, loaded, no_authority, site};

#[tokio::test]
async fn the_hybrid_group_wins_wherever_the_client_lists_it() {
    let ca = Ca::new("root");
    let mut edge = Listener::start(vec![("a.test", loaded(&ca, &["a.test"], &Shared::new().unwrap(), None))]);
    // rustls sends a key share for the first group of the list alone.
    let cases: [(&[&'static dyn SupportedKxGroup], &str, bool); 6] = [
        (&[X25519MLKEM768, X25519], "X25519MLKEM768", false),
        (&[X25519, X25519MLKEM768], "X25519MLKEM768", true),
        (&[SECP384R1, SECP256R1, X25519, X25519MLKEM768], "X25519MLKEM768", true),
        (&[X25519], "x25519", false),
        (&[SECP256R1, X25519], "secp256r1", false),
        (&[SECP384R1], "secp384r1", false),
    ];
    for (groups, expected, retried) in cases {
        let config = Arc::new(client(ca.roots(), |provider| provider.kx_groups = groups.to_vec()));
        let stream = edge.hello("a.test", &config).await.unwrap();
        let seen = edge.outcome().await.unwrap();
        assert_eq!(seen.group, Some(expected), "{groups:?}");
        let kind = stream.get_ref().1.handshake_kind().unwrap();
        assert_eq!(kind == HandshakeKind::FullWithHelloRetryRequest, retried, "{groups:?}");
    }
}

#[tokio::test]
async fn tls_1_2_is_spoken_with_clients_that_list_the_hybrid_group_for_nothing() {
    let ca = Ca::new("root");
    let mut edge = Listener::start(vec![("a.test", loaded(&ca, &["a.test"], &Shared::new().unwrap(), None))]);
    let config = Arc::new(only(&ca, &rustls::version::TLS12));
    edge.hello("a.test", &config).await.unwrap();
    let seen = edge.outcome().await.unwrap();
    assert_eq!((seen.version, seen.group), ("TLSv1.2", Some("x25519")));
    assert_eq!(seen.suite, "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256");
}

#[tokio::test]
async fn the_servers_order_of_suites_counts() {
    let ca = Ca::new("root");
    let mut edge = Listener::start(vec![("a.test", loaded(&ca, &["a.test"], &Shared::new().unwrap(), None))]);
    let config = Arc::new(client(ca.roots(), |provider| provider.cipher_suites.reverse()));
    edge.hello("a.test", &config).await.unwrap();
    let seen = edge.outcome().await.unwrap();
    assert_eq!((seen.version, seen.suite), ("TLSv1.3", "TLS_AES_128_GCM_SHA256"));
}

#[tokio::test]
async fn alpn_picks_h2_before_http_1_1_and_refuses_the_rest() {
    let ca = Ca::new("root");
    let mut edge = Listener::start(vec![("a.test", loaded(&ca, &["a.test"], &Shared::new().unwrap(), None))]);
    let cases: [(&[&str], Result<Alpn, Reason>); 6] = [
        (&["http/1.1", "h2"], Ok(Alpn::H2)),
        (&["http/1.1"], Ok(Alpn::Http11)),
        (&["http/1.0"], Ok(Alpn::Http11)),
        (&[], Ok(Alpn::Http11)),
        (&["acme-tls/1"], Err(Reason::NoProtocol)),
        (&["h3", "spdy/3"], Err(Reason::NoProtocol)),
    ];
    for (offered, expected) in cases {
        let mut config = client(ca.roots(), |_| ());
        config.alpn_protocols = offered.iter().map(|name| name.as_bytes().to_vec()).collect();
        let stream = edge.hello("a.test", &Arc::new(config)).await;
        assert_eq!(edge.outcome().await.map(|seen| seen.protocol), expected, "{offered:?}");
        match stream {
            Ok(_) => assert!(expected.is_ok(), "{offered:?}"),
            Err(error) => {
                assert!(error.to_string().contains("NoApplicationProtocol"), "{offered:?}: {error}");
            }
        }
    }
}

#[tokio::test]
async fn a_site_of_tls_1_3_refuses_1_2() {
    let (ca, dir) = (Ca::new("root"), TempDir::new().unwrap());
    let site = site(&["a.test"], &ca.server(&["a.test"]), dir.path(), None);
    let tls = Tls { min_version: TlsVersion::V1_3 };
    let loaded = SiteTls::load(&site, &tls, &Shared::new().unwrap(), no_authority).unwrap();
    let mut edge = Listener::start(vec![("a.test", loaded.tls)]);
    let error = edge.hello("a.test", &Arc::new(only(&ca, &rustls::version::TLS12))).await.unwrap_err();
    assert!(error.to_string().contains("ProtocolVersion"), "{error}");
    assert_eq!(edge.outcome().await, Err(Reason::ProtocolVersion));
    edge.hello("a.test", &Arc::new(only(&ca, &rustls::version::TLS13))).await.unwrap();
    assert_eq!(edge.outcome().await.unwrap().version, "TLSv1.3");
}

#[tokio::test]
async fn a_wildcard_is_answered_for_one_label() {
    let (ca, shared) = (Ca::new("root"), Shared::new().unwrap());
    let mut edge = Listener::start(vec![("*.t.test", loaded(&ca, &["*.t.test"], &shared, None))]);
    let config = Arc::new(client(ca.roots(), |_| ()));
    edge.hello("One.T.test", &config).await.unwrap();
    assert_eq!(edge.outcome().await.unwrap().name, "one.t.test");
    edge.hello("a.b.t.test", &config).await.unwrap_err();
    assert_eq!(edge.outcome().await, Err(Reason::UnknownName));
}

#[tokio::test]
async fn a_client_ca_lets_only_its_own_clients_in() {
    let (ca, clients, others) = (Ca::new("root"), Ca::new("clients"), Ca::new("clients"));
    let shared = Shared::new().unwrap();
    let mut edge = Listener::start(vec![("a.test", loaded(&ca, &["a.test"], &shared, Some(&clients)))]);
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let cases = [
            (None, Err(Reason::ClientCertificate)),
            (Some(others.client("mallory")), Err(Reason::ClientCertificate)),
            (Some(clients.server(&["server.test"])), Err(Reason::ClientCertificate)),
            (Some(clients.client("alice")), Ok(())),
        ];
        for (number, (pair, expected)) in cases.into_iter().enumerate() {
            let config = match pair {
                Some(pair) => with_certificate(&ca, &pair, version),
                None => only(&ca, version),
            };
            let stream = edge.hello("a.test", &Arc::new(config)).await;
            assert_eq!(stream.is_ok(), expected.is_ok(), "{version:?} case {number}");
            assert_eq!(edge.outcome().await.map(drop), expected, "{version:?} case {number}");
        }
    }
}

fn only(ca: &Ca, version: &'static rustls::SupportedProtocolVersion) -> ClientConfig {
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(ca.roots())
        .with_no_client_auth()
}

fn with_certificate(
    ca: &Ca,
    pair: &Pair,
    version: &'static rustls::SupportedProtocolVersion,
) -> ClientConfig {
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(ca.roots())
        .with_client_auth_cert(pair.chain(), pair.private())
        .unwrap()
}
