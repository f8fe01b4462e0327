//! HTTP/2 frames written by hand, so that they can be wrong (RFC 9113, RFC 7541).

use std::collections::HashMap;
use std::io::{self, Read, Write};

use super::client::{self, NAME, Tls};
use super::edge::Edge;

/// A field line as bytes.
pub(crate) type Field<'a> = (&'a [u8], &'a [u8]);

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

/// A setting.
pub(crate) const INITIAL_WINDOW_SIZE: u16 = 4;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
pub(crate) const ACK: u8 = 1;

/// One frame as it came.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

/// How a stream ended for the client.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// A response with this status, whole.
    Status(u16),
    /// `RST_STREAM` with this code.
    Reset(u32),
    /// GOAWAY with this code, or the connection's end.
    Gone(Option<u32>),
}

/// A connection after both sides' SETTINGS.
pub(crate) struct H2 {
    tls: Tls,
}

impl H2 {
    /// Connects to the edge's https row as a client of [`NAME`].
    pub(crate) fn connect(edge: &Edge) -> io::Result<Self> {
        let mut tls = client::tls(edge.https(), &edge.ca(), NAME, &[b"h2"])?;
        tls.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")?;
        let mut connection = Self { tls };
        connection.write(SETTINGS, 0, 0, &[])?;
        Ok(connection)
    }

    /// Sends a frame.
    pub(crate) fn write(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> io::Result<()> {
        self.send(&frame(kind, flags, stream, payload))
    }

    /// Sends octets as they are.
    pub(crate) fn send(&mut self, octets: &[u8]) -> io::Result<()> {
        self.tls.write_all(octets)?;
        self.tls.flush()
    }

    /// Sends a request on a stream: its fields in the order given, then its body.
    pub(crate) fn request(&mut self, stream: u32, fields: &[Field<'_>], body: &[u8]) -> io::Result<()> {
        let end = if body.is_empty() { END_STREAM } else { 0 };
        self.write(HEADERS, END_HEADERS | end, stream, &block(fields))?;
        if !body.is_empty() {
            self.write(DATA, END_STREAM, stream, body)?;
        }
        Ok(())
    }

    /// The next frame; SETTINGS and PING are acknowledged on the way.
    pub(crate) fn read(&mut self) -> io::Result<Frame> {
        let mut head = [0; 9];
        self.tls.read_exact(&mut head)?;
        let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, l0, l1, l2]) as usize];
        self.tls.read_exact(&mut payload)?;
        if flags & ACK == 0 && matches!(kind, SETTINGS | PING) {
            let answer = if kind == PING { payload.as_slice() } else { &[] };
            self.write(kind, ACK, 0, answer)?;
        }
        Ok(Frame { kind, flags, stream: u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]), payload })
    }

    /// What the next TLS record holds. Nothing may have been read of it.
    pub(crate) fn record(&mut self) -> io::Result<Vec<u8>> {
        let mut record = vec![0; 5];
        self.tls.sock.read_exact(&mut record)?;
        record.resize(5 + usize::from(u16::from_be_bytes([record[3], record[4]])), 0);
        self.tls.sock.read_exact(&mut record[5..])?;
        self.tls.conn.read_tls(&mut record.as_slice())?;
        let state = self.tls.conn.process_new_packets().map_err(io::Error::other)?;
        let mut plain = vec![0; state.plaintext_bytes_to_read()];
        self.tls.conn.reader().read_exact(&mut plain)?;
        Ok(plain)
    }

    /// The next frame that `pick` accepts.
    pub(crate) fn read_until(&mut self, pick: impl Fn(&Frame) -> bool) -> io::Result<Frame> {
        loop {
            let frame = self.read()?;
            if pick(&frame) {
                return Ok(frame);
            }
        }
    }

    /// Reads until this stream has ended in one way or another.
    pub(crate) fn outcome(&mut self, stream: u32) -> io::Result<Outcome> {
        Ok(self.outcomes(&[stream])?.remove(0))
    }

    /// Reads until each of these streams has ended in one way or another.
    pub(crate) fn outcomes(&mut self, streams: &[u32]) -> io::Result<Vec<Outcome>> {
        let mut begun = HashMap::new();
        let mut ended = HashMap::new();
        while !streams.iter().all(|stream| ended.contains_key(stream)) {
            let frame = match self.read() {
                Ok(frame) if frame.kind == GOAWAY => Err(number(&frame.payload, 4)),
                Err(error) if client::ended(&error) => Err(None),
                frame => Ok(frame?),
            };
            match frame {
                Ok(frame) => note(&frame, &mut begun, &mut ended)?,
                Err(code) => {
                    return Ok(streams
                        .iter()
                        .map(|s| ended.remove(s).unwrap_or(Outcome::Gone(code)))
                        .collect());
                }
            }
        }
        Ok(streams.iter().filter_map(|stream| ended.remove(stream)).collect())
    }
}

