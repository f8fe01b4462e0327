//! The challenges that are pending: what a CA may ask for just now, whoever else is let in.
//!
//! An order puts its answers in and takes them out again by dropping what it got for them. Who looks something up
//! while there is nothing pays for one load.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use aws_lc_rs::digest::{SHA256, digest};
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::sign::CertifiedKey;

use super::policy::{Shared, SiteConfig};
use crate::name::Hostname;

/// The protocol's name in ALPN (RFC 8737 section 6.2).
pub(super) const ACME_TLS: &[u8] = b"acme-tls/1";

/// The book. Clones share it.
#[derive(Clone, Default)]
pub struct Book(Arc<Pages>);

#[derive(Default)]
struct Pages {
    /// How many entries there are, for those who only want to know that there is none.
    count: AtomicUsize,
    http: Page<String, Arc<str>>,
    alpn: Page<Hostname, Arc<SiteConfig>>,
    next: AtomicU64,
}

/// An entry's place in the book: dropping it takes the entry out.
pub struct Guard {
    book: Book,
    entry: Entry,
    serial: u64,
}

enum Entry {
    Http(String),
    Alpn(Hostname),
}

impl Book {
    /// Whether nothing is pending.
    pub fn is_empty(&self) -> bool {
        self.0.count.load(Ordering::Relaxed) == 0
    }

    /// Answers `/.well-known/acme-challenge/TOKEN` with the key authorization (RFC 8555 section 8.3).
    pub fn insert_http(&self, token: &str, key_authorization: &str) -> Guard {
        let entry = Entry::Http(token.to_owned());
        self.insert(entry, |serial| self.0.http.insert(token.to_owned(), key_authorization.into(), serial))
    }

    /// Answers handshakes for the name whose one protocol is `acme-tls/1`. See [`answer`].
    pub fn insert_alpn(&self, name: &Hostname, config: SiteConfig) -> Guard {
        let config = Arc::new(config);
        self.insert(Entry::Alpn(name.clone()), |serial| self.0.alpn.insert(name.clone(), config, serial))
    }

    /// The key authorization of a token.
    pub fn http(&self, token: &str) -> Option<Arc<str>> {
        if self.is_empty() { None } else { self.0.http.get(token) }
    }

    /// What a validation of the name is answered with.
    pub fn alpn(&self, name: &Hostname) -> Option<Arc<SiteConfig>> {
        if self.is_empty() { None } else { self.0.alpn.get(name.as_str()) }
    }

    fn insert(&self, entry: Entry, put: impl FnOnce(u64)) -> Guard {
        let serial = self.0.next.fetch_add(1, Ordering::Relaxed);
        put(serial);
        self.0.count.fetch_add(1, Ordering::Relaxed);
        Guard { book: self.clone(), entry, serial }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let pages = &self.book.0;
        match &self.entry {
            Entry::Http(token) => pages.http.remove(token, self.serial),
            Entry::Alpn(name) => pages.alpn.remove(name.as_str(), self.serial),
        }
        pages.count.fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for Book {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Book").field("count", &self.0.count).finish_non_exhaustive()
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").finish_non_exhaustive()
    }
}

/// The certificate that answers a validation by TLS (RFC 8737 section 3): the name, and a hash of the key
/// authorization, signed by nobody.
///
/// # Errors
/// No certificate can be made of the name, or the system has no randomness to give.
pub fn answer(shared: &Shared, name: &Hostname, key_authorization: &str) -> io::Result<SiteConfig> {
    let mut params = CertificateParams::new([name.as_str().to_owned()]).map_err(io::Error::other)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "acme-tls/1");
    let hash = digest(&SHA256, key_authorization.as_bytes());
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(hash.as_ref())];
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(io::Error::other)?;
    let certificate = params.self_signed(&key).map_err(io::Error::other)?;
    let der = PrivatePkcs8KeyDer::from(key.serialize_der());
    let key = shared.provider().key_provider.load_private_key(der.into()).map_err(io::Error::other)?;
    // Not compared with its key: the extension is critical, and unknown to who would compare.
    let certified = CertifiedKey::new(vec![certificate.der().clone()], key);
    SiteConfig::challenge(certified, shared, ACME_TLS).map_err(io::Error::other)
}

/// One kind of answers. Reading waits for nobody.
struct Page<K, V> {
    read: ArcSwap<HashMap<K, (u64, V)>>,
    write: Mutex<()>,
}

impl<K, V> Default for Page<K, V> {
    fn default() -> Self {
        Self { read: ArcSwap::default(), write: Mutex::default() }
    }
}

impl<K: std::hash::Hash + Eq + Clone + std::borrow::Borrow<str>, V: Clone> Page<K, V> {
    fn get(&self, key: &str) -> Option<V> {
        self.read.load().get(key).map(|(_, value)| value.clone())
    }

    fn insert(&self, key: K, value: V, serial: u64) {
        self.change(|entries| drop(entries.insert(key, (serial, value))));
    }

    /// Of two entries with one key the later one answers, and the earlier one's end does not end it.
    fn remove(&self, key: &str, serial: u64) {
        self.change(|entries| {
            if entries.get(key).is_some_and(|(own, _)| *own == serial) {
                entries.remove(key);
            }
        });
    }

    fn change(&self, change: impl FnOnce(&mut HashMap<K, (u64, V)>)) {
        let _alone = self.write.lock().unwrap_or_else(PoisonError::into_inner);
        let mut entries = HashMap::clone(&self.read.load());
        change(&mut entries);
        self.read.store(Arc::new(entries));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_lives_as_long_as_its_guard() {
        let book = Book::default();
        assert!(book.is_empty());
        let first = book.insert_http("token", "one");
        let other = book.clone().insert_http("other", "two");
        assert_eq!(book.http("token").as_deref(), Some("one"));
        let second = book.insert_http("token", "three");
        drop(first);
        assert_eq!(book.http("token").as_deref(), Some("three"));
        drop(second);
        assert_eq!(book.http("token"), None);
        assert_eq!(book.http("other").as_deref(), Some("two"));
        assert!(!book.is_empty());
        drop(other);
        assert!(book.is_empty() && book.http("other").is_none());
    }

    #[test]
    fn a_name_has_its_own_answer() {
        let (book, shared) = (Book::default(), Shared::new().unwrap());
        let name = Hostname::parse("a.example.com").unwrap();
        let guard = book.insert_alpn(&name, answer(&shared, &name, "token.thumbprint").unwrap());
        assert!(book.alpn(&name).is_some());
        assert!(book.alpn(&Hostname::parse("b.example.com").unwrap()).is_none());
        drop(guard);
        assert!(book.alpn(&name).is_none());
    }
}
