//! Who looks after upstreams: on the control thread, once for the whole edge, away from every request's path.

use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, sleep_until};

use super::Upstream;
use super::group::name;
use super::health;
use super::line::Line;
use super::member::{FULL, Flag, Member};
use super::resolve::{Lost, Resolver};
use crate::config::model::Proxy;
use crate::tls::upstream::ClientTls;

/// How soon a name is looked up again that could not be, at first and at most.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
const LOOK_AGAIN_MOST: Duration = Duration::from_secs(2);
/// The least time between two look-ups of a name, however often connections to it fail.
const LOOK_GAP: Duration = Duration::from_millis(200);
/// How often a name must be found missing before its addresses are given up.
const MISSING: u32 = 2;
/// How long one that is ill is left alone: at least, at most while others are there, and at most while none is.
const SHORTEST_REST: Duration = Duration::from_millis(20);
const REST: Duration = Duration::from_secs(5);
const SHORT_REST: Duration = Duration::from_millis(250);
/// How long one that has joined others takes to do as much as they.
const WARM_UP: Duration = Duration::from_secs(10);

/// Looks after upstreams for as long as they are in use. Clones share the resolver.
#[derive(Clone, Default)]
pub struct Keeper(Rc<Means>);

#[derive(Default)]
struct Means {
    resolver: Resolver,
    tls: ClientTls,
}

impl Keeper {
    /// Begins to look after those that nobody looks after yet. Call it inside a `LocalSet`.
    pub fn keep<'u>(&self, upstreams: impl Iterator<Item = &'u Arc<Upstream>>) {
        for upstream in upstreams.filter(|upstream| !upstream.is_kept.swap(true, Ordering::Relaxed)) {
            for member in upstream.known_members() {
                spawn_local(watch(self.clone(), Arc::downgrade(upstream), member));
            }
            for target in 0..upstream.proxy.targets.len() {
                if upstream.names.look(target).is_some() {
                    spawn_local(follow(self.clone(), Arc::downgrade(upstream), target));
                }
            }
        }
    }
}

/// Looks a target's name up as its TTL ends, and at once after a connection failed.
async fn follow(keeper: Keeper, upstream: Weak<Upstream>, target: usize) {
    let Some(names) = upstream.upgrade().map(|upstream| Arc::clone(&upstream.names)) else { return };
    let Some(look) = names.look(target) else { return };
    let mut failures = Failures::default();
    while let Some(pause) = look_up(&keeper, &upstream, target, &mut failures).await {
        tokio::select! {
            () = sleep(pause) => {}
            () = look.bell.notified() => sleep(LOOK_GAP).await,
        }
    }
}

/// Looks at a name in a row that came to nothing, and of the last ones those that found it missing.
#[derive(Default)]
struct Failures {
    all: u32,
    missing: u32,
}

/// One look. Returns when the next one is due; None once nobody needs it any more.
async fn look_up(
    keeper: &Keeper,
    upstream: &Weak<Upstream>,
    target: usize,
    failures: &mut Failures,
) -> Option<Duration> {
    let host = upstream.upgrade()?.proxy.targets.get(target).and_then(name)?.to_owned();
    let found = keeper.0.resolver.addresses(&host).await;
    let upstream = upstream.upgrade()?;
    let look = upstream.names.look(target)?;
    let error = match found {
        Ok(found) => {
            *failures = Failures::default();
            let joined = upstream.move_to(target, &found.addresses);
            look.succeeded();
            for member in joined {
                spawn_local(watch(keeper.clone(), Arc::downgrade(&upstream), member));
            }
            return Some(found.fresh);
        }
        Err(error) => error,
    };
    failures.all += 1;
    failures.missing = if matches!(error, Lost::Missing) { failures.missing + 1 } else { 0 };
    if failures.missing >= MISSING {
        upstream.move_to(target, &[]);
    }
    if look.failed(&error.to_string()) {
        tracing::warn!(upstream = upstream.name(), name = host, %error, "a name leads nowhere just now");
    }
    Some((LOOK_AGAIN * 2_u32.pow((failures.all - 1).min(8))).min(LOOK_AGAIN_MOST))
}

