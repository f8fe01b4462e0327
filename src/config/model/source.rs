//! Sources that are read from files.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A source and its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// The source's name.
    pub name: Arc<str>,
    /// Its file.
    pub path: PathBuf,
    /// How the file looked before it was read; None where it could not be looked at.
    pub stamp: Option<Stamp>,
}

/// How a file looks from outside. One that is written or replaced looks different.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    inode: (u64, u64),
    size: u64,
    changed: (i64, i64),
}

impl Stamp {
    /// How a file looks now.
    pub fn of(path: &Path) -> Option<Self> {
        let meta = fs::metadata(path).ok()?;
        Some(Self {
            inode: (meta.dev(), meta.ino()),
            size: meta.size(),
            changed: (meta.ctime(), meta.ctime_nsec()),
        })
    }
}
