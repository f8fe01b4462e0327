//! The firewall for what the edge does not serve: `[sources]` × `[ports]` as a ruleset of the kernel's.
//!
//! - `plan` (pure): who may connect where, and what an address would meet
//! - `nft` (pure): the plan as one nftables table of our own, `inet vestibule`
//! - `kernel`: the rules that are in force, through the program `nft`
//! - `diff`: what they have against the plan
//! - `leases`: addresses that belong to a source for a while; `moment`: the clocks that end them
//! - `switch`: applying, and taking back what nobody confirms; `session`: who is at the keyboard

pub mod diff;
pub mod kernel;
pub mod leases;
pub mod moment;
pub mod nft;
pub mod plan;
pub mod session;
pub mod switch;

pub use plan::Plan;
