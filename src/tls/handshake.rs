//! From a socket to a stream, or to an alert that really arrives.
//!
//! The `ClientHello`'s name decides before a certificate is shown. A refusal is one fatal alert in a plain record,
//! written, flushed, and followed by an orderly close, so that no reset destroys it on its way.

use std::future::poll_fn;
use std::io::{self, ErrorKind, Read};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustls::server::{Accepted, Acceptor};
use rustls::{
    AlertDescription, CipherSuite, HandshakeKind, NamedGroup, PeerIncompatible, PeerMisbehaved,
    ProtocolVersion,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_rustls::StartHandshake;
use tokio_rustls::server::TlsStream;

use super::challenges::{ACME_TLS, Book};
use super::hello::{self, Opening};
use super::policy::SiteConfig;
use super::read_ahead::ReadAhead;
use crate::name::Hostname;

/// The most of a hello that is kept to judge it by, in octets: four full records.
const MAX_HELLO: usize = 4 * (16_384 + 5);
/// How long a refused client may take to read its alert and leave.
const LINGER: Duration = Duration::from_secs(1);
/// The most that is read, and thrown away, from a refused client, in octets.
const MAX_DRAIN: u64 = 64 * 1024;

/// How much of an answer a connection encrypts before it is written, in octets: the largest read from an upstream
/// with a head before it.
const WRITE: usize = (256 + 32) * 1024;

/// A finished handshake.
#[derive(Debug)]
pub struct Handshaken<IO> {
    /// The connection.
    pub stream: TlsStream<ReadAhead<IO>>,
    /// The name that the client asked for, which is one of a site's.
    pub name: Hostname,
    /// What it was answered with.
    pub config: Arc<SiteConfig>,
    /// What ALPN (RFC 7301) chose; HTTP/1.1 for a client without it.
    pub protocol: Alpn,
    /// `TLSv1.2` or `TLSv1.3`
    pub version: &'static str,
    /// The suite's IANA name.
    pub suite: &'static str,
    /// The key exchange group's IANA name; None for a resumed TLS 1.2 session, which exchanges no key.
    pub group: Option<&'static str>,
    /// Whether a ticket spared the full handshake.
    pub resumed: bool,
}

/// The protocols that the edge speaks inside TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alpn {
    /// `h2`
    H2,
    /// `http/1.1`, or `http/1.0`
    Http11,
}

/// A handshake's bad end. Everything that the client is to see was sent when this is returned.
#[derive(Debug, thiserror::Error)]
#[error("{}{}", .reason.token(), .name.as_ref().map_or_else(String::new, |name| format!(" ({name})")))]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    /// The name that was asked for, where it came to that.
    pub name: Option<Hostname>,
    /// What the socket or the TLS stack met.
    #[source]
    pub source: Option<io::Error>,
}

impl Refusal {
    /// For the caller whose deadline ended the handshake.
    pub fn timeout() -> Self {
        Self::because(Reason::Timeout)
    }

    fn because(reason: Reason) -> Self {
        Self { reason, name: None, source: None }
    }
}

/// Why a handshake was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// No server name (RFC 6066 section 3), or an IP address as one.
    NoSni,
    /// A server name that is no DNS name.
    BadName,
    /// A name that no site has.
    UnknownName,
    /// A name whose site has no certificate for it yet.
    NoCertificate,
    /// None at all: a CA's validation (RFC 8737) was answered, and has nothing more to say.
    Challenge,
    /// No version that is spoken here.
    ProtocolVersion,
    /// No suite, group or signature scheme in common.
    HandshakeFailure,
    /// ALPN without h2, http/1.1 and http/1.0.
    NoProtocol,
    /// No client certificate, or not one of the site's CA.
    ClientCertificate,
    /// The client sent an alert: most often it does not trust the certificate.
    ClientAlert,
    /// TLS that breaks its own rules.
    Malformed,
    /// Something else than TLS.
    NotTls,
    /// The client left.
    ClientGone,
    /// The deadline passed.
    Timeout,
    /// A mistake of ours.
    Internal,
}

