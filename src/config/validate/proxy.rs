//! `[site.proxy]`: how what stands behind a site is spoken to.

use std::sync::Arc;

use super::super::model::{Balance, Buffers, Health, PathPattern, Proxy};
use super::super::raw::{Table, Value};
use crate::name::{HostPattern, Hostname};

/// What a route may say of buffers.
const BUFFERS: [&str; 3] = ["buffer_request", "buffer_response", "buffer_memory"];
/// What brings clients of a sticky upstream back. A browser takes a name that begins so from this host alone, over TLS.
const COOKIE: &str = "__Host-vestibule";

/// Reads it, with no targets. `domains` are the site's.
pub(super) fn read<'d>(proxy: &Table<'_>, domains: impl Iterator<Item = &'d HostPattern>) -> Proxy {
    let duration = |name| proxy.duration(name).unwrap_or_default();
    let balance = match proxy.choice("balance") {
        Some("round-robin") => Balance::RoundRobin,
        Some("sticky") => Balance::Sticky,
        _ => Balance::LeastBusy,
    };
    let concurrency = whole(proxy, "concurrency");
    refuse_without_limit(proxy);
    Proxy {
        hold: duration("hold"),
        retries: whole(proxy, "retries").unwrap_or_default(),
        begins_traces: proxy.choice("trace") == Some("begin"),
        balance,
        cookie: (balance == Balance::Sticky).then(|| COOKIE.into()),
        concurrency,
        queue: whole(proxy, "queue").unwrap_or_default(),
        queue_timeout: duration("queue_timeout"),
        health: proxy.table("health").and_then(|table| health(&table, domains)),
        targets: Vec::new(),
        connect_timeout: duration("connect_timeout"),
        response_timeout: duration("response_timeout"),
    }
}

/// What `[site.proxy]` says of buffers.
pub(super) fn buffers(proxy: &Table<'_>) -> Buffers {
    let size = |name| proxy.size(name).unwrap_or_default();
    Buffers {
        request: proxy.flag("buffer_request").unwrap_or(true),
        response: proxy.flag("buffer_response").unwrap_or(true),
        memory: size("buffer_memory"),
        disk: size("buffer_disk"),
    }
}

/// What a route says of them, over its site.
pub(super) fn buffers_of_route(route: &Table<'_>, site: Buffers) -> Buffers {
    Buffers {
        request: route.flag("buffer_request").unwrap_or(site.request),
        response: route.flag("buffer_response").unwrap_or(site.response),
        memory: route.size("buffer_memory").unwrap_or(site.memory),
        disk: site.disk,
    }
}

/// Refuses buffers on a route that hands nothing to an upstream.
pub(super) fn refuse_buffers(route: &Table<'_>) {
    for value in BUFFERS.iter().filter_map(|name| route.get(name)) {
        value.refuse("nothing of this route goes to an upstream", "leave it out");
    }
}

/// The name of the cookie for an upstream that a route has for itself: two upstreams of one site, two cookies.
pub(super) fn cookie_of(proxy: &Proxy, path: &PathPattern) -> Option<Arc<str>> {
    let (PathPattern::Prefix(path) | PathPattern::Exact(path)) = path;
    let word: String = path.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let word = word.trim_matches('-');
    proxy
        .cookie
        .as_ref()
        .map(|_| if word.is_empty() { COOKIE.into() } else { format!("{COOKIE}-{word}").into() })
}

fn whole<T: TryFrom<u64>>(table: &Table<'_>, name: &str) -> Option<T> {
    table.whole(name).and_then(|number| T::try_from(number).ok())
}

/// A deadline for a place is nothing where there are no places.
fn refuse_without_limit(proxy: &Table<'_>) {
    if let (Some(value), true) = (proxy.get("queue_timeout"), proxy.lacks("concurrency")) {
        let help = "`concurrency = 9` makes a limit; `hold` is for while no upstream is up";
        value
            .refuse("`queue_timeout` says how long a request waits for a place, and there is no limit", help);
    }
}

fn health<'d>(table: &Table<'_>, mut domains: impl Iterator<Item = &'d HostPattern>) -> Option<Health> {
    let path = table.get("path").and_then(|value| path(&value));
    let own = domains.find_map(|name| match name {
        HostPattern::Exact(name) => Some(name.as_str().to_owned()),
        HostPattern::Wildcard(_) => None,
    });
    let host = match table.get("host") {
        Some(value) => host(&value),
        None if own.is_none() && table.lacks("host") => {
            let help = "name one that the upstream takes, as in host = \"app.example.com\"";
            table.report.error(&table.place, "`domains` has no whole name to ask with", help);
            None
        }
        None => own,
    };
    Some(Health {
        path: path?,
        host: host?.into(),
        every: table.duration("every").unwrap_or_default(),
        timeout: table.duration("timeout").unwrap_or_default(),
        fails: whole(table, "fails").unwrap_or(1),
        passes: whole(table, "passes").unwrap_or(1),
        status: whole(table, "status"),
    })
}

fn host(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    let name = Hostname::parse(text).map(|name| name.as_str().to_owned());
    name.map_err(|error| value.refuse(format!("{text:?} is not a host: {error}"), "write a name alone")).ok()
}

/// A path with its query, as a request line can carry it.
fn path(value: &Value<'_>) -> Option<Arc<str>> {
    let text = value.text()?;
    if !text.starts_with('/') || text.contains('#') || !text.bytes().all(|b| b.is_ascii_graphic()) {
        let help = "write the path as a request has it, as in \"/healthz\"";
        value.refuse(format!("{text:?} is not the path of a request"), help);
        return None;
    }
    Some(text.into())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_upstream_of_a_site_has_a_cookie_of_its_own() {
        let path = |text: &str| PathPattern::Prefix(text.to_owned());
        let sticky = Proxy { cookie: Some(COOKIE.into()), ..plain() };
        for (typed, cookie) in [
            ("/", "__Host-vestibule"),
            ("/ws/", "__Host-vestibule-ws"),
            ("/a b/ä;=/", "__Host-vestibule-a-b"),
        ] {
            assert_eq!(cookie_of(&sticky, &path(typed)).as_deref(), Some(cookie));
        }
        assert_eq!(cookie_of(&plain(), &path("/ws/")), None);
    }

    fn plain() -> Proxy {
        Proxy {
            targets: Vec::new(),
            connect_timeout: Duration::ZERO,
            response_timeout: Duration::ZERO,
            hold: Duration::ZERO,
            retries: 0,
            begins_traces: false,
            balance: Balance::LeastBusy,
            cookie: None,
            concurrency: None,
            queue: 0,
            queue_timeout: Duration::ZERO,
            health: None,
        }
    }
}
