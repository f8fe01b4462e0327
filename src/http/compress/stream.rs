//! A body that is compressed as it comes.

use std::task::{Context, Poll};

use bytes::Bytes;

use super::encoder::Encoder;
use crate::fault::Fault;
use crate::http::response::Payload;
use crate::upstream::Chunk;
use crate::wire::Head;

/// How much is compressed before others have their turn, in octets: half a millisecond with brotli.
const TURN: usize = 32 * 1024;

/// A body on its way through an encoder. What has come is sent on as soon as nothing more has, so that a client waits for no
/// longer than the upstream lets it.
pub(in crate::http) struct Compressed {
    pub(in crate::http) from: Payload,
    /// None once it was finished.
    encoder: Option<Encoder>,
    /// What waits for its turn.
    input: Bytes,
    /// How much had its turn since others had theirs.
    done: usize,
    /// Whether the encoder may hold back something that the client could use.
    holds: bool,
    trailers: Option<Head>,
}

impl Compressed {
    pub(in crate::http) fn new(from: Payload, encoder: Encoder) -> Self {
        Self { from, encoder: Some(encoder), input: Bytes::new(), done: 0, holds: false, trailers: None }
    }

    /// Whether only the end is left to say.
    pub(in crate::http) fn is_at_end(&self) -> bool {
        self.encoder.is_none() && self.trailers.is_none()
    }

    /// The next piece, for which `most` octets are read at most.
    pub(in crate::http) fn poll_chunk(
        &mut self,
        most: usize,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Chunk, Fault>> {
        loop {
            if self.done >= TURN {
                self.done = 0;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let Some(encoder) = &mut self.encoder else {
                return Poll::Ready(Ok(Chunk::End(self.trailers.take())));
            };
            let out = if self.input.is_empty() {
                match self.from.poll_chunk(most, cx)? {
                    Poll::Ready(Chunk::Data(data)) => {
                        self.input = data;
                        continue;
                    }
                    Poll::Ready(Chunk::End(trailers)) => {
                        self.trailers = trailers;
                        self.encoder.take().map_or_else(|| Ok(Vec::new()), Encoder::finish)
                    }
                    Poll::Pending if std::mem::take(&mut self.holds) => encoder.flush(),
                    Poll::Pending => return Poll::Pending,
                }
            } else {
                let piece = self.input.split_to(self.input.len().min(TURN));
                self.done += piece.len();
                self.holds = true;
                encoder.write(&piece)
            };
            let out = out.map_err(Fault::internal)?;
            if !out.is_empty() {
                return Poll::Ready(Ok(Chunk::Data(out.into())));
            }
        }
    }
}
