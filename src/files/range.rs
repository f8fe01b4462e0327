//! The parts of a file that a client asks for (RFC 9110 section 14).

use std::ops::Range;

/// The most ranges of one request. A player or a viewer of documents asks for a few.
const MAX_RANGES: usize = 32;
/// What lies between two ranges is sent along where naming the second would cost more, in octets.
const GAP: u64 = 128;

/// What a Range field asks of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// All of it: there is no range, or none that is understood (section 14.2).
    Whole,
    /// These parts: at least one, none empty, none touching another.
    Parts(Vec<Range<u64>>),
    /// Nothing that the file has (section 15.5.17).
    Nothing,
}

/// Reads a Range field for a file of `size` octets.
pub(super) fn wanted(value: &[u8], size: u64) -> Wanted {
    let Some(parts) = parse(value, size) else { return Wanted::Whole };
    if !parts.is_empty() {
        return Wanted::Parts(merged(parts));
    }
    // Of a file without content the last octets are all of it (section 14.1.2).
    let suffix = |spec: &[u8]| spec.trim_ascii().starts_with(b"-");
    let last = size == 0 && value.split(|b| matches!(b, b'=' | b',')).any(suffix);
    if last { Wanted::Whole } else { Wanted::Nothing }
}

/// The ranges that the file has; None where the field is to be ignored.
fn parse(value: &[u8], size: u64) -> Option<Vec<Range<u64>>> {
    let equals = memchr::memchr(b'=', value)?;
    let (unit, specs) = (value.get(..equals)?, value.get(equals + 1..)?);
    if !unit.eq_ignore_ascii_case(b"bytes") {
        return None;
    }
    let mut parts = Vec::new();
    let mut count = 0;
    for spec in specs.split(|b| *b == b',').map(<[u8]>::trim_ascii).filter(|spec| !spec.is_empty()) {
        count += 1;
        if count > MAX_RANGES {
            return None;
        }
        parts.extend(part(spec, size)?.filter(|part| !part.is_empty()));
    }
    (count > 0).then_some(parts)
}

/// One of `0-499`, `500-` and `-500`: None where it is malformed, an inner None where the file has nothing of it.
#[allow(clippy::option_option, reason = "malformed and unsatisfiable are two things, in one place")]
fn part(spec: &[u8], size: u64) -> Option<Option<Range<u64>>> {
    let dash = memchr::memchr(b'-', spec)?;
    let (first, last) = (spec.get(..dash)?, spec.get(dash + 1..)?);
    if first.is_empty() {
        let length = number(last)?;
        return Some(Some(size.saturating_sub(length)..size));
    }
    let first = number(first)?;
    let end = if last.is_empty() { size } else { number(last)?.saturating_add(1) };
    if end <= first && !last.is_empty() {
        return None;
    }
    Some((first < size).then(|| first..end.min(size)))
}

/// Digits; what is too large for any file is the largest number.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(digits.iter().fold(0, |n: u64, digit| n.saturating_mul(10).saturating_add(u64::from(digit - b'0'))))
}

/// In the order in which they were asked for, or, where some of them overlap or nearly touch, as few as there can be.
fn merged(parts: Vec<Range<u64>>) -> Vec<Range<u64>> {
    let mut sorted = parts.clone();
    sorted.sort_by_key(|part| part.start);
    let mut fewer: Vec<Range<u64>> = Vec::with_capacity(sorted.len());
    for part in sorted {
        match fewer.last_mut() {
            Some(last) if part.start <= last.end.saturating_add(GAP) => last.end = last.end.max(part.end),
            _ => fewer.push(part),
        }
    }
    if fewer.len() == parts.len() { parts } else { fewer }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Wanted::{Nothing, Parts, Whole};
    use super::*;

    #[test]
    fn ranges() {
        let parts = |parts: &[(u64, u64)]| Parts(parts.iter().map(|(start, end)| *start..*end).collect());
        for (value, size, expected) in [
            ("bytes=0-499", 1000, parts(&[(0, 500)])),
            ("bytes=0-0", 1000, parts(&[(0, 1)])),
            ("bytes=500-", 1000, parts(&[(500, 1000)])),
            ("bytes=-500", 1000, parts(&[(500, 1000)])),
            ("bytes=-5000", 1000, parts(&[(0, 1000)])),
            ("bytes=0-", 1000, parts(&[(0, 1000)])),
            ("bytes=999-2000", 1000, parts(&[(999, 1000)])),
            ("bytes=0-99999999999999999999999", 1000, parts(&[(0, 1000)])),
            ("BYTES=0-1", 1000, parts(&[(0, 2)])),
            ("bytes= 0-1 , 500-501", 1000, parts(&[(0, 2), (500, 502)])),
            ("bytes=500-501,0-1", 1000, parts(&[(500, 502), (0, 2)])),
            ("bytes=0-1,,500-501,", 1000, parts(&[(0, 2), (500, 502)])),
            ("bytes=0-99,50-149", 1000, parts(&[(0, 150)])),
            ("bytes=0-99,100-149", 1000, parts(&[(0, 150)])),
            ("bytes=0-1,100-101", 1000, parts(&[(0, 102)])),
            ("bytes=0-1,5000-5001", 1000, parts(&[(0, 2)])),
            ("bytes=1000-", 1000, Nothing),
            ("bytes=1000-1001,2000-", 1000, Nothing),
            ("bytes=-0", 1000, Nothing),
            ("bytes=5-4", 1000, Whole),
            ("bytes=0-1,5-4", 1000, Whole),
            ("bytes=", 1000, Whole),
            ("bytes=-", 1000, Whole),
            ("bytes", 1000, Whole),
            ("bytes=a-b", 1000, Whole),
            ("bytes=0-1-2", 1000, Whole),
            ("bytes=+0-1", 1000, Whole),
            ("bytes=0x1-2", 1000, Whole),
            ("bytes=1 -2", 1000, Whole),
            ("lines=0-1", 1000, Whole),
            ("", 1000, Whole),
            ("bytes=0-", 0, Nothing),
            ("bytes=0-0", 0, Nothing),
            ("bytes=-1", 0, Whole),
        ] {
            assert_eq!(wanted(value.as_bytes(), size), expected, "{value:?} of {size}");
        }
    }

    #[test]
    fn a_flood_of_ranges_is_ignored() {
        let many = |count: u64| {
            let ranges: Vec<String> = (0..count).map(|n| format!("{0}-{0}", n * 1000)).collect();
            format!("bytes={}", ranges.join(","))
        };
        assert!(matches!(wanted(many(32).as_bytes(), 1 << 20), Parts(parts) if parts.len() == 32));
        assert_eq!(wanted(many(33).as_bytes(), 1 << 20), Whole);
    }

    proptest! {
        #[test]
        fn parts_lie_apart_inside_the_file(value in "bytes=([0-9]{0,4}-[0-9]{0,4},?){1,8}", size in 0..5000_u64) {
            if let Parts(mut parts) = wanted(value.as_bytes(), size) {
                parts.sort_by_key(|part| part.start);
                prop_assert!(parts.iter().all(|part| part.start < part.end && part.end <= size));
                prop_assert!(parts.windows(2).all(|pair| pair[0].end < pair[1].start));
            }
        }

        #[test]
        fn no_bytes_panic(value in proptest::collection::vec(any::<u8>(), 0..64), size in any::<u64>()) {
            let _ = wanted(&value, size);
        }
    }
}
