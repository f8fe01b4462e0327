//! What the socket says about certificates.

use serde::{Deserialize, Serialize};

/// Every certificate, and the lack of one, in the order of the file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificates {
    /// One for each set of names.
    pub certificates: Vec<Certificate>,
}

/// One certificate. Moments are RFC 3339 in UTC.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// The names that it is for, as the configuration has them.
    pub names: Vec<String>,
    /// `acme`, `internal` or `files`.
    pub source: String,
    /// Who issued it; None while there is none.
    pub issuer: Option<String>,
    /// Its serial number, in hexadecimal.
    pub serial: Option<String>,
    /// When it begins to be valid.
    pub not_before: Option<String>,
    /// When it ends to be valid.
    pub not_after: Option<String>,
    /// What is being done about it just now.
    #[serde(default)]
    pub doing: Option<Doing>,
    /// When something is to be done about it, and why; None where that is not the edge's work.
    pub next: Option<Next>,
    /// What failed since the last success.
    pub failure: Option<Failure>,
    /// What is wrong beyond that: nobody looks after it, or what should take its place is no use.
    #[serde(default)]
    pub trouble: Option<String>,
    /// The names that the certificate in use is without, as they were refused.
    #[serde(default)]
    pub lacks: Vec<String>,
    /// The URL of the directory of the CA that it was ordered from.
    pub directory: Option<String>,
    /// The profile that it was ordered with.
    pub profile: Option<String>,
    /// Whether another program obtained it.
    pub imported: bool,
    /// The URL of an order that is under way.
    pub order: Option<String>,
    /// A page of the CA's that says why it wants it renewed.
    pub explanation: Option<String>,
    /// What happened to it, the oldest first.
    pub history: Vec<Event>,
}

impl Certificate {
    /// Whether there is nothing to do for a person, as far as anybody has tried.
    pub fn is_well(&self) -> bool {
        self.failure.is_none() && self.trouble.is_none()
    }
}

/// What is being done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doing {
    /// In words, as in "waiting for ca.example to sign".
    pub step: String,
    /// Since when it has been ordered.
    pub since: String,
}

/// What comes next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Next {
    /// When.
    pub at: String,
    /// Why then.
    pub why: String,
}

/// What failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// How many tries in a row.
    pub tries: u32,
    /// Why the last one did.
    pub error: String,
    /// Names that the CA refused, each with its reason.
    pub names: Vec<(String, String)>,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When.
    pub at: String,
    /// What, in one word.
    pub kind: String,
    /// In words.
    pub detail: String,
}

/// What a person wants done with a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// A new one, now.
    Renew,
    /// To have it revoked, and another in its place.
    Revoke,
}

/// What became of a wish.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// Whether it was done.
    pub ok: bool,
    /// What was done, or why not.
    pub message: String,
}
