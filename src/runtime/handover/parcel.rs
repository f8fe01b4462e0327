//! What goes from a process to the one that takes over from it, besides the sockets themselves: in memory that only the
//! two of them have, for there are keys in it.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::{MemfdFlags, memfd_create};
use serde::{Deserialize, Serialize};

use crate::tls::Heritage;

/// The names in `LISTEN_FDNAMES`: a row's socket, the admin socket, this parcel, and the way back.
pub(super) const ROW: &str = "vestibule-row";
pub(super) const ADMIN: &str = "vestibule-admin";
pub(super) const PARCEL: &str = "vestibule-parcel";
pub(super) const CHANNEL: &str = "vestibule-channel";

/// One line each over the channel: what the new process says, and what it is told.
pub(super) const READY: &str = "ready";
pub(super) const REFUSED: &str = "refused ";
pub(super) const PASSED: &str = "passed";
pub(super) const GO: &str = "go";

/// Versions before and after this one read it too: fields may come, and none may change.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Parcel {
    /// The rows that the sockets were open for, in their order, as typed.
    pub(super) rows: Vec<String>,
    /// Where the admin socket is.
    pub(super) admin: PathBuf,
    /// Where it is where the file names none, which may have been root's to say.
    pub(super) default_socket: PathBuf,
    /// What `vestibule drain` has taken out.
    pub(super) drained: Vec<String>,
    /// The keys that sealed the clients' session tickets.
    pub(super) tickets: Heritage,
}

impl Parcel {
    /// As a descriptor that can be handed on.
    pub(super) fn pack(&self) -> io::Result<OwnedFd> {
        let mut file = File::from(memfd_create(PARCEL, MemfdFlags::CLOEXEC)?);
        serde_json::to_writer(&mut file, self)?;
        file.flush()?;
        Ok(file.into())
    }

    pub(super) fn unpack(descriptor: OwnedFd) -> io::Result<Self> {
        let (mut file, mut text) = (File::from(descriptor), Vec::new());
        file.rewind()?;
        file.read_to_end(&mut text)?;
        Ok(serde_json::from_slice(&text)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_unpacked_and_other_versions_are_understood() {
        let parcel = Parcel { rows: vec!["443".into()], admin: "/run/a.sock".into(), ..Parcel::default() };
        let found = Parcel::unpack(parcel.pack().unwrap()).unwrap();
        assert_eq!((found.rows, found.admin), (parcel.rows, parcel.admin));
        let mut other = tempfile::tempfile().unwrap();
        other.write_all(br#"{ "rows": ["80"], "later": 1 }"#).unwrap();
        assert_eq!(Parcel::unpack(other.into()).unwrap().rows, ["80"]);
    }
}
