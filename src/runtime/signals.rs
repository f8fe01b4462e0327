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
    pub(super) leave: Leave,
    pub(super) others: Others,
}

/// TERM and INT: they are heard also while what another one asked for takes its time.
#[derive(Debug)]
pub(super) struct Leave {
    term: Signal,
    int: Signal,
}

/// All others.
#[derive(Debug)]
pub(super) struct Others {
    hup: Signal,
    usr1: Signal,
    usr2: Signal,
}

impl Signals {
    /// Installs the handlers. Call inside a runtime.
    pub(super) fn install() -> io::Result<Self> {
        Ok(Self {
            leave: Leave { term: signal(SignalKind::terminate())?, int: signal(SignalKind::interrupt())? },
            others: Others {
                hup: signal(SignalKind::hangup())?,
                usr1: signal(SignalKind::user_defined1())?,
                usr2: signal(SignalKind::user_defined2())?,
            },
        })
    }

    /// The next signal. Dropping the future loses none.
    pub(super) async fn next(&mut self) -> Told {
        tokio::select! {
            () = self.leave.told() => Told::Leave,
            told = self.others.next() => told,
        }
    }
}

impl Leave {
    /// Waits until it is told. Dropping the future loses none.
    pub(super) async fn told(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}

impl Others {
    /// The next signal. Dropping the future loses none.
    pub(super) async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.hup.recv() => Told::Reload,
            _ = self.usr1.recv() => Told::Reopen,
            _ = self.usr2.recv() => Told::HandOver,
        }
    }
}
