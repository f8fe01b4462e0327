//! What the answers of one connection hold in memory until its client takes it.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use crate::http::client::LEAST;

/// How much of an answer is read at once, in octets.
const PIECE: usize = 128 * 1024;
/// From how much in all on an answer has no more than [`LEAST`] at once, in octets: pages with their pictures stay below it.
const PLENTY: usize = 2 * 1024 * 1024;

/// Of all answers of a connection.
#[derive(Default)]
pub(super) struct Backlog(Arc<All>);

#[derive(Default)]
struct All {
    octets: AtomicUsize,
    /// How many pieces the connection has taken.
    taken: AtomicU64,
}

/// One answer's part in it.
pub(super) struct Share(Arc<Own>);

struct Own {
    all: Arc<All>,
    octets: AtomicUsize,
    /// Whom to tell that nothing is left.
    waker: Mutex<Option<Waker>>,
}

/// A piece of an answer, counted for as long as something holds it.
struct Piece {
    data: Bytes,
    own: Arc<Own>,
}

impl Backlog {
    pub(super) fn share(&self) -> Share {
        let own = Own { all: Arc::clone(&self.0), octets: AtomicUsize::new(0), waker: Mutex::default() };
        Share(Arc::new(own))
    }
}

impl Share {
    /// How much may be read at once, in octets.
    pub(super) fn most(&self) -> usize {
        if self.0.all.octets.load(Relaxed) < PLENTY { PIECE } else { LEAST }
    }

    /// The same; where there is plenty, ready only once the client has taken all of this answer that was read.
    pub(super) fn poll_most(&self, cx: &mut Context<'_>) -> Poll<usize> {
        let most = self.most();
        if most == PIECE || self.0.octets.load(Relaxed) == 0 {
            return Poll::Ready(most);
        }
        *self.0.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
        Poll::Pending
    }

    /// How many pieces of all answers were taken so far.
    pub(super) fn taken(&self) -> u64 {
        self.0.all.taken.load(Relaxed)
    }

    /// Counts a piece until it is dropped.
    pub(super) fn hold(&self, data: Bytes) -> Bytes {
        self.0.octets.fetch_add(data.len(), Relaxed);
        self.0.all.octets.fetch_add(data.len(), Relaxed);
        Bytes::from_owner(Piece { data, own: Arc::clone(&self.0) })
    }
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        let Self { data, own } = self;
        own.all.octets.fetch_sub(data.len(), Relaxed);
        own.all.taken.fetch_add(1, Relaxed);
        if own.octets.fetch_sub(data.len(), Relaxed) == data.len()
            && let Some(waker) = own.waker.lock().unwrap_or_else(PoisonError::into_inner).take()
        {
            waker.wake();
        }
    }
}
