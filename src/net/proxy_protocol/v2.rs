//! Version 2: a binary block.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Error, Header, MAX, Parsed};

pub(super) fn parse(bytes: &[u8]) -> Result<Parsed, Error> {
    let known = bytes.len().min(SIGNATURE.len());
    if bytes.get(..known) != SIGNATURE.get(..known) {
        return Err(Error::Absent);
    }
    let Some((&[.., version_command, family, high, low], rest)) = bytes.split_first_chunk::<FIXED>() else {
        return Ok(Parsed::Missing(FIXED - bytes.len()));
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    let command = command(version_command)?;
    if FIXED + length > MAX {
        return Err(Error::Block("it is longer than 16 KiB"));
    }
    let Some(block) = rest.get(..length) else {
        return Ok(Parsed::Missing(length - rest.len()));
    };
    let header = match command {
        // The block of a LOCAL header has no meaning, its family included.
        Command::Local => Header::default(),
        Command::Proxy => {
            let (header, extensions) = addresses(family, block)?;
            check_extensions(bytes.get(..FIXED + length).unwrap_or_default(), extensions)?;
            header
        }
    };
    Ok(Parsed::Whole(header, FIXED + length))
}

pub(super) const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The signature, version and command, family and protocol, and the length of what follows.
const FIXED: usize = 16;

enum Command {
    Local,
    Proxy,
}

fn command(byte: u8) -> Result<Command, Error> {
    match byte {
        0x20 => Ok(Command::Local),
        0x21 => Ok(Command::Proxy),
        0x22..=0x2f => Err(Error::Block("the command is not LOCAL or PROXY")),
        _ => Err(Error::Block("the version is not 2")),
    }
}

/// The addresses, and the extensions after them.
fn addresses(family: u8, block: &[u8]) -> Result<(Header, &[u8]), Error> {
    let (source, destination, extensions) = match family {
        // Nobody can tell how long addresses of an unknown kind are, and what is behind them.
        0x00 => return Ok((Header::default(), &[])),
        0x11 => ipv4(block).ok_or(TOO_SHORT)?,
        0x21 => ipv6(block).ok_or(TOO_SHORT)?,
        0x12 | 0x22 | 0x32 => return Err(Error::Block("a datagram's addresses on a stream")),
        0x31 => return Err(Error::Block("a unix socket has no address to judge by")),
        _ => return Err(Error::Block("the address family is unknown")),
    };
    Ok((Header { source: Some(source), destination: Some(destination) }, extensions))
}

const TOO_SHORT: Error = Error::Block("it is too short for its addresses");

fn ipv4(block: &[u8]) -> Option<(SocketAddr, SocketAddr, &[u8])> {
    let (source, block) = block.split_first_chunk::<4>()?;
    let (destination, block) = block.split_first_chunk::<4>()?;
    let (source_port, destination_port, rest) = ports(block)?;
    let (source, destination) = (Ipv4Addr::from(*source), Ipv4Addr::from(*destination));
    Some(((source, source_port).into(), (destination, destination_port).into(), rest))
}

fn ipv6(block: &[u8]) -> Option<(SocketAddr, SocketAddr, &[u8])> {
    let (source, block) = block.split_first_chunk::<16>()?;
    let (destination, block) = block.split_first_chunk::<16>()?;
    let (source_port, destination_port, rest) = ports(block)?;
    let (source, destination) = (Ipv6Addr::from(*source), Ipv6Addr::from(*destination));
    Some(((source, source_port).into(), (destination, destination_port).into(), rest))
}

fn ports(block: &[u8]) -> Option<(u16, u16, &[u8])> {
    let (source, block) = block.split_first_chunk()?;
    let (destination, rest) = block.split_first_chunk()?;
    Some((u16::from_be_bytes(*source), u16::from_be_bytes(*destination), rest))
}

/// Extensions (type, length, value) are passed over, but must fill the block exactly, and a checksum among them
/// must be right.
fn check_extensions(header: &[u8], mut extensions: &[u8]) -> Result<(), Error> {
    let mut checked = false;
    while let Some((&kind, rest)) = extensions.split_first() {
        let (length, rest) = rest.split_first_chunk().ok_or(CUT)?;
        let (value, rest) = rest.split_at_checked(u16::from_be_bytes(*length).into()).ok_or(CUT)?;
        if kind == CHECKSUM {
            if std::mem::replace(&mut checked, true) {
                return Err(Error::Block("it has two checksums"));
            }
            check(header, value, rest.len())?;
        }
        extensions = rest;
    }
    Ok(())
}

const CUT: Error = Error::Block("an extension does not fit in it");
const CHECKSUM: u8 = 0x03;

/// The sum is over the whole header, with zeros in its own place: `after` octets before the end.
fn check(header: &[u8], value: &[u8], after: usize) -> Result<(), Error> {
    let sum: [u8; 4] = value.try_into().map_err(|_| Error::Block("its checksum is not four octets long"))?;
    let (before, rest) = header.split_at(header.len().saturating_sub(after + sum.len()));
    let bytes = before.iter().chain(&[0; 4]).chain(rest.iter().skip(sum.len()));
    if crc32c(bytes) == u32::from_be_bytes(sum) { Ok(()) } else { Err(Error::Block("its checksum is wrong")) }
}

/// CRC-32C (RFC 9260 appendix A), bit by bit: headers are short, and few have one.
pub(super) fn crc32c<'a>(bytes: impl IntoIterator<Item = &'a u8>) -> u32 {
    !bytes.into_iter().fold(!0, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ (0x82f6_3b78 & (sum & 1).wrapping_neg()))
    })
}
