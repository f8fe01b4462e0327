//! What every connection of a worker thread goes through and shares, whatever is spoken on it: the way in, the count, and
//! a seat by which the worker can wake it. Nothing in here is locked: a worker is one thread.
//!
//! - `entrance`: from an accepted socket to one that may come in: [`Lobby::enter`]
//! - `seat`: how connections hear that the edge leaves: [`Seat`]
//! - `guest`: which connections there are: [`Lobby::guests`]

mod entrance;
mod guest;
mod seat;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Waker;
use std::time::Duration;

pub use entrance::{Ends, Entered, Turned};
pub use guest::{Guest, Stage, oldest};
pub use seat::{LAST_CALL, Seat};

use crate::limit::connections::Connections;
use crate::limit::room::Rooms;
use crate::observe::access::Sink;
use crate::observe::metrics::Meter;
use crate::snapshot::Live;

/// A seat that is taken: whom to wake there, and who it is.
struct Taken {
    waker: Option<Waker>,
    guest: Guest,
}

/// One worker's share of the edge, as all of its connections see it.
pub struct Lobby {
    /// The running configuration.
    pub live: Live,
    /// The way into the access log.
    pub access: Sink,
    /// What the worker counts with.
    pub meter: Meter,
    /// What waits of bodies, with every worker.
    pub rooms: Rooms,
    connections: Connections,
    draining: Cell<bool>,
    /// How long a connection without a request may stay while the edge leaves.
    last_call: Cell<Duration>,
    open: RefCell<slab::Slab<Taken>>,
}

impl Lobby {
    /// A lobby without connections. Call it on the worker's own runtime, inside its `LocalSet`.
    pub fn new(live: Live, access: Sink, meter: Meter, connections: Connections, rooms: Rooms) -> Rc<Self> {
        let (draining, last_call, open) = Default::default();
        let lobby = Rc::new(Self { live, access, meter, rooms, connections, draining, last_call, open });
        let flushing = Rc::clone(&lobby);
        tokio::task::spawn_local(async move { flushing.access.keep_flushed().await });
        lobby
    }

    /// Tells every connection to finish: after the requests in flight, and after `last_call` where there is none.
    pub fn drain(&self, last_call: Duration) {
        self.last_call.set(last_call);
        self.draining.set(true);
        self.wake_all();
    }

    /// How long a connection that was answered before may stay without a request while the edge leaves.
    pub fn last_call(&self) -> Duration {
        self.last_call.get()
    }

    /// Whether the edge leaves.
    pub fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// Lets every idle connection look at the configuration again, after a reload.
    pub fn wake_all(&self) {
        for waker in self.open.borrow().iter().filter_map(|(_, taken)| taken.waker.as_ref()) {
            waker.wake_by_ref();
        }
    }

    /// How many connections there are that were let in, and the oldest of them.
    pub fn guests(&self, most: usize) -> (usize, Vec<Guest>) {
        let open = self.open.borrow();
        (open.len(), oldest(open.iter().map(|(_, taken)| taken.guest).collect(), most))
    }
}
