//! The TCP side of the admin room: metrics, health and the window, to be read and no more.
//!
//! Whoever may not look is told nothing. A connection is for one request and has [`DEADLINE`] for all of it, so that
//! a client that sends nothing or reads nothing is soon gone.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::HOST;
use hyper::http::uri::Authority;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, Version};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::web::{self, Leaving, plain};
use super::{Ask, PAUSE};
use crate::addr::ClientAddr;
use crate::config::model::{Bind, Listen};
use crate::name::Hostname;
use crate::net::listen::{BindError, Bound, adopt};
use crate::snapshot::Live;

/// How long a connection may live.
pub const DEADLINE: Duration = Duration::from_secs(30);
/// How long the head of its request may take.
const HEAD: Duration = Duration::from_secs(5);
/// The longest head, in octets.
const MAX_HEAD: usize = 16 * 1024;
/// The most connections at once; others wait in the kernel's queue.
const PLACES: usize = 64;
/// The kernel's queue, in connections.
const BACKLOG: u32 = 128;

/// What every connection is answered from. Clones share it.
#[derive(Debug, Clone)]
pub struct Desk {
    asks: mpsc::Sender<Ask>,
    live: Live,
    leaving: Leaving,
    places: Arc<Semaphore>,
}

impl Desk {
    /// A desk that hands what is asked to `asks`.
    pub fn new(asks: mpsc::Sender<Ask>, live: Live, leaving: Leaving) -> Self {
        Self { asks, live, leaving, places: Arc::new(Semaphore::new(PLACES)) }
    }
}

/// Binds what `[admin] listen` names, of which `given` listen already. `held` are the addresses that this process listens
/// on already.
///
/// # Errors
/// The address that cannot be bound.
pub fn prepare(
    listen: &Listen,
    held: &[SocketAddr],
    given: Vec<std::net::TcpListener>,
) -> Result<Bound, BindError> {
    adopt(listen.bind, BACKLOG, 1, held, given)
}

/// A listener at work. Dropping it closes its sockets; requests in flight are still answered.
#[derive(Debug)]
pub struct Listener {
    /// As the configuration has it.
    pub bind: Bind,
    /// Where it really listens.
    pub addresses: Vec<SocketAddr>,
    sockets: Vec<std::net::TcpListener>,
    tasks: Vec<JoinHandle<()>>,
}

impl Listener {
    /// Begins to answer. Call inside a runtime.
    pub fn serve(bind: Bind, mut bound: Bound, desk: &Desk) -> Self {
        let (addresses, sockets) = (bound.addresses().to_vec(), bound.take_originals());
        let mut listener = Self { bind, addresses, sockets, tasks: Vec::new() };
        listener.resume(desk);
        listener
    }

    /// Answers nobody any more; who connects waits.
    pub fn pause(&mut self) {
        self.tasks.drain(..).for_each(|task| task.abort());
    }

    /// Answers again. Call inside a runtime.
    pub fn resume(&mut self, desk: &Desk) {
        let failed =
            |error: &std::io::Error| tracing::error!(%error, "[admin] listen: a socket is of no use");
        let sockets = self.sockets.iter().map(|socket| TcpListener::from_std(socket.try_clone()?));
        let welcome = |socket| tokio::spawn(welcome(socket, desk.clone()));
        self.tasks = sockets.filter_map(|socket| socket.inspect_err(failed).ok()).map(welcome).collect();
    }

    /// Its sockets, for whom they are handed on to.
    pub fn sockets(&self) -> &[std::net::TcpListener] {
        &self.sockets
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.pause();
    }
}

async fn welcome(socket: TcpListener, desk: Desk) {
    loop {
        // Nobody closes the semaphore.
        let Ok(place) = Arc::clone(&desk.places).acquire_owned().await else { return };
        match socket.accept().await {
            Ok((stream, peer)) if admits(&desk.live, peer.ip()) => {
                let conversing = converse(stream, desk.clone());
                tokio::spawn(async move {
                    let _ = timeout(DEADLINE, conversing).await;
                    drop(place);
                });
            }
            Ok((_, peer)) => tracing::debug!(%peer, "[admin] listen: the address may not look; closed"),
            Err(error) => {
                tracing::debug!(%error, "[admin] listen: no connection can be accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Asked anew for each connection, so that a reload holds from its moment on.
fn admits(live: &Live, peer: IpAddr) -> bool {
    live.load().config.admin.listen.as_ref().is_some_and(|listen| listen.admits(ClientAddr::new(peer)))
}

async fn converse(stream: TcpStream, desk: Desk) {
    let service = service_fn(move |request| answer(request, desk.clone()));
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(MAX_HEAD)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "[admin] listen: a connection broke off");
    }
}

async fn answer(request: Request<Incoming>, desk: Desk) -> Result<Response<Full<Bytes>>, Infallible> {
    let listed = desk.live.load();
    let hosts = listed.config.admin.listen.as_ref().map(|listen| listen.hosts.as_slice()).unwrap_or_default();
    Ok(match named(&request, hosts) {
        Named::Well => web::answer(&request, &desk.asks, &desk.leaving)
            .await
            .unwrap_or_else(|| plain(StatusCode::NOT_FOUND, "nothing is here\n")),
        Named::Not => plain(StatusCode::BAD_REQUEST, "the request names no host, or several\n"),
        Named::Otherwise => {
            plain(StatusCode::MISDIRECTED_REQUEST, "this name is not among the hosts of [admin]\n")
        }
    })
}

/// How a request names the edge.
#[derive(Debug, PartialEq, Eq)]
enum Named {
    Well,
    Not,
    Otherwise,
}

/// A page of a stranger's can have his own name lead here, and then read what is answered as if it were his. So only
/// names are answered that cannot be a stranger's: addresses, this machine's own, and those that are listed.
fn named(request: &Request<Incoming>, hosts: &[Hostname]) -> Named {
    let mut fields = request.headers().get_all(HOST).iter();
    let asked = match (fields.next(), fields.next()) {
        (None, None) if request.version() < Version::HTTP_11 => return Named::Well,
        (Some(one), None) => one.to_str().ok().and_then(|host| host.parse::<Authority>().ok()),
        _ => None,
    };
    let Some(asked) = asked else { return Named::Not };
    let known = |authority: &Authority| is_known(authority.host(), hosts);
    if known(&asked) && request.uri().authority().is_none_or(known) { Named::Well } else { Named::Otherwise }
}

fn is_known(host: &str, hosts: &[Hostname]) -> bool {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if bare.parse::<IpAddr>().is_ok() {
        return true;
    }
    let Some(name) = Hostname::from_wire(host.as_bytes()) else { return false };
    let own = name.as_str() == "localhost" || name.as_str().ends_with(".localhost");
    own || hosts.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_cannot_be_a_strangers_are_known() {
        let hosts = [Hostname::parse("edge.example.com").unwrap(), Hostname::parse("edge").unwrap()];
        for (host, known) in [
            ("127.0.0.1", true),
            ("[::1]", true),
            ("192.0.2.1", true),
            ("localhost", true),
            ("LOCALHOST", true),
            ("app.localhost", true),
            ("edge", true),
            ("Edge.Example.com", true),
            ("edge.example.com.", true),
            ("x.edge.example.com", false),
            ("attacker.example", false),
            ("localhost.attacker.example", false),
            ("127.0.0.1.attacker.example", false),
            ("0x7f000001", false),
            ("", false),
        ] {
            assert_eq!(is_known(host, &hosts), known, "{host:?}");
        }
    }
}
