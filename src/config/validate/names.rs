//! The names of sites, and that no two sites have the same.

use std::collections::HashMap;

use super::super::model::{Place, RowId};
use super::super::raw::{Report, Value};
use super::ports::Ports;
use crate::name::{HostPattern, Hostname, NameError};

/// The names of `domains`.
pub(super) fn domains(value: &Value<'_>) -> Vec<(HostPattern, Place)> {
    let items = value.items().unwrap_or_default();
    if items.is_empty() && value.node.is_array() {
        value.refuse("a site needs a name", "write domains = [\"app.example.com\"]");
    }
    items.iter().filter_map(|item| Some((one(item)?, item.place.clone()))).collect()
}

/// The names of `redirect`: whole ones, for each gets a certificate of its own.
pub(super) fn redirects(value: &Value<'_>) -> Vec<(Hostname, Place)> {
    let name = |item: &Value<'_>| match one(item)? {
        HostPattern::Exact(name) => Some((name, item.place.clone())),
        HostPattern::Wildcard(_) => {
            item.refuse(
                "a wildcard cannot be redirected",
                "list the names one by one, or put it in `domains`",
            );
            None
        }
    };
    value.items().unwrap_or_default().iter().filter_map(name).collect()
}

/// A whole name by itself.
pub(super) fn whole(value: &Value<'_>) -> Option<Hostname> {
    match one(value)? {
        HostPattern::Exact(name) => Some(name),
        HostPattern::Wildcard(_) => {
            value.refuse(
                "a wildcard is no name that a client asks for",
                "write a whole name, as in \"db.example.com\"",
            );
            None
        }
    }
}

fn one(item: &Value<'_>) -> Option<HostPattern> {
    let text = item.text()?;
    if let Some((message, help)) = more_than_a_name(text) {
        item.refuse(message, help);
        return None;
    }
    HostPattern::parse(text).map_err(|error| item.refuse(format!("{text:?}: {error}"), help(error))).ok()
}

/// A URL, or a port behind the name.
fn more_than_a_name(text: &str) -> Option<(String, String)> {
    let bare = text.split_once("://").map_or(text, |(_, rest)| rest);
    let host = bare.split(['/', '?', '#']).next().unwrap_or(bare);
    if host != text {
        return Some((
            format!("{text:?} is a URL, and a domain is a name alone"),
            format!("write \"{host}\""),
        ));
    }
    let (name, port) = text.split_once(':')?;
    let is_port = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    let names = is_port && HostPattern::parse(name).is_ok();
    let help = || format!("write \"{name}\", and name the row in the site's `ports`, as in ports = [{port}]");
    names.then(|| (format!("{text:?} has a port, and a domain is a name alone"), help()))
}

fn help(error: NameError) -> &'static str {
    match error {
        NameError::Empty => "write a DNS name, as in \"app.example.com\"",
        NameError::Address => {
            "the edge never answers on the server's plain address: write the DNS name that points to it"
        }
        NameError::CatchAll => {
            "the edge answers to listed names alone: list them, or write \"*.example.com\" for one label"
        }
        NameError::Wildcard => "\"*.example.com\" stands for one label; list other names one by one",
        NameError::Syntax => "check the spelling",
    }
}

/// One name of one site.
pub(super) struct Claim {
    pub(super) name: HostPattern,
    pub(super) place: Place,
    pub(super) rows: Vec<RowId>,
}

/// Reports each name that two sites, or one site twice, claim on one row.
pub(super) fn refuse_clashes(claims: &[Claim], ports: &Ports, report: &Report<'_>) {
    let mut taken: HashMap<(RowId, &HostPattern), &Place> = HashMap::new();
    for claim in claims {
        let clash = claim.rows.iter().find_map(|&row| Some((row, *taken.get(&(row, &claim.name))?)));
        if let Some((row, first)) = clash {
            let message = format!(
                "the name \"{}\" is taken: line {} has it, as {}, for the row {} too",
                claim.name,
                report.line(first),
                first.path,
                ports.name(row)
            );
            report.error(&claim.place, message, "a name belongs to one site; keep one of the two");
        }
        for &row in &claim.rows {
            taken.entry((row, &claim.name)).or_insert(&claim.place);
        }
    }
}
