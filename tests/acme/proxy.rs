//! The fault proxy: stands before the CA, counts what is asked for, and misbehaves on demand. The CA's URLs follow the Host
//! header, so that everything goes through here.

use std::convert::Infallible;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::body::{Body, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use instant_acme::{Account, BodyWrapper, BytesResponse, HttpClient};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::support::PATIENCE;

/// What pebble calls the making of an order.
pub(super) const NEW_ORDER: &str = "/order-plz";
/// The making of an account.
pub(super) const NEW_ACCOUNT: &str = "/sign-me-up";
/// The end of an order.
pub(super) const FINALIZE: &str = "/finalize-order/";
/// A chain.
pub(super) const CERTIFICATE: &str = "/certZ/";
/// An authorization, and a challenge.
pub(super) const AUTHORIZATION: &str = "/authZ/";
pub(super) const CHALLENGE: &str = "/chalZ/";
/// Renewal information.
pub(super) const RENEWAL: &str = "renewalInfo";

/// A way to misbehave.
#[derive(Debug, Clone)]
pub(super) enum Fault {
    /// This answer instead of the CA's.
    Answer(u16, Vec<(&'static str, String)>, String),
    /// Nothing, ever.
    Hang,
    /// The CA's answer, cut after its first octets; the CA has done what it was asked.
    Cut,
    /// The CA's answer never comes back; the CA has done what it was asked.
    Swallow,
    /// Two gigabytes.
    Endless,
}

/// What was asked, and how it was answered.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) path: String,
    /// 0 for one that was left hanging.
    pub(super) status: u16,
    pub(super) at: Instant,
    /// What was signed, where it is JSON (RFC 8555 section 6.2).
    pub(super) payload: serde_json::Value,
}

pub(super) struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    runtime: tokio::runtime::Runtime,
}

struct Shared {
    upstream: SocketAddr,
    connector: TlsConnector,
    seen: Mutex<Vec<Seen>>,
    changed: Condvar,
    faults: Mutex<Vec<(String, usize, Fault)>>,
}

type Answer = Response<BoxBody<Bytes, std::io::Error>>;

impl Proxy {
    /// Before a CA at this address, with the certificate in that folder.
    pub(super) fn start(upstream: SocketAddr, keys: &Path) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&fs::read(keys.join("ca.pem")).unwrap()).unwrap()).unwrap();
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let shared = Arc::new(Shared {
            upstream,
            connector: TlsConnector::from(Arc::new(client)),
            seen: Mutex::default(),
            changed: Condvar::new(),
            faults: Mutex::default(),
        });
        let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0))).unwrap();
        let port = listener.local_addr().unwrap().port();
        runtime.spawn(accept(listener, acceptor(keys), Arc::clone(&shared)));
        Self { port, shared, runtime }
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// The next so many requests whose path has this in it meet the fault.
    pub(super) fn fault(&self, path: &str, times: usize, fault: Fault) {
        self.shared.faults.lock().unwrap().push((path.to_owned(), times, fault));
    }

    /// Behaves from now on.
    pub(super) fn behave(&self) {
        self.shared.faults.lock().unwrap().clear();
    }

    /// All requests so far whose path has this in it.
    pub(super) fn seen(&self, path: &str) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().iter().filter(|seen| seen.path.contains(path)).cloned().collect()
    }

    /// Ends the account with these stored credentials at the CA (RFC 8555 section 7.3.6), past all counting.
    pub(super) fn deactivate(&self, credentials: serde_json::Value) {
        let client = Box::new(Direct(Arc::clone(&self.shared)));
        self.runtime.block_on(async {
            let credentials = serde_json::from_value(credentials).unwrap();
            let account = Account::builder_with_http(client).from_credentials(credentials).await.unwrap();
            account.deactivate().await.unwrap();
        });
    }

    /// How many orders the CA has made.
    pub(super) fn orders(&self) -> usize {
        self.seen(NEW_ORDER).iter().filter(|seen| seen.status == 201).count()
    }

    /// Waits until so many requests whose path has this in it were answered.
    #[track_caller]
    pub(super) fn wait(&self, path: &str, count: usize) {
        self.wait_for(path, count, PATIENCE);
    }

    /// The same, with a limit of its own.
    #[track_caller]
    pub(super) fn wait_for(&self, path: &str, count: usize, limit: Duration) {
        let seen = self.shared.seen.lock().unwrap();
        let enough = |seen: &Vec<Seen>| seen.iter().filter(|seen| seen.path.contains(path)).count() >= count;
        let (seen, _) = self.shared.changed.wait_timeout_while(seen, limit, |seen| !enough(seen)).unwrap();
        assert!(enough(&seen), "no {count} requests for {path}; seen: {seen:#?}");
    }
}

impl Shared {
    fn fault(&self, path: &str) -> Option<Fault> {
        let mut faults = self.faults.lock().unwrap();
        let (_, left, fault) =
            faults.iter_mut().find(|(own, left, _)| path.contains(own.as_str()) && *left > 0)?;
        *left -= 1;
        Some(fault.clone())
    }

