//! What `vestibule check` shows: the firewall matrix and the sites.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::{AccessFlags, faccessat};

use super::{ConfigFile, Failure, files, matrix, print};
use crate::acme;
use crate::acme::store::{self, Seal};
use crate::addr::Gate;
use crate::config::model::{
    AccessLog, Action, Certificate, Config, FileCache, Files, Place, Rate, Route, RowId, Secret, Site,
    Webhook,
};
use crate::config::problem::{Problem, Problems, render};
use crate::config::{self, Loaded, show_duration};
use crate::firewall::Plan;
use crate::runtime;
use crate::snapshot::Snapshot;
use crate::tls::Shared;

/// Runs the command.
pub(super) fn run(config: ConfigFile) -> Result<(), Failure> {
    let (loaded, mut problems) = config::inspect(&files::config_file(config.config)?)?;
    let as_root = runtime::is_root();
    if as_root {
        // `serve` reads certificates as this user too, and what only root can read it cannot.
        runtime::assume(loaded.config.process.user.as_deref()).map_err(Failure::new)?;
    }
    let shared = Shared::new().map_err(Failure::new)?;
    let (read, mut more) = Snapshot::check(&loaded, &shared);
    let read = read
        .into_iter()
        .chain(runtime::unreadable(&loaded))
        .chain(secrets(&loaded))
        .chain(homeless_log(&loaded));
    // What was not read in the first place is nothing to say more about.
    let known: Vec<Place> = problems.iter().map(|problem| problem.place.clone()).collect();
    problems.extend(read.filter(|problem| !known.contains(&problem.place)));
    Problems::check(&loaded.source, problems)?;
    more.extend(odd_store(&loaded));
    more.extend(barred(&loaded, as_root));
    print(&report(&loaded))?;
    let warnings = loaded.warning_text() + &render("warning", &loaded.source, &more);
    let _ = io::stderr().write_all(warnings.as_bytes());
    Ok(())
}

/// Secrets that cannot be read, or are not what they should be.
fn secrets(loaded: &Loaded) -> Vec<Problem> {
    let config = &loaded.config;
    if !config.asks_a_ca() {
        return Vec::new();
    }
    let seal = |secret: &Secret| {
        let sealed = secret.read().and_then(|key| Seal::new(&key).map_err(|error| error.to_string()));
        Some(Problem::new(secret.place.clone(), sealed.err()?, ""))
    };
    let (hook, webhook) = acme::check_notices(&config.acme);
    let place = |key: &str| loaded.place("acme", key);
    let webhook_at = match &config.acme.webhook {
        Some(Webhook::Secret(secret)) => secret.place.clone(),
        _ => place("webhook"),
    };
    let notices = [(hook, place("hook")), (webhook, webhook_at)];
    let notices = notices.into_iter().filter_map(|(end, place)| Some(Problem::new(place, end.err()?, "")));
    config.store.key.iter().filter_map(seal).chain(acme::unusable(loaded)).chain(notices).collect()
}

/// An access log that could not be opened. One that is named relatively may be opened from another directory.
fn homeless_log(loaded: &Loaded) -> Option<Problem> {
    let AccessLog::File(path) = &loaded.config.log.access else { return None };
    let folder = path.parent().filter(|folder| folder.is_absolute())?;
    let wrong =
        |message: String, help: &str| Some(Problem::new(loaded.place("log", "access"), message, help));
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => {
            wrong(format!("{} is a directory", path.display()), "name a file in it")
        }
        Err(_) if !folder.is_dir() => wrong(format!("{} is no directory", folder.display()), "make it first"),
        _ => None,
    }
}

/// A store that would not outlive the machine or the container, or that others may write to.
fn odd_store(loaded: &Loaded) -> Vec<Problem> {
    let path = &loaded.config.store.path;
    let volatile = store::volatile(path).filter(|_| loaded.config.asks_a_ca());
    let place = loaded.place("store", "path");
    let told = volatile.into_iter().chain(store::exposed(path));
    told.map(|message| Problem::new(place.clone(), message, "")).collect()
}

/// Where `serve` will have to write, or to find certbot's certificates, and whoever runs the check could not. Only a warning: it
/// may be run by somebody else, or on another machine. Root does most of it before it becomes `[process] user`.
fn barred(loaded: &Loaded, as_root: bool) -> Vec<Problem> {
    let config = &loaded.config;
    let (write, read) = (AccessFlags::W_OK, AccessFlags::R_OK);
    let mut places = Vec::new();
    if !as_root || config.process.user.is_none() {
        if config.asks_a_ca() {
            places.push(("store", "path", config.store.path.join("acme"), write));
            places.extend(config.acme.import.iter().map(|home| ("acme", "import", home.join("live"), read)));
        }
        places
            .extend(config.admin.socket.parent().map(|folder| ("admin", "socket", folder.to_owned(), write)));
    }
    if let AccessLog::File(path) = &config.log.access {
        places.push(("log", "access", path.clone(), write));
    }
    let told = |(table, key, path, asked): (&str, &str, PathBuf, _)| {
        let help = "let the user that the edge runs as do so, or name another place";
        Some(Problem::new(loaded.place(table, key), denied(&path, asked)?, help))
    };
    places.into_iter().filter_map(told).collect()
}

/// Why what is at a path, or could be made there, is out of this user's reach; None where it is not.
fn denied(path: &Path, asked: AccessFlags) -> Option<String> {
    let there = path.ancestors().find(|part| part.exists())?;
    let enter = if there.is_dir() { AccessFlags::X_OK } else { AccessFlags::empty() };
    let error = faccessat(AT_FDCWD, there, asked | enter, AtFlags::AT_EACCESS).err()?;
    let verb = if asked.contains(AccessFlags::W_OK) { "write" } else { "read" };
    let user = nix::unistd::geteuid();
    Some(format!("{}: user {user} may not {verb} there: {}", there.display(), error.desc()))
}

/// The matrix and the sites, as plain text that ends in a line feed.
pub fn report(loaded: &Loaded) -> String {
    let config = &loaded.config;
    let mut out = String::from("FIREWALL (a port without a row is closed)\n");
    matrix::draw(&mut out, config, &Plan::new(config, Vec::new()));
    for site in &config.sites {
        out.push('\n');
        describe(&mut out, config, site);
    }
    out
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
        Action::Proxy(proxy) => matrix::targets(proxy),
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
    let deny =
        if gate.deny.is_empty() { String::new() } else { format!(", not {}", matrix::names(&gate.deny)) };
    format!("{}{deny}", matrix::names(&gate.allow))
}
