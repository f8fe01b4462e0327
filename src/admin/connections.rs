//! What the socket says about connections.

use serde::{Deserialize, Serialize};

/// The connections that clients have with this process and that their rows let in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connections {
    /// How many there are.
    pub total: usize,
    /// The oldest thousand of them, the oldest first.
    pub connections: Vec<Connection>,
}

/// One connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// The address at its other end, or the one that its PROXY header names.
    pub client: String,
    /// The row that it came in on, by its key in `[ports]`.
    pub row: String,
    /// `handshake`, `h1`, `h2`, `websocket` (one over HTTP/2 is a request of its `h2`) or `forward`.
    pub protocol: String,
    /// The site that it is for, by its first name; None where none is known.
    pub site: Option<String>,
    /// When it was let in, RFC 3339 in UTC.
    pub since: String,
    /// How many requests began on it; None where what is forwarded may be anything.
    pub requests: Option<u32>,
}
