//! The socket's server, on the control thread.

use std::cell::Cell;
use std::convert::Infallible;
use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};

use super::certificates::{Told, Wish};
use super::leases::{LeaseWish, LeasesTold};
use super::upstreams::decoded;
use super::web;
use super::{Ask, Leaving, PAUSE};
use crate::config::model::Admin;

/// Why the socket could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Somebody answers on it.
    #[error("another edge is running: {} answers; stop it, or give this one another [admin] socket", .0.display())]
    Taken(PathBuf),
    /// Something that is no socket has its name.
    #[error("[admin] socket: {} is there already and is not a socket", .0.display())]
    NotASocket(PathBuf),
    /// The file system said no.
    #[error("[admin] socket: {}: {source}{}", path.display(), hint(path, source))]
    Io {
        /// The socket.
        path: PathBuf,
        /// What was met.
        source: io::Error,
    },
}

/// What to do about it.
fn hint(path: &Path, source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied
            if path == Admin::default_socket() && std::env::var_os("XDG_RUNTIME_DIR").is_none() =>
        {
            "; XDG_RUNTIME_DIR is not set: name a place for it with [admin] socket"
        }
        io::ErrorKind::PermissionDenied => {
            "; its directory must belong to the user that the edge runs as: chown it, or name another socket"
        }
        io::ErrorKind::ReadOnlyFilesystem => "; name a socket where files can be made",
        _ => "",
    }
}

/// The socket. Its file goes when this is dropped, unless another process has it.
#[derive(Debug)]
pub struct Server {
    listener: std::os::unix::net::UnixListener,
    path: PathBuf,
    is_ours: Cell<bool>,
}

