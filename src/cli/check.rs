//! What `vestibule check` shows: the firewall matrix and the sites.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use super::{ConfigFile, Failure, files, print};
use crate::acme;
use crate::acme::store::{self, Seal};
use crate::addr::{Gate, Source};
use crate::config::model::{
    Action, Bind, Certificate, Config, DnsProvider, FileCache, Files, Kind, Place, Rate, Route, Row, RowId,
    Secret, Serve, Site, Webhook,
};
use crate::config::problem::{Problem, Problems, render};
use crate::config::{self, Loaded, show_duration};
use crate::runtime;
use crate::snapshot::Snapshot;
use crate::tls::Shared;

/// The widest that the matrix gets before its columns go on below, in characters.
const WIDTH: usize = 100;

/// Runs the command.
pub(super) fn run(config: ConfigFile) -> Result<(), Failure> {
    let loaded = config::load(&files::config_file(config.config)?)?;
    if runtime::is_root() {
        // `serve` reads certificates as this user too, and what only root can read it cannot.
        runtime::assume(loaded.config.process.user.as_deref()).map_err(Failure::new)?;
    }
    let shared = Shared::new().map_err(Failure::new)?;
    let mut more = Snapshot::check(&loaded, &shared)?;
    Problems::check(&loaded.source, secrets(&loaded.config))?;
    more.extend(volatile(&loaded.config));
    print(&report(&loaded))?;
    let warnings = loaded.warning_text() + &render("warning", &loaded.source, &more);
    let _ = io::stderr().write_all(warnings.as_bytes());
    Ok(())
}

/// Whether certificates come from a CA at all: what is only for them is else of no interest.
fn asks_a_ca(config: &Config) -> bool {
    config.sites.iter().any(|site| site.certificate == Certificate::Acme)
}

/// Secrets that cannot be read, or are not what they should be.
fn secrets(config: &Config) -> Vec<Problem> {
    if !asks_a_ca(config) {
        return Vec::new();
    }
    let wrong = |secret: &Secret, use_it: &dyn Fn(&[u8]) -> Result<(), String>| {
        let message = secret.read().and_then(|bytes| use_it(&bytes)).err()?;
        Some(Problem::new(secret.place.clone(), message, ""))
    };
    let key =
        config.store.key.iter().filter_map(|key| {
            wrong(key, &|bytes| Seal::new(bytes).map(drop).map_err(|error| error.to_string()))
        });
    let dns = config.acme.dns.iter().filter_map(|dns| {
        let place = match &dns.provider {
            DnsProvider::Rfc2136 { key: secret, .. } | DnsProvider::Cloudflare { token: secret, .. } => {
                secret.place.clone()
            }
            DnsProvider::Exec { .. } => Place { path: "acme.dns.command".into(), ..Place::default() },
        };
        Some(Problem::new(place, acme::check_dns(dns).err()?, ""))
    });
    let (hook, webhook) = acme::check_notices(&config.acme);
    let place = |key: &str| Place { path: format!("acme.{key}"), ..Place::default() };
    let webhook_at = match &config.acme.webhook {
        Some(Webhook::Secret(secret)) => secret.place.clone(),
        _ => place("webhook"),
    };
    let notices = [(hook, place("hook")), (webhook, webhook_at)];
    let notices = notices.into_iter().filter_map(|(end, place)| Some(Problem::new(place, end.err()?, "")));
    let bindings = config.acme.cas.iter().filter_map(|ca| ca.eab.as_ref());
    key.chain(bindings.filter_map(|eab| wrong(&eab.hmac, &|_| Ok(())))).chain(dns).chain(notices).collect()
}

/// A store that would not outlive the machine or the container.
fn volatile(config: &Config) -> Option<Problem> {
    let message = store::volatile(&config.store.path).filter(|_| asks_a_ca(config))?;
    Some(Problem::new(Place { path: "store.path".into(), ..Place::default() }, message, ""))
}

/// The matrix and the sites, as plain text that ends in a line feed.
pub fn report(loaded: &Loaded) -> String {
    let config = &loaded.config;
    let mut out = String::from("FIREWALL (a port without a row is closed)\n");
    matrix(&mut out, config);
    notes(&mut out, config);
    for site in &config.sites {
        out.push('\n');
        describe(&mut out, config, site);
    }
    out
}

