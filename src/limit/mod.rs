//! Limits that are counted.

pub mod connections;
