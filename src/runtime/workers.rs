//! One thread a core, each with its own runtime, its own sockets and its own connections. Threads share nothing that
//! a request would have to wait for.

use std::collections::HashMap;
use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::{JoinHandle, LocalSet, spawn_local};

use crate::config::model::{Bind, Kind};
use crate::http;
use crate::l4;
use crate::limit::connections::Connections;
use crate::limit::room::Rooms;
use crate::lobby::{Guest, Lobby};
use crate::net::accept::{Accepted, Acceptor};
use crate::net::listen::Bound;
use crate::observe::access::Access;
use crate::observe::metrics::Metrics;
use crate::snapshot::Live;
use crate::upstream::Pools;

/// How long a worker that is busy may take to obey before nobody waits for it any longer.
const PATIENCE: Duration = Duration::from_secs(1);
/// How many connections are listed at most.
pub(super) const LISTED: usize = 1000;

/// The worker threads.
#[derive(Debug)]
pub(super) struct Workers {
    threads: Vec<Thread>,
    ended: mpsc::UnboundedReceiver<()>,
    running: usize,
}

#[derive(Debug)]
struct Thread {
    orders: mpsc::UnboundedSender<Order>,
    open: Arc<AtomicUsize>,
}

#[derive(Debug)]
enum Order {
    /// Take these sockets of a row.
    Listen(Bind, Vec<TcpListener>),
    /// Accept no more on a row.
    Close(Bind),
    /// Look at the configuration again, idle connections too; drop this once all orders before it are done.
    Look(mpsc::Sender<()>),
    /// Tell which connections there are: how many, and the oldest of them.
    List(mpsc::Sender<(usize, Vec<Guest>)>),
    /// Drop this: it proves that the thread lives.
    Live(mpsc::Sender<()>),
    /// Accept nothing more, finish what is open, end. Connections without a request may stay for so long.
    Drain(Duration),
    /// End now: what is still open is dropped.
    Cut,
}

impl Workers {
    /// Starts so many threads, which accept nothing yet.
    ///
    /// # Errors
    /// A thread or its runtime cannot be made. Those before it end by themselves.
    pub(super) fn start(
        count: usize,
        live: &Live,
        access: &Access,
        metrics: &Metrics,
        connections: &Connections,
        rooms: &Rooms,
    ) -> io::Result<Self> {
        let (ending, ended) = mpsc::unbounded_channel();
        let mut threads = Vec::with_capacity(count);
        for index in 0..count {
            let (orders, received) = mpsc::unbounded_channel();
            let open = Arc::new(AtomicUsize::new(0));
            let parts = Parts {
                runtime: Builder::new_current_thread().enable_all().build()?,
                orders: received,
                open: Arc::clone(&open),
                live: live.clone(),
                access: access.clone(),
                metrics: metrics.clone(),
                connections: connections.clone(),
                rooms: rooms.clone(),
                _ending: Ending(ending.clone()),
            };
            std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || parts.run())?;
            threads.push(Thread { orders, open });
        }
        Ok(Self { threads, ended, running: count })
    }

    /// Hands every worker its sockets of a row.
    pub(super) fn listen(&self, bind: Bind, mut bound: Bound) {
        for (index, thread) in self.threads.iter().enumerate() {
            thread.order(Order::Listen(bind, bound.take(index)));
        }
    }

    /// Accepts no more on a row. Its connections hear of the end with [`Workers::look`].
    pub(super) fn close(&self, bind: Bind) {
        self.all(|| Order::Close(bind));
    }

    /// Lets idle connections look at a configuration that was just swapped in. Returns once every worker has done
    /// all that it was ordered, or is too busy to say so.
    pub(super) async fn look(&self) {
        let (doing, mut done) = mpsc::channel(1);
        self.all(|| Order::Look(doing.clone()));
        drop(doing);
        let _ = tokio::time::timeout(PATIENCE, done.recv()).await;
    }

    /// Returns once every worker has shown that it lives: never, where one is stuck. Waits for nobody else's sake, so that
    /// it may outlive this borrow.
    pub(super) fn prove_life(&self) -> impl Future<Output = ()> + use<> {
        let (doing, mut done) = mpsc::channel(1);
        self.all(|| Order::Live(doing.clone()));
        async move {
            drop(doing);
            done.recv().await;
        }
    }

    /// How many connections there are, and the oldest of each worker. One that is too busy to say so tells of none. Waits for
    /// nobody else's sake either.
    pub(super) fn guests(&self) -> impl Future<Output = (usize, Vec<Guest>)> + use<> {
        let (tell, mut told) = mpsc::channel(self.threads.len().max(1));
        self.all(|| Order::List(tell.clone()));
        async move {
            drop(tell);
            let (mut count, mut guests) = (0, Vec::new());
            let gathering = async {
                while let Some((own, some)) = told.recv().await {
                    count += own;
                    guests.extend(some);
                }
            };
            let _ = tokio::time::timeout(PATIENCE, gathering).await;
            (count, guests)
        }
    }

    /// Accepts nothing more; requests in flight finish, then the threads end: see [`Workers::ended`]. A client that has
    /// been answered before may ask once more within `last_call`, and is told that its connection ends then.
    pub(super) fn drain(&self, last_call: Duration) {
        self.all(|| Order::Drain(last_call));
    }

    /// Ends the threads that drain, whatever is still open: each connection leaves its access line. Returns once they
    /// have, or are too busy.
    pub(super) async fn cut(&mut self) {
        self.all(|| Order::Cut);
        let ended = async { while self.ended().await.is_some() {} };
        let _ = tokio::time::timeout(PATIENCE, ended).await;
    }

    /// How many connections are open.
    pub(super) fn open(&self) -> usize {
        self.threads.iter().map(|thread| thread.open.load(Ordering::Relaxed)).sum()
    }

    /// Waits for one more thread to end. None once all have. May be dropped at any time.
    pub(super) async fn ended(&mut self) -> Option<()> {
        self.running.checked_sub(1)?;
        self.ended.recv().await?;
        self.running -= 1;
        Some(())
    }

    fn all(&self, order: impl Fn() -> Order) {
        for thread in &self.threads {
            thread.order(order());
        }
    }
}

