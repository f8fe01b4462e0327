//! Becoming an ordinary user once the ports are bound, for good.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, lchown};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{AccessFlags, Uid, User, access, initgroups, setgid, setuid};

use crate::config::Loaded;
use crate::config::problem::Problem;

/// Why the edge could not become the user that `[process] user` names.
#[derive(Debug, thiserror::Error)]
pub enum DropError {
    /// No such user.
    #[error("[process] user = \"{0}\": there is no such user; create it, or leave the key out")]
    Unknown(String),
    /// The user database could not be read, or the kernel said no.
    #[error("[process] user = \"{user}\": {step}: {source}")]
    Refused {
        /// The name in the file.
        user: String,
        /// What was being done.
        step: &'static str,
        /// What the kernel said.
        source: Errno,
    },
    /// Not root, and asked to become someone else.
    #[error(
        "[process] user = \"{0}\": only root can become another user; start as root, or leave the key out"
    )]
    NotRoot(String),
    /// Root came back after it was given up.
    #[error("[process] user = \"{0}\": root could be regained after it was dropped; refusing to go on")]
    Regained(String),
}

/// The user that the edge is to become, looked up but not yet become.
#[derive(Debug)]
pub(super) struct Target {
    user: User,
}

impl Target {
    /// Looks the user up. None where nothing is to be done: no user named, or it is this one already.
    pub(super) fn find(name: Option<&str>) -> Result<Option<Self>, DropError> {
        let Some(name) = name else { return Ok(None) };
        let user = User::from_name(name)
            .map_err(|source| DropError::Refused { user: name.into(), step: "looking it up", source })?
            .ok_or_else(|| DropError::Unknown(name.into()))?;
        match user.uid {
            uid if uid == Uid::effective() => Ok(None),
            _ if !Uid::effective().is_root() => Err(DropError::NotRoot(name.into())),
            _ => Ok(Some(Self { user })),
        }
    }

    /// Makes a directory, 0700, and what is missing on the way to it, all for the user to own. One that exists stays
    /// as it is.
    pub(super) fn make_dir(&self, path: &Path) -> io::Result<()> {
        let is_missing = |path: &&Path| !path.as_os_str().is_empty() && !path.exists();
        let missing: Vec<_> = path.ancestors().take_while(is_missing).collect();
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        // The innermost first: what is on the way stays root's until nothing inside is root's work any longer.
        missing
            .into_iter()
            .try_for_each(|made| lchown(made, Some(self.user.uid.as_raw()), Some(self.user.gid.as_raw())))
    }

    /// Becomes the user, groups first, and makes sure that there is no way back.
    pub(super) fn become_it(&self) -> Result<(), DropError> {
        let name = &self.user.name;
        let refused = |step| move |source| DropError::Refused { user: name.clone(), step, source };
        let c_name = CString::new(name.as_str()).map_err(|_| DropError::Unknown(name.clone()))?;
        initgroups(&c_name, self.user.gid).map_err(refused("taking its groups"))?;
        setgid(self.user.gid).map_err(refused("taking its group"))?;
        setuid(self.user.uid).map_err(refused("becoming it"))?;
        if !self.user.uid.is_root() && setuid(Uid::from_raw(0)).is_ok() {
            return Err(DropError::Regained(name.clone()));
        }
        Ok(())
    }
}

/// Becomes the user that `[process] user` names, for good. Nothing to do without one, or where it is this one.
///
/// # Errors
/// There is no such user, or only root can become it.
pub fn assume(user: Option<&str>) -> Result<(), DropError> {
    Target::find(user)?.map_or(Ok(()), |target| target.become_it())
}

/// Files that every reload reads again, and that the user whom root was given up for cannot read.
pub fn unreadable(loaded: &Loaded) -> Vec<Problem> {
    let config = &loaded.config;
    let Some(user) = &config.process.user else { return Vec::new() };
    let lists = config.source_files.iter().map(|file| &file.path);
    let doors =
        config.sites.iter().flat_map(|site| &site.routes).filter_map(|route| route.policy.auth.as_ref());
    let files = std::iter::once(&loaded.source.file).chain(lists).chain(doors.map(|door| &door.file));
    // Asked without opening, for a pipe would be waited for.
    let denied = |path: &&PathBuf| access(*path, AccessFlags::R_OK) == Err(Errno::EACCES);
    let denied: BTreeSet<&PathBuf> = files.filter(denied).collect();
    let problem = |path: &PathBuf| {
        let message = format!("{}: \"{user}\" cannot read it, as every reload has to", path.display());
        Problem::new(loaded.place("process", "user"), message, "let it read the file and enter its directory")
    };
    denied.into_iter().map(problem).collect()
}

/// Whether the process is root.
pub fn is_root() -> bool {
    Uid::effective().is_root()
}

/// No program that this process might ever start gains privileges from its file (`no_new_privs` in prctl(2)).
/// Threads that exist already are not covered.
pub(super) fn forbid_new_privileges() -> io::Result<()> {
    Ok(nix::sys::prctl::set_no_new_privs()?)
}

/// Lets the process open as many files as the hard limit permits. Returns that number.
pub(super) fn raise_open_files() -> io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(hard)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn nobody_and_oneself_are_nothing_to_do() {
        assert!(Target::find(None).unwrap().is_none());
        let me = User::from_uid(Uid::effective()).unwrap().unwrap();
        assert!(Target::find(Some(&me.name)).unwrap().is_none());
    }

    #[test]
    fn an_unknown_user_is_named() {
        let error = Target::find(Some("no-such-user-here")).unwrap_err();
        assert!(error.to_string().contains("\"no-such-user-here\": there is no such user"), "{error}");
    }

    #[test]
    fn a_directory_is_the_users_with_all_that_was_missing_before_it() {
        let folder = tempfile::tempdir().unwrap();
        let user = User::from_uid(Uid::effective()).unwrap().unwrap();
        let (uid, gid) = (user.uid.as_raw(), user.gid.as_raw());
        let before = folder.path().metadata().unwrap().mode();
        Target { user }.make_dir(&folder.path().join("a/b/c")).unwrap();
        for made in ["a", "a/b", "a/b/c"] {
            let made = folder.path().join(made).metadata().unwrap();
            assert_eq!((made.uid(), made.gid(), made.mode() & 0o777), (uid, gid, 0o700));
        }
        assert_eq!(folder.path().metadata().unwrap().mode(), before);
    }

    #[test]
    fn open_files_go_up_to_the_hard_limit() {
        let hard = raise_open_files().unwrap();
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (hard, hard));
    }
}
