//! One request in few octets: numbers first, then texts, each behind its length.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, SystemTime};

use crate::fault::Fault;
use crate::observe::access::Line;
use crate::observe::metrics::Series;

/// The most that is kept of a text, in octets.
const TEXT: usize = 256;
/// An id's length.
const ID: usize = 32;
/// The octets of the numbers: four of eight octets, three of four, one of two, one; the client's sixteen.
const NUMBERS: usize = 4 * 8 + 3 * 4 + 2 + 1 + 16;
const TEXTS: usize = 10;

/// A request that is over. Text that came from outside is as it was sent, but for what is not UTF-8.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// Its id.
    pub id: String,
    /// The trace that it belongs to; empty for none.
    pub trace_id: String,
    /// When it began.
    pub time: SystemTime,
    /// Who asked.
    pub client: IpAddr,
    /// The method.
    pub method: String,
    /// The host that was asked for.
    pub host: String,
    /// The raw request target.
    pub path: String,
    /// As in `HTTP/1.1`.
    pub protocol: String,
    /// As in `TLSv1.3`; empty on a plain port.
    pub tls: String,
    /// The row of `[ports]`.
    pub row: String,
    /// The site and the route that it met.
    pub series: Series,
    /// The status of its answer, 499 where the client left before it; 0 for none.
    pub status: u16,
    /// Why it was refused or failed: `Fault::token`; empty where it was not.
    pub refused: String,
    /// The same in words.
    pub why: String,
    /// The address that answered, or that was tried last; empty for none.
    pub upstream: String,
    /// How often it was sent to an upstream.
    pub tries: u8,
    /// How long connecting took; None for a pooled connection.
    pub connect: Option<Duration>,
    /// From its beginning to the head of the upstream's answer.
    pub first_byte: Option<Duration>,
    /// From its beginning to the answer's end.
    pub total: Duration,
    /// Octets of its body.
    pub received: u64,
    /// Octets of the answer's body.
    pub sent: u64,
}

/// Appends a request.
pub(super) fn append(out: &mut Vec<u8>, line: &Line<'_>) {
    let start = out.len();
    // The length of the whole, which is known at the end.
    out.extend_from_slice(&[0; 2]);
    let mut id = [b'-'; ID];
    id.iter_mut().zip(line.request_id.as_bytes()).for_each(|(kept, letter)| *kept = *letter);
    out.extend_from_slice(&id);
    let since = line.time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    for number in [micros(since), micros(line.total), line.request_bytes, line.response_bytes] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    for number in [some_micros(line.connect), some_micros(line.first_byte), line.series.number()] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&line.status.to_le_bytes());
    out.push(u8::try_from(line.tries).unwrap_or(u8::MAX));
    let client = match line.client {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    out.extend_from_slice(&client.octets());
    let why = line.fault.map_or(Cow::Borrowed(""), |fault| Cow::Owned(fault.to_string()));
    let texts: [&[u8]; TEXTS] = [
        line.method.as_bytes(),
        line.host,
        line.path,
        line.protocol.as_bytes(),
        line.tls.map_or("", |tls| tls.version).as_bytes(),
        line.row.as_bytes(),
        line.upstream.unwrap_or_default().as_bytes(),
        line.fault.map_or("", Fault::token).as_bytes(),
        why.as_bytes(),
        line.trace_id.as_bytes(),
    ];
    for text in texts {
        push_text(out, text);
    }
    let length = u16::try_from(out.len() - start).unwrap_or(u16::MAX);
    if let Some(place) = out.get_mut(start..start + 2) {
        place.copy_from_slice(&length.to_le_bytes());
    }
}

fn push_text(out: &mut Vec<u8>, text: &[u8]) {
    let text = text.get(..TEXT).unwrap_or(text);
    // Never more than TEXT.
    out.extend_from_slice(&u16::try_from(text.len()).unwrap_or_default().to_le_bytes());
    out.extend_from_slice(text);
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// One more than the microseconds; 0 for none.
fn some_micros(duration: Option<Duration>) -> u32 {
    duration.map_or(0, |duration| u32::try_from(duration.as_micros()).unwrap_or(u32::MAX).saturating_add(1))
}

/// The requests of a chunk, one after another.
pub(super) struct Records<'a>(&'a [u8]);

impl<'a> Records<'a> {
    pub(super) fn of(octets: &'a [u8]) -> Self {
        Self(octets)
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        let length = u16::from_le_bytes(self.0.get(..2)?.try_into().ok()?);
        let (record, rest) = self.0.split_at_checked(usize::from(length))?;
        self.0 = rest;
        Some(Record(record.get(2..)?))
    }
}

/// One request as it is kept.
pub(super) struct Record<'a>(&'a [u8]);

