//! `files` of a route: a directory, and how it is served.

use std::time::Duration;

use super::super::meant::did_you_mean;
use super::super::model::{FileCache, Files};
use super::super::raw::{Table, Value};
use super::Home;

/// The keys that say something of files alone.
const KEYS: [&str; 3] = ["cache", "internal", "sandbox"];
/// The keys that are asked of the route that a request is for.
const OF_REQUESTS: [&str; 5] = ["rate", "auth", "headers", "compress", "body"];

/// Reads a route that has `files`. The directory is looked at when the configuration is put to use.
pub(super) fn read(table: &Table<'_>, home: &Home<'_>) -> Option<Files> {
    for other in ["upstream", "redirect"] {
        if let Some(value) = table.get(other) {
            value.refuse(
                format!("a route has files or {}, not both", article(other)),
                "leave one of them out",
            );
        }
    }
    if let Some(value) = table.get("path") {
        refuse_path(&value);
    }
    let folder = table.get("files").and_then(|value| home.path(&value));
    let cache = table.get("cache").map_or(Some(FileCache::Unsaid), |value| cache(&value));
    let internal = table.flag("internal").unwrap_or(false);
    for value in OF_REQUESTS.iter().filter_map(|name| table.get(name)).filter(|_| internal) {
        value.refuse("nobody asks for an internal route", "give it to the route that leads here");
    }
    let sandbox = table.flag("sandbox").unwrap_or(cache != Some(FileCache::Immutable));
    Some(Files { folder: folder?, cache: cache?, internal, sandbox })
}

/// Refuses the keys of files on a route that has none.
pub(super) fn refuse_keys(table: &Table<'_>) {
    if table.lacks("files") {
        for value in KEYS.iter().filter_map(|name| table.get(name)) {
            value.refuse("this is for a route with files", "give the route files = \"/srv/static\"");
        }
    }
}

/// Internal routes of a site without an upstream, which alone could lead to them.
pub(super) fn warn_of_unreachable(routes: &[Table<'_>]) {
    for value in
        routes.iter().filter_map(|route| route.get("internal")).filter(|value| value.flag() == Some(true))
    {
        let help = "give the site an upstream that answers with X-Accel-Redirect, or leave `internal` out";
        value.report.warn(&value.place, "nothing leads to this route: the site has no upstream", help);
    }
}

fn article(key: &str) -> String {
    format!("{} {key}", if key == "upstream" { "an" } else { "a" })
}

/// `/static` would name `/srv/static` + `-and-more`, and `= /static/` nothing at all.
fn refuse_path(value: &Value<'_>) {
    let Some(text) = value.node.as_str() else { return };
    let exact = text.starts_with('=');
    if exact && text.ends_with('/') {
        value.refuse("this path names no file", "leave out the \"=\" for all below it");
    } else if !exact && text.starts_with('/') && !text.ends_with('/') {
        let help =
            format!("write \"{text}/\" for a directory, or \"= {text}\" for the one file of that name");
        value.refuse("the path of files ends with a slash", help);
    }
}

fn cache(value: &Value<'_>) -> Option<FileCache> {
    match value.flag() {
        Some(false) => return Some(FileCache::Unsaid),
        Some(true) => {
            value.refuse("true does not say for how long", "write \"immutable\", \"30d\", or false");
            return None;
        }
        None => {}
    }
    let Some(text) = value.node.as_str() else {
        value.mismatch();
        return None;
    };
    if text == "immutable" {
        return Some(FileCache::Immutable);
    }
    if !text.starts_with(|first: char| first.is_ascii_digit()) {
        let near = did_you_mean(text, ["immutable"].into_iter());
        let help = if near.is_empty() { "write \"immutable\", \"30d\", or false" } else { &near };
        value.refuse(format!("{text:?} says nothing of caching"), help);
        return None;
    }
    value.duration().filter(|age| whole(value, *age)).map(FileCache::For)
}

fn whole(value: &Value<'_>, age: Duration) -> bool {
    let whole = age.subsec_nanos() == 0;
    if !whole {
        value.refuse("Cache-Control counts whole seconds", "write \"30d\"");
    }
    whole
}
