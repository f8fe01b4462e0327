//! What stands behind the edge: targets, the addresses that they lead to, pools, and sending.
//!
//! A request's way out: [`Upstream::call`] takes a [`Permit<Route>`], finds an idle connection or dials a
//! member, and gives back the head of the answer and a [`Call`] from which its body is read. Everything happens in the
//! task of the client's connection: there is no task for an upstream connection, and no channel.
//!
//! What needs no client happens on the control thread, once for the whole edge: the [`Keeper`] resolves names, asks
//! members whether they are well, and lets those go that wait in the line.
//!
//! - `member`: one address, how it is, and what it has to do; `balance`: which one is next
//! - `group`: the members of one upstream, who join and leave
//! - `search`: from a request to a connection; `call`: from a connection to an answer; `sender`: the request's part of that
//! - `line`: who waits; `pool`: a worker's idle connections; `idle`: for how long they are good; `doubt`: who is about to leave
//! - `attempts`: the tries of a request whose trace is recorded
//! - `resolve`, `health`, `keeper`: what the control thread does

mod attempts;
mod balance;
mod call;
mod conn;
mod dial;
mod doubt;
mod group;
mod health;
mod idle;
mod keeper;
mod line;
mod member;
mod pool;
mod resolve;
mod search;
mod sender;
pub mod sticky;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::Method;

pub use attempts::{Attempt, Attempts};
use balance::Chooser;
pub use call::{Answer, Call, Chunk, READ};
pub use conn::Io;
use dial::dial;
pub use group::{Drained, MemberStatus};
use group::{Names, members_of};
pub use keeper::Keeper;
use line::Line;
use member::{Address, Member};
pub use pool::Pools;
use sticky::{Key, Token};

use crate::addr::{Permit, Port, Route};
use crate::config::model::Proxy;
use crate::fault::Fault;
use crate::wire::Body;

/// One upstream of the configuration. Workers share it, each with connections of its own.
#[derive(Debug)]
pub struct Upstream {
    proxy: Proxy,
    /// In the order of the configuration, and of their addresses.
    members: ArcSwap<Vec<Arc<Member>>>,
    names: Arc<Names>,
    chooser: Chooser,
    line: Line,
    drained: Drained,
    key: Option<Arc<Key>>,
    /// Whether a [`Keeper`] looks after it.
    is_kept: AtomicBool,
}

/// A request on its way out.
pub struct Outgoing {
    /// The head as it goes over the wire, with its empty line.
    pub head: Bytes,
    /// The body, if there is one.
    pub body: Option<Body>,
    /// Whether the body is sent in chunks; otherwise the head has its length.
    pub chunked: bool,
    /// The method, which says how the answer is framed and whether the request may be sent twice.
    pub method: Method,
    /// Makes the body once more, where it was kept.
    pub again: Option<Box<dyn Fn() -> Body>>,
    /// Whether the answer may be a 101.
    pub upgrade: bool,
    /// What the client's cookie calls the member that it was at.
    pub wants: Option<Token>,
}

/// What is known of a call for the access line, however it ends.
#[derive(Debug, Clone, Default)]
pub struct Trace {
    /// The address of the last target that was tried.
    pub peer: Option<Arc<str>>,
    /// What connecting took; None on a pooled connection.
    pub connect: Option<Duration>,
    /// From the request's beginning to the head of the final answer.
    pub first_byte: Option<Duration>,
    /// How often the request was sent.
    pub tries: u32,
    /// Each try, where the request's trace is recorded.
    pub attempts: Option<Box<Attempts>>,
}

impl Trace {
    /// The request is sent; each try names its own span.
    fn send(&mut self, outgoing: &mut Outgoing) {
        if let (Some(attempts), Some(peer)) = (&mut self.attempts, &self.peer) {
            // Where it connected, it has done so just now.
            let now = Instant::now();
            let began = now.checked_sub(self.connect.unwrap_or_default()).unwrap_or(now);
            outgoing.head = attempts.send(peer, began, std::mem::take(&mut outgoing.head));
        }
    }

    fn failed(&mut self, fault: &Fault) {
        if let Some(attempts) = &mut self.attempts {
            attempts.failed(fault.token());
        }
    }

    /// No connection was made to the peer.
    fn not_connected(&mut self, began: Instant, fault: &Fault) {
        if let (Some(attempts), Some(peer)) = (&mut self.attempts, &self.peer) {
            attempts.not_connected(peer, began, fault.token());
        }
    }
}

