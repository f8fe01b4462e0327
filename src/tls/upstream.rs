//! TLS as a client: to upstreams that are written `https://host:port`, and to CAs.

use std::fmt;
use std::io;
use std::sync::{Arc, OnceLock};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::policy;

/// TLS 1.2 or better, verified for the host's name against the system's roots (`SSL_CERT_FILE` and `SSL_CERT_DIR`
/// are honoured), `http/1.1` by ALPN.
#[derive(Clone, Default)]
pub struct ClientTls {
    config: Arc<OnceLock<Arc<ClientConfig>>>,
}

impl ClientTls {
    /// Reads nothing yet: the roots are read once, at the first use.
    pub fn new() -> Self {
        Self::default()
    }

    /// Trusts the certificates of a PEM file's text alone, whatever the system trusts. Fails where there is none in it.
    pub fn trusting(pem: &[u8]) -> io::Result<Self> {
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(pem) {
            let root = root.map_err(|error| invalid(format!("not a PEM file: {error}")))?;
            roots.add(root).map_err(|error| invalid(format!("not a CA's certificate: {error}")))?;
        }
        if roots.is_empty() {
            return Err(invalid("no certificate in it".to_owned()));
        }
        Ok(Self { config: Arc::new(OnceLock::from(Arc::new(client_config(roots)?))) })
    }

    /// Reads the roots now, so that no connection has to wait for the disk. Fails when the system has none.
    pub fn prepare(&self) -> io::Result<()> {
        self.config().map(drop)
    }

    /// The handshake over a connected stream. `host` is the name or the address that the certificate must have.
    pub async fn connect<IO>(&self, host: &str, io: IO) -> io::Result<TlsStream<IO>>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(bare.to_owned())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        TlsConnector::from(self.config()?).connect(name, io).await
    }

    fn config(&self) -> io::Result<Arc<ClientConfig>> {
        if let Some(config) = self.config.get() {
            return Ok(Arc::clone(config));
        }
        let config = Arc::new(client_config(system_roots()?)?);
        Ok(Arc::clone(self.config.get_or_init(|| config)))
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls").finish_non_exhaustive()
    }
}

fn client_config(roots: RootCertStore) -> io::Result<ClientConfig> {
    let mut config = ClientConfig::builder_with_provider(policy::client_provider())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

fn system_roots() -> io::Result<RootCertStore> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // A root that does not parse takes no other with it.
    let (usable, _) = roots.add_parsable_certificates(found.certs);
    if usable > 0 {
        return Ok(roots);
    }
    let why = found.errors.first().map_or_else(String::new, |error| format!(": {error}"));
    let message =
        format!("no trusted root certificates found{why}; install ca-certificates, or set SSL_CERT_FILE");
    Err(io::Error::new(io::ErrorKind::NotFound, message))
}
