//! The files of a directory, as HTTP serves them.
//!
//! A request's way: [`serve()`] takes a [`Permit<Route>`](crate::addr::Permit), [`Folder`] opens what the name says
//! and nothing outside of the directory, `encoding` may choose a compressed sibling instead, `conditional` asks whether the
//! client has it already, `range` cuts out what it wants, and a [`Body`] reads that as the client takes it. `accel` is
//! what an upstream says of a file that the edge is to send for it.

pub mod accel;
mod body;
mod conditional;
mod encoding;
mod folder;
mod kind;
mod range;
mod serve;

pub use body::Body;
pub use folder::Folder;
pub use serve::{Asked, Served, serve};

use crate::wire::Head;

/// The values of a field, line by line, whatever the case of its name.
fn values<'a>(head: &'a Head, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    head.fields().filter(|field| field.name.eq_ignore_ascii_case(name.as_bytes())).map(|field| field.value)
}

/// The value of a field that stands once; None where it stands more often.
fn single<'a>(head: &'a Head, name: &'a str) -> Option<&'a [u8]> {
    let mut values = values(head, name);
    let first = values.next()?;
    values.next().is_none().then_some(first)
}
