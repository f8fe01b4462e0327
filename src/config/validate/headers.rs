//! `headers`: fields that are set on answers or taken off.

use http::{HeaderName, HeaderValue};

use super::super::model::{Headers, Place};
use super::super::raw::{Report, Table, Value};

/// What frames a message or speaks of one hop (RFC 9110 section 7.6.1, RFC 9112 section 6), and what the body is coded in.
const FRAMING: [&str; 10] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Reads `headers` of a table over those that it inherits.
pub(super) fn read(table: &Table<'_>, inherited: &Headers) -> Headers {
    let Some(own) = table.table("headers") else { return inherited.clone() };
    let set: Vec<_> = own.get("set").map(|value| set(&value)).unwrap_or_default();
    let remove: Vec<_> = own.get("remove").map(|value| remove(&value)).unwrap_or_default();
    if let Some((name, place)) = remove.iter().find(|(name, _)| set.iter().any(|(own, _)| own == name)) {
        own.report.error(place, format!("`{name}` is set and removed"), "keep one of the two");
    }
    let own_name =
        |name: &String| set.iter().any(|(own, _)| own == name) || remove.iter().any(|(own, _)| own == name);
    let mut headers = inherited.clone();
    headers.set.retain(|(name, _)| !own_name(name));
    headers.remove.retain(|name| !own_name(name));
    headers.set.extend(set);
    headers.remove.extend(remove.into_iter().map(|(name, _)| name));
    headers
}

fn set(value: &Value<'_>) -> Vec<(String, String)> {
    let mut fields: Vec<(String, String)> = Vec::new();
    for (name, place, value) in value.table_entries().unwrap_or_default() {
        let name = field_name(name, &place, value.report);
        let content = content(&value);
        if let (Some(name), Some(content)) = (name, content) {
            if fields.iter().any(|(other, _)| *other == name) {
                value.report.error(&place, "this header is set twice", "keep one of the two");
            }
            fields.push((name, content));
        }
    }
    fields
}

fn remove(value: &Value<'_>) -> Vec<(String, Place)> {
    let items = value.items().unwrap_or_default();
    let name =
        |item: &Value<'_>| Some((field_name(item.text()?, &item.place, item.report)?, item.place.clone()));
    items.iter().filter_map(name).collect()
}

/// A name in lower case that is the configuration's to decide about.
fn field_name(typed: &str, place: &Place, report: &Report<'_>) -> Option<String> {
    let Ok(name) = HeaderName::from_bytes(typed.as_bytes()) else {
        let help = "letters, digits and hyphens, as in \"X-Frame-Options\"";
        report.error(place, format!("{typed:?} is not the name of a header"), help);
        return None;
    };
    let name = name.as_str();
    if FRAMING.contains(&name) {
        let message = format!("`{name}` says how an answer is framed or coded, which the edge does itself");
        report.error(place, message, "leave it out");
        return None;
    }
    if name.starts_with("x-accel-") {
        report.error(place, format!("`{name}` is for the edge alone"), "let the upstream send it");
        return None;
    }
    Some(name.to_owned())
}

fn content(value: &Value<'_>) -> Option<String> {
    let Some(text) = value.node.as_str() else {
        value.expected("text");
        return None;
    };
    if text.is_empty() {
        value.refuse("a header without a value", "name it in `remove` to take it off");
        return None;
    }
    if HeaderValue::from_str(text).is_err() || text.trim() != text {
        let help = "one line, without control characters and white space around it";
        value.refuse(format!("{text:?} cannot be the value of a header"), help);
        return None;
    }
    Some(text.to_owned())
}
