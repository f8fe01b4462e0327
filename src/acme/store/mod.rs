//! Where certificates are kept: one certificate, one record, one file.
//!
//! ```text
//! PATH/acme/certificates/ID.json              the record: names, key, chain, pending order, ARI, retries, history
//! PATH/acme/certificates/ID.json.previous     the generation before it
//! PATH/acme/certificates/ID.json.corrupt-TIME one that could not be read, set aside
//! PATH/acme/certificates/ID.lock              held by the edge that orders
//! PATH/acme/certificates/ID.unused            since when no site has had these names
//! PATH/acme/accounts/HOST-HASH.json           the account at a CA's directory
//! PATH/acme/sealed                            tells whether [store] key is the one that sealed the rest
//! ```
//!
//! Everything here waits for the disk: call it on a thread that may.

mod disk;
mod id;
mod record;
mod seal;

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::statfs::{OVERLAYFS_SUPER_MAGIC, TMPFS_MAGIC, statfs};
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

pub use id::RecordId;
pub use record::{
    AccountRecord, Alarm, Ari, Bundle, CaPause, Event, EventKind, PendingOrder, Published, Record, Refused,
    Retry, Secret,
};
pub use seal::{KeyError, Seal};

pub use crate::tls::sets;

use crate::tls::StoreError as FileError;
use crate::tls::record as file;

/// More than any record takes, in octets.
const ROOM: usize = 256 * 1024;
/// When what a killed process has half written is removed.
const DRAFT_LIFE: std::time::Duration = std::time::Duration::from_hours(1);

/// Why the store, or something in it, cannot be used. Each message ends with what to do.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file or a directory.
    #[error(transparent)]
    File(#[from] FileError),
    /// A later version wrote it.
    #[error("{}: written by a later version of vestibule (format {version}); run that version, or name another [store] path", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        version: u32,
    },
    /// There are sealed keys, and no key to open them.
    #[error("{}: private keys are sealed; name the key that sealed them as [store] key", path.display())]
    Sealed {
        /// The file.
        path: PathBuf,
    },
    /// Another key sealed it.
    #[error("{}: [store] key is not the key that sealed this, and nothing was changed; put the right key back, or name another [store] path", path.display())]
    WrongKey {
        /// The file.
        path: PathBuf,
    },
    /// The system has no randomness to give.
    #[error("{}: cannot be sealed: the system has no randomness to give", path.display())]
    Unsealable {
        /// The file.
        path: PathBuf,
    },
}

/// The store, open. Several processes may have the same one open.
#[derive(Debug)]
pub struct Store {
    certificates: PathBuf,
    accounts: PathBuf,
    seal: Option<Seal>,
    warnings: Vec<String>,
}

/// The right to order for one record. It ends when this is dropped, or with the process, however that ends.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

impl Drop for Lock {
    /// A child that is just being started has the file open as well: the lock does not wait for it.
    fn drop(&mut self) {
        let _ = self.file.unlock();
    }
}

impl Store {
    /// Opens the store at `[store] path`, and makes it where there is none. Refuses directories that others may enter,
    /// and a seal that is not the one that sealed what is there.
    pub fn open(path: &Path, seal: Option<Seal>) -> Result<Self, StoreError> {
        let root = path.join("acme");
        let (certificates, accounts) = (root.join("certificates"), root.join("accounts"));
        for directory in [&root, &certificates, &accounts] {
            file::private_dir(directory)?;
            remove_drafts(directory);
        }
        disk::prove(&root.join("sealed"), seal.as_ref())?;
        let warnings = volatile(path).into_iter().chain(exposed(path)).collect();
        let store = Self { certificates, accounts, seal, warnings };
        store.seal_all()?;
        Ok(store)
    }

