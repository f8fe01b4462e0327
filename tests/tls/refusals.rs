//! What outsiders see who may not come in: alerts as raw records, and orderly closes.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;

use proptest::prelude::*;
use rustls::{ClientConnection, pki_types::ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use vestibule::tls::challenges::Book;
use vestibule::tls::{Reason, Shared};

use super::pki::Ca;
use super::{Listener, client, loaded};
use crate::support::PATIENCE;

const UNRECOGNIZED_NAME: u8 = 112;
const PROTOCOL_VERSION: u8 = 70;
const HANDSHAKE_FAILURE: u8 = 40;
const NO_APPLICATION_PROTOCOL: u8 = 120;

fn start() -> (Ca, Listener) {
    let ca = Ca::new("root");
    let tls = loaded(&ca, &["a.test"], &Shared::new().unwrap(), None);
    (ca, Listener::start(vec![("a.test", tls)]))
}

/// A `ClientHello`, of which a test changes what it is about.
#[derive(Clone)]
struct Hello {
    version: u16,
    suites: Vec<u16>,
    extensions: Vec<(u16, Vec<u8>)>,
}

impl Hello {
    /// TLS 1.2 with everything that the edge wants.
    fn good() -> Self {
        Self {
            version: 0x0303,
            suites: vec![0xc02b, 0xc02f],
            extensions: vec![sni(b"a.test"), groups(), schemes()],
        }
    }

    fn version(self, version: u16) -> Self {
        Self { version, ..self }
    }

    fn suites(self, suites: &[u16]) -> Self {
        Self { suites: suites.to_vec(), ..self }
    }

    fn extensions(self, extensions: &[(u16, Vec<u8>)]) -> Self {
        Self { extensions: extensions.to_vec(), ..self }
    }

    /// As one record.
    fn bytes(&self) -> Vec<u8> {
        let suites: Vec<u8> = self.suites.iter().flat_map(|suite| suite.to_be_bytes()).collect();
        let extensions =
            self.extensions.iter().flat_map(|(kind, body)| [&kind.to_be_bytes()[..], &list16(body)].concat());
        let extensions: Vec<u8> = extensions.collect();
        let mut body = [&self.version.to_be_bytes()[..], &[7; 32], &[0], &list16(&suites), &[1, 0]].concat();
        if !extensions.is_empty() {
            body.extend(list16(&extensions));
        }
        let message = [&[1, 0][..], &list16(&body)].concat();
        [&[22, 3, 1][..], &list16(&message)].concat()
    }
}

fn list16(body: &[u8]) -> Vec<u8> {
    [&u16::try_from(body.len()).unwrap().to_be_bytes()[..], body].concat()
}

fn sni(name: &[u8]) -> (u16, Vec<u8>) {
    (0, list16(&[&[0][..], &list16(name)].concat()))
}

fn groups() -> (u16, Vec<u8>) {
    (10, list16(&[0, 29, 0, 23]))
}

fn schemes() -> (u16, Vec<u8>) {
    (13, list16(&[4, 3, 8, 4]))
}

fn versions(list: &[u8]) -> (u16, Vec<u8>) {
    (43, [&[u8::try_from(list.len()).unwrap()][..], list].concat())
}

/// Sends the bytes, then reads until the edge closes. A reset is an error.
fn exchange(address: SocketAddr, sent: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.write_all(sent)?;
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer)?;
    Ok(answer)
}

