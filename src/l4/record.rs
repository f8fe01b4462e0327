//! What is told of a forwarded connection, however it ends.

use std::io;
use std::rc::Rc;
use std::time::{Instant, SystemTime};

use crate::addr::ClientAddr;
use crate::config::model::Bind;
use crate::lobby::Lobby;
use crate::observe::access::{Ended, Line, Tls};
use crate::observe::metrics::Forwarding;
use crate::upstream::Trace;

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The client had said all, and then the target.
    ClientClosed,
    /// The target had said all, and then the client.
    UpstreamClosed,
    /// The client broke off.
    ClientReset,
    /// The target broke off.
    UpstreamReset,
    /// The client vanished without a word.
    ClientLost,
    /// The target vanished without a word.
    UpstreamLost,
    /// The client's TLS broke its own rules.
    ClientBroken,
    /// Both were silent for too long.
    Idle,
    /// No target took the connection.
    ConnectFailed,
    /// No target answered in time.
    ConnectTimeout,
    /// The client did not come as far as a target: its handshake failed.
    Refused,
    /// The edge left.
    EdgeLeft,
}

impl End {
    pub(super) fn token(self) -> &'static str {
        match self {
            Self::ClientClosed => "client_closed",
            Self::UpstreamClosed => "upstream_closed",
            Self::ClientReset => "client_reset",
            Self::UpstreamReset => "upstream_reset",
            Self::ClientLost => "client_lost",
            Self::UpstreamLost => "upstream_lost",
            Self::ClientBroken => "client_broken",
            Self::Idle => "idle",
            Self::ConnectFailed => "connect_failed",
            Self::ConnectTimeout => "connect_timeout",
            Self::Refused => "refused",
            Self::EdgeLeft => "edge_left",
        }
    }

    /// For what reading from the client met.
    pub(super) fn of_client(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::TimedOut => Self::ClientLost,
            io::ErrorKind::InvalidData => Self::ClientBroken,
            _ => Self::ClientReset,
        }
    }

    /// For what reading from the target met.
    pub(super) fn of_upstream(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::TimedOut { Self::UpstreamLost } else { Self::UpstreamReset }
    }
}

/// One connection's access line in the making. Dropping it writes the line: a connection of which nobody says how it
/// ended was there when the edge left.
pub(super) struct Record {
    pub(super) lobby: Rc<Lobby>,
    pub(super) bind: Bind,
    pub(super) client: ClientAddr,
    pub(super) trace: Trace,
    /// Version, suite, and whether a ticket was used.
    pub(super) tls: Option<(&'static str, &'static str, bool)>,
    pub(super) end: End,
    /// Why the handshake was refused.
    pub(super) refused: Option<&'static str>,
    counts: Forwarding,
    received: u64,
    sent: u64,
    time: SystemTime,
    begin: Instant,
}

impl Record {
    pub(super) fn new(lobby: &Rc<Lobby>, bind: Bind, client: ClientAddr) -> Self {
        Self {
            bind,
            client,
            trace: Trace::default(),
            tls: None,
            end: End::EdgeLeft,
            refused: None,
            counts: lobby.meter.forwarding(bind),
            received: 0,
            sent: 0,
            time: SystemTime::now(),
            begin: Instant::now(),
            lobby: Rc::clone(lobby),
        }
    }

    /// Counts what moved, from the client and to it. False where nothing did.
    pub(super) fn count(&mut self, received: u64, sent: u64) -> bool {
        if received > 0 {
            self.received += received;
            self.counts.received(received);
        }
        if sent > 0 {
            self.sent += sent;
            self.counts.sent(sent);
        }
        received + sent > 0
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.lobby.meter.forward_ended(self.bind, self.end.token());
        let tls = self.tls.map(|(version, suite, resumed)| Tls { version, suite, resumed });
        self.lobby.access.write(&Line {
            protocol: "TCP",
            request_bytes: self.received,
            response_bytes: self.sent,
            upstream: self.trace.peer.as_deref(),
            connect: self.trace.connect,
            total: self.begin.elapsed(),
            tls,
            row: &self.bind.to_string(),
            ended: Some(Ended { why: self.end.token(), refused: self.refused }),
            ..Line::new(self.time, self.client.ip())
        });
    }
}
