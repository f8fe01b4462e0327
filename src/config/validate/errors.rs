//! `[site.errors]`: pages of the site's own, and maintenance.

use super::super::model::{Errors, Occasion, PageFile};
use super::super::raw::{Table, Value};
use super::super::schema::ERRORS;
use super::Home;
use super::sources::Sources;

/// The switch where a site has a page for maintenance and names no other.
const SWITCH: &str = "/srv/maintenance.on";

/// Reads the table of a site. The pages are looked at when the configuration is put to use.
pub(super) fn read(site: &Table<'_>, sources: &Sources, home: &Home<'_>) -> Errors {
    let Some(table) = site.table("errors") else { return Errors::default() };
    let pages: Vec<PageFile> = ERRORS
        .keys
        .iter()
        .filter_map(|key| Some((occasion(key.name)?, table.get(key.name)?)))
        .filter_map(|(occasion, value)| page(occasion, &value, home))
        .collect();
    let usual = table.has("maintenance").then(|| SWITCH.into());
    let switch = table.get("maintenance_file").map_or(usual, |value| home.path(&value));
    let allow = table.get("maintenance_allow").map(|value| allowed(&value, sources)).unwrap_or_default();
    Errors { pages, switch, allow }
}

fn occasion(key: &str) -> Option<Occasion> {
    match key.as_bytes() {
        b"maintenance" => Some(Occasion::Maintenance),
        [class @ b'4'..=b'5', b'x', b'x'] => Some(Occasion::Class(u16::from(class - b'0'))),
        _ => key.parse().ok().map(Occasion::Status),
    }
}

fn page(occasion: Occasion, value: &Value<'_>, home: &Home<'_>) -> Option<PageFile> {
    Some(PageFile { occasion, path: home.path(value)?, place: value.place.clone() })
}

fn allowed(value: &Value<'_>, sources: &Sources) -> Vec<crate::addr::Source> {
    let sources = sources.listed(value);
    if sources.iter().any(|source| source.members.is_none()) {
        value.refuse("with \"public\" nobody would meet the maintenance", "name who works on the site");
    }
    sources
}
