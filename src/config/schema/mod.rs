//! Every table and key of the file: one list that drives the reader, its messages and the documentation.

mod json;
mod tables;

pub use json::schema;
pub use tables::*;

/// A table of the file.
#[derive(Debug)]
pub struct Table {
    /// As a person writes its header, `[[site]]`; empty for the top of the file.
    pub header: &'static str,
    /// What it is for, in one line.
    pub doc: &'static str,
    /// Its keys, in the order of the documentation.
    pub keys: &'static [Key],
}

/// A key of a table.
#[derive(Debug)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// What holds where it is missing.
    pub absent: Absent,
    /// What it does, in one line.
    pub doc: &'static str,
}

/// What a key takes.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// Text, with an example.
    Text(&'static str),
    /// The path of a file or directory.
    Path,
    /// true or false.
    Flag,
    /// A whole number within bounds.
    Whole(u64, u64),
    /// A number from 0 to 1.
    Fraction,
    /// A duration within bounds.
    Duration(&'static str, &'static str),
    /// A size within bounds.
    Size(&'static str, &'static str),
    /// One of some words.
    Choice(&'static [&'static str]),
    /// A list of text, with an example of an element.
    Texts(&'static str),
    /// A list of names from `[sources]`.
    Sources,
    /// A table.
    Table(&'static Table),
    /// An array of tables.
    Tables(&'static Table),
    /// A table with keys of the person's own choice.
    Map(&'static str),
    /// Several forms, as a person would be told them.
    Either(&'static str),
    /// A name that the product has and this version does not build, and what to do instead.
    Later(&'static str),
}

/// What holds where a key is missing.
#[derive(Debug, Clone, Copy)]
pub enum Absent {
    /// It is an error.
    Wrong,
    /// Nothing: what the key sets is left out, or decided elsewhere as its doc says.
    Nothing,
    /// This value, as it would be typed (without quotes).
    Is(&'static str),
}

impl Table {
    /// The key of that name.
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }
}

impl Kind {
    /// What it takes, with an example, to stand behind "expected".
    pub fn expected(&self) -> String {
        match self {
            Self::Text(example) => format!("text, as in \"{example}\""),
            Self::Path => "a path, as in \"/etc/vestibule/clients.pem\"".into(),
            Self::Flag => "true or false".into(),
            Self::Whole(..) => "a whole number".into(),
            Self::Fraction => "a number from 0 to 1, as in 0.1".into(),
            Self::Duration(..) => "a duration, as in \"30s\"".into(),
            Self::Size(..) => "a size, as in \"64MiB\"".into(),
            Self::Choice(words) => choice(words),
            Self::Texts(example) => format!("a list, as in [\"{example}\"]"),
            Self::Sources => "a list of sources, as in [\"internal\"]".into(),
            Self::Table(table) => format!("a table, as in {}", table.header),
            Self::Tables(table) => format!("a list of tables, each headed {}", table.header),
            Self::Map(example) | Self::Either(example) => (*example).into(),
            Self::Later(_) => "nothing yet".into(),
        }
    }
}

/// `"a", "b" or "c"`
pub(super) fn choice(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}

/// Places that take a secret. An inline string there is an error, and is never shown. `*` is any element.
pub(super) static SECRETS: &[&[&str]] = &[
    &["acme", "eab", "hmac"],
    &["acme", "fallback", "*", "eab", "hmac"],
    &["acme", "dns", "key"],
    &["acme", "dns", "token"],
    &["store", "url"],
    &["store", "key"],
    &["trace", "headers"],
];

/// Whether secrets are named in the table of that path, or below it.
pub(super) fn has_secrets(path: &str) -> bool {
    let first = path.split(['.', '[']).next();
    SECRETS.iter().any(|keys| keys.first().copied() == first)
}

#[cfg(test)]
mod tests {
    use super::super::units;
    use super::Absent::{Is, Nothing, Wrong};
    use super::Kind::{Choice, Duration, Size, Whole};
    use super::*;

    #[test]
    fn bounds_and_defaults_are_in_order() {
        for key in TABLES.iter().flat_map(|table| table.keys) {
            let default = match key.absent {
                Is(text) => Some(text),
                Nothing | Wrong => None,
            };
            match key.kind {
                Duration(min, max) => {
                    within(key, [Some(min), default, Some(max)].map(|text| text.map(units::duration)));
                }
                Size(min, max) => {
                    within(key, [Some(min), default, Some(max)].map(|text| text.map(units::size)));
                }
                Whole(min, max) => {
                    assert!(default.is_none_or(|text| (min..=max).contains(&text.parse().unwrap())));
                }
                Choice(words) => assert!(default.is_none_or(|text| words.contains(&text)), "{}", key.name),
                _ => {}
            }
        }
    }

    fn within<T: PartialOrd>(key: &Key, [min, default, max]: [Option<Result<T, String>>; 3]) {
        let read = |value: Option<Result<T, String>>| value.map(Result::unwrap);
        let (min, default, max) = (read(min), read(default), read(max));
        assert!(min < max, "{}", key.name);
        assert!(default.is_none() || (min <= default && default <= max), "{}", key.name);
    }

    #[test]
    fn a_key_stands_once_in_its_table() {
        for table in TABLES {
            for key in table.keys {
                assert_eq!(
                    table.keys.iter().filter(|other| other.name == key.name).count(),
                    1,
                    "{}",
                    key.name
                );
                assert!(!key.doc.is_empty() && !key.doc.ends_with('.'), "{}", key.name);
            }
        }
    }
}
