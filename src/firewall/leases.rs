//! Addresses that belong to a source for a while, as a CI runner's while it works.
//!
//! A lease ends by the clock on the wall, and at the latest when so much time has passed as it was given for: a clock that is
//! set back does not prolong it. They are kept in the store, in one file that is there whole or not at all.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::moment::Moment;
use super::plan::Held;
use crate::tls::record::{self as file, StoreError};

/// The longest that a lease lasts.
pub const LONGEST: Duration = Duration::from_hours(24);
/// The most that there are at once.
pub const MOST: usize = 1000;
/// The shortest prefixes: an office of many addresses is a source of its own, and no lease.
const PREFIXES: (u8, u8) = (24, 48);
/// How far the clock may have been set back over a restart of the machine.
const SLACK: time::Duration = time::Duration::minutes(5);

/// A lease.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Lease {
    /// The source's name.
    pub source: String,
    /// The address or network.
    pub network: IpNet,
    /// When it began, and when it ends.
    #[serde(with = "time::serde::rfc3339")]
    pub since: OffsetDateTime,
    /// When it ends.
    #[serde(with = "time::serde::rfc3339")]
    pub until: OffsetDateTime,
    boot: String,
    until_uptime: f64,
}

/// Why a lease is not given.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// There is nobody at such an address.
    #[error("{0} is nobody's address")]
    Nobody(IpNet),
    /// It is too large.
    #[error(
        "{0} is more than a lease can hold, which is a /24 of IPv4 and a /48 of IPv6 at most: make it a source"
    )]
    TooLarge(IpNet),
    /// It is too long or nothing.
    #[error("a lease lasts a second to 24 hours")]
    Duration,
    /// There are too many.
    #[error("{MOST} leases are all that there can be at once: end some")]
    TooMany,
    /// It could not be written down, and is not given.
    #[error("{0}")]
    Store(#[from] StoreError),
}

/// The leases of a running edge.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Leases(Vec<Lease>);

impl Leases {
    /// Those that a store has and that have not ended. A file that is damaged gives none, and the reason; what no edge can have
    /// given is left out, and the reason told.
    pub fn load(store: &Path, now: &Moment) -> (Self, Option<String>) {
        let path = path(store);
        let (list, why) = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_or_else(|error| (Vec::new(), Some(error.to_string())), |list| believed(list, now)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => (Vec::new(), None),
            Err(error) => (Vec::new(), Some(error.to_string())),
        };
        let mut leases = Self(list);
        leases.0.retain(|lease| lease.holds(now));
        (leases, why.map(|why| format!("{}: {why}", path.display())))
    }

    /// Gives a lease, in place of an older one for the same address.
    pub fn grant(
        &mut self,
        source: &str,
        network: IpNet,
        duration: Duration,
        now: &Moment,
        store: &Path,
    ) -> Result<&Lease, LeaseError> {
        check(network, duration)?;
        let mut next = self.clone();
        next.0.retain(|lease| lease.holds(now) && !lease.is_for(source, network));
        if next.0.len() >= MOST {
            return Err(LeaseError::TooMany);
        }
        next.0.push(Lease {
            source: source.to_owned(),
            network,
            since: now.wall,
            until: now.wall + duration,
            boot: now.boot.clone(),
            until_uptime: now.uptime + duration.as_secs_f64(),
        });
        next.save(store)?;
        *self = next;
        self.0.last().ok_or(LeaseError::TooMany)
    }

    /// Ends a lease. False where there is none.
    pub fn end(&mut self, source: &str, network: IpNet, store: &Path) -> Result<bool, StoreError> {
        let mut next = self.clone();
        next.0.retain(|lease| !lease.is_for(source, network));
        let found = next.0.len() < self.0.len();
        if found {
            next.save(store)?;
            *self = next;
        }
        Ok(found)
    }

    /// Takes out those that have ended. A store that cannot be written brings none of them back: they have ended there too.
    pub fn purge(&mut self, now: &Moment, store: &Path) -> Vec<Lease> {
        let (kept, ended) = std::mem::take(&mut self.0).into_iter().partition(|lease| lease.holds(now));
        self.0 = kept;
        let ended: Vec<Lease> = ended;
        if !ended.is_empty() {
            let _ = self.save(store);
        }
        ended
    }

    /// All of them.
    pub fn list(&self) -> &[Lease] {
        &self.0
    }

    /// The networks that a source holds for a while.
    pub fn of(&self, source: &str) -> impl Iterator<Item = IpNet> {
        self.0.iter().filter(move |lease| lease.source == source).map(|lease| lease.network)
    }

