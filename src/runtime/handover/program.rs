//! Which program an upgrade starts.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// What the kernel puts behind the path of a program whose file was replaced.
const DELETED: &[u8] = b" (deleted)";

/// What this process was started as.
#[derive(Debug)]
pub(in crate::runtime) struct Program {
    /// Where the program is looked for, again at each upgrade: links on the way to it may lead elsewhere by then.
    pub(super) path: PathBuf,
    /// The name that it was started by, and its arguments.
    pub(super) arguments: Vec<OsString>,
}

impl Program {
    /// Call it at the start: a working directory may change, and a file may be replaced.
    pub(in crate::runtime) fn of_this_process() -> Self {
        let arguments: Vec<_> = env::args_os().collect();
        let running = fs::metadata("/proc/self/exe").ok();
        let typed = arguments.first().and_then(|name| typed(name, running.as_ref()?));
        Self { path: typed.unwrap_or_else(own_path), arguments }
    }
}

/// The path that was typed, where it leads to what runs.
fn typed(name: &OsStr, running: &Metadata) -> Option<PathBuf> {
    let is_this = |path: &PathBuf| {
        fs::metadata(path).is_ok_and(|found| (found.dev(), found.ino()) == (running.dev(), running.ino()))
    };
    if name.as_bytes().contains(&b'/') {
        return std::path::absolute(name).ok().filter(is_this);
    }
    let path = env::var_os("PATH")?;
    env::split_paths(&path).filter_map(|folder| std::path::absolute(folder.join(name)).ok()).find(is_this)
}

/// What the kernel says.
fn own_path() -> PathBuf {
    let path = env::current_exe().unwrap_or_else(|_| PathBuf::from("/proc/self/exe"));
    match path.as_os_str().as_bytes().strip_suffix(DELETED) {
        Some(before) if !path.exists() => PathBuf::from(OsString::from_vec(before.to_vec())),
        _ => path,
    }
}

/// Why a program could not be started, and what to do.
pub(super) fn cannot_start(path: &Path, error: &std::io::Error) -> String {
    let hint = match error.raw_os_error().map(nix::errno::Errno::from_raw) {
        Some(nix::errno::Errno::ENOEXEC) => "; it is not a program for this machine's architecture",
        Some(nix::errno::Errno::EACCES) => "; the user that the edge runs as must be able to read and run it",
        Some(nix::errno::Errno::ENOENT) => "; it, or the loader that it names, is not there",
        Some(nix::errno::Errno::ETXTBSY) => "; it is still being written: put it in place with mv, not cp",
        _ => "",
    };
    format!("{} cannot be started: {error}{hint}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_found_again() {
        let running = fs::metadata("/proc/self/exe").unwrap();
        let own = env::current_exe().unwrap();
        assert_eq!(typed(own.as_os_str(), &running), Some(own.clone()));
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&own, &link).unwrap();
        assert_eq!(typed(link.as_os_str(), &running), Some(link.clone()), "the link is followed again later");
        assert_eq!(typed(OsStr::new("/bin/sh"), &running), None, "a name may lie");
        assert_eq!(typed(OsStr::new("no-such-program-here"), &running), None);
        assert_eq!(Program::of_this_process().path, own);
    }
}
