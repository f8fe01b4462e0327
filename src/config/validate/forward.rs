//! Rows of `[ports]` that forward.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::Arc;

use super::super::model::{
    Bind, Certificate, Errors, Forward, ForwardTls, Kind, Place, Proxy, ProxyVersion, RowId, Site, Target,
};
use super::super::raw::{Report, Table, Value};
use super::site::{self, Defaults};
use super::{Home, names, target};
use crate::addr::{Gate, is_own};
use crate::name::{HostPattern, Hostname};

/// What a forward row is called, and where that stands in the file.
pub(super) struct Named {
    tls: ForwardTls,
    place: Place,
    certificate_place: Place,
    client_ca_place: Place,
}

/// Reads what is not the same for every row. None where something of it is wrong.
pub(super) fn read(table: &Table<'_>, home: &Home<'_>) -> Option<(Kind, Option<Named>)> {
    let targets = table.get("forward").and_then(|value| targets(&value, home));
    let named = named(table, home);
    let send_proxy = match table.choice("send_proxy") {
        Some("v1") => Some(ProxyVersion::V1),
        Some(_) => Some(ProxyVersion::V2),
        None => None,
    };
    let (connect_timeout, idle_timeout) = (table.duration("connect_timeout"), table.duration("idle_timeout"));
    let forward = Forward {
        proxy: Proxy::plain(targets?, connect_timeout?),
        idle_timeout,
        send_proxy,
        tls: named.as_ref().map(|named| named.tls.clone()),
    };
    Some((Kind::Forward(Arc::new(forward)), named))
}

/// The targets: where bytes go to, and not what they mean.
fn targets(value: &Value<'_>, home: &Home<'_>) -> Option<Vec<Target>> {
    let url = |item: &Value<'_>| {
        if item.node.as_str().is_some_and(|text| text.contains('@') && !text.starts_with("unix:")) {
            item.report
                .secret(&item.place, "a forward row takes no user or password: its clients bring their own");
            return Some(());
        }
        let (scheme, rest) = item.node.as_str()?.split_once("://").filter(|(scheme, _)| *scheme != "unix")?;
        let host = rest.split(['/', '?', '#']).next().unwrap_or(rest);
        item.refuse(
            format!("a forward row passes bytes on, and speaks no {scheme}"),
            format!("write the host and its port, as in \"{}\"", with_port(scheme, host)),
        );
        Some(())
    };
    if value.one_or_more().iter().filter_map(url).count() > 0 {
        return None;
    }
    target::read(value, home)
}

fn with_port(scheme: &str, host: &str) -> String {
    let port = match scheme {
        "postgres" | "postgresql" => 5432,
        "redis" | "rediss" => 6379,
        "mysql" => 3306,
        "http" => 80,
        "https" => 443,
        _ => 1234,
    };
    let bare = if host.is_empty() { "db" } else { host };
    if bare.contains(':') { bare.to_owned() } else { format!("{bare}:{port}") }
}

/// `tls`, and what belongs to it.
fn named(table: &Table<'_>, home: &Home<'_>) -> Option<Named> {
    let Some(value) = table.get("tls") else {
        for key in ["certificate", "client_ca"] {
            if let Some(value) = table.get(key) {
                value.refuse(
                    format!("`{key}` is for TLS, and this row passes bytes on as they are"),
                    "say under which name TLS is ended here, as in tls = \"db.example.com\", or leave it out",
                );
            }
        }
        return None;
    };
    let name = names::whole(&value);
    let certificate = table.get("certificate").map(|_| site::certificate(table, home));
    let client_ca = table.get("client_ca").map(|value| (site::pem(&value, home), value.place));
    let (certificate, certificate_place) = certificate.unwrap_or((None, value.place.clone()));
    let (client_ca, client_ca_place) = client_ca.unwrap_or_default();
    let tls = ForwardTls { name: name?, certificate, client_ca };
    Some(Named { tls, place: value.place, certificate_place, client_ca_place })
}

/// Finds each row's certificate: that of the site which has its name, or one of its own.
pub(super) fn certify(
    named: Vec<Named>,
    sites: &[Site],
    rows: &[RowId],
    defaults: &Defaults<'_>,
    report: &Report<'_>,
) -> Vec<Site> {
    let mut own: Vec<(Named, Site)> = Vec::new();
    for named in named {
        let owner = site_of(sites, &named.tls.name);
        if let Some(owner) = owner.filter(|owner| named.shares_with(owner)) {
            if let Some(path) =
                named.tls.client_ca.as_ref().filter(|path| owner.client_ca.as_ref() != Some(path))
            {
                let message = format!(
                    "{} is a site's name, and this row would show the site's certificate to clients of {}",
                    named.tls.name,
                    path.display()
                );
                let help = "give the row another name or a `certificate` of its own, or the site the same `client_ca`";
                report.error(&named.client_ca_place, message, help);
            }
        } else if let Some((first, _)) = own.iter().find(|(other, _)| other.tls.name == named.tls.name) {
            if first.tls != named.tls {
                let message = format!(
                    "the row on line {} is called {} too, with another certificate or client_ca",
                    report.line(&first.place),
                    named.tls.name
                );
                report.error(&named.place, message, "write the same for both, or give one another name");
            }
        } else {
            let site = named.site(rows, defaults);
            if site.certificate == Certificate::Acme && rows.is_empty() && !defaults.wildcards {
                let message = format!(
                    "no CA can be shown that {} is ours: no row serves http or https",
                    named.tls.name
                );
                let help = "add 80 = { serve = \"http\", allow = [\"public\"] }, or write certificate = \"internal\" for the edge's own CA";
                report.error(&named.place, message, help);
            }
            own.push((named, site));
        }
    }
    own.into_iter().map(|(_, site)| site).collect()
}

