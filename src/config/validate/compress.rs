//! `compress`: which answers are compressed.

use super::super::model::{Compress, MediaPattern};
use super::super::raw::{Table, Value};
use super::super::schema::COMPRESS;
use super::super::units;

/// What gains by it. Pictures, films, archives, PDF and WOFF are compressed already.
const TYPES: [&str; 14] = [
    "text/*",
    "application/json",
    "application/*+json",
    "application/javascript",
    "application/x-javascript",
    "application/xml",
    "application/*+xml",
    "application/wasm",
    "application/yaml",
    "application/vnd.ms-fontobject",
    "font/otf",
    "font/ttf",
    "image/svg+xml",
    "image/vnd.microsoft.icon",
];

/// Reads `compress` of a site or a route. What its table leaves out is as the site's own says.
pub(super) fn read(table: &Table<'_>, inherited: Option<&Compress>) -> Option<Compress> {
    let Some(value) = table.get("compress") else { return inherited.cloned() };
    match value.flag() {
        Some(true) => Some(inherited.cloned().unwrap_or_else(usual)),
        Some(false) => None,
        None if value.node.is_table() => value.table(&COMPRESS).map(|table| rules(&table, inherited)),
        None => {
            value.mismatch();
            None
        }
    }
}

fn rules(table: &Table<'_>, inherited: Option<&Compress>) -> Compress {
    let mut rules = inherited.cloned().unwrap_or_else(usual);
    if let Some(value) = table.get("types") {
        rules.types = value.items().unwrap_or_default().iter().filter_map(pattern).collect();
        if value.node.as_array().is_some_and(|array| array.is_empty()) {
            value.refuse("nothing is compressed so", "leave the key out, or write compress = false");
        }
    }
    if let Some(value) = table.get("min_size") {
        rules.min_size = value.size().unwrap_or_default();
    }
    rules
}

fn usual() -> Compress {
    let min_size = COMPRESS.key("min_size").and_then(|key| match key.absent {
        super::super::schema::Absent::Is(text) => units::size(text).ok(),
        _ => None,
    });
    Compress { types: TYPES.into_iter().filter_map(parse).collect(), min_size: min_size.unwrap_or_default() }
}

fn pattern(value: &Value<'_>) -> Option<MediaPattern> {
    let text = value.text()?;
    let found = parse(text);
    match &found {
        None => {
            let help = "write \"text/html\", \"text/*\" or \"application/*+json\"";
            value.refuse(format!("{text:?} is not a media type"), help);
        }
        Some(pattern) if pattern.matches(b"text/event-stream") && pattern.behind.is_none() => {
            value.refuse("event streams are never compressed", "leave it out");
        }
        Some(_) => {}
    }
    found
}

/// One slash, at most one asterisk behind it, and otherwise what RFC 9110 section 5.6.2 calls a token.
fn parse(text: &str) -> Option<MediaPattern> {
    let lower = text.to_ascii_lowercase();
    let (kind, subtype) = lower.split_once('/')?;
    let (front, behind) = match subtype.split_once('*') {
        Some((front, behind)) => (front, Some(behind)),
        None => (subtype, None),
    };
    let token =
        |part: &str| part.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'+-.^_`|~".contains(&b));
    let whole = !kind.is_empty() && !subtype.is_empty();
    (whole && [kind, front, behind.unwrap_or_default()].into_iter().all(token))
        .then(|| MediaPattern { before: format!("{kind}/{front}"), behind: behind.map(ToOwned::to_owned) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_what_they_say() {
        for (pattern, kind, expected) in [
            ("text/*", "text/html", true),
            ("TEXT/*", "Text/Html", true),
            ("text/*", "text/", true),
            ("text/*", "textual/html", false),
            ("application/*+json", "application/ld+json", true),
            ("application/*+json", "application/json", false),
            ("application/*+json", "application/+JSON", true),
            ("application/json", "application/json", true),
            ("application/json", "application/json5", false),
            ("image/x*x", "image/x", false),
        ] {
            let pattern = parse(pattern).unwrap();
            assert_eq!(pattern.matches(kind.as_bytes()), expected, "{pattern:?} {kind}");
        }
        for wrong in
            ["", "text", "/", "text/", "/html", "*/*", "text/*/*", "text/**", "text/html; q=1", "a b/c", "*"]
        {
            assert_eq!(parse(wrong), None, "{wrong:?}");
        }
        assert_eq!(usual().types.len(), TYPES.len());
    }
}