impl Server {
    /// Makes the socket, 0600, and its directory, 0700, where there is none. What a dead edge left behind is
    /// replaced; a live one is not.
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        let failed = |source| SocketError::Io { path: path.to_owned(), source };
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(failed)?;
        }
        refuse_what_lives(path)?;
        // Its name appears only once its mode is right, and in one step.
        let mut hidden = path.as_os_str().to_owned();
        hidden.push(format!(".{}", std::process::id()));
        let hidden = PathBuf::from(hidden);
        let listener = std::os::unix::net::UnixListener::bind(&hidden).map_err(failed)?;
        std::fs::set_permissions(&hidden, Permissions::from_mode(0o600))
            .and_then(|()| std::fs::rename(&hidden, path))
            .inspect_err(|_| drop(std::fs::remove_file(&hidden)))
            .map_err(failed)?;
        Ok(Self { listener, path: path.to_owned(), is_ours: Cell::new(true) })
    }

    /// Goes on with the socket of another process, whose file stays until [`Server::take`] is called.
    pub fn adopt(socket: OwnedFd, path: PathBuf) -> Self {
        Self { listener: socket.into(), path, is_ours: Cell::new(false) }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// From now on its file goes with it.
    pub fn take(&self) {
        self.is_ours.set(true);
    }

    /// From now on its file is another process's.
    pub fn leave(&self) {
        self.is_ours.set(false);
    }

    /// Serves for ever, handing what is asked to `asks`.
    ///
    /// # Errors
    /// The reactor cannot take it.
    pub async fn run(&self, asks: mpsc::Sender<Ask>, leaving: Leaving) -> io::Result<Infallible> {
        let listener = self.listener.try_clone()?;
        listener.set_nonblocking(true)?;
        let listener = UnixListener::from_std(listener)?;
        let mut failing = false;
        loop {
            let accepted = listener.accept().await;
            let failed_before = std::mem::replace(&mut failing, accepted.is_err());
            match accepted {
                Ok((stream, _)) if is_trusted(&stream) => {
                    tokio::spawn(converse(stream, asks.clone(), leaving.clone()));
                }
                Ok(_) => tracing::warn!("a process of another user knocked at the admin socket; closed"),
                Err(error) => {
                    if !failed_before {
                        tracing::warn!(%error, "the admin socket cannot accept connections, which wait");
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

impl AsFd for Server {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.is_ours.get() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn refuse_what_lives(path: &Path) -> Result<(), SocketError> {
    use std::os::unix::fs::FileTypeExt as _;
    match path.symlink_metadata() {
        Ok(meta) if !meta.file_type().is_socket() => return Err(SocketError::NotASocket(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        _ => {}
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(SocketError::Taken(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(SocketError::Io { path: path.to_owned(), source }),
    }
}

/// The file's mode says the same; this holds where the file system does not keep modes.
fn is_trusted(stream: &UnixStream) -> bool {
    let own = nix::unistd::Uid::effective().as_raw();
    stream.peer_cred().is_ok_and(|peer| peer.uid() == own || peer.uid() == 0)
}

async fn converse(stream: UnixStream, asks: mpsc::Sender<Ask>, leaving: Leaving) {
    let service = service_fn(move |request| answer(request, asks.clone(), leaving.clone()));
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection to the admin socket broke off");
    }
}

async fn answer(
    request: Request<Incoming>,
    asks: mpsc::Sender<Ask>,
    leaving: Leaving,
) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(match (request.method(), request.uri().path()) {
        (&Method::POST, "/v1/reload") => reply(ask(&asks, Ask::Reload).await),
        (&Method::GET, "/v1/status") => reply(ask(&asks, Ask::Status).await),
        (&Method::GET, "/v1/connections") => reply(ask(&asks, Ask::Connections).await),
        (&Method::GET, "/v1/certificates") => reply(ask(&asks, Ask::Certificates).await),
        (&Method::GET, "/v1/explain") => {
            let id = value_of("id=", &request);
            reply(ask(&asks, |reply| Ask::Explain(id, reply)).await)
        }
        (&Method::POST, "/v1/certificates/renew") => reply(wish(&asks, Wish::Renew, &request).await),
        (&Method::POST, "/v1/certificates/revoke") => reply(wish(&asks, Wish::Revoke, &request).await),
        (&Method::POST, "/v1/maintenance/on") => reply(maintenance(&asks, true, &request).await),
        (&Method::POST, "/v1/maintenance/off") => reply(maintenance(&asks, false, &request).await),
        (&Method::GET, "/v1/leases") => reply(ask(&asks, |reply| Ask::Lease(LeaseWish::List, reply)).await),
        (&Method::POST | &Method::DELETE, "/v1/leases") => reply(lease(&asks, &request).await),
        (&Method::POST, "/v1/drain") => reply(drain(&asks, false, &request).await),
        (&Method::POST, "/v1/undrain") => reply(drain(&asks, true, &request).await),
        (&Method::POST, "/v1/accounts/rekey") => reply(ask(&asks, Ask::Rekey).await),
        (
            _,
            "/v1/reload"
            | "/v1/status"
            | "/v1/connections"
            | "/v1/certificates"
            | "/v1/explain"
            | "/v1/drain"
            | "/v1/leases"
            | "/v1/undrain"
            | "/v1/certificates/renew"
            | "/v1/certificates/revoke"
            | "/v1/maintenance/on"
            | "/v1/maintenance/off"
            | "/v1/accounts/rekey",
        ) => refuse(StatusCode::METHOD_NOT_ALLOWED),
        _ => web::answer(&request, &asks, &leaving).await.unwrap_or_else(|| refuse(StatusCode::NOT_FOUND)),
    })
}

/// The value is the whole query, and is nothing that an escape would be needed for.
fn value_of(key: &str, request: &Request<Incoming>) -> String {
    request.uri().query().and_then(|query| query.strip_prefix(key)).unwrap_or_default().to_owned()
}

async fn maintenance(asks: &mpsc::Sender<Ask>, on: bool, request: &Request<Incoming>) -> Option<Told> {
    let name = value_of("name=", request);
    ask(asks, |reply| Ask::Maintenance(on, name, reply)).await
}

async fn lease(asks: &mpsc::Sender<Ask>, request: &Request<Incoming>) -> Option<LeasesTold> {
    let wish = LeaseWish::parse(request.uri().query().unwrap_or_default());
    let is_end = matches!(wish, Some(LeaseWish::End { .. }));
    match wish.filter(|_| is_end == (request.method() == Method::DELETE)) {
        Some(wish) => ask(asks, |reply| Ask::Lease(wish, reply)).await,
        None => {
            Some(LeasesTold { message: "the wish is not understood".to_owned(), ..LeasesTold::default() })
        }
    }
}

async fn wish(asks: &mpsc::Sender<Ask>, wish: Wish, request: &Request<Incoming>) -> Option<Told> {
    let name = value_of("name=", request);
    ask(asks, |reply| Ask::Certificate(wish, name, reply)).await
}

async fn drain(asks: &mpsc::Sender<Ask>, undo: bool, request: &Request<Incoming>) -> Option<Told> {
    let Some(name) = decoded(&value_of("name=", request)) else {
        return Some(Told { ok: false, message: "the name is not percent-encoded".to_owned() });
    };
    ask(asks, |reply| Ask::Drain { name, undo, reply }).await
}

pub(super) async fn ask<T>(
    asks: &mpsc::Sender<Ask>,
    make: impl FnOnce(oneshot::Sender<T>) -> Ask,
) -> Option<T> {
    let (sender, receiver) = oneshot::channel();
    asks.send(make(sender)).await.ok()?;
    receiver.await.ok()
}

fn reply<T: Serialize>(answer: Option<T>) -> Response<Full<Bytes>> {
    match answer.and_then(|answer| serde_json::to_vec(&answer).ok()) {
        Some(json) => json_response(StatusCode::OK, json),
        None => refuse(StatusCode::SERVICE_UNAVAILABLE),
    }
}

fn refuse(status: StatusCode) -> Response<Full<Bytes>> {
    let reason = status.canonical_reason().unwrap_or("refused");
    json_response(status, format!("{{\"error\":\"{reason}\"}}").into_bytes())
}

fn json_response(status: StatusCode, mut json: Vec<u8>) -> Response<Full<Bytes>> {
    json.push(b'\n');
    let mut response = Response::new(Full::from(json));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::certificates::Certificates;
    use crate::admin::client::{self, ClientError};
    use crate::admin::connections::Connections;
    use crate::admin::explain::{Explained, Met};
    use crate::admin::{Reloaded, Status};

    fn status() -> Status {
        Status {
            pid: 7,
            version: "1".into(),
            started: "2026-01-01T00:00:00Z".into(),
            config: None,
            generation: 3,
            workers: 2,
            connections: 0,
            rows: Vec::new(),
            sites: Vec::new(),
            maintenance: Vec::new(),
            upstreams: Vec::new(),
            upgrade: None,
            leases: Vec::new(),
        }
    }

    async fn edge(mut asks: mpsc::Receiver<Ask>) {
        while let Some(ask) = asks.recv().await {
            match ask {
                Ask::Status(reply) => reply.send(status()).unwrap(),
                Ask::Reload(reply) => drop(reply),
                Ask::Lease(_, reply) => reply.send(LeasesTold::default()).unwrap(),
                Ask::Metrics(_, reply) => reply.send("up 1\n".to_owned()).unwrap(),
                Ask::Connections(reply) => reply.send(Connections::default()).unwrap(),
                Ask::Certificates(reply) => reply.send(Certificates::default()).unwrap(),
                Ask::Window(reply) => reply.send("<!doctype html>".to_owned()).unwrap(),
                Ask::Explain(id, reply) => {
                    let request = Some(Met { id, ..Met::default() });
                    reply.send(Explained { request, kept: 1 }).unwrap();
                }
                Ask::Maintenance(on, name, reply) => reply.send(Told { ok: on, message: name }).unwrap(),
                Ask::Drain { name, undo, reply } => {
                    reply.send(Told { ok: !undo, message: name }).unwrap();
                }
                Ask::Rekey(reply) => reply.send(Told { ok: true, message: "rekeyed".into() }).unwrap(),
                Ask::Certificate(wish, name, reply) => {
                    reply.send(Told { ok: wish == Wish::Renew, message: name }).unwrap();
                }
            }
        }
    }

    #[tokio::test]
    async fn it_asks_and_answers() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/admin.sock");
        let server = Server::bind(&path).unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        let (sender, receiver) = mpsc::channel(1);
        let asked = async {
            let answer: Status = client::ask(&path, Method::GET, "/v1/status").await.unwrap();
            assert_eq!(answer, status());
            let none: Certificates = client::ask(&path, Method::GET, "/v1/certificates").await.unwrap();
            assert_eq!(none, Certificates::default());
            let none: Connections = client::ask(&path, Method::GET, "/v1/connections").await.unwrap();
            assert_eq!(none, Connections::default());
            let error = client::ask::<Status>(&path, Method::GET, "/").await.unwrap_err();
            assert!(matches!(error, ClientError::Broken { .. }), "the window is HTML: {error}");
            let explained: Explained = client::ask(&path, Method::GET, "/v1/explain?id=ab").await.unwrap();
            assert_eq!(explained.request.unwrap().id, "ab");
            for (target, ok) in [
                ("certificates/renew?name=*.a.example", true),
                ("certificates/revoke?name=*.a.example", false),
                ("maintenance/on?name=*.a.example", true),
                ("maintenance/off?name=*.a.example", false),
            ] {
                let target = format!("/v1/{target}");
                let told: Told = client::ask(&path, Method::POST, &target).await.unwrap();
                assert_eq!(told, Told { ok, message: "*.a.example".into() });
            }
            let told: Told = client::ask(&path, Method::POST, "/v1/accounts/rekey").await.unwrap();
            assert_eq!(told.message, "rekeyed");
            for (method, target, expected) in [
                (Method::GET, "/v1/accounts/rekey", 405),
                (Method::GET, "/v1/reload", 405),
                (Method::GET, "/v2/status", 404),
                (Method::POST, "/v1/reload", 503),
            ] {
                let error = client::ask::<Reloaded>(&path, method, target).await.unwrap_err();
                assert!(
                    matches!(error, ClientError::Refused { status, .. } if status == expected),
                    "{error}"
                );
            }
        };
        tokio::select! {
            _ = server.run(sender, Leaving::default()) => {}
            () = edge(receiver) => {}
            () = asked => {}
        }
        server.leave();
        let next = Server::adopt(server.as_fd().try_clone_to_owned().unwrap(), path.clone());
        drop(server);
        assert!(path.exists(), "another process has it");
        next.take();
        drop(next);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_live_socket_is_not_replaced_and_a_dead_one_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        let live = Server::bind(&path).unwrap();
        assert!(matches!(Server::bind(&path), Err(SocketError::Taken(_))));
        drop(live);
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "a dead edge leaves its file");
        drop(Server::bind(&path).unwrap());
        std::fs::write(&path, "mine").unwrap();
        assert!(matches!(Server::bind(&path), Err(SocketError::NotASocket(_))));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
    }
}
