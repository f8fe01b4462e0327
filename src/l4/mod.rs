//! Forward rows: TCP passed on byte for byte, whatever is spoken on it.
//!
//! - `worker`: one connection's way: TLS, dialing, the PROXY header, and then bytes: [`Worker::serve`]
//! - `relay`: bytes both ways, with each side's end passed on as it was
//! - `pipes`: what moves in bulk, moved by the kernel
//! - `stream`: the two kinds of ends, and what is done to their sockets
//! - `postgres`: what PostgreSQL's clients say before TLS
//! - `record`: what is told of a connection, however it ends

mod pipes;
mod postgres;
mod record;
mod relay;
mod stream;
mod worker;

pub use worker::Worker;
