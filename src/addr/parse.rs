//! Addresses and networks as people write them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::{IpNet, ip_mask_to_prefix};

use super::CidrSet;
use super::set::fold;

/// Why a text is not a network. Each message ends with what to write instead, where that is known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CidrError {
    /// There is nothing.
    #[error("an address or a network is missing")]
    Empty,
    /// The address is not the network's first.
    #[error(
        "{address}/{prefix} has bits set beyond its prefix: write {network}, or {address} for the one address"
    )]
    HostBits {
        /// What was written before the slash.
        address: IpAddr,
        /// What was written after it.
        prefix: u8,
        /// The network that holds the address.
        network: IpNet,
    },
    /// The prefix is not a number, or over the family's width.
    #[error("/{prefix} is not a prefix length: an {family} network has /0 to /{width}")]
    Prefix {
        /// What was written after the slash.
        prefix: Excerpt,
        /// `IPv4` or `IPv6`.
        family: &'static str,
        /// 32 or 128.
        width: u8,
    },
    /// The prefix is written as a mask.
    #[error("{mask} is a mask: write the prefix length, /{prefix}")]
    Mask {
        /// The mask.
        mask: Ipv4Addr,
        /// The same as a length.
        prefix: u8,
    },
    /// `fe80::1%eth0` (RFC 4007 section 11).
    #[error("{0} names a zone: only the address can be matched, write it without the part from the %")]
    Zone(Excerpt),
    /// `192.0.2.1:443` or `[2001:db8::1]:443`.
    #[error("{text} has a port: write {address}")]
    Port {
        /// What was written.
        text: Excerpt,
        /// The address in it.
        address: IpAddr,
    },
    /// `[2001:db8::1]`.
    #[error("an address stands without brackets here: write {0}")]
    Brackets(IpAddr),
    /// `192.0.2.1-192.0.2.9`.
    #[error("{0} is a range: write the networks that make it up")]
    Range(Excerpt),
    /// A name, which may mean another address tomorrow.
    #[error("{0} is a name: only addresses and networks are matched, write its addresses")]
    Name(Excerpt),
    /// `010.0.0.1`, which some read as octal.
    #[error("{0} has a number with leading zeros, which may mean octal: write it without them")]
    LeadingZero(Excerpt),
    /// Nothing that is known.
    #[error("{0} is neither an address nor a network, such as 192.0.2.0/24 or 2001:db8::/32")]
    Unreadable(Excerpt),
}

/// The beginning of what was written, printable and in quotes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excerpt(Box<str>);

impl std::fmt::Display for Excerpt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Reads one network, as in `203.0.113.0/24`, or one address, as in `2001:db8::7`, which is the network of
/// itself alone. Networks of IPv4-mapped addresses become the IPv4 networks that they stand for.
pub fn parse_cidr(text: &str) -> Result<IpNet, CidrError> {
    let text = text.trim_ascii();
    let Some((address, prefix)) = text.split_once('/') else {
        return parse_address(text).map(|address| fold(IpNet::from(address)));
    };
    let address = parse_address(address)?;
    let net = with_prefix(address, prefix)?;
    if net.addr() != net.network() {
        return Err(CidrError::HostBits { address, prefix: net.prefix_len(), network: fold(net.trunc()) });
    }
    Ok(fold(net))
}

/// Reads a list, one network or address a line; blank lines and what follows a `#` are skipped, and lines may
/// end with CR LF.
///
/// # Errors
/// Every wrong line with its number, from 1, up to the first [`MAX_ERRORS`].
pub fn parse_list(text: &str) -> Result<CidrSet, Vec<(usize, CidrError)>> {
    let (mut nets, mut errors) = (Vec::new(), Vec::new());
    for (number, line) in (1..).zip(text.trim_start_matches('\u{feff}').lines()) {
        let entry = line.split_once('#').map_or(line, |(entry, _)| entry).trim_ascii();
        match parse_cidr(entry) {
            _ if entry.is_empty() => {}
            Ok(net) => nets.push(net),
            Err(error) => errors.push((number, error)),
        }
        if errors.len() == MAX_ERRORS {
            break;
        }
    }
    if errors.is_empty() { Ok(nets.into_iter().collect()) } else { Err(errors) }
}

/// After so many wrong lines a file is not a list, and more of them help nobody.
pub const MAX_ERRORS: usize = 100;

