//! A plan as a ruleset of nftables: one table of our own, and nothing else is touched.
//!
//! Everything is decided in one place, before Docker's DNAT (prerouting, priority mangle, which is before dstnat), so that the
//! port outside and the true source count for published ports too. Only what goes to an address of this machine is looked at.

use std::fmt::{self, Write as _};
use std::net::IpAddr;

use super::plan::{Door, Held, Plan};
use crate::addr::{CidrSet, Source};
use crate::config::model::Bind;

/// The name of the table, of the family inet.
pub const TABLE: &str = "vestibule";

/// A ruleset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ruleset {
    /// Named sets of addresses.
    pub sets: Vec<Set>,
    /// One chain a door whose rows do not fit in one rule.
    pub gates: Vec<Chain>,
    /// What sends packets to the gates; whatever it does not name is dropped.
    pub doors: Vec<Rule>,
}

/// A named set of addresses of one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// Its name.
    pub name: String,
    /// Whether it holds IPv4 addresses, and not IPv6 ones.
    pub v4: bool,
    /// Whether its elements end by themselves.
    pub leased: bool,
    /// Ranges that neither overlap nor touch, in order.
    pub spans: Vec<Span>,
}

/// A range of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The first one.
    pub first: IpAddr,
    /// The last one.
    pub last: IpAddr,
    /// For how many seconds, where it ends by itself.
    pub left: Option<u64>,
}

/// A chain of rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Its name.
    pub name: String,
    /// Asked in order.
    pub rules: Vec<Rule>,
}

/// What is done with a packet that all of `when` hold for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// All of them.
    pub when: Vec<When>,
    /// What is done.
    pub then: Then,
}

/// What may hold for a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum When {
    /// It goes to this address.
    To(IpAddr),
    /// It goes to this TCP port.
    Tcp(u16),
    /// It goes to this TCP or UDP port.
    TcpOrUdp(u16),
    /// Its source is in the set of this name: whether of IPv4, and the name.
    From(bool, String),
}

/// What is done with a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Then {
    /// It passes.
    Accept,
    /// It is dropped without a word.
    Drop,
    /// A chain decides.
    Jump(String),
}

impl Ruleset {
    /// The ruleset of a plan.
    pub fn new(plan: &Plan) -> Self {
        let doors = plan.outside();
        let gates = doors.iter().filter(|door| !is_open(door)).map(|door| gate(door)).collect();
        let rules = doors.iter().map(|door| rule(door)).collect();
        Self { sets: sets(plan), gates, doors: rules }
    }

    /// The whole of it, to be given to `nft -f`: in one transaction, whatever the table held before is replaced.
    pub fn text(&self) -> String {
        format!("add table inet {TABLE}; delete table inet {TABLE}; {self}")
    }
}

/// What puts the lease sets of an applied ruleset right, to be given to `nft -f`. `listed` is the table as nft lists it, which
/// knows what sets there are.
pub fn lease_text(leases: &[Held], listed: &str) -> String {
    let mut text = String::new();
    let names = listed.lines().filter_map(|line| line.trim().strip_prefix("set lease")?.strip_suffix(" {"));
    for (family, source) in names.filter_map(|name| name.split_once('_')) {
        let own: Vec<&Held> = leases.iter().filter(|held| *held.source == *source).collect();
        let spans = disjoint(&own, family == "4");
        let _ = writeln!(text, "flush set inet {TABLE} lease{family}_{source}");
        if !spans.is_empty() {
            let _ = writeln!(
                text,
                "add element inet {TABLE} lease{family}_{source} {{ {} }}",
                Elements(&spans, ", ")
            );
        }
    }
    text
}

/// A ruleset's text, ours or as nft lists it, with these leases in place of its own.
pub fn with_leases(text: &str, leases: &[Held]) -> String {
    let (mut bare, mut ends, mut inside) = (String::new(), false, false);
    for line in text.lines() {
        let word = line.trim();
        if word.ends_with(" {") && word.starts_with("set ") {
            ends = word.starts_with("set lease");
        }
        inside |= ends && word.starts_with("elements = {");
        if !inside {
            bare.extend([line, "\n"]);
        }
        inside &= !word.ends_with('}');
    }
    let leases = lease_text(leases, &bare);
    bare + &leases
}