impl Reason {
    /// One word for logs and metrics.
    pub fn token(self) -> &'static str {
        match self {
            Self::NoSni => "no_sni",
            Self::BadName => "bad_name",
            Self::UnknownName => "unknown_name",
            Self::NoCertificate => "no_certificate",
            Self::Challenge => "challenge",
            Self::ProtocolVersion => "protocol_version",
            Self::HandshakeFailure => "handshake_failure",
            Self::NoProtocol => "no_protocol",
            Self::ClientCertificate => "client_certificate",
            Self::ClientAlert => "client_alert",
            Self::Malformed => "malformed",
            Self::NotTls => "not_tls",
            Self::ClientGone => "client_gone",
            Self::Timeout => "timeout",
            Self::Internal => "internal",
        }
    }
}

/// Answers one TLS handshake. `choose` gives the configuration for a name, or why there is none. A CA that validates
/// one of the names in `book` is answered before `choose` is asked.
///
/// Has no deadline of its own, but for a second in which a refused client may leave: the caller puts one around it.
pub async fn accept<IO>(
    mut io: IO,
    book: &Book,
    choose: impl FnOnce(&Hostname) -> Result<Arc<SiteConfig>, Reason>,
) -> Result<Handshaken<IO>, Refusal>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let accepted = match read_hello(&mut io).await {
        Ok(accepted) => accepted,
        Err(Broken { refusal, alert }) => return Err(part(&mut io, &alert, refusal).await),
    };
    if let Some((name, config)) = challenged(&accepted, book) {
        return Err(validate(io, accepted, name, config).await);
    }
    match named(&accepted, choose) {
        Ok((name, config)) => finish(io, accepted, name, config).await,
        Err(refusal) => Err(part(&mut io, &fatal(AlertDescription::UnrecognisedName), refusal).await),
    }
}

/// Answers one TLS handshake on a port that has one name, `own`: clients ask for it or, as those do that speak no HTTP,
/// for none. Of the protocols that a client lists, `postgresql` is chosen, and else none. Otherwise as [`accept`].
pub async fn accept_as<IO>(
    mut io: IO,
    book: &Book,
    own: &Hostname,
    config: impl FnOnce() -> Option<Arc<SiteConfig>>,
) -> Result<Handshaken<IO>, Refusal>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let accepted = match read_hello(&mut io).await {
        Ok(accepted) => accepted,
        Err(Broken { refusal, alert }) => return Err(part(&mut io, &alert, refusal).await),
    };
    if let Some((name, config)) = challenged(&accepted, book) {
        return Err(validate(io, accepted, name, config).await);
    }
    let choose = |name: &Hostname| {
        if name != own {
            return Err(Reason::UnknownName);
        }
        config().ok_or(Reason::NoCertificate)
    };
    let chosen = match accepted.client_hello().server_name() {
        None => choose(own).map(|config| (own.clone(), config)).map_err(Refusal::because),
        Some(_) => named(&accepted, choose),
    };
    match chosen {
        Ok((name, config)) => {
            let face = config.raw_face(&accepted.client_hello());
            finish_with(io, accepted, name, config, face).await
        }
        Err(refusal) => Err(part(&mut io, &fatal(AlertDescription::UnrecognisedName), refusal).await),
    }
}

/// Answers a CA's validation of a name in `book`, and nothing else: whoever says anything else hears nothing at all.
/// For ports that are closed to whom this is. The caller puts a deadline around it.
pub async fn answer_challenge<IO>(mut io: IO, book: &Book) -> Refusal
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let accepted = match read_hello(&mut io).await {
        Ok(accepted) => accepted,
        Err(Broken { refusal, .. }) => return refusal,
    };
    match challenged(&accepted, book) {
        Some((name, config)) => validate(io, accepted, name, config).await,
        None => Refusal::because(Reason::UnknownName),
    }
}

/// The challenge that a hello is about: its one protocol is `acme-tls/1` (RFC 8737 section 3).
fn challenged(accepted: &Accepted, book: &Book) -> Option<(Hostname, Arc<SiteConfig>)> {
    if book.is_empty() {
        return None;
    }
    let hello = accepted.client_hello();
    let mut protocols = hello.alpn()?;
    if (protocols.next(), protocols.next()) != (Some(ACME_TLS), None) {
        return None;
    }
    let name = Hostname::from_wire(hello.server_name()?.as_bytes())?;
    let config = book.alpn(&name)?;
    Some((name, config))
}

/// The handshake is the whole answer: the connection ends with it (RFC 8737 section 3).
async fn validate<IO>(io: IO, accepted: Accepted, name: Hostname, config: Arc<SiteConfig>) -> Refusal
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    match finish(io, accepted, name, config).await {
        Ok(Handshaken { mut stream, name, .. }) => {
            let _ = tokio::time::timeout(LINGER, stream.shutdown()).await;
            Refusal { name: Some(name), ..Refusal::because(Reason::Challenge) }
        }
        Err(refusal) => refusal,
    }
}

