//! What a reload changes, told by the names that people typed.

use std::collections::HashMap;

use crate::addr::{Gate, Source};
use crate::admin::{Changes, Difference};
use crate::config::model::{AddressHeader, Bind, Config, HostRow, Row, RowId, Site};
use crate::name::Hostname;
use crate::route::Pages;
use crate::snapshot::Snapshot;

/// What is different in `new`.
pub(super) fn difference(old: &Config, new: &Config) -> Difference {
    Difference {
        rows: rows(old, new),
        sites: changes(old.sites.iter().map(by_name), new.sites.iter().map(by_name), |a, b| {
            same_site((old, a), (new, b))
        }),
        sources: changes(old.sources.iter().map(by_source), new.sources.iter().map(by_source), |a, b| {
            a.members == b.members
        }),
        tables: tables(old, new),
        restart: restart(old, new),
    }
}

/// Adds the sites whose pages say something else, though their files are called as before.
pub(super) fn add_pages(difference: &mut Difference, old: &Snapshot, new: &Snapshot) {
    let before: HashMap<_, _> = pages(old).collect();
    let changed = pages(new).filter(|(name, pages)| before.get(name).is_some_and(|old| old != pages));
    let told = &mut difference.sites.changed;
    for (name, _) in changed {
        if !told.contains(&name) {
            told.push(name);
        }
    }
}

fn pages(snapshot: &Snapshot) -> impl Iterator<Item = (String, &Pages)> {
    let names = snapshot.config.sites.iter().map(|site| by_name(site).0);
    names.zip(snapshot.table.sites().iter().map(|entry| &entry.pages))
}

/// Those of the edge, and those of the host's own, which only `vestibule firewall` acts on.
fn rows(old: &Config, new: &Config) -> Changes {
    let own = changes(old.rows.iter().map(by_key), new.rows.iter().map(by_key), same_row);
    let host = changes(old.host_rows.iter().map(by_port), new.host_rows.iter().map(by_port), |a, b| {
        same_gate(&a.gate, &b.gate)
    });
    Changes {
        added: [own.added, host.added].concat(),
        removed: [own.removed, host.removed].concat(),
        changed: [own.changed, host.changed].concat(),
    }
}

/// Puts back what cannot change while the edge runs, so that `new` is what will be true.
pub(super) fn keep_fixed(old: &Config, new: &mut Config) {
    new.store.clone_from(&old.store);
    new.log.format = old.log.format;
    new.admin.socket.clone_from(&old.admin.socket);
    new.process.workers = old.process.workers;
    new.process.user.clone_from(&old.process.user);
    for row in &mut new.rows {
        if let Some(old) = old.rows.iter().find(|old| old.bind == row.bind) {
            row.backlog = old.backlog;
        }
    }
}

fn restart(old: &Config, new: &Config) -> Vec<String> {
    let backlogs = new.rows.iter().filter_map(|row| {
        let old = old.rows.iter().find(|old| old.bind == row.bind)?;
        (old.backlog != row.backlog).then(|| format!("[ports] {} backlog", row.bind))
    });
    let keys = [
        ("[store] path", old.store.path != new.store.path),
        ("[store] key", old.store.key != new.store.key),
        ("[log] format", old.log.format != new.log.format),
        ("[admin] socket", old.admin.socket != new.admin.socket),
        ("[process] workers", old.process.workers != new.process.workers),
        ("[process] user", old.process.user != new.process.user),
    ];
    backlogs.chain(named(&keys)).collect()
}

fn tables(old: &Config, new: &Config) -> Vec<String> {
    named(&[
        ("[acme]", old.acme != new.acme),
        ("[tls]", old.tls != new.tls),
        ("[client_address]", believed(old) != believed(new)),
        ("[limits]", old.limits != new.limits),
        ("[log]", (&old.log.access, old.log.level) != (&new.log.access, new.log.level)),
        ("[trace]", old.trace != new.trace),
        ("[admin] listen", shown(old) != shown(new)),
        ("[process] grace", old.process.grace != new.process.grace),
    ])
    .collect()
}

fn believed(config: &Config) -> Option<(Vec<&str>, AddressHeader)> {
    config.client_address.as_ref().map(|table| (names(&table.trusted), table.header))
}

fn shown(config: &Config) -> Option<(Bind, Vec<&str>, &[Hostname])> {
    config.admin.listen.as_ref().map(|listen| (listen.bind, names(&listen.allow), &*listen.hosts))
}

fn named(keys: &[(&str, bool)]) -> impl Iterator<Item = String> {
    keys.iter().filter(|(_, differs)| *differs).map(|(key, _)| (*key).to_owned())
}

