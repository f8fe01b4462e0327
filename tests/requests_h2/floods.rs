//! Floods of frames that are no requests (RFC 9113 section 10.5): each ends its connection and disturbs no other, and what real
//! clients send is none.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use super::{edge, fields};
use crate::support::client::{self, NAME};
use crate::support::edge::{Edge, HTTPS, ROWS};
use crate::support::h2raw::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, H2, HEADERS, Outcome, PING, PRIORITY,
    RST_STREAM, SETTINGS, WINDOW_UPDATE, block, frame,
};
use crate::support::upstream::{Then, Upstream};

const PROTOCOL_ERROR: u8 = 1;
const ENHANCE_YOUR_CALM: u8 = 11;
/// RFC 9218 section 7.1.
const PRIORITY_UPDATE: u8 = 0x10;
const UNKNOWN: u8 = 0xbb;
const PADDED: u8 = 8;
/// RFC 9113 section 7: CANCEL.
const CANCEL: [u8; 4] = [0, 0, 0, 8];
/// Of how many pieces a flood is at most: 32 MB.
const MOST: u64 = 2000;
const ONE: [u8; 4] = [0, 0, 0, 1];

/// What a connection has seen before its flood.
#[derive(Clone, Copy)]
enum Before {
    Nothing,
    /// A request whose body has not come.
    Begun,
    /// A request that was answered.
    Answered,
    /// A head that is not whole.
    Half,
}

/// Its name, what comes before, its frames by their number, and the code of GOAWAY.
type Flood = (&'static str, Before, Box<dyn Fn(u32) -> Vec<u8>>, u8);

#[test]
fn a_flood_ends_its_connection_and_no_other() {
    let upstream = Upstream::echo();
    let edge = edge(&upstream);
    let mut other = H2::connect(&edge).unwrap();
    let mut asked = (1..).step_by(2);
    let mut ask = || {
        let stream = asked.next().unwrap();
        other.request(stream, &fields(&[]), b"").unwrap();
        assert_eq!(other.outcome(stream).unwrap(), Outcome::Status(200));
    };
    // Those that have gone may be gone before the edge has counted them.
    let mut clients = Vec::new();
    let floods = floods();
    for (name, before, frames, expected) in &floods {
        let mut client = H2::connect(&edge).unwrap();
        begin(&mut client, *before);
        assert_eq!(flood(&mut client, frames, &mut ask), *expected, "{name}");
        clients.push(client);
    }
    let calmed = floods.iter().filter(|(.., code)| *code == ENHANCE_YOUR_CALM).count();
    let mut told = 0;
    edge.log().wait("a line for each flood", |line| {
        told += usize::from(line.contains("closed: a flood of HTTP/2 frames"));
        (told == calmed).then_some(())
    });
    assert!(!edge.log().all().contains("h2::"), "a line for each frame: {}", edge.log().all());
    let counted =
        format!("vestibule_connections_refused_total{{row=\"{HTTPS}\",reason=\"flood\"}} {calmed}\n");
    let metrics = metrics(&edge);
    assert!(metrics.contains(&counted), "{counted}{metrics}");
}

fn floods() -> Vec<Flood> {
    let same = |octets: Vec<u8>| Box::new(move |_: u32| octets.clone()) as Box<dyn Fn(u32) -> Vec<u8>>;
    let calm = |name, before, octets| (name, before, same(octets), ENHANCE_YOUR_CALM);
    let head = || block(&fields(&[]));
    // An entry of the dynamic table (RFC 7541 section 2.3.2) that twelve octets make 47 KiB of.
    let entry = [&[0x40][..], &block(&[(b"a", &[b'b'; 3900])])[1..]].concat();
    let large = [head(), vec![0xbe; 12]].concat();
    let (first, malformed) = ([head(), entry].concat(), block(&[(b":method", b"GET")]));
    vec![
        calm("PING", Before::Nothing, frame(PING, 0, 0, &[7; 8])),
        calm("PING, acknowledged", Before::Nothing, frame(PING, ACK, 0, &[7; 8])),
        calm("SETTINGS", Before::Nothing, frame(SETTINGS, 0, 0, &[])),
        calm("SETTINGS of many", Before::Begun, frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100].repeat(100))),
        ("SETTINGS, acknowledged", Before::Nothing, same(frame(SETTINGS, ACK, 0, &[])), PROTOCOL_ERROR),
        calm("PRIORITY", Before::Nothing, frame(PRIORITY, 0, 5, &[0, 0, 0, 3, 7])),
        calm("PRIORITY_UPDATE", Before::Nothing, frame(PRIORITY_UPDATE, 0, 0, b"\0\0\0\x01u=1,i")),
        calm("WINDOW_UPDATE of the connection", Before::Nothing, frame(WINDOW_UPDATE, 0, 0, &ONE)),
        calm("WINDOW_UPDATE of a stream", Before::Begun, frame(WINDOW_UPDATE, 0, 1, &ONE)),
        calm("WINDOW_UPDATE of an old stream", Before::Answered, frame(WINDOW_UPDATE, 0, 1, &ONE)),
        calm("RST_STREAM of an old stream", Before::Answered, frame(RST_STREAM, 0, 1, &CANCEL)),
        calm("an unknown type", Before::Nothing, frame(UNKNOWN, 0, 0, &[])),
        calm("an unknown type, large", Before::Nothing, frame(UNKNOWN, 0, 0, &[0; 16_384])),
        calm("DATA, empty", Before::Begun, frame(DATA, 0, 1, &[])),
        calm("DATA of padding", Before::Begun, frame(DATA, PADDED, 1, &[3, 0, 0, 0])),
        calm("CONTINUATION, empty", Before::Half, frame(CONTINUATION, 0, 1, &[])),
        each("HEADERS, taken back", move |id| {
            [frame(HEADERS, END_HEADERS | END_STREAM, id, &head()), frame(RST_STREAM, 0, id, &CANCEL)]
                .concat()
        }),
        each("HEADERS, and a window that is too large", move |id| {
            [frame(HEADERS, END_HEADERS, id, &head()), frame(WINDOW_UPDATE, 0, id, &i32::MAX.to_be_bytes())]
                .concat()
        }),
        each("HEADERS, malformed", move |id| frame(HEADERS, END_HEADERS | END_STREAM, id, &malformed)),
        each("HEADERS of too many streams", move |id| frame(HEADERS, END_HEADERS, id, &head())),
        each("HEADERS, too large", move |id| {
            frame(HEADERS, END_HEADERS | END_STREAM, id, if id == 1 { &first } else { &large })
        }),
    ]
}

