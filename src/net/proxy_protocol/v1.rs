//! Version 1: one line of text.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::{FromStr, Split};

use super::{Error, Header, Parsed};

/// `PROXY UNKNOWN` and CR LF.
pub(super) const SHORTEST: usize = 15;
/// The protocol's own limit, CR LF included.
pub(super) const LONGEST: usize = 107;

pub(super) fn parse(bytes: &[u8]) -> Result<Parsed, Error> {
    let known = bytes.len().min(START.len());
    if bytes.get(..known) != START.get(..known) {
        return Err(Error::Absent);
    }
    let Some(end) = bytes.iter().take(LONGEST).position(|byte| matches!(byte, b'\r' | b'\n')) else {
        return if bytes.len() < LONGEST { Ok(missing(bytes)) } else { Err(TOO_LONG) };
    };
    match bytes.get(end..) {
        Some([b'\r', b'\n', ..]) if end + 2 <= LONGEST => {}
        Some([b'\r']) if end + 2 <= LONGEST => return Ok(Parsed::Missing(1)),
        Some([b'\r', b'\n', ..] | [b'\r']) => return Err(TOO_LONG),
        _ => return Err(Error::Line("it does not end with CR LF")),
    }
    let line = bytes.get(START.len()..end).and_then(|line| str::from_utf8(line).ok());
    let header = fields(line.ok_or(Error::Line("it is not text"))?)?;
    Ok(Parsed::Whole(header, end + 2))
}

const START: &[u8] = b"PROXY ";
const TOO_LONG: Error = Error::Line("it is longer than 107 octets");

/// At least what the shortest header with this beginning lacks.
fn missing(bytes: &[u8]) -> Parsed {
    let (shortest, spaces) = match bytes.get(START.len()..START.len() + 5) {
        Some(b"TCP4 ") => (32, 4),
        Some(b"TCP6 ") => (22, 4),
        _ => (SHORTEST, 0),
    };
    let seen = bytes.iter().skip(START.len()).filter(|byte| **byte == b' ').count();
    // A space and a character for each field to come, then CR LF.
    let fields = 2 * usize::saturating_sub(spaces, seen) + 2;
    Parsed::Missing(shortest.saturating_sub(bytes.len()).max(fields))
}

fn fields(line: &str) -> Result<Header, Error> {
    let mut fields = line.split(' ');
    let (source, destination) = match fields.next() {
        // The rest of an UNKNOWN line has no meaning.
        Some("UNKNOWN") => return Ok(Header::default()),
        Some("TCP4") => endpoints::<Ipv4Addr>(&mut fields)?,
        Some("TCP6") => endpoints::<Ipv6Addr>(&mut fields)?,
        _ => return Err(Error::Line("the protocol is not TCP4, TCP6 or UNKNOWN")),
    };
    if fields.next().is_some() {
        return Err(Error::Line("there is something behind the ports"));
    }
    Ok(Header { source: Some(source), destination: Some(destination) })
}

fn endpoints<Ip: FromStr + Into<IpAddr>>(
    fields: &mut Split<'_, char>,
) -> Result<(SocketAddr, SocketAddr), Error> {
    let mut address = || -> Option<IpAddr> { Some(fields.next()?.parse::<Ip>().ok()?.into()) };
    let (source, destination) = (address(), address());
    let (Some(source), Some(destination)) = (source, destination) else {
        return Err(Error::Line("an address is not one of the protocol's"));
    };
    let mut port = || fields.next().and_then(port);
    let (Some(source_port), Some(destination_port)) = (port(), port()) else {
        return Err(Error::Line("a port is not a number from 0 to 65535"));
    };
    Ok(((source, source_port).into(), (destination, destination_port).into()))
}

/// Digits alone, without leading zeros.
fn port(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let canonical = digits && (text == "0" || !text.starts_with('0'));
    if canonical { text.parse().ok() } else { None }
}
