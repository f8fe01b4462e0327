//! An accepted socket on its way to HTTP: the port's gate, the PROXY header, the handshake.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::time::timeout;

use super::link::{Link, TlsFacts};
use super::worker::{Seat, Worker};
use super::{h1, h2};
use crate::addr::ClientAddr;
use crate::config::model::{Bind, Row, RowId, Serve};
use crate::limit::connections::{Ceilings, Guard};
use crate::net::proxy_protocol;
use crate::snapshot::Snapshot;
use crate::tls::{self, Alpn, Handshaken};

/// Serves one accepted socket to its end. An address that may not come in is told nothing: not one byte is read or
/// written before the gate was asked.
pub(super) async fn serve(
    worker: Rc<Worker>,
    tcp: TcpStream,
    peer: SocketAddr,
    local: SocketAddr,
    bind: Bind,
) {
    let snapshot = worker.live.load();
    let Some((row, rule)) = snapshot.row(bind) else { return };
    let peer = ClientAddr::new(peer.ip());
    let Some((tcp, client)) = client_of(tcp, peer, rule, &snapshot).await else { return };
    if rule.gate.admit(client).is_err() {
        tracing::debug!(%client, row = %bind, "refused: the row does not allow the address");
        return;
    }
    let Some(_guard) = take_place(&worker, &snapshot, rule, client) else { return };
    let seat = worker.take_seat();
    match rule.serve {
        Serve::Http => {
            if let Ok(link) = Link::new(worker, seat, (bind, local), client, None) {
                h1::serve(link, tcp).await;
            }
        }
        Serve::Https => https(worker, seat, tcp, client, (bind, local), (row, &snapshot)).await,
    }
}

/// The client of a connection: the peer, or on a row that requires it the one that a PROXY header names, which only the
/// named peers may send.
async fn client_of(
    mut tcp: TcpStream,
    peer: ClientAddr,
    rule: &Row,
    snapshot: &Snapshot,
) -> Option<(TcpStream, ClientAddr)> {
    let Some(proxies) = &rule.proxy_protocol else { return Some((tcp, peer)) };
    if !proxies.iter().any(|source| source.contains(peer)) {
        tracing::debug!(%peer, "refused: only the row's proxies may connect");
        return None;
    }
    let header = timeout(snapshot.config.limits.handshake_timeout, proxy_protocol::read(&mut tcp)).await;
    match header {
        Ok(Ok(header)) => Some((tcp, header.source.map_or(peer, |source| ClientAddr::new(source.ip())))),
        Ok(Err(error)) => {
            tracing::info!(%peer, %error, "closed: the PROXY header is missing or broken");
            None
        }
        Err(_) => {
            tracing::info!(%peer, "closed: no PROXY header came in time");
            None
        }
    }
}

fn take_place(worker: &Worker, snapshot: &Snapshot, rule: &Row, client: ClientAddr) -> Option<Guard> {
    let limits = &snapshot.config.limits;
    let ceilings = Ceilings {
        total: limits.connections,
        row: rule.max_connections,
        client: limits.connections_per_client,
    };
    // The row's count is behind a lock, which only a row with a ceiling takes.
    let row = rule.max_connections.map(|_| worker.connections.row(rule.bind)).unwrap_or_default();
    match worker.connections.try_open(client, &row, ceilings) {
        Ok(guard) => Some(guard),
        Err(full) => {
            tracing::debug!(%client, %full, "closed: too many connections");
            None
        }
    }
}

async fn https(
    worker: Rc<Worker>,
    seat: Seat,
    tcp: TcpStream,
    client: ClientAddr,
    at: (Bind, SocketAddr),
    (row, snapshot): (RowId, &Arc<Snapshot>),
) {
    let choose = |name: &crate::name::Hostname| {
        snapshot.table.site(row, name.as_str()).and_then(|site| snapshot.tls(site)).map(|tls| tls.config())
    };
    let deadline = snapshot.config.limits.handshake_timeout;
    let shaken =
        timeout(deadline, tls::accept(tcp, choose)).await.unwrap_or_else(|_| Err(tls::Refusal::timeout()));
    let Handshaken { stream, name, protocol, version, suite, resumed, .. } = match shaken {
        Ok(shaken) => shaken,
        Err(refusal) => {
            tracing::debug!(%client, reason = refusal.reason.token(), name = ?refusal.name, "handshake refused");
            return;
        }
    };
    let facts = TlsFacts { name, version, suite, resumed };
    let Ok(link) = Link::new(worker, seat, at, client, Some(facts)) else { return };
    match protocol {
        Alpn::H2 => h2::serve(link, stream).await,
        Alpn::Http11 => h1::serve(link, stream).await,
    }
}
