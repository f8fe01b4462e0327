//! How a name is proved to be ours: an answer that stands for as long as it is needed.
//!
//! - `http01`, `tls_alpn01`: in the book of pending challenges, for the edge itself to give
//! - `dns01`: in the DNS, by `rfc2136`, `exec` or `cloudflare`; `lookup` follows names and looks whether the record is out,
//!   `query` speaks with name servers, `tsig` reads the key that they share with us

mod cloudflare;
pub(super) mod dns01;
mod exec;
mod http01;
mod lookup;
mod query;
mod rfc2136;
mod tls_alpn01;
mod tsig;

use std::sync::Arc;

use instant_acme::{ChallengeType, KeyAuthorization};

use super::failure::Failure;
use crate::tls::Shared;
use crate::tls::challenges::Guard;

/// A way to prove a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    /// A file on port 80 (RFC 8555 section 8.3).
    Http01,
    /// A handshake on port 443 (RFC 8737).
    TlsAlpn01,
    /// A TXT record (RFC 8555 section 8.4).
    Dns01,
}

impl Method {
    /// As the ACME registry has it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Http01 => "http-01",
            Self::TlsAlpn01 => "tls-alpn-01",
            Self::Dns01 => "dns-01",
        }
    }

    pub(super) fn kind(self) -> ChallengeType {
        match self {
            Self::Http01 => ChallengeType::Http01,
            Self::TlsAlpn01 => ChallengeType::TlsAlpn01,
            Self::Dns01 => ChallengeType::Dns01,
        }
    }
}

/// Where the edge's own answers are put.
pub(super) struct Answers(pub(super) Arc<Shared>);

impl Answers {
    /// Answers a challenge until the guard is dropped. None for one that the edge does not answer itself.
    pub(super) fn present(
        &self,
        method: Method,
        name: &str,
        token: &str,
        proof: &KeyAuthorization,
    ) -> Result<Option<Guard>, Failure> {
        match method {
            Method::Http01 => Ok(Some(http01::present(&self.0, token, proof))),
            Method::TlsAlpn01 => tls_alpn01::present(&self.0, name, proof).map(Some),
            Method::Dns01 => Ok(None),
        }
    }
}
