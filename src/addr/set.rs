//! Many networks, one question: is this address in one of them?

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::ClientAddr;
use super::nets::{Address, Nets, merged};

/// A set of networks. An address belongs to it when any of the networks holds the address, which is what a search
/// for the longest matching prefix would say too, as no network here can exclude.
///
/// A look-up takes as many steps for ten networks as for a million spread ones, and waits for memory once; twice for an IPv6
/// address in whose /64 a longer network lies, or near which networks crowd. A separate IPv4 network takes 8 to 16 octets, an
/// IPv6 one 16 to 32, and beyond /64 48 to 96.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct CidrSet {
    rows: usize,
    v4: Nets<u32, 1, 16>,
    /// IPv6 networks up to /64, as their upper halves, and the /64s that longer ones lie in, to ask those about.
    v6: Nets<u64, 2, 8>,
    /// The longer ones.
    v6_hosts: Nets<u128, 4, 4>,
}

impl CidrSet {
    /// How many networks it was made of, repeated and overlapping ones counted each.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Whether any of its networks holds the address.
    pub fn contains(&self, client: ClientAddr) -> bool {
        match client.ip() {
            IpAddr::V4(ip) => self.v4.holds(ip.to_bits(), || false),
            IpAddr::V6(ip) => self.v6.holds(upper(ip), || self.v6_hosts.holds(ip.to_bits(), || false)),
        }
    }

    /// Whether every unicast IPv4 address (1.0.0.0 to 223.255.255.255) belongs to it.
    pub fn covers_ipv4(&self) -> bool {
        let (first, last) = (Ipv4Addr::new(1, 0, 0, 0), Ipv4Addr::new(223, 255, 255, 255));
        covers(&self.v4.ranges(), first.to_bits(), last.to_bits())
    }

    /// Whether every global unicast IPv6 address (`2000::/3`, RFC 4291 section 2.4) belongs to it.
    pub fn covers_ipv6(&self) -> bool {
        let first = upper(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0));
        covers(&self.v6.ranges(), first, first | (u64::MAX >> 3))
    }
}

impl CidrSet {
    /// All of it but these addresses.
    #[must_use]
    pub fn without(&self, addresses: &[IpAddr]) -> Self {
        let (mut v4, mut v6): (Vec<_>, Vec<_>) = (Vec::new(), Vec::new());
        v4.extend(self.ranges_v4().into_iter().map(|(first, last)| (first.to_bits(), last.to_bits())));
        v6.extend(self.ranges_v6().into_iter().map(|(first, last)| (first.to_bits(), last.to_bits())));
        for address in addresses {
            match address {
                IpAddr::V4(address) => cut_out(&mut v4, address.to_bits()),
                IpAddr::V6(address) => cut_out(&mut v6, address.to_bits()),
            }
        }
        Self::of(self.rows, v4, Vec::new(), v6)
    }

    /// Whether it holds an IPv4 address.
    pub fn has_v4(&self) -> bool {
        !self.v4.is_empty()
    }

    /// Whether it holds an IPv6 address.
    pub fn has_v6(&self) -> bool {
        !self.v6.is_empty() || !self.v6_hosts.is_empty()
    }

    /// The IPv4 addresses as ranges, first and last address of each, in order; none of them touch.
    pub fn ranges_v4(&self) -> Vec<(Ipv4Addr, Ipv4Addr)> {
        let address = |(first, last): (u32, u32)| (first.into(), last.into());
        self.v4.ranges().into_iter().map(address).collect()
    }

    /// The IPv6 addresses as ranges, first and last address of each, in order; none of them touch.
    pub fn ranges_v6(&self) -> Vec<(Ipv6Addr, Ipv6Addr)> {
        let widen = |(first, last): (u64, u64)| {
            (u128::from(first) << 64, u128::from(last) << 64 | u128::from(u64::MAX))
        };
        let wide = self.v6.ranges().into_iter().map(widen);
        let ranges = merged(wide.chain(self.v6_hosts.ranges()).collect());
        ranges.into_iter().map(|(first, last)| (first.into(), last.into())).collect()
    }

