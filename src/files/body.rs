//! A file's content on its way out: as much in memory as one piece.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::ops::Range;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::reader::{PIECE, Reader};
use crate::fault::Fault;
use crate::wire::deadline::Deadline;

/// What of a file is sent, in its order.
#[derive(Debug)]
pub struct Body {
    reader: Reader,
    pieces: VecDeque<Piece>,
    pace: Option<Pace>,
}

#[derive(Debug)]
enum Piece {
    /// What stands between two parts.
    Text(Bytes),
    /// Octets of the file; never empty.
    Part(Range<u64>),
}

impl Body {
    pub(super) fn new(file: Arc<File>) -> Self {
        Self { reader: Reader::new(file), pieces: VecDeque::new(), pace: None }
    }

    pub(super) fn push_text(&mut self, text: impl Into<Bytes>) {
        self.pieces.push_back(Piece::Text(text.into()));
    }

    pub(super) fn push_part(&mut self, part: Range<u64>) {
        if !part.is_empty() {
            self.pieces.push_back(Piece::Part(part));
        }
    }

    /// Holds it to so many octets a second.
    pub(super) fn limit_rate(&mut self, rate: NonZeroU64) {
        self.pace = Some(Pace { rate, start: None, sent: 0, timer: Deadline::default() });
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

    /// The next piece, of `most` octets of the file at most; None is the end. A file that has become shorter is an error, for
    /// its length was told already.
    pub fn poll_chunk(&mut self, most: usize, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Fault>> {
        if let Some(pace) = &mut self.pace {
            ready!(pace.poll_due(cx));
        }
        let part = match self.pieces.pop_front() {
            None => return Poll::Ready(Ok(None)),
            Some(Piece::Text(text)) => return Poll::Ready(Ok(Some(text))),
            Some(Piece::Part(part)) => part,
        };
        let most = self.pace.as_ref().map_or(PIECE, |pace| pace.rate.get()).min(most as u64);
        let read = match self.reader.poll_read(&part, most, cx) {
            Poll::Ready(read) => read.map_err(|source| Fault::FileBroken { source })?,
            Poll::Pending => {
                self.pieces.push_front(Piece::Part(part));
                return Poll::Pending;
            }
        };
        if read.is_empty() {
            let source = io::Error::new(io::ErrorKind::UnexpectedEof, "it became shorter while it was sent");
            return Poll::Ready(Err(Fault::FileBroken { source }));
        }
        if let Some(pace) = &mut self.pace {
            pace.sent += read.len() as u64;
        }
        let rest = part.start + read.len() as u64..part.end;
        if !rest.is_empty() {
            self.pieces.push_front(Piece::Part(rest));
        }
        Poll::Ready(Ok(Some(read)))
    }
}

/// A number of octets a second.
#[derive(Debug)]
struct Pace {
    rate: NonZeroU64,
    start: Option<Instant>,
    sent: u64,
    timer: Deadline,
}

impl Pace {
    /// Ready when what was sent so far has had its time.
    fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let start = *self.start.get_or_insert_with(Instant::now);
        let millis = self.sent.saturating_mul(1000) / self.rate;
        let left = Duration::from_millis(millis).saturating_sub(start.elapsed());
        if left.is_zero() {
            return Poll::Ready(());
        }
        self.timer.set(left);
        self.timer.poll_passed(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    fn body(content: &[u8]) -> Body {
        let file = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut &file, content).unwrap();
        Body::new(Arc::new(file))
    }

    async fn all(body: &mut Body) -> Result<Vec<u8>, Fault> {
        let mut all = Vec::new();
        while let Some(piece) = poll_fn(|cx| body.poll_chunk(usize::MAX, cx)).await? {
            all.extend_from_slice(&piece);
        }
        Ok(all)
    }

    #[tokio::test]
    async fn parts_come_in_their_order_with_text_between() {
        let content: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
        let mut body = body(&content);
        body.push_text("<");
        body.push_part(100..400_000);
        body.push_part(7..7);
        body.push_text("|");
        body.push_part(0..3);
        assert_eq!(body.length(), 1 + 399_900 + 1 + 3);
        let expected = [b"<", &content[100..400_000], b"|", &content[..3]].concat();
        assert!(all(&mut body).await.unwrap() == expected);
        assert!(body.is_at_end());
    }

    #[tokio::test]
    async fn what_the_file_has_no_longer_is_an_error() {
        let mut body = body(b"0123456789");
        body.push_part(5..11);
        assert!(matches!(all(&mut body).await, Err(Fault::FileBroken { .. })));
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_is_held() {
        let mut body = body(&[0; 100]);
        body.push_part(0..100);
        body.limit_rate(NonZeroU64::new(10).unwrap());
        let start = Instant::now();
        assert_eq!(all(&mut body).await.unwrap().len(), 100);
        // The last piece is sent at once, and nothing waits behind it but the end.
        let took = start.elapsed().as_secs_f64();
        assert!((9.0..=10.1).contains(&took), "{took} s");
    }
}
