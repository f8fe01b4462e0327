//! What the kernel has against what the plan says, by meaning: what nft makes of both is compared.

use std::net::IpAddr;

use nix::sched::{CloneFlags, unshare};
use serde_json::Value;

use super::kernel::{self, NftError};
use super::nft::{self, Ruleset, Set, Span};

/// Why the two could not be compared.
#[derive(Debug, thiserror::Error)]
pub enum DiffError {
    /// nft.
    #[error(transparent)]
    Nft(#[from] NftError),
    /// The plan is loaded where it does no harm, to see what nft makes of it.
    #[error(
        "a network of its own, to load the plan in, could not be made: {0}; run this as root of the machine"
    )]
    Scratch(String),
    /// What nft listed is not understood.
    #[error("what nft lists is not understood: {0}")]
    Unreadable(String),
}

/// What is different, one line each: `+` is missing in the kernel, `-` is there and not in the plan. Empty where
/// nothing is.
pub fn difference(wanted: &Ruleset) -> Result<Vec<String>, DiffError> {
    let Some(found) = kernel::structure()? else {
        return Ok(vec!["the kernel has no table inet vestibule: nothing is applied".into()]);
    };
    let mut lines = lines_that_differ(&found, &scratch(wanted)?);
    let listing = kernel::json()?.unwrap_or_default();
    let elements = elements(&listing)?;
    for set in &wanted.sets {
        let found = elements.iter().find(|(name, _)| *name == set.name).map(|(_, spans)| spans.as_slice());
        lines.extend(set_differs(set, found.unwrap_or_default()));
    }
    Ok(lines)
}

/// What nft makes of a ruleset, learned in a network of its own where it rules nothing.
fn scratch(wanted: &Ruleset) -> Result<String, DiffError> {
    let mut bare = wanted.clone();
    bare.sets.iter_mut().for_each(|set| set.spans.clear());
    // A thread may leave the process's network for good, and ends with it.
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).map_err(|error| DiffError::Scratch(error.desc().to_owned()))?;
        kernel::load(&bare.text())?;
        Ok(kernel::structure()?.unwrap_or_default())
    });
    thread.join().unwrap_or_else(|_| Err(DiffError::Scratch("a mistake of our own".into())))
}

/// A set's name and its elements.
type Elements = (String, Vec<Span>);

/// The elements of every set.
fn elements(listing: &str) -> Result<Vec<Elements>, DiffError> {
    let listing: Value =
        serde_json::from_str(listing).map_err(|error| DiffError::Unreadable(error.to_string()))?;
    let objects = listing.get("nftables").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let sets = objects.iter().filter_map(|object| object.get("set"));
    sets.map(|set| {
        let name = set.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
        let list = set.get("elem").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let spans: Option<Vec<_>> = list.iter().map(span).collect();
        let spans = spans.ok_or_else(|| DiffError::Unreadable(format!("an element of {name}")))?;
        Ok((name, spans))
    })
    .collect()
}

/// An address, a network or a range, with or without the time that is left to it.
fn span(element: &Value) -> Option<Span> {
    let Some(inner) = element.get("elem") else {
        let (first, last) = range(element)?;
        return Some(Span { first, last, left: None });
    };
    let (first, last) = range(inner.get("val")?)?;
    let left = inner.get("expires").or_else(|| inner.get("timeout")).and_then(Value::as_u64);
    Some(Span { first, last, left })
}

fn range(element: &Value) -> Option<(IpAddr, IpAddr)> {
    if let Some(text) = element.as_str() {
        let address = text.parse().ok()?;
        return Some((address, address));
    }
    if let Some([first, last]) = element.get("range").and_then(Value::as_array).map(Vec::as_slice) {
        return Some((first.as_str()?.parse().ok()?, last.as_str()?.parse().ok()?));
    }
    let prefix = element.get("prefix")?;
    let address: IpAddr = prefix.get("addr")?.as_str()?.parse().ok()?;
    let length = u8::try_from(prefix.get("len")?.as_u64()?).ok()?;
    let net = ipnet::IpNet::new(address, length).ok()?;
    Some((net.network(), net.broadcast()))
}

/// The addresses that only one side has, and leases that the kernel ends later than the plan; a few of them by name.
fn set_differs(wanted: &Set, found: &[Span]) -> Vec<String> {
    let (theirs, ours) = (union(found.iter()), union(wanted.spans.iter()));
    // What is about to end may be gone on one side already.
    let lone = |one: &[Span], other: &[Range]| {
        let lasting = one.iter().filter(|span| span.left.is_none_or(|left| left > SLACK));
        without(&union(lasting), other).into_iter().map(|range| shown(wanted, range, None)).collect()
    };
    let (later, meant) = later(wanted, found);
    let mut lines = Vec::new();
    for (sign, spans) in
        [('-', lone(found, &ours)), ('+', lone(&wanted.spans, &theirs)), ('-', later), ('+', meant)]
    {
        lines.extend(
            spans.iter().take(SHOWN).map(|span: &Span| format!("{sign} set {}: {span}", wanted.name)),
        );
        let rest = spans.len().saturating_sub(SHOWN);
        lines.extend((rest > 0).then(|| format!("{sign} set {}: and {rest} more", wanted.name)));
    }
    lines
}

