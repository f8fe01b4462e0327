//! The configuration: what was typed, what is wrong with it, and what is true.
//!
//! A file goes one way: [`load()`] reads it, `syntax` makes a document of it, `raw` looks at the document through
//! the tables of [`schema`] (and names by `meant` what a wrong word was meant for), `validate` turns it into the [`model`]. Every stage reports into one list of
//! [`problem`]s and goes on, so that one run names everything that is wrong.
//!
//! # Relative paths
//! What the edge reads (certificates, keys, CIDR files, an upstream's socket) is relative to the directory of the
//! configuration file. What it writes (the store, the access log, its admin socket) is relative to the working
//! directory.

mod load;
mod meant;
pub mod model;
pub mod problem;
mod raw;
pub mod schema;
mod syntax;
mod units;
mod validate;

pub use load::{Loaded, admin_socket, inspect, load, parse};
pub(crate) use units::{duration as read_duration, show_duration, show_size};
pub(crate) use validate::{read_bounded, read_source};
