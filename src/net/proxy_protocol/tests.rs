use proptest::collection::vec;
use proptest::prelude::*;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::*;

fn end() -> impl Strategy<Value = SocketAddr> {
    (any::<std::net::IpAddr>(), any::<u16>()).prop_map(SocketAddr::from)
}

/// An address as a header can say it: IPv4 stays IPv4, but beside IPv6 it is mapped.
fn said(end: SocketAddr) -> (std::net::IpAddr, u16) {
    (end.ip().to_canonical(), end.port())
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        source in end(), destination in end(), name in "[a-z]{1,60}", alpn: Option<Vec<u8>>, certified: bool,
    ) {
        let facts = encode::TlsFacts {
            name: &name, version: "TLSv1.3", suite: "TLS_AES_128_GCM_SHA256", alpn: alpn.as_deref(), certified,
        };
        let headers = [
            encode::v1(source, destination),
            encode::v2(source, destination, None),
            encode::v2(source, destination, Some(facts)),
        ];
        for header in headers {
            let Ok(Parsed::Whole(read, length)) = parse(&header) else { panic!("{header:?}") };
            prop_assert_eq!(length, header.len());
            prop_assert_eq!(read.source.map(said), Some(said(source)));
            prop_assert_eq!(read.destination.map(said), Some(said(destination)));
        }
    }
}

#[test]
fn what_is_written_is_as_the_protocol_has_it() {
    let (source, destination) = ("192.0.2.7:56324".parse().unwrap(), "203.0.113.1:5432".parse().unwrap());
    assert_eq!(encode::v1(source, destination), b"PROXY TCP4 192.0.2.7 203.0.113.1 56324 5432\r\n");
    let facts = encode::TlsFacts { name: "a", version: "V", suite: "S", alpn: Some(b"p"), certified: true };
    let mut expected = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x24".to_vec();
    expected.extend([192, 0, 2, 7, 203, 0, 113, 1, 0xdc, 0x04, 0x15, 0x38]);
    expected.extend(b"\x01\0\x01p\x02\0\x01a\x20\0\x0d\x07\0\0\0\0\x21\0\x01V\x23\0\x01S");
    assert_eq!(encode::v2(source, destination, Some(facts)), expected);
}

fn whole(source: &str, destination: &str, length: usize) -> Parsed {
    let header =
        Header { source: Some(source.parse().unwrap()), destination: Some(destination.parse().unwrap()) };
    Parsed::Whole(header, length)
}

#[test]
fn lines() {
    let ipv4 = "PROXY TCP4 203.0.113.7 198.51.100.1 56324 443\r\n";
    assert_eq!(parse(ipv4.as_bytes()), Ok(whole("203.0.113.7:56324", "198.51.100.1:443", ipv4.len())));
    let ipv6 = "PROXY TCP6 2001:db8::7 ::1 0 65535\r\n";
    assert_eq!(parse(ipv6.as_bytes()), Ok(whole("[2001:db8::7]:0", "[::1]:65535", ipv6.len())));
    let followed = format!("{ipv4}\x16\x03\x01");
    assert_eq!(parse(followed.as_bytes()), Ok(whole("203.0.113.7:56324", "198.51.100.1:443", ipv4.len())));
    let full = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    for line in [
        "PROXY UNKNOWN\r\n",
        "PROXY UNKNOWN anything  at all\r\n",
        &format!("PROXY UNKNOWN {full} {full} 65535 65535\r\n"),
    ] {
        assert_eq!(parse(line.as_bytes()), Ok(Parsed::Whole(Header::default(), line.len())), "{line}");
    }
}

#[test]
fn malformed_lines() {
    let protocol = "the protocol is not TCP4, TCP6 or UNKNOWN";
    let address = "an address is not one of the protocol's";
    let port = "a port is not a number from 0 to 65535";
    let end = "it does not end with CR LF";
    for (line, why) in [
        ("PROXY TCP5 192.0.2.1 192.0.2.2 1 2\r\n", protocol),
        ("PROXY tcp4 192.0.2.1 192.0.2.2 1 2\r\n", protocol),
        ("PROXY  TCP4 192.0.2.1 192.0.2.2 1 2\r\n", protocol),
        ("PROXY UNKNOWNS\r\n", protocol),
        ("PROXY \r\n", protocol),
        ("PROXY TCP4\r\n", address),
        ("PROXY TCP4  192.0.2.1 192.0.2.2 1 2\r\n", address),
        ("PROXY TCP4 192.0.2.01 192.0.2.2 1 2\r\n", address),
        ("PROXY TCP4 192.0.2.256 192.0.2.2 1 2\r\n", address),
        ("PROXY TCP4 2001:db8::1 192.0.2.2 1 2\r\n", address),
        ("PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n", address),
        ("PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n", address),
        ("PROXY TCP6 [::1] ::1 1 2\r\n", address),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n", port),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 1 65536\r\n", port),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n", port),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 +1 2\r\n", port),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 -1 2\r\n", port),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 1 \r\n", port),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 1 2 \r\n", "there is something behind the ports"),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n", end),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\rX", end),
        ("PROXY UNKNOWN a\nb\r\n", end),
    ] {
        assert_eq!(parse(line.as_bytes()), Err(Error::Line(why)), "{line:?}");
    }
    assert_eq!(parse(b"PROXY TCP4 \xff\r\n"), Err(Error::Line("it is not text")));
}