/// What the kernel holds for longer than the plan, or for good, and how long the plan does. Theirs come later in the count, so that
/// less is left to them.
fn later(wanted: &Set, found: &[Span]) -> (Vec<Span>, Vec<Span>) {
    let (mut later, mut meant) = (Vec::new(), Vec::new());
    for (own, left) in wanted.spans.iter().filter_map(|span| Some((bounds(span), span.left?))) {
        for theirs in found.iter().filter(|theirs| theirs.left.is_none_or(|their| their > left + SLACK)) {
            let (first, last) = bounds(theirs);
            let both = (first.max(own.0), last.min(own.1));
            if both.0 <= both.1 {
                later.push(shown(wanted, both, theirs.left));
                meant.push(shown(wanted, both, Some(left)));
            }
        }
    }
    (later, meant)
}

/// The first address and the last, as numbers.
type Range = (u128, u128);

fn bounds(span: &Span) -> Range {
    (nft::bits(span.first), nft::bits(span.last))
}

fn shown(set: &Set, (first, last): Range, left: Option<u64>) -> Span {
    Span { first: nft::address(first, set.v4), last: nft::address(last, set.v4), left }
}

/// In order, and joined where they touch: what is one range here may be two there.
fn union<'a>(spans: impl Iterator<Item = &'a Span>) -> Vec<Range> {
    let mut ranges: Vec<Range> = spans.map(bounds).collect();
    ranges.sort_unstable();
    let mut joined: Vec<Range> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match joined.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
            _ => joined.push((first, last)),
        }
    }
    joined
}

/// What is in the first and not in the second.
fn without(ranges: &[Range], other: &[Range]) -> Vec<Range> {
    let mut other = other.iter().peekable();
    let mut rest = Vec::new();
    for (mut first, last) in ranges.iter().copied() {
        while other.next_if(|(_, end)| *end < first).is_some() {}
        while let Some((start, end)) = other.next_if(|(_, end)| *end < last) {
            if *start > first {
                rest.push((first, start - 1));
            }
            first = end + 1;
        }
        // One that goes on beyond this range may reach into the next.
        match other.peek() {
            Some((start, _)) if *start <= first => {}
            Some((start, _)) if *start <= last => rest.push((first, start - 1)),
            _ => rest.push((first, last)),
        }
    }
    rest
}

/// Seconds by which a lease may be off: they run on while both sides are asked.
const SLACK: u64 = 5;
const SHOWN: usize = 10;

/// The lines that only one side has, in their order, each under the set or chain that it stands in.
fn lines_that_differ(found: &str, wanted: &str) -> Vec<String> {
    let (found, wanted) = (placed(found), placed(wanted));
    let signed = |sign: char, lines: &[String], range| {
        let lines = lines.get::<std::ops::Range<usize>>(range).unwrap_or_default();
        lines.iter().map(|line| format!("{sign} {line}")).collect::<Vec<_>>()
    };
    let parts = similar::capture_diff_slices(similar::Algorithm::Myers, &found, &wanted);
    let changed = parts.iter().filter(|part| part.tag() != similar::DiffTag::Equal);
    changed
        .flat_map(|part| {
            [signed('-', &found, part.old_range()), signed('+', &wanted, part.new_range())].concat()
        })
        .collect()
}

