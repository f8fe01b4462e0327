//! Sockets: listening, accepting, and the PROXY protocol.
