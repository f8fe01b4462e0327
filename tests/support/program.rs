//! Programs that a test puts somewhere, to be executed.
//!
//! Other processes write them: a file that this one has open for writing, a child which another test is just starting has
//! open as well for a moment, and what somebody may write to is not executed (ETXTBSY).

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// Writes a program.
pub(crate) fn write(path: &Path, content: impl AsRef<[u8]>) {
    let mut shell = Command::new("sh");
    shell.args(["-c", "cat >\"$0\" && chmod 755 \"$0\""]).arg(path).stdin(Stdio::piped());
    let mut shell = shell.spawn().unwrap();
    shell.stdin.take().unwrap().write_all(content.as_ref()).unwrap();
    assert!(shell.wait().unwrap().success(), "{} cannot be written", path.display());
}

/// Copies a program.
pub(crate) fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").args([from, to]).status().unwrap().success(), "{}", to.display());
}
