//! The new process's side: what was handed on to it, and the word by which it takes over.

use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use tokio::io::AsyncReadExt as _;

use super::parcel::{ADMIN, CHANNEL, PARCEL, PASSED, Parcel, READY, REFUSED, ROW};
use crate::config::model::Admin;
use crate::net::inherit::{self, Given, InheritError};
use crate::tls::Heritage;

/// What another process opened for this one.
#[derive(Debug, Default)]
pub(in crate::runtime) struct Arrival {
    /// The listening sockets.
    pub(in crate::runtime) given: Given,
    /// The admin socket, and where it is.
    pub(in crate::runtime) admin: Option<(OwnedFd, PathBuf)>,
    /// The upstreams that `vestibule drain` has taken out.
    pub(in crate::runtime) drained: Vec<String>,
    /// The keys of session tickets.
    pub(in crate::runtime) tickets: Heritage,
    /// The process to take over from. None where a service manager opened the sockets.
    pub(in crate::runtime) predecessor: Option<Predecessor>,
    /// Descriptors that the edge has no use for, in words.
    pub(in crate::runtime) strays: Vec<String>,
}

impl Arrival {
    /// Takes up what `LISTEN_FDS` tells of. Call it before anything else is opened.
    pub(in crate::runtime) fn claim() -> Result<Self, InheritError> {
        let (mut rows, mut arrival, mut parcel) = (Vec::new(), Self::default(), Parcel::default());
        let mut admin = None;
        for (name, descriptor) in inherit::claim()? {
            match name.as_str() {
                ADMIN => admin = Some(descriptor),
                CHANNEL => arrival.predecessor = Some(Predecessor(descriptor.into())),
                PARCEL => match Parcel::unpack(descriptor) {
                    Ok(unpacked) => parcel = unpacked,
                    Err(error) => arrival.strays.push(format!("{PARCEL}, which is not understood ({error})")),
                },
                _ => rows.push((name, descriptor)),
            }
        }
        if arrival.predecessor.is_some() {
            Admin::inherit_default_socket(parcel.default_socket);
        }
        arrival.admin = admin.map(|descriptor| (descriptor, parcel.admin));
        arrival.tickets = parcel.tickets;
        arrival.drained = parcel.drained;
        let mut known = parcel.rows.into_iter();
        for (name, descriptor) in rows {
            let row = if name == ROW { known.next() } else { None };
            if let Err(descriptor) = arrival.given.add(row, descriptor) {
                arrival.strays.push(inherit::describe(&name, &descriptor));
            }
        }
        Ok(arrival)
    }
}

/// The process to take over from.
#[derive(Debug)]
pub(in crate::runtime) struct Predecessor(UnixStream);

impl Predecessor {
    /// Says why this process cannot take over.
    pub(in crate::runtime) fn refuse(&self, why: &str) {
        let why = serde_json::to_string(why).unwrap_or_default();
        let _ = writeln!(&self.0, "{REFUSED}{why}");
    }

    /// Says that all is prepared, and returns once the other has stepped back or is gone.
    pub(in crate::runtime) async fn take_over(&self) -> io::Result<()> {
        let own = self.0.try_clone()?;
        own.set_nonblocking(true)?;
        let mut own = tokio::net::UnixStream::from_std(own)?;
        let _ = writeln!(&self.0, "{READY}");
        // One word is ever said; none comes from a process that was killed.
        let _ = own.read(&mut [0; 16]).await;
        Ok(())
    }

    /// Says that yet another process has taken over from this one, so that the end of this one means nothing.
    pub(in crate::runtime) fn pass(&self) {
        let _ = writeln!(&self.0, "{PASSED}");
    }

    /// The same, to talk with while the other is in use.
    pub(in crate::runtime) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self(self.0.try_clone()?))
    }
}
