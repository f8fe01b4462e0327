//! The members of one upstream: who belongs to it, who joins, who leaves, and how each is.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use tokio::sync::Notify;

use super::Upstream;
use super::line::Line;
use super::member::{Address, FULL, Flag, Member};
use super::sticky::{self, Key};
use crate::config::model::{Proxy, Target};
use crate::fault::Fault;

/// The weight of one that joins others.
const COLD: u8 = 1;

/// What a person has taken out, as typed: targets, or addresses that they lead to. Kept for as long as the process lives;
/// clones share it.
#[derive(Debug, Clone, Default)]
pub struct Drained(Arc<Mutex<BTreeSet<String>>>);

impl Drained {
    /// False where it was so already.
    pub fn set(&self, name: &str, drained: bool) -> bool {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if drained { names.insert(name.to_owned()) } else { names.remove(name) }
    }

    /// All of them.
    pub fn names(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    fn has(&self, target: &str, peer: &str) -> bool {
        let names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        names.contains(target) || names.contains(peer)
    }
}

/// The targets that are names, and what became of the last look.
#[derive(Debug)]
pub(super) struct Names {
    /// By target. None: it is an address or a socket, and never looked up.
    looks: Box<[Option<Look>]>,
}

/// One target's name.
#[derive(Debug, Default)]
pub(super) struct Look {
    /// Rung when the name should be looked up now.
    pub(super) bell: Notify,
    result: Mutex<LookResult>,
}

#[derive(Debug, Default)]
enum LookResult {
    #[default]
    Unknown,
    Known,
    Failed(String),
}

/// How a member is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberStatus {
    /// Its target, as typed.
    pub target: String,
    /// Its address; None where the target's name leads to none.
    pub address: Option<String>,
    /// `up`, `warming`, `down`, `unhealthy`, `checking`, `drained` or `unresolved`.
    pub state: &'static str,
    /// Requests that it has.
    pub busy: usize,
    /// Since when it is as it is; None where nobody knows.
    pub since: Option<SystemTime>,
    /// The last thing that went wrong.
    pub error: Option<String>,
}

impl Names {
    pub(super) fn of(proxy: &Proxy) -> Self {
        let look = |target: &Target| name(target).map(|_| Look::default());
        Self { looks: proxy.targets.iter().map(look).collect() }
    }

    pub(super) fn look(&self, target: usize) -> Option<&Look> {
        self.looks.get(target)?.as_ref()
    }

    /// Whether each was looked up once.
    fn are_settled(&self) -> bool {
        let unknown = |look: &Look| matches!(*look.result(), LookResult::Unknown);
        !self.looks.iter().flatten().any(unknown)
    }

    fn error(&self) -> Option<String> {
        self.looks.iter().flatten().find_map(Look::error)
    }
}

impl Look {
    fn result(&self) -> std::sync::MutexGuard<'_, LookResult> {
        self.result.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn error(&self) -> Option<String> {
        match &*self.result() {
            LookResult::Failed(error) => Some(error.clone()),
            _ => None,
        }
    }

    /// True where that is news.
    pub(super) fn failed(&self, error: &str) -> bool {
        let before = std::mem::replace(&mut *self.result(), LookResult::Failed(error.to_owned()));
        !matches!(before, LookResult::Failed(_))
    }

    pub(super) fn succeeded(&self) {
        *self.result() = LookResult::Known;
    }
}

impl Upstream {
    /// As a person types it.
    pub fn name(&self) -> String {
        let targets: Vec<_> = self.proxy.targets.iter().map(ToString::to_string).collect();
        targets.join(", ")
    }

    /// How many requests wait for it.
    pub fn waiting(&self) -> usize {
        self.line.waiting()
    }

    /// How each of its members is.
    pub fn status(&self) -> Vec<MemberStatus> {
        let members = self.members.load();
        let mut all = Vec::new();
        for (index, target) in self.proxy.targets.iter().enumerate() {
            let own = || members.iter().filter(|member| member.target == index);
            all.extend(own().map(|member| status(target, member)));
            if own().next().is_none() {
                let error = self.names.look(index).and_then(Look::error);
                all.push(MemberStatus {
                    target: target.to_string(),
                    address: None,
                    state: "unresolved",
                    busy: 0,
                    since: None,
                    error,
                });
            }
        }
        all
    }

