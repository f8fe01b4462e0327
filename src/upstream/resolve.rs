//! Names to addresses.

use std::cell::OnceCell;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::proto::rr::RecordType;

/// The longest time for which an address is believed, whatever its TTL: Docker's resolver says ten minutes for a
/// container that a deploy replaces in one.
const MAX_TTL: Duration = Duration::from_secs(5);
/// The longest time for which a missing name is believed to be missing.
const MAX_NEGATIVE_TTL: Duration = Duration::from_secs(1);

/// A worker's resolver, with the machine's own settings and a cache. Made at its first use.
#[derive(Default)]
pub(super) struct Resolver(OnceCell<TokioResolver>);

impl Resolver {
    /// Every address of a name, from the cache while its TTL lasts.
    pub(super) async fn addresses(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        let found = self.get()?.lookup_ip(host).await.map_err(io::Error::other)?;
        Ok(found.iter().collect())
    }

    /// Forgets a name, so that the next look asks for it anew.
    pub(super) fn forget(&self, host: &str) {
        if let Some(resolver) = self.0.get() {
            resolver.clear_lookup_cache(host, RecordType::A);
            resolver.clear_lookup_cache(host, RecordType::AAAA);
        }
    }

    fn get(&self) -> io::Result<&TokioResolver> {
        if let Some(resolver) = self.0.get() {
            return Ok(resolver);
        }
        let made = build()?;
        Ok(self.0.get_or_init(|| made))
    }
}

fn build() -> io::Result<TokioResolver> {
    let mut builder = TokioResolver::builder_tokio().map_err(io::Error::other)?;
    let options = builder.options_mut();
    options.positive_max_ttl = Some(MAX_TTL);
    options.negative_max_ttl = Some(MAX_NEGATIVE_TTL);
    builder.build().map_err(io::Error::other)
}
