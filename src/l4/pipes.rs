//! Pipes through which the kernel moves bytes from one socket to another without copying them (splice(2)).
//!
//! For what comes in bulk, MiB by MiB, over loopback, this took 335 µs of processor time a MiB where reads and writes of
//! 64 KiB took 625. For what fits into one read it would be two calls more. A connection has one only while bulk moves.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, splice};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// The most that are lent at once, a worker: connections beyond them are served by copying. A user who is not root has
/// 1,024 of full size (pipe(7)).
const MOST: usize = 256;
/// The most that are kept for the next.
const KEPT: usize = 8;
/// The room of a pipe, in octets.
const ROOM: usize = 64 * 1024;

/// A worker's pipes. Clones share them.
#[derive(Default, Clone)]
pub(super) struct Pipes(Rc<Pool>);

#[derive(Default)]
struct Pool {
    idle: RefCell<Vec<Ends>>,
    lent: Cell<usize>,
    /// A filter of system calls has no place for splice(2).
    forbidden: Cell<bool>,
}

struct Ends {
    read: OwnedFd,
    write: OwnedFd,
}

/// A pipe that is lent to one way of one connection until it is dropped.
pub(super) struct Pipe {
    ends: Option<Ends>,
    pool: Rc<Pool>,
    holds: usize,
}

impl Pipes {
    /// An empty pipe; None where there are enough, or the kernel has none to give.
    pub(super) fn lend(&self) -> Option<Pipe> {
        let Self(pool) = self;
        if pool.lent.get() >= MOST || pool.forbidden.get() {
            return None;
        }
        let kept = pool.idle.borrow_mut().pop();
        let ends = kept.or_else(|| {
            let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
            Some(Ends { read, write })
        })?;
        pool.lent.set(pool.lent.get() + 1);
        Some(Pipe { ends: Some(ends), pool: Rc::clone(pool), holds: 0 })
    }
}

impl Pipe {
    /// How many octets are in it.
    pub(super) fn holds(&self) -> usize {
        self.holds
    }

    /// Takes what a socket has. For an empty pipe alone: then nothing but the socket can be what is not ready. 0 is the
    /// end. Where nobody may do this, no pipe is lent from then on, and the error's kind is `Unsupported`.
    pub(super) fn fill(&mut self, from: &TcpStream) -> io::Result<usize> {
        let Some(ends) = &self.ends else { return Ok(0) };
        let fill = || Ok(splice(from, None, &ends.write, None, ROOM, FLAGS)?);
        let moved = from.try_io(Interest::READABLE, fill).map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported => {
                self.pool.forbidden.set(true);
                io::ErrorKind::Unsupported.into()
            }
            _ => error,
        })?;
        self.holds += moved;
        Ok(moved)
    }

    /// Gives a socket what it takes.
    pub(super) fn drain(&mut self, to: &TcpStream) -> io::Result<()> {
        let Some(ends) = &self.ends else { return Ok(()) };
        let moved =
            to.try_io(Interest::WRITABLE, || Ok(splice(&ends.read, None, to, None, self.holds, FLAGS)?))?;
        self.holds = self.holds.saturating_sub(moved);
        if moved == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(()) }
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.pool.lent.set(self.pool.lent.get() - 1);
        let mut idle = self.pool.idle.borrow_mut();
        if let Some(ends) = self.ends.take().filter(|_| self.holds == 0 && idle.len() < KEPT) {
            idle.push(ends);
        }
    }
}

const FLAGS: SpliceFlags = SpliceFlags::MOVE.union(SpliceFlags::NONBLOCK);
