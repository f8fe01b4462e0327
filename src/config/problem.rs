//! What is wrong with a configuration, where, and what to do about it.

use std::fmt::{self, Write as _};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use super::model::Place;

/// The longest part of a source line that is shown, in characters.
const SHOWN: usize = 100;
/// How many characters of a longer line are shown before the span.
const BEFORE: usize = 40;

/// The text of a configuration file, with inline secrets blanked out.
#[derive(Debug, Clone, Default)]
pub struct SourceText {
    /// The file, as the person named it.
    pub file: PathBuf,
    /// Its text. Offsets into it are those of the file.
    pub text: String,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where; the default place is the file as a whole.
    pub place: Place,
    /// What is wrong, without a full stop.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

impl Problem {
    /// A problem with its remedy; an empty `help` is none.
    pub fn new(place: Place, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { place, message: message.into(), help: Some(help.into()).filter(|help| !help.is_empty()) }
    }
}

/// Everything that is wrong with one file, in the order of the file. Shown, it is ready for a terminal.
#[derive(Debug, Clone)]
pub struct Problems {
    source: Arc<SourceText>,
    list: Vec<Problem>,
}

impl Problems {
    /// Sorts the problems by their place. `list` has at least one.
    pub fn new(source: Arc<SourceText>, mut list: Vec<Problem>) -> Self {
        debug_assert!(!list.is_empty(), "no problem is no Problems");
        list.sort_by_key(|problem| (problem.place.span.start, problem.place.span.end));
        Self { source, list }
    }

    /// Fails where `list` has anything in it.
    pub fn check(source: &Arc<SourceText>, list: Vec<Problem>) -> Result<(), Self> {
        if list.is_empty() { Ok(()) } else { Err(Self::new(Arc::clone(source), list)) }
    }

    /// One or more.
    pub fn list(&self) -> &[Problem] {
        &self.list
    }

    /// The file that they are in.
    pub fn text(&self) -> &Arc<SourceText> {
        &self.source
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&render("error", &self.source, &self.list))
    }
}

impl std::error::Error for Problems {}

/// Every problem as a person reads it, behind `label` ("error" or "warning"), with an empty line between two.
pub fn render(label: &str, source: &SourceText, problems: &[Problem]) -> String {
    let lines = Lines::of(&source.text);
    let mut out = String::new();
    for (index, problem) in problems.iter().enumerate() {
        let gap = if index == 0 { "" } else { "\n" };
        let _ = write!(out, "{gap}{label}: {}", clean(&problem.message));
        out.push_str("\n --> ");
        out.push_str(&source.file.to_string_lossy());
        render_place(&mut out, &lines, &problem.place);
        if let Some(help) = &problem.help {
            let _ = writeln!(out, "help: {}", clean(help));
        }
    }
    out
}

fn render_place(out: &mut String, lines: &Lines<'_>, place: &Place) {
    let known = place.span.end > 0;
    let spot = lines.locate(&place.span);
    if known {
        let _ = write!(out, ":{}:{}", spot.line, spot.columns.start + 1);
    }
    if !place.path.is_empty() {
        let _ = write!(out, "  ({})", clean(&place.path));
    }
    out.push('\n');
    if known {
        let (shown, underline) = excerpt(spot.text, spot.columns);
        let number = spot.line.to_string();
        let _ = writeln!(out, "{number} | {shown}\n{:1$} | {underline}", "", number.len());
    }
}

/// Where a line begins, for every line.
pub(super) struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

struct Spot<'a> {
    /// From 1.
    line: usize,
    text: &'a str,
    /// From 0, in characters.
    columns: Range<usize>,
}

impl<'a> Lines<'a> {
    pub(super) fn of(text: &'a str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { text, starts }
    }

    /// The number, from 1, of the line that holds the offset.
    pub(super) fn number(&self, offset: usize) -> usize {
        self.starts.partition_point(|&start| start <= offset)
    }

