//! TLS: policy, handshakes, certificates. The only room that names rustls' configuration types.
//!
//! - `policy`: what is spoken, and who shares tickets with whom: [`Shared`], [`SiteConfig`]
//! - `handshake`: from a socket to a stream, or to an alert that really arrives: [`accept`]
//! - `site`: one site's certificate, checked, watched, renewed: [`SiteTls`]
//! - `authority`: the edge's own CA, for development: [`Authority`]
//! - [`upstream`]: TLS as a client, to `https://` upstreams

mod authority;
mod check;
mod handshake;
mod hello;
mod policy;
pub(crate) mod record;
mod site;
mod tickets;
pub mod upstream;

pub use authority::{Authority, Leaf};
pub use handshake::{Alpn, Handshaken, Reason, Refusal, accept};
pub use policy::{Shared, SiteConfig};
pub use record::StoreError;
pub use site::{Loaded, Refresh, SiteTls, TlsProblem};
