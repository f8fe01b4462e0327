//! An answer on its way to the client.

use std::task::{Context, Poll};

use bytes::Bytes;
use http::StatusCode;

use super::client::LEAST;
use super::compress::{Compressed, Encoder};
use super::spool::Ahead;
use crate::fault::Fault;
use crate::files;
use crate::upstream::{Call, Chunk, Io};
use crate::wire::Head;

/// An answer: its field lines have no hop-by-hop fields and no Content-Length.
pub(super) struct Response {
    pub(super) status: StatusCode,
    pub(super) head: Head,
    /// The length of the body, or of the body that a HEAD request did not ask for.
    pub(super) length: Option<u64>,
    pub(super) payload: Payload,
    /// The connection ends after this answer.
    pub(super) close: bool,
}

/// What follows the head.
pub(super) enum Payload {
    /// Nothing.
    Empty,
    /// These octets.
    Full(Bytes),
    /// What a file has.
    File(Box<files::Body>),
    /// What the upstream sends, at the client's pace.
    Upstream(Box<Call>),
    /// What the upstream sends, at its own pace.
    Ahead(Box<Ahead>),
    /// What any of these has, compressed.
    Compressed(Box<Compressed>),
    /// Not HTTP any more: the upstream's connection, and what came behind its 101.
    Tunnel(Box<Io>, Bytes),
    /// No answer at all: the connection ends.
    Silence,
}

impl Response {
    pub(super) fn empty(status: StatusCode) -> Self {
        Self { status, head: Head::default(), length: Some(0), payload: Payload::Empty, close: false }
    }

    /// Whether the whole body may be read at once, however little the client takes.
    pub(super) fn is_brief(&self) -> bool {
        self.length.is_some_and(|length| length <= LEAST as u64)
    }

    /// Ends the connection without a word.
    pub(super) fn silence() -> Self {
        Self { payload: Payload::Silence, close: true, ..Self::empty(StatusCode::NO_CONTENT) }
    }
}

impl Payload {
    /// Whether there is nothing to send after the head.
    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::Empty | Self::Silence)
    }

    /// Whether the upstream still takes part.
    pub(super) fn is_upstreams(&self) -> bool {
        match self {
            Self::Upstream(_) | Self::Ahead(_) => true,
            Self::Compressed(body) => body.from.is_upstreams(),
            _ => false,
        }
    }

    /// Sends it through an encoder. What is read ahead is compressed before it waits, so that an encoder lives for as long as
    /// the upstream sends, and not for as long as a slow client reads.
    pub(super) fn compress(&mut self, encoder: Encoder) {
        *self = match std::mem::replace(self, Self::Empty) {
            Self::Ahead(ahead) => Self::Ahead(Box::new(ahead.compressed(encoder))),
            plain => Self::Compressed(Box::new(Compressed::new(plain, encoder))),
        };
    }

    /// Whether everything was taken, and only the end is left to say.
    pub(super) fn is_at_end(&self) -> bool {
        match self {
            Self::Upstream(call) => call.is_at_end(),
            Self::Ahead(ahead) => ahead.is_at_end(),
            Self::File(body) => body.is_at_end(),
            Self::Full(bytes) => bytes.is_empty(),
            Self::Compressed(body) => body.is_at_end(),
            _ => true,
        }
    }

    /// The first piece of what an upstream sends, where it is there already: one that has failed by now can still be told of
    /// by a status, and a client that has seen no byte of an answer would ask again.
    pub(super) fn first(&mut self, most: usize, cx: &mut Context<'_>) -> Result<Option<Chunk>, Fault> {
        if !self.is_upstreams() {
            return Ok(None);
        }
        match self.poll_chunk(most, cx) {
            Poll::Ready(chunk) => chunk.map(Some),
            Poll::Pending => Ok(None),
        }
    }

    /// Moves what does not need the client, while it is busy, `most` octets at once.
    pub(super) fn poll_ahead(&mut self, most: usize, cx: &mut Context<'_>) {
        if let Self::Ahead(ahead) = self {
            ahead.poll_ahead(most, cx);
        }
    }

    /// The next piece, for which `most` octets are read at most; one that is in memory already may be longer.
    pub(super) fn poll_chunk(&mut self, most: usize, cx: &mut Context<'_>) -> Poll<Result<Chunk, Fault>> {
        match self {
            Self::Upstream(call) => call.poll_chunk(most, cx),
            Self::Ahead(ahead) => ahead.poll_chunk(most, cx),
            Self::File(body) => {
                body.poll_chunk(most, cx).map_ok(|data| data.map_or(Chunk::End(None), Chunk::Data))
            }
            Self::Compressed(body) => body.poll_chunk(most, cx),
            Self::Full(bytes) if !bytes.is_empty() => Poll::Ready(Ok(Chunk::Data(std::mem::take(bytes)))),
            _ => Poll::Ready(Ok(Chunk::End(None))),
        }
    }
}
