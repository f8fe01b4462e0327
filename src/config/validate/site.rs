//! `[[site]]`: what is served under which names.

use std::path::PathBuf;
use std::time::Duration;

use super::super::meant::did_you_mean;
use super::super::model::{
    Action, BodyLimit, Certificate, Headers, PathPattern, Place, Policy, Proxy, Route, RowId, SetBy, Site,
};
use super::super::raw::{Table, Value};
use super::super::schema::CERTIFICATE;
use super::super::units::show_duration;
use super::ports::{Ports, gate};
use super::route::Site as Inherited;
use super::sources::Sources;
use super::{Home, auth, compress, dns, errors, files, headers, names, proxy, rate, route, target};
use crate::addr::Gate;
use crate::name::HostPattern;

/// Strict-Transport-Security where a site says nothing.
const HSTS: Duration = Duration::from_hours(365 * 24);
/// What a certificate can be.
const CERTIFICATE_HELP: &str = "leave it out for one from the CA in [acme], or write certificate = \"internal\" for the \
                                edge's own CA (development), or certificate = { cert = \"….pem\", key = \"….pem\" }";

/// The most names that a CA puts into one certificate.
const MAX_NAMES: usize = 100;

/// Last labels that the public DNS does not have: RFC 6761 section 6, RFC 6762 section 3, ICANN's for private use, and routers'.
static PRIVATE: &[&str] = &["localhost", "local", "internal", "test", "invalid", "example", "lan"];

/// What a site takes over from the rest of the file.
pub(super) struct Defaults<'a> {
    pub(super) body: u64,
    pub(super) client_ca: Option<(PathBuf, Place)>,
    /// Whether a CA can be shown that a wildcard is ours.
    pub(super) wildcards: bool,
    /// Whether certificates come from CAs alone that every browser trusts.
    pub(super) public_cas: bool,
    pub(super) home: &'a Home<'a>,
}

/// Reads every `[[site]]`.
pub(super) fn read(root: &Table<'_>, ports: &Ports, sources: &Sources, defaults: &Defaults<'_>) -> Vec<Site> {
    if ports.any_https(&ports.all()) {
        root.want("site");
    }
    let tables = root.tables("site");
    let mut claims = Vec::new();
    let sites = tables.iter().filter_map(|table| one(table, ports, sources, defaults, &mut claims)).collect();
    names::refuse_clashes(&claims, ports, root.report);
    sites
}

fn one(
    table: &Table<'_>,
    ports: &Ports,
    sources: &Sources,
    defaults: &Defaults<'_>,
    claims: &mut Vec<names::Claim>,
) -> Option<Site> {
    let domains = table.get("domains").map(|value| names::domains(&value)).unwrap_or_default();
    let redirect = table.get("redirect").map(|value| names::redirects(&value)).unwrap_or_default();
    want_canonical(table, &domains, redirect.is_empty());
    let rows = rows(table, ports);
    let redirected = redirect.iter().map(|(name, place)| (HostPattern::Exact(name.clone()), place.clone()));
    claims.extend(domains.iter().cloned().chain(redirected).map(|(name, place)| names::Claim {
        name,
        place,
        rows: rows.clone(),
    }));
    let (certificate, certificate_place) = certificate(table, defaults.home);
    if certificate == Some(Certificate::Acme) {
        refuse_unprovable(table, &domains, redirect.len(), defaults.wildcards);
        warn_of_private(table, &domains, defaults.public_cas);
    }
    let (client_ca, client_ca_place) = client_ca(table, defaults);
    let hsts = hsts(table, certificate.as_ref());
    let routes = routes(table, domains.iter().map(|(name, _)| name), sources, defaults);
    Some(Site {
        domains: domains.into_iter().map(|(name, _)| name).collect(),
        redirect: redirect.into_iter().map(|(name, _)| name).collect(),
        rows,
        gate: gate(table, sources),
        certificate: certificate?,
        certificate_place,
        client_ca,
        client_ca_place,
        hsts,
        errors: errors::read(table, sources, defaults.home),
        routes,
    })
}

