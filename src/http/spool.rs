//! The slow-client shield: a request is read to its end before a worker is taken, and an answer is taken as fast as the
//! worker gives it. What waits is held in memory first, then in an unlinked file.

use std::collections::VecDeque;
use std::fs::File;
use std::future::poll_fn;
use std::io;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};

use super::compress::{Compressed, Encoder};
use super::response::Payload;
use super::worker::Worker;
use crate::config::model::Buffers;
use crate::fault::Fault;
use crate::upstream::{Call, Chunk, DiskBudget};
use crate::wire::deadline::Deadline;
use crate::wire::{Body, Head};

/// How much is read from the file at once, in octets.
const READ: usize = 64 * 1024;
/// How long a client may be behind before its answer goes to disk: one that merely waits for a round trip is not.
const PATIENCE: Duration = Duration::from_millis(100);

/// Bytes that wait, in their order.
struct Spool {
    memory: VecDeque<Bytes>,
    in_memory: u64,
    memory_limit: u64,
    file: Option<File>,
    written: u64,
    budget: Arc<DiskBudget>,
    /// What is left of the budget to others, in octets.
    reserve: u64,
    worker: Rc<Worker>,
}

/// Why bytes cannot wait.
#[derive(Debug, thiserror::Error)]
enum Full {
    /// The upstream's `buffer_disk` is used up.
    #[error("buffer_disk is used up")]
    Budget,
    /// The disk refused.
    #[error("the spool file: {0}")]
    Disk(#[from] io::Error),
}

impl Spool {
    fn new(buffers: &Buffers, budget: &Arc<DiskBudget>, reserve: u64, worker: &Rc<Worker>) -> Self {
        Self {
            worker: Rc::clone(worker),
            reserve,
            memory: VecDeque::new(),
            in_memory: 0,
            memory_limit: buffers.memory,
            file: None,
            written: 0,
            budget: Arc::clone(budget),
        }
    }

    fn fits_in_memory(&self, bytes: &Bytes) -> bool {
        self.written == 0 && self.in_memory + bytes.len() as u64 <= self.memory_limit
    }

    fn hold_in_memory(&mut self, bytes: Bytes) {
        self.in_memory += bytes.len() as u64;
        self.worker.lobby.meter.buffered(bytes.len() as u64);
        self.memory.push_back(bytes);
    }

    fn take_from_memory(&mut self) -> Option<Bytes> {
        let bytes = self.memory.pop_front()?;
        self.in_memory -= bytes.len() as u64;
        self.worker.lobby.meter.unbuffered(bytes.len() as u64);
        Some(bytes)
    }

    /// Writing goes to the page cache: the worker does not wait for the disk unless the kernel makes every writer wait.
    fn put_on_disk(&mut self, bytes: &Bytes) -> Result<(), Full> {
        let length = bytes.len() as u64;
        if !self.budget.take(length, self.reserve) {
            return Err(Full::Budget);
        }
        let written = match &self.file {
            Some(file) => file.write_all_at(bytes, self.written),
            None => tempfile::tempfile().and_then(|file| self.file.insert(file).write_all_at(bytes, 0)),
        };
        if let Err(error) = written {
            self.budget.give_back(length);
            return Err(error.into());
        }
        self.written += length;
        Ok(())
    }

    fn push(&mut self, bytes: Bytes) -> Result<(), Full> {
        if self.fits_in_memory(&bytes) {
            self.hold_in_memory(bytes);
            return Ok(());
        }
        self.put_on_disk(&bytes)
    }

    fn read_back(&self, at: u64) -> io::Result<Bytes> {
        let Some(file) = &self.file else { return Err(io::ErrorKind::NotFound.into()) };
        let left = usize::try_from(self.written - at).unwrap_or(READ);
        let mut bytes = vec![0; left.min(READ)];
        file.read_exact_at(&mut bytes, at)?;
        Ok(bytes.into())
    }

    /// Everything in the file was read: its space is free again.
    fn forget_file(&mut self) {
        self.file = None;
        self.budget.give_back(std::mem::take(&mut self.written));
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        self.budget.give_back(self.written);
        self.worker.lobby.meter.unbuffered(self.in_memory);
    }
}

/// A request's body, read to its end. It can be sent as often as needed.
pub(super) struct Collected {
    spool: Spool,
    pub(super) length: u64,
    pub(super) trailers: Option<HeaderMap>,
}

/// Reads a body to its end. A full disk is the edge's fault; everything else that goes wrong is the client's.
pub(super) async fn collect(
    mut body: Body,
    buffers: &Buffers,
    budget: &Arc<DiskBudget>,
    worker: &Rc<Worker>,
) -> Result<Rc<Collected>, Fault> {
    let spool = Spool::new(buffers, budget, 0, worker);
    let mut collected = Collected { spool, length: 0, trailers: None };
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        match frame?.into_data() {
            Ok(data) if data.is_empty() => {}
            Ok(data) => {
                collected.length += data.len() as u64;
                collected.spool.push(data).map_err(|full| {
                    tracing::error!(error = %full, "a request's body finds no room to wait in");
                    Fault::Unavailable("no room for the request's body")
                })?;
            }
            Err(trailers) => collected.trailers = trailers.into_trailers().ok(),
        }
    }
    Ok(Rc::new(collected))
}

impl Collected {
    /// The body from its beginning.
    pub(super) fn replay(self: &Rc<Self>) -> Body {
        Box::new(Replay { collected: Rc::clone(self), piece: 0, at: 0, ended: false })
    }
}

struct Replay {
    collected: Rc<Collected>,
    /// The next piece in memory.
    piece: usize,
    /// How much of the file was read.
    at: u64,
    ended: bool,
}

