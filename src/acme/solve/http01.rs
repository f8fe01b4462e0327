//! The challenge http-01 (RFC 8555 section 8.3).

use instant_acme::KeyAuthorization;

use crate::tls::Shared;
use crate::tls::challenges::Guard;

pub(super) fn present(shared: &Shared, token: &str, proof: &KeyAuthorization) -> Guard {
    shared.challenges().insert_http(token, proof.as_str())
}
