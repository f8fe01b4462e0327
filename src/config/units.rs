//! Durations and sizes as people type them.

use std::time::Duration;

/// Unit and milliseconds, the longest last.
static TIMES: [(&str, u64); 5] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
/// Unit and octets, the largest last.
static SIZES: [(&str, u64); 5] =
    [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];

/// Reads `250ms`, `30s`, `10m`, `12h` or `90d`. The error says what to write.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    scaled(text, &TIMES).map(Duration::from_millis).ok_or_else(|| hint(text, &TIMES, "s", "30s"))
}

/// Reads `512B`, `64KiB`, `10MiB`, `1GiB` or `1TiB` as octets. The error says what to write.
pub(super) fn size(text: &str) -> Result<u64, String> {
    scaled(text, &SIZES).ok_or_else(|| hint(text, &SIZES, "MiB", "64MiB"))
}

/// A duration as [`duration`] reads it, in the largest unit that divides it.
pub(crate) fn show_duration(duration: Duration) -> String {
    show(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX), &TIMES)
}

/// A size as [`size`] reads it, in the largest unit that divides it.
pub(crate) fn show_size(octets: u64) -> String {
    show(octets, &SIZES)
}

fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (number, unit) = split(text);
    let (_, scale) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*scale)
}

fn split(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

fn hint(text: &str, units: &'static [(&str, u64)], usual: &'static str, example: &str) -> String {
    let (number, unit) = split(text.trim());
    if !number.is_empty() && units.iter().any(|(name, _)| *name == unit) {
        return "write a smaller number".into();
    }
    let names: Vec<&str> = units.iter().map(|(name, _)| *name).collect();
    let rule = format!("a whole number and one of {}", names.join(", "));
    let meant =
        if unit.is_empty() { Some(usual) } else { meant_unit(&unit.trim().to_ascii_lowercase(), units) };
    match meant.filter(|unit| scaled(&format!("{number}{unit}"), units).is_some()) {
        Some(unit) => format!("write {rule}, as in \"{number}{unit}\""),
        None => format!("write {rule}, as in \"{example}\""),
    }
}

/// "64KB", "64k" and "64 KiB" mean the unit that begins with the same letter, "msec" the longest that it begins with.
fn meant_unit(typed: &str, units: &'static [(&str, u64)]) -> Option<&'static str> {
    let word = typed.bytes().all(|b| b.is_ascii_alphabetic());
    let names = || units.iter().rev().map(|(name, _)| *name).filter(|_| word);
    let whole =
        names().filter(|name| typed.starts_with(&name.to_ascii_lowercase())).max_by_key(|name| name.len());
    let initial = |name: &str| name.get(..1).map(str::to_ascii_lowercase);
    whole.or_else(|| names().find(|name| initial(name) == initial(typed)))
}

fn show(amount: u64, units: &[(&str, u64)]) -> String {
    let whole = units.iter().rev().find(|(_, scale)| amount >= *scale && amount.is_multiple_of(*scale));
    let (name, scale) = whole.or(units.get(1)).copied().unwrap_or(("", 1));
    format!("{}{name}", amount / scale)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations() {
        for (text, millis) in [
            ("250ms", Some(250)),
            ("0s", Some(0)),
            ("30s", Some(30_000)),
            ("10m", Some(600_000)),
            ("12h", Some(43_200_000)),
            ("90d", Some(7_776_000_000)),
            ("", None),
            ("s", None),
            ("30", None),
            ("-1s", None),
            ("+1s", None),
            ("1.5h", None),
            ("1h30m", None),
            ("30 s", None),
            ("30S", None),
            ("99999999999999999999s", None),
            ("18446744073709551615d", None),
        ] {
            assert_eq!(duration(text).ok(), millis.map(Duration::from_millis), "{text:?}");
        }
    }

    #[test]
    fn sizes() {
        for (text, octets) in [
            ("512B", Some(512)),
            ("64KiB", Some(65_536)),
            ("10MiB", Some(10_485_760)),
            ("1GiB", Some(1_073_741_824)),
            ("1TiB", Some(1_099_511_627_776)),
            ("64KB", None),
            ("64", None),
            ("16777216TiB", None),
        ] {
            assert_eq!(size(text).ok(), octets, "{text:?}");
        }
    }

    #[test]
    fn the_hint_names_what_was_meant() {
        for (text, meant) in
            [("64KB", "64KiB"), ("64k", "64KiB"), ("10M", "10MiB"), ("10", "10MiB"), ("x", "64MiB")]
        {
            assert!(size(text).unwrap_err().ends_with(&format!("as in \"{meant}\"")), "{text:?}");
        }
        for (text, meant) in [
            ("30 s", "30s"),
            ("30sec", "30s"),
            ("2hours", "2h"),
            ("90 days", "90d"),
            ("5msec", "5ms"),
            ("5min", "5m"),
        ] {
            assert!(duration(text).unwrap_err().ends_with(&format!("as in \"{meant}\"")), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back(millis in 0..u64::MAX) {
            let shown = show_duration(Duration::from_millis(millis));
            prop_assert_eq!(duration(&shown), Ok(Duration::from_millis(millis)));
        }

        #[test]
        fn no_text_panics(text in ".*") {
            let _ = (duration(&text), size(&text));
        }
    }
}
