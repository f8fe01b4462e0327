//! Targets that are not there, silence, and who the target is told that the client is.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};

use super::*;

/// Where nobody listens.
const NOBODY: &str = "127.0.0.1:1";

#[test]
fn a_client_is_let_go_when_no_target_answers() {
    let target = Target::new();
    let edge = Edge::start(&rows(&format!(
        "\"{ROW}\" = {{ forward = \"{0}\", allow = [\"public\"] }}\n\
         \"127.0.0.4:0\" = {{ forward = [\"{0}\", \"{1}\"], allow = [\"public\"] }}\n\
         \"127.0.0.5:0\" = {{ forward = \"no-such-name.invalid:1\", allow = [\"public\"] }}",
        NOBODY,
        target.address(),
    )));
    for row in [ROW, "127.0.0.5:0"] {
        let mark = edge.mark();
        let mut client = client::tcp(edge.address(row)).unwrap();
        assert_eq!(rest(&mut client).unwrap(), b"");
        let (end, line) = ended(&edge, mark);
        assert!(end == "connect_failed" || end == "connect_timeout", "{line}");
        assert_eq!(line["row"], row);
    }
    // Of several, another is asked.
    for _ in 0..4 {
        let mut client = client::tcp(edge.address("127.0.0.4:0")).unwrap();
        says(&mut client, &mut target.accept(), "hello");
    }
}

#[test]
fn a_target_that_does_not_answer_is_waited_for_and_not_longer() {
    // A queue that is full takes no connection, and refuses none.
    let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    full.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    full.listen(0).unwrap();
    let address = full.local_addr().unwrap().as_socket().unwrap();
    let _waiting: Vec<_> = (0..4)
        .map(|_| {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            let _ = socket.connect(&address.into());
            socket
        })
        .collect();
    let keys = format!("forward = \"{address}\", allow = [\"public\"], connect_timeout = \"200ms\"");
    let edge = Edge::start(&row(&keys));
    let mark = edge.mark();
    let mut client = client::tcp(edge.address(ROW)).unwrap();
    assert_eq!(rest(&mut client).unwrap(), b"");
    assert_eq!(ended(&edge, mark).0, "connect_timeout");
}

#[test]
fn silence_ends_a_connection_where_the_row_says_so() {
    let target = Target::new();
    let edge = Edge::start(&target.row(", idle_timeout = \"2s\""));
    let mark = edge.mark();
    let (mut client, mut upstream) = joined(&edge, &target);
    says(&mut client, &mut upstream, "hello");
    assert_eq!(rest(&mut client).unwrap(), b"");
    assert_eq!(rest(&mut upstream).unwrap(), b"");
    assert_eq!(ended(&edge, mark).0, "idle");
}

/// As the target reads it: the header's octets, and what the client said.
fn introduced(edge: &Edge, target: &Target, before: &[u8]) -> (TcpStream, Vec<u8>) {
    let mut client = client::tcp(edge.address(ROW)).unwrap();
    client.write_all(before).unwrap();
    client.write_all(b"hello").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut upstream = target.accept();
    let heard = rest(&mut upstream).unwrap();
    (client, heard)
}

#[test]
fn a_target_is_told_who_the_client_is() {
    let target = Target::new();
    let edge = Edge::start(&target.row(", send_proxy = \"v1\""));
    let (client, heard) = introduced(&edge, &target, b"");
    let (from, to) = (client.local_addr().unwrap(), edge.address(ROW));
    let expected = format!("PROXY TCP4 {} {} {} {}\r\nhello", from.ip(), to.ip(), from.port(), to.port());
    assert_eq!(String::from_utf8_lossy(&heard), expected);
    let edge = Edge::start(&target.row(", send_proxy = \"v2\""));
    let (client, heard) = introduced(&edge, &target, b"");
    let port = client.local_addr().unwrap().port().to_be_bytes();
    assert!(heard.starts_with(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\x01\x7f\0\0\x03"), "{heard:?}");
    assert!(heard.ends_with(b"hello") && heard[24..26] == port, "{heard:?}");
}

#[test]
fn a_client_that_a_proxy_names_is_passed_on() {
    let target = Target::new();
    let edge =
        Edge::start(&target.row(", send_proxy = \"v1\", proxy_protocol = [\"here\"], deny = [\"nobody\"]"));
    let mark = edge.mark();
    let (_, heard) = introduced(&edge, &target, b"PROXY TCP6 2001:db8::7 2001:db8::1 1000 5432\r\n");
    assert_eq!(heard, b"PROXY TCP6 2001:db8::7 2001:db8::1 1000 5432\r\nhello");
    let (_, line) = ended(&edge, mark);
    assert_eq!(line["client"], "2001:db8::7");
    let header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xcb\0\x71\x07\xcb\0\x71\x01\x03\xe8\x01\xbb";
    let (_, heard) = introduced(&edge, &target, header);
    assert_eq!(heard, b"PROXY TCP4 203.0.113.7 203.0.113.1 1000 443\r\nhello");
}

/// Cut anywhere, wrong, naming whom the row denies, or from a stranger: closed without a word, and nobody dialed.
#[test]
fn headers_that_are_wrong_reach_no_target() {
    let target = Target::new();
    let lb = Edge::start(&target.row(", proxy_protocol = [\"here\"], deny = [\"nobody\"]"));
    let elsewhere = Edge::start(&target.row(", proxy_protocol = [\"nobody\"]"));
    let v1 = b"PROXY TCP4 203.0.113.7 203.0.113.1 1000 443\r\n";
    let v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xcb\0\x71\x07\xcb\0\x71\x01\x03\xe8\x01\xbb";
    let cut = |header: &[u8]| (0..header.len()).map(|length| header[..length].to_vec()).collect::<Vec<_>>();
    let said = |edge: &Edge, bytes: &[u8]| {
        let mut client = client::tcp(edge.address(ROW)).unwrap();
        let _ = client.write_all(bytes);
        let _ = client.shutdown(Shutdown::Write);
        let mut heard = Vec::new();
        let _ = client.read_to_end(&mut heard);
        heard
    };
    let wrong = [b"PROXY TCP4 203.0.113.9 203.0.113.1 1 2\r\n".to_vec(), b"hello, hello, hello".to_vec()];
    for header in cut(v1).into_iter().chain(cut(v2)).chain(wrong) {
        assert_eq!(said(&lb, &header), b"", "{}", header.escape_ascii());
    }
    assert_eq!(said(&elsewhere, v1), b"");
    target.0.set_nonblocking(true).unwrap();
    assert!(target.0.accept().is_err(), "somebody was dialed");
}