/// The name that the hello asks for, and what its site answers with.
fn named(
    accepted: &Accepted,
    choose: impl FnOnce(&Hostname) -> Result<Arc<SiteConfig>, Reason>,
) -> Result<(Hostname, Arc<SiteConfig>), Refusal> {
    let hello = accepted.client_hello();
    let asked = hello.server_name().ok_or_else(|| Refusal::because(Reason::NoSni))?;
    let name = Hostname::from_wire(asked.as_bytes()).ok_or_else(|| Refusal::because(Reason::BadName))?;
    match choose(&name) {
        Ok(config) => Ok((name, config)),
        Err(reason) => Err(Refusal { name: Some(name), ..Refusal::because(reason) }),
    }
}

async fn finish<IO>(
    io: IO,
    accepted: Accepted,
    name: Hostname,
    config: Arc<SiteConfig>,
) -> Result<Handshaken<IO>, Refusal>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let face = config.face(&accepted.client_hello());
    finish_with(io, accepted, name, config, face).await
}

async fn finish_with<IO>(
    io: IO,
    accepted: Accepted,
    name: Hostname,
    config: Arc<SiteConfig>,
    face: Arc<rustls::ServerConfig>,
) -> Result<Handshaken<IO>, Refusal>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    match StartHandshake::from_parts(accepted, ReadAhead::new(io)).into_stream(face).into_fallible().await {
        Ok(stream) => Ok(describe(stream, name, config)),
        // rustls has written its alert already.
        Err((error, io)) => {
            let refusal = Refusal { reason: reason(&error), name: Some(name), source: Some(error) };
            Err(part(&mut io.into_inner(), &[], refusal).await)
        }
    }
}

fn describe<IO>(
    mut stream: TlsStream<ReadAhead<IO>>,
    name: Hostname,
    config: Arc<SiteConfig>,
) -> Handshaken<IO> {
    let (_, session) = stream.get_mut();
    session.set_buffer_limit(Some(WRITE));
    let protocol = if session.alpn_protocol() == Some(b"h2") { Alpn::H2 } else { Alpn::Http11 };
    let version = match session.protocol_version() {
        Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
        _ => "TLSv1.2",
    };
    let suite = session.negotiated_cipher_suite().map_or("unknown", |suite| iana_suite(suite.suite()));
    let group = session.negotiated_key_exchange_group().map(|group| iana_group(group.name()));
    let resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
    Handshaken { stream, name, config, protocol, version, suite, group, resumed }
}

/// rustls spells the suites of TLS 1.3 in its own way.
fn iana_suite(suite: CipherSuite) -> &'static str {
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        other => other.as_str().unwrap_or("unknown"),
    }
}

fn iana_group(group: NamedGroup) -> &'static str {
    match group {
        NamedGroup::X25519 => "x25519",
        other => other.as_str().unwrap_or("unknown"),
    }
}

/// A hello that could not be read to its end, and what to tell the client.
struct Broken {
    refusal: Refusal,
    alert: Vec<u8>,
}

/// Reads until the `ClientHello` is whole, keeping a copy of what came: an old client hears that it is too old
/// before anything else.
async fn read_hello<IO>(io: &mut IO) -> Result<Accepted, Broken>
where
    IO: AsyncRead + Unpin,
{
    let mut raw = Vec::new();
    let mut acceptor = Acceptor::default();
    loop {
        let read = poll_fn(|cx| poll_read_tls(&mut acceptor, &mut Tee { io, cx, raw: &mut raw })).await;
        match read {
            Ok(0) => return Err(gone(None)),
            Ok(_) => {}
            Err(error) => return Err(gone(Some(error))),
        }
        match acceptor.accept() {
            Ok(Some(accepted)) => return outdated(&raw).map_or(Ok(accepted), Err),
            Ok(None) => {}
            Err((error, mut alert)) => {
                let mut bytes = Vec::new();
                // Writing to memory cannot fail.
                let _ = alert.write_all(&mut bytes);
                return Err(unreadable(&raw, error, bytes));
            }
        }
    }
}

fn gone(source: Option<io::Error>) -> Broken {
    Broken { refusal: Refusal { source, ..Refusal::because(Reason::ClientGone) }, alert: Vec::new() }
}

