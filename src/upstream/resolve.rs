//! Names to addresses, as the machine's own settings say: /etc/hosts first, then the servers of /etc/resolv.conf with its
//! search domains.

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::str::FromStr as _;
use std::time::{Duration, Instant, SystemTime};

use hickory_resolver::config::LookupIpStrategy;
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::NetError;
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::{Hosts, TokioResolver};

/// The bounds of the time for which an answer is believed, whatever its TTL: Docker's resolver says ten minutes for a
/// container that a deploy replaces in one.
const LEAST: Duration = Duration::from_secs(1);
const MOST: Duration = Duration::from_secs(5);
/// What says where names are looked up.
const SETTINGS: [&str; 2] = ["/etc/resolv.conf", "/etc/hosts"];

/// What a name leads to.
#[derive(Debug)]
pub(super) struct Found {
    /// In order, each once; never empty.
    pub(super) addresses: Vec<IpAddr>,
    /// How long it is believed.
    pub(super) fresh: Duration,
}

/// Why a name leads nowhere.
#[derive(Debug, thiserror::Error)]
pub(super) enum Lost {
    /// Nobody could say: what was known before may still hold.
    #[error("the name cannot be looked up: {0}")]
    Failed(String),
    /// There is no such name, or it has no address.
    #[error("the name has no address")]
    Missing,
}

/// The edge's resolver. It keeps no answers: who asks knows when to ask again.
#[derive(Default)]
pub(super) struct Resolver(RefCell<Option<Rc<Settings>>>);

/// The machine's settings, as they were when these were read.
struct Settings {
    read: [Option<SystemTime>; 2],
    hosts: Hosts,
    /// Or why no server can be asked, as where resolv.conf names none.
    dns: Result<TokioResolver, String>,
}

impl Resolver {
    /// Every address of a name. May take as long as resolv.conf lets a server be silent.
    pub(super) async fn addresses(&self, host: &str) -> Result<Found, Lost> {
        let settings = self.settings();
        let known = settings.of_hosts(host);
        if !known.is_empty() {
            return Ok(Found { addresses: known, fresh: MOST });
        }
        let dns = settings.dns.as_ref().map_err(|error| Lost::Failed(error.clone()))?;
        let found = dns.lookup_ip(host).await.map_err(|error| {
            if error.is_no_records_found() { Lost::Missing } else { Lost::Failed(error.to_string()) }
        })?;
        let fresh = found.valid_until().saturating_duration_since(Instant::now()).clamp(LEAST, MOST);
        match sorted(found.iter()) {
            addresses if addresses.is_empty() => Err(Lost::Missing),
            addresses => Ok(Found { addresses, fresh }),
        }
    }

    /// The settings, read again where the files have changed.
    fn settings(&self) -> Rc<Settings> {
        let written = SETTINGS.map(|path| std::fs::metadata(path).and_then(|file| file.modified()).ok());
        let mut own = self.0.borrow_mut();
        match &*own {
            Some(settings) if settings.read == written => Rc::clone(settings),
            _ => Rc::clone(own.insert(Rc::new(Settings::read(written)))),
        }
    }
}

impl Settings {
    fn read(read: [Option<SystemTime>; 2]) -> Self {
        let dns = servers().map_err(|error| format!("/etc/resolv.conf: {error}"));
        Self { read, hosts: Hosts::from_system().unwrap_or_default(), dns }
    }

    /// What /etc/hosts says: no server is asked for the other kind of address then, which may not even be there.
    fn of_hosts(&self, host: &str) -> Vec<IpAddr> {
        let Ok(mut name) = Name::from_str(host) else { return Vec::new() };
        name.set_fqdn(true);
        let query = |kind| self.hosts.lookup_static_host(&Query::query(name.clone(), kind));
        let found = [RecordType::A, RecordType::AAAA].into_iter().filter_map(query);
        let found: Vec<_> = found.collect();
        sorted(found.iter().flat_map(Lookup::answers).filter_map(|record| record.data.ip_addr()))
    }
}

fn servers() -> Result<TokioResolver, NetError> {
    let mut builder = TokioResolver::builder_tokio()?;
    let options = builder.options_mut();
    options.cache_size = 0;
    // Where neither is found, it is the first one's error that is told.
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    builder.build()
}

fn sorted(addresses: impl Iterator<Item = IpAddr>) -> Vec<IpAddr> {
    let mut addresses: Vec<_> = addresses.collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_machines_own_name_is_known() {
        let found = Resolver::default().addresses("localhost").await.unwrap();
        assert!(found.addresses.contains(&IpAddr::from([127, 0, 0, 1])), "{found:?}");
        assert!(found.fresh >= LEAST && found.fresh <= MOST);
    }
}
