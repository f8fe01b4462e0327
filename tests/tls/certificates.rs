//! Certificate files and the internal CA, from outside.