/// What no CA would issue for.
fn refuse_unprovable(
    table: &Table<'_>,
    domains: &[(HostPattern, Place)],
    redirected: usize,
    wildcards: bool,
) {
    let wild = domains.iter().filter(|(name, _)| matches!(name, HostPattern::Wildcard(_)));
    for (name, place) in wild.clone().filter(|_| !wildcards) {
        let message =
            format!("a CA issues for \"{name}\" by the challenge dns-01 alone, which needs `dns` in [acme]");
        let help = format!("{}; or list the names one by one", dns::HELP);
        table.report.error(place, message, help);
    }
    let plain = domains.len() - wild.count() + redirected;
    if plain > MAX_NAMES {
        table.report.error(
            &table.place,
            format!("{plain} names, and a CA puts at most {MAX_NAMES} into one certificate"),
            "make two sites of it",
        );
    }
}

/// Names that are nobody's on the Internet: no CA that issues to the public may give a certificate for them.
fn warn_of_private(table: &Table<'_>, domains: &[(HostPattern, Place)], public_cas: bool) {
    let private = |name: &HostPattern| {
        let name = name.to_string();
        let top = name.rsplit('.').next().unwrap_or_default();
        PRIVATE.contains(&top) || name.ends_with(".home.arpa") || !name.contains('.')
    };
    for (name, place) in domains.iter().filter(|(name, _)| public_cas && private(name)) {
        let help =
            "write certificate = \"internal\" for the edge's own CA, or name a CA of your own in [acme]";
        table.report.warn(place, format!("no public CA issues for \"{name}\""), help);
    }
}

/// A redirect needs a whole name to lead to.
fn want_canonical(table: &Table<'_>, domains: &[(HostPattern, Place)], none_redirected: bool) {
    let canonical = domains.iter().any(|(name, _)| matches!(name, HostPattern::Exact(_)));
    if let (false, false, false, Some(value)) =
        (canonical, none_redirected, domains.is_empty(), table.get("redirect"))
    {
        value.refuse("`domains` has no whole name to redirect to", "put one in front of the wildcard");
    }
}

fn rows(table: &Table<'_>, ports: &Ports) -> Vec<RowId> {
    let Some(value) = table.get("ports") else { return ports.all() };
    let items = value.items().unwrap_or_default();
    let mut rows: Vec<RowId> = Vec::new();
    let mut whole = value.node.is_array();
    for item in &items {
        let row = ports.named(item);
        whole &= row.is_some();
        if row.is_some_and(|row| rows.contains(&row)) {
            item.refuse("this row is listed twice", "keep one of the two");
        }
        rows.extend(row);
    }
    if whole && !ports.any_https(&rows) {
        value.refuse("the site has no https row", "name one, as in ports = [80, 443]");
    }
    rows
}

pub(super) fn certificate(table: &Table<'_>, home: &Home<'_>) -> (Option<Certificate>, Place) {
    let Some(value) = table.get("certificate") else {
        return (table.lacks("certificate").then_some(Certificate::Acme), table.place.clone());
    };
    let place = value.place.clone();
    let certificate = match value.node.as_str() {
        Some("internal") => Some(Certificate::Internal),
        Some("acme") => Some(Certificate::Acme),
        Some(text) => {
            let near = did_you_mean(text, ["acme", "internal"].into_iter());
            value.refuse(
                format!("{text:?} is not a certificate"),
                if near.is_empty() { CERTIFICATE_HELP } else { &near },
            );
            None
        }
        None if value.node.is_table() => value.table(&CERTIFICATE).and_then(|table| files(&table, home)),
        None => {
            value.mismatch();
            None
        }
    };
    (certificate, place)
}

fn files(table: &Table<'_>, home: &Home<'_>) -> Option<Certificate> {
    let cert = table.get("cert").and_then(|value| pem(&value, home));
    let key = table.get("key").and_then(|value| pem(&value, home));
    Some(Certificate::Files { cert: cert?, key: key? })
}