    /// Whether a person may mean it, or a part of it, by this name.
    pub fn is_called(&self, name: &str) -> bool {
        self.proxy.targets.iter().any(|target| target.to_string() == name)
            || self.members.load().iter().any(|member| member.peer == name)
    }

    /// Whether a member may have requests.
    pub fn is_available(&self) -> bool {
        self.members.load().iter().any(|member| member.is_available())
    }

    /// Takes members out, or lets them in again, as [`Drained`] says now.
    pub fn obey_drained(self: &Arc<Self>) {
        for member in self.members.load().iter() {
            let target = self.proxy.targets.get(member.target).map(ToString::to_string).unwrap_or_default();
            if self.drained.has(&target, &member.peer) {
                member.set(Flag::DRAINED);
            } else {
                member.clear(Flag::DRAINED);
            }
        }
        Line::advance(self);
    }

    /// The name of the cookie that clients are brought back by; None where they are not.
    pub fn cookie(&self) -> Option<&str> {
        self.key.as_ref().and(self.proxy.cookie.as_deref())
    }

    /// The Set-Cookie field's value, where a client that `wants` one member was answered by another, because its own is
    /// not there or was never said.
    pub(super) fn cookie_for(&self, member: &Member, wants: Option<&sticky::Token>) -> Option<Vec<u8>> {
        let token = member.token.as_ref().filter(|token| Some(*token) != wants)?;
        let members = self.members.load();
        let own = wants.and_then(|wants| members.iter().find(|own| own.token.as_ref() == Some(wants)));
        let is_there = own.is_some_and(|own| own.is_available());
        (!is_there).then(|| sticky::set_cookie(self.cookie().unwrap_or_default(), token))
    }

    /// Whether all that could be found out was.
    pub(super) fn is_settled(&self) -> bool {
        self.names.are_settled() && !self.members.load().iter().any(|member| member.has(Flag::NEW))
    }

    /// What a request is told that finds no member at all.
    pub(super) fn trouble(&self) -> String {
        let members = self.members.load();
        let error = members.iter().find_map(|member| {
            let error = member.story().error.clone()?;
            Some(format!("{}: {error}", member.peer))
        });
        error.or_else(|| self.names.error()).unwrap_or_else(|| "no target is up".to_owned())
    }

    /// A name leads to these addresses now. Returns those that are new.
    pub(super) fn move_to(self: &Arc<Self>, target: usize, addresses: &[IpAddr]) -> Vec<Arc<Member>> {
        let before = self.members.load_full();
        let Some(typed) = self.proxy.targets.get(target) else { return Vec::new() };
        let of_target = |member: &&Arc<Member>| member.target == target;
        let known = |address: &Address| {
            before.iter().filter(of_target).find(|member| member.address == *address).cloned()
        };
        let mut joined = Vec::new();
        let mut members: Vec<Arc<Member>> =
            before.iter().filter(|member| member.target != target).cloned().collect();
        for address in addresses.iter().filter_map(|ip| address(typed, *ip)) {
            members.push(known(&address).unwrap_or_else(|| {
                let member = self.member(target, address);
                joined.push(Arc::clone(&member));
                member
            }));
        }
        members.sort_by_key(|member| member.target);
        for left in before.iter().filter(of_target).filter(|old| members.iter().all(|own| own.id != old.id)) {
            tracing::info!(upstream = %typed, address = left.peer, "an address left");
            left.set(Flag::GONE);
            left.bell.notify_one();
        }
        self.members.store(Arc::new(members));
        for member in &joined {
            tracing::info!(upstream = %typed, address = member.peer, "an address joined");
        }
        Line::advance(self);
        joined
    }

    /// Those that are there from the beginning.
    pub(super) fn known_members(&self) -> Vec<Arc<Member>> {
        self.members.load().iter().cloned().collect()
    }

    /// A member took no connection.
    pub(super) fn refused(&self, member: &Member, fault: &Fault) {
        let is_news = match fault {
            Fault::Unavailable(_) => return,
            Fault::Unreachable { .. } | Fault::ConnectTimeout => member.refused(fault.to_string()),
            _ => member.unanswered(fault.to_string(), self.is_last(member)),
        };
        if let Some(look) = self.names.look(member.target) {
            look.bell.notify_one();
        }
        if is_news {
            self.tell_down(member, fault);
        }
    }