/// Whether a door is everyone's without exception.
fn is_open(door: &Door) -> bool {
    let gate = door.kernel_gate();
    gate.deny.is_empty() && gate.allow.iter().any(Source::is_public)
}

fn rule(door: &Door) -> Rule {
    let port = door.bind.port();
    let mut when: Vec<When> = door.bind.address().map(When::To).into_iter().collect();
    when.push(if door.udp() { When::TcpOrUdp(port) } else { When::Tcp(port) });
    Rule { when, then: if is_open(door) { Then::Accept } else { Then::Jump(chain_name(door.bind)) } }
}

/// Deny before allow; whoever neither list names is dropped.
fn gate(door: &Door) -> Chain {
    let gate = door.kernel_gate();
    let mut rules: Vec<Rule> = gate.deny.iter().flat_map(|source| rules_for(source, &Then::Drop)).collect();
    if gate.allow.iter().any(Source::is_public) {
        rules.push(Rule { when: Vec::new(), then: Then::Accept });
    } else {
        rules.extend(gate.allow.iter().flat_map(|source| rules_for(source, &Then::Accept)));
        rules.push(Rule { when: Vec::new(), then: Then::Drop });
    }
    Chain { name: chain_name(door.bind), rules }
}

fn rules_for(source: &Source, then: &Then) -> Vec<Rule> {
    let rule =
        |v4, leased| Rule { when: vec![When::From(v4, set_name(v4, leased, source))], then: then.clone() };
    let (four, six) = families(source);
    let lasting = [(four, true), (six, false)].into_iter().filter(|(any, _)| *any);
    lasting.map(|(_, v4)| rule(v4, false)).chain([true, false].map(|v4| rule(v4, true))).collect()
}

/// Whether a source has IPv4 addresses, and IPv6 ones.
fn families(source: &Source) -> (bool, bool) {
    source.members.as_ref().map_or((false, false), |members| (members.has_v4(), members.has_v6()))
}

/// The sets that the gates ask: for each source what it holds, and what it holds for a while.
fn sets(plan: &Plan) -> Vec<Set> {
    let mut sets: Vec<Set> = Vec::new();
    for door in plan.outside() {
        let gate = door.kernel_gate();
        for source in gate.deny.iter().chain(&gate.allow).filter(|source| !source.is_public()) {
            let known = set_name(true, true, source);
            if !sets.iter().any(|set| set.name == known) {
                sets.extend(sets_of(source, &plan.leases));
            }
        }
    }
    sets
}

fn sets_of(source: &Source, leases: &[Held]) -> Vec<Set> {
    let span = |first, last| Span { first, last, left: None };
    let members = source.members.as_deref();
    let four = || members.map(CidrSet::ranges_v4).unwrap_or_default();
    let six = || members.map(CidrSet::ranges_v6).unwrap_or_default();
    let lasting = [
        (true, four().into_iter().map(|(first, last)| span(first.into(), last.into())).collect::<Vec<_>>()),
        (false, six().into_iter().map(|(first, last)| span(first.into(), last.into())).collect()),
    ];
    let set = |v4, leased, spans| Set { name: set_name(v4, leased, source), v4, leased, spans };
    let lasting = lasting.into_iter().filter(|(_, spans)| !spans.is_empty());
    let mut sets: Vec<Set> = lasting.map(|(v4, spans)| set(v4, false, spans)).collect();
    let own: Vec<&Held> = leases.iter().filter(|held| held.source == source.name).collect();
    sets.extend([true, false].map(|v4| set(v4, true, disjoint(&own, v4))));
    sets
}

