//! The gateway of a container's network: where Docker's userland proxy passes connections on, everybody comes from there, and
//! whoever lets that address in lets everybody in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::{Once, OnceLock};

use crate::addr::ClientAddr;

/// What to do about it.
pub const HELP: &str = "to see true addresses, turn Docker's userland proxy off (\"userland-proxy\": false), use the host's network \
                        (network_mode: host), or have a proxy before it send PROXY headers (proxy_protocol)";

/// The gateways of this process's network; none outside of containers, and none on a host's own network.
pub fn own() -> &'static [IpAddr] {
    static OWN: OnceLock<Vec<IpAddr>> = OnceLock::new();
    OWN.get_or_init(|| {
        let contained = ["/.dockerenv", "/run/.containerenv"].iter().any(|mark| Path::new(mark).exists());
        let read = |file| std::fs::read_to_string(file).unwrap_or_default();
        let tables = contained.then(|| (read("/proc/net/route"), read("/proc/net/ipv6_route")));
        tables.map(|(four, six)| gateways(&four, &six, is_linked)).unwrap_or_default()
    })
}

/// Tells, once, that a client who was refused is the gateway.
pub fn tell(refused: ClientAddr) {
    static TOLD: Once = Once::new();
    if own().contains(&refused.ip()) {
        TOLD.call_once(|| {
            tracing::warn!(client = %refused, help = HELP, "refused: the client's address is the gateway of this container's network, \
                            where everybody may come from, and belongs to no source");
        });
    }
}

/// A container's interface is one end of a pair, or lies on another; a machine's own is neither.
fn is_linked(interface: &str) -> bool {
    let number = |file| std::fs::read_to_string(format!("/sys/class/net/{interface}/{file}")).ok();
    number("iflink").is_some_and(|link| Some(link) != number("ifindex"))
}

/// The private gateways of default routes over interfaces that `linked` is true for, as /proc/net/route and
/// its sibling for IPv6 have them.
fn gateways(four: &str, six: &str, linked: impl Fn(&str) -> bool) -> Vec<IpAddr> {
    let four = four.lines().skip(1).filter_map(gateway_v4);
    let found = four.chain(six.lines().filter_map(gateway_v6)).filter(|(interface, _)| linked(interface));
    let mut gateways: Vec<IpAddr> = found.map(|(_, gateway)| gateway).filter(is_private).collect();
    gateways.dedup();
    gateways
}

fn gateway_v4(line: &str) -> Option<(&str, IpAddr)> {
    let mut words = line.split_whitespace();
    let (interface, destination, gateway) = (words.next()?, words.next()?, words.next()?);
    let mask = words.nth(4)?;
    let default = destination == "00000000" && mask == "00000000";
    // The four octets as the machine holds them in a number.
    let address = Ipv4Addr::from(u32::from_str_radix(gateway, 16).ok()?.to_ne_bytes());
    (default && !address.is_unspecified()).then_some((interface, address.into()))
}

fn gateway_v6(line: &str) -> Option<(&str, IpAddr)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [destination, prefix, _, _, gateway, .., interface] = words.as_slice() else { return None };
    let default = destination.bytes().all(|byte| byte == b'0') && *prefix == "00";
    let address = Ipv6Addr::from(u128::from_str_radix(gateway, 16).ok()?);
    (default && !address.is_unspecified()).then_some((interface, address.into()))
}

fn is_private(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_private(),
        IpAddr::V6(address) => address.is_unique_local() || address.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str =
        "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n";

    #[test]
    fn gateways_of_private_networks_are_found() {
        let bridge = "eth0\t00000000\t010011AC\t0003\t0\t0\t0\t00000000\t0\t0\t0\n";
        let subnet = "eth0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n";
        let public = "eth0\t00000000\t017100CB\t0003\t0\t0\t0\t00000000\t0\t0\t0\n";
        let zeros = "0".repeat(32);
        let six = |gateway: &str| {
            format!("{zeros} 00 {zeros} 00 {gateway} 00000400 00000003 00000000 00000003     eth0\n")
        };
        let ula = six("fd000000000000000000000000000001");
        let none = format!("{zeros} 00 {zeros} 00 {zeros} ffffffff 00000001 00000000 00200200       lo\n");
        for (four, six, linked, expected) in [
            (bridge.to_owned() + subnet, none.clone(), true, &["172.17.0.1"][..]),
            (bridge.to_owned(), ula.clone() + &none, true, &["172.17.0.1", "fd00::1"]),
            (bridge.to_owned(), ula, false, &[]), // the host's own network
            (public.to_owned(), six("20010db8000000000000000000000001"), true, &[]),
            (subnet.to_owned(), String::new(), true, &[]),
            ("nonsense\n\n\u{0}\t1".to_owned(), "00 1 2\nx".to_owned(), true, &[]),
        ] {
            let found: Vec<String> = gateways(&(HEAD.to_owned() + &four), &six, |_| linked)
                .iter()
                .map(ToString::to_string)
                .collect();
            assert_eq!(found, expected, "{four}{six}");
        }
    }

    #[test]
    fn broken_tables_are_no_harm() {
        for text in ["", "a", HEAD, "eth0\t00000000\tZZ\t1\t1\t1\t1\t00000000"] {
            assert!(gateways(&format!("{HEAD}{text}"), text, |_| true).is_empty());
        }
    }
}
