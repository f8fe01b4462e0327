//! The way in: the row's gate, the PROXY header, the limits.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Guest, Lobby, Seat};
use crate::addr::{ClientAddr, Permit, Port};
use crate::config::model::{Bind, Kind, Row, Serve};
use crate::limit::connections::{Ceilings, Full, Guard};
use crate::net::accept::Accepted;
use crate::net::{gateway, proxy_protocol};
use crate::observe::metrics::Open;
use crate::snapshot::Snapshot;

/// A connection that may come in. It counts against the limits for as long as this lives.
pub struct Entered {
    /// The connection: not one byte of it was read but for a PROXY header.
    pub tcp: TcpStream,
    /// Who is at its other end.
    pub client: ClientAddr,
    /// From where to where it goes.
    pub ends: Ends,
    /// The address of the edge's own that it came in at.
    pub local: SocketAddr,
    /// The proof that the row lets the client in.
    pub permit: Permit<Port>,
    /// What the row is there for.
    pub kind: Kind,
    /// Its place in the counts.
    pub place: Place,
    /// Its place in the worker.
    pub seat: Seat,
}

/// A connection's place in the counts: of the limits, and of the metrics.
pub struct Place {
    _guard: Guard,
    _open: Open,
}

/// The two ends of a connection: those of the socket, or those that its PROXY header names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// The client's.
    pub source: SocketAddr,
    /// The one that the client connected to.
    pub destination: SocketAddr,
}

/// A connection that may not come in.
pub enum Turned {
    /// A CA may be at its other end: the row's gate is closed to the client, and a challenge is pending.
    Knocking {
        /// The connection, of which nothing was read but for a PROXY header.
        tcp: TcpStream,
        /// Who is at its other end.
        client: ClientAddr,
        /// What the row serves.
        serve: Serve,
        /// Its place in the counts.
        place: Guard,
        /// The configuration that closed the gate.
        snapshot: Arc<Snapshot>,
    },
    /// It was closed, and the log told.
    Away,
}

impl Lobby {
    /// Asks the row's gate and its limits. An address that may not come in is told nothing: not one byte is read or
    /// written before the gate was asked. Keeps nothing of the snapshot: a connection may live longer than many of them.
    pub async fn enter(self: &Rc<Self>, accepted: Accepted, bind: Bind) -> Result<Entered, Turned> {
        let snapshot = self.live.load();
        let (_, row) = snapshot.row(bind).ok_or(Turned::Away)?;
        let Accepted { stream: mut tcp, peer, local } = accepted;
        let ends = ends_of(&mut tcp, Ends { source: peer, destination: local }, row, &snapshot).await;
        let ends = ends.map_err(|why| self.turn(bind, why))?;
        // A header takes its time, in which the configuration may have become another: that one judges, and has the target.
        let snapshot = if row.proxy_protocol.is_some() { self.live.load() } else { snapshot };
        let (_, row) = snapshot.row(bind).ok_or(Turned::Away)?;
        let client = ClientAddr::new(ends.source.ip());
        let Ok(permit) = row.gate.admit(client) else {
            self.meter.refused(bind, "address");
            tracing::debug!(%client, row = %bind, "refused: the row does not allow the address");
            gateway::tell(client);
            return Err(self.knock(tcp, client, row, Arc::clone(&snapshot)));
        };
        match self.take_place(&snapshot, row, client) {
            Ok(guard) => {
                let place = Place { _guard: guard, _open: self.meter.connection(bind) };
                let seat = Seat::take(self, Guest::new(client, bind));
                Ok(Entered { tcp, client, ends, local, permit, kind: row.kind.clone(), place, seat })
            }
            Err(full) => {
                tracing::debug!(%client, %full, "closed: too many connections");
                Err(self.turn(bind, full.token()))
            }
        }
    }

    fn turn(&self, bind: Bind, why: &'static str) -> Turned {
        self.meter.refused(bind, why);
        Turned::Away
    }

    /// Whether a connection that the gate turns away may be a CA's.
    fn knock(&self, tcp: TcpStream, client: ClientAddr, row: &Row, snapshot: Arc<Snapshot>) -> Turned {
        if snapshot.challenges.is_empty() {
            return Turned::Away;
        }
        let place = row.serve().zip(self.take_place(&snapshot, row, client).ok());
        place.map_or(Turned::Away, |(serve, place)| Turned::Knocking { tcp, client, serve, place, snapshot })
    }

    fn take_place(&self, snapshot: &Snapshot, row: &Row, client: ClientAddr) -> Result<Guard, Full> {
        let limits = &snapshot.config.limits;
        let ceilings = Ceilings {
            total: limits.connections,
            row: row.max_connections,
            client: limits.connections_per_client,
            row_client: row.max_connections_per_client,
        };
        // A row without a ceiling counts too: a reload may give it one.
        self.connections.try_open(client, &self.connections.row(row.bind), ceilings)
    }
}

/// The socket's ends, or on a row that requires it those that a PROXY header names, which only the named peers may send.
/// The error is one word.
async fn ends_of(
    tcp: &mut TcpStream,
    ends: Ends,
    row: &Row,
    snapshot: &Snapshot,
) -> Result<Ends, &'static str> {
    let Some(proxies) = &row.proxy_protocol else { return Ok(ends) };
    let peer = ClientAddr::new(ends.source.ip());
    if !proxies.iter().any(|source| source.contains(peer)) {
        tracing::debug!(%peer, "refused: only the row's proxies may connect");
        return Err("not_a_proxy");
    }
    let deadline = snapshot.config.limits.handshake_timeout;
    match Box::pin(timeout(deadline, proxy_protocol::read(tcp))).await {
        Ok(Ok(header)) => Ok(Ends {
            source: header.source.unwrap_or(ends.source),
            destination: header.destination.unwrap_or(ends.destination),
        }),
        Ok(Err(error)) => {
            tracing::info!(%peer, %error, "closed: the PROXY header is missing or broken");
            Err("proxy_header")
        }
        Err(_) => {
            tracing::info!(%peer, "closed: no PROXY header came in time");
            Err("proxy_header")
        }
    }
}
