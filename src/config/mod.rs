//! The configuration: what was typed, what is wrong with it, and what is true.

pub mod model;
