//! Bytes both ways.
//!
//! The end of one side is passed on to the other as it was: a FIN as a FIN, after which the other way stays open, and a
//! reset as a reset. Nothing is read from one side that the other does not take, but for what was in the worker's buffer
//! when the other stopped. A connection that rests holds no buffer.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::net::TcpStream;

use super::pipes::{Pipe, Pipes};
use super::record::{End, Record};
use super::stream::Stream;
use crate::wire::deadline::Deadline;

/// How much is read at once, in octets.
const BUFFER: usize = 64 * 1024;
/// A pipe that brings less than this at once, in octets, is not worth its calls.
const BULK: usize = 16 * 1024;
/// How often one way is read and written before another connection has its turn.
const TURNS: usize = 16;
/// How long a connection may be silent of which one side has ended, where `idle_timeout` is no shorter.
const HALF_OPEN: Duration = Duration::from_mins(10);
/// How often a side that is not read is looked at: whether it is still there.
const LOOK: Duration = Duration::from_secs(5);

/// What the connections of a worker move bytes with, one after another.
pub(super) struct Tools {
    buffer: RefCell<Box<[u8]>>,
    pipes: Pipes,
}

impl Tools {
    pub(super) fn new() -> Self {
        Self { buffer: RefCell::new(vec![0; BUFFER].into()), pipes: Pipes::default() }
    }
}

/// Passes bytes on until both sides have ended, or something breaks. `tools` are the worker's.
pub(super) async fn relay(
    client: &mut Stream,
    upstream: &mut Stream,
    idle: Option<Duration>,
    tools: &Tools,
    record: &mut Record,
) -> End {
    let mut relay = Relay::new(idle);
    poll_fn(|cx| relay.poll(client, upstream, tools, record, cx)).await
}

struct Relay {
    up: Way,
    down: Way,
    idle: Option<Duration>,
    /// Which side ended first.
    ended: Option<End>,
    silence: Deadline,
    look: Deadline,
}

impl Relay {
    fn new(idle: Option<Duration>) -> Self {
        let (mut silence, look) = (Deadline::default(), Deadline::default());
        if let Some(idle) = idle {
            silence.set(idle);
        }
        Self { up: Way::default(), down: Way::default(), idle, ended: None, silence, look }
    }

    fn poll(
        &mut self,
        client: &mut Stream,
        upstream: &mut Stream,
        tools: &Tools,
        record: &mut Record,
        cx: &mut Context<'_>,
    ) -> Poll<End> {
        let up = self.up.poll(client, upstream, tools, self.down.state == State::Ended, cx);
        let down = self.down.poll(upstream, client, tools, self.up.state == State::Ended, cx);
        let moved = record.count(self.up.take_count(), self.down.take_count());
        match (up, down) {
            (Poll::Ready(Err(error)), _) => return broken(upstream, End::of_client(&error)),
            (_, Poll::Ready(Err(error))) => return broken(client, End::of_upstream(&error)),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => {
                return Poll::Ready(self.ended.unwrap_or(self.first_to_end()));
            }
            (up, down) => self.note_half_open(up.is_ready() || down.is_ready(), moved),
        }
        if self.silence.poll_passed(cx).is_ready() {
            return Poll::Ready(End::Idle);
        }
        self.poll_look(client, upstream, cx)
    }

    /// Starts the clock of silence anew where something moved, or where one side has just ended.
    fn note_half_open(&mut self, half_open: bool, moved: bool) {
        let begins = half_open && self.ended.is_none();
        if begins {
            self.ended = Some(self.first_to_end());
        }
        let longest = if half_open { Some(HALF_OPEN) } else { None };
        let span = self.idle.into_iter().chain(longest).min();
        if let Some(span) = span.filter(|_| moved || begins) {
            self.silence.set(span);
        }
    }

    fn first_to_end(&self) -> End {
        if self.up.has_ended() { End::ClientClosed } else { End::UpstreamClosed }
    }

    /// A side that is not read because the other takes nothing is looked at from time to time.
    fn poll_look(&mut self, client: &Stream, upstream: &Stream, cx: &mut Context<'_>) -> Poll<End> {
        let stalled = (self.up.is_stalled(), self.down.is_stalled());
        if stalled == (false, false) {
            self.look.clear();
            return Poll::Pending;
        }
        if !self.look.is_set() {
            self.look.set(LOOK);
        }
        while self.look.poll_passed(cx).is_ready() {
            if let Some(error) = client.broken().filter(|_| stalled.0) {
                return broken(upstream, End::of_client(&error));
            }
            if let Some(error) = upstream.broken().filter(|_| stalled.1) {
                return broken(client, End::of_upstream(&error));
            }
            self.look.set(LOOK);
        }
        Poll::Pending
    }
}

fn broken(other: &Stream, end: End) -> Poll<End> {
    other.reset();
    Poll::Ready(end)
}

/// One way.
#[derive(Default)]
struct Way {
    state: State,
    /// What the other side has not taken yet, from `at` on. Empty while it takes everything.
    held: Vec<u8>,
    at: usize,
    /// There while bulk moves between two sockets.
    pipe: Option<Pipe>,
    /// TLS has encrypted what it could not send yet.
    unsent: bool,
    /// Octets since the last [`Way::take_count`].
    count: u64,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Open,
    /// The end was read, and is to be passed on.
    Ending,
    /// It was passed on.
    Ended,
    /// The other side takes nothing any more. What it has said still reaches this one, whose own bytes go nowhere.
    Refused,
}

