//! What the edge does with answers of its own accord.

mod compress;
mod errors;
mod headers;

use crate::support::client::NAME;
use crate::support::edge::{Edge, ROWS};
use crate::support::upstream::Upstream;

/// An edge with one site; `more` stands behind the site's own keys.
#[track_caller]
fn edge(upstream: &Upstream, more: &str) -> Edge {
    Edge::start(&config(upstream, more))
}

fn config(upstream: &Upstream, more: &str) -> String {
    format!(
        "{ROWS}\n[process]\nworkers = 2\n\n[[site]]\ndomains = [\"{NAME}\"]\nupstream = \"{}\"\n\
         certificate = \"internal\"\n{more}\n",
        upstream.address()
    )
}
