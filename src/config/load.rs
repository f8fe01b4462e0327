//! A file in, a configuration or every problem with it out.

use std::fs::File;
use std::io::{self, Read as _};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::Spanned;

use super::model::{Admin, Config, Place};
use super::problem::{Lines, Problem, Problems, SourceText, render};
use super::raw::{Report, Table};
use super::{schema, syntax, validate};

/// The largest configuration file in octets.
const MAX_FILE: u64 = 256 << 20;

/// A configuration that is in order.
#[derive(Debug)]
pub struct Loaded {
    /// What is true.
    pub config: Config,
    /// What was typed, for problems that are found later.
    pub source: Arc<SourceText>,
    /// What works, and is likely not meant.
    pub warnings: Vec<Problem>,
}

impl Loaded {
    /// The warnings as a person reads them; empty where there is none.
    pub fn warning_text(&self) -> String {
        render("warning", &self.source, &self.warnings)
    }

    /// Where the value of a key of a table stands, as in `store` and `path`; what is not in the file is in the file as a whole.
    pub fn place(&self, table: &str, key: &str) -> Place {
        let document = syntax::parse(&self.source.text).root;
        let value = document.get(table).and_then(|table| table.get_ref().as_table()?.get(key));
        Place { span: value.map(Spanned::span).unwrap_or_default(), path: format!("{table}.{key}") }
    }
}

/// Reads and checks a file. The error names every problem of it, a file that cannot be read among them.
pub fn load(path: &Path) -> Result<Loaded, Problems> {
    parse(text(path)?, path)
}

/// Reads and checks a file for whoever looks on for what else is wrong. Of a configuration with problems is true what they are
/// not about. The error is of a file that cannot be read, or is too broken to look on.
pub fn inspect(path: &Path) -> Result<(Loaded, Vec<Problem>), Problems> {
    judge(text(path)?, path)
}

/// The `[admin] socket` of a file, whatever else is wrong with it or with what it names: a running edge is asked there.
///
/// # Errors
/// The file cannot be read, or is too broken to tell.
pub fn admin_socket(path: &Path) -> Result<PathBuf, Problems> {
    let text = text(path)?;
    let document = syntax::parse(&text);
    let typed = document.root.get("admin").and_then(|admin| admin.get_ref().as_table()?.get("socket"));
    let told = match typed.map(|typed| typed.get_ref().as_str().unwrap_or_default()) {
        Some("") => Err("[admin] socket is not a path, so that nobody knows the running edge's"),
        Some(socket) => Ok(PathBuf::from(socket)),
        // It may stand where nothing could be read.
        None if !document.sound => Err("this is not TOML, so that nobody knows the running edge's socket"),
        None => Ok(Admin::default_socket()),
    };
    told.map_err(|message| {
        // The text may have secrets in it, and is not shown.
        let source = SourceText { file: path.to_owned(), text: String::new() };
        let help = "name the socket with --socket PATH; `vestibule check` says what is wrong with the file";
        Problems::new(Arc::new(source), vec![Problem::new(Place::default(), message, help)])
    })
}

fn text(path: &Path) -> Result<String, Problems> {
    let whole = |message: String, help: &str| {
        let source = SourceText { file: path.to_owned(), text: String::new() };
        Problems::new(Arc::new(source), vec![Problem::new(Place::default(), message, help)])
    };
    let bytes =
        read(path).map_err(|error| whole(format!("the file cannot be read: {error}"), read_help(&error)))?;
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let line = error.as_bytes().iter().take(good).filter(|&&b| b == b'\n').count() + 1;
        whole(format!("the file is not UTF-8: line {line} has other bytes"), "save it as UTF-8")
    })
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(io::Error::other("larger than 256 MiB"));
    }
    Ok(bytes)
}

fn read_help(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "name another with --config FILE",
        io::ErrorKind::PermissionDenied => "let the user that the edge runs as read it",
        _ => "",
    }
}

/// Checks a text as if it were the content of `file`, which need not exist.
pub fn parse(text: String, file: &Path) -> Result<Loaded, Problems> {
    let (loaded, problems) = judge(text, file)?;
    Problems::check(&loaded.source, problems)?;
    Ok(loaded)
}

fn judge(text: String, file: &Path) -> Result<(Loaded, Vec<Problem>), Problems> {
    let Checked { config, problems, mut warnings, secrets } = check(&text, file);
    let source = Arc::new(SourceText { file: file.to_owned(), text: blank(text, &secrets) });
    let Some(config) = config else { return Err(Problems::new(source, problems)) };
    warnings.sort_by_key(|warning| warning.place.span.start);
    Ok((Loaded { config, source, warnings }, problems))
}

struct Checked {
    /// None where the syntax is too broken for one; `problems` says so.
    config: Option<Config>,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
    secrets: Vec<Range<usize>>,
}

fn check(text: &str, file: &Path) -> Checked {
    let syntax::Document { root, problems: mut syntax, sound } = syntax::parse(text);
    let report = Report::new(text, !syntax.is_empty());
    validate::report_secrets(&root, &report);
    let secret_count = report.problems.borrow().len();
    let top = || Table::open(&root, &schema::ROOT, Place::default(), &report);
    let config = sound.then(|| validate::config(&top(), file));
    let lines = Lines::of(text);
    let (mut problems, warnings, secrets) = report.into_parts();
    // A secret without quotes is told as a secret: the syntax error would show it.
    syntax.retain(|problem| !secrets.iter().any(|secret| secret.contains(&problem.place.span.start)));
    // Any other syntax error explains what else is wrong on its line.
    let line = |problem: &Problem| lines.number(problem.place.span.start);
    let broken: Vec<usize> = syntax.iter().map(line).collect();
    let mut index = 0..;
    problems.retain(|problem| index.next() < Some(secret_count) || !broken.contains(&line(problem)));
    problems.append(&mut syntax);
    Checked { config, problems, warnings, secrets }
}

/// Puts an asterisk in the place of every octet of the spans, so that all other offsets stay what they are.
fn blank(text: String, spans: &[Range<usize>]) -> String {
    if spans.is_empty() {
        return text;
    }
    let mut bytes = text.into_bytes();
    for byte in spans.iter().flat_map(Range::clone) {
        if let Some(byte) = bytes.get_mut(byte).filter(|byte| **byte != b'\n') {
            *byte = b'*';
        }
    }
    // Spans of values begin and end on characters, so that nothing is lost here.
    String::from_utf8_lossy(&bytes).into_owned()
}
