//! What the HTTP connections of one worker thread share. Nothing in here is locked: a worker is one thread.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use super::exchange::RequestIds;
use super::{connection, validation};
use crate::config::model::{Bind, Serve};
use crate::lobby::{Entered, Lobby, Turned};
use crate::upstream::Pools;

/// How often idle upstream connections are looked through.
const SWEEP: Duration = Duration::from_secs(1);

/// One worker's share of the edge, as HTTP sees it.
pub struct Worker {
    pub(super) lobby: Rc<Lobby>,
    pub(super) pools: Pools,
    pub(super) clock: Clock,
    pub(super) ids: RequestIds,
}

impl Worker {
    /// A worker without connections, which dials with `pools`. Call it on the worker's own runtime, inside its `LocalSet`.
    pub fn new(lobby: &Rc<Lobby>, pools: Pools) -> Rc<Self> {
        let worker =
            Rc::new(Self { lobby: Rc::clone(lobby), pools, clock: Clock::default(), ids: RequestIds::new() });
        tokio::task::spawn_local(sweep(Rc::downgrade(&worker)));
        worker
    }

    /// Serves a connection to its end. `bind` names the row that it came in on.
    pub fn serve(self: Rc<Self>, entered: Entered, serve: Serve, bind: Bind) -> impl Future<Output = ()> {
        connection::serve(self, entered, serve, bind)
    }

    /// Answers a connection that may not come in, if it is a CA's.
    pub async fn turn_away(&self, turned: Turned, bind: Bind) {
        validation::answer(turned, bind).await;
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
