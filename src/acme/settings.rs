//! What the configuration says about CAs, as the manager needs it.

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};

use super::account::Binding;
use super::notice::Notifier;
use super::solve::Method;
use super::solve::dns01::Dns;
use crate::config;
use crate::config::model::{Acme, AcmeCa, Challenge, Config, Eab};
use crate::tls::upstream::ClientTls;

/// The largest file of roots, in octets.
const MAX_ROOTS: u64 = 16 << 20;

/// `[acme]`, ready for use.
pub(super) struct Settings {
    pub(super) cas: Vec<CaSettings>,
    pub(super) email: Option<String>,
    /// The one method that is to be used.
    pub(super) method: Option<Method>,
    pub(super) dns: Option<Dns>,
    pub(super) trust: ClientTls,
    pub(super) notifier: Notifier,
}

/// One CA.
#[derive(Clone)]
pub(super) struct CaSettings {
    pub(super) directory: String,
    /// Where it is tried without consequences.
    pub(super) staging: Option<String>,
    pub(super) profile: Option<String>,
    /// The common name of the root that chains are to lead to.
    pub(super) preferred_chain: Option<String>,
    pub(super) binding: Option<Binding>,
}

impl Settings {
    /// Reads the files that the configuration names. Reads the disk.
    ///
    /// # Errors
    /// One of them cannot be read or used; the text says what to do.
    pub(super) fn of(config: &Config) -> Result<Self, String> {
        let acme = &config.acme;
        let trust = trust(acme).map_err(|why| format!("[acme] ca_root: {why}"))?;
        let method = acme.challenge.map(|challenge| match challenge {
            Challenge::Http01 => Method::Http01,
            Challenge::TlsAlpn01 => Method::TlsAlpn01,
            Challenge::Dns01 => Method::Dns01,
        });
        let cas = acme.cas.iter().map(CaSettings::of).collect::<Result<_, _>>()?;
        let dns = acme.dns.as_ref().map(|dns| Dns::of(dns).map_err(|why| format!("[acme] dns: {why}")));
        let (email, notifier) = (acme.email.clone(), Notifier::of(acme));
        Ok(Self { cas, email, method, dns: dns.transpose()?, trust, notifier })
    }
}

/// Who is trusted with a CA's own API. Reads the disk.
///
/// # Errors
/// The file that `ca_root` names cannot be read, or has no certificate in it.
pub(super) fn trust(acme: &Acme) -> Result<ClientTls, String> {
    let Some(path) = &acme.ca_root else { return Ok(ClientTls::new()) };
    let trusting = config::read_bounded(path, MAX_ROOTS).and_then(|pem| ClientTls::trusting(&pem));
    trusting.map_err(|error| format!("{}: {error}", path.display()))
}

impl CaSettings {
    fn of(ca: &AcmeCa) -> Result<Self, String> {
        Ok(Self {
            directory: ca.directory.clone(),
            staging: ca.staging.clone(),
            profile: ca.profile.clone(),
            preferred_chain: ca.preferred_chain.clone(),
            binding: ca.eab.as_ref().map(binding).transpose()?,
        })
    }
}

/// The account at the CA, with its key. Reads the disk.
///
/// # Errors
/// The key cannot be read, or is none.
pub(super) fn binding(eab: &Eab) -> Result<Binding, String> {
    let wrong = |what: String| format!("{}: the key of the binding {} {what}", eab.hmac.source, eab.key_id);
    let text = eab.hmac.read()?;
    // CAs give it with padding or without.
    let text: Vec<u8> =
        text.into_iter().filter(|octet| !octet.is_ascii_whitespace() && *octet != b'=').collect();
    let hmac =
        BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|error| wrong(format!("is not base64url: {error}")))?;
    if hmac.is_empty() {
        return Err(wrong("is empty; write it as the CA gives it".to_owned()));
    }
    Ok(Binding { key_id: eab.key_id.clone(), hmac })
}
