//! What a route adds to passing on, as requests meet it.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use crate::auth::Door;
use crate::config::model::{self, Auth, Compress, Headers, Limited, Route};
use crate::limit::rate::Rate;
use crate::limit::room::Room;

/// What the edge does with the requests and the answers of a route.
#[derive(Debug)]
pub struct Policy {
    /// What is changed on every answer.
    pub headers: Headers,
    /// How often it may be asked; None: as often as anybody likes.
    pub rate: Option<Arc<Rate>>,
    /// Which answers are compressed.
    pub compress: Option<Compress>,
    /// Whose password is asked for; None: nobody's.
    pub door: Option<Arc<Door>>,
}

impl Policy {
    /// None where the configuration asks for nothing, so that such a route pays for one look. `site` is what the route's
    /// site is called.
    pub(super) fn of(route: &Route, site: &str, gates: &mut Gates) -> Option<Arc<Self>> {
        let policy = &route.policy;
        if *policy == model::Policy::default() {
            return None;
        }
        let rate = policy.rate.as_ref().map(|limited| {
            gates.rates.kept_or_new((site.into(), limited.clone()), || Rate::new(&limited.rate))
        });
        let door = policy.auth.as_ref().map(|auth| gates.doors.kept_or_new(auth.clone(), || Door::new(auth)));
        Some(Arc::new(Self {
            headers: policy.headers.clone(),
            compress: policy.compress.clone(),
            rate,
            door,
        }))
    }
}

/// What goes on counting and knowing through a reload, where it stays what it was: rates, by the name of their site and
/// their place in it, doors, and what each site has on disk.
#[derive(Debug, Default)]
pub(super) struct Gates {
    rates: Kept<(Box<str>, Limited), Rate>,
    doors: Kept<Auth, Door>,
    rooms: Kept<Box<str>, Room>,
}

impl Gates {
    /// None yet, with those of another configuration to be kept.
    pub(super) fn after(previous: Option<&Self>) -> Self {
        let Some(previous) = previous else { return Self::default() };
        Self { rates: previous.rates.next(), doors: previous.doors.next(), rooms: previous.rooms.next() }
    }

    /// Lets go of those that were not kept.
    pub(super) fn settled(self) -> Self {
        Self { rates: self.rates.settled(), doors: self.doors.settled(), rooms: self.rooms.settled() }
    }

    /// What a site's bodies have on disk.
    pub(super) fn room(&mut self, site: &str) -> Arc<Room> {
        self.rooms.kept_or_new(site.into(), Room::default)
    }
}

#[derive(Debug)]
struct Kept<K, V> {
    own: HashMap<K, Arc<V>>,
    older: HashMap<K, Arc<V>>,
}

impl<K, V> Default for Kept<K, V> {
    fn default() -> Self {
        Self { own: HashMap::new(), older: HashMap::new() }
    }
}

impl<K: Clone + Eq + Hash, V> Kept<K, V> {
    fn next(&self) -> Self {
        Self { own: HashMap::new(), older: self.own.clone() }
    }

    fn settled(self) -> Self {
        Self { own: self.own, older: HashMap::new() }
    }

    fn kept_or_new(&mut self, key: K, new: impl FnOnce() -> V) -> Arc<V> {
        let older = self.older.get(&key).cloned();
        Arc::clone(self.own.entry(key).or_insert_with(|| older.unwrap_or_else(|| Arc::new(new()))))
    }
}
