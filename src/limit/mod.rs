//! Limits that are counted.
