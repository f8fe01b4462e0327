//! Time as lines carry it, formatted once a second.

use std::time::{Duration, SystemTime};

use time::OffsetDateTime;
use time::format_description::StaticFormatDescription;
use time::macros::format_description;

/// Writes times, and keeps the part that does not change within a second. One stamp serves one form of time.
#[derive(Debug, Default)]
pub(super) struct Stamp {
    rfc3339: Cached,
    common: Cached,
}

impl Stamp {
    /// RFC 3339 with milliseconds, UTC: `2026-01-02T03:04:05.678Z`.
    pub(super) fn rfc3339(&mut self, out: &mut Vec<u8>, time: SystemTime) {
        let since = since_epoch(time);
        self.rfc3339.write(out, since.as_secs(), RFC3339);
        let millis = since.subsec_millis();
        out.extend([millis / 100, millis / 10 % 10, millis % 10].map(digit));
        out.push(b'Z');
    }

    /// The NCSA common log format's, UTC: `02/Jan/2026:03:04:05 +0000`.
    pub(super) fn common(&mut self, out: &mut Vec<u8>, time: SystemTime) {
        self.common.write(out, since_epoch(time).as_secs(), COMMON);
    }
}

/// A moment as access lines carry it: RFC 3339 with milliseconds, UTC, always three digits of them.
pub fn rfc3339(time: SystemTime) -> String {
    let mut text = Vec::new();
    Stamp::default().rfc3339(&mut text, time);
    String::from_utf8(text).unwrap_or_default()
}

/// The text of the last second that was asked for.
#[derive(Debug, Default)]
struct Cached {
    second: u64,
    text: Vec<u8>,
}

impl Cached {
    fn write(&mut self, out: &mut Vec<u8>, second: u64, format: StaticFormatDescription) {
        if self.second != second || self.text.is_empty() {
            self.second = second;
            self.text = formatted(second, format);
        }
        out.extend_from_slice(&self.text);
    }
}

/// A clock beyond the year 9999 shows 1970.
fn formatted(second: u64, format: StaticFormatDescription) -> Vec<u8> {
    let time = i64::try_from(second).ok().and_then(|second| OffsetDateTime::from_unix_timestamp(second).ok());
    let text = time.unwrap_or(OffsetDateTime::UNIX_EPOCH).format(format);
    text.unwrap_or_default().into_bytes()
}

/// A clock before 1970 shows 1970.
fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

fn digit(value: u32) -> u8 {
    char::from_digit(value, 10).map_or(b'0', |digit| digit as u8)
}

const RFC3339: StaticFormatDescription =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].");
const COMMON: StaticFormatDescription =
    format_description!("[day]/[month repr:short]/[year]:[hour]:[minute]:[second] +0000");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_follow_the_clock() {
        let mut stamp = Stamp::default();
        for (millis, rfc3339, common) in [
            (0, "1970-01-01T00:00:00.000Z", "01/Jan/1970:00:00:00 +0000"),
            (1_709_210_096_007, "2024-02-29T12:34:56.007Z", "29/Feb/2024:12:34:56 +0000"),
            (1_709_210_096_999, "2024-02-29T12:34:56.999Z", "29/Feb/2024:12:34:56 +0000"),
            (1_709_210_095_120, "2024-02-29T12:34:55.120Z", "29/Feb/2024:12:34:55 +0000"),
            (4_102_444_800_000, "2100-01-01T00:00:00.000Z", "01/Jan/2100:00:00:00 +0000"),
        ] {
            let time = SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
            let (mut first, mut second) = (Vec::new(), Vec::new());
            stamp.rfc3339(&mut first, time);
            stamp.common(&mut second, time);
            assert_eq!(String::from_utf8(first).unwrap(), rfc3339);
            assert_eq!(String::from_utf8(second).unwrap(), common);
        }
    }

    #[test]
    fn impossible_clocks_do_no_harm() {
        let mut out = Vec::new();
        Stamp::default().rfc3339(&mut out, SystemTime::UNIX_EPOCH - Duration::from_secs(9));
        Stamp::default().rfc3339(&mut out, SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 40));
        assert_eq!(out, b"1970-01-01T00:00:00.000Z1970-01-01T00:00:00.000Z");
    }
}
