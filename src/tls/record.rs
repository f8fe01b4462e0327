//! Secrets on disk: a directory that nobody else may enter, and records that appear whole or not at all.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Why something in the store cannot be used. Each message ends with what to do.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system said no.
    #[error("{}: cannot {doing} it: {source}{}", path.display(), hint(source))]
    Io {
        /// What was tried.
        doing: &'static str,
        /// With which file or directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Others could read or replace it.
    #[error("{}: its permissions {found:04o} let others in; run: chmod {wanted:o} {}", path.display(), path.display())]
    Loose {
        /// The file or directory.
        path: PathBuf,
        /// Its permission bits.
        found: u32,
        /// What they must be.
        wanted: u32,
    },
    /// Somebody else could change it at any time.
    #[error("{}: belongs to user {owner}; run: chown {wanted} {}", path.display(), path.display())]
    Foreign {
        /// The file or directory.
        path: PathBuf,
        /// Whose it is, as a user id.
        owner: u32,
        /// Whose it must be.
        wanted: u32,
    },
    /// The record is there and is not one.
    #[error("{}: {why}; put the file back from a backup, or remove it to have a new one made", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The record does not exist yet.
    #[error("{}: not made yet; it is made when a site with certificate = \"internal\" is first served", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// Key or certificate could not be made.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
}

/// What to do about it.
fn hint(source: &io::Error) -> &'static str {
    match source.kind() {
        ErrorKind::PermissionDenied => {
            "; the store is for the user that the edge runs as: be that user, or hand it over with chown -R"
        }
        ErrorKind::ReadOnlyFilesystem => "; name a [store] path that can be written",
        _ => "",
    }
}

impl StoreError {
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { doing, path: path.to_owned(), source }
    }
}

/// Makes the directory where it is missing, and refuses one that others may enter.
pub(crate) fn private_dir(path: &Path) -> Result<(), StoreError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(StoreError::io("create", path))?;
    let metadata = fs::metadata(path).map_err(StoreError::io("look at", path))?;
    own(path, &metadata, 0o700)
}

/// The record's bytes; None where there is no such file. Refused when others may read it.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::io("open", path)(error)),
    };
    let metadata = file.metadata().map_err(StoreError::io("look at", path))?;
    own(path, &metadata, 0o600)?;
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut file, &mut bytes).map_err(StoreError::io("read", path))?;
    Ok(Some(bytes))
}

/// Writes a record, 0600, that must not exist yet. False when somebody else was first; theirs is untouched.
pub(crate) fn create(path: &Path, bytes: &[u8]) -> Result<bool, StoreError> {
    let draft = draft(path, bytes, 0o600)?;
    // A link, unlike a rename, never replaces what is there: of two processes exactly one wins.
    let linked = fs::hard_link(&draft, path);
    fs::remove_file(&draft).map_err(StoreError::io("remove", &draft))?;
    match linked {
        Ok(()) => sync_parent(path).map(|()| true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(StoreError::io("create", path)(error)),
    }
}

/// Writes a public file, 0644, in place of what may be there.
pub(crate) fn publish(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    put(path, bytes, 0o644)
}

/// Writes a record, 0600, in place of what may be there, which stays as `previous`. Whenever this is interrupted, one
/// whole generation is at `path`: the old one or the new one.
pub(crate) fn replace(path: &Path, previous: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let draft = draft(path, bytes, 0o600)?;
    let swap = || {
        keep(path, previous, &draft)?;
        fs::rename(&draft, path).map_err(StoreError::io("replace", path))
    };
    swap().inspect_err(|_| drop(fs::remove_file(&draft)))?;
    sync_parent(path)
}

/// Writes a record, 0600, in place of what may be there.
pub(crate) fn overwrite(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    put(path, bytes, 0o600)
}

/// Gives the file at `path` the name `previous` as well. The name of the draft makes the one in between unique.
fn keep(path: &Path, previous: &Path, draft: &Path) -> Result<(), StoreError> {
    let between = draft.with_extension("kept.draft");
    match fs::hard_link(path, &between) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        linked => linked.map_err(StoreError::io("keep", path))?,
    }
    fs::rename(&between, previous).map_err(StoreError::io("replace", previous))
}

/// A file, 0600, made where there is none, for its lock and not for what is in it.
pub(crate) fn open_private(path: &Path) -> Result<File, StoreError> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    let file = file.map_err(StoreError::io("open", path))?;
    own(path, &file.metadata().map_err(StoreError::io("look at", path))?, 0o600)?;
    Ok(file)
}

/// Whether there is room for a record of so many octets in the directory: writes one, and removes it.
pub(crate) fn probe(directory: &Path, octets: usize) -> Result<(), StoreError> {
    let draft = draft(&directory.join("probe"), &vec![0; octets], 0o600)?;
    fs::remove_file(&draft).map_err(StoreError::io("remove", &draft))
}

fn put(path: &Path, bytes: &[u8], mode: u32) -> Result<(), StoreError> {
    let draft = draft(path, bytes, mode)?;
    fs::rename(&draft, path).map_err(StoreError::io("replace", path))?;
    sync_parent(path)
}

/// A file of its own beside `path`, written and synced.
fn draft(path: &Path, bytes: &[u8], mode: u32) -> Result<PathBuf, StoreError> {
    let random = getrandom::u64().map_err(|error| StoreError::io("name a draft of", path)(error.into()))?;
    let draft = path.with_extension(format!("{random:016x}.draft"));
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&draft)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    match write() {
        Ok(()) => Ok(draft),
        Err(error) => {
            let _ = fs::remove_file(&draft);
            Err(StoreError::io("write", path)(error))
        }
    }
}

pub(crate) fn sync_parent(path: &Path) -> Result<(), StoreError> {
    let parent = path.parent().unwrap_or(Path::new("."));
    File::open(parent).and_then(|dir| dir.sync_all()).map_err(StoreError::io("sync", parent))
}

/// Nobody but this process's user (or root, who needs no permission) may reach it.
fn own(path: &Path, metadata: &fs::Metadata, wanted: u32) -> Result<(), StoreError> {
    let found = metadata.mode() & 0o7777;
    if found & 0o077 != 0 {
        return Err(StoreError::Loose { path: path.to_owned(), found, wanted });
    }
    let (owner, user) = (metadata.uid(), nix::unistd::geteuid().as_raw());
    if owner != user && owner != 0 {
        return Err(StoreError::Foreign { path: path.to_owned(), owner, wanted: user });
    }
    Ok(())
}
