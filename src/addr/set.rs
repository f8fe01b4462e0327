//! Many networks, one question: is this address in one of them?

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::ClientAddr;

/// A set of networks. An address belongs to it when any of the networks holds the address, which is what a search
/// for the longest matching prefix would say too, as no network here can exclude.
///
/// A look-up takes as many steps for ten networks as for a million spread ones. A million separate IPv4 networks
/// take 10 MB, as many IPv6 ones 18 MB up to /64 and 34 MB beyond.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct CidrSet {
    rows: usize,
    v4: Edges<u32>,
    /// IPv6 networks up to /64, as their upper halves: half the memory, half the cache lines.
    v6: Edges<u64>,
    /// Longer ones.
    v6_hosts: Edges<u128>,
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
            IpAddr::V4(ip) => self.v4.contains(ip.to_bits()),
            IpAddr::V6(ip) => self.v6.contains(upper(ip)) || self.v6_hosts.contains(ip.to_bits()),
        }
    }

    /// Whether every unicast IPv4 address (1.0.0.0 to 223.255.255.255) belongs to it.
    pub fn covers_ipv4(&self) -> bool {
        let (first, last) = (Ipv4Addr::new(1, 0, 0, 0), Ipv4Addr::new(223, 255, 255, 255));
        self.v4.covers(first.to_bits(), last.to_bits())
    }

    /// Whether every global unicast IPv6 address (`2000::/3`, RFC 4291 section 2.4) belongs to it.
    pub fn covers_ipv6(&self) -> bool {
        let first = upper(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0));
        self.v6.covers(first, first | (u64::MAX >> 3))
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
        Self { rows: self.rows, v4: Edges::new(v4), v6: Edges::default(), v6_hosts: Edges::new(v6) }
    }

    /// Whether it holds an IPv4 address.
    pub fn has_v4(&self) -> bool {
        !self.v4.points.is_empty()
    }

    /// Whether it holds an IPv6 address.
    pub fn has_v6(&self) -> bool {
        !(self.v6.points.is_empty() && self.v6_hosts.points.is_empty())
    }

    /// The IPv4 addresses as ranges, first and last address of each, in order; none of them touch.
    pub fn ranges_v4(&self) -> Vec<(Ipv4Addr, Ipv4Addr)> {
        let address = |(first, last): (u32, u32)| (first.into(), last.into());
        self.v4.ranges().map(address).collect()
    }

    /// The IPv6 addresses as ranges, first and last address of each, in order; none of them touch.
    pub fn ranges_v6(&self) -> Vec<(Ipv6Addr, Ipv6Addr)> {
        let widen = |(first, last): (u64, u64)| {
            (u128::from(first) << 64, u128::from(last) << 64 | u128::from(u64::MAX))
        };
        let mut ranges: Vec<_> = self.v6.ranges().map(widen).chain(self.v6_hosts.ranges()).collect();
        ranges.sort_unstable();
        let edges = merged(&ranges);
        pairs(&edges).map(|(first, last)| (first.into(), last.into())).collect()
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
        Self { rows, v4: Edges::new(v4), v6: Edges::new(v6), v6_hosts: Edges::new(v6_hosts) }
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
    // The other half of the bits is shifted out: what is left fits.
    u64::try_from(ip.to_bits() >> 64).unwrap_or(u64::MAX)
}

/// An unsigned integer that an address is.
trait Bits: Copy + Ord + Default {
    const ONE: Self;
    const MAX: Self;
    fn checked_add(self, other: Self) -> Option<Self>;
    fn saturating_sub(self, other: Self) -> Self;
    fn bit_len(self) -> u32;
    /// The bits above `shift`, which the caller keeps under the width.
    fn bucket(self, shift: u32) -> usize;
}

macro_rules! bits {
    ($($int:ty),*) => {$(
        impl Bits for $int {
            const ONE: Self = 1;
            const MAX: Self = Self::MAX;
            fn checked_add(self, other: Self) -> Option<Self> {
                self.checked_add(other)
            }
            fn saturating_sub(self, other: Self) -> Self {
                self.saturating_sub(other)
            }
            fn bit_len(self) -> u32 {
                Self::BITS - self.leading_zeros()
            }
            #[inline]
            fn bucket(self, shift: u32) -> usize {
                usize::try_from(self >> shift).unwrap_or(usize::MAX)
            }
        }
    )*};
}
bits!(u32, u64, u128);

/// Disjoint ranges as the sorted points where membership changes: an address is inside when an odd number of
/// edges are at or below it. The first edge opens a range; a range that reaches the last address has no closing
/// edge.
///
/// `starts` cuts the span of the edges into equal buckets, a few edges to each, so that a search sees one
/// bucket alone.
#[derive(Clone, Default, PartialEq, Eq)]
struct Edges<T> {
    points: Box<[T]>,
    /// For each bucket, how many edges stand before it; one more entry for the end.
    starts: Box<[u32]>,
    first: T,
    shift: u32,
}