/// What rustls cannot read is judged by its bytes first: old clients must hear that they are too old.
fn unreadable(raw: &[u8], error: rustls::Error, alert: Vec<u8>) -> Broken {
    let source = |error| Some(io::Error::new(ErrorKind::InvalidData, error));
    if let Some(broken) = outdated(raw) {
        return broken;
    }
    if hello::opening(raw) == Opening::Foreign {
        return Broken {
            refusal: Refusal { source: source(error), ..Refusal::because(Reason::NotTls) },
            alert: Vec::new(),
        };
    }
    let (reason, alert) = match &error {
        rustls::Error::PeerMisbehaved(PeerMisbehaved::ServerNameMustContainOneHostName) => {
            (Reason::BadName, fatal(AlertDescription::UnrecognisedName))
        }
        error => (tls_reason(error), alert),
    };
    Broken { refusal: Refusal { source: source(error), ..Refusal::because(reason) }, alert }
}

fn outdated(raw: &[u8]) -> Option<Broken> {
    let Opening::Outdated(version) = hello::opening(raw) else { return None };
    let alert = hello::alert(version, AlertDescription::ProtocolVersion.into());
    Some(Broken { refusal: Refusal::because(Reason::ProtocolVersion), alert: alert.to_vec() })
}

fn fatal(description: AlertDescription) -> Vec<u8> {
    hello::alert(ProtocolVersion::TLSv1_2.into(), description.into()).to_vec()
}

/// The last words, and an orderly close: nothing that the client still sends may provoke a reset, which would
/// destroy the alert before it is read.
async fn part<IO>(io: &mut IO, alert: &[u8], refusal: Refusal) -> Refusal
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    if refusal.reason == Reason::ClientGone {
        return refusal;
    }
    let farewell = async {
        io.write_all(alert).await?;
        io.shutdown().await?;
        tokio::io::copy(&mut io.take(MAX_DRAIN), &mut tokio::io::sink()).await
    };
    // A client that does not stay for the farewell has lost nothing.
    let _ = tokio::time::timeout(LINGER, farewell).await;
    refusal
}

fn reason(error: &io::Error) -> Reason {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(error) => tls_reason(error),
        None => Reason::ClientGone,
    }
}

fn tls_reason(error: &rustls::Error) -> Reason {
    use rustls::Error as E;
    match error {
        E::PeerIncompatible(
            PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::SupportedVersionsExtensionRequired,
        ) => Reason::ProtocolVersion,
        E::PeerIncompatible(_) => Reason::HandshakeFailure,
        E::NoApplicationProtocol => Reason::NoProtocol,
        E::NoCertificatesPresented | E::InvalidCertificate(_) => Reason::ClientCertificate,
        E::AlertReceived(_) => Reason::ClientAlert,
        E::InvalidMessage(_)
        | E::InappropriateMessage { .. }
        | E::InappropriateHandshakeMessage { .. }
        | E::PeerMisbehaved(_)
        | E::DecryptError
        | E::PeerSentOversizedRecord => Reason::Malformed,
        _ => Reason::Internal,
    }
}

fn poll_read_tls<IO>(acceptor: &mut Acceptor, tee: &mut Tee<'_, '_, IO>) -> Poll<io::Result<usize>>
where
    IO: AsyncRead + Unpin,
{
    match acceptor.read_tls(tee) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Poll::Pending,
        read => Poll::Ready(read),
    }
}

/// An asynchronous stream as rustls reads it, with a copy of what was read.
struct Tee<'a, 'b, IO> {
    io: &'a mut IO,
    cx: &'a mut Context<'b>,
    raw: &'a mut Vec<u8>,
}

impl<IO: AsyncRead + Unpin> Tee<'_, '_, IO> {
    fn poll(&mut self, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        ready!(Pin::new(&mut *self.io).poll_read(self.cx, &mut buffer))?;
        let read = buffer.filled();
        let room = MAX_HELLO.saturating_sub(self.raw.len());
        self.raw.extend(read.iter().take(room));
        Poll::Ready(Ok(read.len()))
    }
}

impl<IO: AsyncRead + Unpin> Read for Tee<'_, '_, IO> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.poll(buffer) {
            Poll::Ready(read) => read,
            Poll::Pending => Err(ErrorKind::WouldBlock.into()),
        }
    }
}
