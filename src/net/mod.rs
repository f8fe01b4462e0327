//! Sockets: listening, accepting, and the PROXY protocol.

pub mod accept;
pub mod listen;
pub mod proxy_protocol;