impl http_body::Body for Replay {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let spool = &self.collected.spool;
        if let Some(bytes) = spool.memory.get(self.piece).cloned() {
            self.piece += 1;
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        if self.at < spool.written {
            let read = spool.read_back(self.at);
            return Poll::Ready(Some(match read {
                Ok(bytes) => {
                    self.at += bytes.len() as u64;
                    Ok(Frame::data(bytes))
                }
                Err(error) => Err(Fault::internal(error)),
            }));
        }
        if std::mem::replace(&mut self.ended, true) {
            return Poll::Ready(None);
        }
        Poll::Ready(self.collected.trailers.clone().map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.collected.length)
    }
}

/// An answer's body that is read ahead of a slow client, so that the worker is free.
pub(super) struct Ahead {
    source: Source,
    spool: Spool,
    /// How much of the spool's file the client has.
    at: u64,
    /// A piece for which there was no room.
    held: Option<Bytes>,
    /// How the call ended, once it has; told behind what waits.
    ended: Option<Result<Option<Head>, Fault>>,
    /// When a client that does not take what waits in memory is slow.
    patience: Deadline,
    /// Whether the disk has no room either.
    full: bool,
}

/// Where an answer's body comes from.
#[allow(
    clippy::large_enum_variant,
    reason = "the large one is what most answers have, and it is boxed as a whole"
)]
enum Source {
    Call(Call),
    Compressed(Box<Compressed>),
}

impl Source {
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Result<Chunk, Fault>> {
        match self {
            Self::Call(call) => call.poll_chunk(cx),
            Self::Compressed(body) => body.poll_chunk(cx),
        }
    }

    fn slow_down(&mut self, cx: &mut Context<'_>) {
        match self {
            Self::Call(call) => call.slow_down(),
            Self::Compressed(body) => body.from.poll_ahead(cx),
        }
    }

    fn is_at_end(&self) -> bool {
        match self {
            Self::Call(call) => call.is_at_end(),
            Self::Compressed(body) => body.is_at_end(),
        }
    }
}

impl Ahead {
    pub(super) fn new(call: Call, buffers: &Buffers, budget: &Arc<DiskBudget>, worker: &Rc<Worker>) -> Self {
        // An answer without room goes at its client's pace, a request without room fails: half is left to requests.
        let spool = Spool::new(buffers, budget, buffers.disk / 2, worker);
        Self {
            source: Source::Call(call),
            spool,
            at: 0,
            held: None,
            ended: None,
            patience: Deadline::default(),
            full: false,
        }
    }

    /// The same, sent through an encoder before it waits.
    pub(super) fn compressed(self, encoder: Encoder) -> Self {
        let from = match self.source {
            Source::Call(call) => Payload::Upstream(Box::new(call)),
            Source::Compressed(body) => Payload::Compressed(body),
        };
        Self { source: Source::Compressed(Box::new(Compressed::new(from, encoder))), ..self }
    }

    /// The next piece for the client.
    pub(super) fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Result<Chunk, Fault>> {
        self.patience.clear();
        match self.take() {
            Ok(Some(bytes)) => return Poll::Ready(Ok(Chunk::Data(bytes))),
            Ok(None) => {}
            Err(error) => return Poll::Ready(Err(Fault::internal(error))),
        }
        match self.ended.take() {
            Some(ended) => Poll::Ready(ended.map(Chunk::End)),
            None => self.source.poll_chunk(cx),
        }
    }

    /// Takes what the worker gives while the client is busy with what it has.
    pub(super) fn poll_ahead(&mut self, cx: &mut Context<'_>) {
        self.source.slow_down(cx);
        while self.ended.is_none() && !self.full {
            if let Some(bytes) = self.held.take() {
                if !self.stow(bytes, cx) {
                    return;
                }
                continue;
            }
            match self.source.poll_chunk(cx) {
                Poll::Ready(Ok(Chunk::Data(bytes))) => self.held = Some(bytes),
                Poll::Ready(Ok(Chunk::End(trailers))) => self.ended = Some(Ok(trailers)),
                Poll::Ready(Err(fault)) => self.ended = Some(Err(fault)),
                Poll::Pending => return,
            }
        }
    }

    /// Whether nothing but the end is left.
    pub(super) fn is_at_end(&self) -> bool {
        let drained = self.spool.in_memory == 0 && self.spool.written == 0 && self.held.is_none();
        drained && (matches!(self.ended, Some(Ok(None))) || self.ended.is_none() && self.source.is_at_end())
    }

    /// Puts a piece where there is room; false when it has to wait for the client.
    fn stow(&mut self, bytes: Bytes, cx: &mut Context<'_>) -> bool {
        if self.spool.fits_in_memory(&bytes) {
            self.spool.hold_in_memory(bytes);
            return true;
        }
        if self.spool.written == 0 {
            if !self.patience.is_set() {
                self.patience.set(PATIENCE);
            }
            if self.patience.poll_passed(cx).is_pending() {
                self.held = Some(bytes);
                return false;
            }
        }
        match self.spool.put_on_disk(&bytes) {
            Ok(()) => true,
            Err(full) => {
                // From here the worker goes at the client's pace.
                tracing::warn!(error = %full, "an answer finds no room to wait in");
                self.full = true;
                self.held = Some(bytes);
                false
            }
        }
    }

    /// What the client gets next: memory before disk before what found no room.
    fn take(&mut self) -> io::Result<Option<Bytes>> {
        if let Some(bytes) = self.spool.take_from_memory() {
            return Ok(Some(bytes));
        }
        if self.spool.written > 0 {
            let bytes = self.spool.read_back(self.at)?;
            self.at += bytes.len() as u64;
            if self.at == self.spool.written {
                self.spool.forget_file();
                self.at = 0;
                self.full = false;
            }
            return Ok(Some(bytes));
        }
        Ok(self.held.take())
    }
}
