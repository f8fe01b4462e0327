//! The slow-client shield: a request is read to its end before a worker is taken, and an answer is taken as fast as the
//! worker gives it. What finds no room in memory waits in an unlinked file.
//!
//! - `request`: a request's body, read to its end, and sent as often as needed: its end is in memory
//! - `answer`: an answer's body, read ahead of its client: its beginning is in memory

mod answer;
mod request;

pub(super) use answer::Ahead;
pub(super) use request::collect;

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use rustix::io::{Errno, pwritev};

use super::worker::Worker;
use crate::config::show_size;
use crate::route::Shelf;

/// Pieces that are shorter are put together: each costs more than its octets.
const SHORT: usize = 4 * 1024;
/// How long what is put together becomes, in octets.
const TOGETHER: usize = 16 * 1024;

/// Bytes that wait, in their order.
struct Spool {
    memory: VecDeque<Bytes>,
    /// Short pieces behind those in `memory`.
    tail: BytesMut,
    in_memory: u64,
    file: Option<Arc<File>>,
    written: u64,
    shelf: Arc<Shelf>,
    /// The part of all room on disk that is left to others: one in so many; None: nothing is.
    spares: Option<u64>,
    worker: Rc<Worker>,
}

/// Why bytes cannot wait.
#[derive(Debug, thiserror::Error)]
enum Full {
    /// What waits of this body alone is as much as may.
    #[error("it is longer than all that may wait on disk, {}: raise buffer_disk", show_size(*.0))]
    Never(u64),
    /// The site's `buffer_disk` is used up.
    #[error("buffer_disk of the site, {}, is used up: raise it in [site.proxy]", show_size(*.0))]
    Site(u64),
    /// The edge's is.
    #[error("buffer_disk of all sites, {}, is used up: raise it in [limits]", show_size(*.0))]
    Edge(u64),
    /// The disk has no room, or the user has no more on it.
    #[error("{}: {source}: make room there, or name a larger folder in TMPDIR", folder())]
    Disk {
        /// What the kernel said.
        source: io::Error,
    },
    /// The folder takes nothing.
    #[error("{}: {source}: make the folder again, or name another in TMPDIR", folder())]
    Folder {
        /// What the kernel said.
        source: io::Error,
    },
}

impl From<io::Error> for Full {
    fn from(source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Self::Disk { source }
            }
            _ => Self::Folder { source },
        }
    }
}

/// Where the files are for as long as they have a name.
fn folder() -> String {
    std::env::temp_dir().display().to_string()
}

impl Spool {
    fn new(shelf: &Arc<Shelf>, spares: Option<u64>, worker: &Rc<Worker>) -> Self {
        Self {
            memory: VecDeque::new(),
            tail: BytesMut::new(),
            in_memory: 0,
            file: None,
            written: 0,
            shelf: Arc::clone(shelf),
            spares,
            worker: Rc::clone(worker),
        }
    }

    /// Takes the room for it where there is some.
    fn hold_in_memory(&mut self, bytes: Bytes) -> Result<(), Bytes> {
        let length = bytes.len() as u64;
        let fits = self.in_memory + length <= self.shelf.buffers.memory;
        if !fits || !self.worker.lobby.rooms.memory.take(length, self.shelf.edge_memory) {
            return Err(bytes);
        }
        self.in_memory += length;
        if bytes.len() >= SHORT || self.in_memory == length {
            self.close_tail();
            self.memory.push_back(bytes);
            return Ok(());
        }
        if self.tail.len() + bytes.len() > TOGETHER {
            self.close_tail();
        }
        self.tail.extend_from_slice(&bytes);
        Ok(())
    }

    fn close_tail(&mut self) {
        if !self.tail.is_empty() {
            self.memory.push_back(self.tail.split().freeze());
        }
    }

    fn take_from_memory(&mut self) -> Option<Bytes> {
        if self.memory.is_empty() {
            self.close_tail();
        }
        let bytes = self.memory.pop_front()?;
        self.in_memory -= bytes.len() as u64;
        self.worker.lobby.rooms.memory.give_back(bytes.len() as u64);
        Some(bytes)
    }

    /// Writing goes to the page cache: the worker does not wait for the disk unless the kernel makes every writer wait.
    fn put_on_disk(&mut self, pieces: &[Bytes]) -> Result<(), Full> {
        let length = pieces.iter().map(|bytes| bytes.len() as u64).sum();
        self.take_room_on_disk(length)?;
        let written = match &self.file {
            Some(file) => write_all_at(file, pieces, self.written),
            None => tempfile::tempfile()
                .and_then(|file| write_all_at(self.file.insert(Arc::new(file)), pieces, 0)),
        };
        if let Err(error) = written {
            self.give_back_disk(length);
            return Err(error.into());
        }
        self.written += length;
        Ok(())
    }

    fn take_room_on_disk(&self, octets: u64) -> Result<(), Full> {
        let mine = |limit: u64| limit - self.spares.map_or(0, |part| limit / part);
        let (of_site, of_edge) = (self.shelf.buffers.disk, self.shelf.edge_disk);
        let most = mine(of_site).min(mine(of_edge));
        if self.written + octets > most {
            return Err(Full::Never(most));
        }
        if !self.shelf.site.take(octets, mine(of_site)) {
            return Err(Full::Site(of_site));
        }
        if !self.worker.lobby.rooms.disk.take(octets, mine(of_edge)) {
            self.shelf.site.give_back(octets);
            return Err(Full::Edge(of_edge));
        }
        Ok(())
    }

    fn give_back_disk(&self, octets: u64) {
        self.shelf.site.give_back(octets);
        self.worker.lobby.rooms.disk.give_back(octets);
    }

    /// Everything in the file was read: its space is free again.
    fn forget_file(&mut self) {
        self.file = None;
        let octets = std::mem::take(&mut self.written);
        self.give_back_disk(octets);
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        self.forget_file();
        self.worker.lobby.rooms.memory.give_back(self.in_memory);
    }
}

/// In one call, unless the kernel takes less.
fn write_all_at(file: &File, pieces: &[Bytes], mut at: u64) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = pieces.iter().map(|bytes| IoSlice::new(bytes)).collect();
    let mut left = &mut *slices;
    while left.iter().any(|slice| !slice.is_empty()) {
        match pwritev(file, left, at) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                at += written as u64;
                IoSlice::advance_slices(&mut left, written);
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// A spool's file is unlinked: it cannot become shorter, but for what is wrong with the disk.
fn cut_off() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "what waited on disk is gone")
}
