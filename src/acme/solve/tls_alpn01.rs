//! The challenge tls-alpn-01 (RFC 8737).

use instant_acme::KeyAuthorization;

use super::super::failure::Failure;
use crate::name::Hostname;
use crate::tls::Shared;
use crate::tls::challenges::{self, Guard};

pub(super) fn present(shared: &Shared, name: &str, proof: &KeyAuthorization) -> Result<Guard, Failure> {
    let unfit = |error: &dyn std::fmt::Display| Failure::Unfit(format!("{name}: {error}"));
    let host = Hostname::parse(name).map_err(|error| unfit(&error))?;
    let answer = challenges::answer(shared, &host, proof.as_str()).map_err(|error| unfit(&error))?;
    Ok(shared.challenges().insert_alpn(&host, answer))
}
