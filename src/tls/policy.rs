//! What is spoken: versions, suites and groups; and who shares session tickets with whom.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

use ::aws_lc_rs::digest::{Context, SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustls::crypto::aws_lc_rs::{self, cipher_suite, kx_group};
use rustls::crypto::{ActiveKeyExchange, CompletedKeyExchange, CryptoProvider, SupportedKxGroup};
use rustls::pki_types::CertificateDer;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCertUsingSni, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{NamedGroup, ProtocolVersion, RootCertStore, SupportedCipherSuite, SupportedProtocolVersion};
use serde::{Deserialize, Serialize};

use super::challenges::Book;
use super::tickets::{Legacy, PERIOD, Tickets};
use crate::config::model::TlsVersion;

/// What PostgreSQL's clients list where TLS comes first (its protocol's section on session encryption).
const POSTGRESQL: &[u8] = b"postgresql";

/// The server's order, which is enforced: AES-128-GCM first, for it is the cheapest of three that are all sound.
static SUITES: &[SupportedCipherSuite] = &[
    cipher_suite::TLS13_AES_128_GCM_SHA256,
    cipher_suite::TLS13_AES_256_GCM_SHA384,
    cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
];

/// Groups for clients that do not know the post-quantum hybrid, and for every TLS 1.2 handshake.
static CLASSIC: &[&dyn SupportedKxGroup] = &[kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1];

/// Groups for clients that list the hybrid: TLS 1.3 is left no other choice, a client that lists the hybrid and
/// then speaks TLS 1.2 has the classic ones.
static HYBRID: &[&dyn SupportedKxGroup] = &[
    kx_group::X25519MLKEM768,
    &Tls12Only(kx_group::X25519),
    &Tls12Only(kx_group::SECP256R1),
    &Tls12Only(kx_group::SECP384R1),
];

/// What all sites of a process share, across workers and reloads: the cryptography, and the session-ticket keys.
pub struct Shared {
    hybrid: Arc<CryptoProvider>,
    classic: Arc<CryptoProvider>,
    /// Sites without client certificates.
    open: Arc<Policy>,
    /// Sites with them, by the exact certificates that clients must chain to. Locked while a site is loaded only.
    closed: Mutex<HashMap<Vec<CertificateDer<'static>>, Weak<Policy>>>,
    /// Ticket keys of the process before this one, until a policy goes on with them.
    heritage: Mutex<Heritage>,
    challenges: Book,
}

/// The ticket keys of a whole process, on their way to the one that takes over from it: secret, and written nowhere.
#[derive(Default, Serialize, Deserialize)]
pub struct Heritage {
    open: Option<Legacy>,
    /// By what tells the certificates that clients must chain to.
    closed: HashMap<String, Legacy>,
}

impl fmt::Debug for Heritage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Heritage").finish_non_exhaustive()
    }
}

impl Shared {
    /// Makes the first ticket keys. Fails when the system has no randomness to give.
    pub fn new() -> io::Result<Arc<Self>> {
        Self::inherit(Heritage::default())
    }

    /// The same, but goes on with the ticket keys of the process before this one.
    pub fn inherit(mut heritage: Heritage) -> io::Result<Arc<Self>> {
        let hybrid = provider(HYBRID);
        let classic = provider(CLASSIC);
        let open = Arc::new(Policy::new(&hybrid, &classic, None, heritage.open.take())?);
        let (closed, heritage, challenges) = (Mutex::default(), Mutex::new(heritage), Book::default());
        Ok(Arc::new(Self { hybrid, classic, open, closed, heritage, challenges }))
    }

    /// The ticket keys, for the process that takes over from this one.
    pub fn bequeath(&self) -> Heritage {
        let closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        let used = closed.iter().filter_map(|(roots, policy)| Some((roots, policy.upgrade()?)));
        Heritage {
            open: Some(self.open.tickets.bequeath()),
            closed: used.map(|(roots, policy)| (fingerprint(roots), policy.tickets.bequeath())).collect(),
        }
    }

    /// The challenges that are pending.
    pub fn challenges(&self) -> &Book {
        &self.challenges
    }

    pub(super) fn provider(&self) -> &CryptoProvider {
        &self.classic
    }

    /// The policy of sites that ask clients for nothing.
    pub(super) fn open(&self) -> Arc<Policy> {
        Arc::clone(&self.open)
    }