/// Asks a member whether it is well: one that is ill ever less often, one that is not as its health check says.
async fn watch(keeper: Keeper, upstream: Weak<Upstream>, member: Arc<Member>) {
    let pause = || upstream.upgrade().map(|upstream| Instant::now() + upstream.pause(&member));
    let Some(mut due) = pause() else { return };
    loop {
        let is_warming = member.weight() < FULL && !member.is_ill();
        let until = if is_warming { due.min(Instant::now() + WARM_UP / u32::from(FULL)) } else { due };
        let rung = tokio::select! {
            () = sleep_until(until) => false,
            // It went down, came up, or is needed no longer.
            () = member.bell.notified() => true,
        };
        let Some(upstream) = upstream.upgrade().filter(|_| !member.has(Flag::GONE)) else { return };
        if !rung && is_warming {
            member.warm_up();
        }
        if !rung && until == due {
            look(&keeper, &upstream, &member).await;
        }
        if rung || until == due {
            due = Instant::now() + upstream.pause(&member);
        }
    }
}

/// One look at a member. While requests wait for it, the first of them is sent to see.
async fn look(keeper: &Keeper, upstream: &Arc<Upstream>, member: &Arc<Member>) {
    let Proxy { health, connect_timeout, .. } = upstream.proxy();
    let waits_for_it = health.is_none() && member.is_merely_down() && !upstream.is_available();
    if waits_for_it && Line::send_scout(upstream, member) {
        return upstream.rest_longer(member);
    }
    let asked = health::ask(&member.address, &keeper.0.tls, *connect_timeout, health.as_ref()).await;
    let Some(asked) = asked else { return };
    if !member.has(Flag::GONE) {
        upstream.heard(member, asked);
    }
}

impl Upstream {
    /// How long until a member is asked.
    fn pause(&self, member: &Member) -> Duration {
        if member.is_ill() {
            return member.story().rest;
        }
        // Nobody asks one that is well, where there is no check: its bell says when it is not.
        self.proxy.health.as_ref().map_or(Duration::from_hours(24), |health| health.every)
    }

    /// Looks at one that is still ill become rarer.
    fn rest_longer(&self, member: &Member) {
        let most = if self.is_available() { REST } else { SHORT_REST };
        let mut story = member.story();
        story.rest = (story.rest * 2).clamp(SHORTEST_REST, most);
    }

    /// What a member said.
    fn heard(self: &Arc<Self>, member: &Member, asked: Result<(), String>) {
        let health = self.proxy.health.as_ref();
        let (passes, fails) = health.map_or((1, 1), |health| (health.passes, health.fails));
        let is_new = member.has(Flag::NEW);
        match asked {
            Ok(()) => {
                let mut story = member.story();
                story.fails = 0;
                story.passes = story.passes.saturating_add(1);
                let enough = is_new || story.passes >= passes;
                drop(story);
                if enough && member.is_ill() {
                    self.recovered(member);
                }
            }
            Err(error) => {
                self.rest_longer(member);
                let mut story = member.story();
                story.passes = 0;
                story.fails = story.fails.saturating_add(1);
                let enough = health.is_some() && (is_new || story.fails >= fails);
                story.error = Some(error.clone());
                drop(story);
                if enough {
                    self.fell_ill(member, &error);
                }
                if let Some(look) = self.names.look(member.target).filter(|_| member.is_ill()) {
                    look.bell.notify_one();
                }
            }
        }
    }

    fn fell_ill(&self, member: &Member, error: &str) {
        let is_news = member.set(Flag::SICK);
        member.clear(Flag::NEW);
        if is_news {
            tracing::warn!(upstream = self.name(), address = member.peer, error, "unhealthy");
        }
    }
}