#[test]
fn a_line_ends_within_107_octets() {
    let line = |length: usize| format!("PROXY UNKNOWN {}\r\n", "x".repeat(length - 16));
    assert!(matches!(parse(line(107).as_bytes()), Ok(Parsed::Whole(_, 107))));
    let too_long = Err(Error::Line("it is longer than 107 octets"));
    for length in [108, 109, 200] {
        assert_eq!(parse(line(length).as_bytes()), too_long, "{length}");
    }
    assert!(matches!(parse(&line(200).as_bytes()[..106]), Ok(Parsed::Missing(_))));
    assert_eq!(parse(&line(200).as_bytes()[..107]), too_long);
}

/// A block with its length filled in.
fn block(version_command: u8, family: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[version_command, family], &length, &body].concat()
}

/// 203.0.113.7:56324 to 198.51.100.1:443.
const IPV4: &[u8] = &[203, 0, 113, 7, 198, 51, 100, 1, 0xdc, 0x04, 0x01, 0xbb];

fn extension(kind: u8, value: &[u8]) -> Vec<u8> {
    [&[kind][..], &u16::try_from(value.len()).unwrap().to_be_bytes(), value].concat()
}

/// An IPv4 header between whose other extensions a right checksum stands.
fn with_checksum() -> Vec<u8> {
    let (before, after) = (extension(0x01, b"h2"), extension(0x04, &[0; 9]));
    let mut bytes = block(0x21, 0x11, &[IPV4, &before, &extension(0x03, &[0; 4]), &after]);
    let place = 16 + IPV4.len() + before.len() + 3;
    let sum = v2::crc32c(&bytes).to_be_bytes();
    bytes[place..place + 4].copy_from_slice(&sum);
    bytes
}

#[test]
fn blocks() {
    let ipv4 = whole("203.0.113.7:56324", "198.51.100.1:443", 28);
    assert_eq!(parse(&block(0x21, 0x11, &[IPV4])), Ok(ipv4));
    assert_eq!(parse(&[&block(0x21, 0x11, &[IPV4])[..], b"\x16\x03"].concat()), Ok(ipv4));
    let mut ipv6 = [0; 36];
    (ipv6[15], ipv6[31], ipv6[33], ipv6[35]) = (1, 2, 80, 90);
    assert_eq!(parse(&block(0x21, 0x21, &[&ipv6])), Ok(whole("[::1]:80", "[::2]:90", 52)));
    let extended = block(0x21, 0x11, &[IPV4, &extension(0x01, b"h2"), &extension(0xee, b"")]);
    assert_eq!(parse(&extended), Ok(whole("203.0.113.7:56324", "198.51.100.1:443", 28 + 5 + 3)));
    for unknown in
        [block(0x20, 0x00, &[]), block(0x20, 0xff, &[b"\xff\xff"]), block(0x21, 0x00, &[&[0xff; 12]])]
    {
        assert_eq!(parse(&unknown), Ok(Parsed::Whole(Header::default(), unknown.len())));
    }
}

#[test]
fn malformed_blocks() {
    let cut = "an extension does not fit in it";
    for (bytes, why) in [
        (block(0x11, 0x11, &[IPV4]), "the version is not 2"),
        (block(0x31, 0x11, &[IPV4]), "the version is not 2"),
        (block(0x22, 0x11, &[IPV4]), "the command is not LOCAL or PROXY"),
        (block(0x21, 0x12, &[IPV4]), "a datagram's addresses on a stream"),
        (block(0x21, 0x31, &[&[0; 216]]), "a unix socket has no address to judge by"),
        (block(0x21, 0x13, &[IPV4]), "the address family is unknown"),
        (block(0x21, 0x41, &[IPV4]), "the address family is unknown"),
        (block(0x21, 0x11, &[&IPV4[..11]]), "it is too short for its addresses"),
        (block(0x21, 0x21, &[IPV4]), "it is too short for its addresses"),
        (block(0x21, 0x11, &[IPV4, &[1]]), cut),
        (block(0x21, 0x11, &[IPV4, &[1, 0]]), cut),
        (block(0x21, 0x11, &[IPV4, &[1, 0, 3, 0, 0]]), cut),
        (block(0x21, 0x11, &[IPV4, &extension(3, &[0; 4])]), "its checksum is wrong"),
        (block(0x21, 0x11, &[IPV4, &extension(3, &[0; 5])]), "its checksum is not four octets long"),
        (block(0x20, 0x00, &[&[0; MAX - 15]]), "it is longer than 16 KiB"),
    ] {
        assert_eq!(parse(&bytes), Err(Error::Block(why)));
    }
}

