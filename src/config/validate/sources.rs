//! `[sources]`: named groups of addresses.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net};

use super::super::meant::did_you_mean;
use super::super::model::{Place, SourceFile, Stamp};
use super::super::raw::{Table, Value};
use super::super::schema::SOURCE_FILE;
use super::{Home, listing};
use crate::addr::{CidrSet, Source};

/// The largest CIDR file, in octets: some five million rows.
const MAX_FILE: u64 = 256 << 20;
/// The longest name of a source.
const MAX_NAME: usize = 64;

/// The sources of a file, the broken ones among them.
pub(super) struct Sources {
    list: Vec<Source>,
    files: Vec<SourceFile>,
    /// Whether `[sources]` could be read, so that a name which is not there is wrong.
    known: bool,
}

/// Reads `[sources]`.
pub(super) fn read(root: &Table<'_>, home: &Home<'_>) -> Sources {
    let none = |known| Sources { list: Vec::new(), files: Vec::new(), known };
    let Some(value) = root.get("sources") else { return none(true) };
    let Some(entries) = value.table_entries() else { return none(false) };
    let mut sources = none(true);
    for (name, place, value) in entries {
        check_name(name, &place, &value);
        // Before the file is read, so that whatever is written meanwhile is seen as a change.
        let stamp = file_of(&value, home).and_then(|path| Stamp::of(&path));
        let members: CidrSet = networks(&value, home).into_iter().collect();
        refuse_everyone(&members, &value);
        let source = Source::new(name, members);
        let file =
            file_of(&value, home).map(|path| SourceFile { name: Arc::clone(&source.name), path, stamp });
        sources.files.extend(file);
        sources.list.push(source);
    }
    sources
}

impl Sources {
    pub(super) fn into_lists(self) -> (Vec<Source>, Vec<SourceFile>) {
        (self.list, self.files)
    }

    /// The sources of a list, `public` among them where it is named.
    pub(super) fn listed(&self, value: &Value<'_>) -> Vec<Source> {
        value.items().unwrap_or_default().iter().filter_map(|item| self.named(item)).collect()
    }

    /// The sources of a list of peers that are believed. `public` is nobody to believe.
    pub(super) fn believed(&self, value: &Value<'_>) -> Vec<Source> {
        let items = value.items().unwrap_or_default();
        if items.is_empty() && value.node.is_array() {
            value.refuse("the list is empty", "name a source, or leave the key out");
        }
        for item in items.iter().filter(|item| item.node.as_str() == Some("public")) {
            let help = "name a source that holds the proxies alone; believing everyone lets every client claim \
                        any address";
            item.refuse("\"public\" cannot be believed about the client's address", help);
        }
        items.iter().filter_map(|item| self.named(item)).collect()
    }

    fn named(&self, item: &Value<'_>) -> Option<Source> {
        let name = item.text()?;
        if name == "public" {
            return Some(Source::public());
        }
        let found = self.list.iter().find(|source| &*source.name == name);
        if found.is_none() && self.known {
            item.refuse(format!("no source is named {name:?}"), self.help(name));
        }
        found.cloned()
    }

    fn help(&self, name: &str) -> String {
        if let Ok(net) = network(name) {
            return format!(
                "name the address in [sources], as in office = [\"{net}\"], and write \"office\" here"
            );
        }
        let names = || self.list.iter().map(|source| &*source.name).chain(["public"]);
        match did_you_mean(name, names()) {
            none if none.is_empty() => {
                format!(
                    "[sources] has {}",
                    names().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ")
                )
            }
            meant => meant,
        }
    }
}

fn check_name(name: &str, place: &Place, value: &Value<'_>) {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"_-.".contains(&b);
    if name.eq_ignore_ascii_case("public") {
        let help = "it is built in and means everyone; choose another name";
        value.report.error(place, format!("the source `{name}` cannot be redefined"), help);
    } else if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(legal) {
        let help = format!("letters, digits, `_`, `-` and `.`, {MAX_NAME} at most");
        value.report.error(place, format!("{name:?} cannot be the name of a source"), help);
    }
}

fn networks(value: &Value<'_>, home: &Home<'_>) -> Vec<IpNet> {
    if value.node.is_table() {
        let file = value.table(&SOURCE_FILE).and_then(|table| table.get("file"));
        return file
            .and_then(|file| Some((home.path(&file)?, file)))
            .map_or_else(Vec::new, |(path, file)| from_file(&path, &file));
    }
    let Some(items) = value.node.as_array() else {
        value.expected("a list, as in [\"203.0.113.0/24\"], or { file = \"…\" }");
        return Vec::new();
    };
    if items.is_empty() {
        value.refuse("the source is empty", "list its addresses, or leave it out");
    }
    let items = value.items().unwrap_or_default();
    items.iter().filter_map(from_item).collect()
}

fn from_item(item: &Value<'_>) -> Option<IpNet> {
    let text = item.node.as_str();
    if text.is_none() {
        item.expected("an address or network as text, as in \"203.0.113.0/24\"");
    }
    network(text?).map_err(|wrong| item.refuse(wrong.message, wrong.help)).ok()
}

fn from_file(path: &Path, value: &Value<'_>) -> Vec<IpNet> {
    let Some(bytes) = listing::read(path, value, MAX_FILE) else { return Vec::new() };
    let (nets, wrong) = parse_lines(&bytes);
    if !wrong.is_empty() {
        let wrong = wrong.into_iter().map(|(line, wrong)| (line, wrong.message)).collect();
        listing::refuse(path, value, wrong, "one address or CIDR a line; # begins a comment");
    } else if nets.is_empty() {
        value.refuse(
            format!("{} names no address", path.display()),
            "list one a line, or leave the source out",
        );
    }
    nets
}

