//! Reading a file without making a worker wait, and without clearing memory that is written over at once.

use std::fs::File;
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::ops::Range;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use rustix::fs::{FsWord, StatFs, fstatfs, statfs};
use rustix::io::{Errno, ReadWriteFlags, preadv2};
use tokio::task::{JoinHandle, spawn_blocking};

use crate::wire::spare::{self, Spare};

/// The most that is read at once, in octets.
pub const PIECE: u64 = spare::SIZE as u64;

/// Reads a file as it is asked to. What the kernel has in memory is read at once; what it would have to wait for, on
/// another thread.
#[derive(Debug)]
pub struct Reader {
    file: Arc<File>,
    reading: Option<JoinHandle<Result<Bytes, Errno>>>,
    way: Way,
}

/// Whether what is written below this directory stays in memory.
pub fn lies_in_memory(directory: &Path) -> bool {
    statfs(directory).is_ok_and(|system| is_memory(&system))
}

/// How a file is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// At once where the kernel has it in memory, which it can tell.
    Asking,
    /// At once: its system is memory (`tmpfs`).
    AtOnce,
    /// On another thread: its system cannot tell whether it would have to wait.
    Aside,
}

impl Reader {
    /// A reader of this file, which nothing was asked of yet.
    pub fn new(file: Arc<File>) -> Self {
        Self { file, reading: None, way: Way::Asking }
    }

    /// The first octets of a part: `most` of them at most, and [`PIECE`]. None is the end of the file. Once it was
    /// asked for a part, ask for the same until it is there.
    pub fn poll_read(
        &mut self,
        part: &Range<u64>,
        most: u64,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Bytes>> {
        let wanted = usize::try_from((part.end - part.start).min(most).min(PIECE)).unwrap_or(0);
        if self.reading.is_none()
            && let Some(read) = self.read_at_once(part.start, wanted)
        {
            return Poll::Ready(read.map_err(io::Error::from));
        }
        let reading = self.reading.get_or_insert_with(|| {
            let (file, at, buffer) = (Arc::clone(&self.file), part.start, Spare::take(wanted));
            spawn_blocking(move || read(&file, at, wanted, buffer, ReadWriteFlags::empty()))
        });
        let read = ready!(Pin::new(reading).poll(cx));
        self.reading = None;
        Poll::Ready(read.map_err(io::Error::other)?.map_err(io::Error::from))
    }

    /// None where it would have to wait.
    fn read_at_once(&mut self, at: u64, wanted: usize) -> Option<Result<Bytes, Errno>> {
        let flags = match self.way {
            Way::Asking => ReadWriteFlags::NOWAIT,
            Way::AtOnce => ReadWriteFlags::empty(),
            Way::Aside => return None,
        };
        match read(&self.file, at, wanted, Spare::take(wanted), flags) {
            Err(Errno::AGAIN) => None,
            Err(Errno::OPNOTSUPP) if self.way == Way::Asking => {
                self.way = if fstatfs(&self.file).is_ok_and(|system| is_memory(&system)) {
                    Way::AtOnce
                } else {
                    Way::Aside
                };
                self.read_at_once(at, wanted)
            }
            read => Some(read),
        }
    }
}

fn is_memory(system: &StatFs) -> bool {
    system.f_type == TMPFS
}

fn read(
    file: &File,
    at: u64,
    wanted: usize,
    mut buffer: Spare,
    flags: ReadWriteFlags,
) -> Result<Bytes, Errno> {
    loop {
        let into = buffer.get_mut(..wanted).unwrap_or_default();
        match preadv2(file, &mut [IoSliceMut::new(into)], at, flags) {
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
            Ok(length) => return Ok(Bytes::from_owner(Piece { buffer, length })),
        }
    }
}

/// Read octets, whose buffer is used again once nobody needs them.
struct Piece {
    buffer: Spare,
    length: usize,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        self.buffer.get(..self.length).unwrap_or_default()
    }
}

/// What `statfs(2)` calls a file system that is memory.
const TMPFS: FsWord = 0x0102_1994;

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::Write as _;

    use super::*;

    fn file(content: &[u8]) -> Arc<File> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        Arc::new(file)
    }

    #[tokio::test]
    async fn pieces_in_use_are_never_written_over() {
        let content: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
        let end = content.len() as u64;
        for way in [Way::Asking, Way::AtOnce, Way::Aside] {
            let mut reader = Reader { way, ..Reader::new(file(&content)) };
            let (mut pieces, mut at) = (Vec::new(), 0);
            while at < end {
                let piece = poll_fn(|cx| reader.poll_read(&(at..end), 40_000, cx)).await.unwrap();
                at += piece.len() as u64;
                pieces.push(piece);
            }
            assert!(pieces.concat() == content);
        }
    }

    #[tokio::test]
    async fn what_is_behind_the_end_is_nothing() {
        let mut reader = Reader::new(file(b"0123456789"));
        for (part, read) in [(4..6, &b"45"[..]), (8..20, b"89"), (10..20, b""), (3..3, b"")] {
            assert_eq!(poll_fn(|cx| reader.poll_read(&part, 100, cx)).await.unwrap(), read);
        }
    }
}