fn parse_address(text: &str) -> Result<IpAddr, CidrError> {
    text.parse().map_err(|_| why_no_address(text))
}

/// Finds the likeliest mistake in what is no address.
fn why_no_address(text: &str) -> CidrError {
    if text.is_empty() {
        return CidrError::Empty;
    }
    if let Ok(socket) = text.parse::<SocketAddr>() {
        return CidrError::Port { text: excerpt(text), address: socket.ip() };
    }
    let inner = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    if let Some(address) = inner.and_then(|inner| inner.parse::<Ipv6Addr>().ok()) {
        return CidrError::Brackets(address.into());
    }
    if text.split_once('%').is_some_and(|(address, _)| address.parse::<Ipv6Addr>().is_ok()) {
        return CidrError::Zone(excerpt(text));
    }
    if text.split_once('-').is_some_and(|(first, _)| first.trim_ascii().parse::<IpAddr>().is_ok()) {
        return CidrError::Range(excerpt(text));
    }
    let parts = || text.split('.');
    if parts().count() == 4
        && parts().all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
    {
        let led_by_zero = parts().any(|part| part.len() > 1 && part.starts_with('0'));
        return if led_by_zero { CidrError::LeadingZero } else { CidrError::Unreadable }(excerpt(text));
    }
    if looks_like_a_name(text) {
        CidrError::Name(excerpt(text))
    } else {
        CidrError::Unreadable(excerpt(text))
    }
}

fn looks_like_a_name(text: &str) -> bool {
    let letters = text.bytes().any(|b| b.is_ascii_alphabetic());
    letters && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'*'))
}

fn with_prefix(address: IpAddr, text: &str) -> Result<IpNet, CidrError> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let prefix =
        if digits && (text == "0" || !text.starts_with('0')) { text.parse::<u8>().ok() } else { None };
    if let Some(net) = prefix.and_then(|prefix| IpNet::new(address, prefix).ok()) {
        return Ok(net);
    }
    if let (IpAddr::V4(_), Ok(mask)) = (address, text.parse::<Ipv4Addr>())
        && let Ok(prefix) = ip_mask_to_prefix(mask.into())
    {
        return Err(CidrError::Mask { mask, prefix });
    }
    let (family, width) = if address.is_ipv4() { ("IPv4", 32) } else { ("IPv6", 128) };
    Err(CidrError::Prefix { prefix: excerpt_bare(text), family, width })
}

fn excerpt(text: &str) -> Excerpt {
    let cut = text.char_indices().nth(EXCERPT_CHARS).map_or("", |_| "…");
    let start: String = text.chars().take(EXCERPT_CHARS).collect();
    Excerpt(format!("\"{}{cut}\"", start.escape_debug()).into())
}

/// As [`excerpt`], without the quotes.
fn excerpt_bare(text: &str) -> Excerpt {
    Excerpt(excerpt(text).0.trim_matches('"').into())
}

