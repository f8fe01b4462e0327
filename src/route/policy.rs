//! What a route adds to passing on, as requests meet it.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::model::{self, Compress, Headers, Limited, Route};
use crate::limit::rate::Rate;

/// What the edge does with the requests and the answers of a route.
#[derive(Debug)]
pub struct Policy {
    /// What is changed on every answer.
    pub headers: Headers,
    /// How often it may be asked; None: as often as anybody likes.
    pub rate: Option<Arc<Rate>>,
    /// Which answers are compressed.
    pub compress: Option<Compress>,
}

impl Policy {
    /// None where the configuration asks for nothing, so that such a route pays for one look. `site` is what the route's
    /// site is called.
    pub(super) fn of(route: &Route, site: &str, rates: &mut Rates) -> Option<Arc<Self>> {
        let policy = &route.policy;
        let build = || Self {
            headers: policy.headers.clone(),
            compress: policy.compress.clone(),
            rate: policy.rate.as_ref().map(|limited| rates.kept_or_new(site, limited)),
        };
        (*policy != model::Policy::default()).then(build).map(Arc::new)
    }
}

/// Every rate, by the name of its site. One that stays what it was, where it was, goes on counting through a reload.
#[derive(Debug, Default)]
pub(super) struct Rates {
    rates: HashMap<(Box<str>, Limited), Arc<Rate>>,
    older: HashMap<(Box<str>, Limited), Arc<Rate>>,
}

impl Rates {
    /// None yet, with those of another configuration to be kept.
    pub(super) fn after(previous: Option<&Self>) -> Self {
        Self {
            rates: HashMap::new(),
            older: previous.map(|previous| previous.rates.clone()).unwrap_or_default(),
        }
    }

    /// Lets go of those that were not kept.
    pub(super) fn settled(self) -> Self {
        Self { older: HashMap::new(), ..self }
    }

    fn kept_or_new(&mut self, site: &str, limited: &Limited) -> Arc<Rate> {
        let key = (Box::from(site), limited.clone());
        let older = self.older.get(&key).cloned();
        let new = || older.unwrap_or_else(|| Arc::new(Rate::new(&limited.rate)));
        Arc::clone(self.rates.entry(key).or_insert_with(new))
    }
}
