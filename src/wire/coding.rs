//! Which content codings a client takes (RFC 9110 section 12.5.3).

use super::Head;
use super::head::members;

/// A content coding (RFC 9110 section 8.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// `br` (RFC 7932)
    Brotli,
    /// `zstd` (RFC 8878)
    Zstandard,
    /// `gzip` (RFC 1952)
    Gzip,
}

/// What is smallest first, for what was compressed once and for all.
pub const BY_SIZE: [Coding; 3] = [Coding::Brotli, Coding::Zstandard, Coding::Gzip];
/// What takes the least work for its size first, for what is compressed for each request: of a page of 50 KB zstd makes as
/// much as gzip in a quarter of the time.
pub const BY_WORK: [Coding; 3] = [Coding::Zstandard, Coding::Brotli, Coding::Gzip];

impl Coding {
    /// As Content-Encoding names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Brotli => "br",
            Self::Zstandard => "zstd",
            Self::Gzip => "gzip",
        }
    }
}

/// The codings that the client likes no less than none at all, the best first; of those that it likes alike, the one that
/// stands first in `order`.
pub fn accepted(head: &Head, order: [Coding; 3]) -> Vec<Coding> {
    let members: Vec<&[u8]> = head.named("accept-encoding").flat_map(members).collect();
    // Without a word of it the plain content is welcome, behind whatever is named.
    let plain = weight(&members, b"identity").unwrap_or(0);
    let wanted = |coding: &Coding| {
        let named = weight(&members, coding.name().as_bytes());
        let named =
            named.or_else(|| (*coding == Coding::Gzip).then(|| weight(&members, b"x-gzip")).flatten());
        named.or_else(|| weight(&members, b"*")).unwrap_or(0)
    };
    let mut codings: Vec<(u16, Coding)> = order.iter().map(|coding| (wanted(coding), *coding)).collect();
    codings.retain(|(weight, _)| *weight > 0 && *weight >= plain);
    codings.sort_by_key(|(weight, _)| std::cmp::Reverse(*weight));
    codings.into_iter().map(|(_, coding)| coding).collect()
}

/// The weight of a name in thousandths; None where it is not named, 0 where its weight is no number.
fn weight(members: &[&[u8]], name: &[u8]) -> Option<u16> {
    members.iter().find_map(|member| {
        let mut parts = member.split(|b| *b == b';').map(<[u8]>::trim_ascii);
        parts.next()?.eq_ignore_ascii_case(name).then(|| parts.next().map_or(1000, quality))
    })
}

/// `q=0.5` (RFC 9110 section 12.4.2).
fn quality(parameter: &[u8]) -> u16 {
    let value = parameter.strip_prefix(b"q=").or_else(|| parameter.strip_prefix(b"Q=")).unwrap_or_default();
    let (whole, fraction) = match value {
        [whole] => (whole, &[][..]),
        [whole, b'.', fraction @ ..] if fraction.len() <= 3 => (whole, fraction),
        _ => return 0,
    };
    let mut digits = [b'0'; 3];
    digits.iter_mut().zip(fraction).for_each(|(digit, typed)| *digit = *typed);
    if !matches!(whole, b'0' | b'1') || !digits.iter().all(u8::is_ascii_digit) {
        return 0;
    }
    let thousandths =
        digits.iter().fold(u16::from(whole - b'0'), |sum, digit| sum * 10 + u16::from(digit - b'0'));
    if thousandths > 1000 { 0 } else { thousandths }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_liked_alike_is_taken_by_the_order() {
        let mut head = Head::default();
        head.push(b"accept-encoding", b"gzip;q=0.9, br, zstd");
        assert_eq!(accepted(&head, BY_WORK), [Coding::Zstandard, Coding::Brotli, Coding::Gzip]);
        assert_eq!(accepted(&head, BY_SIZE), [Coding::Brotli, Coding::Zstandard, Coding::Gzip]);
    }

    #[test]
    fn codings_are_taken_by_weight() {
        use Coding::{Brotli as B, Gzip as G, Zstandard as Z};
        for (lines, expected) in [
            (&[][..], &[][..]),
            (&[""], &[]),
            (&["gzip"], &[G]),
            (&["gzip, deflate, br, zstd"], &[B, Z, G]),
            (&["gzip", "br"], &[B, G]),
            (&["GZIP;Q=1.0"], &[G]),
            (&["x-gzip"], &[G]),
            (&["*"], &[B, Z, G]),
            (&["*;q=0.5, br;q=0"], &[Z, G]),
            (&["br;q=0.2, gzip;q=0.9, zstd;q=0.899"], &[G, Z, B]),
            (&["gzip;q=0.5, identity"], &[]),
            (&["gzip;q=0.5, identity;q=0.5"], &[G]),
            (&["identity;q=0, br"], &[B]),
            (&["gzip;q=0"], &[]),
            (&["gzip;q=0.000"], &[]),
            (&["gzip;q=0.001"], &[G]),
            (&["gzip;q=2, br;q=0.12345, zstd;q=-1"], &[]),
            (&["gzip ; q=0.3"], &[G]),
            (&["gzipped, brr"], &[]),
            (&["deflate"], &[]),
            (&["identity;q=0"], &[]),
            (&["identity;q=0, *;q=0.1"], &[B, Z, G]),
            (&["*;q=0, gzip"], &[G]),
            (&["*;q=0"], &[]),
            (&["br;q=1.001, gzip;q=1.000"], &[G]),
            (&["br;q=, gzip;q=x, zstd;q"], &[]),
            (&[",, gzip ,"], &[G]),
        ] {
            let mut head = Head::default();
            for line in lines {
                head.push(b"Accept-Encoding", line.as_bytes());
            }
            assert_eq!(accepted(&head, BY_SIZE), expected, "{lines:?}");
        }
    }
}