/// Rows are ports, columns are sources. A source that `public` lets in is let in.
fn matrix(out: &mut String, config: &Config) {
    let public = Source::public();
    let sources: Vec<&Source> = std::iter::once(&public).chain(&config.sources).collect();
    let heads: Vec<String> = config.rows.iter().map(row_name).collect();
    let head_width = heads.iter().map(String::len).chain(["port / source".len()]).max().unwrap_or(0);
    for block in blocks(&sources, WIDTH.saturating_sub(head_width)) {
        let mut line = |head: &str, cell: &dyn Fn(&Source) -> &str| {
            let _ = write!(out, "\n  {head:head_width$}");
            for source in block {
                let _ = write!(out, "  {:1$}", cell(source), column(source));
            }
            out.truncate(out.trim_end_matches(' ').len());
        };
        line("port / source", &|source| &source.name);
        for (row, head) in config.rows.iter().zip(&heads) {
            line(head, &|source| cell(&row.gate, source));
        }
        out.push('\n');
    }
}

/// The sources in as many blocks as the width asks for.
fn blocks<'s, 'a>(sources: &'s [&'a Source], width: usize) -> Vec<&'s [&'a Source]> {
    let mut used = sources.first().map_or(0, |first| column(first) + 2);
    let fits = |_: &&Source, next: &&Source| {
        let wanted = column(next) + 2;
        let fits = used + wanted <= width;
        used = if fits { used + wanted } else { wanted };
        fits
    };
    sources.chunk_by(fits).collect()
}

fn column(source: &Source) -> usize {
    source.name.len().max("allow".len())
}

fn cell(gate: &Gate, source: &Source) -> &'static str {
    let named = |list: &[Source]| list.iter().any(|other| other.name == source.name);
    let everyone = gate.allow.iter().any(|other| other.members.is_none());
    if named(&gate.deny) {
        "deny"
    } else if named(&gate.allow) || everyone {
        "allow"
    } else {
        ""
    }
}

fn row_name(row: &Row) -> String {
    let kind = match row.kind {
        Kind::Serve(Serve::Http) => "HTTP",
        Kind::Serve(Serve::Https) => "HTTPS",
        Kind::Forward(_) => "TCP",
    };
    format!("{kind} {}", row.bind)
}

/// What the cells cannot say.
fn notes(out: &mut String, config: &Config) {
    let mut notes = Vec::new();
    for row in &config.rows {
        let (name, port) = (row_name(row), row.bind.port());
        if row.bind.address().is_some() && config.rows.iter().any(|other| other.bind == Bind::All(port)) {
            notes.push(format!("{name} rules its own address, and {port} the rest"));
        }
        if let Some(peers) = &row.proxy_protocol {
            notes.push(format!("{name} is reached through {} alone, with a PROXY header", names(peers)));
        }
    }
    if let Some(client) = &config.client_address {
        notes.push(format!("the client's address is believed from {}", names(&client.trusted)));
    }
    if let Some(listen) = &config.admin.listen {
        let own = listen.bind.address().is_some_and(|ip| ip.is_loopback());
        let whom = if own { "this machine".to_owned() } else { names(&listen.allow) };
        notes.push(format!("metrics and health are shown to {whom} at {}", listen.bind));
    }
    for (index, note) in notes.iter().enumerate() {
        let gap = if index == 0 { "\n" } else { "" };
        let _ = writeln!(out, "{gap}  {note}");
    }
}

fn describe(out: &mut String, config: &Config, site: &Site) {
    let domains: Vec<String> = site.domains.iter().map(ToString::to_string).collect();
    let _ = writeln!(out, "SITE {}", domains.join(", "));
    let mut fact = |name: &str, value: &str| {
        let _ = writeln!(out, "  {name:<12} {value}");
    };
    if !site.redirect.is_empty() {
        let redirect: Vec<&str> = site.redirect.iter().map(crate::name::Hostname::as_str).collect();
        fact("redirected", &redirect.join(", "));
    }
    fact("ports", &rows(config, &site.rows));
    match &site.certificate {
        Certificate::Acme => {
            let cas: Vec<&str> = config.acme.cas.iter().map(|ca| ca.name.as_str()).collect();
            fact("certificate", &format!("acme ({})", cas.join(", then ")));
        }
        Certificate::Internal => fact("certificate", "internal (the edge's own CA)"),
        Certificate::Files { cert, key } => {
            fact("certificate", &cert.display().to_string());
            fact("key", &key.display().to_string());
        }
    }
    if let Some(path) = &site.client_ca {
        fact("clients", &format!("need a certificate of {}", path.display()));
    }
    fact("hsts", &site.hsts.map_or_else(|| "off".into(), show_duration));
    fact("who", &gate(&site.gate));
    let limited =
        site.routes.iter().find_map(|route| route.policy.rate.as_ref().filter(|own| own.route.is_none()));
    if let Some(limited) = limited {
        fact("rate", &rate(&limited.rate));
    }
    routes(out, site);
}

