//! An answer's body, read ahead of its client so that the worker is free.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;

use super::{Spool, cut_off};
use crate::fault::Fault;
use crate::files::Reader;
use crate::http::compress::{Compressed, Encoder};
use crate::http::response::Payload;
use crate::http::worker::Worker;
use crate::route::Shelf;
use crate::upstream::{Call, Chunk};
use crate::wire::Head;
use crate::wire::deadline::Deadline;

/// How long a client may be behind before its answer goes to disk: one that merely waits for a round trip is not.
const PATIENCE: Duration = Duration::from_millis(100);
/// An answer without room goes at its client's pace, a request without room fails: of all room on disk one part in so many
/// is left to requests.
const FOR_REQUESTS: u64 = 2;

/// An answer's body that is read ahead of a slow client, so that the worker is free.
pub(in crate::http) struct Ahead {
    source: Source,
    spool: Spool,
    /// Reads the spool's file.
    reader: Option<Reader>,
    /// How much of it the client has.
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
    fn poll_chunk(&mut self, most: usize, cx: &mut Context<'_>) -> Poll<Result<Chunk, Fault>> {
        match self {
            Self::Call(call) => call.poll_chunk(most, cx),
            Self::Compressed(body) => body.poll_chunk(most, cx),
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
    pub(in crate::http) fn new(call: Call, shelf: &Arc<Shelf>, worker: &Rc<Worker>) -> Self {
        Self {
            source: Source::Call(call),
            spool: Spool::new(shelf, Some(FOR_REQUESTS), worker),
            reader: None,
            at: 0,
            held: None,
            ended: None,
            patience: Deadline::default(),
            full: false,
        }
    }

    /// The same, sent through an encoder before it waits.
    pub(in crate::http) fn compressed(self, encoder: Encoder) -> Self {
        let from = match self.source {
            Source::Call(call) => Payload::Upstream(Box::new(call)),
            Source::Compressed(body) => Payload::Compressed(body),
        };
        Self { source: Source::Compressed(Box::new(Compressed::new(from, encoder))), ..self }
    }

    /// The next piece for the client, for which `most` octets are read at most.
    pub(in crate::http) fn poll_chunk(
        &mut self,
        most: usize,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Chunk, Fault>> {
        self.patience.clear();
        match ready!(self.poll_take(most, cx)) {
            Ok(Some(bytes)) => return Poll::Ready(Ok(Chunk::Data(bytes))),
            Ok(None) => {}
            Err(source) => return Poll::Ready(Err(Fault::FileBroken { source })),
        }
        match self.ended.take() {
            Some(ended) => Poll::Ready(ended.map(Chunk::End)),
            None => self.source.poll_chunk(most, cx),
        }
    }

    /// Takes what the worker gives while the client is busy with what it has, `most` octets at once: a piece that finds no
    /// room waits beside the others.
    pub(in crate::http) fn poll_ahead(&mut self, most: usize, cx: &mut Context<'_>) {
        while self.ended.is_none() && !self.full {
            if let Some(bytes) = self.held.take() {
                if !self.stow(bytes, cx) {
                    return;
                }
                continue;
            }
            match self.source.poll_chunk(most, cx) {
                Poll::Ready(Ok(Chunk::Data(bytes))) => self.held = Some(bytes),
                Poll::Ready(Ok(Chunk::End(trailers))) => self.ended = Some(Ok(trailers)),
                Poll::Ready(Err(fault)) => self.ended = Some(Err(fault)),
                Poll::Pending => return,
            }
        }
    }

    /// Whether nothing but the end is left.
    pub(in crate::http) fn is_at_end(&self) -> bool {
        let drained = self.spool.in_memory == 0 && self.spool.written == 0 && self.held.is_none();
        drained && (matches!(self.ended, Some(Ok(None))) || self.ended.is_none() && self.source.is_at_end())
    }

    /// Puts a piece where there is room; false when it has to wait for the client.
    fn stow(&mut self, bytes: Bytes, cx: &mut Context<'_>) -> bool {
        let on_disk = self.spool.written > 0;
        let held = if on_disk { Err(bytes) } else { self.spool.hold_in_memory(bytes) };
        let Err(bytes) = held else { return true };
        if !on_disk {
            if !self.patience.is_set() {
                self.patience.set(PATIENCE);
            }
            if self.patience.poll_passed(cx).is_pending() {
                self.held = Some(bytes);
                return false;
            }
        }
        match self.spool.put_on_disk(std::slice::from_ref(&bytes)) {
            Ok(()) => true,
            Err(full) => {
                // From here the worker goes at the client's pace.
                let site = &*self.spool.shelf.name;
                tracing::warn!(
                    site,
                    "an answer finds no room to wait in, and goes at its client's pace: {full}"
                );
                self.full = true;
                self.held = Some(bytes);
                false
            }
        }
    }

    /// What the client gets next: memory before disk before what found no room.
    fn poll_take(&mut self, most: usize, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        if let Some(bytes) = self.spool.take_from_memory() {
            return Poll::Ready(Ok(Some(bytes)));
        }
        if self.spool.written > 0 {
            return self.poll_file(most, cx).map_ok(Some);
        }
        Poll::Ready(Ok(self.held.take()))
    }

    fn poll_file(&mut self, most: usize, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        let Some(file) = &self.spool.file else { return Poll::Ready(Err(cut_off())) };
        let reader = self.reader.get_or_insert_with(|| Reader::new(Arc::clone(file)));
        let bytes = ready!(reader.poll_read(&(self.at..self.spool.written), most as u64, cx))?;
        if bytes.is_empty() {
            return Poll::Ready(Err(cut_off()));
        }
        self.at += bytes.len() as u64;
        if self.at == self.spool.written {
            self.spool.forget_file();
            (self.reader, self.at, self.full) = (None, 0, false);
        }
        Poll::Ready(Ok(bytes))
    }
}
