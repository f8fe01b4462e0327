//! What is kept about one certificate, and about one account.

use std::fmt;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::serde::rfc3339;

use crate::name::HostPattern;

/// The most events that a record remembers.
const MAX_HISTORY: usize = 50;
/// The longest detail of an event, in characters.
const MAX_DETAIL: usize = 1000;

/// Where a record has secrets, as JSON pointers.
pub(super) const SECRETS: [&str; 3] = ["/bundle/key_pem", "/order/key_pem", "/spare/key_pem"];
/// Where an account has secrets.
pub(super) const ACCOUNT_SECRETS: [&str; 1] = ["/credentials"];

/// One certificate: what is served, what is being ordered, and what is known about it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The names that it is for: a site's plain ones, or one wildcard.
    pub names: Vec<HostPattern>,
    /// What is served.
    #[serde(default)]
    pub bundle: Option<Bundle>,
    /// The certificate before it, served for names that it lacks.
    #[serde(default)]
    pub spare: Option<Bundle>,
    /// Names that were refused while others were not.
    #[serde(default)]
    pub refused: Option<Refused>,
    /// An order that is not finished.
    #[serde(default)]
    pub order: Option<PendingOrder>,
    /// Records of the challenge dns-01 that stand in the DNS, or may.
    #[serde(default)]
    pub published: Vec<Published>,
    /// What the CA said last about when to renew (RFC 9773).
    #[serde(default)]
    pub ari: Option<Ari>,
    /// What failed since the last success.
    #[serde(default)]
    pub retry: Retry,
    /// The alarm that was raised last.
    #[serde(default)]
    pub alarm: Option<Alarm>,
    /// What happened, the oldest first.
    #[serde(default)]
    pub history: Vec<Event>,
}

impl Record {
    /// A record for names without a certificate.
    pub fn new(names: Vec<HostPattern>) -> Self {
        Self {
            names,
            bundle: None,
            spare: None,
            refused: None,
            order: None,
            published: Vec::new(),
            ari: None,
            retry: Retry::default(),
            alarm: None,
            history: Vec::new(),
        }
    }

    /// Puts a new certificate in the place of the one before. That one stays for names that the new one lacks, until one has
    /// them all.
    pub fn take_up(&mut self, bundle: Bundle) {
        let has_more = |old: &Bundle| bundle.lacks.iter().any(|name| !old.lacks.contains(name));
        if bundle.lacks.is_empty() {
            (self.spare, self.refused) = (None, None);
        } else if self.spare.is_none() {
            self.spare = self.bundle.take().filter(has_more);
        }
        self.bundle = Some(bundle);
    }

    /// Remembers that something happened, and forgets what is too long ago.
    pub fn note(&mut self, at: OffsetDateTime, kind: EventKind, detail: impl Into<String>) {
        let mut detail = detail.into();
        if let Some((end, _)) = detail.char_indices().nth(MAX_DETAIL) {
            detail.truncate(end);
        }
        self.history.push(Event { at, kind, detail });
        let surplus = self.history.len().saturating_sub(MAX_HISTORY);
        self.history.drain(..surplus);
    }
}

/// A certificate, its key, and where it came from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bundle {
    /// The private key.
    pub key_pem: Secret,
    /// The chain, leaf first.
    pub chain_pem: String,
    /// The URL of the CA's directory; empty for an imported one.
    pub directory: String,
    /// The profile that it was ordered with.
    #[serde(default)]
    pub profile: Option<String>,
    /// When it was issued, or imported.
    #[serde(with = "rfc3339")]
    pub issued: OffsetDateTime,
    /// When it begins to be valid.
    #[serde(with = "rfc3339")]
    pub not_before: OffsetDateTime,
    /// When it ends to be valid.
    #[serde(with = "rfc3339")]
    pub not_after: OffsetDateTime,
    /// What the CA knows it by when asked when to renew (RFC 9773 section 4.1).
    #[serde(default)]
    pub ari_id: Option<String>,
    /// Whether another program obtained it.
    #[serde(default)]
    pub imported: bool,
    /// The names of the record that it is not for, as they were refused when it was ordered.
    #[serde(default)]
    pub lacks: Vec<HostPattern>,
}

/// Names that were refused while others of the same record were not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Each with the reason.
    pub names: Vec<(HostPattern, String)>,
    /// How many tries failed in a row.
    pub tries: u32,
    /// Where the certificate in use lacks them: no try before then.
    #[serde(with = "rfc3339")]
    pub not_before: OffsetDateTime,
}

