//! One forwarded connection's way.

use std::rc::Rc;
use std::sync::Arc;

use socket2::SockRef;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::postgres::{self, Opening};
use super::record::{End, Record};
use super::relay::{Tools, relay};
use super::stream::Stream;
use crate::addr::{Permit, Port};
use crate::config::model::{Bind, Forward, ProxyVersion};
use crate::fault::Fault;
use crate::lobby::{Ends, Entered, Lobby, Seat, Stage};
use crate::name::Hostname;
use crate::net::listen::KEEPALIVE;
use crate::net::proxy_protocol::encode::{self, TlsFacts};
use crate::snapshot::Snapshot;
use crate::tls::{self, Handshaken, Refusal};
use crate::upstream::{Pools, Upstream};

/// One worker's share of the edge, as forward rows see it.
pub struct Worker {
    lobby: Rc<Lobby>,
    pools: Pools,
    tools: Tools,
}

impl Worker {
    /// A worker without connections, which dials with `pools`.
    pub fn new(lobby: &Rc<Lobby>, pools: Pools) -> Rc<Self> {
        Rc::new(Self { lobby: Rc::clone(lobby), pools, tools: Tools::new() })
    }

    /// Passes a connection on, to its end. `bind` names the row that it came in on. What holds at its beginning holds to
    /// its end: a reload does not concern it.
    pub async fn serve(self: Rc<Self>, entered: Entered, forward: Arc<Forward>, bind: Bind) {
        // It is dropped last: whoever reads its line finds that the connection's place is free again.
        let mut record = Record::new(&self.lobby, bind, entered.client);
        let Entered { tcp, ends, permit, seat, place: _place, .. } = entered;
        // Boxed: what came before is not kept for as long as bytes go to and fro.
        match Box::pin(self.join(tcp, &seat, ends, permit, &forward, &mut record)).await {
            Ok(Joined { mut client, mut upstream }) => {
                let idle = forward.idle_timeout;
                record.end = relay(&mut client, &mut upstream, idle, &self.tools, &mut record).await;
            }
            Err(end) => record.end = end,
        }
    }

    /// Everything before the first byte is passed on.
    async fn join(
        &self,
        tcp: TcpStream,
        seat: &Seat,
        ends: Ends,
        permit: Permit<Port>,
        forward: &Forward,
        record: &mut Record,
    ) -> Result<Joined, End> {
        let snapshot = self.lobby.live.load();
        // A reload may have taken the row meanwhile.
        let (row, _) = snapshot.row(record.bind).ok_or(End::Refused)?;
        let target = Arc::clone(snapshot.table.forward(row).ok_or(End::Refused)?);
        if snapshot.forwards_to_itself(row) {
            // Each connection would make another, until there is nothing left to make them of.
            tracing::error!(row = %record.bind, target = target.name(), "the row forwards to itself: name where the service itself listens");
            record.refused = Some("loop");
            return Err(End::Refused);
        }
        let mut met = Met { client: Stream::Tcp(tcp), first: Vec::new() };
        if let Some(own) = &forward.tls {
            met = self.meet(met, seat, &own.name, &snapshot, record).await?;
        }
        drop(snapshot);
        seat.speaks(Stage::Forward);
        if let Some(version) = forward.send_proxy {
            met.first.splice(..0, introduction(version, ends, &met.client, forward, record));
        }
        let upstream = self.dial(permit, &target, &met.first, record).await?;
        Ok(Joined { client: met.client, upstream })
    }

    /// The client's handshake, and what it may say before.
    async fn meet(
        &self,
        met: Met,
        seat: &Seat,
        name: &Hostname,
        snapshot: &Snapshot,
        record: &mut Record,
    ) -> Result<Met, End> {
        let Stream::Tcp(mut tcp) = met.client else { return Ok(met) };
        let (row, _) = snapshot.row(record.bind).ok_or(End::Refused)?;
        let site = snapshot.row_tls(row).ok_or(End::Refused)?;
        let shaking = async {
            match postgres::opening(&mut tcp).await.map_err(|_| "client_gone")? {
                Opening::Tls => {}
                // Who must show a certificate has shown none here.
                Opening::Cancel(message) if !site.asks_clients() => {
                    return Ok(Met { client: Stream::Tcp(tcp), first: message });
                }
                Opening::Cancel(_) | Opening::Plain => return Err("not_tls"),
                Opening::Unknown => return Err("malformed"),
            }
            let shaken = tls::accept_as(tcp, &snapshot.challenges, name, || site.config(name)).await;
            Ok(Met { client: self.shaken(shaken, record)?, first: Vec::new() })
        };
        let shaking = timeout(snapshot.config.limits.handshake_timeout, Box::pin(shaking));
        let ended = seat.unless_leaving(shaking).await.ok_or(End::EdgeLeft)?;
        ended.unwrap_or(Err("timeout")).map_err(|why| {
            self.lobby.meter.handshake_failed(why);
            record.refused = Some(why);
            End::Refused
        })
    }

    fn shaken(
        &self,
        shaken: Result<Handshaken<TcpStream>, Refusal>,
        record: &mut Record,
    ) -> Result<Stream, &'static str> {
        let Handshaken { stream, version, suite, resumed, .. } = shaken.map_err(|refusal| {
            tracing::debug!(client = %record.client, reason = refusal.reason.token(), "handshake refused");
            refusal.reason.token()
        })?;
        self.lobby.meter.handshake(version, resumed);
        record.tls = Some((version, suite, resumed));
        Ok(Stream::Tls(Box::new(stream)))
    }

    /// A target that takes the connection, and has been sent its first bytes.
    async fn dial(
        &self,
        permit: Permit<Port>,
        target: &Arc<Upstream>,
        first: &[u8],
        record: &mut Record,
    ) -> Result<Stream, End> {
        let dialed = target.connect(permit, &self.pools, &mut record.trace).await;
        let mut io = dialed.map_err(|fault| failed(&fault, record))?;
        if let Some(tcp) = io.tcp() {
            // A kernel that will not is no reason to turn the client away.
            let _ = SockRef::from(tcp).set_tcp_keepalive(&KEEPALIVE);
        }
        io.write_all(first).await.map_err(|error| End::of_upstream(&error))?;
        Ok(Stream::Target(io))
    }
}

/// A client that is known, and what its target is to be sent at once.
struct Met {
    client: Stream,
    first: Vec<u8>,
}

/// Both ends.
struct Joined {
    client: Stream,
    upstream: Stream,
}

/// The PROXY header.
fn introduction(
    version: ProxyVersion,
    ends: Ends,
    client: &Stream,
    forward: &Forward,
    record: &Record,
) -> Vec<u8> {
    let Ends { source, destination } = ends;
    let facts = match (client, &forward.tls, record.tls) {
        (Stream::Tls(tls), Some(own), Some((version, suite, _))) => {
            let (_, session) = tls.get_ref();
            let certified = session.peer_certificates().is_some();
            let alpn = session.alpn_protocol();
            Some(TlsFacts { name: own.name.as_str(), version, suite, alpn, certified })
        }
        _ => None,
    };
    match version {
        ProxyVersion::V1 => encode::v1(source, destination),
        ProxyVersion::V2 => encode::v2(source, destination, facts),
    }
}

fn failed(fault: &Fault, record: &Record) -> End {
    let upstream = record.trace.peer.as_deref();
    tracing::debug!(row = %record.bind, upstream, error = %fault, "no target took a forwarded connection");
    if matches!(fault, Fault::ConnectTimeout) { End::ConnectTimeout } else { End::ConnectFailed }
}
