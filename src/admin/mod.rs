//! The socket that the commands speak to.
