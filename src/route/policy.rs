//! What a route adds to passing on, as requests meet it.

use std::sync::Arc;

use crate::config::model::{self, Headers, Route};

/// What the edge does with the requests and the answers of a route.
#[derive(Debug)]
pub struct Policy {
    /// What is changed on every answer.
    pub headers: Headers,
}

impl Policy {
    /// None where the configuration asks for nothing, so that such a route pays for one look.
    pub(super) fn of(route: &Route) -> Option<Arc<Self>> {
        let policy = &route.policy;
        (*policy != model::Policy::default()).then(|| Arc::new(Self { headers: policy.headers.clone() }))
    }
}
