//! A connection's place in its worker.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use super::{Guest, Lobby, Stage, Taken};
use crate::observe::metrics::Series;
use crate::wire::deadline::Deadline;

/// How long a client that has connected and asked nothing yet may hold up an edge that leaves.
pub const LAST_CALL: Duration = Duration::from_secs(1);

/// A connection's place in its worker, by which the worker can wake it.
pub struct Seat {
    lobby: Rc<Lobby>,
    key: usize,
}

impl Seat {
    pub(super) fn take(lobby: &Rc<Lobby>, guest: Guest) -> Self {
        let key = lobby.open.borrow_mut().insert(Taken { waker: None, guest });
        Self { key, lobby: Rc::clone(lobby) }
    }

    /// What is spoken on the connection from here on.
    pub fn speaks(&self, stage: Stage) {
        self.note(|guest| guest.stage = stage);
    }

    /// The connection is for this site.
    pub fn is_for(&self, site: Series) {
        self.note(|guest| guest.series = site);
    }

    /// A request has begun.
    pub fn count_request(&self) {
        self.note(|guest| guest.requests = guest.requests.saturating_add(1));
    }

    fn note(&self, note: impl FnOnce(&mut Guest)) {
        if let Some(taken) = self.lobby.open.borrow_mut().get_mut(self.key) {
            note(&mut taken.guest);
        }
    }

    /// Remembers whom to wake when the worker drains. The waker of a task hardly ever changes.
    pub fn listen(&self, waker: &Waker) {
        if let Some(Taken { waker: slot, .. }) = self.lobby.open.borrow_mut().get_mut(self.key) {
            match slot {
                Some(known) if known.will_wake(waker) => {}
                _ => *slot = Some(waker.clone()),
            }
        }
    }

    /// Waits for what a client has to do before it can ask; None when the edge leaves and the client does not hurry.
    pub async fn unless_leaving<T>(&self, waiting: impl Future<Output = T>) -> Option<T> {
        let mut waiting = pin!(waiting);
        let mut leaving = Deadline::default();
        poll_fn(|cx| {
            if let Poll::Ready(come) = waiting.as_mut().poll(cx) {
                return Poll::Ready(Some(come));
            }
            self.listen(cx.waker());
            if self.lobby.is_draining() {
                leaving.set_at_most(LAST_CALL);
            }
            leaving.poll_passed(cx).map(|()| None)
        })
        .await
    }

    /// Wakes the connection.
    pub fn wake(&self) {
        if let Some(Taken { waker: Some(waker), .. }) = self.lobby.open.borrow().get(self.key) {
            waker.wake_by_ref();
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.lobby.open.borrow_mut().try_remove(self.key);
    }
}
