//! Certificates that look after themselves.
//!
//! - [`store`]: one certificate, one record on disk: key, chain, order and history together
//! - [`manager`]: looks at every certificate on wall time; `tend` is what one of them is due
//! - [`command`]: what the manager is asked to do, beyond what it does by itself
//! - [`import`]: what certbot obtained, taken over
//! - `order`: one order, from its making to a checked chain, or from where a crash left it
//! - `attempt`: one attempt at a certificate: the CAs and the methods in turn, and what is kept of its end
//! - `ari`: when the CA wants a certificate renewed
//! - `chain`: the CA's other chains, where another root is preferred
//! - `account`: one CA and the account there, made when it is first needed
//! - `client`: HTTP to a CA, with a deadline on everything
//! - `solve`: how names are proved to be ours
//! - [`renewal`]: when a certificate is renewed, and a failure tried again; pure
//! - `prove`: the challenges of an order, answered and waited for
//! - [`progress`]: how far each is that is being obtained
//! - `notice`: telling a program and a URL what becomes of certificates
//! - `partial`: names that are refused while others of the same certificate are not; pure
//! - `pace`: how fast orders may be made
//! - `preflight`: a look of our own at the names, which warns
//! - `program`: programs of other people's, run to their end
//! - `failure`: what can go wrong, and which of it passes by itself
//! - `unusable`: what in the configuration would keep every certificate from being looked after

mod account;
mod ari;
mod attempt;
mod chain;
mod client;
pub mod command;
mod failure;
pub mod import;
pub mod manager;
mod notice;
mod order;
mod pace;
mod partial;
mod preflight;
mod program;
pub mod progress;
mod prove;
pub mod renewal;
mod settings;
mod solve;
pub mod store;
mod tend;
mod unusable;
mod watchful;

pub use unusable::unusable;

use crate::config::model::{Acme, Dns};

/// The end of a wait that the record has, where it is not over.
pub fn waits(record: &store::Record, now: time::OffsetDateTime) -> Option<time::OffsetDateTime> {
    renewal::waits(record.retry.not_before, now)
}

/// When a certificate is to be renewed as far as is known now, and why.
pub fn due(record: &store::Record, now: time::OffsetDateTime) -> renewal::Decision {
    tend::decide(record, true, now)
}

/// Whether the program that is told of certificates could be run, and whether the URL could be read. Reads the disk, and tells
/// nobody.
///
/// # Errors
/// What is wrong with each, and what to do.
pub fn check_notices(acme: &Acme) -> (Result<(), String>, Result<(), String>) {
    notice::check(acme)
}

/// Whether a private CA's root could be trusted. Reads the disk.
///
/// # Errors
/// What is wrong with the file.
fn check_ca_root(acme: &Acme) -> Result<(), String> {
    settings::trust(acme).map(drop)
}

/// Whether records of the challenge dns-01 could be written with what the configuration names: the secret, or the program. Reads
/// the disk, and asks nobody.
///
/// # Errors
/// What is wrong, and what to do.
fn check_dns(dns: &Dns) -> Result<(), String> {
    solve::dns01::Dns::of(dns)?.check()
}
