//! The running configuration: one frozen value behind one pointer.