    /// All of them, with the time that is left.
    pub fn held(&self, now: &Moment) -> Vec<Held> {
        let held = |lease: &Lease| Held {
            source: lease.source.as_str().into(),
            network: lease.network,
            left: lease.left(now),
        };
        self.0.iter().map(held).collect()
    }

    fn save(&self, store: &Path) -> Result<(), StoreError> {
        let path = path(store);
        let bytes = serde_json::to_vec_pretty(&self.0)
            .map_err(|error| StoreError::Corrupt { path: path.clone(), why: error.to_string() })?;
        file::private_dir(store)?;
        file::overwrite(&path, &bytes)
    }
}

impl Lease {
    /// Whether it has not ended.
    fn holds(&self, now: &Moment) -> bool {
        !self.left(now).is_zero()
    }

    /// For how much longer.
    pub fn left(&self, now: &Moment) -> Duration {
        let wall = Duration::try_from(self.until - now.wall).unwrap_or_default();
        let clock = if self.boot == now.boot {
            Duration::try_from_secs_f64(self.until_uptime - now.uptime).unwrap_or_default()
        } else if now.wall + SLACK < self.since {
            // By another run's clock it has not even begun: nobody knows how much has passed.
            Duration::ZERO
        } else {
            LONGEST
        };
        wall.min(clock).min(LONGEST)
    }

    /// Whether it could have been given: whoever writes the store by hand may open no more than a command.
    fn check(&self, now: &Moment) -> Result<(), LeaseError> {
        check(self.network, Duration::try_from(self.until - self.since).unwrap_or_default())?;
        let too_long = self.boot == now.boot && self.until_uptime > now.uptime + LONGEST.as_secs_f64();
        if too_long { Err(LeaseError::Duration) } else { Ok(()) }
    }

    fn is_for(&self, source: &str, network: IpNet) -> bool {
        self.source == source && self.network == network
    }
}

/// Whether a lease may be given for so much and so long.
pub fn check(network: IpNet, duration: Duration) -> Result<(), LeaseError> {
    let address = network.addr();
    if is_nobodys(address) {
        return Err(LeaseError::Nobody(network));
    }
    let shortest = if address.is_ipv4() { PREFIXES.0 } else { PREFIXES.1 };
    if network.prefix_len() < shortest {
        return Err(LeaseError::TooLarge(network));
    }
    if duration < Duration::from_secs(1) || duration > LONGEST {
        return Err(LeaseError::Duration);
    }
    Ok(())
}

/// No host has it: none at all, a group's, this machine's own, or reserved (RFC 6890).
fn is_nobodys(address: IpAddr) -> bool {
    let reserved = matches!(address, IpAddr::V4(four) if matches!(four.octets(), [0 | 240.., ..]));
    reserved || address.is_unspecified() || address.is_multicast() || address.is_loopback()
}

/// The leases that could have been given, and why the others are none.
fn believed(list: Vec<Lease>, now: &Moment) -> (Vec<Lease>, Option<String>) {
    let (mut kept, mut wrong) = (Vec::new(), Vec::new());
    for lease in list {
        match lease.check(now) {
            Ok(()) => kept.push(lease),
            Err(error) => wrong.push(format!("{} in {:?}: {error}", lease.network, lease.source)),
        }
    }
    (kept, (!wrong.is_empty()).then(|| wrong.join("; ")))
}

