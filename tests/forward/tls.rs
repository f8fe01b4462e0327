//! TLS that is ended before bytes are passed on: names, certificates, client certificates, and what is refused.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{AlertDescription, ClientConfig, Error};

use super::*;
use crate::support::client::{Tls, config};
use crate::tls::pki::Ca;

const NAME: &str = "db.localhost";
/// The alert `unrecognized_name` (RFC 6066 section 3) in a record of its own.
const UNRECOGNIZED_NAME: &[u8] = b"\x15\x03\x03\0\x02\x02\x70";

fn tls_row(target: &Target, more: &str) -> String {
    target.row(&format!(", tls = \"{NAME}\", certificate = \"internal\"{more}"))
}

/// A handshake with the row, under a name and with a configuration.
fn shake(edge: &Edge, name: &str, config: Arc<ClientConfig>) -> io::Result<Tls> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let session = rustls::ClientConnection::new(config, name).unwrap();
    let mut tls = rustls::StreamOwned::new(session, client::tcp(edge.address(ROW))?);
    while tls.conn.is_handshaking() {
        tls.conn.complete_io(&mut tls.sock)?;
    }
    Ok(tls)
}

#[test]
fn bytes_and_half_closes_go_through_tls() {
    let target = Target::new();
    let edge = Edge::start(&tls_row(&target, ", send_proxy = \"v2\""));
    let mark = edge.mark();
    let mut tls = shake(&edge, NAME, config(&edge.ca(), &[])).unwrap();
    assert_eq!(tls.conn.alpn_protocol(), None);
    let mut upstream = target.accept();
    let big: Vec<u8> = (0..1_000_000_u32).map(|at| (at >> 5).to_le_bytes()[0]).collect();
    let sent = big.clone();
    let reading = std::thread::spawn(move || {
        let heard = rest(&mut upstream).unwrap();
        upstream.write_all(&sent).unwrap();
        heard
    });
    tls.write_all(&big).unwrap();
    tls.conn.send_close_notify();
    tls.conn.complete_io(&mut tls.sock).unwrap();
    tls.sock.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    tls.read_to_end(&mut answer).unwrap(); // Ok: the edge said that nothing more comes
    let heard = reading.join().unwrap();
    assert!(answer == big && heard.ends_with(&big));
    let header = &heard[..heard.len() - big.len()];
    for said in [&b"\x02\0\x0cdb.localhost"[..], b"\x21\0\x07TLSv1.3", b"\x23\0\x16TLS_AES_128_GCM_SHA256"] {
        assert!(header.windows(said.len()).any(|window| window == said), "{}", header.escape_ascii());
    }
    let (end, line) = ended(&edge, mark);
    assert_eq!(
        (end.as_str(), &line["tls"], &line["resumed"]),
        ("client_closed", &"TLSv1.3".into(), &false.into())
    );
}

#[test]
fn clients_name_the_row_or_nobody() {
    let target = Target::new();
    let edge = Edge::start(&tls_row(&target, ""));
    let mut unnamed = Arc::unwrap_or_clone(config(&edge.ca(), &[]));
    unnamed.enable_sni = false;
    // Protocols that nobody here knows are for those behind the edge to judge.
    for config in [Arc::new(unnamed), config(&edge.ca(), &[b"h2", b"mqtt"])] {
        let mark = edge.mark();
        let tls = shake(&edge, NAME, config).unwrap();
        assert_eq!(tls.conn.alpn_protocol(), None);
        drop((tls, target.accept()));
        assert_ne!(ended(&edge, mark).0, "refused");
    }
    for name in ["app.localhost", "other.localhost"] {
        let mark = edge.mark();
        let refused = shake(&edge, name, config(&edge.ca(), &[])).unwrap_err();
        let alert = refused.into_inner().unwrap().downcast::<Error>().unwrap();
        assert_eq!(*alert, Error::AlertReceived(AlertDescription::UnrecognisedName));
        let (end, line) = ended(&edge, mark);
        assert_eq!((end.as_str(), &line["refused"]), ("refused", &"unknown_name".into()));
    }
    // Nor does the https row know the row's name.
    assert!(client::tls(edge.https(), &edge.ca(), NAME, &[]).is_err());
}