    /// From how many networks it is, and ranges.
    fn of(rows: usize, v4: Vec<(u32, u32)>, mut v6: Vec<(u64, u64)>, hosts: Vec<(u128, u128)>) -> Self {
        let hosts = merged(hosts);
        v6.extend(hosts.iter().filter_map(|(first, last)| whole(*first, *last)));
        let parts = hosts.iter().flat_map(|(first, last)| [half(*first), half(*last)]).collect();
        Self {
            rows,
            v4: Nets::new(v4, Vec::new()),
            v6: Nets::new(v6, parts),
            v6_hosts: Nets::new(hosts, Vec::new()),
        }
    }
}

impl FromIterator<IpNet> for CidrSet {
    fn from_iter<I: IntoIterator<Item = IpNet>>(nets: I) -> Self {
        let (mut rows, mut v4, mut v6, mut v6_hosts) = (0, Vec::new(), Vec::new(), Vec::new());
        for net in nets {
            rows += 1;
            match fold(net) {
                IpNet::V4(net) => v4.push((net.network().to_bits(), net.broadcast().to_bits())),
                IpNet::V6(net) if net.prefix_len() <= 64 => {
                    v6.push((upper(net.network()), upper(net.broadcast())));
                }
                IpNet::V6(net) => v6_hosts.push((net.network().to_bits(), net.broadcast().to_bits())),
            }
        }
        Self::of(rows, v4, v6, v6_hosts)
    }
}

impl fmt::Debug for CidrSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CidrSet({} networks)", self.rows)
    }
}

/// A network of IPv4-mapped addresses (`::ffff:0:0/96` or narrower) as the IPv4 network that it stands for, for
/// [`ClientAddr`] never is a mapped address.
pub(super) fn fold(net: IpNet) -> IpNet {
    let IpNet::V6(v6) = net else { return net };
    folded(v6).map_or(net, IpNet::V4)
}

fn folded(net: Ipv6Net) -> Option<Ipv4Net> {
    let prefix = net.prefix_len().checked_sub(96)?;
    Ipv4Net::new(net.addr().to_ipv4_mapped()?, prefix).ok()
}

/// The network half of an IPv6 address.
fn upper(ip: Ipv6Addr) -> u64 {
    half(ip.to_bits())
}

fn half(bits: u128) -> u64 {
    // The other half of the bits is shifted out: what is left fits.
    u64::try_from(bits >> 64).unwrap_or(u64::MAX)
}

/// The /64s that a range holds whole, as their network halves.
fn whole(first: u128, last: u128) -> Option<(u64, u64)> {
    let before = |bits: u128| bits.checked_sub(1).map(half);
    let from = before(first).map_or(Some(0), |before| before.checked_add(1))?;
    let to = last.checked_add(1).map_or(Some(u64::MAX), |next| half(next).checked_sub(1))?;
    (from <= to).then_some((from, to))
}

/// Whether one of ranges that do not touch holds another range.
fn covers<T: Ord + Copy>(ranges: &[(T, T)], first: T, last: T) -> bool {
    ranges.iter().any(|(from, to)| *from <= first && last <= *to)
}

