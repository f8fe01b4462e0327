//! The commands: one file each.

pub mod certs;
pub mod check;
