//! What was meant by a word that is wrong.

use super::schema::{self, Key, Kind};

/// How like a wrong word a right one must be to be named, from 0 to 1.
const ALIKE: f64 = 0.85;
/// The most letters that may differ in a word that is less like it.
const MAX_SLIPS: usize = 3;
/// What people type who know another server.
static HABITS: &[(&str, &str)] = &[
    ("server_name", "domains"),
    ("hosts", "domains"),
    ("listen", "ports"),
    ("proxy_pass", "upstream"),
    ("max_conns", "concurrency"),
    ("interval", "every"),
    ("healthcheck", "health"),
    ("lb_policy", "balance"),
    ("reverse_proxy", "upstream"),
    ("backend", "upstream"),
    ("location", "route"),
    ("alias", "files"),
    ("root", "files"),
    ("expires", "cache"),
    ("ssl_certificate", "certificate"),
    ("client_max_body_size", "body"),
    ("keepalive_timeout", "idle_timeout"),
    ("worker_processes", "workers"),
    ("worker_connections", "connections"),
    ("access_log", "access"),
    ("auth_basic", "auth"),
    ("auth_basic_user_file", "auth"),
    ("basic_auth", "auth"),
    ("limit_req", "rate"),
    ("rate_limit", "rate"),
    ("key", "per"),
    ("window", "every"),
    ("period", "every"),
    ("max", "limit"),
    ("kid", "key_id"),
    ("encode", "compress"),
    ("error_page", "errors"),
    ("handle_errors", "errors"),
    ("gzip", "compress"),
    ("gzip_types", "types"),
    ("gzip_min_length", "min_size"),
    ("minimum_length", "min_size"),
];

/// The key of a table that was meant by one that it has not.
pub(super) fn key(table: &'static schema::Table, name: &str) -> Option<&'static str> {
    let habit = HABITS.iter().find(|(other, _)| *other == name).map(|(_, right)| *right);
    habit.filter(|right| table.key(right).is_some()).or_else(|| nearest(name, names(table)))
}

/// What to do about an unknown key.
pub(super) fn help(table: &'static schema::Table, name: &str, meant: Option<&str>) -> String {
    let elsewhere = headers_with(name).filter(|_| table.header.starts_with('[') || table.header.is_empty());
    match (meant, elsewhere) {
        (Some(right), _) => format!("did you mean `{right}`?"),
        (None, Some(headers)) => format!("`{name}` is a key of {headers}"),
        (None, None) => format!("its keys are {}", names(table).collect::<Vec<_>>().join(", ")),
    }
}

/// The keys of a table that are built.
fn names(table: &'static schema::Table) -> impl Iterator<Item = &'static str> {
    let built = |key: &&Key| !matches!(key.kind, Kind::Later(_));
    table.keys.iter().filter(built).map(|key| key.name)
}

/// The tables that have a key of that name.
fn headers_with(name: &str) -> Option<String> {
    let with = schema::TABLES.iter().filter(|table| table.key(name).is_some()).map(|table| table.header);
    let headers: Vec<&str> =
        with.map(|header| if header.is_empty() { "the top of the file" } else { header }).collect();
    (!headers.is_empty()).then(|| headers.join(", "))
}

/// The word of a list that is nearest to a wrong one, if any is near: few letters differ, or it begins alike.
pub(super) fn nearest<'w>(wrong: &str, words: impl Iterator<Item = &'w str>) -> Option<&'w str> {
    let wrong = wrong.to_ascii_lowercase();
    let slips = |word: &str| strsim::damerau_levenshtein(&wrong, word);
    let alike = |word: &str| strsim::jaro_winkler(&wrong, word);
    let allowed = (wrong.chars().count() / 3).min(MAX_SLIPS);
    let near = words.map(|word| (word.to_ascii_lowercase(), word));
    let near = near.filter(|(lower, _)| slips(lower) <= allowed || alike(lower) >= ALIKE);
    near.max_by(|(a, _), (b, _)| alike(a).total_cmp(&alike(b))).map(|(_, word)| word)
}

/// `did you mean "x"?`, or nothing where nothing is near.
pub(super) fn did_you_mean<'w>(wrong: &str, words: impl Iterator<Item = &'w str>) -> String {
    nearest(wrong, words).map(|word| format!("did you mean \"{word}\"?")).unwrap_or_default()
}
