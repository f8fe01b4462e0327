//! The server: one control thread that starts, reloads and drains, and the workers that it orders about.
//!
//! The control thread reads files, binds sockets and swaps the configuration's pointer; no request ever waits for
//! it. The workers accept and serve; each has a runtime, sockets and pools of its own.

mod certificates;
mod connections;
mod difference;
mod drain;
mod explain;
mod exporter;
mod handover;
pub mod inventory;
mod life;
mod listeners;
mod maintenance;
mod notify;
mod privileges;
mod reload;
mod scrape;
mod server;
mod signals;
mod sources;
mod start;
mod upstreams;
mod window;
mod workers;

pub use privileges::{DropError, assume, is_root, unreadable};
pub use server::{Origin, Ready, RunError, run};