    /// What is odd about the store without being wrong.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// A record. None where there is none. One that is damaged is set aside, and the generation before it is given;
    /// the log says so.
    pub fn load(&self, id: &RecordId) -> Result<Option<Record>, StoreError> {
        disk::load(&self.file(id), &record::SECRETS, self.seal.as_ref())
    }

    /// Writes a record whole or not at all, and keeps the generation before it. A disk that is full is an error that
    /// leaves everything as it was.
    pub fn save(&self, id: &RecordId, record: &Record) -> Result<(), StoreError> {
        disk::save(&self.file(id), record, &record::SECRETS, self.seal.as_ref())
    }

    /// The records that there are, in the order of their names, damaged ones included.
    pub fn list(&self) -> Result<Vec<RecordId>, StoreError> {
        let names = names_in(&self.certificates)?;
        let found: BTreeSet<RecordId> =
            names.iter().filter_map(|name| stem(name)).map(RecordId::stored).collect();
        Ok(found.into_iter().collect())
    }

    /// Takes the right to order for a record. None where another edge, or another task of this one, has it.
    pub fn lock(&self, id: &RecordId) -> Result<Option<Lock>, StoreError> {
        lock(&self.certificates.join(format!("{id}.lock")))
    }

    /// The account at the CA whose directory has this URL.
    pub fn account(&self, directory: &str) -> Result<Option<AccountRecord>, StoreError> {
        disk::load(&self.account_file(directory), &record::ACCOUNT_SECRETS, self.seal.as_ref())
    }

    /// Writes an account as [`Store::save`] writes a record.
    pub fn save_account(&self, directory: &str, account: &AccountRecord) -> Result<(), StoreError> {
        disk::save(&self.account_file(directory), account, &record::ACCOUNT_SECRETS, self.seal.as_ref())
    }

    /// Finds out, before an order is made, whether a certificate could be written.
    pub fn probe(&self) -> Result<(), StoreError> {
        Ok(file::probe(&self.certificates, ROOM)?)
    }

    /// Removes the records that no site has had any more for as long as `grace`. `used` are those that sites have now;
    /// a record's time begins when this first finds it unused. Returns those that are gone.
    pub fn forget_after(
        &self,
        used: &[RecordId],
        grace: Duration,
        now: OffsetDateTime,
    ) -> Result<Vec<RecordId>, StoreError> {
        let used: BTreeSet<&RecordId> = used.iter().collect();
        let mut gone = Vec::new();
        for id in self.list()? {
            let mark = self.certificates.join(format!("{id}.unused"));
            if used.contains(&id) {
                remove(&mark)?;
            } else if unused_since(&mark, now)? + grace <= now && self.forget(&id, &mark)? {
                gone.push(id);
            }
        }
        Ok(gone)
    }

    /// False where somebody orders for it just now.
    fn forget(&self, id: &RecordId, mark: &Path) -> Result<bool, StoreError> {
        let Some(_lock) = self.lock(id)? else { return Ok(false) };
        let path = self.file(id);
        // The record last: until then a crash leaves something that is found again.
        for path in [&self.certificates.join(format!("{id}.lock")), &disk::previous(&path), mark, &path] {
            remove(path)?;
        }
        Ok(true)
    }

    fn file(&self, id: &RecordId) -> PathBuf {
        self.certificates.join(format!("{id}.json"))
    }

    fn account_file(&self, directory: &str) -> PathBuf {
        self.accounts.join(format!("{}.json", id::of_directory(directory)))
    }

    /// Seals what was written while there was no seal.
    fn seal_all(&self) -> Result<(), StoreError> {
        let Some(seal) = &self.seal else { return Ok(()) };
        for (directory, secrets) in
            [(&self.certificates, record::SECRETS.as_slice()), (&self.accounts, &record::ACCOUNT_SECRETS)]
        {
            for name in names_in(directory)? {
                if stem(&name).is_some() {
                    disk::reseal(&directory.join(name), secrets, seal)?;
                }
            }
        }
        Ok(())
    }
}