impl<T: Bits> Edges<T> {
    /// From ranges, first and last address of each, in any order and with overlaps.
    fn new(mut ranges: Vec<(T, T)>) -> Self {
        ranges.sort_unstable();
        let edges = merged(&ranges);
        drop(ranges);
        let (Some(&first), Some(&last)) = (edges.first(), edges.last()) else {
            return Self::default();
        };
        let span = last.saturating_sub(first);
        let wanted = (edges.len() / EDGES_A_BUCKET).max(1).ilog2();
        let shift = span.bit_len().saturating_sub(wanted + 1);
        let starts = starts(&edges, span.bucket(shift), |edge| edge.saturating_sub(first).bucket(shift));
        Self { points: edges.into(), starts, first, shift }
    }

    #[inline]
    fn contains(&self, address: T) -> bool {
        self.edges_at_or_below(address) % 2 == 1
    }

    fn ranges(&self) -> impl Iterator<Item = (T, T)> {
        pairs(&self.points)
    }

    fn covers(&self, first: T, last: T) -> bool {
        self.contains(first) && self.edges_at_or_below(first) == self.edges_at_or_below(last)
    }

    /// An address below the first edge falls into the first bucket and finds none there; one beyond the last edge
    /// falls into the last bucket and finds all.
    #[inline]
    fn edges_at_or_below(&self, address: T) -> usize {
        if self.points.is_empty() {
            return 0;
        }
        let last = self.starts.len().saturating_sub(2);
        let bucket = address.saturating_sub(self.first).bucket(self.shift).min(last);
        let Some(&[from, to]) = self.starts.get(bucket..).and_then(|rest| rest.first_chunk()) else {
            return 0;
        };
        let (from, to) = (from as usize, to as usize);
        let below = |edge: &T| *edge <= address;
        match self.points.get(from..to) {
            // Reads that do not wait for each other beat fewer reads that do.
            Some(edges) if edges.len() <= LINEAR => from + edges.iter().filter(|edge| below(edge)).count(),
            Some(edges) => from + edges.partition_point(below),
            None => from,
        }
    }
}

/// Few enough for a cache line or two; enough that the index stays a quarter of what it indexes.
const EDGES_A_BUCKET: usize = 4;
/// So many edges are counted through; where networks crowd in one bucket, it is searched by halves.
const LINEAR: usize = 16;

/// The edges of sorted ranges, ranges that touch made one.
fn merged<T: Bits>(ranges: &[(T, T)]) -> Vec<T> {
    let mut edges = Vec::with_capacity(ranges.len().saturating_mul(2));
    let mut ranges = ranges.iter().copied();
    let Some((mut open, mut last)) = ranges.next() else { return edges };
    for (from, to) in ranges {
        match last.checked_add(T::ONE) {
            None => break,
            Some(close) if from > close => {
                edges.extend([open, close]);
                (open, last) = (from, to);
            }
            Some(_) => last = last.max(to),
        }
    }
    edges.push(open);
    edges.extend(last.checked_add(T::ONE));
    edges.shrink_to_fit();
    edges
}

/// Takes one address out of ranges.
fn cut_out<T: Bits>(ranges: &mut Vec<(T, T)>, address: T) {
    let Some(at) = ranges.iter().position(|(first, last)| *first <= address && address <= *last) else {
        return;
    };
    let (first, last) = ranges.swap_remove(at);
    if first < address {
        ranges.push((first, address.saturating_sub(T::ONE)));
    }
    if let Some(next) = address.checked_add(T::ONE).filter(|next| *next <= last) {
        ranges.push((next, last));
    }
}

/// The ranges between edges.
fn pairs<T: Bits>(edges: &[T]) -> impl Iterator<Item = (T, T)> {
    edges.chunks(2).filter_map(|pair| {
        let close = pair.get(1).map_or(T::MAX, |close| close.saturating_sub(T::ONE));
        Some((*pair.first()?, close))
    })
}

/// How many edges stand before each bucket from 0 to `last`, and after it.
fn starts<T: Copy>(edges: &[T], last: usize, bucket_of: impl Fn(T) -> usize) -> Box<[u32]> {
    let mut starts = Vec::with_capacity(last + 2);
    let mut seen = 0_u32;
    for &edge in edges {
        let bucket = bucket_of(edge);
        starts.resize(starts.len().max(bucket + 1), seen);
        seen = seen.saturating_add(1);
    }
    starts.push(seen);
    starts.into()
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
        let octets = size_of_val(&*set.v4.points) + size_of_val(&*set.v4.starts);
        assert!(octets <= 11 * set.len(), "{octets}");
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
            let nets: Vec<_> = nets.into_iter().map(fold).collect();
            let others = also.into_iter().map(|bits| Ipv4Addr::from_bits(bits).into());
            for ip in nets.iter().flat_map(|net| near(*net)).chain(others) {
                let client = ClientAddr::new(ip);
                let naive = nets.iter().any(|net| net.contains(&client.ip()));
                prop_assert_eq!(set.contains(client), naive, "{}", ip);
            }
        }
    }
}
