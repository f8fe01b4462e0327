//! `[[site.route]]`: what a site does with a path.

use super::super::model::{Action, BodyLimit, Buffers, PathPattern, Policy, Proxy, Route, SetBy};
use super::super::raw::{Table, Value};
use super::Home;
use super::ports::gate;
use super::sources::Sources;
use super::target;
use super::{auth, compress, files, headers, proxy, rate};

/// The statuses that send a client elsewhere (RFC 9110 section 15.4).
const REDIRECTS: [u16; 5] = [301, 302, 303, 307, 308];

/// What a route takes over from its site.
pub(super) struct Site<'a> {
    /// The site's own upstream; None: it has none, or it is wrong.
    pub(super) proxy: Option<&'a Proxy>,
    /// Whether the site's own upstream was typed at all.
    pub(super) has_upstream: bool,
    /// Timeouts, with no targets.
    pub(super) timeouts: &'a Proxy,
    pub(super) body: BodyLimit,
    pub(super) buffers: Buffers,
    pub(super) policy: &'a Policy,
    pub(super) sources: &'a Sources,
    pub(super) home: &'a Home<'a>,
}

/// Reads the routes of a site.
pub(super) fn read(tables: &[Table<'_>], site: &Site<'_>) -> Vec<Route> {
    let mut routes: Vec<(Route, &Table<'_>)> = Vec::new();
    for table in tables {
        let Some(route) = one(table, site) else { continue };
        if let Some((_, first)) = routes.iter().find(|(other, _)| other.path == route.path) {
            refuse_twin(table, first);
        }
        routes.push((route, table));
    }
    refuse_loops(&routes);
    routes.into_iter().map(|(route, _)| route).collect()
}

fn one(table: &Table<'_>, site: &Site<'_>) -> Option<Route> {
    let path = table.get("path").and_then(|value| pattern(&value));
    let gate = gate(table, site.sources);
    let own = table.size("body").map(|octets| BodyLimit { octets, set_by: SetBy::Route });
    let action = action(table, site, path.as_ref());
    if table.has("files") || table.has("redirect") {
        proxy::refuse_buffers(table);
    }
    let files_place = table.get("files").map(|value| value.place).unwrap_or_default();
    let policy = Policy {
        headers: headers::read(table, &site.policy.headers),
        rate: rate::of_route(table, path.as_ref(), site.policy.rate.as_ref()),
        compress: compress::read(table, site.policy.compress.as_ref()),
        auth: auth::read(table, site.home, site.policy.auth.as_ref()),
    };
    Some(Route {
        path: path?,
        gate,
        body: own.unwrap_or(site.body),
        buffers: proxy::buffers_of_route(table, site.buffers),
        action: action?,
        policy,
        files_place,
    })
}

fn action(table: &Table<'_>, site: &Site<'_>, path: Option<&PathPattern>) -> Option<Action> {
    let redirect = table.table("redirect");
    let targets = table.get("upstream").and_then(|value| target::read(&value, site.home));
    if let (Some(value), true) = (table.get("redirect"), table.has("upstream")) {
        value.refuse("a route has an upstream or a redirect, not both", "leave one of them out");
        return None;
    }
    if table.has("files") {
        return files::read(table, site.home).map(Action::Files);
    }
    files::refuse_keys(table);
    if table.has("redirect") {
        return redirect.and_then(|table| redirection(&table));
    }
    if table.has("upstream") {
        let cookie = path.and_then(|path| proxy::cookie_of(site.timeouts, path));
        return targets.map(|targets| Action::Proxy(Proxy { targets, cookie, ..site.timeouts.clone() }));
    }
    if !site.has_upstream && table.lacks("upstream") {
        let help = "give the route an upstream, files or a redirect, or the site an upstream";
        table.report.error(&table.place, "nothing answers on this route", help);
    }
    site.proxy.cloned().map(Action::Proxy)
}

fn redirection(table: &Table<'_>) -> Option<Action> {
    let to = table.get("to").and_then(|value| location(&value));
    let status = table.whole("status").and_then(|status| u16::try_from(status).ok());
    let known = status.filter(|status| REDIRECTS.contains(status));
    if let (None, Some(value)) = (known, table.get("status").filter(|_| status.is_some())) {
        value.refuse("this status does not redirect", "write 301, 302, 303, 307 or 308");
    }
    Some(Action::Redirect { to: to?, status: known? })
}

/// A path on the same host, or an absolute http or https URL, as a header field can carry it.
fn location(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let named = host.is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['/', '?', '#', ':']));
    let local = text.starts_with('/') && !text.starts_with("//");
    if !named && !local {
        let help = "write a path, as in \"/new/\", or a whole URL, as in \"https://www.example.com/\"";
        value.refuse(format!("{text:?} is not a path or URL"), help);
        return None;
    }
    if !text.bytes().all(|b| b.is_ascii_graphic()) || text.contains(['\\', '"', '<', '>']) {
        value.refuse(
            format!("{text:?} cannot stand in a Location header"),
            "percent-encode what a URL cannot hold",
        );
        return None;
    }
    Some(text.to_owned())
}