fn path(store: &Path) -> PathBuf {
    store.join("leases.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(wall: i64, boot: &str, uptime: f64) -> Moment {
        let wall = OffsetDateTime::from_unix_timestamp(1_800_000_000 + wall).unwrap();
        Moment { wall, boot: boot.into(), uptime }
    }

    #[test]
    fn a_lease_ends_whatever_the_clocks_do() {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("store");
        let mut leases = Leases::default();
        let net: IpNet = "198.51.100.7/32".parse().unwrap();
        leases.grant("ci", net, Duration::from_mins(30), &at(0, "a", 100.0), &store).unwrap();
        for (now, left) in [
            (at(0, "a", 100.0), 1800),
            (at(600, "a", 700.0), 1200),
            (at(1799, "a", 1899.0), 1),
            (at(1800, "a", 1900.0), 0),
            (at(7200, "a", 200.0), 0),       // the wall's clock jumps on
            (at(-86_400, "a", 200.0), 1700), // and back
            (at(-86_400, "a", 1900.0), 0),
            (at(600, "b", 5.0), 1200), // the machine starts again
            (at(-600, "b", 5.0), 0),   // with a clock that is wrong
        ] {
            assert_eq!(leases.list()[0].left(&now).as_secs(), left, "{now:?}");
            let (kept, why) = Leases::load(&store, &now);
            assert_eq!((kept.list().len(), why), (usize::from(left > 0), None), "{now:?}");
        }
        assert_eq!(leases.purge(&at(600, "a", 700.0), &store), []);
        assert_eq!(leases.purge(&at(1800, "a", 1900.0), &store).len(), 1);
        assert_eq!(Leases::load(&store, &at(0, "a", 100.0)).0.list(), []);
    }

    #[test]
    fn a_newer_lease_replaces_and_a_wrong_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (store, now) = (folder.path().join("store"), at(0, "a", 0.0));
        let mut leases = Leases::default();
        let mut grant = |net: &str, seconds| {
            let duration = Duration::from_secs(seconds);
            leases
                .grant("ci", net.parse().unwrap(), duration, &now, &store)
                .map(drop)
                .map_err(|error| error.to_string())
        };
        assert_eq!(grant("198.51.100.7/32", 60), Ok(()));
        assert_eq!(grant("198.51.100.7/32", 90), Ok(()));
        for (net, seconds, expected) in [
            ("198.51.0.0/23", 60, "make it a source"),
            ("2001:db8::/47", 60, "make it a source"),
            ("0.0.0.0/32", 60, "nobody's address"),
            ("0.1.2.3/32", 60, "nobody's address"),
            ("224.0.0.1/32", 60, "nobody's address"),
            ("240.0.0.0/24", 60, "nobody's address"),
            ("255.255.255.255/32", 60, "nobody's address"),
            ("198.51.100.7/32", 0, "a second to 24 hours"),
            ("198.51.100.7/32", 86_401, "a second to 24 hours"),
        ] {
            let told = grant(net, seconds).unwrap_err();
            assert!(told.contains(expected), "{net}: {told}");
        }
        assert_eq!(
            leases.held(&now),
            [Held {
                source: "ci".into(),
                network: "198.51.100.7/32".parse().unwrap(),
                left: Duration::from_secs(90)
            }]
        );
        assert!(leases.end("ci", "198.51.100.7/32".parse().unwrap(), &store).unwrap());
        assert!(!leases.end("ci", "198.51.100.7/32".parse().unwrap(), &store).unwrap());
        for number in 0..MOST {
            let net = IpNet::from(IpAddr::from(u32::try_from(number + 1).unwrap().to_be_bytes()));
            leases.0.push(Lease { network: net, ..lease(&now) });
        }
        let full =
            leases.grant("ci", "198.51.100.7/32".parse().unwrap(), Duration::from_mins(1), &now, &store);
        assert!(matches!(full, Err(LeaseError::TooMany)));
    }

    fn lease(now: &Moment) -> Lease {
        Lease {
            source: "ci".into(),
            network: "198.51.100.7/32".parse().unwrap(),
            since: now.wall,
            until: now.wall + Duration::from_mins(1),
            boot: now.boot.clone(),
            until_uptime: now.uptime + 60.0,
        }
    }

    #[test]
    fn a_damaged_file_opens_nothing() {
        let folder = tempfile::tempdir().unwrap();
        for text in ["", "{", "[1]", "[{\"source\": \"ci\"}]"] {
            std::fs::write(folder.path().join("leases.json"), text).unwrap();
            let (leases, why) = Leases::load(folder.path(), &Moment::now());
            assert!(leases.list().is_empty() && why.is_some(), "{text}");
        }
    }

    #[test]
    fn what_was_never_given_does_not_hold() {
        let folder = tempfile::tempdir().unwrap();
        let now = at(0, "a", 100.0);
        let good = lease(&now);
        let forged = [
            Lease { network: "0.0.0.0/0".parse().unwrap(), ..good.clone() },
            Lease { network: "198.51.0.0/16".parse().unwrap(), ..good.clone() },
            Lease { until: now.wall + time::Duration::days(9), ..good.clone() },
            Lease { until: now.wall - time::Duration::days(9), ..good.clone() },
            Lease { until_uptime: 1e9, ..good.clone() },
        ];
        for wrong in forged {
            let list = [good.clone(), wrong.clone()];
            std::fs::write(path(folder.path()), serde_json::to_vec(&list).unwrap()).unwrap();
            let (leases, why) = Leases::load(folder.path(), &now);
            assert_eq!(leases.list(), std::slice::from_ref(&good), "{wrong:?}");
            assert!(why.is_some_and(|why| why.contains("leases.json: ") && why.contains("\"ci\": ")));
        }
        let far = time::Duration::days(365);
        let later = Lease { since: now.wall + far, until: now.wall + far, boot: "b".into(), ..good };
        assert!(later.left(&now) <= LONGEST);
    }
}