impl Record<'_> {
    pub(super) fn is(&self, id: &str) -> bool {
        self.0.get(..ID) == Some(id.as_bytes())
    }

    /// None where the octets are no record, which [`append`] never makes.
    pub(super) fn decode(&self) -> Option<Recorded> {
        let (id, rest) = self.0.split_at_checked(ID)?;
        let (numbers, texts) = rest.split_at_checked(NUMBERS)?;
        let mut numbers = Reader(numbers);
        let mut texts = Reader(texts);
        let (time, total) = (numbers.u64()?, numbers.u64()?);
        let (received, sent) = (numbers.u64()?, numbers.u64()?);
        let (connect, first_byte) = (numbers.u32()?, numbers.u32()?);
        let some = |micros: u32| micros.checked_sub(1).map(|micros| Duration::from_micros(micros.into()));
        Some(Recorded {
            id: lossy(id),
            time: SystemTime::UNIX_EPOCH.checked_add(Duration::from_micros(time))?,
            total: Duration::from_micros(total),
            received,
            sent,
            connect: some(connect),
            first_byte: some(first_byte),
            series: Series::of_number(numbers.u32()?),
            status: u16::from_le_bytes(numbers.take()?),
            tries: u8::from_le_bytes(numbers.take()?),
            client: Ipv6Addr::from_octets(numbers.take()?).to_canonical(),
            method: texts.text()?,
            host: texts.text()?,
            path: texts.text()?,
            protocol: texts.text()?,
            tls: texts.text()?,
            row: texts.text()?,
            upstream: texts.text()?,
            refused: texts.text()?,
            why: texts.text()?,
            trace_id: texts.text()?,
        })
    }
}

/// What is left to be read.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn text(&mut self) -> Option<String> {
        let length = u16::from_le_bytes(self.take()?);
        let (text, rest) = self.0.split_at_checked(usize::from(length))?;
        self.0 = rest;
        Some(lossy(text))
    }
}

fn lossy(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::observe::access::Tls;

    #[test]
    fn a_record_says_what_its_line_said() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_micros(1_709_210_096_007_123);
        let id = "0123456789abcdef0123456789abcdef";
        let line = Line {
            host: b"app.example.com",
            method: "GET",
            path: b"/a\xff?b",
            protocol: "HTTP/2.0",
            status: 502,
            request_bytes: 17,
            response_bytes: 5_000_000_000,
            upstream: Some("192.0.2.2:8000"),
            first_byte: Some(Duration::ZERO),
            total: Duration::from_hours(3),
            tls: Some(Tls { version: "TLSv1.3", suite: "x", resumed: true }),
            request_id: id,
            trace_id: "4bf92f3577b34da6a3ce929d0e0e4736",
            row: "443",
            series: Series::of_number(7),
            tries: 3,
            fault: Some(&Fault::ConnectTimeout),
            ..Line::new(time, IpAddr::from([203, 0, 113, 9]))
        };
        let mut out = Vec::new();
        append(&mut out, &line);
        append(&mut out, &Line { client: Ipv6Addr::LOCALHOST.into(), ..Line::new(time, line.client) });
        let mut records = Records::of(&out);
        let first = records.next().unwrap();
        assert!(first.is(id) && !first.is("0123"));
        let expected = Recorded {
            id: id.into(),
            trace_id: "4bf92f3577b34da6a3ce929d0e0e4736".into(),
            time,
            client: line.client,
            method: "GET".into(),
            host: "app.example.com".into(),
            path: "/a\u{fffd}?b".into(),
            protocol: "HTTP/2.0".into(),
            tls: "TLSv1.3".into(),
            row: "443".into(),
            series: Series::of_number(7),
            status: 502,
            refused: "connect_timeout".into(),
            why: "connecting to the upstream took too long".into(),
            upstream: "192.0.2.2:8000".into(),
            tries: 3,
            connect: None,
            first_byte: Some(Duration::ZERO),
            total: Duration::from_hours(3),
            received: 17,
            sent: 5_000_000_000,
        };
        assert_eq!(first.decode().unwrap(), expected);
        let second = records.next().unwrap().decode().unwrap();
        assert_eq!((second.client, second.status), (Ipv6Addr::LOCALHOST.into(), 0));
        assert!(records.next().is_none());
    }

    proptest! {
        #[test]
        fn no_octets_panic(octets: Vec<u8>) {
            Records::of(&octets).for_each(|record| drop(record.decode()));
        }

        #[test]
        fn every_text_comes_back(host: Vec<u8>, path: Vec<u8>) {
            let line = Line { host: &host, path: &path, ..Line::new(SystemTime::UNIX_EPOCH, IpAddr::from([0; 4])) };
            let mut out = Vec::new();
            append(&mut out, &line);
            let read = Records::of(&out).next().unwrap().decode().unwrap();
            prop_assert_eq!(read.host, lossy(host.get(..TEXT).unwrap_or(&host)));
            prop_assert_eq!(read.path, lossy(path.get(..TEXT).unwrap_or(&path)));
        }
    }
}