    fn locate(&self, span: &Range<usize>) -> Spot<'a> {
        let start = self.text.floor_char_boundary(span.start);
        let line = self.number(start);
        let begin = self.starts.get(line.saturating_sub(1)).copied().unwrap_or(0);
        let rest = self.text.get(begin..).unwrap_or("");
        let text = rest.split('\n').next().unwrap_or("").trim_end_matches('\r');
        let column = |offset: usize| {
            let inside = text.floor_char_boundary(offset.saturating_sub(begin));
            text.get(..inside).unwrap_or("").chars().count()
        };
        let from = column(start);
        Spot { line, text, columns: from..column(span.end).max(from + 1) }
    }
}

/// The part of a line around some columns, and the carets that stand below them.
fn excerpt(line: &str, columns: Range<usize>) -> (String, String) {
    let length = line.chars().count();
    let first = if length > SHOWN { columns.start.saturating_sub(BEFORE) } else { 0 };
    let last = first + SHOWN;
    let mark = |cut: bool| if cut { "…" } else { "" };
    let part: String = line.chars().skip(first).take(SHOWN).collect();
    let shown = format!("{}{}{}", mark(first > 0), clean(&part), mark(length > last));
    let before = part.chars().take(columns.start - first).map(|c| if c == '\t' { '\t' } else { ' ' });
    let lead = mark(first > 0).chars().map(|_| ' ');
    let carets = "^".repeat(columns.end.min(last) - columns.start);
    (shown, lead.chain(before).collect::<String>() + &carets)
}

/// Text that a terminal shows as it stands: no control characters but tab and line feed, and none that reorder
/// text.
fn clean(text: &str) -> String {
    let hidden = |c: char| {
        (c.is_control() && c != '\t' && c != '\n')
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|c| if hidden(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, span: Range<usize>) -> String {
        let source = SourceText { file: "edge.toml".into(), text: text.into() };
        let place = Place { span, path: "a.b".into() };
        Problems::new(Arc::new(source), vec![Problem::new(place, "wrong", "right")]).to_string()
    }

    #[test]
    fn the_caret_stands_below_the_span() {
        for (text, span, line) in [
            ("key = 1", 6..7, "1:7  (a.b)\n1 | key = 1\n  |       ^"),
            ("\n\tkey = 1\r\n", 8..9, "2:8  (a.b)\n2 | \tkey = 1\n  | \t      ^"),
            ("ü = \"é\"", 5..9, "1:5  (a.b)\n1 | ü = \"é\"\n  |     ^^^"),
            ("a\nb\n", 4..4, "3:1  (a.b)\n3 | \n  | ^"),
            ("x = [\n1]", 4..8, "1:5  (a.b)\n1 | x = [\n  |     ^"),
            ("a\u{1b}b", 0..1, "1:1  (a.b)\n1 | a\u{fffd}b\n  | ^"),
            ("a", 70..90, "1:2  (a.b)\n1 | a\n  |  ^"),
        ] {
            let expected = format!("error: wrong\n --> edge.toml:{line}\nhelp: right\n");
            assert_eq!(shown(text, span), expected, "{text:?}");
        }
    }

    #[test]
    fn a_long_line_is_cut_around_the_span() {
        let text = format!("{}X{}", "a".repeat(500), "b".repeat(500));
        let out = shown(&text, 500..501);
        let expected = format!("1 | …{}X{}…\n  | {}^\n", "a".repeat(40), "b".repeat(59), " ".repeat(41));
        assert!(out.contains(&expected), "{out}");
    }

    #[test]
    fn a_problem_of_the_whole_file_has_no_line() {
        let source = SourceText { file: "edge.toml".into(), text: String::new() };
        let problem = Problem::new(Place::default(), "cannot be read", "");
        let out = Problems::new(Arc::new(source), vec![problem]).to_string();
        assert_eq!(out, "error: cannot be read\n --> edge.toml\n");
    }
}
