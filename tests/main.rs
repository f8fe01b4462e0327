//! The edge from outside: the real binary, real sockets, real Djangos.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test ends by panicking"
)]

mod access_lines;
mod acme;
mod answers;
mod architecture;
mod buffers;
mod certbot;
mod chaos;
mod client_address;
mod commands;
mod config;
mod connections;
mod django;
mod docs;
mod explaining;
mod files;
mod firewall;
mod forward;
mod gates;
mod hardship;
mod limits;
mod listener;
mod monitoring;
mod observing;
mod operations;
mod outsider;
mod proxying;
mod reload;
mod requests_h1;
mod requests_h2;
mod schema;
mod store;
mod support;
mod tls;
mod traces;
mod upgrade;
mod upstreams;
mod window;
