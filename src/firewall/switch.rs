//! The dead man's switch: rules that nobody confirms in time are taken back, so that nobody locks themselves out.
//!
//! What is needed to take them back is on the disk before they are applied, and a watcher in a session of its own waits
//! for the deadline: it outlives the terminal and the connection. The directory is root's alone, and not the edge's:
//! whoever writes here chooses the kernel's rules.

use std::fs::{self, DirBuilder, File};
use std::io::{self, BufRead as _, BufReader};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::kernel::{self, NftError};
use super::moment::{boot, uptime};
use super::nft::{self, TABLE};
use super::plan::Held;
use super::session::Session;

/// Where the state is kept.
pub const FOLDER: &str = "/run/vestibule-firewall";
/// Whoever changes rules, leases or the state locks it. Outside of the folder, which tells that rules were applied.
const LOCK: &str = "/run/vestibule-firewall.lock";
/// For how long taking rules back waits for the lock: who holds it may wait for an edge that hangs.
const TURN: Duration = Duration::from_secs(10);
/// How often the watcher looks whether the rules were confirmed.
const GLANCE: Duration = Duration::from_millis(200);
/// How often taking rules back is tried, a second apart.
const TRIES: usize = 60;

/// Why the switch could not be set, or the rules not confirmed.
#[derive(Debug, thiserror::Error)]
pub enum SwitchError {
    /// nft.
    #[error(transparent)]
    Nft(#[from] NftError),
    /// The state's directory or a file in it.
    #[error("{}: {source}{}", path.display(), if source.kind() == io::ErrorKind::PermissionDenied { "; run this with sudo" } else { "" })]
    Io {
        /// The file.
        path: PathBuf,
        /// What was met.
        source: io::Error,
    },
    /// The directory is not root's alone.
    #[error("{FOLDER} belongs to another user or can be written by others: remove it, and run this again")]
    NotOurs,
    /// The watcher does not run.
    #[error("nobody would take the rules back, so that none were applied: {0}")]
    NoWatcher(String),
    /// Nothing was applied that waits.
    #[error("no rules wait to be confirmed{0}")]
    NothingWaits(&'static str),
    /// It was too late.
    #[error("the time to confirm is over, and the rules from before are back")]
    TooLate,
    /// The confirmation proves nothing.
    #[error("{0}: open another connection, and confirm there")]
    ProvesNothing(&'static str),
}

/// Rules that were applied and wait to be confirmed.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Pending {
    /// The kernel's name for this run of the machine: none of this outlives it.
    boot: String,
    /// Seconds since the start of the machine.
    at: f64,
    deadline: f64,
    applier: Session,
    /// Not told by older versions, whose rules are taken back with the leases that they had.
    #[serde(default)]
    books: Option<Books>,
}

/// Where the leases of the moment are known.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Books {
    /// The running edge's socket.
    pub socket: PathBuf,
    /// The store, for where none runs.
    pub store: PathBuf,
}

/// Reads the leases of the moment.
pub type ReadBooks = fn(&Books) -> Vec<Held>;

/// The lock that whoever changes rules, leases or state holds.
#[must_use]
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "closing it is the unlocking")] File);

/// Applies a ruleset, to be confirmed within a time. Its leases are those of the moment.
///
/// # Errors
/// The kernel has what it had, and no watcher runs on but that of an older ruleset that waits.
pub fn apply(
    text: &str,
    within: Duration,
    applier: &Session,
    books: &Books,
    read: ReadBooks,
) -> Result<(), SwitchError> {
    let _lock = lock()?;
    let older = settle(read)?;
    if older.is_none() {
        save_previous()?;
    }
    // Before the clock starts: an edge that hangs takes a while.
    let text = nft::with_leases(text, &read(books));
    let now = uptime();
    let pending = Pending {
        boot: boot(),
        at: now,
        deadline: now + within.as_secs_f64(),
        applier: applier.clone(),
        books: Some(books.clone()),
    };
    let armed = wait_for(&pending).and_then(|()| start_watcher().map_err(SwitchError::NoWatcher));
    let done = armed.and_then(|()| Ok(kernel::load(&text)?));
    if done.is_err() {
        // An older set of rules waits on, and its watcher never left.
        older.as_ref().map_or_else(forget, wait_for)?;
    }
    done
}

