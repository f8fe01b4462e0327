//! What was typed → what is true: one file a table.

mod acme;
mod admin;
mod auth;
mod compress;
mod dns;
mod edge;
mod errors;
mod files;
mod forward;
mod headers;
mod listing;
mod names;
mod ports;
mod proxy;
mod rate;
mod route;
mod secrets;
mod site;
mod sources;
mod target;
mod trace;

pub(crate) use listing::read_bounded;
pub(super) use secrets::report as report_secrets;
pub(crate) use sources::read_again as read_source;

use std::path::{Path, PathBuf};

use super::model::{Config, Site};
use super::raw::{Table, Value};

/// Reads the whole document. What it returns is true only where nothing was reported.
pub(super) fn config(root: &Table<'_>, file: &Path) -> Config {
    let home = Home(file.parent().unwrap_or(Path::new("")));
    let sources = sources::read(root, &home);
    let mut ports = ports::read(root, &sources, &home);
    let limits = edge::limits(root);
    let tls = root.section("tls");
    let client_ca = edge::client_ca(&tls, &home);
    let table = root.get("acme").and_then(|value| value.node.as_table());
    let wildcards = table.is_some_and(|acme| acme.get("dns").is_some());
    let acme = acme::read(root, &home);
    let public_cas = acme.cas.iter().all(acme::is_public);
    let defaults = site::Defaults { body: limits.body, client_ca, wildcards, public_cas, home: &home };
    let sites = site::read(root, &ports, &sources, &defaults);
    let named = forward::certify(ports.take_named(), &sites, &ports.all(), &defaults, root.report);
    let admin = admin::read(root, &ports, &sources);
    let client_address = edge::client_address(root, &sources);
    let (rows, host_rows) = ports.into_rows();
    let (sources, source_files) = sources.into_lists();
    let config = Config {
        sites,
        named,
        tls: edge::tls(&tls),
        store: edge::store(root, &home),
        acme,
        client_address,
        limits,
        log: edge::log(root),
        admin,
        trace: trace::read(root, &home),
        process: edge::process(root),
        rows,
        host_rows,
        sources,
        source_files,
    };
    warn_of_unused(root, &config);
    config
}

/// The directory of the configuration file, to which what the edge reads is relative.
struct Home<'a>(&'a Path);

impl Home<'_> {
    fn resolve(&self, path: &str) -> PathBuf {
        self.0.join(path)
    }

    /// A path that was typed.
    fn path(&self, value: &Value<'_>) -> Option<PathBuf> {
        path(value).map(|path| self.resolve(path))
    }
}

/// Text that can be a path: not empty, no NUL.
fn path<'a>(value: &Value<'a>) -> Option<&'a str> {
    let text = value.text()?;
    if text.is_empty() || text.contains('\0') {
        value.refuse(format!("{text:?} is not a path"), "");
        return None;
    }
    Some(text)
}

/// A row that no site uses, a source that nothing names.
fn warn_of_unused(root: &Table<'_>, config: &Config) {
    let report = root.report;
    let entries = |name| root.get(name).and_then(|value| value.table_entries()).unwrap_or_default();
    if !report.problems.borrow().is_empty() {
        return;
    }
    let host = |value: &Value<'_>| value.node.as_table().is_some_and(|table| table.contains_key("host"));
    let rows = entries("ports").into_iter().filter(|(.., value)| !host(value));
    for (((name, place, _), row), id) in rows.zip(&config.rows).zip(0..) {
        let used = |site: &Site| site.rows.iter().any(|own| own.0 == id);
        if row.serve().is_some() && !config.certified().any(used) {
            report.warn(
                &place,
                format!("no site uses the row {name}"),
                "name it in a site's `ports`, or leave it out",
            );
        }
    }
    for (name, place, _) in entries("sources") {
        if !is_named(config, name) {
            report.warn(&place, format!("nothing names the source `{name}`"), "");
        }
    }
}

fn is_named(config: &Config, name: &str) -> bool {
    let sources = config.sources_in_use();
    sources.into_iter().any(|source| &*source.name == name)
}