impl Way {
    /// Moves what there is. Ready once nothing more will move; the error is that of `from`. `last`: the other way has
    /// ended before.
    fn poll(
        &mut self,
        from: &mut Stream,
        to: &mut Stream,
        tools: &Tools,
        last: bool,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        for _ in 0..TURNS {
            ready!(self.poll_deliver(to, cx));
            match self.state {
                State::Open => {}
                State::Ending => {
                    // What is closed next says so by itself. Whoever cannot be told has gone already.
                    if !last || to.plain().is_none() {
                        let _ = ready!(to.poll_shutdown(cx));
                    }
                    self.state = State::Ended;
                    return Poll::Ready(Ok(()));
                }
                State::Ended => return Poll::Ready(Ok(())),
                State::Refused => return self.poll_discard(from, &mut tools.buffer.borrow_mut(), cx),
            }
            let read = match from.plain().filter(|_| self.pipe.is_some()) {
                Some(tcp) => ready!(self.poll_pipe(tcp, cx))?,
                None => ready!(self.poll_copy(from, to, tools, cx))?,
            };
            self.count += read as u64;
            if read == 0 {
                self.state = State::Ending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Reads once, and writes it. A read that fills the buffer is followed by pipes, where both sides are sockets.
    fn poll_copy(
        &mut self,
        from: &mut Stream,
        to: &mut Stream,
        tools: &Tools,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let mut buffer = tools.buffer.borrow_mut();
        let read = ready!(from.poll_read(cx, &mut buffer))?;
        if read > 0 {
            self.send(buffer.get(..read).unwrap_or_default(), to, cx);
        }
        if read == buffer.len() && self.state == State::Open && from.plain().is_some() && to.plain().is_some()
        {
            self.pipe = tools.pipes.lend();
        }
        Poll::Ready(Ok(read))
    }

    /// Takes into the pipe what there is, and gives it back where that is little or nothing.
    fn poll_pipe(&mut self, from: &TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        loop {
            let Some(pipe) = &mut self.pipe else { return Poll::Pending };
            if from.poll_read_ready(cx)?.is_pending() {
                self.pipe = None;
                return Poll::Pending;
            }
            match pipe.fill(from) {
                Ok(0) => self.pipe = None,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                    self.pipe = None;
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
            return Poll::Ready(Ok(self.pipe.as_ref().map_or(0, Pipe::holds)));
        }
    }

    /// Gives what is in the pipe.
    fn poll_drain(&mut self, to: &TcpStream, cx: &mut Context<'_>) -> Poll<()> {
        let Some(pipe) = &mut self.pipe else { return Poll::Ready(()) };
        let whole = pipe.holds();
        while pipe.holds() > 0 {
            let drained = match ready!(to.poll_write_ready(cx)) {
                Ok(()) => pipe.drain(to),
                Err(error) => Err(error),
            };
            if drained.is_err_and(|error| error.kind() != io::ErrorKind::WouldBlock) {
                self.refuse();
                return Poll::Ready(());
            }
        }
        if (1..BULK).contains(&whole) {
            self.pipe = None;
        }
        Poll::Ready(())
    }

    /// Writes what the other side takes at once, and holds the rest.
    fn send(&mut self, mut bytes: &[u8], to: &mut Stream, cx: &mut Context<'_>) {
        while !bytes.is_empty() {
            match to.poll_write(cx, bytes) {
                Poll::Ready(Ok(written @ 1..)) => bytes = bytes.get(written..).unwrap_or_default(),
                Poll::Ready(_) => return self.refuse(),
                Poll::Pending => {
                    self.held = bytes.to_vec();
                    break;
                }
            }
        }
        self.unsent = to.plain().is_none();
    }

    /// Ready when nothing is held.
    fn poll_deliver(&mut self, to: &mut Stream, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(tcp) = to.plain().filter(|_| self.pipe.is_some() && self.held.is_empty()) {
            return self.poll_drain(tcp, cx);
        }
        while let Some(rest) = self.held.get(self.at..).filter(|rest| !rest.is_empty()) {
            match ready!(to.poll_write(cx, rest)) {
                Ok(written @ 1..) => self.at += written,
                _ => self.refuse(),
            }
        }
        if self.at > 0 {
            (self.held, self.at) = (Vec::new(), 0);
        }
        if self.unsent {
            match ready!(to.poll_flush(cx)) {
                Ok(()) => self.unsent = false,
                Err(_) => self.refuse(),
            }
        }
        Poll::Ready(())
    }

    fn refuse(&mut self) {
        *self = Self { state: State::Refused, count: self.count, ..Self::default() };
    }

    /// Reads what goes nowhere, lest it stand in the way of a proper end.
    fn poll_discard(
        &mut self,
        from: &mut Stream,
        buffer: &mut [u8],
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        for _ in 0..TURNS {
            match from.poll_read(cx, buffer) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(Ok(0)) => {
                    self.state = State::Ended;
                    break;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Ready(Ok(())),
            }
        }
        if self.state != State::Ended {
            cx.waker().wake_by_ref();
        }
        Poll::Ready(Ok(()))
    }

    fn take_count(&mut self) -> u64 {
        std::mem::take(&mut self.count)
    }

    /// Whether the side that is read has ended.
    fn has_ended(&self) -> bool {
        matches!(self.state, State::Ending | State::Ended)
    }

    fn is_stalled(&self) -> bool {
        !self.held.is_empty() || self.unsent || self.pipe.as_ref().is_some_and(|pipe| pipe.holds() > 0)
    }
}