/// A flood of a stream each.
fn each(name: &'static str, frames: impl Fn(u32) -> Vec<u8> + 'static) -> Flood {
    (name, Before::Nothing, Box::new(move |n| frames(1 + 2 * n)), ENHANCE_YOUR_CALM)
}

fn begin(client: &mut H2, before: Before) {
    match before {
        Before::Nothing => {}
        Before::Begun => client.write(HEADERS, END_HEADERS, 1, &block(&fields(&[]))).unwrap(),
        Before::Answered => {
            client.request(1, &fields(&[]), b"").unwrap();
            assert_eq!(client.outcome(1).unwrap(), Outcome::Status(200));
        }
        Before::Half => client.write(HEADERS, END_STREAM, 1, &block(&fields(&[]))).unwrap(),
    }
}

/// Sends frames until GOAWAY comes; its code. Each piece ends with a PING, and the next one waits for its acknowledgement.
fn flood(client: &mut H2, frames: &dyn Fn(u32) -> Vec<u8>, ask: &mut dyn FnMut()) -> u8 {
    let mut numbers = 0..;
    for piece in 0..MOST {
        let mut octets = Vec::new();
        while octets.len() < 16_000 {
            octets.extend(frames(numbers.next().unwrap()));
        }
        octets.extend(frame(PING, 0, 0, &piece.to_be_bytes()));
        client.send(&octets).unwrap();
        if piece % 32 == 0 {
            ask();
        }
        let is_end = |kind| kind == GOAWAY;
        let told = client.read_until(|frame| {
            is_end(frame.kind) || frame.kind == PING && frame.payload == piece.to_be_bytes()
        });
        let told = told.unwrap();
        if is_end(told.kind) {
            return told.payload[7];
        }
    }
    panic!("a flood went on for {MOST} pieces");
}

