//! A file's content on its way out: as much in memory as one piece.

use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use rustix::io::{Errno, ReadWriteFlags, preadv2};
use tokio::task::{JoinHandle, spawn_blocking};

use crate::fault::Fault;

/// The most that is read at once, in octets.
const PIECE: u64 = 64 * 1024;

/// Reads a file as it is asked to. What the kernel has in memory is read at once; what it would have to wait for, on
/// another thread.
#[derive(Debug)]
pub struct Body {
    file: Arc<OwnedFd>,
    pieces: VecDeque<Piece>,
    reading: Option<JoinHandle<Result<Bytes, Errno>>>,
    /// Whether the file's own system can say that it would have to wait.
    can_tell: bool,
}

#[derive(Debug)]
enum Piece {
    /// What stands between two parts.
    Text(Bytes),
    /// Octets of the file; never empty.
    Part(Range<u64>),
}

impl Body {
    pub(super) fn new(file: Arc<OwnedFd>) -> Self {
        Self { file, pieces: VecDeque::new(), reading: None, can_tell: true }
    }

    pub(super) fn push_text(&mut self, text: impl Into<Bytes>) {
        self.pieces.push_back(Piece::Text(text.into()));
    }

    pub(super) fn push_part(&mut self, part: Range<u64>) {
        if !part.is_empty() {
            self.pieces.push_back(Piece::Part(part));
        }
    }

    /// How long it is, in octets.
    pub fn length(&self) -> u64 {
        let length = |piece: &Piece| match piece {
            Piece::Text(text) => text.len() as u64,
            Piece::Part(part) => part.end - part.start,
        };
        self.pieces.iter().map(length).sum()
    }

    /// Whether all of it was taken.
    pub fn is_at_end(&self) -> bool {
        self.pieces.is_empty()
    }

    /// The next piece; None is the end. A file that has become shorter is an error, for its length was told already.
    pub fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Fault>> {
        let part = match self.pieces.pop_front() {
            None => return Poll::Ready(Ok(None)),
            Some(Piece::Text(text)) => return Poll::Ready(Ok(Some(text))),
            Some(Piece::Part(part)) => part,
        };
        let read = match self.poll_read(&part, cx) {
            Poll::Ready(read) => read?,
            Poll::Pending => {
                self.pieces.push_front(Piece::Part(part));
                return Poll::Pending;
            }
        };
        if read.is_empty() {
            let source = io::Error::new(io::ErrorKind::UnexpectedEof, "it became shorter while it was sent");
            return Poll::Ready(Err(Fault::FileBroken { source }));
        }
        let rest = part.start + read.len() as u64..part.end;
        if !rest.is_empty() {
            self.pieces.push_front(Piece::Part(rest));
        }
        Poll::Ready(Ok(Some(read)))
    }

    fn poll_read(&mut self, part: &Range<u64>, cx: &mut Context<'_>) -> Poll<Result<Bytes, Fault>> {
        let broken = |error: Errno| Fault::FileBroken { source: error.into() };
        if self.reading.is_none() && self.can_tell {
            match read(&self.file, part, ReadWriteFlags::NOWAIT) {
                Err(Errno::AGAIN) => {}
                Err(Errno::OPNOTSUPP) => self.can_tell = false,
                read => return Poll::Ready(read.map_err(broken)),
            }
        }
        let reading = self.reading.get_or_insert_with(|| {
            let (file, part) = (Arc::clone(&self.file), part.clone());
            spawn_blocking(move || read(&file, &part, ReadWriteFlags::empty()))
        });
        let read = ready!(Pin::new(reading).poll(cx));
        self.reading = None;
        Poll::Ready(read.map_err(Fault::internal)?.map_err(broken))
    }
}

/// The first octets of a part; none is the end of the file.
fn read(file: &OwnedFd, part: &Range<u64>, flags: ReadWriteFlags) -> Result<Bytes, Errno> {
    let wanted = usize::try_from((part.end - part.start).min(PIECE)).unwrap_or(0);
    let mut buffer = BytesMut::zeroed(wanted);
    loop {
        match preadv2(file, &mut [IoSliceMut::new(&mut buffer)], part.start, flags) {
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
            Ok(count) => {
                buffer.truncate(count);
                return Ok(buffer.freeze());
            }
        }
    }
}
