//! An accepted socket on its way to HTTP: the port's gate, the PROXY header, the handshake.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;

use tokio::net::TcpStream;
use tokio::time::timeout;

use super::link::{Link, TlsFacts};
use super::worker::{Seat, Worker};
use super::{h1, h2, validation};
use crate::addr::ClientAddr;
use crate::config::model::{Bind, Row, Serve};
use crate::limit::connections::{Ceilings, Guard};
use crate::name::Hostname;
use crate::net::proxy_protocol;
use crate::snapshot::Snapshot;
use crate::tls::{self, Alpn, Handshaken, Reason};

/// Serves one accepted socket to its end. An address that may not come in is told nothing: not one byte is read or
/// written before the gate was asked.
pub(super) async fn serve(
    worker: Rc<Worker>,
    tcp: TcpStream,
    peer: SocketAddr,
    local: SocketAddr,
    bind: Bind,
) {
    let Some(Entered { tcp, client, _place, serve }) = enter(&worker, tcp, peer, bind).await else {
        return;
    };
    let seat = worker.take_seat();
    match serve {
        Serve::Http => {
            if let Ok(link) = Link::new(worker, seat, (bind, local), client, None) {
                Box::pin(h1::serve(link, tcp)).await;
            }
        }
        Serve::Https => https(worker, seat, tcp, client, (bind, local)).await,
    }
}

/// A socket that may come in.
struct Entered {
    tcp: TcpStream,
    client: ClientAddr,
    serve: Serve,
    _place: Guard,
}

/// Asks the row's gate and its limits. Keeps nothing of the snapshot: a connection may live longer than many of them.
async fn enter(worker: &Worker, tcp: TcpStream, peer: SocketAddr, bind: Bind) -> Option<Entered> {
    let snapshot = worker.live.load();
    let (_, rule) = snapshot.row(bind)?;
    let peer = ClientAddr::new(peer.ip());
    let (tcp, client) = client_of(tcp, peer, rule, &snapshot).await?;
    if rule.gate.admit(client).is_err() {
        tracing::debug!(%client, row = %bind, "refused: the row does not allow the address");
        if !snapshot.challenges.is_empty() {
            Box::pin(validation::answer(worker, &snapshot, rule, tcp, client)).await;
        }
        return None;
    }
    let place = take_place(worker, &snapshot, rule, client)?;
    Some(Entered { tcp, client, _place: place, serve: rule.serve })
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
    let deadline = snapshot.config.limits.handshake_timeout;
    let header = Box::pin(timeout(deadline, proxy_protocol::read(&mut tcp))).await;
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

pub(super) fn take_place(
    worker: &Worker,
    snapshot: &Snapshot,
    rule: &Row,
    client: ClientAddr,
) -> Option<Guard> {
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

/// The handshake, and then HTTP. Each phase is boxed, so that a connection holds the state of the phase that it is in, and
/// not of the largest.
async fn https(worker: Rc<Worker>, seat: Seat, tcp: TcpStream, client: ClientAddr, at: (Bind, SocketAddr)) {
    let snapshot = worker.live.load();
    let shaking = Box::pin(async move {
        let choose = |name: &Hostname| {
            let site = snapshot.row(at.0).and_then(|(row, _)| snapshot.table.site(row, name.as_str()));
            let tls = site.and_then(|site| snapshot.tls(site)).ok_or(Reason::UnknownName)?;
            tls.config(name).ok_or(Reason::NoCertificate)
        };
        let deadline = snapshot.config.limits.handshake_timeout;
        let accepting = tls::accept(tcp, &snapshot.challenges, choose);
        timeout(deadline, accepting).await.unwrap_or_else(|_| Err(tls::Refusal::timeout()))
    });
    let Some(shaken) = seat.unless_leaving(shaking).await else { return };
    match shaken {
        Ok(shaken) => {
            if let Some(serving) = http(worker, seat, client, at, shaken) {
                serving.await;
            }
        }
        Err(refusal) => {
            let name = refusal.name.as_ref().map(Hostname::as_str);
            tracing::debug!(%client, reason = refusal.reason.token(), name, "handshake refused");
        }
    }
}

/// What ALPN chose; None where a reload has closed the row meanwhile.
fn http(
    worker: Rc<Worker>,
    seat: Seat,
    client: ClientAddr,
    at: (Bind, SocketAddr),
    shaken: Handshaken<TcpStream>,
) -> Option<Pin<Box<dyn Future<Output = ()>>>> {
    let Handshaken { stream, name, protocol, version, suite, resumed, .. } = shaken;
    let facts = TlsFacts { name, version, suite, resumed };
    let link = Link::new(worker, seat, at, client, Some(facts)).ok()?;
    Some(match protocol {
        Alpn::H2 => Box::pin(h2::serve(link, stream)),
        Alpn::Http11 => Box::pin(h1::serve(link, stream)),
    })
}
