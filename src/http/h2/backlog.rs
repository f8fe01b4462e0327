//! What the answers of one connection hold in memory until its client takes it. What was read from an upstream, and is no piece
//! of an answer yet, is not counted.

use std::cell::Cell;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};

use crate::http::client::LEAST;

/// How much of an answer is read at once, in octets.
const PIECE: usize = 128 * 1024;
/// From how much in all on an answer has no more than [`LEAST`] at once, in octets: pages with their pictures stay below it.
const PLENTY: usize = 2 * 1024 * 1024;
/// What a piece takes beside its content, here and in the `h2` crate, in octets.
const OVERHEAD: usize = 512;

/// Of all answers of a connection.
#[derive(Default)]
pub(super) struct Backlog(Rc<All>);

#[derive(Default)]
struct All {
    octets: Cell<usize>,
    taken: Cell<u64>,
}

/// One answer's part in it.
pub(super) struct Share(Rc<Own>);

struct Own {
    all: Rc<All>,
    octets: Cell<usize>,
    /// Whom to tell that nothing is left.
    waker: Cell<Option<Waker>>,
}

/// A piece of an answer, or a part of one.
#[derive(Default)]
pub(super) struct Piece {
    data: Bytes,
    held: Option<Rc<Held>>,
}

/// A piece is counted for as long as any part of it is in memory.
struct Held {
    octets: usize,
    own: Rc<Own>,
}

impl Backlog {
    pub(super) fn share(&self) -> Share {
        let all = Rc::clone(&self.0);
        Share(Rc::new(Own { all, octets: Cell::new(0), waker: Cell::new(None) }))
    }
}

impl Share {
    /// How much may be read at once, in octets.
    pub(super) fn most(&self) -> usize {
        if self.0.all.octets.get() < PLENTY { PIECE } else { LEAST }
    }

    /// The same; where there is plenty, ready only once the client has taken all of this answer that was read.
    pub(super) fn poll_most(&self, cx: &mut Context<'_>) -> Poll<usize> {
        let most = self.most();
        if most == PIECE || self.0.octets.get() == 0 {
            return Poll::Ready(most);
        }
        self.0.waker.set(Some(cx.waker().clone()));
        Poll::Pending
    }

    /// How many octets of the connection's answers were taken so far.
    pub(super) fn taken(&self) -> u64 {
        self.0.all.taken.get()
    }

    pub(super) fn hold(&self, data: Bytes) -> Piece {
        let octets = data.len() + OVERHEAD;
        self.0.octets.update(|own| own + octets);
        self.0.all.octets.update(|all| all + octets);
        Piece { data, held: Some(Rc::new(Held { octets, own: Rc::clone(&self.0) })) }
    }
}

impl Piece {
    /// One that is too small to count.
    pub(super) fn small(data: Bytes) -> Self {
        Self { data, held: None }
    }

    /// The first octets, which it has no longer.
    pub(super) fn split_to(&mut self, octets: usize) -> Self {
        if octets == self.data.len() {
            return std::mem::take(self);
        }
        Self { data: self.data.split_to(octets), held: self.held.clone() }
    }
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.data.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.data
    }

    fn advance(&mut self, octets: usize) {
        self.data.advance(octets);
        if let Some(held) = &self.held {
            held.own.all.taken.update(|taken| taken + octets as u64);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let own = &self.own;
        own.all.octets.update(|all| all - self.octets);
        own.octets.update(|octets| octets - self.octets);
        if own.octets.get() == 0
            && let Some(waker) = own.waker.take()
        {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn most(share: &Share) -> Option<usize> {
        match share.poll_most(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(most) => Some(most),
            Poll::Pending => None,
        }
    }

    #[test]
    fn beyond_plenty_each_answer_has_a_little_at_once() {
        let backlog = Backlog::default();
        let [one, other] = [(); 2].map(|()| backlog.share());
        let mut large = one.hold(vec![0; PLENTY - 2 * OVERHEAD].into());
        assert_eq!((most(&one), most(&other)), (Some(PIECE), Some(PIECE)));
        let tiny = one.hold(Bytes::from_static(b"x"));
        assert_eq!((most(&one), most(&other)), (None, Some(LEAST)));
        let part = large.split_to(10);
        drop(large);
        assert_eq!(most(&one), None, "its memory is there as long as a part of it");
        drop(part);
        assert_eq!(most(&one), Some(PIECE));
        drop((tiny, one));
        assert_eq!(other.0.all.octets.get(), 0);
    }

    #[test]
    fn all_that_is_taken_counts_and_the_last_of_it_wakes() {
        struct Woken(std::sync::atomic::AtomicBool);
        impl std::task::Wake for Woken {
            fn wake(self: std::sync::Arc<Self>) {
                self.0.store(true, std::sync::atomic::Ordering::Relaxed);
            }
        }
        let woken = std::sync::Arc::new(Woken(false.into()));
        let is_woken = || woken.0.load(std::sync::atomic::Ordering::Relaxed);
        let share = Backlog::default().share();
        let mut pieces = [PLENTY, 100].map(|octets| share.hold(vec![0; octets].into()));
        assert!(
            share.poll_most(&mut Context::from_waker(&std::sync::Arc::clone(&woken).into())).is_pending()
        );
        let mut first = pieces[0].split_to(PLENTY);
        first.advance(PLENTY);
        drop(first);
        assert_eq!((share.taken(), is_woken()), (PLENTY as u64, false));
        drop(pieces);
        assert!(is_woken());
    }
}