/// The site that answers to a name: as it stands, before a wildcard.
fn site_of<'s>(sites: &'s [Site], name: &Hostname) -> Option<&'s Site> {
    let exact = |site: &&Site| {
        site.domains.contains(&HostPattern::Exact(name.clone())) || site.redirect.contains(name)
    };
    let matching = |site: &&Site| site.domains.iter().any(|domain| domain.matches(name));
    sites.iter().find(exact).or_else(|| sites.iter().find(matching))
}

impl Named {
    fn shares_with(&self, site: &Site) -> bool {
        self.tls.certificate.as_ref().is_none_or(|own| *own == site.certificate)
    }

    /// The row's name as a site that nobody can ask for anything.
    fn site(&self, rows: &[RowId], defaults: &Defaults<'_>) -> Site {
        let own = self.tls.client_ca.clone().map(|path| (path, self.client_ca_place.clone()));
        let client_ca: Option<(PathBuf, Place)> = own.or_else(|| defaults.client_ca.clone());
        let (client_ca, client_ca_place) = client_ca.unzip();
        Site {
            domains: vec![HostPattern::Exact(self.tls.name.clone())],
            redirect: Vec::new(),
            rows: rows.to_vec(),
            gate: Gate::open(),
            certificate: self.tls.certificate.clone().unwrap_or(Certificate::Acme),
            certificate_place: self.certificate_place.clone(),
            client_ca,
            client_ca_place: client_ca_place.unwrap_or_default(),
            hsts: None,
            errors: Errors::default(),
            routes: Vec::new(),
        }
    }
}

/// A target that is another row of this file, or the same one.
pub(super) struct Hop {
    place: Place,
    to: Bind,
}

/// The targets that are rows of this file, as far as that can be told: by name nobody knows where it leads.
pub(super) fn hops(binds: &[Option<Bind>], table: &Table<'_>, targets: &[Target]) -> Vec<Hop> {
    let Some(value) = table.get("forward") else { return Vec::new() };
    let hop = |(item, target): (Value<'_>, &Target)| {
        let Target::Tcp { host, port, .. } = target else { return None };
        Some(Hop { place: item.place, to: row_at(host, *port, binds)? })
    };
    value.one_or_more().into_iter().zip(targets).filter_map(hop).collect()
}

/// The row that a connection to a host comes to. A row for one address rules that address, a row for all the rest.
fn row_at(host: &str, port: u16, binds: &[Option<Bind>]) -> Option<Bind> {
    let here = || binds.iter().flatten().copied().filter(|bind| bind.port() == port && port != 0);
    let for_all = || here().find(|bind| bind.address().is_none());
    if is_own_name(host) {
        // Which of the machine's addresses it leads to is for the resolver to say: a row for all has each.
        return for_all();
    }
    let ip = if is_loopback(host) {
        Ipv4Addr::LOCALHOST.into()
    } else {
        host.parse::<IpAddr>().ok()?.to_canonical()
    };
    let ip = match ip {
        IpAddr::V4(any) if any.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(any) if any.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let is_rows = || binds.iter().flatten().any(|bind| bind.address() == Some(ip));
    let exact = here().find(|bind| bind.address() == Some(ip));
    exact.or_else(|| for_all().filter(|_| is_rows() || is_own(ip)))
}

/// Names that lead to the machine itself wherever they are looked up (RFC 6761 section 6.3).
fn is_loopback(host: &str) -> bool {
    let last = host.rsplit('.').next().unwrap_or(host);
    ["localhost", "ip6-localhost", "ip6-loopback"].iter().any(|name| last.eq_ignore_ascii_case(name))
}

fn is_own_name(host: &str) -> bool {
    let own = nix::unistd::gethostname().ok();
    own.is_some_and(|own| own.to_str().is_some_and(|own| host.eq_ignore_ascii_case(own)))
}

/// Rows that forward to each other would do so until nothing is left.
pub(super) fn refuse_loops(rows: &[(Bind, &[Hop])], report: &Report<'_>) {
    for (bind, hops) in rows {
        for hop in *hops {
            let Some(way) = way(hop.to, *bind, rows) else { continue };
            let by: Vec<String> = way.iter().map(Bind::to_string).collect();
            let by = if by.is_empty() { String::new() } else { format!(", by way of {}", by.join(", ")) };
            let message = format!("the row forwards to itself{by}");
            report.error(&hop.place, message, "name where the service itself listens");
        }
    }
}

/// The rows that are passed from one row to another, the first among them; None where none leads there.
fn way(from: Bind, to: Bind, rows: &[(Bind, &[Hop])]) -> Option<Vec<Bind>> {
    let (mut open, mut seen) = (vec![(from, Vec::new())], Vec::new());
    while let Some((at, mut passed)) = open.pop() {
        if at == to {
            return Some(passed);
        }
        if seen.contains(&at) {
            continue;
        }
        seen.push(at);
        passed.push(at);
        let hops = rows.iter().filter(|(bind, _)| *bind == at).flat_map(|(_, hops)| hops.iter());
        open.extend(hops.map(|hop| (hop.to, passed.clone())));
    }
    None
}
