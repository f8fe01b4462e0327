//! What the edge says about itself: the log and the access lines.

pub mod access;
mod clock;
pub mod log;
mod outlet;
