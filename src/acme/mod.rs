//! Certificates that look after themselves.
//!
//! - [`store`]: one certificate, one record on disk: key, chain, order and history together

pub mod store;