    /// The policy of sites whose clients must chain to one of `roots`: the same one for the same roots, for as long
    /// as any site uses it.
    pub(super) fn closed(&self, roots: Vec<CertificateDer<'static>>) -> io::Result<Arc<Policy>> {
        let mut closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        closed.retain(|_, policy| policy.strong_count() > 0);
        if let Some(policy) = closed.get(&roots).and_then(Weak::upgrade) {
            return Ok(policy);
        }
        let verifier = verifier(&roots, &self.classic)?;
        let legacy =
            self.heritage.lock().unwrap_or_else(PoisonError::into_inner).closed.remove(&fingerprint(&roots));
        let policy = Arc::new(Policy::new(&self.hybrid, &self.classic, Some(&verifier), legacy)?);
        closed.insert(roots, Arc::downgrade(&policy));
        Ok(policy)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

/// One answer to "who may be a client here", and the ticket keys of those who passed. A ticket is proof of having
/// passed, so no two policies share keys.
pub(super) struct Policy {
    tickets: Arc<Tickets>,
    from_1_2: SiteConfig,
    from_1_3: SiteConfig,
}

impl Policy {
    fn new(
        hybrid: &Arc<CryptoProvider>,
        classic: &Arc<CryptoProvider>,
        verifier: Option<&Arc<dyn ClientCertVerifier>>,
        legacy: Option<Legacy>,
    ) -> io::Result<Self> {
        let tickets = match legacy {
            Some(legacy) => Tickets::inherit(PERIOD, &legacy),
            None => Tickets::new(PERIOD),
        };
        let tickets = Arc::new(tickets.map_err(io::Error::other)?);
        let face = |provider: &Arc<CryptoProvider>, versions: &[&'static SupportedProtocolVersion]| {
            face(provider, versions, verifier, &tickets).map(Arc::new).map_err(io::Error::other)
        };
        let faces = |versions: &[&'static SupportedProtocolVersion]| {
            io::Result::Ok(SiteConfig { hybrid: face(hybrid, versions)?, classic: face(classic, versions)? })
        };
        Ok(Self {
            from_1_2: faces(&[&rustls::version::TLS13, &rustls::version::TLS12])?,
            from_1_3: faces(&[&rustls::version::TLS13])?,
            tickets,
        })
    }

    /// The configuration of a site under this policy. All that sites have in common stays shared.
    pub(super) fn site(&self, lowest: TlsVersion, certified: CertifiedKey) -> SiteConfig {
        let template = match lowest {
            TlsVersion::V1_2 => &self.from_1_2,
            TlsVersion::V1_3 => &self.from_1_3,
        };
        let resolver = Arc::new(SingleCertAndKey::from(certified));
        let face = |template: &rustls::ServerConfig| {
            let mut config = template.clone();
            config.cert_resolver = Arc::clone(&resolver) as _;
            Arc::new(config)
        };
        SiteConfig { hybrid: face(&template.hybrid), classic: face(&template.classic) }
    }

    /// Replaces the ticket key when it is due, so that an idle edge does not keep old ones.
    pub(super) fn turn(&self) {
        self.tickets.turn(Instant::now());
    }
}

/// What one site answers handshakes with.
///
/// Two faces of one configuration. rustls takes the first group of the *client's* list that it knows, and many
/// clients list the post-quantum hybrid late; the face is therefore chosen by whether the client lists it at all.
pub struct SiteConfig {
    hybrid: Arc<rustls::ServerConfig>,
    classic: Arc<rustls::ServerConfig>,
}

impl SiteConfig {
    /// What a CA that validates by TLS is answered with (RFC 8737): one certificate, one protocol, no tickets.
    pub(super) fn challenge(
        certified: CertifiedKey,
        shared: &Shared,
        protocol: &[u8],
    ) -> Result<Self, rustls::Error> {
        let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&shared.classic));
        let builder = builder.with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?;
        let resolver = Arc::new(SingleCertAndKey::from(certified));
        let mut config = builder.with_no_client_auth().with_cert_resolver(resolver);
        config.alpn_protocols = vec![protocol.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        let config = Arc::new(config);
        Ok(Self { hybrid: Arc::clone(&config), classic: config })
    }

    /// Whether clients of one are let in as those of the other are: both ask for the same certificates, or for none. Who shares
    /// tickets does.
    pub fn admits_like(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.hybrid.ticketer, &other.hybrid.ticketer)
    }