/// The path of a PEM file, and not the PEM itself.
pub(super) fn pem(value: &Value<'_>, home: &Home<'_>) -> Option<PathBuf> {
    let text = value.text()?;
    if text.contains("PRIVATE KEY") {
        value.report.secret(&value.place, "put it in a file of mode 0600, and write the path of that file");
        return None;
    }
    if text.contains("-----BEGIN") {
        value.refuse(
            "this is PEM, and the path of a file is wanted",
            "put it in a file beside this one, and name that",
        );
        return None;
    }
    home.path(value)
}

fn client_ca(table: &Table<'_>, defaults: &Defaults<'_>) -> (Option<PathBuf>, Place) {
    match table.get("client_ca") {
        Some(value) => (pem(&value, defaults.home), value.place),
        None => match &defaults.client_ca {
            Some((path, place)) => (Some(path.clone()), place.clone()),
            None => (None, Place::default()),
        },
    }
}

fn hsts(table: &Table<'_>, certificate: Option<&Certificate>) -> Option<Duration> {
    let internal = certificate == Some(&Certificate::Internal);
    let Some(value) = table.get("hsts") else { return (!internal).then_some(HSTS) };
    match value.flag() {
        Some(false) => return None,
        Some(true) => value.refuse("true does not say for how long", "write \"365d\", or leave the key out"),
        None => {}
    }
    if let Some(seconds) = value.node.as_integer() {
        let typed = seconds
            .as_str()
            .parse()
            .map_or_else(|_| "365d".into(), |n| show_duration(Duration::from_secs(n)));
        value.refuse(
            format!("expected {}, found a whole number", value.kind().expected()),
            format!("write \"{typed}\""),
        );
        return None;
    }
    let age = value.node.as_bool().is_none().then(|| value.duration()).flatten()?;
    if age.subsec_millis() != 0 {
        value.refuse("Strict-Transport-Security counts whole seconds", "write \"365d\"");
    }
    if internal && !age.is_zero() {
        let help = "browsers will refuse the name with any other certificate, long after this CA is gone";
        value.report.warn(&value.place, "Strict-Transport-Security on a site with the edge's own CA", help);
    }
    Some(age)
}

fn routes<'d>(
    table: &Table<'_>,
    domains: impl Iterator<Item = &'d HostPattern>,
    sources: &Sources,
    defaults: &Defaults<'_>,
) -> Vec<Route> {
    let section = table.section("proxy");
    let timeouts = proxy::read(&section, domains);
    let targets = table.get("upstream").and_then(|value| target::read(&value, defaults.home));
    let proxy = targets.map(|targets| Proxy { targets, ..timeouts.clone() });
    let (of_all, buffers) =
        (BodyLimit { octets: defaults.body, set_by: SetBy::Limits }, proxy::buffers(&section));
    let body = table.size("body").map_or(of_all, |octets| BodyLimit { octets, set_by: SetBy::Site });
    let policy = Policy {
        headers: headers::read(&section, &Headers::default()),
        rate: rate::of_site(table),
        compress: compress::read(table, None),
        auth: auth::read(table, defaults.home, None),
    };
    let inherited = Inherited {
        proxy: proxy.as_ref(),
        has_upstream: !table.lacks("upstream"),
        timeouts: &timeouts,
        body,
        buffers,
        policy: &policy,
        sources,
        home: defaults.home,
    };
    let tables = table.tables("route");
    if tables.is_empty() && table.lacks("upstream") && table.lacks("route") {
        let help = "give it an upstream, as in upstream = \"django:8000\"";
        table.report.error(&table.place, "nothing answers on this site", help);
    }
    let mut routes = route::read(&tables, &inherited);
    let root = PathPattern::Prefix("/".into());
    if let Some(proxy) = proxy.filter(|_| routes.iter().all(|route| route.path != root)) {
        routes.push(Route {
            path: root,
            gate: Gate::open(),
            body,
            buffers,
            action: Action::Proxy(proxy),
            policy,
            files_place: Place::default(),
        });
    }
    if !routes.iter().any(|route| matches!(route.action, Action::Proxy(_))) {
        files::warn_of_unreachable(&tables);
    }
    routes
}
