//! Sockets: listening, inheriting, accepting, and the PROXY protocol.

pub mod accept;
pub mod gateway;
pub mod inherit;
pub mod listen;
pub mod proxy_protocol;
pub mod unsent;