#[test]
fn checksums() {
    assert_eq!(v2::crc32c(b"123456789"), 0xe306_9283);
    let bytes = with_checksum();
    assert!(matches!(parse(&bytes), Ok(Parsed::Whole(_, length)) if length == bytes.len()));
    for place in 16..bytes.len() {
        let mut wrong = bytes.clone();
        wrong[place] ^= 1;
        let checksum_hidden = place == 16 + IPV4.len() + 5;
        assert_eq!(parse(&wrong).is_err(), !checksum_hidden, "octet {place}");
    }
    let mut twice = block(0x21, 0x11, &[IPV4, &extension(3, &[0; 4]), &extension(3, &[0; 4])]);
    assert!(parse(&twice).is_err());
    let sum = v2::crc32c(&twice).to_be_bytes();
    twice[31..35].copy_from_slice(&sum);
    assert_eq!(parse(&twice), Err(Error::Block("it has two checksums")));
}

#[test]
fn what_begins_otherwise_is_refused_at_once() {
    for bytes in [&b"G"[..], b"\x16\x03\x01", b"PROXX", b"PRI * HTTP/2.0", b"\r\n\r\n\r\n", b" PROXY ", b"\0"]
    {
        assert_eq!(parse(bytes), Err(Error::Absent), "{bytes:?}");
    }
}

#[tokio::test]
async fn a_connection_that_ends_early_is_an_error() {
    let bytes = block(0x21, 0x11, &[IPV4]);
    for cut in 0..bytes.len() {
        let error = read(&mut &bytes[..cut]).await.unwrap_err();
        assert!(matches!(error, ReadError::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof));
    }
    assert!(matches!(read(&mut &b"GET / HTTP/1.1\r\n"[..]).await, Err(ReadError::Malformed(Error::Absent))));
}

fn valid() -> impl Strategy<Value = (Vec<u8>, Option<SocketAddr>)> {
    let ipv4 = any::<(Ipv4Addr, u16, Ipv4Addr, u16)>();
    let ipv6 = any::<(Ipv6Addr, u16, Ipv6Addr, u16)>();
    let extensions = vec((4_u8.., vec(any::<u8>(), 0..20)), 0..4)
        .prop_map(|all| all.iter().flat_map(|(kind, value)| extension(*kind, value)).collect::<Vec<_>>());
    prop_oneof![
        ipv4.clone().prop_map(|(s, sp, d, dp)| {
            (format!("PROXY TCP4 {s} {d} {sp} {dp}\r\n").into_bytes(), Some((s, sp).into()))
        }),
        ipv6.clone().prop_map(|(s, sp, d, dp)| {
            (format!("PROXY TCP6 {s} {d} {sp} {dp}\r\n").into_bytes(), Some((s, sp).into()))
        }),
        "[ -~]{0,91}".prop_map(|rest| (format!("PROXY UNKNOWN {rest}\r\n").into_bytes(), None)),
        (ipv4, extensions.clone()).prop_map(|((s, sp, d, dp), extensions)| {
            let ports = [sp.to_be_bytes(), dp.to_be_bytes()].concat();
            (block(0x21, 0x11, &[&s.octets(), &d.octets(), &ports, &extensions]), Some((s, sp).into()))
        }),
        (ipv6, extensions).prop_map(|((s, sp, d, dp), extensions)| {
            let ports = [sp.to_be_bytes(), dp.to_be_bytes()].concat();
            (block(0x21, 0x21, &[&s.octets(), &d.octets(), &ports, &extensions]), Some((s, sp).into()))
        }),
        vec(any::<u8>(), 0..300).prop_map(|body| (block(0x20, 0, &[&body]), None)),
    ]
}

proptest! {
    #[test]
    fn any_bytes_are_answered(bytes: Vec<u8>, start in 0..3_usize) {
        let start = [&b""[..], b"PROXY TCP", b"\r\n\r\n\0\r\nQUIT\n"][start];
        match parse(&[start, &bytes].concat()) {
            Ok(Parsed::Whole(_, length)) => prop_assert!(length <= start.len() + bytes.len()),
            Ok(Parsed::Missing(missing)) => prop_assert!(missing > 0),
            Err(_) => {}
        }
    }

    /// Cut anywhere, a header is asked for more, and never for more than it has; so reading takes nothing that
    /// follows it.
    #[test]
    fn a_header_is_read_to_its_end_and_not_beyond((bytes, source) in valid(), after: Vec<u8>) {
        for cut in 0..bytes.len() {
            let Ok(Parsed::Missing(missing)) = parse(&bytes[..cut]) else {
                return Err(TestCaseError::fail(format!("cut at {cut}")));
            };
            prop_assert!((1..=bytes.len() - cut).contains(&missing), "cut at {}", cut);
        }
        let stream = [&bytes[..], &after].concat();
        let mut rest = &stream[..];
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let header = runtime.block_on(read(&mut rest)).unwrap();
        prop_assert_eq!(header.source, source);
        prop_assert_eq!(rest, &after[..]);
    }
}