    /// The same for what is not HTTP. Clients that list protocols which are not spoken behind the edge are not refused, for
    /// nobody behind it would refuse them.
    pub(super) fn raw_face(&self, hello: &ClientHello<'_>) -> Arc<rustls::ServerConfig> {
        let mut face = Arc::unwrap_or_clone(self.face(hello));
        let listed = hello.alpn().is_some_and(|mut protocols| protocols.any(|own| own == POSTGRESQL));
        face.alpn_protocols = if listed { vec![POSTGRESQL.to_vec()] } else { Vec::new() };
        Arc::new(face)
    }

    pub(super) fn face(&self, hello: &ClientHello<'_>) -> Arc<rustls::ServerConfig> {
        let listed = hello.named_groups().is_some_and(|groups| groups.contains(&NamedGroup::X25519MLKEM768));
        Arc::clone(if listed { &self.hybrid } else { &self.classic })
    }
}

impl fmt::Debug for SiteConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SiteConfig").finish_non_exhaustive()
    }
}

/// The provider for connections that the edge itself opens: the hybrid first, then the rest.
pub(super) fn client_provider() -> Arc<CryptoProvider> {
    let groups = std::iter::once(kx_group::X25519MLKEM768).chain(CLASSIC.iter().copied()).collect();
    Arc::new(CryptoProvider { kx_groups: groups, ..Arc::unwrap_or_clone(provider(CLASSIC)) })
}

/// Tells sets of client CAs apart, whatever their length.
fn fingerprint(roots: &[CertificateDer<'static>]) -> String {
    let mut context = Context::new(&SHA256);
    for root in roots {
        context.update(&(root.len() as u64).to_be_bytes());
        context.update(root);
    }
    BASE64.encode(context.finish())
}

fn provider(groups: &[&'static dyn SupportedKxGroup]) -> Arc<CryptoProvider> {
    let base = aws_lc_rs::default_provider();
    Arc::new(CryptoProvider { cipher_suites: SUITES.to_vec(), kx_groups: groups.to_vec(), ..base })
}

fn face(
    provider: &Arc<CryptoProvider>,
    versions: &[&'static SupportedProtocolVersion],
    verifier: Option<&Arc<dyn ClientCertVerifier>>,
    tickets: &Arc<Tickets>,
) -> Result<rustls::ServerConfig, rustls::Error> {
    let builder =
        rustls::ServerConfig::builder_with_provider(Arc::clone(provider)).with_protocol_versions(versions)?;
    // Without the extended master secret (RFC 7627) a client certificate's proof can be replayed from elsewhere.
    let require_ems = verifier.is_some();
    let builder = match verifier {
        Some(verifier) => builder.with_client_cert_verifier(Arc::clone(verifier)),
        None => builder.with_no_client_auth(),
    };
    // A resolver that knows nobody: each site puts its own in.
    let mut config = builder.with_cert_resolver(Arc::new(ResolvesServerCertUsingSni::new()));
    config.ignore_client_order = true;
    // The last is what `curl --http1.0` offers, alone.
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec(), b"http/1.0".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = Arc::clone(tickets) as _;
    // One ticket is enough for a client that keeps its connection, and each costs a record in every handshake.
    config.send_tls13_tickets = 1;
    config.require_ems = require_ems;
    Ok(config)
}

fn verifier(
    roots: &[CertificateDer<'static>],
    provider: &Arc<CryptoProvider>,
) -> io::Result<Arc<dyn ClientCertVerifier>> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root.clone()).map_err(io::Error::other)?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(store), Arc::clone(provider))
        .build()
        .map_err(io::Error::other)
}

/// A group that TLS 1.3 does not see.
#[derive(Debug)]
struct Tls12Only(&'static dyn SupportedKxGroup);

impl SupportedKxGroup for Tls12Only {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, rustls::Error> {
        self.0.start()
    }

    fn start_and_complete(&self, peer: &[u8]) -> Result<CompletedKeyExchange, rustls::Error> {
        self.0.start_and_complete(peer)
    }

    fn name(&self) -> NamedGroup {
        self.0.name()
    }

    fn fips(&self) -> bool {
        self.0.fips()
    }

    fn usable_for_version(&self, version: ProtocolVersion) -> bool {
        version == ProtocolVersion::TLSv1_2 && self.0.usable_for_version(version)
    }
}
