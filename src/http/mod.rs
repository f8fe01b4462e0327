//! HTTP from the client's side: connections, exchanges, and the pipeline that every request goes through.
//!
//! [`Worker::serve`] takes an accepted socket; `connection` brings it through the port's gate and the handshake;
//! `h1` and `h2` read requests from it; `pipeline` decides what each is answered; `forward` hands it to an upstream;
//! `files` answers with files, of its own accord or an upstream's; `finish` and `compress` make every answer what the site
//! wants; `respond` makes the answers of the edge's own.

mod client;
mod compress;
mod connection;
mod exchange;
mod files;
mod finish;
mod forward;
mod forwarded;
mod gates;
mod h1;
mod h2;
mod link;
mod pipeline;
mod request;
mod respond;
mod response;
mod spool;
mod trace;
mod tunnel;
mod validation;
mod worker;

pub use forward::rewrite;
pub use worker::Worker;