/// Leases as ranges that do not overlap: where several hold an address, the longest one counts.
fn disjoint(leases: &[&Held], v4: bool) -> Vec<Span> {
    let held: Vec<(u128, u128, u64)> = leases
        .iter()
        .filter(|held| held.network.addr().is_ipv4() == v4)
        .map(|held| {
            (bits(held.network.network()), bits(held.network.broadcast()), held.left.as_secs().max(1))
        })
        .collect();
    let mut starts: Vec<u128> =
        held.iter().flat_map(|(first, last, _)| [Some(*first), last.checked_add(1)]).flatten().collect();
    starts.sort_unstable();
    starts.dedup();
    let mut spans: Vec<(u128, u128, u64)> = Vec::new();
    for (index, start) in starts.iter().enumerate() {
        let end = starts.get(index + 1).map_or(u128::MAX, |next| next - 1);
        let holds = held.iter().filter(|(first, last, _)| first <= start && start <= last);
        let Some(left) = holds.map(|(.., left)| *left).max() else { continue };
        match spans.last_mut() {
            Some((_, last, own)) if *own == left && last.checked_add(1) == Some(*start) => *last = end,
            _ => spans.push((*start, end, left)),
        }
    }
    let span =
        |(first, last, left)| Span { first: address(first, v4), last: address(last, v4), left: Some(left) };
    spans.into_iter().map(span).collect()
}

pub(super) fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

pub(super) fn address(bits: u128, v4: bool) -> IpAddr {
    if v4 {
        std::net::Ipv4Addr::from_bits(u32::try_from(bits).unwrap_or(u32::MAX)).into()
    } else {
        IpAddr::from(bits.to_be_bytes())
    }
}

/// Names begin with a letter, whatever the source is called, and no two are the same.
fn set_name(v4: bool, leased: bool, source: &Source) -> String {
    format!("{}{}_{}", if leased { "lease" } else { "v" }, if v4 { 4 } else { 6 }, source.name)
}

fn chain_name(bind: Bind) -> String {
    let at = bind.address().map(|address| format!("_at_{address}").replace(':', "-"));
    format!("port_{}{}", bind.port(), at.unwrap_or_default())
}

/// What holds whatever the rows say. In the order of how often it decides.
const CHAINS: &str = "\t# Everything that comes from another machine, before Docker or anybody else rewrites where it goes.
	chain outside {
		type filter hook prerouting priority mangle; policy accept;
		ct state established,related accept
		iif lo accept
		# What goes on to another machine or to a container by its own address is not for this table.
		fib daddr type { local, broadcast, anycast, multicast } jump inbound
	}

	chain inbound {
		# Neighbours and routers, from the same link alone (RFC 4890 section 4.4.1).
		icmpv6 type { nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert, ind-neighbor-solicit, ind-neighbor-advert, 148, 149 } ip6 hoplimit 255 accept
		icmpv6 type { mld-listener-query, mld-listener-report, mld-listener-done, mld2-listener-report, 151, 152, 153 } ip6 hoplimit 1 accept
		ct state invalid drop
		# What connections cannot do without, and the ping.
		icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem, echo-request, echo-reply } accept
		icmp type { destination-unreachable, time-exceeded, parameter-problem, echo-request, echo-reply } accept
		# This machine's own address, from a DHCP server.
		udp sport 67 udp dport 68 accept
		ip6 saddr fe80::/10 udp sport 547 udp dport 546 accept
		# IPsec, groups and a shared address: they have no port for a row to name.
		meta l4proto { esp, ah, 2, 112 } accept
		jump doors
		counter drop
	}
";

impl fmt::Display for Ruleset {
    /// The table as a file of nftables.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "table inet {TABLE} {{")?;
        for set in &self.sets {
            writeln!(f, "{set}")?;
        }
        writeln!(f, "{CHAINS}")?;
        for chain in &self.gates {
            block(f, &chain.name, &chain.rules)?;
            writeln!(f)?;
        }
        block(f, "doors", &self.doors)?;
        writeln!(f, "}}")
    }
}

