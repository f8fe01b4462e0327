//! What the connections of one worker thread share. Nothing in here is locked: a worker is one thread.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::{Duration, SystemTime};

use tokio::net::TcpStream;

use super::connection;
use super::exchange::RequestIds;
use crate::config::model::Bind;
use crate::limit::connections::Connections;
use crate::observe::access::Sink;
use crate::snapshot::Live;
use crate::upstream::Pools;
use crate::wire::deadline::Deadline;

/// How often idle upstream connections are looked through.
const SWEEP: Duration = Duration::from_secs(1);

/// How long a client that has connected and asked nothing yet may hold up an edge that leaves.
pub(super) const LAST_CALL: Duration = Duration::from_secs(1);

/// One worker's share of the edge.
pub struct Worker {
    pub(super) live: Live,
    pub(super) pools: Pools,
    pub(super) access: Sink,
    pub(super) connections: Connections,
    pub(super) clock: Clock,
    pub(super) ids: RequestIds,
    draining: Cell<bool>,
    open: RefCell<slab::Slab<Option<Waker>>>,
}

impl Worker {
    /// A worker without connections. Call it on the worker's own runtime, inside its `LocalSet`.
    pub fn new(live: Live, access: Sink, connections: Connections) -> Rc<Self> {
        let worker = Rc::new(Self {
            live,
            pools: Pools::new(),
            access,
            connections,
            clock: Clock::default(),
            ids: RequestIds::new(),
            draining: Cell::new(false),
            open: RefCell::default(),
        });
        tokio::task::spawn_local(sweep(Rc::downgrade(&worker)));
        let flushing = Rc::clone(&worker);
        tokio::task::spawn_local(async move { flushing.access.keep_flushed().await });
        worker
    }

    /// Serves one accepted connection to its end. `bind` names the row that it came in on.
    pub async fn serve(
        self: Rc<Self>,
        tcp: TcpStream,
        peer: std::net::SocketAddr,
        local: std::net::SocketAddr,
        bind: Bind,
    ) {
        connection::serve(self, tcp, peer, local, bind).await;
    }

    /// Tells every connection to finish: idle ones close at once, the others after the requests in flight.
    pub fn drain(&self) {
        self.draining.set(true);
        self.wake_all();
    }

    /// Lets every idle connection look at the configuration again, after a reload.
    pub fn wake_all(&self) {
        for (_, waker) in &*self.open.borrow() {
            if let Some(waker) = waker {
                waker.wake_by_ref();
            }
        }
    }

    /// How many connections are open.
    pub fn open(&self) -> usize {
        self.open.borrow().len()
    }

    /// Writes out the access lines that are still in this worker's buffer.
    pub fn flush(&self) {
        self.access.flush();
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// Counts a connection for as long as the seat lives.
    pub(super) fn take_seat(self: &Rc<Self>) -> Seat {
        Seat { key: self.open.borrow_mut().insert(None), worker: Rc::clone(self) }
    }
}

/// A connection's place in its worker, by which the worker can wake it.
pub(super) struct Seat {
    worker: Rc<Worker>,
    key: usize,
}

impl Seat {
    /// Remembers whom to wake when the worker drains. The waker of a task hardly ever changes.
    pub(super) fn listen(&self, waker: &Waker) {
        if let Some(slot) = self.worker.open.borrow_mut().get_mut(self.key) {
            match slot {
                Some(known) if known.will_wake(waker) => {}
                _ => *slot = Some(waker.clone()),
            }
        }
    }

    /// Waits for what a client has to do before it can ask; None when the edge leaves and the client does not hurry.
    pub(super) async fn unless_leaving<T>(&self, waiting: impl Future<Output = T>) -> Option<T> {
        let mut waiting = pin!(waiting);
        let mut leaving = Deadline::default();
        poll_fn(|cx| {
            if let Poll::Ready(come) = waiting.as_mut().poll(cx) {
                return Poll::Ready(Some(come));
            }
            self.listen(cx.waker());
            if self.worker.is_draining() {
                leaving.set_at_most(LAST_CALL);
            }
            leaving.poll_passed(cx).map(|()| None)
        })
        .await
    }

    /// Wakes the connection.
    pub(super) fn wake(&self) {
        if let Some(Some(waker)) = self.worker.open.borrow().get(self.key) {
            waker.wake_by_ref();
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.worker.open.borrow_mut().try_remove(self.key);
    }
}

/// The Date field, made once a second (RFC 9110 section 5.6.7).
#[derive(Default)]
pub(super) struct Clock(RefCell<(u64, Rc<str>)>);

impl Clock {
    pub(super) fn http_date(&self) -> Rc<str> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut cached = self.0.borrow_mut();
        if cached.0 != now || cached.1.is_empty() {
            *cached = (now, http_date(now).into());
        }
        Rc::clone(&cached.1)
    }
}

fn http_date(unix: u64) -> String {
    const FORM: &[time::format_description::BorrowedFormatItem<'_>] = time::macros::format_description!(
        "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
    );
    i64::try_from(unix)
        .ok()
        .and_then(|seconds| time::OffsetDateTime::from_unix_timestamp(seconds).ok())
        .and_then(|moment| moment.format(FORM).ok())
        .unwrap_or_default()
}

async fn sweep(worker: std::rc::Weak<Worker>) {
    let mut ticks = tokio::time::interval(SWEEP);
    loop {
        ticks.tick().await;
        let Some(worker) = worker.upgrade() else { return };
        worker.pools.sweep();
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn dates_are_imf_fixdate() {
        assert_eq!(super::http_date(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
    }
}
