//! Certificates from a CA, and where they are kept.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::Place;

/// `[store]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// The directory, 0700.
    pub path: PathBuf,
    /// What private keys are sealed with; None leaves them open.
    pub key: Option<Secret>,
}

/// A secret that stands elsewhere. Two are equal when it is the same place there.
#[derive(Debug, Clone)]
pub struct Secret {
    /// Where the secret is.
    pub source: SecretSource,
    /// Where the configuration names it.
    pub place: Place,
}

/// Where a secret is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// In a file of its own.
    File(PathBuf),
    /// In an environment variable.
    Env(String),
}

impl fmt::Display for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Env(name) => write!(f, "the environment variable {name}"),
        }
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for Secret {}

impl Secret {
    /// Reads it, now. The error says what to do.
    pub fn read(&self) -> Result<Vec<u8>, String> {
        match &self.source {
            SecretSource::File(path) => std::fs::read(path).map_err(|error| {
                format!(
                    "{}: the secret cannot be read: {error}; let the edge's own user read it",
                    path.display()
                )
            }),
            SecretSource::Env(name) => {
                std::env::var_os(name).map(std::os::unix::ffi::OsStringExt::into_vec).ok_or_else(|| {
                    format!("the environment variable {name} is not set; set it where the edge is started")
                })
            }
        }
    }
}

/// `[acme]`: who issues certificates, and how names are proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acme {
    /// Whom CAs may write to.
    pub email: Option<String>,
    /// At least one: the CA, and those that are tried in order when it keeps failing.
    pub cas: Vec<AcmeCa>,
    /// How names are proved; None: whatever works.
    pub challenge: Option<Challenge>,
    /// Where records for the challenge dns-01 are written.
    pub dns: Option<Dns>,
    /// Trust for the CAs' own APIs (a PEM file) in place of the system's.
    pub ca_root: Option<PathBuf>,
    /// Certbot's directory, whose certificates are taken over where the store has none.
    pub import: Option<PathBuf>,
    /// The program that is told what becomes of certificates, and its first arguments.
    pub hook: Option<Vec<String>>,
    /// The URL that is told the same.
    pub webhook: Option<Webhook>,
}

/// A URL that is posted to. Many have a secret in them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Webhook {
    /// It stands in the configuration.
    Url(String),
    /// It stands elsewhere.
    Secret(Secret),
}

impl Webhook {
    /// The URL, now. The error says what to do, and shows nothing of it.
    pub fn read(&self) -> Result<String, String> {
        let secret = match self {
            Self::Url(url) => return Ok(url.clone()),
            Self::Secret(secret) => secret,
        };
        let text = String::from_utf8(secret.read()?).unwrap_or_default();
        Some(text.trim()).filter(|text| is_web_url(text)).map(str::to_owned).ok_or_else(|| {
            "the secret is not a URL, as in https://hooks.example.com/…, and nothing else".to_owned()
        })
    }
}

/// Whether a text is a URL that can be posted to. One with a password in it is none.
pub fn is_web_url(text: &str) -> bool {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let host = rest.and_then(|rest| rest.split(['/', '?', '#']).next());
    let plain = text.chars().all(|c| c.is_ascii_graphic()) && !text.contains('#');
    let named = host.is_some_and(|host| !host.is_empty() && !host.starts_with(':') && !host.contains('@'));
    plain && named && text.parse::<http::Uri>().is_ok_and(|url| url.authority().is_some_and(has_whole_port))
}

/// Whether what stands behind the host, if anything does, is a port.
fn has_whole_port(authority: &http::uri::Authority) -> bool {
    authority.as_str() == authority.host() || authority.port_u16().is_some()
}

/// A CA that speaks ACME (RFC 8555).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcmeCa {
    /// As it was typed.
    pub name: String,
    /// The URL of its directory.
    pub directory: String,
    /// The URL of the directory that it has for trying, with limits of its own.
    pub staging: Option<String>,
    /// The profile to order with.
    pub profile: Option<String>,
    /// The common name of the root that the chain is to lead to, where the CA offers several.
    pub preferred_chain: Option<String>,
    /// The account at the CA that the new one belongs to.
    pub eab: Option<Eab>,
}

/// An external account binding (RFC 8555 section 7.3.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Eab {
    /// The key's identifier.
    pub key_id: String,
    /// The key, in base64url.
    pub hmac: Secret,
}

/// How a name is proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Challenge {
    /// Over port 80 (RFC 8555 section 8.3).
    Http01,
    /// Over port 443 (RFC 8737).
    TlsAlpn01,
    /// By a TXT record (RFC 8555 section 8.4).
    Dns01,
}

/// Where records for the challenge dns-01 are written, and who is asked whether they are out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dns {
    /// Who writes them.
    pub provider: DnsProvider,
    /// Who is asked where names lead; empty: the machine's own resolvers.
    pub resolvers: Vec<SocketAddr>,
    /// Who is asked whether a record is out; empty: the zone's own name servers.
    pub nameservers: Vec<SocketAddr>,
    /// How long a record may take to be out.
    pub propagation: Duration,
}

/// Who writes records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DnsProvider {
    /// A name server that takes updates (RFC 2136), signed (RFC 8945).
    Rfc2136 {
        /// Where it is.
        server: DnsServer,
        /// The key, as `tsig-keygen` writes it.
        key: Secret,
    },
    /// A program.
    Exec {
        /// The program and its first arguments.
        command: Vec<String>,
        /// How long it may take.
        timeout: Duration,
    },
    /// Cloudflare's API.
    Cloudflare {
        /// An API token.
        token: Secret,
        /// Where the API is, without a slash at its end.
        api: String,
    },
}

/// A name server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsServer {
    /// A name, or an address without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl fmt::Display for DnsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}