fn rows(config: &Config, ids: &[RowId]) -> String {
    let names: Vec<String> =
        ids.iter().filter_map(|id| config.rows.get(id.0)).map(|row| row.bind.to_string()).collect();
    names.join(", ")
}

fn routes(out: &mut String, site: &Site) {
    let lines: Vec<[String; 3]> = site.routes.iter().map(route).collect();
    let longest = |column: usize| {
        lines.iter().filter_map(|line| line.get(column)).map(|text| text.chars().count()).max()
    };
    let (path, who) = (longest(0).unwrap_or(0), longest(1).unwrap_or(0));
    for (index, [first, second, third]) in lines.iter().enumerate() {
        let name = if index == 0 { "routes" } else { "" };
        let _ = writeln!(out, "  {name:<12} {first:path$}  {second:who$}  {third}");
    }
}

fn route(route: &Route) -> [String; 3] {
    let target = match &route.action {
        Action::Proxy(proxy) => proxy.targets.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        Action::Redirect { to, status } => format!("{status} to {to}"),
        Action::Files(files) => folder(files),
    };
    let own = route.policy.rate.as_ref().filter(|limited| limited.route.is_some());
    let rate = own.map(|limited| format!(", {}", rate(&limited.rate))).unwrap_or_default();
    let password = if route.policy.auth.is_some() { ", with a password" } else { "" };
    [route.path.to_string(), gate(&route.gate), format!("→ {target}{rate}{password}")]
}

fn rate(rate: &Rate) -> String {
    let Rate { per, limit, every, burst } = rate;
    format!("{limit} in {}, {} at once, by {per}", show_duration(*every), burst + 1)
}

fn folder(files: &Files) -> String {
    let mut text = format!("files in {}", files.folder.display());
    match files.cache {
        FileCache::Unsaid => {}
        FileCache::For(age) => text.extend([", cached for ", &show_duration(age)]),
        FileCache::Immutable => text.push_str(", hashed names cached for ever"),
    }
    for (said, what) in [(files.internal, ", through X-Accel-Redirect alone"), (files.sandbox, ", sandboxed")]
    {
        text += if said { what } else { "" };
    }
    text
}

fn gate(gate: &Gate) -> String {
    let deny = if gate.deny.is_empty() { String::new() } else { format!(", not {}", names(&gate.deny)) };
    format!("{}{deny}", names(&gate.allow))
}

fn names(sources: &[Source]) -> String {
    sources.iter().map(|source| &*source.name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::parse;

    fn shown(more: &str) -> String {
        let site = "[[site]]\ndomains = ['a.example']\nupstream = 'a:80'\ncertificate = 'internal'\n";
        report(&parse(format!("{more}\n{site}"), Path::new("edge.toml")).unwrap())
    }

    #[test]
    fn deny_goes_before_allow_and_public_lets_everyone_in() {
        let out = shown(
            "[sources]\nhq = ['203.0.113.0/24']\nabuse = ['192.0.2.0/24']\n[ports]\n\
             443 = { serve = 'https', allow = ['public'], deny = ['abuse'] }\n\
             8443 = { serve = 'https', allow = ['hq'] }",
        );
        let expected = "\n  port / source  public  hq     abuse\n  HTTPS 443      allow   allow  deny\n  \
                        HTTPS 8443             allow\n";
        assert!(out.contains(expected), "{out}");
    }

    #[test]
    fn a_wide_matrix_goes_on_below() {
        let sources: Vec<String> = (0..30).map(|i| format!("source-{i} = ['192.0.2.{i}']\n")).collect();
        let out = shown(&format!("[sources]\n{}", sources.concat()));
        assert!(out.lines().all(|line| line.len() <= WIDTH + 10), "{out}");
        assert!(out.matches("port / source").count() > 1, "{out}");
        assert!((0..30).all(|i| out.contains(&format!("source-{i}"))), "{out}");
    }
}
