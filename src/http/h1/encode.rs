//! An answer as HTTP/1 writes it.

use bytes::{Buf as _, Bytes, BytesMut};

use crate::http::forward::is_hop;
use crate::http::request::Protocol;
use crate::http::response::{Payload, Response};
use crate::upstream::{Answer, Chunk, Io};
use crate::wire::Head;
use crate::wire::chunked::{Piece, chunk, plain};

/// What a usual head takes, in octets: there from the start, it grows once and not five times.
const USUAL_HEAD: usize = 512;

/// An answer's body on its way, framed.
pub(super) struct Encoder {
    pub(super) payload: Payload,
    /// What goes out behind what waits in the connection's buffer.
    pub(super) piece: Piece,
    framing: Framing,
    /// Whether the whole body may be read at once, however little the client takes.
    pub(super) brief: bool,
    ended: bool,
}

#[derive(PartialEq, Eq, Clone, Copy)]
enum Framing {
    Length,
    Chunked,
    Close,
}

impl Encoder {
    /// Writes the head. `keep` says whether the connection goes on; an answer that ends with it cannot. Gives back the
    /// tunnel where the answer opens one.
    pub(super) fn begin(
        out: &mut BytesMut,
        response: Response,
        protocol: Protocol,
        keep: bool,
    ) -> (Self, Option<(Box<Io>, Bytes)>, bool) {
        let framing = match (response.length, protocol) {
            (Some(_), _) => Framing::Length,
            (None, _) if response.payload.is_empty() => Framing::Length,
            (None, Protocol::Http10) => Framing::Close,
            (None, _) => Framing::Chunked,
        };
        let keep = keep && framing != Framing::Close;
        let brief = response.is_brief();
        out.reserve(USUAL_HEAD);
        status_line(out, response.status);
        fields(out, &response.head);
        let (payload, tunnel) = match response.payload {
            Payload::Tunnel(io, behind) => (Payload::Empty, Some((io, behind))),
            payload => (payload, None),
        };
        if tunnel.is_some() {
            out.extend_from_slice(b"connection: Upgrade\r\nupgrade: websocket\r\n");
        } else {
            if !response.status.is_informational() && response.status != http::StatusCode::NO_CONTENT {
                framing_fields(out, response.length, framing);
            }
            connection_field(out, protocol, keep);
        }
        out.extend_from_slice(b"\r\n");
        let ended = payload.is_empty();
        (Self { payload, piece: plain(Bytes::new()), framing, brief, ended }, tunnel, keep)
    }

    /// Whether the next piece of the body is due.
    pub(super) fn wants_more(&self) -> bool {
        !self.ended && !self.piece.has_remaining()
    }

    /// Whether everything was handed to the connection.
    pub(super) fn is_done(&self) -> bool {
        self.ended && !self.piece.has_remaining()
    }

    /// Whether the client knows the body's end by the connection's.
    pub(super) fn ends_with_connection(&self) -> bool {
        self.framing == Framing::Close
    }

    /// What comes next of the body; `sent` counts its octets.
    pub(super) fn take(&mut self, out: &mut BytesMut, chunk: Chunk, sent: &mut u64) {
        match chunk {
            Chunk::Data(data) => {
                *sent += data.len() as u64;
                self.stage(out, data);
            }
            Chunk::End(trailers) => self.end(out, trailers.as_ref()),
        }
    }

    fn stage(&mut self, out: &mut BytesMut, data: Bytes) {
        self.piece = if self.framing == Framing::Chunked { chunk(data, out) } else { plain(data) };
    }

    /// The end of the body.
    fn end(&mut self, out: &mut BytesMut, trailers: Option<&Head>) {
        self.ended = true;
        if self.framing == Framing::Chunked {
            out.extend_from_slice(b"0\r\n");
            if let Some(trailers) = trailers {
                passing_fields(out, trailers);
            }
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// An interim answer (RFC 9110 section 15.2).
pub(super) fn interim(out: &mut BytesMut, answer: &Answer) {
    status_line(out, answer.status);
    passing_fields(out, &answer.head);
    out.extend_from_slice(b"\r\n");
}

fn status_line(out: &mut BytesMut, status: http::StatusCode) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.extend_from_slice(b" ");
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn fields(out: &mut BytesMut, head: &Head) {
    for field in head.fields() {
        field_line(out, field.name, field.value);
    }
}

/// The fields that do not speak of the upstream's own hop.
fn passing_fields(out: &mut BytesMut, head: &Head) {
    for field in head.fields().filter(|field| !is_hop(field.known)) {
        field_line(out, field.name, field.value);
    }
}

fn field_line(out: &mut BytesMut, name: &[u8], value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn framing_fields(out: &mut BytesMut, length: Option<u64>, framing: Framing) {
    if let Some(length) = length {
        field_line(out, b"content-length", itoa::Buffer::new().format(length).as_bytes());
    } else if framing == Framing::Chunked {
        field_line(out, b"transfer-encoding", b"chunked");
    }
}

/// What differs from the version's own default is said (RFC 9112 section 9.3).
fn connection_field(out: &mut BytesMut, protocol: Protocol, keep: bool) {
    match (protocol, keep) {
        (Protocol::Http10, true) => field_line(out, b"connection", b"keep-alive"),
        (_, false) => field_line(out, b"connection", b"close"),
        (_, true) => {}
    }
}
