//! The kernel's side, through the `nft` program.

use std::fs::File;
use std::io::{self, Seek as _, Write as _};
use std::process::{Command, Stdio};

use super::nft::{self, TABLE};
use super::plan::Held;

/// Why the kernel's rules could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// The program is not there.
    #[error("the program nft is not installed; on Debian and Ubuntu: apt-get install nftables")]
    Missing,
    /// Not root.
    #[error("the kernel's rules are for root alone (CAP_NET_ADMIN): run this with sudo")]
    NotPermitted,
    /// The kernel has no nftables.
    #[error("this kernel has no nftables: {0}")]
    Unsupported(String),
    /// It said no, and nothing has changed.
    #[error("nft refused, and nothing has changed: {0}")]
    Refused(String),
    /// It could not be run.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// What was met.
        source: io::Error,
    },
}

fn failed(what: &'static str) -> impl FnOnce(io::Error) -> NftError {
    move |source| NftError::Io { what, source }
}

/// Carries out a text in one transaction: all of it, or nothing.
pub fn load(text: &str) -> Result<(), NftError> {
    // A pipe whose writer dies would be a ruleset that ends too soon; a file is whole before nft sees it.
    let mut file = tempfile::tempfile().map_err(failed("a temporary file"))?;
    file.write_all(text.as_bytes()).and_then(|()| file.rewind()).map_err(failed("a temporary file"))?;
    run(&["-f", "-"], Some(&file)).map(drop)
}

/// Our table as nft writes it, whole and fit to be loaded again; None where there is none.
pub fn listed() -> Result<Option<String>, NftError> {
    list(&["list", "table", "inet", TABLE])
}

/// The same without elements, counters and handles.
pub(super) fn structure() -> Result<Option<String>, NftError> {
    list(&["-s", "-t", "list", "table", "inet", TABLE])
}

/// The whole in JSON, with the time that is left to leases.
pub(super) fn json() -> Result<Option<String>, NftError> {
    list(&["-j", "list", "table", "inet", TABLE])
}

/// Puts the leases of an applied ruleset right. False where none is applied.
pub fn sync_leases(leases: &[Held]) -> Result<bool, NftError> {
    let Some(listed) = structure()? else { return Ok(false) };
    load(&nft::lease_text(leases, &listed)).map(|()| true)
}

/// Whether our table is there.
pub fn is_applied() -> Result<bool, NftError> {
    Ok(list(&["-t", "list", "table", "inet", TABLE])?.is_some())
}

fn list(arguments: &[&str]) -> Result<Option<String>, NftError> {
    match run(arguments, None) {
        Ok(text) => Ok(Some(text)),
        Err(NftError::Refused(words)) if words.contains("No such file or directory") => Ok(None),
        Err(error) => Err(error),
    }
}

/// Runs `nft`. What it says on standard error is the error.
fn run(arguments: &[&str], input: Option<&File>) -> Result<String, NftError> {
    let output = PLACES.iter().find_map(|place| {
        let mut command = Command::new(place);
        command.args(arguments).env("LC_ALL", "C").stdin(Stdio::null());
        // A copy shares its place in the file, which nobody has read from where the program was not found.
        if let Some(copy) = input.and_then(|file| file.try_clone().ok()) {
            command.stdin(copy);
        }
        match command.output() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            other => Some(other),
        }
    });
    let output = output.ok_or(NftError::Missing)?.map_err(failed("nft"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(why(&String::from_utf8_lossy(&output.stderr)))
}

/// A user's PATH often lacks the second.
const PLACES: [&str; 3] = ["nft", "/usr/sbin/nft", "/sbin/nft"];

fn why(words: &str) -> NftError {
    // The lines after the first show the place, which for a million addresses is no help.
    let first: String = words.lines().next().unwrap_or("no reason was given").chars().take(300).collect();
    if words.contains("Operation not permitted") || words.contains("Permission denied") {
        NftError::NotPermitted
    } else if words.contains("not supported") || words.contains("Protocol not") {
        NftError::Unsupported(first)
    } else {
        NftError::Refused(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nft_says_is_understood() {
        for (words, expected) in [
            ("Error: Could not process rule: Operation not permitted\nadd table", "run this with sudo"),
            ("netlink: Error: cache initialization failed: Operation not permitted", "run this with sudo"),
            (
                "Error: syntax error, unexpected '}'\n1: x",
                "nothing has changed: Error: syntax error, unexpected '}'",
            ),
            ("Error: Could not process rule: Operation not supported", "has no nftables"),
            ("", "no reason was given"),
        ] {
            let told = why(words).to_string();
            assert!(told.ends_with(expected) || told.contains(expected), "{words}: {told}");
        }
    }
}
