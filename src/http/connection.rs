//! A connection on its way to HTTP: the handshake.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;

use tokio::net::TcpStream;
use tokio::time::timeout;

use super::client::Tls;
use super::link::{Link, TlsFacts};
use super::worker::Worker;
use super::{h1, h2};
use crate::addr::ClientAddr;
use crate::config::model::{Bind, Serve};
use crate::lobby::{Entered, Seat, Stage};
use crate::name::Hostname;
use crate::tls::{self, Alpn, Handshaken, Reason};

/// HTTP on a connection, to its end.
type Serving = Pin<Box<dyn Future<Output = ()>>>;

/// Serves a connection to its end. Each phase is boxed, so that a connection holds the state of the phase that it is in,
/// and not of the largest: an idle one is 4 KiB smaller for it.
pub(super) async fn serve(worker: Rc<Worker>, entered: Entered, serve: Serve, bind: Bind) {
    let Entered { tcp, client, local, seat, place: _place, .. } = entered;
    let at = (bind, local);
    let serving = match serve {
        Serve::Http => http(worker, seat, tcp, client, at),
        Serve::Https => Box::pin(https(worker, seat, tcp, client, at)).await,
    };
    if let Some(serving) = serving {
        serving.await;
    }
}

/// None where a reload has closed the row meanwhile.
fn http(
    worker: Rc<Worker>,
    seat: Seat,
    tcp: TcpStream,
    client: ClientAddr,
    at: (Bind, SocketAddr),
) -> Option<Serving> {
    let link = Link::new(worker, seat, at, client, None).ok()?;
    link.seat.speaks(Stage::Http1);
    Some(Box::pin(h1::serve(link, tcp)))
}

/// The handshake. None where it failed, or a reload has closed the row meanwhile.
async fn https(
    worker: Rc<Worker>,
    seat: Seat,
    tcp: TcpStream,
    client: ClientAddr,
    at: (Bind, SocketAddr),
) -> Option<Serving> {
    let snapshot = worker.lobby.live.load();
    // Boxed: to be pinned it would be moved, and stand here twice.
    let shaking = Box::pin(async {
        let choose = |name: &Hostname| {
            let site = snapshot.row(at.0).and_then(|(row, _)| snapshot.table.site(row, name.as_str()));
            let tls = site.and_then(|site| snapshot.tls(site)).ok_or(Reason::UnknownName)?;
            tls.config(name).ok_or(Reason::NoCertificate)
        };
        let deadline = snapshot.config.limits.handshake_timeout;
        let accepting = tls::accept(tcp, &snapshot.challenges, choose);
        timeout(deadline, accepting).await.unwrap_or_else(|_| Err(tls::Refusal::timeout()))
    });
    match seat.unless_leaving(shaking).await? {
        Ok(shaken) => {
            worker.lobby.meter.handshake(shaken.version, shaken.resumed);
            speak(worker, seat, client, at, shaken)
        }
        Err(refusal) => {
            if refusal.reason != Reason::Challenge {
                worker.lobby.meter.handshake_failed(refusal.reason.token());
            }
            let name = refusal.name.as_ref().map(Hostname::as_str);
            tracing::debug!(%client, reason = refusal.reason.token(), name, "handshake refused");
            None
        }
    }
}

/// What ALPN chose; None where a reload has closed the row meanwhile.
fn speak(
    worker: Rc<Worker>,
    seat: Seat,
    client: ClientAddr,
    at: (Bind, SocketAddr),
    shaken: Handshaken<TcpStream>,
) -> Option<Serving> {
    let Handshaken { stream, name, config, protocol, version, suite, resumed, .. } = shaken;
    let facts = TlsFacts { name, config, version, suite, resumed };
    let link = Link::new(worker, seat, at, client, Some(facts)).ok()?;
    link.seat.speaks(if protocol == Alpn::H2 { Stage::Http2 } else { Stage::Http1 });
    let stream = Tls::new(stream);
    Some(match protocol {
        Alpn::H2 => Box::pin(h2::serve(link, stream)),
        Alpn::Http11 => Box::pin(h1::serve(link, stream)),
    })
}