/// Takes one address out of ranges.
fn cut_out<T: Address>(ranges: &mut Vec<(T, T)>, address: T) {
    let Some(at) = ranges.iter().position(|(first, last)| *first <= address && address <= *last) else {
        return;
    };
    let (first, last) = ranges.swap_remove(at);
    if first < address {
        ranges.push((first, address.distance(T::of(1))));
    }
    if let Some(next) = address.next().filter(|next| *next <= last) {
        ranges.push((next, last));
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn set(nets: &[&str]) -> CidrSet {
        nets.iter().map(|net| net.parse::<IpNet>().unwrap()).collect()
    }

    fn holds(set: &CidrSet, ip: &str) -> bool {
        set.contains(ClientAddr::new(ip.parse().unwrap()))
    }

    #[test]
    fn membership_at_the_edges() {
        let set = set(&["10.0.0.0/8", "10.1.0.0/16", "203.0.113.7/32", "2001:db8::/32", "::1/128"]);
        assert_eq!(set.len(), 5);
        for (ip, inside) in [
            ("9.255.255.255", false),
            ("10.0.0.0", true),
            ("10.255.255.255", true),
            ("11.0.0.0", false),
            ("203.0.113.6", false),
            ("203.0.113.7", true),
            ("203.0.113.8", false),
            ("0.0.0.0", false),
            ("255.255.255.255", false),
            ("::ffff:10.0.0.1", true),
            ("2001:db7:ffff:ffff:ffff:ffff:ffff:ffff", false),
            ("2001:db8::", true),
            ("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", true),
            ("2001:db9::", false),
            ("::", false),
            ("::1", true),
            ("::2", false),
            ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", false),
        ] {
            assert_eq!(holds(&set, ip), inside, "{ip}");
        }
    }

    #[test]
    fn the_whole_of_a_family() {
        assert!(holds(&set(&["0.0.0.0/0"]), "255.255.255.255"));
        assert!(holds(&set(&["0.0.0.0/0"]), "0.0.0.0"));
        assert!(!holds(&set(&["0.0.0.0/0"]), "2001:db8::1"));
        assert!(!holds(&set(&["::/0"]), "192.0.2.1"));
        assert!(holds(&set(&["255.255.255.255/32", "0.0.0.0/32"]), "255.255.255.255"));
        assert!(!holds(&CidrSet::default(), "192.0.2.1"));
    }

    #[test]
    fn an_address_is_taken_out() {
        let set = set(&["10.0.0.0/8", "172.17.0.1/32", "2001:db8::/64", "2001:db8:1::7/128"]);
        let gone = ["10.0.0.0", "10.255.255.255", "172.17.0.1", "2001:db8::1", "192.0.2.1"];
        let less = set.without(&gone.map(|ip| ip.parse().unwrap()));
        assert!(gone.iter().all(|ip| !holds(&less, ip)));
        for ip in [
            "10.0.0.1",
            "10.255.255.254",
            "2001:db8::",
            "2001:db8::2",
            "2001:db8::ffff:ffff:ffff:ffff",
            "2001:db8:1::7",
        ] {
            assert!(holds(&less, ip), "{ip}");
        }
        assert!(!holds(&less, "172.17.0.2") && !holds(&less, "2001:db8:0:1::"));
    }

    /// A word of a key may look like a place that is left over, and is none.
    #[test]
    fn each_network_comes_back_as_a_range() {
        for bit in 0..128 {
            for prefix in 1..=128 {
                let IpNet::V6(net) = v6(1 << 127 >> bit | 1 << 125, prefix) else { unreachable!() };
                let set: CidrSet = [IpNet::V6(net)].into_iter().collect();
                assert!(set.has_v6() && !set.has_v4());
                assert_eq!(set.ranges_v6(), [(net.network(), net.broadcast())], "{}", net.trunc());
            }
        }
        for (bit, prefix) in (0..32).flat_map(|bit| (1..=32).map(move |prefix| (bit, prefix))) {
            let IpNet::V4(net) = v4(1 << bit, prefix) else { unreachable!() };
            let set: CidrSet = [IpNet::V4(net)].into_iter().collect();
            assert!(set.has_v4() && !set.has_v6());
            assert_eq!(set.ranges_v4(), [(net.network(), net.broadcast())], "{}", net.trunc());
        }
    }

    #[test]
    fn mapped_networks_are_folded() {
        let set = set(&["::ffff:192.0.2.0/120"]);
        assert!(holds(&set, "192.0.2.255"));
        assert!(holds(&set, "::ffff:192.0.2.1"));
        assert!(!holds(&set, "192.0.3.0"));
    }

    #[test]
    fn everyone_under_another_name() {
        for (nets, v4, v6) in [
            (&["0.0.0.0/0"][..], true, false),
            (&["0.0.0.0/1", "128.0.0.0/1"], true, false),
            (&["128.0.0.0/1", "0.0.0.0/2", "64.0.0.0/2"], true, false),
            (&["0.0.0.0/1"], false, false),
            (&["::/0"], false, true),
            (&["2000::/3"], false, true),
            (&["2000::/4"], false, false),
            (&["::ffff:0:0/96"], true, false),
            (&["10.0.0.0/8", "2001:db8::/32"], false, false),
            (&[], false, false),
        ] {
            let set = set(nets);
            assert_eq!((set.covers_ipv4(), set.covers_ipv6()), (v4, v6), "{nets:?}");
        }
    }

    #[test]
    fn many_networks_stay_small() {
        let spread = |n: u32| v4(n.wrapping_mul(0x9e37_79b9), 32);
        let set: CidrSet = (0..100_000).map(spread).collect();
        let octets = set.v4.octets();
        assert!(octets <= 15 * set.len(), "{octets}");
        assert!((0..100_000).step_by(97).all(|n| set.contains(ClientAddr::new(spread(n).addr()))));
    }

    #[test]
    fn networks_that_crowd_are_found_among_few_that_do_not() {
        let every_second = |n: u32| v4(0xc000_0200 + 2 * n, 32);
        let set: CidrSet = (0..2000).map(every_second).chain([v4(1, 32), v4(u32::MAX, 32)]).collect();
        for n in 0..2000 {
            let bits = 0xc000_0200 + 2 * n;
            assert!(set.contains(ClientAddr::new(Ipv4Addr::from_bits(bits).into())));
            assert!(!set.contains(ClientAddr::new(Ipv4Addr::from_bits(bits + 1).into())));
        }
    }

    /// Networks crowd in a few places, so that they touch, overlap and repeat.
    fn net() -> impl Strategy<Value = IpNet> {
        prop_oneof![
            (any::<u32>(), 0..=32_u8).prop_map(|(bits, prefix)| v4(bits, prefix)),
            (0..=255_u32, 24..=32_u8).prop_map(|(low, prefix)| v4(0xc000_0200 | low, prefix)),
            (any::<u128>(), 0..=128_u8).prop_map(|(bits, prefix)| v6(bits, prefix)),
            (0..=255_u128, 118..=128_u8).prop_map(|(low, prefix)| v6((0x2001_0db8 << 96) | low, prefix)),
            (0..=63_u128, 0..=3_u128, 60..=68_u8)
                .prop_map(|(net, host, prefix)| v6((0x2001_0db8 << 96) | (net << 64) | (host << 62), prefix)),
        ]
    }

    fn v4(bits: u32, prefix: u8) -> IpNet {
        IpNet::new(Ipv4Addr::from_bits(bits).into(), prefix).unwrap()
    }

    fn v6(bits: u128, prefix: u8) -> IpNet {
        IpNet::new(Ipv6Addr::from_bits(bits).into(), prefix).unwrap()
    }

    /// The first and last address of a network, and its neighbours.
    fn near(net: IpNet) -> Vec<IpAddr> {
        match net {
            IpNet::V4(net) => [net.network().to_bits(), net.broadcast().to_bits()]
                .into_iter()
                .flat_map(|bits| [bits.wrapping_sub(1), bits, bits.wrapping_add(1)])
                .map(|bits| Ipv4Addr::from_bits(bits).into())
                .collect(),
            IpNet::V6(net) => [net.network().to_bits(), net.broadcast().to_bits()]
                .into_iter()
                .flat_map(|bits| [bits.wrapping_sub(1), bits, bits.wrapping_add(1)])
                .map(|bits| Ipv6Addr::from_bits(bits).into())
                .collect(),
        }
    }

    proptest! {
        #[test]
        fn agrees_with_asking_every_network(nets in vec(net(), 0..120), also in any::<[u32; 8]>()) {
            let set: CidrSet = nets.iter().copied().collect();
            let again = set.without(&[]);
            let nets: Vec<_> = nets.into_iter().map(fold).collect();
            let others = also.into_iter().map(|bits| Ipv4Addr::from_bits(bits).into());
            for ip in nets.iter().flat_map(|net| near(*net)).chain(others) {
                let client = ClientAddr::new(ip);
                let naive = nets.iter().any(|net| net.contains(&client.ip()));
                prop_assert_eq!(set.contains(client), naive, "{}", ip);
                prop_assert_eq!(again.contains(client), naive, "{} from ranges", ip);
            }
        }
    }
}