/// The rules and types, each behind the name of its block.
fn placed(listing: &str) -> Vec<String> {
    let mut block = "";
    let mut lines = Vec::new();
    for line in listing.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("table "))
    {
        match line.strip_suffix(" {") {
            Some(head) => {
                block = head;
                lines.push(head.to_owned());
            }
            None if line == "}" => {}
            None => lines.push(format!("{block}: {line}")),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = "table inet vestibule {\n\tset v4_ci {\n\t\ttype ipv4_addr\n\t}\n\n\tchain port_22 {\n\t\tip saddr @v4_ci \
                        accept\n\t\tdrop\n\t}\n}\n";

    #[test]
    fn lines_are_told_by_their_block() {
        assert_eq!(lines_that_differ(OURS, OURS), [""; 0]);
        let theirs = OURS.replace("\t\tdrop\n", "\t\tudp dport 1 accept\n").replace("@v4_ci", "@v4_x");
        assert_eq!(
            lines_that_differ(&theirs, OURS),
            [
                "- chain port_22: ip saddr @v4_x accept",
                "- chain port_22: udp dport 1 accept",
                "+ chain port_22: ip saddr @v4_ci accept",
                "+ chain port_22: drop",
            ]
        );
    }

    #[test]
    fn elements_have_one_form() {
        let listing = r#"{"nftables": [{"metainfo": {}}, {"set": {"name": "v4_a", "elem": ["192.0.2.1",
            {"prefix": {"addr": "10.0.0.0", "len": 8}}, {"range": ["1.2.3.4", "1.2.3.9"]},
            {"elem": {"val": {"prefix": {"addr": "198.51.100.0", "len": 24}}, "timeout": 30, "expires": 29}}]}},
            {"set": {"name": "v6_a"}}]}"#;
        let found = elements(listing).unwrap();
        let shown: Vec<String> = found[0].1.iter().map(ToString::to_string).collect();
        let expected = ["192.0.2.1", "10.0.0.0/8", "1.2.3.4-1.2.3.9", "198.51.100.0/24 timeout 29s"];
        assert_eq!(shown, expected);
        assert_eq!(found[1], ("v6_a".to_owned(), Vec::new()));
        assert!(elements(r#"{"nftables": [{"set": {"name": "x", "elem": [7]}}]}"#).is_err());
    }

    #[test]
    fn thousands_of_rules_are_compared_at_once() {
        let listing = |first: u32| {
            let rules =
                (first..first + 20_000).map(|port| format!("\t\ttcp dport {port} jump port_{port}\n"));
            format!("table inet vestibule {{\n\tchain doors {{\n{}\t}}\n}}\n", rules.collect::<String>())
        };
        assert_eq!(lines_that_differ(&listing(0), &listing(1)).len(), 2);
        assert_eq!(lines_that_differ(&listing(0), &listing(20_000)).len(), 40_000);
    }

    /// A lease set of these.
    fn set(spans: &[(&str, &str, Option<u64>)]) -> Set {
        let span = |(first, last, left): &(&str, &str, _)| Span {
            first: first.parse().unwrap(),
            last: last.parse().unwrap(),
            left: *left,
        };
        let v4 = spans.first().is_none_or(|(first, ..)| !first.contains(':'));
        Set { name: "s".into(), v4, leased: true, spans: spans.iter().map(span).collect() }
    }

    #[test]
    fn sets_are_compared_by_their_addresses() {
        let (minute, hour) = (Some(60), Some(3600));
        let two = [("192.0.2.8", "192.0.2.8", minute), ("192.0.2.9", "192.0.2.9", minute)];
        let one = [("192.0.2.8", "192.0.2.9", minute)];
        let most = [("192.0.2.0", "192.0.2.7", hour), ("192.0.2.9", "192.0.2.255", hour)];
        let all = [("192.0.2.0", "192.0.2.255", hour)];
        let end =
            [("ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", hour)];
        for (wanted, found, expected) in [
            (&two[..], &one[..], &[][..]),
            (&one, &two, &[]),
            (&all, &most, &["+ set s: 192.0.2.8"]),
            (&most, &all, &["- set s: 192.0.2.8"]),
            (&two[..1], &one, &["- set s: 192.0.2.9"]),
            (&[], &two, &["- set s: 192.0.2.8/31"]),
            (&end, &end, &[]),
            (&end, &[], &["+ set s: ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe/127"]),
        ] {
            assert_eq!(set_differs(&set(wanted), &set(found).spans), expected, "{wanted:?} {found:?}");
        }
    }

    #[test]
    fn a_lease_that_the_kernel_holds_for_longer_is_told() {
        let lease = |left| [("192.0.2.8", "192.0.2.8", left)];
        for (wanted, found, expected) in [
            (Some(60), Some(60), &[][..]),
            (Some(60), Some(65), &[]),
            (Some(3600), Some(60), &[]),
            (Some(60), Some(3600), &["- set s: 192.0.2.8 timeout 3600s", "+ set s: 192.0.2.8 timeout 60s"]),
            (Some(60), None, &["- set s: 192.0.2.8", "+ set s: 192.0.2.8 timeout 60s"]),
            (None, None, &[]),
        ] {
            assert_eq!(
                set_differs(&set(&lease(wanted)), &set(&lease(found)).spans),
                expected,
                "{wanted:?} {found:?}"
            );
        }
        // About to end: one of the two may be without it already.
        assert_eq!(set_differs(&set(&lease(Some(2))), &[]), [""; 0]);
        assert_eq!(set_differs(&set(&[]), &set(&lease(Some(2))).spans), [""; 0]);
        assert_eq!(set_differs(&set(&lease(Some(2))), &set(&lease(None)).spans).len(), 2);
    }
}
