//! What a request has to pass behind the allow lists.

mod auth;
mod rate;

use crate::support::client::NAME;
use crate::support::edge::ROWS;
use crate::support::upstream::Upstream;

/// A configuration with one site, whose peers may name the client; `more` stands behind the site's own keys.
fn config(upstream: &Upstream, more: &str) -> String {
    format!(
        "{ROWS}\n[sources]\nlocal = [\"127.0.0.0/8\"]\n[client_address]\ntrusted = [\"local\"]\n\
         [process]\nworkers = 2\n\n[[site]]\ndomains = [\"{NAME}\"]\nupstream = \"{}\"\n\
         certificate = \"internal\"\n{more}\n",
        upstream.address()
    )
}