#[test]
fn what_is_not_tls_ends_without_a_target() {
    let target = Target::new();
    let edge = Edge::start(&tls_row(&target, ""));
    let hurried = Edge::start(&(tls_row(&target, "") + "[limits]\nhandshake_timeout = \"500ms\"\n"));
    let hello = b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03";
    let unknown: &[u8] = b"\0\0\0\x09\x04\xd2\x16\x2f!";
    for (bytes, why) in [
        (&b"*1\r\n$4\r\nPING\r\n"[..], "not_tls"),
        (b"GET / HTTP/1.1\r\n\r\n", "not_tls"),
        (b"\0\0\0\x09\0\x03\0\0\0", "not_tls"),
        (b"\0\0\0\x10\x04\xd2\x16\x2e", "timeout"),
        (unknown, "malformed"),
        (b"\0", "timeout"),
        (hello, "timeout"),
        (b"", "timeout"),
    ] {
        let edge = if why == "timeout" { &hurried } else { &edge };
        let mark = edge.mark();
        let mut client = client::tcp(edge.address(ROW)).unwrap();
        let _ = client.write_all(bytes);
        if why != "timeout" {
            client.shutdown(Shutdown::Write).unwrap();
        }
        let _ = rest(&mut client);
        let (end, line) = ended(edge, mark);
        assert_eq!((end.as_str(), &line["refused"]), ("refused", &why.into()), "{}", bytes.escape_ascii());
        assert_eq!(line["request_bytes"], 0);
    }
    // A record that is cut after the handshake, and one that is none.
    for garbage in [&b"\x17\x03\x03\0\x40cut"[..], b"\x17\x03\x03\0\x03abc", b"HELLO WORLD"] {
        let mark = edge.mark();
        let mut tls = shake(&edge, NAME, config(&edge.ca(), &[])).unwrap();
        let mut upstream = target.accept();
        tls.sock.write_all(garbage).unwrap();
        tls.sock.shutdown(Shutdown::Write).unwrap();
        let _ = rest(&mut upstream);
        drop((tls, upstream));
        let (end, line) = ended(&edge, mark);
        assert!(["client_broken", "client_closed", "client_reset"].contains(&end.as_str()), "{line}");
    }
    target.0.set_nonblocking(true).unwrap();
    assert!(target.0.accept().is_err(), "somebody was dialed");
}

#[test]
fn an_unknown_name_hears_the_alert_and_nothing_else() {
    let target = Target::new();
    let edge = Edge::start(&tls_row(&target, ""));
    let name = ServerName::try_from("other.localhost").unwrap();
    let mut session = rustls::ClientConnection::new(config(&edge.ca(), &[]), name).unwrap();
    let mut tcp = client::tcp(edge.address(ROW)).unwrap();
    session.write_tls(&mut tcp).unwrap();
    assert_eq!(rest(&mut tcp).unwrap(), UNRECOGNIZED_NAME);
}

/// Without a certificate of its own, a row shows that of the site which has its name, by a wildcard too.
#[test]
fn a_row_shares_a_sites_certificate() {
    let target = Target::new();
    for name in ["app.localhost", "db.wild.localhost"] {
        let edge = Edge::start(&target.row(&format!(", tls = \"{name}\"")));
        let tls = shake(&edge, name, config(&edge.ca(), &[])).unwrap();
        drop((tls, target.accept()));
    }
}

#[test]
fn certificate_files_and_client_certificates() {
    let (target, folder) = (Target::new(), tempfile::tempdir().unwrap());
    let ca = Ca::new("forward rows");
    let (cert, key) = ca.server(&[NAME]).write(folder.path());
    fs::write(folder.path().join("clients.pem"), ca.pem()).unwrap();
    let edge = Edge::start(&target.row(&format!(
        ", tls = \"{NAME}\", certificate = {{ cert = \"{}\", key = \"{}\" }}, client_ca = \"{}\", send_proxy = \"v2\"",
        cert.display(),
        key.display(),
        folder.path().join("clients.pem").display()
    )));
    let config = |pair: Option<crate::tls::pki::Pair>| {
        let builder =
            ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
        let builder =
            builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(ca.roots());
        Arc::new(match pair {
            Some(pair) => builder.with_client_auth_cert(pair.chain(), pair.private()).unwrap(),
            None => builder.with_no_client_auth(),
        })
    };
    let mut tls = shake(&edge, NAME, config(Some(ca.client("a client")))).unwrap();
    tls.write_all(b"hello").unwrap();
    tls.conn.send_close_notify();
    tls.conn.complete_io(&mut tls.sock).unwrap();
    let heard = rest(&mut target.accept()).unwrap();
    drop(tls); // what it did not read makes this a reset, which comes after the end
    assert!(
        heard.ends_with(b"hello") && heard.windows(8).any(|part| part == b"\x07\0\0\0\0\x21\0\x07"),
        "{heard:?}"
    );
    ended(&edge, 0);
    let mark = edge.mark();
    // TLS 1.3 clients hear of it after their own handshake.
    let refused = shake(&edge, NAME, config(None)).and_then(|mut tls| tls.read(&mut [0]));
    assert!(refused.is_err());
    let (end, line) = ended(&edge, mark);
    assert_eq!((end.as_str(), &line["refused"]), ("refused", &"client_certificate".into()));
    // A cancel request shows no certificate.
    let mark = edge.mark();
    let mut tcp = client::tcp(edge.address(ROW)).unwrap();
    tcp.write_all(b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x01\0\0\0\x02").unwrap();
    let _ = rest(&mut tcp);
    assert_eq!(ended(&edge, mark).0, "refused");
}