impl Thread {
    fn order(&self, order: Order) {
        // A thread that is gone is told of by `ended`.
        let _ = self.orders.send(order);
    }
}

/// What a thread is made of.
struct Parts {
    runtime: Runtime,
    orders: mpsc::UnboundedReceiver<Order>,
    open: Arc<AtomicUsize>,
    live: Live,
    access: Access,
    metrics: Metrics,
    connections: Connections,
    rooms: Rooms,
    _ending: Ending,
}

/// Tells that the thread ended, in whatever way.
struct Ending(mpsc::UnboundedSender<()>);

impl Drop for Ending {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

impl Parts {
    fn run(self) {
        let Self { runtime, mut orders, open, live, access, metrics, connections, rooms, _ending } = self;
        LocalSet::new().block_on(&runtime, async move {
            let lobby = Lobby::new(live, access.sink(), metrics.meter(), connections, rooms);
            let pools = Pools::new();
            let http = http::Worker::new(&lobby, pools.clone());
            let l4 = l4::Worker::new(&lobby, pools);
            let hall = Rc::new(Hall { lobby, http, l4, open, emptied: Notify::new() });
            let last_call = hall.obey(&mut orders).await;
            hall.lobby.drain(last_call);
            tokio::select! {
                () = hall.empty() => {}
                () = hall.told_to_cut(&mut orders) => {}
            }
            hall.lobby.access.flush();
        });
        // What is left open is dropped with the `LocalSet`, and its lines with the last handle of the sink.
    }
}

/// Where a thread's connections are.
struct Hall {
    lobby: Rc<Lobby>,
    http: Rc<http::Worker>,
    l4: Rc<l4::Worker>,
    open: Arc<AtomicUsize>,
    emptied: Notify,
}

impl Hall {
    /// Returns when the thread is to drain, with nothing left that accepts, and how long idle connections may stay.
    async fn obey(self: &Rc<Self>, orders: &mut mpsc::UnboundedReceiver<Order>) -> Duration {
        let mut last_call = Duration::ZERO;
        let mut rows: HashMap<Bind, Vec<Door>> = HashMap::new();
        while let Some(order) = orders.recv().await {
            match order {
                Order::Listen(bind, sockets) => {
                    let doors = sockets.into_iter().filter_map(|socket| Door::open(self, bind, socket));
                    rows.entry(bind).or_default().extend(doors);
                }
                Order::Close(bind) => shut(rows.remove(&bind).unwrap_or_default()).await,
                Order::Look(_done) => self.lobby.wake_all(),
                Order::List(tell) => self.list(&tell),
                Order::Live(_proof) => {}
                Order::Drain(patience) => {
                    last_call = patience;
                    break;
                }
                Order::Cut => break,
            }
        }
        shut(rows.into_values().flatten()).await;
        last_call
    }

