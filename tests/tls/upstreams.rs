//! TLS as a client.

use std::net::SocketAddr;
use std::process::Command;

use tempfile::TempDir;
use tokio::net::TcpStream;
use vestibule::tls::upstream::ClientTls;
use vestibule::tls::{Alpn, Shared};

use super::pki::Ca;
use super::{Listener, loaded};

const ADDRESS: &str = "VESTIBULE_TEST_UPSTREAM";
const OWN_NAME: &str = "tls::upstreams::as_a_child_with_roots_of_its_own";

/// The roots come from the environment, which a process has but one of: so a child looks.
#[tokio::test]
async fn upstreams_are_verified_against_the_systems_roots() {
    let (ca, dir) = (Ca::new("root"), TempDir::new().unwrap());
    let mut edge = Listener::start(vec![("a.test", loaded(&ca, &["a.test"], &Shared::new().unwrap(), None))]);
    let roots = dir.path().join("roots.pem");
    std::fs::write(&roots, ca.pem()).unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", OWN_NAME]).env(ADDRESS, edge.address.to_string()).env("SSL_CERT_FILE", &roots);
    child.env_remove("SSL_CERT_DIR");
    let done = tokio::task::spawn_blocking(move || child.output().unwrap()).await.unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
    let seen = edge.outcome().await.unwrap();
    assert_eq!((seen.protocol, seen.version), (Alpn::Http11, "TLSv1.3"));
    assert_eq!(seen.group, Some("X25519MLKEM768"));
}

#[tokio::test]
async fn as_a_child_with_roots_of_its_own() {
    let Ok(address) = std::env::var(ADDRESS) else { return };
    let address: SocketAddr = address.parse().unwrap();
    let client = ClientTls::new();
    client.prepare().unwrap();
    let socket = TcpStream::connect(address).await.unwrap();
    let stream = client.connect("a.test", socket).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    for (host, expected) in
        [("b.test", "UnrecognisedName"), ("not a name", "invalid"), ("127.0.0.1", "Unrecognised")]
    {
        let socket = TcpStream::connect(address).await.unwrap();
        let error = client.connect(host, socket).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{host}: {error}");
    }
}

#[tokio::test]
async fn an_upstream_of_an_unknown_ca_is_refused() {
    let ca = Ca::new("root");
    let edge = Listener::start(vec![("a.test", loaded(&ca, &["a.test"], &Shared::new().unwrap(), None))]);
    let client = ClientTls::new();
    if client.prepare().is_err() {
        return; // A machine without any roots trusts nobody anyway.
    }
    let socket = TcpStream::connect(edge.address).await.unwrap();
    let error = client.connect("a.test", socket).await.unwrap_err();
    assert!(error.to_string().contains("UnknownIssuer"), "{error}");
}
