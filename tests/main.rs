//! One binary, a module a capability.
