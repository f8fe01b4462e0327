//! Chains other than the CA's first (RFC 8555 section 7.4.2): the one that leads to the preferred root, fetched once the first is
//! stored and served, so that no trouble with it costs a certificate.

use http::HeaderMap;
use http::header::LINK;
use instant_acme::{Account, Error};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::failure::{Failure, patiently};
use super::order::{Job, Keep};
use super::store::Record;
use crate::tls;

/// The most chains that are looked at.
const MAX: usize = 8;

impl Job<'_> {
    /// Which of the CA's chains are worth a look: none, where no root is preferred or where the first leads there.
    pub(super) fn alternates(&self, pem: &str, headers: &HeaderMap) -> Vec<String> {
        match &self.ca.preferred_chain {
            Some(root) if !leads_to(pem, root) => links(headers),
            _ => Vec::new(),
        }
    }

    /// Puts the chain that leads to the preferred root in the place of the stored one, where there is one.
    pub(super) async fn prefer(&self, urls: Vec<String>, record: &mut Record, keep: &mut impl Keep) {
        let (Some(root), Some(bundle)) = (&self.ca.preferred_chain, &mut record.bundle) else { return };
        for url in urls {
            let pem = match self.fetch(&url).await {
                Ok(pem) => pem,
                Err(failure) => {
                    tracing::warn!(url, %failure, "another chain could not be fetched; the CA's first one stays");
                    continue;
                }
            };
            if !leads_to(&pem, root) {
                continue;
            }
            if let Err(why) = tls::fits(pem.as_bytes(), bundle.key_pem.expose().as_bytes(), self.names) {
                tracing::warn!(url, why, "another chain is not fit to be served; the CA's first one stays");
                continue;
            }
            bundle.chain_pem = pem;
            // The disk's refusal is told, and the record kept in memory.
            let _ = keep.keep(record).await;
            tracing::info!(root, "the chain that leads to the preferred root is taken");
            return;
        }
        tracing::warn!(
            root,
            ca = self.ca.directory,
            "the CA has no chain that leads to the preferred root; its first one stays"
        );
    }

    async fn fetch(&self, url: &str) -> Result<String, Failure> {
        let account = self.ca.account().await?;
        self.ca.client.keep_aside(url);
        let asked = patiently("fetching another chain", true, async || read(&account, url).await).await;
        let answer = self.ca.client.taken_aside(url);
        asked?;
        let pem = answer.and_then(|answer| String::from_utf8(answer.into_body().to_vec()).ok());
        pem.ok_or_else(|| Failure::Unfit("the CA sent something else than a chain".to_owned()))
    }
}

/// Asks for a URL as the account. The library expects an order there, and the client keeps what comes.
async fn read(account: &Account, url: &str) -> Result<(), Error> {
    match account.order(url.to_owned()).await {
        Ok(_) | Err(Error::Json(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Whether the last certificate of a chain was issued by a CA of that common name.
fn leads_to(pem: &str, root: &str) -> bool {
    let Some(Ok(last)) = CertificateDer::pem_slice_iter(pem.as_bytes()).last() else { return false };
    let Ok((_, last)) = X509Certificate::from_der(&last) else { return false };
    last.issuer().iter_common_name().any(|name| name.as_str().is_ok_and(|name| name == root))
}

/// The targets of `rel="alternate"` (RFC 8288 section 3).
fn links(headers: &HeaderMap) -> Vec<String> {
    let values = headers.get_all(LINK).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).filter_map(alternate).take(MAX).map(str::to_owned).collect()
}

fn alternate(link: &str) -> Option<&str> {
    let (url, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
    let is_alternate = |parameter: &str| {
        parameter.trim().split_once('=').is_some_and(|(name, value)| {
            name.trim().eq_ignore_ascii_case("rel") && value.trim().trim_matches('"') == "alternate"
        })
    };
    parameters.split(';').any(is_alternate).then_some(url).filter(|url| url.starts_with("https://"))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn alternates_are_found_among_links() {
        let mut headers = HeaderMap::new();
        for value in [
            "<https://ca.test/dir>;rel=\"index\"",
            "<https://ca.test/c/1/1>;rel=\"alternate\"",
            "<https://ca.test/up>; rel=up, <https://ca.test/c/1/2>; title=x; Rel=alternate",
            "<http://ca.test/c/1/3>;rel=\"alternate\"",
            "https://ca.test/c/1/4;rel=\"alternate\"",
            "<https://ca.test/c/1/5",
            ",;<>",
        ] {
            headers.append(LINK, HeaderValue::from_static(value));
        }
        assert_eq!(links(&headers), ["https://ca.test/c/1/1", "https://ca.test/c/1/2"]);
    }

    #[test]
    fn a_chain_leads_to_the_issuer_of_its_last_certificate() {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, "Root X1");
        let root = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem();
        assert!(leads_to(&root, "Root X1") && !leads_to(&root, "Root X2"));
        assert!(!leads_to("", "") && !leads_to("-----BEGIN CERTIFICATE-----\n", "Root X1"));
    }
}
