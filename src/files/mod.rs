//! The files of a directory, as HTTP serves them.
//!
//! A request's way: [`serve()`] takes a [`Permit<Route>`](crate::addr::Permit), [`Folder`] opens what the name says
//! and nothing outside of the directory, or a compressed sibling of it instead, `conditional` asks whether the
//! client has it already, `range` cuts out what it wants, and a [`Body`] has a [`Reader`] read that as the client takes it. `accel` is
//! what an upstream says of a file that the edge is to send for it.

pub mod accel;
mod body;
mod conditional;
mod folder;
mod kind;
mod range;
mod reader;
mod serve;

pub use body::Body;
pub use folder::Folder;
pub use kind::content_type;
pub use reader::{PIECE, Reader, lies_in_memory};
pub use serve::{Asked, Served, serve};

use crate::wire::Head;

/// The value of a field that stands once; None where it stands more often.
fn single<'a>(head: &'a Head, name: &'a str) -> Option<&'a [u8]> {
    let mut values = head.named(name);
    let first = values.next()?;
    values.next().is_none().then_some(first)
}
