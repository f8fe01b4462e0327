//! A request's body, read to its end before a worker is taken.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};

use super::{Full, Spool, cut_off};
use crate::fault::Fault;
use crate::files::{PIECE, Reader};
use crate::http::worker::Worker;
use crate::route::Shelf;
use crate::wire::Body;

/// How much is written to disk at once, in octets.
const WRITE: u64 = 128 * 1024;

/// A request's body, read to its end. It can be sent as often as needed.
pub(in crate::http) struct Collected {
    spool: Spool,
    pub(in crate::http) length: u64,
    pub(in crate::http) trailers: Option<HeaderMap>,
}

/// Reads a body to its end. Where it finds no room, nothing of it was sent to anybody; everything else that goes wrong is
/// the client's doing.
pub(in crate::http) async fn collect(
    mut body: Body,
    shelf: &Arc<Shelf>,
    worker: &Rc<Worker>,
    id: &str,
) -> Result<Rc<Collected>, Fault> {
    let mut collected = Collected { spool: Spool::new(shelf, None, worker), length: 0, trailers: None };
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        match frame?.into_data() {
            Ok(data) if data.is_empty() => {}
            Ok(data) => {
                collected.length += data.len() as u64;
                collected.spool.push(data).map_err(|full| refused(&full, &collected, id))?;
            }
            Err(trailers) => collected.trailers = trailers.into_trailers().ok(),
        }
    }
    collected.spool.close_tail();
    Ok(Rc::new(collected))
}

fn refused(full: &Full, collected: &Collected, id: &str) -> Fault {
    let site = &*collected.spool.shelf.name;
    tracing::error!(
        request_id = id,
        site,
        octets = collected.length,
        "a request's body finds no room to wait in: {full}"
    );
    match full {
        Full::Site(_) | Full::Edge(_) => Fault::NoRoom,
        Full::Never(_) | Full::Disk { .. } | Full::Folder { .. } => Fault::NoSpace,
    }
}

impl Spool {
    /// Memory keeps the end. What has to make room goes to disk in large pieces: an upload of 1 MiB over HTTP/2 costs 0.94 of
    /// what it cost with a write for each.
    fn push(&mut self, bytes: Bytes) -> Result<(), Full> {
        let Err(bytes) = self.hold_in_memory(bytes) else { return Ok(()) };
        self.make_room()?;
        let Err(bytes) = self.hold_in_memory(bytes) else { return Ok(()) };
        // Others have all the memory: nothing that came before may stay there.
        while self.in_memory > 0 {
            self.make_room()?;
        }
        self.put_on_disk(&[bytes])
    }

    /// Moves what came first from memory to disk.
    fn make_room(&mut self) -> Result<(), Full> {
        let (mut pieces, mut moved) = (Vec::new(), 0);
        while moved < WRITE
            && let Some(bytes) = self.take_from_memory()
        {
            moved += bytes.len() as u64;
            pieces.push(bytes);
        }
        self.put_on_disk(&pieces)
    }
}

impl Collected {
    /// The body from its beginning.
    pub(in crate::http) fn replay(self: &Rc<Self>) -> Body {
        let reader = self.spool.file.as_ref().map(|file| Reader::new(Arc::clone(file)));
        Box::new(Replay { collected: Rc::clone(self), piece: 0, reader, at: 0, ended: false })
    }
}

struct Replay {
    collected: Rc<Collected>,
    /// The next piece in memory.
    piece: usize,
    reader: Option<Reader>,
    /// How much of the file was read.
    at: u64,
    ended: bool,
}

impl Replay {
    fn poll_file(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, Fault>> {
        let part = self.at..self.collected.spool.written;
        let read = match &mut self.reader {
            Some(reader) => ready!(reader.poll_read(&part, PIECE, cx)),
            None => Err(cut_off()),
        };
        let read = read.and_then(|bytes| if bytes.is_empty() { Err(cut_off()) } else { Ok(bytes) });
        self.at += read.as_ref().map_or(0, |bytes| bytes.len() as u64);
        Poll::Ready(read.map_err(|source| Fault::FileBroken { source }))
    }
}

impl http_body::Body for Replay {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        if self.at < self.collected.spool.written {
            return self.poll_file(cx).map_ok(Frame::data).map(Some);
        }
        if let Some(bytes) = self.collected.spool.memory.get(self.piece).cloned() {
            self.piece += 1;
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
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