fn changes<'a, T: 'a>(
    old: impl Iterator<Item = (String, &'a T)>,
    new: impl Iterator<Item = (String, &'a T)>,
    same: impl Fn(&T, &T) -> bool,
) -> Changes {
    let old: Vec<_> = old.collect();
    let mut left: HashMap<String, &T> = old.iter().cloned().collect();
    let mut changes = Changes::default();
    for (name, value) in new {
        match left.remove(&name) {
            None => changes.added.push(name),
            Some(before) if !same(before, value) => changes.changed.push(name),
            Some(_) => {}
        }
    }
    changes.removed = old.into_iter().map(|(name, _)| name).filter(|name| left.contains_key(name)).collect();
    changes
}

fn by_key(row: &Row) -> (String, &Row) {
    (row.bind.to_string(), row)
}

fn by_port(row: &HostRow) -> (String, &HostRow) {
    (row.bind.to_string(), row)
}

fn by_name(site: &Site) -> (String, &Site) {
    (site.domains.first().map(ToString::to_string).unwrap_or_default(), site)
}

fn by_source(source: &Source) -> (String, &Source) {
    (source.name.to_string(), source)
}

fn same_row(a: &Row, b: &Row) -> bool {
    a.kind == b.kind
        && same_gate(&a.gate, &b.gate)
        && a.proxy_protocol.as_deref().map(names) == b.proxy_protocol.as_deref().map(names)
        && a.max_connections == b.max_connections
        && a.max_connections_per_client == b.max_connections_per_client
}

/// Rows are compared by where they listen and gates by the names of their sources; a source that has changed is
/// told of by itself.
fn same_site((old, a): (&Config, &Site), (new, b): (&Config, &Site)) -> bool {
    let binds = |config: &Config, site: &Site| -> Vec<_> {
        let bind = |id: &RowId| config.rows.get(id.0).map(|row| row.bind);
        site.rows.iter().map(bind).collect()
    };
    let same_routes = || {
        a.routes.len() == b.routes.len()
            && a.routes.iter().zip(&b.routes).all(|(a, b)| {
                a.path == b.path
                    && same_gate(&a.gate, &b.gate)
                    && a.body == b.body
                    && a.buffers == b.buffers
                    && a.action == b.action
                    && a.policy == b.policy
            })
    };
    a.domains == b.domains
        && a.redirect == b.redirect
        && binds(old, a) == binds(new, b)
        && same_gate(&a.gate, &b.gate)
        && a.certificate == b.certificate
        && a.client_ca == b.client_ca
        && a.hsts == b.hsts
        && a.errors.is_same(&b.errors)
        && same_routes()
}

fn same_gate(a: &Gate, b: &Gate) -> bool {
    names(&a.allow) == names(&b.allow) && names(&a.deny) == names(&b.deny)
}

fn names(sources: &[Source]) -> Vec<&str> {
    sources.iter().map(|source| &*source.name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    const BASE: &str = r#"
        [sources]
        office = ["192.0.2.0/24"]
        [ports]
        "127.0.0.1:80" = { serve = "http", allow = ["public"] }
        "127.0.0.1:443" = { serve = "https", allow = ["public"], deny = ["office"] }
        [[site]]
        domains = ["a.example.com"]
        upstream = "django:8000"
        certificate = "internal"
        [[site]]
        domains = ["b.example.com"]
        upstream = "django:8001"
        certificate = "internal"
    "#;

    fn parsed(text: &str) -> Config {
        config::parse(text.to_owned(), "edge.toml".as_ref())
            .unwrap_or_else(|problems| panic!("{problems}"))
            .config
    }

    #[test]
    fn changes_are_named() {
        for (from, to, expected) in [
            ("domains", "# moved down\n domains", ""),
            ("192.0.2.0", "198.51.100.0", "~ source office"),
            (
                "127.0.0.1:80\"",
                "127.0.0.1:81\"",
                "+ row 127.0.0.1:81\n- row 127.0.0.1:80\n~ site a.example.com\n~ site b.example.com",
            ),
            (", deny = [\"office\"]", ", deny = [\"office\"], max_connections = 7", "~ row 127.0.0.1:443"),
            (
                ", deny = [\"office\"]",
                ", deny = [\"office\"], max_connections_per_client = 7",
                "~ row 127.0.0.1:443",
            ),
            ("[ports]", "[ports]\n22 = { host = true, allow = [\"office\"] }", "+ row 22"),
            (
                ", deny = [\"office\"]",
                ", deny = [\"office\"], backlog = 7",
                "! [ports] 127.0.0.1:443 backlog takes a restart",
            ),
            ("b.example.com", "c.example.com", "+ site c.example.com\n- site b.example.com"),
            ("django:8001", "django:8002", "~ site b.example.com"),
            (
                "[sources]",
                "[limits]\nbody = \"1MiB\"\n[sources]",
                "~ site a.example.com\n~ site b.example.com\n~ [limits]",
            ),
            ("[sources]", "[tls]\nmin_version = \"1.3\"\n[sources]", "~ [tls]"),
            ("[sources]", "[admin]\nlisten = \"127.0.0.1:9180\"\n[sources]", "~ [admin] listen"),
            ("[sources]", "[process]\nworkers = 77\n[sources]", "! [process] workers takes a restart"),
            ("[sources]", "[store]\npath = \"x\"\n[sources]", "! [store] path takes a restart"),
        ] {
            let (old, new) = (parsed(BASE), parsed(&BASE.replacen(from, to, 1)));
            assert_eq!(difference(&old, &new).to_string(), expected, "{from} → {to}");
        }
    }

    #[test]
    fn what_is_fixed_stays() {
        let old = parsed(BASE);
        let head = "[process]\nworkers = 77\ngrace = \"7s\"\n[admin]\nsocket = \"x.sock\"\n[sources]";
        let mut new = parsed(&BASE.replacen("[sources]", head, 1));
        keep_fixed(&old, &mut new);
        assert_eq!(difference(&old, &new).to_string(), "~ [process] grace");
    }
}
