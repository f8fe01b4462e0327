//! vestibule: the room between the street and Django.
//!
//! # Rooms
//! Imports flow one way, and a test holds it:
//! `cli → runtime → {admin, http} → snapshot → route → upstream → {tls, limit, net} → wire → config::model →
//! {name, addr, fault}`. `observe` is a leaf that all may use. `config::raw` is seen by `config` alone.

pub mod addr;
pub mod admin;
pub mod cli;
pub mod config;
pub mod fault;
pub mod http;
pub mod limit;
pub mod name;
pub mod net;
pub mod observe;
pub mod route;
pub mod runtime;
pub mod snapshot;
pub mod tls;
pub mod upstream;
pub mod wire;
