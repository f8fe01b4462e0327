//! Files that hold one thing a line.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

use super::super::raw::Value;

/// How many wrong lines of one file are named.
const NAMED_LINES: usize = 20;

/// The file that `value` names, of so many octets at most. None was reported.
pub(super) fn read(path: &Path, value: &Value<'_>, max: u64) -> Option<Vec<u8>> {
    let told = |error: io::Error| {
        let missing = error.kind() == io::ErrorKind::NotFound;
        let help =
            if missing { "a relative path starts at the directory of the configuration file" } else { "" };
        value.refuse(format!("{} cannot be read: {error}", path.display()), help);
    };
    read_bounded(path, max).map_err(told).ok()
}

/// Reports the wrong lines of a file, by number, with what helps against them.
pub(super) fn refuse(path: &Path, value: &Value<'_>, wrong: Vec<(usize, String)>, help: &str) {
    value.refuse(wrong_lines(path, wrong), help);
}

/// The wrong lines of a file, by number.
pub(super) fn wrong_lines(path: &Path, wrong: Vec<(usize, String)>) -> String {
    let rest = wrong.len().saturating_sub(NAMED_LINES);
    let more = if rest > 0 { format!("\n  and {rest} more") } else { String::new() };
    let what = if wrong.len() == 1 { "a wrong line" } else { "wrong lines" };
    let shown = wrong.into_iter().take(NAMED_LINES).map(|(line, wrong)| format!("\n  line {line}: {wrong}"));
    format!("{} has {what}:{}{more}", path.display(), shown.collect::<String>())
}

/// A file of so many octets at most.
pub(crate) fn read_bounded(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    // Opening a pipe would wait for its writer, and a device may never end.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max {
        let message = format!("larger than {} MiB", max >> 20);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok(bytes)
}
