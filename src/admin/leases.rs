//! What the socket says about leases.

use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// What a person wants done about leases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseWish {
    /// To be told of them.
    List,
    /// An address that belongs to a source for a while.
    Grant {
        /// The source's name, as it was typed.
        source: String,
        /// The address or network.
        network: IpNet,
        /// For how long.
        duration: Duration,
    },
    /// The end of a lease.
    End {
        /// The source's name, as it was typed.
        source: String,
        /// The address or network.
        network: IpNet,
    },
}

/// The leases, after what was asked for was done or refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeasesTold {
    /// Whether it was done.
    pub ok: bool,
    /// What was done, or why not; empty for a list.
    pub message: String,
    /// All that there are now.
    pub leases: Vec<LeaseStatus>,
}

/// A lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseStatus {
    /// The source's name.
    pub source: String,
    /// The address or network.
    pub network: IpNet,
    /// When it ends, RFC 3339 in UTC.
    pub until: String,
    /// In how many seconds that is.
    pub seconds_left: u64,
}

impl LeaseWish {
    /// Reads `source=ci&network=198.51.100.7/32&seconds=1800`; without seconds, it is about the end.
    pub(super) fn parse(query: &str) -> Option<Self> {
        let value = |key: &str| query.split('&').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
        let (source, network) = (value("source")?.to_owned(), value("network")?.parse().ok()?);
        Some(match value("seconds") {
            Some(seconds) => {
                Self::Grant { source, network, duration: Duration::from_secs(seconds.parse().ok()?) }
            }
            None => Self::End { source, network },
        })
    }

    /// The method and target that ask for it. Names of sources are letters, digits, `_`, `-` and `.`.
    pub fn request(&self) -> (http::Method, String) {
        match self {
            Self::List => (http::Method::GET, "/v1/leases".to_owned()),
            Self::Grant { source, network, duration } => {
                let seconds = duration.as_secs();
                (
                    http::Method::POST,
                    format!("/v1/leases?source={source}&network={network}&seconds={seconds}"),
                )
            }
            Self::End { source, network } => {
                (http::Method::DELETE, format!("/v1/leases?source={source}&network={network}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_is_what_its_request_says() {
        let (source, network) = ("ci".to_owned(), "2001:db8::/64".parse().unwrap());
        for wish in [
            LeaseWish::Grant { source: source.clone(), network, duration: Duration::from_mins(30) },
            LeaseWish::End { source, network },
        ] {
            let (_, target) = wish.request();
            assert_eq!(LeaseWish::parse(target.split_once('?').unwrap().1), Some(wish));
        }
        for broken in [
            "",
            "source=ci",
            "network=10.0.0.0/8",
            "source=ci&network=x",
            "source=ci&network=::1/128&seconds=-1",
        ] {
            assert_eq!(LeaseWish::parse(broken), None, "{broken}");
        }
    }
}
