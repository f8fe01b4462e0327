//! The firewall for what the edge does not serve: `[sources]` × `[ports]` as a ruleset of the kernel's.
//!
//! - `plan` (pure): who may connect where, and what an address would meet
//! - `nft` (pure): the plan as one nftables table of our own, `inet vestibule`
//! - `kernel`: the rules that are in force, through the program `nft`
//! - `diff`: what they have against the plan
//! - `switch`: applying, and taking back what nobody confirms; `session`: who is at the keyboard

pub mod diff;
pub mod kernel;
pub mod nft;
pub mod plan;
pub mod session;
pub mod switch;

pub use plan::Plan;