fn pattern(value: &Value<'_>) -> Option<PathPattern> {
    let text = value.text()?;
    let exact = text.strip_prefix('=').map(str::trim_start);
    let path = match clean(exact.unwrap_or(text)) {
        Ok(path) => path,
        Err((message, help)) => {
            value.refuse(format!("{text:?}: {message}"), help);
            return None;
        }
    };
    if exact.is_some() {
        return Some(PathPattern::Exact(path));
    }
    if !path.ends_with('/') {
        let help = format!("write \"{path}/\" for what is below it, or \"= {path}\" for it alone");
        value.report.warn(&value.place, format!("this also matches \"{path}-and-more\""), help);
    }
    Some(PathPattern::Prefix(path))
}

/// Decodes a path once, and refuses what a request's path can never be once it is decoded.
fn clean(text: &str) -> Result<String, (&'static str, String)> {
    if !text.starts_with('/') {
        return Err((
            "a path begins with a slash",
            "write \"/x/\" for all below it, \"= /x\" for one path".into(),
        ));
    }
    // A gate that is written so would guard nothing.
    if let Some((before, _)) = text.split_once('*') {
        let path = before.rfind('/').and_then(|end| before.get(..=end)).unwrap_or("/");
        return Err((
            "a path has no wildcards: one that ends with a slash is for all below it",
            format!("write \"{path}\", or %2A for an asterisk"),
        ));
    }
    if text.contains(['?', '#']) {
        return Err(("a route looks at the path alone", "leave out what follows it".into()));
    }
    let path =
        decode(text).ok_or(("the percent-encoding is broken", "write %25 for a percent sign".to_owned()))?;
    if path.contains(|c: char| c.is_control() || c == '\\') {
        return Err(("no request's path has such a character", "leave it out".into()));
    }
    let mut segments = path.split('/');
    if path.contains("//") {
        return Err(("a path has no empty segment", "write one slash".into()));
    }
    if segments.any(|segment| segment == "." || segment == "..") {
        return Err(("a path has no dot segments", "write the path that is meant".into()));
    }
    Ok(path)
}

/// Percent-decoding; None where it is broken, is no UTF-8, or hides a slash.
fn decode(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        let byte =
            if byte == b'%' { octet(bytes.next()?, bytes.next()?).filter(|&b| b != b'/')? } else { byte };
        out.push(byte);
    }
    String::from_utf8(out).ok()
}

fn octet(high: u8, low: u8) -> Option<u8> {
    let digit = |b: u8| char::from(b).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

fn refuse_twin(table: &Table<'_>, first: &Table<'_>) {
    if let (Some(value), Some(first)) = (table.get("path"), first.get("path")) {
        let line = table.report.line(&first.place);
        value.refuse(format!("the site has a route for this path on line {line}"), "keep one of the two");
    }
}

/// A redirect whose own route is the longest match of where it leads.
fn refuse_loops(routes: &[(Route, &Table<'_>)]) {
    for (route, table) in routes {
        let Action::Redirect { to, .. } = &route.action else { continue };
        let Some(to) = to.starts_with('/').then(|| to.split(['?', '#']).next()).flatten().and_then(decode)
        else {
            continue;
        };
        let back = routes
            .iter()
            .filter(|(other, _)| matches(&other.path, &to))
            .max_by_key(|(other, _)| rank(&other.path));
        if back.is_some_and(|(other, _)| other.path == route.path)
            && let Some(value) = table.get("redirect")
        {
            value.refuse("this redirect leads back to its own route", "send the client elsewhere");
        }
    }
}

fn matches(pattern: &PathPattern, path: &str) -> bool {
    match pattern {
        PathPattern::Prefix(prefix) => path.starts_with(prefix.as_str()),
        PathPattern::Exact(exact) => path == exact,
    }
}

/// An exact path before any prefix, a longer prefix before a shorter.
fn rank(pattern: &PathPattern) -> (bool, usize) {
    match pattern {
        PathPattern::Prefix(prefix) => (false, prefix.len()),
        PathPattern::Exact(exact) => (true, exact.len()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths() {
        for (text, path) in [
            ("/", Some("/")),
            ("/admin/", Some("/admin/")),
            ("/a%20b/", Some("/a b/")),
            ("/caf%C3%A9/", Some("/café/")),
            ("/café/", Some("/café/")),
            ("/100%25/", Some("/100%/")),
            ("/.well-known/", Some("/.well-known/")),
            ("", None),
            ("admin/", None),
            ("//", None),
            ("/a/../b", None),
            ("/a/%2e%2e/b", None),
            ("/./", None),
            ("/a%2fb", None),
            ("/a%5cb", None),
            ("/a%0ab", None),
            ("/a%00b", None),
            ("/a%", None),
            ("/a%4", None),
            ("/a%zz", None),
            ("/a%ff", None),
            ("/a?b", None),
            ("/a#b", None),
        ] {
            assert_eq!(clean(text).ok().as_deref(), path, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".*") {
            let _ = (clean(&text), clean(&format!("/{text}")));
        }
    }
}
