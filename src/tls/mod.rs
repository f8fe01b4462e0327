//! TLS: policy, handshakes, certificates.