/// An order at a CA, stored as soon as it exists.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PendingOrder {
    /// The order's URL.
    pub url: String,
    /// The URL of the CA's directory.
    pub directory: String,
    /// The private key that the certificate is to have.
    pub key_pem: Secret,
    /// The names ordered.
    pub names: Vec<HostPattern>,
    /// When it was made.
    #[serde(with = "rfc3339")]
    pub created: OffsetDateTime,
    /// The ARI identifier of the certificate that it replaces.
    #[serde(default)]
    pub replaces: Option<String>,
}

/// A TXT record (RFC 8555 section 8.4), stored before it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// Where it stands: aliases are followed.
    pub name: String,
    /// What it says.
    pub value: String,
}

/// When the CA wants a certificate renewed (RFC 9773 section 4.2).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ari {
    /// The suggested window's start.
    #[serde(with = "rfc3339")]
    pub window_start: OffsetDateTime,
    /// The suggested window's end.
    #[serde(with = "rfc3339")]
    pub window_end: OffsetDateTime,
    /// The moment inside the window that was drawn, once for each window.
    #[serde(with = "rfc3339")]
    pub chosen: OffsetDateTime,
    /// A page that says why.
    #[serde(default)]
    pub explanation: Option<String>,
    /// When the CA was asked.
    #[serde(with = "rfc3339")]
    pub checked: OffsetDateTime,
    /// When it is to be asked again.
    #[serde(with = "rfc3339")]
    pub next_check: OffsetDateTime,
}

/// What failed since the last success, and when to try again.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Retry {
    /// How many tries failed in a row.
    #[serde(default)]
    pub failures: u32,
    /// No try before then.
    #[serde(default, with = "rfc3339::option")]
    pub not_before: Option<OffsetDateTime>,
    /// A CA that asked to be left alone, for every name, and until when.
    #[serde(default)]
    pub ca_pause: Option<CaPause>,
    /// Why the last try failed.
    #[serde(default)]
    pub last_error: Option<String>,
    /// Names that the CA refused, each with its reason.
    #[serde(default)]
    pub per_name: Vec<(String, String)>,
    /// Whether the CA's staging directory issued since the last failure.
    #[serde(default)]
    pub staging_ok: bool,
}

/// An alarm about a certificate's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alarm {
    /// When the certificate ends to be valid.
    #[serde(with = "rfc3339")]
    pub not_after: OffsetDateTime,
    /// 3, 6 or 20 for a third, a sixth, a twentieth of its life; 0 for its end.
    pub part: i32,
}

/// A CA's Retry-After (RFC 9110 section 10.2.3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaPause {
    /// The URL of its directory.
    pub directory: String,
    /// When it may be asked again.
    #[serde(with = "rfc3339")]
    pub until: OffsetDateTime,
}

/// Something that happened to a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When.
    #[serde(with = "rfc3339")]
    pub at: OffsetDateTime,
    /// What.
    pub kind: EventKind,
    /// In words.
    pub detail: String,
}

/// What can happen to a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// An order was made.
    Ordered,
    /// An order was taken up again after a restart.
    Resumed,
    /// A certificate was issued and stored.
    Obtained,
    /// A certificate was taken over from another program.
    Imported,
    /// A try failed.
    Failed,
    /// The certificate was revoked.
    Revoked,
    /// Anything else.
    #[serde(other)]
    Other,
}

/// The account at one CA.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AccountRecord {
    /// What the ACME client wants back, its private key among it.
    pub credentials: serde_json::Value,
    /// The contacts that the CA was told, as URLs.
    pub contacts: Vec<String>,
    /// When it was made.
    #[serde(with = "rfc3339")]
    pub created: OffsetDateTime,
}

/// Text that never shows in logs.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Keeps a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_remembers_the_last_events() {
        let mut record = Record::new(vec![HostPattern::parse("a.example").unwrap()]);
        for second in 0..60 {
            let at = OffsetDateTime::from_unix_timestamp(second).unwrap();
            record.note(at, EventKind::Failed, second.to_string());
        }
        assert_eq!(record.history.len(), MAX_HISTORY);
        assert_eq!(record.history[0].detail, "10");
    }

    #[test]
    fn an_older_record_is_read() {
        let text = r#"{ "names": ["a.example", "*.b.example"], "history": [
            { "at": "2026-01-01T00:00:00Z", "kind": "from_tomorrow", "detail": "" }] }"#;
        let record: Record = serde_json::from_str(text).unwrap();
        assert_eq!((record.names.len(), record.history[0].kind), (2, EventKind::Other));
        assert_eq!(record.retry, Retry::default());
        assert_eq!(format!("{:?}", Secret::new("x")), "Secret(…)");
    }
}
