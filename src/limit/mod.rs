//! Limits that are counted.

pub mod connections;
pub mod gcra;
pub mod rate;
pub mod room;

use std::net::{IpAddr, Ipv6Addr};

use crate::addr::ClientAddr;

/// What one client is: the address, of IPv6 the upper 64 bits alone, for whoever has one address of a /64 has them all.
pub fn network(client: ClientAddr) -> IpAddr {
    match client.ip() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into(),
        ip @ IpAddr::V4(_) => ip,
    }
}
