//! The latest requests, for whoever asks what one of them met.
//!
//! Each worker notes them in a buffer of its own, and hands it on when it is full or a moment has passed: no request takes
//! a lock. What is kept is bounded in requests and in octets, and nothing is allocated before there are any.

mod record;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::access::Line;
pub use record::Recorded;
use record::{Records, append};

/// How many requests are kept, at least while they fit into [`OCTETS`].
pub const KEPT: usize = 100_000;
/// How many octets are kept at most. A usual request takes some 200; a trace's id adds 32 to one that has it.
pub const OCTETS: usize = 30 * 1024 * 1024;
/// How many requests that were refused or failed are kept besides.
pub const TROUBLES: usize = 100;
/// A buffer of so many octets is handed on.
const BUFFER: usize = 64 * 1024;

/// The latest requests of all workers. Clones are handles of the same ones.
#[derive(Debug, Clone, Default)]
pub struct Recent(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    chunks: VecDeque<Arc<Chunk>>,
    requests: usize,
    octets: usize,
    troubles: VecDeque<Recorded>,
}

/// Requests that one worker handed on together, the oldest first.
#[derive(Debug)]
struct Chunk {
    octets: Box<[u8]>,
    requests: usize,
}

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// So many requests.
    pub requests: usize,
    /// In so many octets.
    pub octets: usize,
}

impl Recent {
    /// A worker's own way in.
    pub fn recorder(&self) -> Recorder {
        Recorder { recent: self.clone(), octets: Vec::new(), requests: 0, troubles: Vec::new() }
    }

    /// The request of this id, where it is still kept. Looks through all that is kept: milliseconds.
    pub fn find(&self, id: &str) -> Option<Recorded> {
        let chunks: Vec<_> = self.lock().chunks.iter().cloned().collect();
        chunks
            .iter()
            .rev()
            .find_map(|chunk| Records::of(&chunk.octets).find(|record| record.is(id)))?
            .decode()
    }

    /// The latest requests that were refused or failed, the latest first.
    pub fn troubles(&self) -> Vec<Recorded> {
        let mut troubles: Vec<_> = self.lock().troubles.iter().cloned().collect();
        troubles.sort_by_key(|trouble| std::cmp::Reverse(trouble.time));
        troubles
    }

    /// How much is kept.
    pub fn extent(&self) -> Extent {
        let kept = self.lock();
        Extent { requests: kept.requests, octets: kept.octets }
    }

    fn push(&self, chunk: Chunk, troubles: Vec<Recorded>) {
        let mut kept = self.lock();
        kept.requests += chunk.requests;
        kept.octets += chunk.octets.len();
        kept.chunks.push_back(Arc::new(chunk));
        kept.forget();
        kept.troubles.extend(troubles);
        let over = kept.troubles.len().saturating_sub(TROUBLES);
        kept.troubles.drain(..over);
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // Whatever was being done, each chunk is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// The oldest go, as long as enough are left.
    fn forget(&mut self) {
        while let Some(oldest) = self.chunks.front() {
            let enough = self.requests - oldest.requests >= KEPT;
            if !enough && self.octets <= OCTETS {
                return;
            }
            self.requests -= oldest.requests;
            self.octets -= oldest.octets.len();
            self.chunks.pop_front();
        }
    }
}

/// A worker's own way in. Dropping it hands on what it has.
#[derive(Debug)]
pub struct Recorder {
    recent: Recent,
    octets: Vec<u8>,
    requests: usize,
    /// Where in `octets` the latest requests are that were refused or failed.
    troubles: Vec<usize>,
}

impl Recorder {
    /// Notes a request. Whether there was none before, so that the buffer is to be handed on in a moment.
    pub fn note(&mut self, line: &Line<'_>) -> bool {
        let first = self.requests == 0;
        if first {
            self.octets.reserve(BUFFER + BUFFER / 4);
        }
        if line.is_trouble() {
            self.troubles.push(self.octets.len());
        }
        append(&mut self.octets, line);
        self.requests += 1;
        if self.octets.len() >= BUFFER {
            self.hand_on();
        }
        first
    }

    /// Hands on what was noted.
    pub fn hand_on(&mut self) {
        if self.requests == 0 {
            return;
        }
        let octets = std::mem::take(&mut self.octets).into_boxed_slice();
        let requests = std::mem::take(&mut self.requests);
        let places = std::mem::take(&mut self.troubles);
        let latest = places.get(places.len().saturating_sub(TROUBLES)..).unwrap_or_default();
        let troubles =
            latest.iter().filter_map(|at| Records::of(octets.get(*at..)?).next()?.decode()).collect();
        self.recent.push(Chunk { octets, requests }, troubles);
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.hand_on();
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::time::SystemTime;

    use super::*;

    fn id(number: usize) -> String {
        format!("{number:032x}")
    }

    fn line<'a>(id: &'a str, path: &'a [u8], status: u16) -> Line<'a> {
        Line {
            request_id: id,
            path,
            status,
            ..Line::new(SystemTime::UNIX_EPOCH, IpAddr::from([192, 0, 2, 1]))
        }
    }

    #[test]
    fn the_latest_requests_of_every_worker_are_found() {
        let recent = Recent::default();
        let mut workers = [recent.recorder(), recent.recorder()];
        for number in 0..KEPT * 3 / 2 {
            let id = id(number);
            workers[number % 2].note(&line(&id, b"/", 200));
        }
        drop(workers);
        let extent = recent.extent();
        assert!((KEPT..KEPT + 2000).contains(&extent.requests), "{extent:?}");
        assert!(extent.octets < OCTETS, "{extent:?}");
        assert_eq!(recent.find(&id(KEPT * 3 / 2 - 1)).unwrap().path, "/");
        assert!(recent.find(&id(KEPT * 3 / 4)).is_some(), "one of the last hundred thousand");
        assert!(recent.find(&id(0)).is_none() && recent.find("x").is_none());
    }

    #[test]
    fn long_requests_are_kept_in_as_much_memory_as_short_ones() {
        let recent = Recent::default();
        let mut worker = recent.recorder();
        let path = [b'a'; 8192];
        for number in 0..KEPT {
            worker.note(&line(&id(number), &path, 200));
        }
        drop(worker);
        let extent = recent.extent();
        assert!(extent.requests < KEPT && extent.octets <= OCTETS, "{extent:?}");
        assert!(extent.octets > OCTETS * 9 / 10, "{extent:?}");
    }

    #[test]
    fn what_went_wrong_is_kept_besides() {
        let recent = Recent::default();
        let mut worker = recent.recorder();
        for number in 0..300 {
            worker.note(&line(&id(number), b"/", if number % 2 == 0 { 502 } else { 404 }));
        }
        assert!(recent.find(&id(0)).is_none() && recent.troubles().is_empty(), "not handed on yet");
        worker.hand_on();
        let troubles = recent.troubles();
        assert_eq!(troubles.len(), TROUBLES);
        assert!(troubles.iter().all(|trouble| trouble.status == 502));
        assert_eq!(recent.extent().requests, 300);
        worker.hand_on();
        assert_eq!(recent.extent().requests, 300);
    }
}
