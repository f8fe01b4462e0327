//! A directory, out of which nothing leads.
//!
//! The kernel itself resolves each name below the directory (`openat2` with `RESOLVE_BENEATH`): a name, an absolute link or
//! a link with too many `..` that leaves it is refused, whoever changes the tree meanwhile. The directory is found by its
//! path each time, so that a deployment may put another in its place.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat2};
use rustix::io::Errno;

use crate::addr::{Permit, Route};
use crate::config::model::{FileCache, Files};
use crate::fault::Fault;
use crate::wire::coding::Coding;

/// How often a name is looked up again that was being renamed meanwhile.
const TRIES: usize = 4;

/// One route's files.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    pub(super) cache: FileCache,
    pub(super) sandbox: bool,
}

/// A regular file that was opened.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) file: Arc<File>,
    /// In octets.
    pub(super) size: u64,
    /// Seconds since 1970, and nanoseconds.
    pub(super) modified: (i64, u64),
    pub(super) inode: u64,
    /// How its content is compressed.
    pub(super) coding: Option<Coding>,
}

impl Folder {
    /// The directory of a route.
    pub fn new(files: &Files) -> Arc<Self> {
        Arc::new(Self { path: files.folder.clone(), cache: files.cache, sandbox: files.sandbox })
    }

    /// Whether the directory is there, and the kernel can hold names below it. The error says what is wrong, and what to
    /// do.
    pub fn check(&self) -> Result<(), (String, &'static str)> {
        let opened = directory(&self.path, ResolveFlags::empty())
            .and_then(|root| openat2(root, ".", directory_flags(), Mode::empty(), beneath()));
        let help = match opened {
            Ok(_) => return Ok(()),
            Err(Errno::NOSYS | Errno::PERM) => {
                "files need the system call openat2: Linux 5.6, and a seccomp profile with it"
            }
            Err(Errno::NOENT) => {
                "make it, or name another; a relative path starts at the directory of the configuration file"
            }
            Err(Errno::NOTDIR) => "name the directory that the files are in",
            Err(_) => "let the user that the edge runs as read it",
        };
        let error = opened.err().map(io::Error::from);
        let error = error.map(|error| error.to_string()).unwrap_or_default();
        Err((format!("the directory {} cannot be used: {error}", self.path.display()), help))
    }

    /// Opens the file that `name` says, or the first of its siblings in `codings` that is there and not older. What the
    /// kernel has at hand is opened at once; what it would have to wait for, on another thread.
    pub(super) async fn open(
        &self,
        _permit: Permit<Route>,
        name: &[u8],
        codings: &[Coding],
    ) -> Result<Opened, Fault> {
        let mut found = find(&self.path, name, codings, ResolveFlags::CACHED);
        // Before Linux 5.12 the flag is no flag.
        if let Err(Errno::AGAIN | Errno::INVAL) = found {
            let (path, name, codings) = (self.path.clone(), name.to_owned(), codings.to_owned());
            let finding = move || find(&path, &name, &codings, ResolveFlags::empty());
            found = tokio::task::spawn_blocking(finding).await.map_err(Fault::internal)?;
        }
        found.map_err(|error| self.fault(name, error))
    }

    /// What the client is told of every name that is none; what the site's keeper should know goes to the log.
    fn fault(&self, name: &[u8], error: Errno) -> Fault {
        match error {
            Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG | Errno::NXIO | Errno::ISDIR => {
                if let Err((problem, _)) = self.check() {
                    tracing::warn!("{problem}");
                }
            }
            Errno::ACCESS | Errno::PERM | Errno::XDEV | Errno::LOOP => {
                let reason = match error {
                    Errno::XDEV => "it leads out of the directory",
                    Errno::LOOP => "its links lead in a circle, or through /proc",
                    _ => "the edge's user may not read it",
                };
                let (folder, name) = (self.path.display(), name.escape_ascii());
                tracing::warn!(%folder, %name, reason, "a file is not served");
            }
            error => {
                tracing::error!(folder = %self.path.display(), name = %name.escape_ascii(), %error, "a file cannot be read");
                return Fault::FileBroken { source: error.into() };
            }
        }
        Fault::NoFile
    }
}

/// The file, or its best sibling. A sibling that is older than the file is of an earlier one.
fn find(root: &Path, name: &[u8], codings: &[Coding], more: ResolveFlags) -> Result<Opened, Errno> {
    let root = directory(root, more)?;
    let plain = open_file(&root, name, more)?;
    for coding in codings {
        let sibling = [name, extension(*coding)].concat();
        match open_file(&root, &sibling, more) {
            Ok(sibling) if sibling.modified.0 >= plain.modified.0 => {
                return Ok(Opened { coding: Some(*coding), ..sibling });
            }
            Err(Errno::AGAIN) => return Err(Errno::AGAIN),
            _ => {}
        }
    }
    Ok(plain)
}

/// What stands behind the name of a compressed sibling.
fn extension(coding: Coding) -> &'static [u8] {
    match coding {
        Coding::Brotli => b".br",
        Coding::Zstandard => b".zst",
        Coding::Gzip => b".gz",
    }
}

fn directory(path: &Path, more: ResolveFlags) -> Result<OwnedFd, Errno> {
    openat2(CWD, path, directory_flags(), Mode::empty(), more)
}

fn directory_flags() -> OFlags {
    OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC
}

fn beneath() -> ResolveFlags {
    ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS
}

/// Opens a regular file. Without waiting, for opening a fifo waits for whoever writes into it.
fn open_file(root: &OwnedFd, name: &[u8], more: ResolveFlags) -> Result<Opened, Errno> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let open = || openat2(root, name, flags, Mode::empty(), beneath() | more);
    let mut opened = open();
    for _ in 1..TRIES {
        match opened {
            Err(Errno::AGAIN | Errno::INTR) if !more.contains(ResolveFlags::CACHED) => opened = open(),
            _ => break,
        }
    }
    let file = opened?;
    let stat = fstat(&file)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Errno::NOENT);
    }
    Ok(Opened {
        file: Arc::new(file.into()),
        size: u64::try_from(stat.st_size).unwrap_or(0),
        modified: (stat.st_mtime, stat.st_mtime_nsec),
        inode: stat.st_ino,
        coding: None,
    })
}
