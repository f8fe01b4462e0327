//! Whether a certificate and a key belong together, and to a site.

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use rustls::Error as TlsError;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SigningKey};
use time::OffsetDateTime;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey;

use crate::name::HostPattern;

/// The shortest RSA key that is served, in bits.
const MIN_RSA: usize = 2048;

/// The file that a finding is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum About {
    Chain,
    Key,
}

/// Something that is wrong, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) about: About,
    pub(super) message: String,
    pub(super) help: Option<String>,
}

impl Finding {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { about: About::Chain, message: message.into(), help: None }
    }

    fn key(message: impl Into<String>) -> Self {
        Self { about: About::Key, ..Self::new(message) }
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// When a certificate is valid.
#[derive(Debug, Clone, Copy)]
pub(super) struct Validity {
    pub(super) not_before: OffsetDateTime,
    pub(super) not_after: OffsetDateTime,
}

impl Validity {
    fn of(certificate: &X509Certificate<'_>) -> Self {
        let validity = certificate.validity();
        Self { not_before: validity.not_before.to_datetime(), not_after: validity.not_after.to_datetime() }
    }

    /// Out of its time, a certificate is served all the same: a warned browser beats a dead site.
    pub(super) fn finding(&self, now: OffsetDateTime) -> Option<Finding> {
        if now > self.not_after {
            let message = format!("the certificate expired on {}", self.not_after.date());
            return Some(
                Finding::new(message).help("it is served, and browsers warn: put a renewed one in its place"),
            );
        }
        (now < self.not_before).then(|| {
            Finding::new(format!("the certificate is not valid before {}", self.not_before.date()))
                .help("it is served, and browsers warn: is the clock right?")
        })
    }
}

/// A chain and its key, fit to be served.
pub(super) struct Checked {
    pub(super) certified: CertifiedKey,
    pub(super) validity: Validity,
    /// What the leaf is for.
    pub(super) names: Vec<HostPattern>,
}

/// Checks the two PEM files against each other and against the names that must be covered. Reports all at once.
pub(super) fn check(
    chain: &[u8],
    key: &[u8],
    names: &[HostPattern],
    provider: &CryptoProvider,
) -> Result<Checked, Vec<Finding>> {
    let (chain, key) = match (read_chain(chain), read_key(key)) {
        (Ok(chain), Ok(key)) => (chain, key),
        (chain, key) => return Err([chain.err(), key.err()].into_iter().flatten().collect()),
    };
    let parsed = parse(&chain).map_err(|finding| vec![finding])?;
    let [leaf, ..] = parsed.as_slice() else { return Err(vec![empty_chain()]) };
    let loaded = strength(leaf)
        .map_or(Ok(()), Err)
        .and_then(|()| provider.key_provider.load_private_key(key).map_err(|error| unsupported(&error)));
    let findings: Vec<Finding> = match &loaded {
        Err(finding) => uncovered(leaf, names).into_iter().chain([finding.clone()]).collect(),
        Ok(key) => match position(key.as_ref(), &parsed) {
            Some(0) => uncovered(leaf, names).into_iter().chain(disorder(&parsed)).collect(),
            Some(at) => vec![misplaced(at)],
            None => uncovered(leaf, names).into_iter().chain([mismatch()]).collect(),
        },
    };
    let (validity, names) = (Validity::of(leaf), dns_names(leaf));
    match loaded {
        Ok(key) if findings.is_empty() => {
            Ok(Checked { certified: CertifiedKey::new(chain, key), validity, names })
        }
        _ => Err(findings),
    }
}

/// What a certificate says of itself.
pub(super) struct Identity {
    pub(super) names: Vec<HostPattern>,
    /// Who issued it, as a person would call them.
    pub(super) issuer: String,
    /// In hexadecimal.
    pub(super) serial: String,
    pub(super) validity: Validity,
    /// What its CA knows it by when asked when to renew it (RFC 9773 section 4.1).
    pub(super) renewal_id: Option<String>,
}

/// None where it does not parse.
pub(super) fn identity(leaf: &CertificateDer<'_>) -> Option<Identity> {
    let (_, leaf) = X509Certificate::from_der(leaf).ok()?;
    let issuer = leaf.issuer();
    let parts = issuer.iter_organization().chain(issuer.iter_common_name());
    let parts: Vec<&str> = parts.filter_map(|part| part.as_str().ok()).collect();
    Some(Identity {
        names: dns_names(&leaf),
        issuer: parts.join(" "),
        serial: format!("{:x}", leaf.serial),
        validity: Validity::of(&leaf),
        renewal_id: renewal_id(&leaf),
    })
}

/// The authority's key identifier and the serial number, as they stand in the certificate.
fn renewal_id(leaf: &X509Certificate<'_>) -> Option<String> {
    let authority = authority_key(leaf)?;
    Some(format!(
        "{}.{}",
        BASE64_URL_SAFE_NO_PAD.encode(authority),
        BASE64_URL_SAFE_NO_PAD.encode(leaf.raw_serial())
    ))
}

fn authority_key<'a>(leaf: &'a X509Certificate<'_>) -> Option<&'a [u8]> {
    leaf.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(aki) => aki.key_identifier.as_ref().map(|id| id.0),
        _ => None,
    })
}

