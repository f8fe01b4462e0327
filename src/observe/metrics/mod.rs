//! Metrics: what the workers count, and its text for Prometheus.
//!
//! Each worker has a [`Meter`] of its own, whose cells nobody else writes: counting is a load and a store, without a lock
//! and without a cache line that two threads fight for. A scrape sums the threads up ([`Metrics::read`]). Labels are sites
//! and routes of the configuration and words of the program's own, never what a client sent.

mod cells;
mod labels;
mod meter;
mod process;
mod status;
mod text;

pub use self::cells::Durations;
pub use self::labels::{Labels, Series};
pub use self::meter::{ForwardSum, Forwarding, Measured, Meter, Metrics, Open, Reading, RouteSum, RowSum};
pub use self::process::Process;
pub use self::status::ByStatus;
pub use self::text::{Dialect, Text};
