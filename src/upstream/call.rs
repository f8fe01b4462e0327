//! One request and its answer on one connection: both directions at once, in one task.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode};
use tokio::time::Instant;

use super::conn::{Conn, Io};
use super::line::Place;
use super::pool::{Busy, Lane};
use super::sender::{Phase, Sender};
use super::sticky::Token;
use super::{Outgoing, Upstream};
use crate::fault::Fault;
use crate::wire::Known;
use crate::wire::chunked::{Decoded, Decoder};
use crate::wire::head::{Head, MAX_RESPONSE_HEAD, Scanner, StatusLine, Version, members};
use crate::wire::scratch::{poll_read_into, poll_read_most};
use crate::wire::{Body, Framing, framing};

/// The most that a read of a body brings, in octets: each write may wake the other side, and 10 MiB take a quarter less time
/// so than 64 KiB by 64 KiB.
pub const READ: usize = 256 * 1024;
/// The most interim answers to one request.
const MAX_INTERIM: u32 = 16;

/// The head of an answer.
#[derive(Debug)]
pub struct Answer {
    /// Its status; 1xx other than 101 means that another head follows.
    pub status: StatusCode,
    /// Its field lines.
    pub head: Head,
    /// How its body ends.
    pub framing: Framing,
}

/// A piece of an answer's body.
#[derive(Debug)]
pub enum Chunk {
    /// Data; never empty.
    Data(Bytes),
    /// The end, with the trailers if there are any.
    End(Option<Head>),
}

/// A request in progress.
pub struct Call {
    /// None once it went back to its pool.
    conn: Option<Conn>,
    lane: Rc<Lane>,
    /// What it is counted by, until the answer is whole: whoever reads it later may be slow.
    busy: Option<Busy>,
    place: Option<Place>,
    timeout: Duration,
    method: Method,
    upgrade: bool,
    wants: Option<Token>,
    /// Whether the connection ended in good order before an answer came.
    at_end: bool,
    again: Option<Box<dyn Fn() -> Body>>,
    sender: Sender,
    scanner: Scanner,
    interim: u32,
    /// What follows in the answer's body.
    receiver: Receiver,
    keep_alive: bool,
    /// The doubt about its member when the request was begun.
    doubt: u64,
}

#[derive(Debug)]
enum Receiver {
    Length(u64),
    Chunked(Decoder),
    Close,
    Done,
}

/// A connection for a request, and what the request is counted by.
pub(super) struct Held {
    pub(super) conn: Conn,
    pub(super) busy: Busy,
    pub(super) place: Option<Place>,
}

impl Call {
    pub(super) fn new(held: Held, timeout: Duration, mut outgoing: Outgoing) -> Self {
        let Held { conn, busy, place } = held;
        let lane = Rc::clone(&busy.0);
        let doubt = lane.member.doubt.now();
        let sender = Sender::new(&mut outgoing);
        Self {
            conn: Some(conn),
            lane,
            busy: Some(busy),
            place,
            timeout,
            method: outgoing.method,
            upgrade: outgoing.upgrade,
            wants: outgoing.wants,
            at_end: false,
            again: outgoing.again,
            sender,
            scanner: Scanner::default(),
            interim: 0,
            receiver: Receiver::Done,
            keep_alive: false,
            doubt,
        }
    }

    /// The next head of the answer. After an interim one (1xx, but 101) call it again.
    pub async fn head(&mut self) -> Result<Answer, Fault> {
        poll_fn(|cx| self.poll_head(cx)).await
    }

    /// The next piece of the body, after the final head: `most` octets are read for it at most, and [`READ`].
    pub fn poll_chunk(&mut self, most: usize, cx: &mut Context<'_>) -> Poll<Result<Chunk, Fault>> {
        self.poll_send(cx)?;
        let Some(conn) = &mut self.conn else { return Poll::Ready(Ok(Chunk::End(None))) };
        let polled = loop {
            if let Some(chunk) = self.receiver.take(&mut conn.buffer)? {
                break chunk;
            }
            match self.receiver.poll_read(most.min(READ), conn, cx) {
                Poll::Ready(more) => {
                    conn.deadline.clear();
                    if !more? {
                        break Chunk::End(None);
                    }
                }
                Poll::Pending => return self.poll_stalled(cx),
            }
        };
        if conn.buffer.is_empty() {
            // Else it would hold the memory of what it gave away.
            conn.buffer = BytesMut::new();
        }
        if matches!(polled, Chunk::End(_)) {
            self.finish();
        }
        Poll::Ready(Ok(polled))
    }

    /// The answer has no body: the connection is free.
    pub fn end(mut self) {
        self.finish();
    }

    /// It is not sent again, now that it has an answer: what was kept of its body for that is given up.
    pub(super) fn settle(&mut self) {
        self.again = None;
    }