/// Keeps the rules that wait.
pub fn confirm(own: &Session, read: ReadBooks) -> Result<(), SwitchError> {
    let _lock = lock()?;
    let taken_back = || if path("taken-back").exists() { ": the last ones were taken back" } else { "" };
    let Some(pending) = pending()? else { return Err(SwitchError::NothingWaits(taken_back())) };
    if pending.is_over() {
        take_back(&pending, read)?;
        return Err(SwitchError::TooLate);
    }
    match own.proves_nothing(&pending.applier, pending.at) {
        Some(why) => Err(SwitchError::ProvesNothing(why)),
        None => forget(),
    }
}

/// The lock for leases, so that no older list of them reaches the kernel last. Who may not have it, may not change the kernel's.
pub fn turn() -> Option<Lock> {
    locked(None).ok()
}

/// For how much longer rules wait to be confirmed, zero where the time is over; None where none do. Anybody may ask; root alone
/// is told.
pub fn waiting() -> Option<Duration> {
    let pending = pending().ok()??;
    Some(Duration::from_secs_f64((pending.deadline - uptime()).max(0.0)))
}

/// The watcher: says that it is there, waits until the rules are confirmed or the time is over, and takes them back. It watches
/// whatever waits, so that one that was applied over the other is never without.
pub fn watch(read: ReadBooks) -> Result<(), SwitchError> {
    // A leader of its own session hears nothing of the terminal's end.
    nix::unistd::setsid().map_err(|error| SwitchError::NoWatcher(error.desc().to_owned()))?;
    // systemd may end whatever a login leaves behind, by its control group; where this is not allowed, it stays.
    let _ = fs::write("/sys/fs/cgroup/cgroup.procs", "0");
    // A machine without memory is to end something else; where this is not allowed, as in a container, it stays.
    let _ = fs::write("/proc/self/oom_score_adj", "-1000");
    let told = io::Write::write_all(&mut io::stdout(), b"ready\n");
    told.map_err(|source| SwitchError::Io { path: "standard output".into(), source })?;
    while let Some(seen) = pending()? {
        if seen.is_over() {
            // What the lock orders is not worth a machine that nobody reaches.
            let _lock = locked(Some(TURN));
            // Confirmed, or applied anew, while this waited for the lock.
            if let Some(pending) = pending()?.filter(Pending::is_over) {
                return take_back(&pending, read);
            }
        }
        std::thread::sleep(GLANCE);
    }
    Ok(())
}

impl Pending {
    fn is_over(&self) -> bool {
        uptime() >= self.deadline
    }
}

/// Writes down what waits.
fn wait_for(pending: &Pending) -> Result<(), SwitchError> {
    write("pending", &serde_json::to_string(pending).unwrap_or_default())?;
    remove("taken-back")
}

/// Starts a watcher and waits until it says that it is there.
fn start_watcher() -> Result<(), String> {
    let mut command = Command::new("/proc/self/exe");
    command.args(["firewall", "--watch"]).current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(|error| error.to_string())?;
    let mut line = String::new();
    let said = child.stdout.take().map(|out| BufReader::new(out).read_line(&mut line));
    match said {
        Some(Ok(_)) if line == "ready\n" => Ok(()),
        _ => Err("the watcher did not start".into()),
    }
}

/// What is to be done about rules whose time was over while nobody watched. Those that still wait are returned.
fn settle(read: ReadBooks) -> Result<Option<Pending>, SwitchError> {
    match pending()? {
        Some(pending) if pending.is_over() => take_back(&pending, read).map(|()| None),
        other => Ok(other),
    }
}