/// Whether a CA's chain is fit to be served with that key for these names; the error says all that is wrong with it.
pub fn fits(chain: &[u8], key: &[u8], names: &[HostPattern]) -> Result<(), String> {
    let provider = super::policy::client_provider();
    check(chain, key, names, &provider).map(drop).map_err(|findings| {
        findings.into_iter().map(|finding| finding.message).collect::<Vec<_>>().join("; ")
    })
}

/// The certificates of a PEM file; at least one.
pub(super) fn read_chain(bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, Finding> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    let chain = chain.map_err(|error| Finding::new(format!("not a PEM file: {}", told(&error))))?;
    if chain.is_empty() { Err(empty_chain()) } else { Ok(chain) }
}

fn empty_chain() -> Finding {
    Finding::new("no certificate in it").help(
        "a PEM file with -----BEGIN CERTIFICATE----- is needed; from DER: openssl x509 -inform der -in FILE",
    )
}

fn read_key(bytes: &[u8]) -> Result<PrivateKeyDer<'static>, Finding> {
    PrivateKeyDer::from_pem_slice(bytes).map_err(|error| match error {
        _ if is_encrypted(bytes) => Finding::key("the private key is encrypted")
            .help("decrypt it with: openssl pkey -in FILE -out NEW; and keep the new file 0600"),
        pem::Error::NoItemsFound => Finding::key("no private key in it")
            .help("a PEM file with -----BEGIN PRIVATE KEY----- is needed; from DER: openssl pkey -inform der -in FILE"),
        error => Finding::key(format!("the private key does not parse: {}", told(&error))),
    })
}

/// As PKCS #8 says it (RFC 7468 section 11), or as the older PEM does (RFC 1421 section 4.6.1.1).
fn is_encrypted(bytes: &[u8]) -> bool {
    let marks: [&[u8]; 2] = [b"-----BEGIN ENCRYPTED PRIVATE KEY-----", b"Proc-Type: 4,ENCRYPTED"];
    marks.iter().any(|mark| memchr::memmem::find(bytes, mark).is_some())
}

/// What is wrong with a PEM file; the error itself lists its octets as numbers.
fn told(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { .. } => "it ends before its -----END line".into(),
        pem::Error::IllegalSectionStart { .. } => "a -----BEGIN line is broken".into(),
        error => error.to_string(),
    }
}