    /// No more silence is too long: for event streams.
    pub fn wait_for_ever(&mut self) {
        self.timeout = Duration::MAX;
    }

    /// Whether the whole body was taken, by its length.
    pub fn is_at_end(&self) -> bool {
        matches!(self.receiver, Receiver::Length(0) | Receiver::Done)
    }

    /// The connection itself, after a 101, with the bytes that came behind the head.
    pub fn into_tunnel(self) -> Option<(Io, Bytes)> {
        let (io, behind) = Io::new(self.conn?, self.busy?, self.place);
        Some((io, behind.freeze()))
    }

    /// The Set-Cookie field's value that is to bring the client back here; None where it needs none.
    pub fn cookie(&self, upstream: &Upstream) -> Option<Vec<u8>> {
        upstream.cookie()?;
        upstream.cookie_for(&self.lane.member, self.wants.as_ref())
    }

    /// The member that it is with.
    pub(super) fn lane(&self) -> &Lane {
        &self.lane
    }

    /// Since when the connection had lain idle, where it was a reused one.
    pub(super) fn reused_since(&self) -> Option<Instant> {
        self.conn.as_ref().filter(|conn| conn.reused).map(|conn| conn.idle_since)
    }

    /// The request, where none of its body is lost, and sending it again is safe: by its method, or where it was not read.
    pub(super) fn take_back(self, was_read: bool) -> Option<Outgoing> {
        let untouched = !self.sender.touched;
        if was_read && !(self.method.is_idempotent() || self.sender.written == 0 || self.is_undelivered()) {
            return None;
        }
        let body = match &self.again {
            _ if untouched => self.sender.body,
            Some(again) => Some(again()),
            None => return None,
        };
        Some(Outgoing {
            head: self.sender.head,
            body,
            again: self.again,
            chunked: self.sender.chunked,
            method: self.method,
            upgrade: self.upgrade,
            wants: self.wants,
        })
    }

    /// Whether the connection was reset, as the kernel does where bytes lay in it that nobody had read, and all of the request
    /// was in one piece. An end without unread bytes, a crash of who has read them too, is no reset; a server may still
    /// make one on purpose.
    pub(super) fn was_reset(&self, fault: &Fault) -> bool {
        let is_reset =
            matches!(fault, Fault::Unanswered { source } if source.kind() == io::ErrorKind::ConnectionReset);
        let is_plain = self.conn.as_ref().is_some_and(|conn| conn.socket.is_plain());
        is_reset && is_plain && self.sender.is_one_piece()
    }

    /// Whether the other side had ended the connection before any of the request came.
    fn is_undelivered(&self) -> bool {
        let socket = self.conn.as_ref().map(|conn| &conn.socket);
        self.at_end && socket.is_some_and(|socket| socket.is_undelivered(self.sender.written))
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Answer, Fault>> {
        loop {
            self.poll_send(cx)?;
            let Some(conn) = &mut self.conn else {
                return Poll::Ready(Err(Fault::internal("an answer was read twice")));
            };
            if let Some(end) = self.scanner.find_end(&conn.buffer).map_err(|bad| broken(bad.text()))? {
                return Poll::Ready(self.take_head(end));
            }
            if conn.buffer.len() > MAX_RESPONSE_HEAD {
                return Poll::Ready(Err(broken("its head is longer than 64 KiB")));
            }
            match poll_read_into(&mut conn.socket, &mut conn.buffer, cx) {
                Poll::Ready(Ok(0)) => {
                    self.at_end = true;
                    return Poll::Ready(Err(self.ended(io::ErrorKind::UnexpectedEof.into())));
                }
                Poll::Ready(Ok(_)) => conn.deadline.clear(),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(self.ended(error))),
                Poll::Pending => return self.poll_stalled(cx),
            }
        }
    }

    fn take_head(&mut self, end: usize) -> Result<Answer, Fault> {
        let Some(conn) = &mut self.conn else { return Err(Fault::internal("an answer was read twice")) };
        let mut head = Head::default();
        let line = head.parse_response(&conn.buffer.split_to(end)).map_err(|bad| broken(bad.text()))?;
        self.scanner = Scanner::default();
        let framing = framing::of_response(&head, line.version, line.status, &self.method)?;
        if line.status == StatusCode::SWITCHING_PROTOCOLS {
            if !self.upgrade {
                return Err(broken("a protocol switch that nobody asked for"));
            }
        } else if line.status.is_informational() {
            self.interim += 1;
            if self.interim > MAX_INTERIM {
                return Err(broken("too many interim answers"));
            }
        } else {
            let doubt = &self.lane.member.doubt;
            self.keep_alive = framing != Framing::Close && keeps_alive(&head, line);
            if self.keep_alive {
                doubt.kept(self.doubt);
            } else {
                doubt.closed();
            }
            // Its worker may be at the body for long that it does not send, and who came next would wait for that.
            self.keep_alive &= !has_unsent_body(&self.method, line.status, &head);
            self.receiver = Receiver::new(framing);
        }
        Ok(Answer { status: line.status, head, framing })
    }