/// The file of a source, where it has one. Says nothing about what is wrong with it.
fn file_of(value: &Value<'_>, home: &Home<'_>) -> Option<PathBuf> {
    let text = value.node.as_table()?.get("file")?.get_ref().as_str()?;
    (!text.is_empty() && !text.contains('\0')).then(|| home.resolve(text))
}

/// Reads a source's file once more. The error is what a start would say.
pub(crate) fn read_again(path: &Path) -> Result<CidrSet, String> {
    let shown = path.display();
    let bytes =
        listing::read_bounded(path, MAX_FILE).map_err(|error| format!("{shown} cannot be read: {error}"))?;
    let (nets, wrong) = parse_lines(&bytes);
    if !wrong.is_empty() {
        let wrong = wrong.into_iter().map(|(line, wrong)| (line, wrong.message)).collect();
        return Err(listing::wrong_lines(path, wrong));
    }
    let members: CidrSet = nets.into_iter().collect();
    if members.is_empty() {
        return Err(format!("{shown} names no address"));
    }
    let covered = [("IPv4", members.covers_ipv4()), ("IPv6", members.covers_ipv6())];
    match covered.into_iter().find(|(_, covered)| *covered) {
        Some((family, _)) => Err(format!("{shown} holds every {family} address")),
        None => Ok(members),
    }
}

/// The networks of a file, and its wrong lines by number.
fn parse_lines(bytes: &[u8]) -> (Vec<IpNet>, Vec<(usize, Wrong)>) {
    let mut nets = Vec::new();
    let mut wrong = Vec::new();
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    for (index, line) in bytes.split(|&b| b == b'\n').enumerate() {
        let text = line.split(|&b| b == b'#').next().unwrap_or(line).trim_ascii();
        if text.is_empty() {
            continue;
        }
        match network(&String::from_utf8_lossy(text)) {
            Ok(net) => nets.push(net),
            Err(error) => wrong.push((index + 1, error)),
        }
    }
    (nets, wrong)
}

/// Why a text is not a network.
#[derive(Debug)]
struct Wrong {
    message: String,
    help: String,
}

/// Reads an address, or a network without host bits.
fn network(text: &str) -> Result<IpNet, Wrong> {
    let wrong = |message: String, help: &str| Err(Wrong { message, help: help.into() });
    if let Ok(ip) = text.parse::<IpAddr>() {
        return unmapped(IpNet::from(ip), text);
    }
    match text.parse::<IpNet>() {
        Ok(net) if net.trunc() == net => unmapped(net, text),
        Ok(net) => {
            let (meant, host) = (net.trunc(), net.addr());
            let message = format!("{text:?} has host bits set; the network is \"{meant}\"");
            Err(Wrong { message, help: format!("write \"{meant}\", or \"{host}\" for the one address") })
        }
        Err(_) if looks_like_name(text) => wrong(
            format!("{text:?} is a name, and a source holds addresses"),
            "list the addresses: a name's answer is its owner's to change, and an allow list must not be",
        ),
        Err(_) => wrong(
            format!("{text:?} is not an address or network"),
            "write \"203.0.113.7\", \"203.0.113.0/24\" or \"2001:db8::/32\"",
        ),
    }
}

/// An IPv4-mapped network never meets a client, for a client's address is folded to IPv4.
fn unmapped(net: IpNet, text: &str) -> Result<IpNet, Wrong> {
    let IpNet::V6(six) = net else { return Ok(net) };
    let Some(four) = six.addr().to_ipv4_mapped().filter(|_| six.prefix_len() >= 96) else { return Ok(net) };
    let four =
        Ipv4Net::new(four, six.prefix_len() - 96).map_or_else(|_| four.to_string(), |net| net.to_string());
    let message = format!("{text:?} is an IPv4 network written as IPv6");
    Err(Wrong { message, help: format!("write \"{four}\"") })
}

fn looks_like_name(text: &str) -> bool {
    text.bytes().any(|b| b.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
}

/// Everyone has a name of its own, so that nobody opens a port to all by the digits.
fn refuse_everyone(members: &CidrSet, value: &Value<'_>) {
    for (family, covered) in [("IPv4", members.covers_ipv4()), ("IPv6", members.covers_ipv6())] {
        if covered {
            let help = "for everyone, write \"public\" in the allow list";
            value.refuse(format!("the source holds every {family} address"), help);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn networks_have_one_form() {
        for (text, net) in [
            ("203.0.113.7", Some("203.0.113.7/32")),
            ("203.0.113.0/24", Some("203.0.113.0/24")),
            ("2001:DB8::/32", Some("2001:db8::/32")),
            ("2001:db8::1", Some("2001:db8::1/128")),
            ("0.0.0.0/0", Some("0.0.0.0/0")),
            ("203.0.113.7/24", None),
            ("203.0.113.0/33", None),
            ("203.0.113.0/-1", None),
            ("203.0.113.0 /24", None),
            ("203.000.113.0", None),
            ("::ffff:203.0.113.7", None),
            ("fe80::1%eth0", None),
            ("example.com", None),
        ] {
            assert_eq!(network(text).ok().map(|net| net.to_string()).as_deref(), net, "{text:?}");
        }
    }

    #[test]
    fn a_file_is_lines_with_comments() {
        let text = b"\xef\xbb\xbf# list\r\n203.0.113.0/24 # office\r\n\n\t2001:db8::/32\n\xff\n10.0.0.1/8";
        let (nets, wrong) = parse_lines(text);
        assert_eq!(nets.len(), 2);
        assert_eq!(wrong.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [5, 6]);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = parse_lines(&bytes);
        }
    }
}
