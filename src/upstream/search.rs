//! From a request to a connection: a pooled one, a fresh one, or a wait for one.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::call::Held;
use super::dial::dial;
use super::line::{Ended, Line, Pass, Turn};
use super::member::Member;
use super::pool::{Lane, Pools};
use super::sticky::Token;
use super::{Outgoing, Trace, Upstream};
use crate::addr::Permit;
use crate::fault::Fault;

/// What one request has met on its search.
struct Search<'s> {
    pools: &'s Pools,
    wants: Option<&'s Token>,
    turn: Turn,
    /// The members that failed it since it last waited.
    tried: Vec<u64>,
    /// Whether the request may not be sent twice, and may wait.
    careful: bool,
    last: Option<Fault>,
}

impl Upstream {
    /// A connection as soon as there is one. While no member is up, a deploy most often, the request waits up to `hold`.
    pub(super) async fn connection<Scope>(
        self: &Arc<Self>,
        permit: Permit<Scope>,
        pools: &Pools,
        outgoing: &Outgoing,
        pooled: bool,
        trace: &mut Trace,
    ) -> Result<Held, Fault> {
        let wants = outgoing.wants.as_ref();
        let mut lane = None;
        if !self.line.must_ask() {
            lane = self.choose(pools, wants, Member::is_available);
            if let Some(lane) = lane.as_ref().filter(|_| pooled)
                && let Some(held) = pooled_one(lane, outgoing, trace)
            {
                return Ok(held);
            }
        }
        let careful = !outgoing.method.is_idempotent() && !self.proxy.hold.is_zero();
        let search = Search { pools, wants, turn: Turn::default(), tried: Vec::new(), careful, last: None };
        // Boxed: it is rare, and its state is larger than all the rest of a request's.
        Box::pin(self.find(permit, lane, search, outgoing, pooled, trace)).await
    }

    /// Dials, and where that fails the next member, and waits for one where none is left.
    async fn find<Scope>(
        self: &Arc<Self>,
        permit: Permit<Scope>,
        first: Option<Rc<Lane>>,
        mut search: Search<'_>,
        outgoing: &Outgoing,
        pooled: bool,
        trace: &mut Trace,
    ) -> Result<Held, Fault> {
        let mut first = first.map(|lane| (lane, None));
        // Whether nothing was found idle just now.
        let mut looked = first.is_some();
        loop {
            let (lane, pass) = match first.take() {
                Some(first) => first,
                None => self.next(&mut search).await?,
            };
            let (place, going) = pass.map(|pass| (pass.place, pass.going)).unwrap_or_default();
            if pooled
                && !looked
                && let Some(held) = pooled_one(&lane, outgoing, trace)
            {
                return Ok(Held { place, ..held });
            }
            looked = false;
            if search.careful && lane.member.doubt.is_there() {
                drop((place, going));
                lane.member.doubt.wait().await;
                continue;
            }
            trace.peer = Some(Arc::clone(&lane.peer));
            let start = Instant::now();
            let member = &lane.member;
            let limit = self.proxy.connect_timeout;
            let dialed = dial(permit, &member.address, search.pools.tls(), limit).await;
            trace.connect = Some(start.elapsed());
            match dialed {
                Ok(conn) => {
                    self.accepted(member);
                    drop(going);
                    return Ok(Held { conn, busy: lane.begin(), place });
                }
                Err(fault) => {
                    trace.not_connected(start.into_std(), &fault);
                    self.refused(member, &fault);
                    search.tried.push(member.id);
                    search.last = Some(fault);
                }
            }
        }
    }

    /// The next member to be asked, and what lets the request ask it.
    async fn next(self: &Arc<Self>, search: &mut Search<'_>) -> Result<(Rc<Lane>, Option<Pass>), Fault> {
        let mut going = None;
        loop {
            if let Some(found) = self.at_once(search, going.take()) {
                return Ok(found);
            }
            let untried = |member: &Member| !search.tried.contains(&member.id);
            let available = self.is_available();
            if available && !self.has(|member| member.is_available() && untried(member)) {
                return Err(search.give_up(self));
            }
            if !available && self.proxy.hold.is_zero() && self.is_settled() {
                let lane =
                    self.choose(search.pools, None, |member| member.is_merely_down() && untried(member));
                return lane.map(|lane| (lane, None)).ok_or_else(|| search.give_up(self));
            }
            match Line::wait(self, &mut search.turn, self.patience(available)).await {
                Ok(pass) => going = Some(pass),
                Err(ended) => return Err(self.gave_up(ended, search)),
            }
            search.tried.clear();
        }
    }

    /// A member that may be asked now. `pass` is what the line gave, where the request had to wait.
    fn at_once(
        self: &Arc<Self>,
        search: &Search<'_>,
        pass: Option<Pass>,
    ) -> Option<(Rc<Lane>, Option<Pass>)> {
        let may = |member: &Member| member.is_available() && !search.tried.contains(&member.id);
        let sent =
            |pass: &Pass| pass.scout.clone().or_else(|| Some(Arc::clone(&pass.place.as_ref()?.member)));
        if let Some(member) = pass.as_ref().and_then(sent) {
            return Some((search.pools.lane(&member), pass));
        }
        if self.line.has_limit() {
            let place = Line::enter(self, search.wants, may)?;
            let lane = search.pools.lane(&place.member);
            return Some((lane, Some(Pass { place: Some(place), going: None, scout: None })));
        }
        if pass.is_none() && self.line.must_ask() {
            return None;
        }
        let lane = self.choose(search.pools, search.wants, may)?;
        Some((lane, pass))
    }

    /// How long a request may wait: for a place at members that are there, or for one to be there at all.
    fn patience(&self, available: bool) -> Duration {
        let Self { proxy, .. } = self;
        match available {
            true if self.line.has_limit() => proxy.queue_timeout,
            // The line only has to move on.
            true => proxy.hold.max(proxy.connect_timeout),
            _ if self.is_settled() => proxy.hold,
            _ => proxy.hold.max(proxy.connect_timeout),
        }
    }

    fn gave_up(&self, ended: Ended, search: &mut Search<'_>) -> Fault {
        match ended {
            Ended::Full => Fault::Busy("as many requests wait for the upstream as may"),
            Ended::TooLong if self.is_available() => {
                Fault::Busy("no place at the upstream was free for as long as the request could wait")
            }
            Ended::TooLong if self.proxy.hold.is_zero() => search.give_up(self),
            Ended::TooLong => Fault::Down { source: Box::new(search.give_up(self)) },
        }
    }

    fn choose(
        &self,
        pools: &Pools,
        wants: Option<&Token>,
        may: impl Fn(&Member) -> bool,
    ) -> Option<Rc<Lane>> {
        let members = self.members.load();
        let member = self.chooser.choose(&members, pools.dice(), wants, may)?;
        Some(pools.lane(member))
    }

    fn has(&self, is: impl Fn(&Member) -> bool) -> bool {
        self.members.load().iter().any(|member| is(member))
    }
}

impl Search<'_> {
    /// The last thing that went wrong.
    fn give_up(&mut self, upstream: &Upstream) -> Fault {
        let unknown = || Fault::Unreachable { source: io::Error::other(upstream.trouble()) };
        self.last.take().unwrap_or_else(unknown)
    }
}

fn pooled_one(lane: &Rc<Lane>, outgoing: &Outgoing, trace: &mut Trace) -> Option<Held> {
    let conn = lane.take(outgoing.method.is_idempotent())?;
    trace.peer = Some(Arc::clone(&lane.peer));
    trace.connect = None;
    Some(Held { conn, busy: lane.begin(), place: None })
}
