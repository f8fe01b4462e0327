//! `dns` in `[acme]`.

use std::net::{IpAddr, SocketAddr};

use super::super::model::{Dns, DnsProvider, DnsServer};
use super::super::raw::{Table, Value};
use super::{Home, acme};
use crate::name::Hostname;

/// What to do where it is missing.
pub(super) const HELP: &str =
    "add dns = { provider = \"rfc2136\", … } to [acme]; the others are \"exec\" and \"cloudflare\"";
const PORT: u16 = 53;
const CLOUDFLARE: &str = "https://api.cloudflare.com/client/v4";
/// Which keys belong to which provider alone.
static OWN: &[(&str, &[&str])] =
    &[("rfc2136", &["server", "key"]), ("exec", &["command", "timeout"]), ("cloudflare", &["token", "api"])];

pub(super) fn read(table: &Table<'_>, home: &Home<'_>) -> Option<Dns> {
    let (resolvers, nameservers) = (addresses(table, "resolvers"), addresses(table, "nameservers"));
    let propagation = table.duration("propagation");
    let name = table.choice("provider")?;
    refuse_others(table, name);
    let provider = match name {
        "rfc2136" => rfc2136(table, home),
        "exec" => exec(table, home),
        _ => cloudflare(table, home),
    };
    Some(Dns { provider: provider?, resolvers, nameservers, propagation: propagation? })
}

/// A key of another provider does nothing.
fn refuse_others(table: &Table<'_>, provider: &str) {
    for (other, keys) in OWN.iter().filter(|(other, _)| *other != provider) {
        for value in keys.iter().filter_map(|key| table.get(key)) {
            value.refuse(
                format!("this belongs to the provider \"{other}\", and the provider is \"{provider}\""),
                "leave it out",
            );
        }
    }
}

fn rfc2136(table: &Table<'_>, home: &Home<'_>) -> Option<DnsProvider> {
    let server = wanted(table, "server", "write server = \"ns1.example.com:53\"");
    let key = wanted(table, "key", "write key = { file = \"/run/secrets/tsig\" }; `tsig-keygen` makes one");
    let server = server.and_then(|value| server_at(&value));
    let key = key.and_then(|value| acme::secret(&value, home));
    Some(DnsProvider::Rfc2136 { server: server?, key: key? })
}

fn exec(table: &Table<'_>, home: &Home<'_>) -> Option<DnsProvider> {
    let timeout = table.duration("timeout");
    let value = wanted(table, "command", "write command = [\"/etc/vestibule/dns-hook\"]")?;
    let command = acme::program(&value, home, "/etc/vestibule/dns-hook")?;
    Some(DnsProvider::Exec { command, timeout: timeout? })
}

fn cloudflare(table: &Table<'_>, home: &Home<'_>) -> Option<DnsProvider> {
    let help = "write token = { file = \"/run/secrets/cloudflare\" }: one that may edit the zone's DNS";
    let token = wanted(table, "token", help).and_then(|value| acme::secret(&value, home));
    let api = match table.get("api") {
        Some(value) => api(&value)?,
        None => CLOUDFLARE.to_owned(),
    };
    Some(DnsProvider::Cloudflare { token: token?, api })
}

fn wanted<'a>(table: &Table<'a>, key: &str, help: &str) -> Option<Value<'a>> {
    if table.lacks(key) {
        table.report.error(&table.place, format!("`{key}` is missing"), help);
    }
    table.get(key)
}

fn api(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    let host = text.strip_prefix("https://").and_then(|rest| rest.split('/').next());
    let plain = !text.contains(|c: char| !c.is_ascii_graphic() || matches!(c, '?' | '#' | '@'));
    if plain && host.is_some_and(|host| !host.is_empty()) {
        return Some(text.trim_end_matches('/').to_owned());
    }
    value.refuse(format!("{text:?} is not the URL of an API"), format!("write it as in \"{CLOUDFLARE}\""));
    None
}

fn addresses(table: &Table<'_>, key: &str) -> Vec<SocketAddr> {
    let Some(value) = table.get(key) else { return Vec::new() };
    let Some(items) = value.items() else { return Vec::new() };
    if items.is_empty() {
        value.refuse("an empty list names nobody", "leave the key out");
    }
    items.iter().filter_map(address).collect()
}

/// An address, with a port or without.
fn address(value: &Value<'_>) -> Option<SocketAddr> {
    let text = value.text()?;
    let bare = || Some(SocketAddr::new(text.parse::<IpAddr>().ok()?, PORT));
    let found = text.parse().ok().or_else(bare).filter(|found: &SocketAddr| found.port() != 0);
    if found.is_none() {
        value.refuse(
            format!("{text:?} is not the address of a name server"),
            "write an address, as in \"192.0.2.53\", \"192.0.2.53:5353\" or \"[2001:db8::53]:53\"",
        );
    }
    found
}

/// A name or an address, with a port or without.
fn server_at(value: &Value<'_>) -> Option<DnsServer> {
    let text = value.text()?;
    let server = parse(text);
    if server.is_none() {
        value.refuse(
            format!("{text:?} is not a name server"),
            "write a name or an address and a port, as in \"ns1.example.com:53\" or \"[2001:db8::53]:53\"",
        );
    }
    server
}

fn parse(text: &str) -> Option<DnsServer> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some(DnsServer { host: address.ip().to_string(), port: address.port() })
            .filter(|server| server.port != 0);
    }
    if let Ok(ip) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
        return Some(DnsServer { host: ip.to_string(), port: PORT });
    }
    let (host, port) = text.split_once(':').unwrap_or((text, "53"));
    let port = port.parse().ok().filter(|&number| number != 0 && port.bytes().all(|b| b.is_ascii_digit()))?;
    let host = Hostname::parse(host).ok()?.as_str().to_owned();
    Some(DnsServer { host, port })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers() {
        for (text, shown) in [
            ("ns1:53", "ns1:53"),
            ("NS1.example.com", "ns1.example.com:53"),
            ("192.0.2.53", "192.0.2.53:53"),
            ("192.0.2.53:5353", "192.0.2.53:5353"),
            ("2001:db8::53", "[2001:db8::53]:53"),
            ("[2001:db8::53]", "[2001:db8::53]:53"),
            ("[2001:db8::53]:5353", "[2001:db8::53]:5353"),
        ] {
            assert_eq!(parse(text).unwrap().to_string(), shown, "{text}");
        }
        for wrong in
            ["", ":53", "ns1:0", "ns1:+53", "ns1:dns", "ns1:99999", "udp://ns1", "a b", "192.0.2.53:0"]
        {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
