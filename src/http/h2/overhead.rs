//! What a client sends over HTTP/2 that is no part of a request: a few frames of it keep a connection well, and a flood of
//! them only costs (RFC 9113 section 10.5; CVE-2019-9512 PING, -9513 PRIORITY, -9515 SETTINGS, and their like).
//!
//! The `h2` crate itself ends floods of empty and tiny DATA (CVE-2019-9518), of CONTINUATION (VU#421644), and of streams
//! that are refused, malformed or reset before they were seen (CVE-2023-44487, CVE-2025-8671).

use std::time::{Duration, Instant};

/// How many octets more than what is taken off are a flood, if they come within [`SPAN`]: 60,000 PINGs.
const MOST: u64 = 1024 * 1024;
const SPAN: Duration = Duration::from_mins(1);
/// What HEADERS count, whatever their length: those that are answered without a request's being begun, as for a head that is too
/// large, are a flood as well.
const FIELDS: u64 = 64;
/// What a request takes off: its HEADERS and those of its trailers, a PRIORITY, two `WINDOW_UPDATE`s and a `RST_STREAM` are 181.
const REQUEST: u64 = 256;
/// So many octets that were sent take off one. Opening both windows takes 26 octets: a client may do it with every 208.
const SENT: u64 = 8;

/// What a client sends before its first frame (RFC 9113 section 3.4).
const PREFACE: usize = 24;
/// A frame's length and its type, which its head of nine octets begins with (RFC 9113 section 4.1).
const BEGINNING: u8 = 4;
const HEAD: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const CONTINUATION: u8 = 9;

/// One connection's count.
#[derive(Debug)]
pub(super) struct Overhead {
    octets: u64,
    since: Instant,
    /// How much is to come before the next frame.
    rest: usize,
    /// What has come of a frame's length and type, and how many octets of it.
    beginning: (u32, u8),
    begun: bool,
}

/// The first frame is not SETTINGS: a connection error (RFC 9113 section 3.4).
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the first frame is not SETTINGS")]
pub(super) struct NotSettings;

impl Overhead {
    pub(super) fn new() -> Self {
        Self { octets: 0, since: Instant::now(), rest: PREFACE, beginning: (0, 0), begun: false }
    }

    /// Takes note of what has come.
    pub(super) fn received(&mut self, mut octets: &[u8]) -> Result<(), NotSettings> {
        loop {
            let passed = self.rest.min(octets.len());
            self.rest -= passed;
            octets = octets.get(passed..).unwrap_or_default();
            let Some((&first, behind)) = octets.split_first() else { return Ok(()) };
            octets = behind;
            let (value, count) = self.beginning;
            self.beginning = (value << 8 | u32::from(first), count + 1);
            if self.beginning.1 == BEGINNING {
                let [l0, l1, l2, kind] = std::mem::take(&mut self.beginning).0.to_be_bytes();
                self.frame(kind, u32::from_be_bytes([0, l0, l1, l2]) as usize)?;
            }
        }
    }

    fn frame(&mut self, kind: u8, length: usize) -> Result<(), NotSettings> {
        if !std::mem::replace(&mut self.begun, true) && kind != SETTINGS {
            return Err(NotSettings);
        }
        self.rest = HEAD - usize::from(BEGINNING) + length;
        self.octets += match kind {
            DATA => 0,
            HEADERS => FIELDS,
            CONTINUATION => HEAD as u64,
            _ => (HEAD + length) as u64,
        };
        Ok(())
    }

    /// A request was begun.
    pub(super) fn request(&mut self) {
        self.octets = self.octets.saturating_sub(REQUEST);
    }

    /// So many octets were sent.
    pub(super) fn sent(&mut self, octets: usize) {
        self.octets = self.octets.saturating_sub(octets as u64 / SENT);
    }

    /// Whether this is a flood. What took longer than [`SPAN`] is forgotten, so that no connection grows too old for it.
    pub(super) fn is_flood(&mut self) -> bool {
        if self.octets <= MOST {
            return false;
        }
        let now = Instant::now();
        let flood = now.duration_since(self.since) < SPAN;
        if !flood {
            (self.octets, self.since) = (0, now);
        }
        flood
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PING: u8 = 6;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let [_, length @ ..] = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[..], &[kind, 0, 0, 0, 0, 1], payload].concat()
    }

    /// A connection of which the preface and an empty SETTINGS have come.
    fn begun() -> Overhead {
        let mut overhead = Overhead::new();
        overhead.received(&[vec![b'P'; PREFACE], frame(SETTINGS, b"")].concat()).unwrap();
        assert_eq!(overhead.octets, 9);
        overhead
    }

    #[test]
    fn frames_count_however_they_come() {
        let octets = [
            frame(PING, &[9; 8]),
            frame(DATA, &[PING; 1000]),
            frame(DATA, b""),
            frame(HEADERS, &[PING; 300]),
            frame(CONTINUATION, &[PING; 20]),
            frame(0xbb, &vec![0; 70_000]),
        ]
        .concat();
        for step in [1, 2, 3, 4, 5, 9, 10, 4096, octets.len()] {
            let mut overhead = begun();
            octets.chunks(step).for_each(|piece| overhead.received(piece).unwrap());
            assert_eq!((overhead.octets, overhead.rest), (9 + 17 + FIELDS + 9 + 70_009, 0), "{step}");
        }
    }

    #[test]
    fn only_settings_may_come_first() {
        let mut overhead = Overhead::new();
        overhead.received(&[b'P'; PREFACE]).unwrap();
        assert_eq!(overhead.received(&frame(PING, &[0; 8])), Err(NotSettings));
    }

    #[test]
    fn a_flood_is_what_nothing_takes_off() {
        let pings = frame(PING, &[0; 8]).repeat(1000);
        let floods = |overhead: &mut Overhead, take_off: &dyn Fn(&mut Overhead)| {
            (0..100).any(|_| {
                overhead.received(&pings).unwrap();
                take_off(overhead);
                overhead.is_flood()
            })
        };
        assert!(floods(&mut begun(), &|_| ()));
        // The acknowledgements of what floods excuse nothing.
        assert!(floods(&mut begun(), &|overhead| overhead.sent(pings.len())));
        assert!(!floods(&mut begun(), &|overhead| overhead.sent(pings.len() * 8)));
        assert!(!floods(&mut begun(), &|overhead| (0..100).for_each(|_| overhead.request())));
    }

    #[test]
    fn what_comes_slowly_is_no_flood() {
        let mut overhead = begun();
        for _ in 0..10 {
            overhead.octets += MOST + 1;
            // As if a minute had passed since.
            overhead.since = Instant::now().checked_sub(SPAN).unwrap();
            assert!(!overhead.is_flood());
            assert_eq!(overhead.octets, 0);
        }
    }
}
