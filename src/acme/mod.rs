//! Certificates that look after themselves.
//!
//! - [`command`]: what the manager is asked to do, beyond what it does by itself
//! - [`import`]: what certbot obtained, taken over
//! - [`store`]: one certificate, one record on disk: key, chain, order and history together

pub mod command;
pub mod import;
pub mod store;
