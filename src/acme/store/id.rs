//! What a record is called.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};

use crate::name::HostPattern;

/// The longest part of a name that a file is called by, in octets.
const SHOWN: usize = 100;
/// How much of a hash tells names apart, in octets.
const HASHED: usize = 6;

/// A record's name: safe as a file's, and the same for the same names in any order.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordId(String);

impl RecordId {
    /// The record of a certificate for exactly these names. Other names are another certificate.
    pub fn of(names: &[HostPattern]) -> Self {
        let mut all: Vec<String> = names.iter().map(ToString::to_string).collect();
        all.sort();
        all.dedup();
        let first = all.first().cloned().unwrap_or_default();
        Self(hashed(&first.replace('*', "wildcard"), &all.join(" ")))
    }

    /// As the store's file names have it.
    pub(super) fn stored(stem: &str) -> Self {
        Self(stem.to_owned())
    }

    /// As it stands in file names.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the account at a CA's directory is called.
pub(super) fn of_directory(url: &str) -> String {
    let host = url.split_once("://").map_or(url, |(_, rest)| rest).split('/').next().unwrap_or_default();
    hashed(host, url)
}

fn hashed(shown: &str, whole: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '.' || c == '-' { c } else { '_' };
    let shown: String = shown.chars().take(SHOWN).map(plain).collect();
    let hash = digest(&SHA256, whole.as_bytes());
    let hash = hash.as_ref().get(..HASHED).unwrap_or_default();
    format!("{}-{}", shown.trim_start_matches('.'), super::hex(hash))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(names: &[&str]) -> String {
        let names: Vec<_> = names.iter().map(|name| HostPattern::parse(name).unwrap()).collect();
        RecordId::of(&names).to_string()
    }

    #[test]
    fn an_id_is_a_file_name_and_knows_its_names() {
        let one = id(&["app.example.com", "www.example.com"]);
        assert!(one.starts_with("app.example.com-") && one.len() == 16 + 2 * HASHED, "{one}");
        assert_eq!(one, id(&["www.example.com", "app.example.com"]));
        assert!(id(&["*.example.com"]).starts_with("wildcard.example.com-"));
        assert_ne!(id(&["*.example.com"]), id(&["wildcard.example.com"]));
        assert_ne!(one, id(&["app.example.com"]));
        let long =
            format!("{}.example.com", [["a"; 60].concat(), ["b"; 60].concat(), ["c"; 60].concat()].join("."));
        assert!(id(&[&long]).len() <= SHOWN + 1 + 2 * HASHED);
    }

    #[test]
    fn a_directory_is_a_file_name() {
        let name = of_directory("https://localhost:14000/dir");
        assert!(name.starts_with("localhost_14000-"), "{name}");
        assert_ne!(name, of_directory("https://localhost:14000/other"));
        assert!(of_directory("../../etc").starts_with('-'));
    }
}
