//! TOML: text in, a document with spans and every syntax error out.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::model::Place;
use super::problem::Problem;

const OPEN_TEXT: &str = "this text is never closed";

/// A document, as far as it could be read.
pub(super) struct Document<'a> {
    pub(super) root: DeTable<'a>,
    pub(super) problems: Vec<Problem>,
    /// Whether what stands beside the errors can be trusted to mean what it says.
    pub(super) sound: bool,
}

/// Reads the text. Where the errors are of the kind that leaves the rest of the document in order (a string
/// without quotes, a key given twice), the document can still be looked at.
pub(super) fn parse(text: &str) -> Document<'_> {
    let (root, errors) = DeTable::parse_recoverable(text);
    let root = root.into_inner();
    let mut problems = Vec::new();
    let mut unclosed: Vec<Range<usize>> = Vec::new();
    let mut sound = true;
    for error in &errors {
        let span = error.span().unwrap_or_default();
        let (problem, local) = explain(error.message(), span.clone(), text);
        sound &= local;
        if error.message().starts_with("unclosed")
            && let Some(begin) = opening(&root, span.end)
        {
            problems.push(Problem::new(
                Place { span: begin..begin + 1, path: String::new() },
                "this bracket is never closed",
                "close it; what follows could not be read",
            ));
            unclosed.push(begin..span.end);
        } else {
            problems.push(problem);
        }
    }
    keep_causes(&mut problems, &unclosed, text);
    Document { root, problems, sound }
}

/// Drops what an unclosed bracket made of the lines behind it, and all but the first error of a line.
fn keep_causes(problems: &mut Vec<Problem>, unclosed: &[Range<usize>], text: &str) {
    problems.sort_by_key(|problem| problem.place.span.start);
    for range in unclosed {
        let at = |problem: &Problem| problem.place.span.start;
        // A text that is never closed has swallowed the bracket that was to follow it.
        let first =
            problems.iter().find(|problem| range.start < at(problem)).filter(|p| p.message == OPEN_TEXT);
        let cause = first.map_or(range.start, at);
        problems.retain(|problem| {
            !range.contains(&at(problem)) && at(problem) != range.end || at(problem) == cause
        });
    }
    problems.dedup_by(|later, first| {
        let between = first.place.span.start..later.place.span.start;
        text.get(between).is_some_and(|text| !text.contains('\n'))
    });
}

/// Where the array or inline table begins that ends, unclosed, at `end`.
fn opening(table: &DeTable<'_>, end: usize) -> Option<usize> {
    table.values().find_map(|value| within(value.get_ref(), &value.span(), end))
}

fn within(value: &DeValue<'_>, span: &Range<usize>, end: usize) -> Option<usize> {
    match value {
        DeValue::Array(items) => items
            .iter()
            .find_map(|item| within(item.get_ref(), &item.span(), end))
            .or_else(|| (span.end == end).then_some(span.start)),
        DeValue::Table(table) => opening(table, end).or_else(|| (span.end == end).then_some(span.start)),
        _ => None,
    }
}

/// The parser's message in the words of this file, and whether the error stays where it is.
fn explain(message: &str, span: Range<usize>, text: &str) -> (Problem, bool) {
    let found = text.get(span.clone()).unwrap_or("");
    let number = ["invalid float", "invalid integer"].iter().any(|start| message.starts_with(start));
    let word = number && found.starts_with(|c: char| c.is_ascii_alphabetic());
    let (message, help, local) = if message.starts_with("string values must be quoted") && found.is_empty() {
        ("a value is missing".to_owned(), "write one behind the equals sign".to_owned(), true)
    } else if word || message.starts_with("string values must be quoted") {
        ("text stands in quotes".to_owned(), format!("write \"{found}\""), true)
    } else if message.starts_with("invalid boolean") {
        (format!("`{found}` is not a value"), format!("{}, or quotes around text", boolean(found)), true)
    } else if is_open_text(message) {
        (OPEN_TEXT.to_owned(), "close it with a quote".to_owned(), false)
    } else if message == "duplicate key" {
        let (message, help) = twice(found, text.get(..span.start).unwrap_or(""));
        (message, help.to_owned(), true)
    } else if message.starts_with("unexpected leading zero") {
        ("a number has no leading zero".to_owned(), "leave it out".to_owned(), true)
    } else if message.starts_with("key with no value") {
        ("a key without a value".to_owned(), "write key = value, or delete the line".to_owned(), false)
    } else {
        (format!("not TOML: {message}"), "see https://toml.io for the syntax".to_owned(), false)
    };
    // An empty span at the start of the file would be the file as a whole.
    let span = if span.end == 0 { 0..text.chars().next().map_or(0, char::len_utf8) } else { span };
    (Problem::new(Place { span, path: String::new() }, message, help), local)
}

fn is_open_text(message: &str) -> bool {
    let text = message.starts_with("invalid basic string") || message.starts_with("invalid literal string");
    text && (message.ends_with("expected `\"`") || message.ends_with("expected `'`"))
}

/// A table's header, or a key.
fn twice(found: &str, before: &str) -> (String, &'static str) {
    let line = before.rsplit('\n').next().unwrap_or("");
    if line.trim_start().starts_with('[') {
        return (
            format!("[{}{found}] is given twice", line.trim_start_matches([' ', '\t', '['])),
            "put its keys below one header",
        );
    }
    (format!("`{}` is given twice", found.trim_matches(['"', '\''])), "keep one of the two")
}

fn boolean(found: &str) -> &'static str {
    if found.starts_with(['f', 'F']) { "write false" } else { "write true" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unclosed_bracket_is_one_problem() {
        let document = parse("a = 1\nb = [1, 2\nc = 2\n[d]\ne = 'x'\n");
        let found: Vec<_> = document.problems.iter().map(|p| (p.place.span.clone(), &*p.message)).collect();
        assert_eq!(found, [(10..11, "this bracket is never closed")]);
        assert!(!document.sound);
    }

    #[test]
    fn unquoted_text_leaves_the_rest_in_order() {
        let document = parse("a = django:8000\nb = 30s\n");
        assert_eq!(document.problems.len(), 2);
        assert!(document.sound);
        assert_eq!(document.root.len(), 2);
    }
}