/// In hexadecimal.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, octet| text + &format!("{octet:02x}"))
}

/// A record of the store at `[store] path`, without its secrets, for whoever only wants to know: changes nothing, needs no
/// key, and asks nobody for their permissions.
pub fn look(path: &Path, id: &RecordId) -> Result<Option<Record>, StoreError> {
    disk::look(&path.join(format!("acme/certificates/{id}.json")), &record::SECRETS)
}

/// What will not outlive a container or the machine, told.
pub fn volatile(path: &Path) -> Option<String> {
    let existing = path.ancestors().find(|path| path.exists()).filter(|path| !path.as_os_str().is_empty());
    let kind = statfs(existing.unwrap_or(Path::new("."))).ok()?.filesystem_type();
    let shown = path.display();
    match kind {
        OVERLAYFS_SUPER_MAGIC => Some(format!(
            "{shown} lies on a container's own layer: certificates are lost with the container, and the CA's \
             limits may refuse new ones for a week; mount a volume there"
        )),
        TMPFS_MAGIC => Some(format!(
            "{shown} lies in memory: certificates are lost at the next start, and the CA's limits may refuse \
             new ones for a week; name a directory on a disk"
        )),
        _ => None,
    }
}

/// Whoever may write to the store's directory can put other things in the places of a CA and of leases, told.
pub fn exposed(path: &Path) -> Option<String> {
    let mode = fs::metadata(path).ok()?.mode() & 0o7777;
    let shown = path.display();
    (mode & 0o022 != 0).then(|| {
        format!("{shown}: others than its owner may put files there ({mode:04o}); run: chmod go-w {shown}")
    })
}

fn lock(path: &Path) -> Result<Option<Lock>, StoreError> {
    loop {
        let file = file::open_private(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(source)) => return Err(FileError::io("lock", path)(source).into()),
        }
        // Whoever forgot the record in between has removed the file that is locked now.
        let same =
            |there: fs::Metadata, held: fs::Metadata| (there.dev(), there.ino()) == (held.dev(), held.ino());
        if let (Ok(there), Ok(held)) = (fs::metadata(path), file.metadata())
            && same(there, held)
        {
            return Ok(Some(Lock { file }));
        }
    }
}

/// Since when a record is unused, by its mark, which is made where it is missing or says nothing.
fn unused_since(mark: &Path, now: OffsetDateTime) -> Result<OffsetDateTime, StoreError> {
    let text = file::read(mark)?.and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
    // One that lies ahead is left from a clock that was wrong.
    if let Ok(since) = OffsetDateTime::parse(text.trim(), &Rfc3339)
        && since <= now
    {
        return Ok(since);
    }
    remove(mark)?;
    file::create(mark, now.format(&Rfc3339).unwrap_or_default().as_bytes())?;
    Ok(now)
}

fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(FileError::io("remove", path)(error).into()),
        _ => Ok(()),
    }
}

/// What a record or an account is called, by a file with one of its two generations.
fn stem(name: &str) -> Option<&str> {
    name.strip_suffix(".previous").unwrap_or(name).strip_suffix(".json")
}

fn names_in(directory: &Path) -> Result<Vec<String>, StoreError> {
    let entries = fs::read_dir(directory).map_err(FileError::io("read", directory))?;
    let mut names: Vec<String> =
        entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    names.sort();
    Ok(names)
}

/// Those of another process that is at it now are young.
fn remove_drafts(directory: &Path) {
    let names = names_in(directory).unwrap_or_default();
    let drafts = names.iter().filter(|name| name.strip_suffix(".draft").is_some());
    for name in drafts {
        let path = directory.join(name);
        let age = fs::metadata(&path)
            .and_then(|metadata| metadata.modified())
            .ok()
            .and_then(|at| at.elapsed().ok());
        if age.is_some_and(|age| age > DRAFT_LIFE) {
            let _ = fs::remove_file(&path);
        }
    }
}
