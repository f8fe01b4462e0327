//! From one process to the next: USR2 starts the program that is there by now, on the very sockets that this process
//! listens on, and this process steps back once the new one says that it is ready. What connects meanwhile waits in the
//! kernel's queues, which belong to the sockets and not to either process. Whatever goes wrong before leaves the old
//! process as it was; a new one that dies while the old one still finishes its requests is replaced by the old one.
//!
//! - `program`: which program that is
//! - `spawn`: starting it with descriptors, as `sd_listen_fds(3)` has it
//! - `parcel`: what goes along with the sockets
//! - `departure`: the old process's side
//! - `arrival`: the new process's side

mod arrival;
mod departure;
mod parcel;
mod program;
mod spawn;

use std::os::fd::AsFd as _;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

pub(super) use arrival::{Arrival, Predecessor};
pub(super) use departure::{Successor, Upgrade};
pub(super) use program::Program;

use self::parcel::Parcel;
use super::server::Edge;
use crate::config::model::Admin;

/// Where a process stands between the one before it and the one after it.
#[derive(Debug)]
pub(super) struct Succession {
    program: Program,
    /// The process that this one took over from.
    pub(super) predecessor: Option<Predecessor>,
    /// An upgrade that is under way.
    pub(super) upgrade: Option<Upgrade>,
    /// What there is to tell about the last one.
    pub(super) told: Option<String>,
}

impl Succession {
    pub(super) fn new(program: Program, predecessor: Option<Predecessor>) -> Self {
        Self { program, predecessor, upgrade: None, told: None }
    }
}

impl Edge {
    /// Starts the new program. Why it cannot be is in the log, and in the status.
    pub(super) fn begin_upgrade(&mut self) {
        if let Some(upgrade) = &self.succession.upgrade {
            let pid = upgrade.pid().map(|pid| pid.to_string());
            tracing::warn!(pid, "USR2: refused, for an upgrade is under way already");
            return;
        }
        match self.start_successor() {
            Ok(upgrade) => {
                let pid = upgrade.pid().map(|pid| pid.to_string()).unwrap_or_default();
                tracing::info!(pid, program = %self.succession.program.path.display(), "upgrade: a new process prepares itself");
                self.succession.told = Some(format!("under way: process {pid} prepares itself"));
                self.succession.upgrade = Some(upgrade);
            }
            Err(why) => self.upgrade_failed(&why),
        }
    }

    /// The new process is ready, or will never be. None for the latter; then all is as it was.
    pub(super) fn end_upgrade(&mut self, outcome: Result<(), String>) -> Option<Successor> {
        let upgrade = self.succession.upgrade.take()?;
        match outcome {
            Ok(()) => {
                self.succession.told = None;
                upgrade.succeed()
            }
            Err(why) => {
                self.upgrade_failed(&why);
                None
            }
        }
    }

    fn start_successor(&self) -> Result<Upgrade, String> {
        // Its end would be the end of its container, whoever else lives in it.
        if std::process::id() == 1 {
            return Err(
                "this is process 1 of its container, which ends with it; start a new container instead"
                    .into(),
            );
        }
        let mut parcel = Parcel {
            rows: Vec::new(),
            admin: self.server.path().to_owned(),
            default_socket: Admin::default_socket(),
            drained: self.live.load().table.drained().names(),
            tickets: self.shared.bequeath(),
        };
        let mut sockets = Vec::new();
        for (bind, socket) in self.listeners.sockets() {
            parcel.rows.push(bind.to_string());
            sockets.push(socket.as_fd());
        }
        if let Some(listener) = &self.listener {
            parcel.rows.extend(listener.sockets().iter().map(|_| listener.bind.to_string()));
            sockets.extend(listener.sockets().iter().map(|socket| socket.as_fd()));
        }
        Upgrade::begin(&self.succession.program, &parcel, &sockets, self.server.as_fd())
    }

    pub(super) fn upgrade_failed(&mut self, why: &str) {
        tracing::error!(why, "upgrade failed: this process goes on");
        let now = OffsetDateTime::now_utc().truncate_to_second().format(&Rfc3339).unwrap_or_default();
        self.notifier.status(format_args!("an upgrade failed at {now}; the log says why"));
        self.succession.told = Some(format!("failed at {now}: {}", why.trim_end()));
    }
}