    /// Moves the request along. An error is the client's; what the upstream does not take is kept for later.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Result<(), Fault> {
        let Some(conn) = &mut self.conn else { return Ok(()) };
        self.sender.poll(&mut conn.socket, cx)
    }

    /// Nothing can be read now. Who is waited for: the client, whose body has a deadline of its own, or the upstream?
    fn poll_stalled<T>(&mut self, cx: &mut Context<'_>) -> Poll<Result<T, Fault>> {
        let Some(conn) = &mut self.conn else { return Poll::Pending };
        if self.sender.starved || self.timeout == Duration::MAX {
            conn.deadline.clear();
            return Poll::Pending;
        }
        if std::mem::take(&mut self.sender.moved) || !conn.deadline.is_set() {
            conn.deadline.set(self.timeout);
        }
        ready!(conn.deadline.poll_passed(cx));
        Poll::Ready(Err(Fault::ResponseTimeout))
    }

    /// The connection ended where a head was due.
    fn ended(&mut self, source: io::Error) -> Fault {
        let silent = self.conn.as_ref().is_some_and(|conn| conn.buffer.is_empty()) && self.interim == 0;
        let source = match &mut self.sender.phase {
            Phase::Broken(error) => error.take().unwrap_or(source),
            _ => source,
        };
        if silent {
            return Fault::Unanswered { source };
        }
        Fault::UpstreamBroken {
            reason: "it closed the connection inside the answer's head",
            source: Some(source),
        }
    }

    /// The answer is whole. The connection is good for another request if both directions ended where they
    /// should, and nothing came that belongs to no answer.
    fn finish(&mut self) {
        self.receiver = Receiver::Done;
        let Some(conn) = self.conn.take() else { return };
        if self.keep_alive && conn.buffer.is_empty() && matches!(self.sender.phase, Phase::Done) {
            self.lane.put(conn);
        }
        (self.busy, self.place) = (None, None);
    }
}

impl Receiver {
    fn new(framing: Framing) -> Self {
        match framing {
            Framing::None => Self::Done,
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunked(Decoder::default()),
            Framing::Close => Self::Close,
        }
    }

    /// The next piece out of what was read, if there is one.
    fn take(&mut self, buffer: &mut BytesMut) -> Result<Option<Chunk>, Fault> {
        match self {
            Self::Length(0) | Self::Done => Ok(Some(Chunk::End(None))),
            _ if buffer.is_empty() => Ok(None),
            Self::Length(left) => {
                let take = usize::try_from(*left).unwrap_or(usize::MAX).min(buffer.len());
                *left -= take as u64;
                Ok(Some(Chunk::Data(buffer.split_to(take).freeze())))
            }
            Self::Close => Ok(Some(Chunk::Data(buffer.split().freeze()))),
            Self::Chunked(decoder) => match decoder.decode(buffer).map_err(broken)? {
                Decoded::Data(data) => Ok(Some(Chunk::Data(data))),
                Decoded::End(trailers) => Ok(Some(Chunk::End(Some(trailers)))),
                Decoded::More => Ok(None),
            },
        }
    }

    /// Reads more; false when the connection's end is the body's.
    fn poll_read(&mut self, most: usize, conn: &mut Conn, cx: &mut Context<'_>) -> Poll<Result<bool, Fault>> {
        let most = match self {
            Self::Length(left) => usize::try_from(*left).unwrap_or(most).min(most),
            _ => most,
        };
        let read = poll_read_most(&mut conn.socket, &mut conn.buffer, most, cx);
        let lost =
            |source| Fault::UpstreamBroken { reason: "it broke off inside its answer", source: Some(source) };
        match ready!(read) {
            Ok(0) if matches!(self, Self::Close) => Poll::Ready(Ok(false)),
            Ok(0) => Poll::Ready(Err(lost(io::ErrorKind::UnexpectedEof.into()))),
            Ok(_) => Poll::Ready(Ok(true)),
            Err(source) => Poll::Ready(Err(lost(source))),
        }
    }
}

/// Whether the upstream means to keep the connection (RFC 9112 section 9.3).
fn keeps_alive(head: &Head, line: StatusLine) -> bool {
    let close =
        head.all(Known::Connection).flat_map(members).any(|token| token.eq_ignore_ascii_case(b"close"));
    line.version == Version::Http11 && !close
}

/// Whether a body is made and not sent: HEAD's, of an answer that knows no length.
fn has_unsent_body(method: &Method, status: StatusCode, head: &Head) -> bool {
    *method == Method::HEAD
        && !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
        && head.first(Known::ContentLength).is_none()
}

fn broken(reason: &'static str) -> Fault {
    Fault::UpstreamBroken { reason, source: None }
}
