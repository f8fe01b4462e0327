//! TLS over real sockets: the room's own listener, rustls and openssl as clients, and raw bytes.

mod acme;
mod certificates;
mod choices;
mod internal;
pub(crate) mod pki;
mod refusals;
mod tickets;
mod upstreams;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use vestibule::addr::Gate;
use vestibule::config::model::{Certificate, Errors, Place, Site, Tls, TlsVersion};
use vestibule::name::HostPattern;
use vestibule::tls::challenges::Book;
use vestibule::tls::{Alpn, Authority, Reason, Shared, SiteTls, StoreError};

use crate::support::PATIENCE;
use pki::{Ca, Pair};

/// What a finished handshake was.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    name: String,
    protocol: Alpn,
    version: &'static str,
    suite: &'static str,
    group: Option<&'static str>,
    resumed: bool,
}

/// A listener that answers handshakes for its sites, says `hello` inside, and reports each outcome.
struct Listener {
    address: SocketAddr,
    outcomes: mpsc::UnboundedReceiver<Result<Seen, Reason>>,
}

impl Listener {
    /// `sites`: patterns and what they are answered with. Each listener has a thread and a runtime of its own, as the
    /// edge's workers have.
    fn start(sites: Vec<(&str, Arc<SiteTls>)>) -> Self {
        Self::with_book(sites, Book::default())
    }

    /// The same, with challenges that may be asked for.
    fn with_book(sites: Vec<(&str, Arc<SiteTls>)>, book: Book) -> Self {
        let sites: Vec<_> =
            sites.into_iter().map(|(name, tls)| (HostPattern::parse(name).unwrap(), tls)).collect();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (report, outcomes) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(serve(listener, Arc::new(sites), book, report));
        });
        Self { address, outcomes }
    }

    async fn outcome(&mut self) -> Result<Seen, Reason> {
        tokio::time::timeout(PATIENCE, self.outcomes.recv()).await.unwrap().unwrap()
    }

    /// A handshake, and the edge's first bytes: whatever tickets it sends have come by then.
    async fn hello(&self, name: &str, config: &Arc<ClientConfig>) -> std::io::Result<TlsStream<TcpStream>> {
        let socket = TcpStream::connect(self.address).await?;
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut stream = TlsConnector::from(Arc::clone(config)).connect(name, socket).await?;
        let mut hello = [0; 5];
        stream.read_exact(&mut hello).await?;
        assert_eq!(&hello, b"hello");
        Ok(stream)
    }
}

type Sites = Arc<Vec<(HostPattern, Arc<SiteTls>)>>;

async fn serve(
    listener: std::net::TcpListener,
    sites: Sites,
    book: Book,
    report: mpsc::UnboundedSender<Result<Seen, Reason>>,
) {
    let listener = TcpListener::from_std(listener).unwrap();
    while let Ok((socket, _)) = listener.accept().await {
        tokio::spawn(answer(socket, Arc::clone(&sites), book.clone(), report.clone()));
    }
}

async fn answer(
    socket: TcpStream,
    sites: Sites,
    book: Book,
    report: mpsc::UnboundedSender<Result<Seen, Reason>>,
) {
    let choose = |name: &vestibule::name::Hostname| {
        let site = sites.iter().find(|(pattern, _)| pattern.matches(name));
        site.ok_or(Reason::UnknownName)?.1.config(name).ok_or(Reason::NoCertificate)
    };
    match vestibule::tls::accept(socket, &book, choose).await {
        Ok(mut done) => {
            done.stream.write_all(b"hello").await.ok();
            let _ = report.send(Ok(Seen {
                name: done.name.to_string(),
                protocol: done.protocol,
                version: done.version,
                suite: done.suite,
                group: done.group,
                resumed: done.resumed,
            }));
            let _ = done.stream.read_to_end(&mut Vec::new()).await;
        }
        Err(refusal) => {
            let _ = report.send(Err(refusal.reason));
        }
    }
}

/// A site whose certificate is in files.
fn site(names: &[&str], pair: &Pair, dir: &Path, client_ca: Option<&Ca>) -> Site {
    let (cert, key) = pair.write(dir);
    let client_ca = client_ca.map(|ca| {
        let path = dir.join("clients.pem");
        std::fs::write(&path, ca.pem()).unwrap();
        path
    });
    Site { client_ca, ..bare_site(names, Certificate::Files { cert, key }) }
}

fn bare_site(names: &[&str], certificate: Certificate) -> Site {
    Site {
        domains: names.iter().map(|name| HostPattern::parse(name).unwrap()).collect(),
        redirect: Vec::new(),
        rows: Vec::new(),
        gate: Gate::open(),
        certificate,
        certificate_place: Place { span: 10..20, path: "site[0].certificate".into() },
        client_ca: None,
        client_ca_place: Place { span: 30..40, path: "site[0].client_ca".into() },
        hsts: None,
        errors: Errors::default(),
        routes: Vec::new(),
    }
}

const TLS: Tls = Tls { min_version: TlsVersion::V1_2 };

fn no_authority() -> Result<Arc<Authority>, StoreError> {
    panic!("the internal CA is for sites that use it")
}

/// A site's TLS with a certificate of `ca` for `names`.
fn loaded(ca: &Ca, names: &[&str], shared: &Arc<Shared>, client_ca: Option<&Ca>) -> Arc<SiteTls> {
    let dir = TempDir::new().unwrap();
    let site = site(names, &ca.server(names), dir.path(), client_ca);
    let loaded = SiteTls::load(&site, &TLS, shared, no_authority).unwrap();
    assert_eq!(loaded.warnings, []);
    loaded.tls
}

/// A client that speaks HTTP/1.1 and trusts `roots`; `change` has the last word on its cryptography.
fn client(roots: RootCertStore, change: impl FnOnce(&mut CryptoProvider)) -> ClientConfig {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    change(&mut provider);
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}