impl Upstream {
    /// A new upstream, with no connections yet. `key` is there for sticky cookies.
    pub fn new(proxy: &Proxy, drained: &Drained, key: Option<&Arc<Key>>) -> Arc<Self> {
        let key = key.filter(|_| proxy.cookie.is_some()).cloned();
        Arc::new(Self {
            members: ArcSwap::from_pointee(members_of(proxy, drained, key.as_deref())),
            names: Arc::new(Names::of(proxy)),
            chooser: Chooser::new(proxy.balance),
            line: Line::new(proxy.concurrency, proxy.queue),
            drained: drained.clone(),
            key,
            is_kept: AtomicBool::new(false),
            proxy: proxy.clone(),
        })
    }

    /// What the configuration says of it.
    pub fn proxy(&self) -> &Proxy {
        &self.proxy
    }

    /// Sends a request and waits for the first head of the answer, which may be an interim one.
    ///
    /// Where the connection ends without a byte of an answer, the request goes again on a fresh one, if sending it twice
    /// is safe (RFC 9110 section 9.2.2) or nobody can have read it: once for nothing where the connection was a
    /// pooled one, `retries` times where it was fresh. A request that kills its worker is not tried on the whole pool.
    pub async fn call(
        self: &Arc<Self>,
        permit: Permit<Route>,
        pools: &Pools,
        mut outgoing: Outgoing,
        trace: &mut Trace,
    ) -> Result<(Answer, Call), Fault> {
        let mut retries = self.proxy.retries;
        let mut pooled = true;
        loop {
            let held = self.connection(permit, pools, &outgoing, pooled, trace).await?;
            trace.tries += 1;
            trace.send(&mut outgoing);
            let mut call = Call::new(held, self.proxy.response_timeout, outgoing);
            let fault = match call.head().await {
                Ok(answer) => {
                    call.lane().member.answered();
                    call.settle();
                    return Ok((answer, call));
                }
                Err(fault) => fault,
            };
            trace.failed(&fault);
            let reused = self.learn(&call, &fault);
            let left = if reused { Some(retries) } else { retries.checked_sub(1) };
            let again = match fault {
                Fault::Unanswered { .. } => {
                    let was_read = !(call.was_reset(&fault) && self.has_stopped(permit, pools, &call).await);
                    call.take_back(was_read)
                }
                _ => None,
            };
            let (Some(left), Some(again)) = (left, again) else { return Err(fault) };
            (retries, outgoing, pooled) = (left, again, false);
        }
    }

    /// The addresses of its members, but for unix sockets.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let members = self.members.load();
        let address = |member: &Arc<Member>| match member.address {
            Address::Tcp(address, _) => Some(address),
            Address::Unix(_) => None,
        };
        members.iter().filter_map(address).collect()
    }

    /// A fresh connection for bytes that are passed on as they are. It counts as its member's for as long as it lives.
    pub async fn connect(
        self: &Arc<Self>,
        permit: Permit<Port>,
        pools: &Pools,
        trace: &mut Trace,
    ) -> Result<Io, Fault> {
        let nothing = Outgoing {
            head: Bytes::new(),
            body: None,
            chunked: false,
            method: Method::CONNECT,
            again: None,
            upgrade: true,
            wants: None,
        };
        let call::Held { conn, busy, place } = self.connection(permit, pools, &nothing, false, trace).await?;
        Ok(Io::new(conn, busy, place).0)
    }

    /// Whether nobody listens any more where the call was sent. A connection that was reset then, had stood in the queue of a
    /// server that stopped, or with a worker that left with it: a request in one piece that lay there was not read.
    async fn has_stopped(&self, permit: Permit<Route>, pools: &Pools, call: &Call) -> bool {
        let member = &call.lane().member;
        match dial(permit, &member.address, pools.tls(), self.proxy.connect_timeout).await {
            Err(fault @ Fault::Unreachable { .. }) => {
                self.refused(member, &fault);
                true
            }
            _ => false,
        }
    }

    /// What a call that got no answer tells of its member. Whether the connection was a reused one.
    fn learn(&self, call: &Call, fault: &Fault) -> bool {
        let since = call.reused_since();
        match (fault, since) {
            (Fault::Unanswered { .. }, Some(since)) => call.lane().failed_reuse(since),
            (Fault::Unanswered { .. } | Fault::ResponseTimeout, _) => {
                self.unanswered(&call.lane().member, fault);
            }
            _ => {}
        }
        since.is_some()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.dismiss();
    }
}