fn block(f: &mut fmt::Formatter<'_>, name: &str, rules: &[Rule]) -> fmt::Result {
    writeln!(f, "\tchain {name} {{")?;
    for rule in rules {
        writeln!(f, "\t\t{rule}")?;
    }
    writeln!(f, "\t}}")
}

impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.v4 { "ipv4_addr" } else { "ipv6_addr" };
        let flags = if self.leased { "interval, timeout" } else { "interval" };
        writeln!(f, "\tset {} {{\n\t\ttype {kind}\n\t\tflags {flags}", self.name)?;
        if !self.spans.is_empty() {
            writeln!(f, "\t\telements = {{\n\t\t\t{}\n\t\t}}", Elements(&self.spans, ",\n\t\t\t"))?;
        }
        writeln!(f, "\t}}")
    }
}

/// Ranges, and what stands between them.
struct Elements<'a>(&'a [Span], &'a str);

impl fmt::Display for Elements<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, span) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(self.1)?;
            }
            span.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.first == self.last, self.prefix()) {
            (true, _) => self.first.fmt(f)?,
            (false, Some(prefix)) => write!(f, "{}/{prefix}", self.first)?,
            (false, None) => write!(f, "{}-{}", self.first, self.last)?,
        }
        self.left.map_or(Ok(()), |left| write!(f, " timeout {left}s"))
    }
}

impl Span {
    /// The length of the prefix, where the range is a network.
    fn prefix(&self) -> Option<u32> {
        let width = if self.first.is_ipv4() { 32 } else { 128 };
        let (first, last) = (bits(self.first), bits(self.last));
        let host = last.checked_sub(first)?;
        let size = 128 - host.leading_zeros();
        let mask = 1_u128.checked_shl(size).map_or(u128::MAX, |power| power - 1);
        (host == mask && first & mask == 0).then(|| width - size)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for when in &self.when {
            write!(f, "{when} ")?;
        }
        match &self.then {
            Then::Accept => f.write_str("accept"),
            Then::Drop => f.write_str("drop"),
            Then::Jump(chain) => write!(f, "jump {chain}"),
        }
    }
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = |v4: bool| if v4 { "ip" } else { "ip6" };
        match self {
            Self::To(address) => write!(f, "{} daddr {address}", family(address.is_ipv4())),
            Self::Tcp(port) => write!(f, "tcp dport {port}"),
            Self::TcpOrUdp(port) => write!(f, "meta l4proto {{ tcp, udp }} th dport {port}"),
            Self::From(v4, set) => write!(f, "{} saddr @{set}", family(*v4)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_ruleset_is_given_other_leases() {
        let listed = "table inet vestibule {\n\tset v4_ci {\n\t\ttype ipv4_addr\n\t\telements = { 192.0.2.1 }\n\t}\n\n\
                      \tset lease4_ci {\n\t\ttype ipv4_addr\n\t\tflags interval,timeout\n\
                      \t\telements = { 192.0.2.2 timeout 1h expires 59m,\n\t\t\t     192.0.2.3 timeout 1h expires 1m }\n\t}\n\
                      \tset lease6_ci {\n\t\ttype ipv6_addr\n\t\telements = {\n\t\t\t2001:db8::1 timeout 9s\n\t\t}\n\t}\n}\n";
        let held = |network: &str| Held {
            source: "ci".into(),
            network: network.parse().unwrap(),
            left: Duration::from_mins(1),
        };
        let text = with_leases(listed, &[held("192.0.2.9/32")]);
        assert!(text.contains("elements = { 192.0.2.1 }"), "what lasts stays: {text}");
        assert_eq!(text.matches("timeout ").count(), 1, "{text}");
        let expected = "}\nflush set inet vestibule lease4_ci\n\
                        add element inet vestibule lease4_ci { 192.0.2.9 timeout 60s }\nflush set inet vestibule lease6_ci\n";
        assert!(text.ends_with(expected), "{text}");
        let braces = |text: &str| (text.matches('{').count(), text.matches('}').count());
        assert_eq!(braces(&text).0, braces(&text).1);
    }
}
