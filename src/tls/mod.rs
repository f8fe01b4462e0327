//! TLS: policy, handshakes, certificates. The only room that names rustls' configuration types.
//!
//! - `policy`: what is spoken, and who shares tickets with whom: [`Shared`], [`SiteConfig`]
//! - `handshake`: from a socket to a stream, or to an alert that really arrives: [`accept`]
//! - `read_ahead`: reads that are larger than rustls's own: [`ReadAhead`]
//! - `site`: one site's certificate, checked, watched, renewed: [`SiteTls`]
//! - [`challenges`]: what CAs may ask for just now: [`challenges::Book`]
//! - `authority`: the edge's own CA, for development: [`Authority`]
//! - [`upstream`]: TLS as a client, to `https://` upstreams

mod authority;
pub mod challenges;
mod check;
mod handshake;
mod hello;
mod policy;
mod read_ahead;
mod recipe;
pub(crate) mod record;
mod site;
mod slots;
mod tickets;
pub mod upstream;

pub use authority::{Authority, Leaf};
pub use check::fits;
pub use handshake::{Alpn, Handshaken, Reason, Refusal, accept, accept_as, answer_challenge};
pub use policy::{Heritage, Shared, SiteConfig};
pub use read_ahead::ReadAhead;
pub use record::StoreError;
pub use site::{InUse, Loaded, Refresh, SiteTls, TlsProblem};
pub use slots::sets;