/// What the kernel has now, in the form that brings it back.
fn save_previous() -> Result<(), SwitchError> {
    let none = format!("add table inet {TABLE}; delete table inet {TABLE}\n");
    let listed = kernel::listed()?.unwrap_or_default();
    make_folder()?;
    write("previous.nft", &(none + &listed))
}

/// Puts the rules from before in place, with the leases of the moment: some have ended meanwhile, and others have begun.
fn take_back(pending: &Pending, read: ReadBooks) -> Result<(), SwitchError> {
    let file = path("previous.nft");
    let previous = fs::read_to_string(&file).map_err(|source| SwitchError::Io { path: file, source })?;
    let text = match &pending.books {
        Some(books) => nft::with_leases(&previous, &read(books)),
        None => previous,
    };
    for _ in 1..TRIES {
        if kernel::load(&text).is_ok() {
            return mark_taken_back();
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    kernel::load(&text)?;
    mark_taken_back()
}

fn mark_taken_back() -> Result<(), SwitchError> {
    write("taken-back", "")?;
    forget()
}

/// Nothing waits any longer.
fn forget() -> Result<(), SwitchError> {
    remove("pending")?;
    remove("previous.nft")
}

/// What waits. Nothing does that is of another run of the machine.
fn pending() -> Result<Option<Pending>, SwitchError> {
    let path = path("pending");
    match fs::read_to_string(&path) {
        Ok(text) => Ok(serde_json::from_str(&text).ok().filter(|pending: &Pending| pending.boot == boot())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(SwitchError::Io { path, source }),
    }
}

/// Waits for whoever else changes rules just now.
fn lock() -> Result<Lock, SwitchError> {
    let lock = locked(None).map_err(|source| SwitchError::Io { path: LOCK.into(), source })?;
    check_folder()?;
    Ok(lock)
}

/// The lock, or for how long at most it is waited for.
fn locked(patience: Option<Duration>) -> io::Result<Lock> {
    // Who may read it could hold it for ever.
    let file = File::options().write(true).create(true).truncate(false).mode(0o600).open(LOCK)?;
    let Some(patience) = patience else { return file.lock().map(|()| Lock(file)) };
    let until = Instant::now() + patience;
    while let Err(error) = file.try_lock() {
        if Instant::now() > until {
            return Err(error.into());
        }
        std::thread::sleep(GLANCE);
    }
    Ok(Lock(file))
}

/// The folder's existence tells everyone that rules were applied: it is made when they are.
fn make_folder() -> Result<(), SwitchError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(FOLDER);
    made.map_err(|source| SwitchError::Io { path: FOLDER.into(), source })?;
    check_folder()
}

/// The folder is ours alone, where there is one.
fn check_folder() -> Result<(), SwitchError> {
    let meta = match fs::symlink_metadata(FOLDER) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        meta => meta.map_err(|source| SwitchError::Io { path: FOLDER.into(), source })?,
    };
    let own = nix::unistd::geteuid().as_raw();
    if own != 0 && meta.uid() == 0 {
        return Err(NftError::NotPermitted.into());
    }
    if !meta.is_dir() || meta.uid() != own || meta.mode() & 0o022 != 0 {
        return Err(SwitchError::NotOurs);
    }
    Ok(())
}

fn path(name: &str) -> PathBuf {
    Path::new(FOLDER).join(name)
}

/// A file is there whole or not at all.
fn write(name: &str, text: &str) -> Result<(), SwitchError> {
    let (file, hidden) = (path(name), path(&format!(".{name}")));
    let written = fs::write(&hidden, text).and_then(|()| fs::rename(&hidden, &file));
    written.map_err(|source| SwitchError::Io { path: file, source })
}

fn remove(name: &str) -> Result<(), SwitchError> {
    match fs::remove_file(path(name)) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(SwitchError::Io { path: path(name), source })
        }
        _ => Ok(()),
    }
}
