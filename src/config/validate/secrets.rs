//! Secrets that stand in the file.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::super::model::Place;
use super::super::raw::{Report, join};
use super::super::schema::SECRETS;

const HELP: &str = "write { file = \"/run/secrets/…\" } or { env = \"NAME\" } in its place";

/// Reports every inline string where a secret is named, whether this version builds its key or not.
pub(in super::super) fn report(root: &DeTable<'_>, report: &Report<'_>) {
    for keys in SECRETS {
        if let Some((first, rest)) = keys.split_first() {
            in_table(root, first, rest, "", report);
        }
    }
}

fn in_table(table: &DeTable<'_>, key: &str, rest: &[&str], path: &str, report: &Report<'_>) {
    if let Some(value) = table.get(key) {
        find(value, rest, join(path, key), report);
    }
}

fn find(value: &Spanned<DeValue<'_>>, keys: &[&str], path: String, report: &Report<'_>) {
    match (value.get_ref(), keys.split_first()) {
        (DeValue::Table(_) | DeValue::Array(_), None) => {}
        (_, None) => report.secret(&Place { span: value.span(), path }, HELP),
        (DeValue::Table(table), Some((key, rest))) => in_table(table, key, rest, &path, report),
        (DeValue::Array(items), Some((&"*", rest))) => {
            for (index, item) in items.iter().enumerate() {
                find(item, rest, format!("{path}[{index}]"), report);
            }
        }
        _ => {}
    }
}
