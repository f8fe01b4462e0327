//! The edge's own CA, for development: made once, kept in one record, trusted by hand.

use std::fmt;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::{Duration, OffsetDateTime};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::record::{self, StoreError};
use crate::name::HostPattern;

/// How long the root is valid.
const ROOT_LIFE: Duration = Duration::days(3650);
/// How long a leaf is valid; browsers take up to 398 days.
const LEAF_LIFE: Duration = Duration::days(90);
/// For clients whose clock is behind.
const BACKDATED: Duration = Duration::hours(1);
/// The longest common name in characters (RFC 5280 appendix A, ub-common-name).
const MAX_COMMON_NAME: usize = 64;

/// The internal CA, open.
pub struct Authority {
    root: CertificateDer<'static>,
    not_after: OffsetDateTime,
    issuer: Issuer<'static, KeyPair>,
}

/// A leaf certificate and its key.
pub struct Leaf {
    /// The leaf alone: the root above it is what clients trust.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its private key.
    pub key: PrivateKeyDer<'static>,
    /// When it begins to be valid.
    pub not_before: OffsetDateTime,
    /// When it ends to be valid.
    pub not_after: OffsetDateTime,
}

impl Authority {
    /// Opens the CA of the store at `store`, and makes it where there is none. Two processes that do so at once end
    /// with the same CA. Fails when others may read the record, when it is damaged, and when the CA has expired.
    pub fn open(store: &Path) -> Result<Self, StoreError> {
        let path = record_path(store);
        record::private_dir(&directory(store))?;
        let mut bytes = record::read(&path)?;
        if bytes.is_none() {
            record::create(&path, generate()?.as_bytes())?;
            bytes = record::read(&path)?;
        }
        let bytes = bytes.ok_or_else(|| StoreError::Missing { path: path.clone() })?;
        let (authority, pem) = Self::parse(&bytes).map_err(|why| StoreError::Corrupt { path, why })?;
        authority.publish(&Self::root_path(store), &pem)?;
        Ok(authority)
    }

    /// Where the public root of the store's CA is, as PEM, once the CA was made.
    pub fn root_path(store: &Path) -> PathBuf {
        directory(store).join("root.pem")
    }

    /// The root certificate, DER.
    pub fn root(&self) -> &CertificateDer<'static> {
        &self.root
    }

    /// A new key, and a certificate for the names, valid for 90 days from an hour ago.
    pub fn issue(&self, names: &[HostPattern]) -> Result<Leaf, StoreError> {
        self.issue_at(names, OffsetDateTime::now_utc())
    }

    pub(super) fn issue_at(&self, names: &[HostPattern], now: OffsetDateTime) -> Result<Leaf, StoreError> {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names.clone())?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        if let Some(name) = names.into_iter().find(|name| name.len() <= MAX_COMMON_NAME) {
            params.distinguished_name.push(DnType::CommonName, name);
        }
        params.not_before = now - BACKDATED;
        params.not_after = (now + LEAF_LIFE).min(self.not_after);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let leaf = params.signed_by(&key, &self.issuer)?;
        Ok(Leaf {
            chain: vec![leaf.der().clone()],
            key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
            not_before: params.not_before,
            not_after: params.not_after,
        })
    }

    /// The authority of a record, and its root as PEM.
    fn parse(bytes: &[u8]) -> Result<(Self, String), String> {
        let text = std::str::from_utf8(bytes).map_err(|_| "not a PEM file")?;
        let pem = certificate_pem(text).ok_or("no certificate in it")?;
        let root = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| "no certificate in it")?;
        let key = private_key(bytes).ok_or("no usable private key in it")?;
        let not_after = check(&root, &key)?;
        let issuer = Issuer::from_ca_cert_der(&root, key).map_err(|error| error.to_string())?;
        Ok((Self { root, not_after, issuer }, pem))
    }

    /// Puts the root beside the record when it is not there, or is another's.
    fn publish(&self, path: &Path, pem: &str) -> Result<(), StoreError> {
        let there = CertificateDer::from_pem_file(path).is_ok_and(|found| found == self.root);
        if there { Ok(()) } else { record::publish(path, pem.as_bytes()) }
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

impl fmt::Debug for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leaf").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

fn directory(store: &Path) -> PathBuf {
    store.join("internal")
}

/// Certificate and key, one file: a key without its certificate is never on disk.
fn record_path(store: &Path) -> PathBuf {
    directory(store).join("authority.pem")
}

fn generate() -> Result<String, StoreError> {
    let now = OffsetDateTime::now_utc();
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name());
    params.not_before = now - BACKDATED;
    params.not_after = now + ROOT_LIFE;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let root = params.self_signed(&key)?;
    Ok(root.pem() + &key.serialize_pem())
}

/// Names the machine, so that a person can tell several roots in a browser's list apart.
fn common_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host: String =
        host.trim().chars().filter(char::is_ascii_graphic).take(MAX_COMMON_NAME - 24).collect();
    format!("vestibule internal CA ({host})")
}

/// When the root expires, if it is a CA, the key is its own, and it has not.
fn check(root: &CertificateDer<'_>, key: &KeyPair) -> Result<OffsetDateTime, String> {
    let (_, parsed) = X509Certificate::from_der(root).map_err(|_| "the certificate in it does not parse")?;
    if !parsed.is_ca() {
        return Err("the certificate in it is not a CA's".into());
    }
    if parsed.public_key().subject_public_key.data != rcgen::PublicKeyData::der_bytes(key) {
        return Err("the private key in it is not the certificate's".into());
    }
    let not_after = parsed.validity().not_after.to_datetime();
    if not_after <= OffsetDateTime::now_utc() {
        return Err(format!("the CA expired on {}", not_after.date()));
    }
    Ok(not_after)
}

fn private_key(record: &[u8]) -> Option<KeyPair> {
    let der = PrivateKeyDer::from_pem_slice(record).ok()?;
    KeyPair::from_der_and_sign_algo(&der, &PKCS_ECDSA_P256_SHA256).ok()
}

/// The certificate's part of a record, and nothing of its key.
fn certificate_pem(record: &str) -> Option<String> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    let (_, rest) = record.split_once(BEGIN)?;
    let (body, _) = rest.split_once(END)?;
    Some(format!("{BEGIN}{body}{END}\n"))
}