/// A connection begins with SETTINGS (RFC 9113 section 3.4).
#[test]
fn what_does_not_begin_with_settings_ends() {
    let upstream = Upstream::echo();
    let edge = edge(&upstream);
    let mut tls = client::tls(edge.https(), &edge.ca(), NAME, &[b"h2"]).unwrap();
    let head = frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&fields(&[])));
    tls.write_all(&[&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &head].concat()).unwrap();
    let mut told = Vec::new();
    match tls.read_to_end(&mut told) {
        Err(error) if !client::ended(&error) => panic!("not closed: {error}"),
        _ => assert_eq!(upstream.mark(), 0),
    }
}

/// Whoever reads little at once opens the windows often.
#[test]
fn a_download_in_small_steps_is_no_flood() {
    const LENGTH: usize = 32 * 1024 * 1024;
    const STEP: usize = 512;
    let upstream = Upstream::start(|_, stream| {
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n")?;
        (0..LENGTH / 4096).try_for_each(|_| stream.write_all(&[b'x'; 4096]))?;
        Ok(Then::Keep)
    });
    let edge = edge(&upstream);
    let mut client = H2::connect(&edge).unwrap();
    client.request(1, &fields(&[]), b"").unwrap();
    let step = u32::try_from(STEP).unwrap().to_be_bytes();
    let open = [frame(WINDOW_UPDATE, 0, 0, &step), frame(WINDOW_UPDATE, 0, 1, &step)].concat();
    let (mut read, mut opened) = (0, 0);
    while read < LENGTH {
        let data = client.read_until(|frame| matches!(frame.kind, DATA | GOAWAY | RST_STREAM)).unwrap();
        assert_eq!(data.kind, DATA, "{data:?} after {read} octets");
        read += data.payload.len();
        let steps = (read - opened) / STEP;
        client.send(&open.repeat(steps)).unwrap();
        opened += steps * STEP;
    }
}

/// Whoever writes an octet at a time, all at once.
#[test]
fn an_upload_in_octets_is_no_flood() {
    let upstream = Upstream::echo();
    let edge = Edge::start(&format!(
        "{ROWS}\n[[site]]\ndomains = [\"{NAME}\"]\nupstream = \"{}\"\ncertificate = \"internal\"\n",
        upstream.address()
    ));
    let mut client = H2::connect(&edge).unwrap();
    client.write(HEADERS, END_HEADERS, 1, &block(&fields(&[]))).unwrap();
    client.send(&frame(DATA, 0, 1, b"x").repeat(20_000)).unwrap();
    client.write(DATA, END_STREAM, 1, b"x").unwrap();
    assert_eq!(client.outcome(1).unwrap(), Outcome::Status(200));
    assert_eq!(upstream.seen()[0].body, b"x".repeat(20_001));
}

/// A connection that is kept well with PINGs, priorities and windows between its requests.
#[test]
fn a_thousand_requests_are_no_flood() {
    let upstream = Upstream::echo();
    let edge = edge(&upstream);
    let mut client = H2::connect(&edge).unwrap();
    for stream in (1..2000).step_by(2) {
        client.write(PING, 0, 0, &[7; 8]).unwrap();
        client.read_until(|frame| frame.kind == PING).unwrap();
        client.write(PRIORITY, 0, stream, &[0, 0, 0, 0, 7]).unwrap();
        client.request(stream, &fields(&[]), b"").unwrap();
        assert_eq!(client.outcome(stream).unwrap(), Outcome::Status(200));
        client.write(WINDOW_UPDATE, 0, 0, &ONE).unwrap();
    }
}

fn metrics(edge: &Edge) -> String {
    let mut socket = UnixStream::connect(edge.folder().join("admin.sock")).unwrap();
    socket.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    socket.read_to_string(&mut text).unwrap();
    text
}