/// What a hello is about, the hello, and the minor version, the alert and the reason that it meets.
type Case = (&'static str, Hello, u8, u8, Reason);

/// Each refusal is exactly one alert in one record, then a close without a reset.
async fn refuses(cases: Vec<Case>) {
    let (_ca, mut edge) = start();
    for (what, hello, minor, alert, reason) in cases {
        let answer = exchange(edge.address, &hello.bytes()).unwrap();
        assert_eq!(answer, [21, 3, minor, 0, 2, 2, alert], "{what}");
        assert_eq!(edge.outcome().await, Err(reason), "{what}");
    }
}

#[tokio::test]
async fn a_name_that_no_site_has_is_not_recognized() {
    let named = |name: Option<&[u8]>, reason| {
        let extensions: Vec<_> = name.map(sni).into_iter().chain([groups(), schemes()]).collect();
        ("a name", Hello::good().extensions(&extensions), 3, UNRECOGNIZED_NAME, reason)
    };
    refuses(vec![
        named(None, Reason::NoSni),
        named(Some(b"127.0.0.1"), Reason::NoSni),
        named(Some(b"::1"), Reason::NoSni),
        named(Some(b"b.test"), Reason::UnknownName),
        named(Some(b"x.a.test"), Reason::UnknownName),
        named(Some(b"test"), Reason::UnknownName),
        named(Some(b"a..test"), Reason::BadName),
        named(Some(b"a test"), Reason::BadName),
        named(Some(b"*.test"), Reason::BadName),
        named(Some(b"\xc3\xa4.test"), Reason::BadName),
        named(Some(b"a.test\0.evil.test"), Reason::BadName),
    ])
    .await;
}

#[tokio::test]
async fn tls_1_1_and_less_is_told_so_whatever_else_is_wrong_with_it() {
    let outdated = |what, version, minor, extensions: &[(u16, Vec<u8>)]| {
        let hello = Hello::good().version(version).extensions(extensions);
        (what, hello, minor, PROTOCOL_VERSION, Reason::ProtocolVersion)
    };
    let named = sni(b"a.test");
    refuses(vec![
        outdated("TLS 1.1", 0x0302, 2, &[named.clone(), groups(), schemes()]),
        outdated("TLS 1.0", 0x0301, 1, &[named.clone(), groups(), schemes()]),
        outdated("SSL 3.0", 0x0300, 1, &[named.clone(), groups(), schemes()]),
        outdated("no SNI", 0x0302, 2, &[groups(), schemes()]),
        outdated("unknown name", 0x0302, 2, &[sni(b"b.test"), groups(), schemes()]),
        outdated("no schemes", 0x0302, 2, &[named.clone(), groups()]),
        outdated("no extensions", 0x0301, 1, &[]),
        outdated("by extension", 0x0303, 3, &[named, groups(), schemes(), versions(&[3, 2, 3, 1])]),
    ])
    .await;
}

#[tokio::test]
async fn nothing_in_common_is_a_handshake_failure() {
    let failure = |what, hello| (what, hello, 3, HANDSHAKE_FAILURE, Reason::HandshakeFailure);
    let good = Hello::good();
    let named = sni(b"a.test");
    refuses(vec![
        failure("RSA key transport", good.clone().suites(&[0x002f, 0x009c])),
        failure("DHE", good.clone().suites(&[0x009e])),
        failure("CBC", good.clone().suites(&[0xc023, 0xc009])),
        failure("a suite for the other kind of key", good.clone().suites(&[0xc02f])),
        failure("no group", good.clone().extensions(&[named.clone(), schemes()])),
        failure(
            "no group in common",
            good.clone().extensions(&[named.clone(), (10, list16(&[0, 30])), schemes()]),
        ),
        failure("no schemes", good.clone().extensions(&[named.clone(), groups()])),
        (
            "another protocol",
            good.extensions(&[named, groups(), schemes(), (16, list16(b"\x0aacme-tls/1"))]),
            3,
            NO_APPLICATION_PROTOCOL,
            Reason::NoProtocol,
        ),
    ])
    .await;
}

#[tokio::test]
async fn ssl_2_hears_that_it_is_too_old() {
    let (_ca, mut edge) = start();
    let hello = b"\x80\x1f\x01\x03\x01\x00\x06\x00\x00\x00\x10\x01\x00\x80\x00\x00\x2f0123456789abcdef";
    assert_eq!(exchange(edge.address, hello).unwrap(), [21, 3, 1, 0, 2, 2, PROTOCOL_VERSION]);
    assert_eq!(edge.outcome().await, Err(Reason::ProtocolVersion));
}

#[tokio::test]
async fn what_is_not_tls_is_closed_without_a_word() {
    let (_ca, mut edge) = start();
    for sent in
        [&b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"[..], b"SSH-2.0-OpenSSH_9.2\r\n", &[0; 64], &[255; 64]]
    {
        assert_eq!(exchange(edge.address, sent).unwrap(), b"", "{sent:?}");
        assert_eq!(edge.outcome().await, Err(Reason::NotTls), "{sent:?}");
    }
}

/// Bytes that lie unread in the edge's socket when it closes would make the kernel send a reset, and that would
/// overtake the alert.
#[tokio::test]
async fn the_alert_reaches_a_client_that_goes_on_talking() {
    let (_ca, mut edge) = start();
    let hello = Hello::good().extensions(&[groups(), schemes()]).bytes();
    let sent = [hello, vec![0x17; 40_000]].concat();
    assert_eq!(exchange(edge.address, &sent).unwrap(), [21, 3, 3, 0, 2, 2, UNRECOGNIZED_NAME]);
    assert_eq!(edge.outcome().await, Err(Reason::NoSni));
}

#[tokio::test]
async fn a_hello_in_small_records_and_small_writes_is_one_hello() {
    let (_ca, mut edge) = start();
    let hello = Hello::good().version(0x0302).bytes();
    let records: Vec<u8> =
        hello[5..].chunks(7).flat_map(|part| [&[22, 3, 1][..], &list16(part)].concat()).collect();
    assert_eq!(exchange(edge.address, &records).unwrap(), [21, 3, 2, 0, 2, 2, PROTOCOL_VERSION]);
    assert_eq!(edge.outcome().await, Err(Reason::ProtocolVersion));
    let mut socket = TcpStream::connect(edge.address).unwrap();
    socket.set_nodelay(true).unwrap();
    for byte in hello {
        socket.write_all(&[byte]).unwrap();
    }
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, [21, 3, 2, 0, 2, 2, PROTOCOL_VERSION]);
}

#[tokio::test]
async fn a_hello_cut_anywhere_ends_with_the_client() {
    let (ca, mut edge) = start();
    let mut connection =
        ClientConnection::new(Arc::new(client(ca.roots(), |_| ())), ServerName::try_from("a.test").unwrap())
            .unwrap();
    let mut hello = Vec::new();
    connection.write_tls(&mut hello).unwrap();
    for at in 0..hello.len() {
        let mut socket = TcpStream::connect(edge.address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.write_all(&hello[..at]).unwrap();
        socket.shutdown(Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).unwrap();
        assert_eq!(answer, b"", "cut at {at}");
        assert_eq!(edge.outcome().await, Err(Reason::ClientGone), "cut at {at}");
    }
}

#[test]
fn openssl_meets_the_alerts_by_name() {
    let (_ca, edge) = start();
    let address = edge.address.to_string();
    let name = ["-servername", "a.test"];
    let cases: [(&[&str], &str); 6] = [
        (&["-noservername"], "alert number 112"),
        (&["-servername", "b.test"], "alert number 112"),
        (&["-tls1_1", "-cipher", "ALL:@SECLEVEL=0", name[0], name[1]], "alert number 70"),
        (&["-tls1", "-cipher", "ALL:@SECLEVEL=0", "-noservername"], "alert number 70"),
        (&["-tls1_2", "-cipher", "kRSA:kDHE", name[0], name[1]], "alert number 40"),
        (&["-alpn", "spdy/3", name[0], name[1]], "alert number 120"),
    ];
    for (arguments, expected) in cases {
        let run = Command::new("openssl")
            .args(["s_client", "-connect", &address])
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .expect("openssl is installed");
        let said = String::from_utf8_lossy(&run.stderr);
        assert!(said.contains(expected), "{arguments:?}: {said}");
        assert!(!run.status.success(), "{arguments:?}");
    }
}

/// A client that says nothing more is the caller's deadline's business: the socket closes with the future.
#[tokio::test]
async fn a_silent_client_waits_until_the_caller_gives_up() {
    let hello = Hello::good().bytes();
    for at in [0, 1, 5, hello.len() - 1] {
        let (mut outside, inside) = tokio::io::duplex(1024);
        outside.write_all(&hello[..at]).await.unwrap();
        let patience = std::time::Duration::from_millis(5);
        let met = tokio::time::timeout(
            patience,
            vestibule::tls::accept(inside, &Book::default(), |_| Err(Reason::UnknownName)),
        )
        .await;
        assert!(met.is_err(), "cut at {at}");
        assert_eq!(outside.read_to_end(&mut Vec::new()).await.unwrap(), 0, "cut at {at}");
    }
}

/// What a client sends, and then leaves; the edge knows every name.
fn refused(sent: &[&[u8]]) -> bool {
    static SITE: std::sync::OnceLock<Arc<vestibule::tls::SiteTls>> = std::sync::OnceLock::new();
    let site = SITE.get_or_init(|| loaded(&Ca::new("root"), &["a.test"], &Shared::new().unwrap(), None));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (outside, inside) = tokio::io::duplex(64);
        let (mut answer, mut outside) = tokio::io::split(outside);
        let talk = async {
            for part in sent {
                let _ = outside.write_all(part).await;
            }
            let _ = outside.shutdown().await;
        };
        let listen = async { tokio::io::copy(&mut answer, &mut tokio::io::sink()).await.unwrap() };
        let accept = async {
            vestibule::tls::accept(inside, &Book::default(), |name| {
                site.config(name).ok_or(Reason::NoCertificate)
            })
            .await
            .is_err()
        };
        tokio::join!(accept, talk, listen).0
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn random_bytes_have_a_clear_end(
        start in prop_oneof![Just(&b""[..]), Just(&b"\x16\x03\x01"[..]), Just(&b"\x16\x03\x01\x00\x40\x01\x00\x00\x3c\x03\x03"[..])],
        noise in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        prop_assert!(refused(&[start, &noise]));
    }

    #[test]
    fn a_bent_hello_has_a_clear_end(bends in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let mut hello = Hello::good().bytes();
        for (at, byte) in bends {
            *at.get_mut(&mut hello) = byte;
        }
        prop_assert!(refused(&[&hello]));
    }
}
