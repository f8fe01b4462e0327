//! What the process is told from outside.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Something that a signal asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// TERM or INT: drain and leave.
    Leave,
    /// HUP: read the configuration again.
    Reload,
    /// USR1: open the log files again.
    Reopen,
    /// USR2: start the new binary, and hand over to it.
    HandOver,
}

/// The signals that the edge listens to, from the moment that this is made. SIGPIPE is ignored by Rust's own
/// start-up code.
#[derive(Debug)]
pub(super) struct Signals {
    term: Signal,
    int: Signal,
    hup: Signal,
    usr1: Signal,
    usr2: Signal,
}

impl Signals {
    /// Installs the handlers. Call inside a runtime.
    pub(super) fn install() -> io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            hup: signal(SignalKind::hangup())?,
            usr1: signal(SignalKind::user_defined1())?,
            usr2: signal(SignalKind::user_defined2())?,
        })
    }

    /// The next signal. Dropping the future loses none.
    pub(super) async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.term.recv() => Told::Leave,
            _ = self.int.recv() => Told::Leave,
            _ = self.hup.recv() => Told::Reload,
            _ = self.usr1.recv() => Told::Reopen,
            _ = self.usr2.recv() => Told::HandOver,
        }
    }
}
