//! What the edge says about itself: the log, the access lines and the metrics.

pub mod access;
mod clock;
pub mod history;
pub mod log;
pub mod metrics;
mod outlet;
pub mod recent;
pub mod spans;

pub use clock::rfc3339;