    /// Serves a connection in a task of its own: a panic in it ends it alone.
    fn enter(self: &Rc<Self>, accepted: Accepted, bind: Bind) {
        let seat = Seat::take(self);
        spawn_local(async move {
            seat.0.serve(accepted, bind).await;
            drop(seat);
        });
    }

    /// Hands a connection that may come in to those who speak what its row is there for.
    async fn serve(&self, accepted: Accepted, bind: Bind) {
        match self.lobby.enter(accepted, bind).await {
            Ok(entered) => match entered.kind {
                Kind::Serve(serve) => Rc::clone(&self.http).serve(entered, serve, bind).await,
                Kind::Forward(ref forward) => {
                    let forward = Arc::clone(forward);
                    Box::pin(Rc::clone(&self.l4).serve(entered, forward, bind)).await;
                }
            },
            Err(turned) => Box::pin(self.http.turn_away(turned, bind)).await,
        }
    }

    fn list(&self, tell: &mpsc::Sender<(usize, Vec<Guest>)>) {
        // Who asked may have stopped waiting.
        let _ = tell.try_send(self.lobby.guests(LISTED));
    }

    /// Whatever else is ordered of a thread that drains has no meaning any more.
    async fn told_to_cut(&self, orders: &mut mpsc::UnboundedReceiver<Order>) {
        loop {
            match orders.recv().await {
                None | Some(Order::Cut) => return,
                Some(Order::List(tell)) => self.list(&tell),
                Some(_) => {}
            }
        }
    }

    async fn empty(&self) {
        while self.open.load(Ordering::Relaxed) > 0 {
            self.emptied.notified().await;
        }
    }
}

/// A connection, counted for as long as it lives. Only the thread itself writes the count.
struct Seat(Rc<Hall>);

impl Seat {
    fn take(hall: &Rc<Hall>) -> Self {
        hall.open.fetch_add(1, Ordering::Relaxed);
        Self(Rc::clone(hall))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if self.0.open.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.emptied.notify_one();
        }
    }
}

/// A listening socket and the task that accepts on it, until this is dropped.
struct Door {
    _stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Door {
    fn open(hall: &Rc<Hall>, bind: Bind, socket: TcpListener) -> Option<Self> {
        let acceptor = Acceptor::new(socket)
            .inspect_err(|error| tracing::error!(row = %bind, %error, "a worker cannot listen"))
            .ok()?;
        let (stop, stopped) = oneshot::channel();
        let task = spawn_local(welcome(Rc::clone(hall), bind, acceptor, stopped));
        Some(Self { _stop: stop, task })
    }
}

/// Returns once the sockets are closed.
async fn shut(doors: impl IntoIterator<Item = Door>) {
    // All are told before any is waited for.
    let tasks: Vec<_> = doors.into_iter().map(|door| door.task).collect();
    for task in tasks {
        let _ = task.await;
    }
}

async fn welcome(hall: Rc<Hall>, bind: Bind, mut acceptor: Acceptor, mut stopped: oneshot::Receiver<()>) {
    loop {
        tokio::select! {
            accepted = acceptor.accept() => hall.enter(accepted, bind),
            _ = &mut stopped => break,
        }
    }
    // Closing the socket would reset what the kernel has accepted already: that is still served.
    tokio::task::yield_now().await;
    loop {
        tokio::select! {
            biased;
            accepted = acceptor.accept() => hall.enter(accepted, bind),
            () = std::future::ready(()) => break,
        }
    }
}
