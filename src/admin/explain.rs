//! What the socket says about one request.

use serde::{Deserialize, Serialize};

/// What became of the question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explained {
    /// What the request met; None where none of that id is kept.
    pub request: Option<Met>,
    /// How many requests are kept just now.
    pub kept: usize,
}

/// What one request met, in the order in which it met it. What is None or empty it did not meet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Met {
    /// Its id.
    pub id: String,
    /// The trace that it belongs to (W3C Trace Context).
    pub trace_id: String,
    /// When it began, RFC 3339 in UTC.
    pub time: String,
    /// Who asked.
    pub client: String,
    /// The method.
    pub method: String,
    /// The host that was asked for.
    pub host: String,
    /// The request target, as it was sent; 256 octets at most.
    pub path: String,
    /// As in `HTTP/1.1`.
    pub protocol: String,
    /// As in `TLSv1.3`.
    pub tls: String,
    /// The site, by its first name.
    pub site: String,
    /// The route, as the file spells it.
    pub route: String,
    /// What the route does, in words.
    pub does: String,
    /// The gates on its way: the row's, the site's, the route's.
    pub gates: Vec<GateMet>,
    /// The status of its answer, 499 where the client left before it; 0 where there was none.
    pub status: u16,
    /// Why it was refused or failed, in one word.
    pub refused: String,
    /// The same in words.
    pub why: String,
    /// The address that answered, or that was tried last.
    pub upstream: String,
    /// How often it was sent to an upstream.
    pub tries: u8,
    /// How long connecting to the upstream took, in milliseconds; None for a connection that was open.
    pub connect_ms: Option<Millis>,
    /// From its beginning to the head of the upstream's answer, in milliseconds.
    pub first_byte_ms: Option<Millis>,
    /// From its beginning to its answer's end, in milliseconds.
    pub total_ms: Millis,
    /// Octets of its body.
    pub request_bytes: u64,
    /// Octets of the answer's body.
    pub response_bytes: u64,
    /// Whether the configuration was changed since: gates and route are told as it is now.
    pub changed_since: bool,
}

/// A gate, and what it said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateMet {
    /// `row 443`, `site app.example.com` or `route /admin/`.
    pub gate: String,
    /// The sources that it lets in.
    pub allow: Vec<String>,
    /// The sources that it does not.
    pub deny: Vec<String>,
    /// What it said of the client.
    pub verdict: Verdict,
}

/// What a gate said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The client may pass.
    LetIn,
    /// The client may not.
    Refused,
    /// The request ended before.
    NotAsked,
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::LetIn => "let in",
            Self::Refused => "refused",
            Self::NotAsked => "not asked",
        })
    }
}

/// Milliseconds with three decimals: whole microseconds inside.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Millis(pub u64);

impl Millis {
    /// A duration, without what is less than a microsecond.
    pub fn of(duration: std::time::Duration) -> Self {
        Self(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
    }
}

impl From<Millis> for std::time::Duration {
    fn from(millis: Millis) -> Self {
        Self::from_micros(millis.0)
    }
}

impl std::fmt::Display for Millis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:03}", self.0 / 1000, self.0 % 1000)
    }
}

#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a number of JSON"
)]
mod json {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Millis;

    impl Serialize for Millis {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_f64(self.0 as f64 / 1000.0)
        }
    }

    impl<'de> Deserialize<'de> for Millis {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            f64::deserialize(deserializer).map(|millis| Self((millis * 1000.0).round() as u64))
        }
    }
}
