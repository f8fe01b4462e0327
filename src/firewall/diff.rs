//! What the kernel has against what the plan says, by meaning: what nft makes of both is compared.

use std::net::IpAddr;

use nix::sched::{CloneFlags, unshare};
use serde_json::Value;

use super::kernel::{self, NftError};
use super::nft::{Ruleset, Set, Span};

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

/// A set's name and its ranges, in order.
type Elements = (String, Vec<(IpAddr, IpAddr)>);

/// The elements of every set.
fn elements(listing: &str) -> Result<Vec<Elements>, DiffError> {
    let listing: Value =
        serde_json::from_str(listing).map_err(|error| DiffError::Unreadable(error.to_string()))?;
    let objects = listing.get("nftables").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let sets = objects.iter().filter_map(|object| object.get("set"));
    sets.map(|set| {
        let name = set.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
        let list = set.get("elem").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let spans: Option<Vec<_>> = list.iter().map(range).collect();
        let mut spans = spans.ok_or_else(|| DiffError::Unreadable(format!("an element of {name}")))?;
        spans.sort_unstable();
        Ok((name, spans))
    })
    .collect()
}

/// An address, a network or a range, with or without the time that is left to it.
fn range(element: &Value) -> Option<(IpAddr, IpAddr)> {
    if let Some(inner) = element.get("elem") {
        return range(inner.get("val")?);
    }
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

/// The addresses that only one side has, a few of them by name.
fn set_differs(wanted: &Set, found: &[(IpAddr, IpAddr)]) -> Vec<String> {
    let spans: Vec<(IpAddr, IpAddr)> = wanted.spans.iter().map(|span| (span.first, span.last)).collect();
    let lone = |a: &[(IpAddr, IpAddr)], b: &[(IpAddr, IpAddr)]| -> Vec<(IpAddr, IpAddr)> {
        a.iter().filter(|span| b.binary_search(span).is_err()).copied().collect()
    };
    let mut lines = Vec::new();
    for (sign, lone) in [('-', lone(found, &spans)), ('+', lone(&spans, found))] {
        let shown =
            lone.iter().take(SHOWN).map(|(first, last)| Span { first: *first, last: *last, left: None });
        lines.extend(shown.map(|span| format!("{sign} set {}: {span}", wanted.name)));
        let rest = lone.len().saturating_sub(SHOWN);
        lines.extend((rest > 0).then(|| format!("{sign} set {}: and {rest} more", wanted.name)));
    }
    lines
}

const SHOWN: usize = 10;

/// The lines that only one side has, in their order, each under the set or chain that it stands in.
fn lines_that_differ(found: &str, wanted: &str) -> Vec<String> {
    let (found, wanted) = (placed(found), placed(wanted));
    let mut common = vec![vec![0_u32; wanted.len() + 1]; found.len() + 1];
    let at = |table: &[Vec<u32>], i: usize, j: usize| {
        table.get(i).and_then(|row| row.get(j)).copied().unwrap_or(0)
    };
    for (i, old) in found.iter().enumerate().rev() {
        for (j, new) in wanted.iter().enumerate().rev() {
            let best = if old == new {
                at(&common, i + 1, j + 1) + 1
            } else {
                at(&common, i + 1, j).max(at(&common, i, j + 1))
            };
            if let Some(cell) = common.get_mut(i).and_then(|row| row.get_mut(j)) {
                *cell = best;
            }
        }
    }
    let (mut i, mut j, mut lines) = (0, 0, Vec::new());
    loop {
        match (found.get(i), wanted.get(j)) {
            (Some(old), Some(new)) if old == new => (i, j) = (i + 1, j + 1),
            (Some(old), new) if new.is_none() || at(&common, i + 1, j) >= at(&common, i, j + 1) => {
                lines.push(format!("- {old}"));
                i += 1;
            }
            (_, Some(new)) => {
                lines.push(format!("+ {new}"));
                j += 1;
            }
            _ => return lines,
        }
    }
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
        let shown: Vec<String> = found[0].1.iter().map(|(first, last)| format!("{first}-{last}")).collect();
        let expected = [
            "1.2.3.4-1.2.3.9",
            "10.0.0.0-10.255.255.255",
            "192.0.2.1-192.0.2.1",
            "198.51.100.0-198.51.100.255",
        ];
        assert_eq!(shown, expected);
        assert_eq!(found[1], ("v6_a".to_owned(), Vec::new()));
        assert!(elements(r#"{"nftables": [{"set": {"name": "x", "elem": [7]}}]}"#).is_err());
    }
}