    /// A member took a connection: proof that it is there, unless it is for its health check to say so.
    pub(super) fn accepted(self: &Arc<Self>, member: &Member) {
        if member.has(Flag::DOWN) && self.proxy.health.is_none() && self.recovered(member) {
            member.bell.notify_one();
        }
    }

    /// A member took a request and did not answer.
    pub(super) fn unanswered(&self, member: &Member, fault: &Fault) {
        if member.unanswered(fault.to_string(), self.is_last(member)) {
            self.tell_down(member, fault);
        }
    }

    /// A member is well again. It begins slowly where others are there to do the rest. True where that is news.
    pub(super) fn recovered(self: &Arc<Self>, member: &Member) -> bool {
        let weight = if self.is_last(member) { FULL } else { COLD };
        let is_news = member.recovered(weight);
        if is_news {
            tracing::info!(upstream = self.name(), address = member.peer, "up");
            Line::advance(self);
        }
        is_news
    }

    /// Nobody needs it any more.
    pub(super) fn dismiss(&self) {
        for member in self.members.load().iter() {
            member.set(Flag::GONE);
            member.bell.notify_one();
        }
        self.names.looks.iter().flatten().for_each(|look| look.bell.notify_one());
    }

    fn tell_down(&self, member: &Member, fault: &Fault) {
        tracing::warn!(upstream = self.name(), address = member.peer, error = %fault, "down");
    }

    /// Whether no other member is available.
    fn is_last(&self, member: &Member) -> bool {
        !self.members.load().iter().any(|other| other.id != member.id && other.is_available())
    }

    fn member(&self, target: usize, address: Address) -> Arc<Member> {
        let member = make(&self.proxy, target, address, &self.drained, self.key.as_deref());
        if !self.is_last(&member) {
            member.cool_down(COLD);
        }
        member
    }
}

/// The members that need no look-up.
pub(super) fn members_of(proxy: &Proxy, drained: &Drained, key: Option<&Key>) -> Vec<Arc<Member>> {
    let fixed = |(index, target): (usize, &Target)| {
        let address = match target {
            Target::Unix(path) => Address::Unix(Arc::clone(path)),
            Target::Tcp { host, .. } => address(target, host.parse().ok()?)?,
        };
        Some(make(proxy, index, address, drained, key))
    };
    proxy.targets.iter().enumerate().filter_map(fixed).collect()
}

/// The name that a target has to be looked up by.
pub(super) fn name(target: &Target) -> Option<&str> {
    match target {
        Target::Tcp { host, .. } if host.parse::<IpAddr>().is_err() => Some(host),
        _ => None,
    }
}

fn make(proxy: &Proxy, target: usize, address: Address, drained: &Drained, key: Option<&Key>) -> Arc<Member> {
    let peer = address.to_string();
    let token = key.zip(proxy.cookie.as_deref()).map(|(key, cookie)| key.token(cookie, &peer));
    let member = Member::new(target, address, token, proxy.health.is_some());
    let typed = proxy.targets.get(target).map(ToString::to_string).unwrap_or_default();
    if drained.has(&typed, &peer) {
        member.set(Flag::DRAINED);
    }
    member
}

fn address(target: &Target, ip: IpAddr) -> Option<Address> {
    match target {
        Target::Tcp { host, port, tls } => {
            Some(Address::Tcp(SocketAddr::new(ip, *port), tls.then(|| Arc::clone(host))))
        }
        Target::Unix(_) => None,
    }
}

fn status(target: &Target, member: &Member) -> MemberStatus {
    let state = [
        (Flag::DRAINED, "drained"),
        (Flag::NEW, "checking"),
        (Flag::SICK, "unhealthy"),
        (Flag::DOWN, "down"),
    ];
    let state = state.into_iter().find(|(flag, _)| member.has(*flag)).map(|(_, word)| word);
    let well = if member.weight() == FULL { "up" } else { "warming" };
    let story = member.story();
    MemberStatus {
        target: target.to_string(),
        address: Some(member.peer.clone()),
        state: state.unwrap_or(well),
        busy: member.busy(),
        since: Some(story.since),
        error: story.error.clone().filter(|_| member.is_ill()),
    }
}