    fn saw(&self, path: &str, payload: &serde_json::Value, status: u16) {
        self.seen.lock().unwrap().push(Seen {
            path: path.to_owned(),
            status,
            at: Instant::now(),
            payload: payload.clone(),
        });
        self.changed.notify_all();
    }
}

/// TLS with the certificate in that folder.
pub(super) fn acceptor(keys: &Path) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let chain: Vec<_> =
        CertificateDer::pem_file_iter(keys.join("api.pem")).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(keys.join("api.key")).unwrap();
    let server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    TlsAcceptor::from(Arc::new(server))
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    loop {
        let Ok((tcp, _)) = listener.accept().await else { continue };
        let (acceptor, shared) = (acceptor.clone(), Arc::clone(&shared));
        tokio::spawn(async move {
            let Ok(tls) = acceptor.accept(tcp).await else { return };
            let service = service_fn(|request| answer(Arc::clone(&shared), request));
            let _ =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(tls), service).await;
        });
    }
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Answer, Infallible> {
    let path = request.uri().path().to_owned();
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let payload = payload(&body);
    let request = Request::from_parts(parts, Full::new(body));
    let fault = shared.fault(&path);
    match &fault {
        Some(Fault::Answer(status, headers, body)) => {
            shared.saw(&path, &payload, *status);
            let mut response = Response::builder().status(*status);
            for (name, value) in headers {
                response = response.header(*name, value);
            }
            return Ok(response.body(whole(Bytes::from(body.clone()))).unwrap());
        }
        Some(Fault::Endless) => {
            shared.saw(&path, &payload, 200);
            return Ok(Response::new(Endless(2 << 30).boxed()));
        }
        Some(Fault::Hang) => {
            shared.saw(&path, &payload, 0);
            std::future::pending::<()>().await;
        }
        _ => {}
    }
    let (parts, body) = match forward(&shared, request).await {
        Ok(response) => response.into_parts(),
        Err(error) => {
            shared.saw(&path, &payload, 502);
            return Ok(Response::builder().status(502).body(whole(Bytes::from(error.to_string()))).unwrap());
        }
    };
    shared.saw(&path, &payload, parts.status.as_u16());
    let body = match fault {
        Some(Fault::Swallow) => std::future::pending().await,
        Some(Fault::Cut) => Cut(Some(body.slice(..body.len() / 2))).boxed(),
        _ => whole(body),
    };
    Ok(Response::from_parts(parts, body))
}

async fn forward(shared: &Shared, request: Request<Full<Bytes>>) -> std::io::Result<Response<Bytes>> {
    let tcp = TcpStream::connect(shared.upstream).await?;
    let name = ServerName::from(shared.upstream.ip());
    let tls = shared.connector.connect(name, tcp).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(tls)).await.map_err(std::io::Error::other)?;
    tokio::spawn(connection);
    let sent = sender.send_request(request).await;
    let (parts, body) = sent.map_err(std::io::Error::other)?.into_parts();
    let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
    Ok(Response::from_parts(parts, body))
}

/// The CA as a client of the test's own sees it.
struct Direct(Arc<Shared>);

impl HttpClient for Direct {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, instant_acme::Error>> + Send>> {
        let shared = Arc::clone(&self.0);
        Box::pin(async move {
            let (mut parts, body) = request.into_parts();
            let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
            // What is signed is the URL at the proxy.
            let host = parts.uri.authority().unwrap().as_str().parse().unwrap();
            parts.headers.insert(http::header::HOST, host);
            parts.uri = parts.uri.path().parse().unwrap();
            let answer = forward(&shared, Request::from_parts(parts, Full::new(body))).await;
            let (parts, body) =
                answer.map_err(|error| instant_acme::Error::Other(Box::new(error)))?.into_parts();
            Ok(Response::from_parts(parts, Full::new(body)).into())
        })
    }
}

fn payload(body: &[u8]) -> serde_json::Value {
    let outer: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let inner =
        BASE64_URL_SAFE_NO_PAD.decode(outer["payload"].as_str().unwrap_or_default()).unwrap_or_default();
    serde_json::from_slice(&inner).unwrap_or_default()
}

fn whole(body: Bytes) -> BoxBody<Bytes, std::io::Error> {
    Full::new(body).map_err(|never| match never {}).boxed()
}

/// A body of so many octets.
struct Endless(usize);

impl Body for Endless {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        static PART: [u8; 65_536] = [b'x'; 65_536];
        let part = (self.0 > 0).then(|| Ok(Frame::data(Bytes::from_static(&PART))));
        self.0 = self.0.saturating_sub(PART.len());
        std::task::Poll::Ready(part)
    }
}

/// A body that ends in the middle.
struct Cut(Option<Bytes>);

impl Body for Cut {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let cut = || Err(std::io::Error::other("cut"));
        std::task::Poll::Ready(Some(self.0.take().map_or_else(cut, |part| Ok(Frame::data(part)))))
    }
}
