//! How a name is proved to be ours: an answer in the book of pending challenges, for as long as it is needed.

use std::sync::Arc;

use instant_acme::{ChallengeType, KeyAuthorization};

use super::failure::Failure;
use crate::name::Hostname;
use crate::tls::Shared;
use crate::tls::challenges::{self, Guard};

/// A way to prove a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    /// A file on port 80 (RFC 8555 section 8.3).
    Http01,
    /// A handshake on port 443 (RFC 8737).
    TlsAlpn01,
}

impl Method {
    /// As the ACME registry has it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Http01 => "http-01",
            Self::TlsAlpn01 => "tls-alpn-01",
        }
    }

    pub(super) fn kind(self) -> ChallengeType {
        match self {
            Self::Http01 => ChallengeType::Http01,
            Self::TlsAlpn01 => ChallengeType::TlsAlpn01,
        }
    }
}

/// Where answers are put.
pub(super) struct Answers(pub(super) Arc<Shared>);

impl Answers {
    /// Answers a challenge until the guard is dropped.
    pub(super) fn present(
        &self,
        method: Method,
        name: &str,
        token: &str,
        proof: &KeyAuthorization,
    ) -> Result<Guard, Failure> {
        let book = self.0.challenges();
        match method {
            Method::Http01 => Ok(book.insert_http(token, proof.as_str())),
            Method::TlsAlpn01 => {
                let unfit = |error: &dyn std::fmt::Display| Failure::Unfit(format!("{name}: {error}"));
                let host = Hostname::parse(name).map_err(|error| unfit(&error))?;
                let answer =
                    challenges::answer(&self.0, &host, proof.as_str()).map_err(|error| unfit(&error))?;
                Ok(book.insert_alpn(&host, answer))
            }
        }
    }
}