/// A frame in octets.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, length @ ..] = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// What a frame means for its stream.
fn note(frame: &Frame, begun: &mut HashMap<u32, u16>, ended: &mut HashMap<u32, Outcome>) -> io::Result<()> {
    let status = begun.get(&frame.stream).copied();
    match frame.kind {
        HEADERS => {
            let status = status.or(status_of(&frame.payload));
            begun
                .insert(frame.stream, status.ok_or_else(|| io::Error::other("a response without a status"))?);
        }
        RST_STREAM => {
            // RFC 9113 section 8.1: NO_ERROR after a whole response only stops the request's body.
            let code = number(&frame.payload, 0).unwrap_or_default();
            ended.entry(frame.stream).or_insert(Outcome::Reset(code));
        }
        DATA => {}
        _ => return Ok(()),
    }
    if frame.flags & END_STREAM != 0 && frame.kind != RST_STREAM {
        let status = begun.get(&frame.stream).ok_or_else(|| io::Error::other("data without a response"))?;
        ended.entry(frame.stream).or_insert(Outcome::Status(*status));
    }
    Ok(())
}

/// A header block of literals without indexing and without Huffman coding: every octet as it is given.
pub(crate) fn block(fields: &[Field<'_>]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        string(&mut block, name);
        string(&mut block, value);
    }
    block
}

fn string(block: &mut Vec<u8>, text: &[u8]) {
    match text.len() {
        length @ 0..127 => block.push(u8::try_from(length).unwrap()),
        length => {
            block.push(127);
            let mut rest = length - 127;
            while rest >= 128 {
                block.push(u8::try_from(rest % 128).unwrap() | 128);
                rest /= 128;
            }
            block.push(u8::try_from(rest).unwrap());
        }
    }
    block.extend_from_slice(text);
}

/// The status that a response's header block begins with: RFC 7541's static entries, else a literal whose name
/// is entry 8 and whose value is three digits, in Huffman's code or not.
fn status_of(block: &[u8]) -> Option<u16> {
    let (&first, rest) = block.split_first()?;
    match first {
        0x20..=0x3f => status_of(rest), // a table size update comes first
        0x88..=0x8e => [200, 204, 206, 304, 400, 404, 500].get(usize::from(first - 0x88)).copied(),
        0x48 | 0x08 | 0x18 => literal_digits(rest),
        _ => None,
    }
}

fn literal_digits(rest: &[u8]) -> Option<u16> {
    let (&length, rest) = rest.split_first()?;
    let value = rest.get(..usize::from(length & 0x7f))?;
    if length & 0x80 == 0 {
        return std::str::from_utf8(value).ok()?.parse().ok();
    }
    let bits = value.iter().fold(0_u64, |bits, &octet| bits << 8 | u64::from(octet));
    let mut left = value.len() * 8;
    let mut status = 0;
    for _ in 0..3 {
        // RFC 7541 appendix B: 0, 1 and 2 are five bits from 0; 3 to 9 are six bits from 0x19.
        let next = |width: usize| u16::try_from((bits >> left.checked_sub(width)?) & ((1 << width) - 1)).ok();
        let (digit, width) = match next(5)? {
            short @ 0..=2 => (short, 5),
            _ => (next(6)?.checked_sub(0x16)?, 6),
        };
        status = status * 10 + digit;
        left -= width;
    }
    Some(status)
}

fn number(payload: &[u8], at: usize) -> Option<u32> {
    payload.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes)
}