fn parse<'a>(chain: &'a [CertificateDer<'_>]) -> Result<Vec<X509Certificate<'a>>, Finding> {
    let parse = |(index, der): (usize, &'a CertificateDer<'_>)| {
        let parsed = X509Certificate::from_der(der).map(|(_, certificate)| certificate);
        parsed.map_err(|_| Finding::new(format!("certificate {} in it does not parse", index + 1)))
    };
    chain.iter().enumerate().map(parse).collect()
}

fn strength(leaf: &X509Certificate<'_>) -> Option<Finding> {
    match leaf.public_key().parsed() {
        Ok(PublicKey::RSA(key)) if key.key_size() < MIN_RSA => {
            let message =
                format!("an RSA key of {} bits; {MIN_RSA} is the least that is served", key.key_size());
            Some(Finding::new(message).help("make a new key, best of all ECDSA P-256"))
        }
        _ => None,
    }
}

fn unsupported(error: &TlsError) -> Finding {
    Finding::key(format!("a private key that cannot be used: {error}"))
        .help("RSA of 2048 to 8192 bits, ECDSA P-256, P-384 and P-521, and Ed25519 keys are served")
}

/// Where in the chain the certificate is whose public key is this key's other half. rustls' own keys all tell theirs.
fn position(key: &dyn SigningKey, chain: &[X509Certificate<'_>]) -> Option<usize> {
    let own = key.public_key()?;
    chain.iter().position(|certificate| certificate.public_key().raw == own.as_ref())
}

fn misplaced(at: usize) -> Finding {
    Finding::new(format!("the key's own certificate is number {} in the file", at + 1))
        .help("put it first, each issuer after what it issued")
}

fn mismatch() -> Finding {
    Finding::key("the key does not match the certificate")
        .help("compare: openssl x509 -noout -pubkey -in CERT; openssl pkey -pubout -in KEY")
}

/// Each certificate must be issued by the next (RFC 5246 section 7.4.2).
fn disorder(chain: &[X509Certificate<'_>]) -> Option<Finding> {
    let broken = chain.windows(2).position(|pair| match pair {
        [child, parent] => !issued(parent, child),
        _ => false,
    })?;
    Some(
        Finding::new(format!(
            "certificate {} in the file did not issue certificate {}",
            broken + 2,
            broken + 1
        ))
        .help("put the leaf first and each issuer after what it issued, nothing else"),
    )
}

/// By names, and by key identifiers where both have one (RFC 5280 section 4.2.1.1). Signatures are the client's work.
fn issued(parent: &X509Certificate<'_>, child: &X509Certificate<'_>) -> bool {
    let wanted = authority_key(child);
    let found = parent.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0),
        _ => None,
    });
    let same_key = wanted.zip(found).is_none_or(|(wanted, found)| wanted == found);
    child.issuer().as_raw() == parent.subject().as_raw() && same_key
}

/// All names that the certificate does not have.
fn uncovered(leaf: &X509Certificate<'_>, names: &[HostPattern]) -> Option<Finding> {
    let has = dns_names(leaf);
    let missing: Vec<String> = names
        .iter()
        .filter(|name| !has.iter().any(|has| covers(has, name)))
        .map(ToString::to_string)
        .collect();
    if missing.is_empty() {
        return None;
    }
    let help = if has.is_empty() {
        "it has no DNS name in subjectAltName, and clients look nowhere else".into()
    } else {
        let has: Vec<String> = has.iter().map(ToString::to_string).collect();
        format!("it covers: {}", has.join(", "))
    };
    Some(Finding::new(format!("the certificate does not cover: {}", missing.join(", "))).help(help))
}

fn dns_names(leaf: &X509Certificate<'_>) -> Vec<HostPattern> {
    let Ok(Some(extension)) = leaf.subject_alternative_name() else { return Vec::new() };
    let dns = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => HostPattern::parse(name).ok(),
        _ => None,
    };
    extension.value.general_names.iter().filter_map(dns).collect()
}

/// Whether a certificate's name is good for a site's.
pub(super) fn covers(has: &HostPattern, name: &HostPattern) -> bool {
    match name {
        HostPattern::Exact(host) => has.matches(host),
        HostPattern::Wildcard(_) => has == name,
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, Issuer, KeyIdMethod, KeyPair, SerialNumber};

    use super::*;

    /// The example of RFC 9773 section 4.1.
    #[test]
    fn a_renewal_id_has_the_serial_as_it_stands() {
        let authority = b"\x69\x88\x5b\x6b\x87\x46\x40\x41\xe1\xb3\x7b\x84\x7b\xa0\xae\x2c\xde\x01\xc8\xd4";
        let (mut ca, key) = (CertificateParams::default(), KeyPair::generate().unwrap());
        ca.key_identifier_method = KeyIdMethod::PreSpecified(authority.to_vec());
        let mut params = CertificateParams::new(["a.test".to_owned()]).unwrap();
        params.serial_number = Some(SerialNumber::from(vec![0x87, 0x65, 0x43, 0x21]));
        params.use_authority_key_identifier_extension = true;
        let leaf = params.signed_by(&KeyPair::generate().unwrap(), &Issuer::new(ca, key)).unwrap();
        let identity = identity(leaf.der()).unwrap();
        assert_eq!(identity.renewal_id.as_deref(), Some("aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE"));
    }
}
