//! What the tests share: the real edge as a child process, clients that speak raw bytes, upstreams that
//! record them, and a real Django.

pub(crate) mod client;
pub(crate) mod django;
pub(crate) mod dns;
pub(crate) mod edge;
pub(crate) mod h2client;
pub(crate) mod h2raw;
pub(crate) mod lines;
pub(crate) mod port;
pub(crate) mod post;
pub(crate) mod program;
pub(crate) mod shared;
pub(crate) mod upstream;
pub(crate) mod websocket;

use std::time::Duration;

/// How long anything may take before a test gives up on it. Nothing sleeps this long on a good day.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);