/// The longest address with a prefix takes 49.
const EXCERPT_CHARS: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::addr::ClientAddr;

    #[test]
    fn networks_and_single_addresses() {
        for (text, net) in [
            ("203.0.113.0/24", "203.0.113.0/24"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("198.51.100.7", "198.51.100.7/32"),
            (" 198.51.100.7 ", "198.51.100.7/32"),
            ("2001:DB8:10::/48", "2001:db8:10::/48"),
            ("2001:db8::7", "2001:db8::7/128"),
            ("::/0", "::/0"),
            ("::ffff:192.0.2.0/120", "192.0.2.0/24"),
            ("::ffff:192.0.2.7", "192.0.2.7/32"),
            ("::192.0.2.7", "::c000:207/128"),
        ] {
            assert_eq!(parse_cidr(text).unwrap().to_string(), net, "{text}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        let no_such = "neither an address nor a network, such as 192.0.2.0/24 or 2001:db8::/32";
        for (text, message) in [
            ("", "an address or a network is missing"),
            ("/24", "an address or a network is missing"),
            (
                "203.0.113.7/24",
                "203.0.113.7/24 has bits set beyond its prefix: \
                 write 203.0.113.0/24, or 203.0.113.7 for the one address",
            ),
            (
                "2001:db8::1/32",
                "2001:db8::1/32 has bits set beyond its prefix: \
                 write 2001:db8::/32, or 2001:db8::1 for the one address",
            ),
            ("192.0.2.0/33", "/33 is not a prefix length: an IPv4 network has /0 to /32"),
            ("192.0.2.0/", "/ is not a prefix length: an IPv4 network has /0 to /32"),
            ("192.0.2.0/+24", "/+24 is not a prefix length: an IPv4 network has /0 to /32"),
            ("192.0.2.0/024", "/024 is not a prefix length: an IPv4 network has /0 to /32"),
            ("192.0.2.0/24/24", "/24/24 is not a prefix length: an IPv4 network has /0 to /32"),
            ("2001:db8::/129", "/129 is not a prefix length: an IPv6 network has /0 to /128"),
            ("192.0.2.0/255.255.255.0", "255.255.255.0 is a mask: write the prefix length, /24"),
            ("192.0.2.0/255.0.255.0", "/255.0.255.0 is not a prefix length: an IPv4 network has /0 to /32"),
            (
                "fe80::1%eth0",
                "\"fe80::1%eth0\" names a zone: only the address can be matched, \
                 write it without the part from the %",
            ),
            ("192.0.2.1:443", "\"192.0.2.1:443\" has a port: write 192.0.2.1"),
            ("[2001:db8::1]:443", "\"[2001:db8::1]:443\" has a port: write 2001:db8::1"),
            ("[2001:db8::1]", "an address stands without brackets here: write 2001:db8::1"),
            ("192.0.2.1-192.0.2.9", "\"192.0.2.1-192.0.2.9\" is a range: write the networks that make it up"),
            (
                "office.example.com",
                "\"office.example.com\" is a name: only addresses and networks are matched, write its addresses",
            ),
            (
                "010.0.0.1",
                "\"010.0.0.1\" has a number with leading zeros, which may mean octal: write it without them",
            ),
            ("256.0.0.1", &format!("\"256.0.0.1\" is {no_such}")),
            ("10.0.0", &format!("\"10.0.0\" is {no_such}")),
            ("10.0.0.0 /8", &format!("\"10.0.0.0 \" is {no_such}")),
            ("2001:db8::/32::", "/32:: is not a prefix length: an IPv6 network has /0 to /128"),
            ("\u{1b}[2J", &format!("\"\\u{{1b}}[2J\" is {no_such}")),
        ] {
            assert_eq!(parse_cidr(text).unwrap_err().to_string(), message, "{text}");
        }
    }

    #[test]
    fn a_long_text_is_cut_in_the_message() {
        let message = parse_cidr(&"?".repeat(10_000)).unwrap_err().to_string();
        assert!(message.starts_with(&format!("\"{}…\" is neither", "?".repeat(64))), "{message}");
    }

    #[test]
    fn lists_skip_comments_and_blank_lines() {
        let text = "\u{feff}# office\r\n10.0.0.0/8\r\n\r\n  2001:db8::/32   # lab\n#192.0.2.1\n198.51.100.7";
        let set = parse_list(text).unwrap();
        assert_eq!(set.len(), 3);
        for (ip, inside) in
            [("10.1.2.3", true), ("2001:db8::1", true), ("198.51.100.7", true), ("192.0.2.1", false)]
        {
            assert_eq!(set.contains(ClientAddr::new(ip.parse().unwrap())), inside, "{ip}");
        }
        assert!(parse_list("").unwrap().is_empty());
    }

    #[test]
    fn every_wrong_line_of_a_list_is_named() {
        let errors = parse_list("10.0.0.0/8\n10.0.0.1/8\n\nexample.com\n").unwrap_err();
        assert_eq!(errors.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [2, 4]);
        let endless = "x\n".repeat(MAX_ERRORS * 2);
        assert_eq!(parse_list(&endless).unwrap_err().len(), MAX_ERRORS);
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in any::<String>()) {
            let _ = parse_cidr(&text);
            let _ = parse_list(&text);
        }

        #[test]
        fn what_is_printed_reads_back(bits in any::<u128>(), prefix in 0..=128_u8) {
            let net = IpNet::new(Ipv6Addr::from_bits(bits).into(), prefix).unwrap().trunc();
            prop_assert_eq!(parse_cidr(&net.to_string()).unwrap(), fold(net));
        }
    }
}
