//! The tables as a JSON Schema (draft 2020-12), for editors.

use serde_json::{Map, Value, json};

use super::{Absent, FORWARD_ROW, HOST_ROW, Key, Kind, ROOT, SERVE_ROW, SOURCE_FILE, Table};

/// The schema of the whole file.
pub fn schema() -> Value {
    let mut schema = table(&ROOT);
    if let Some(top) = schema.as_object_mut() {
        top.insert("$schema".into(), json!("https://json-schema.org/draft/2020-12/schema"));
        top.insert("title".into(), json!("vestibule.toml"));
        // Without [ports], a row serves https.
        top.insert("if".into(), json!({ "not": { "required": ["ports"] } }));
        top.insert("then".into(), json!({ "required": ["site"] }));
    }
    schema
}

fn table(table: &Table) -> Value {
    let keys = || table.keys.iter().filter(|key| !matches!(key.kind, Kind::Later(_)));
    let properties: Map<_, _> = keys().map(|key| (key.name.to_owned(), property(key))).collect();
    let required: Vec<_> =
        keys().filter(|key| matches!(key.absent, Absent::Wrong)).map(|key| key.name).collect();
    json!({
        "type": "object",
        "description": table.doc,
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

fn property(key: &Key) -> Value {
    let mut property = value(key);
    if let Some(fields) = property.as_object_mut() {
        fields.insert("description".into(), json!(key.doc));
        if let Absent::Is(typed) = key.absent {
            fields.insert("default".into(), default(&key.kind, typed));
        }
    }
    property
}

fn value(key: &Key) -> Value {
    match key.kind {
        Kind::Text(_) | Kind::Path => json!({ "type": "string" }),
        Kind::Flag => json!({ "type": "boolean" }),
        Kind::Whole(least, most) => json!({ "type": "integer", "minimum": least, "maximum": most }),
        Kind::Fraction => json!({ "type": "number", "minimum": 0, "maximum": 1 }),
        Kind::Duration(..) => json!({ "type": "string", "pattern": "^[0-9]+(ms|s|m|h|d)$" }),
        Kind::Size(..) => json!({ "type": "string", "pattern": "^[0-9]+(B|KiB|MiB|GiB|TiB)$" }),
        Kind::Choice(words) => json!({ "enum": words }),
        Kind::Texts(_) | Kind::Sources => json!({ "type": "array", "items": { "type": "string" } }),
        Kind::Table(inner) => table(inner),
        Kind::Tables(inner) => json!({ "type": "array", "items": table(inner) }),
        Kind::Map(_) => json!({ "type": "object", "additionalProperties": member(key.name) }),
        Kind::Either(forms) => json!({ "type": types(forms) }),
        Kind::Later(_) => json!(false),
    }
}

/// What stands behind a key of a person's own choice.
fn member(map: &str) -> Value {
    match map {
        "ports" => json!({ "anyOf": [table(&SERVE_ROW), table(&FORWARD_ROW), table(&HOST_ROW)] }),
        "sources" => json!({
            "anyOf": [{ "type": "array", "items": { "type": "string" } }, table(&SOURCE_FILE)],
        }),
        _ => json!({ "type": "string" }),
    }
}

/// The types of several forms, from the words that a person is told.
fn types(forms: &str) -> Vec<&'static str> {
    let words = [
        ("array", &["list"][..]),
        ("object", &["a table", "{ "]),
        ("boolean", &["false", "true"]),
        ("string", &["\"", "URL", "path", "duration"]),
    ];
    let named = words.iter().filter(|(_, words)| words.iter().any(|word| forms.contains(word)));
    named.map(|(kind, _)| *kind).collect()
}

fn default(kind: &Kind, typed: &str) -> Value {
    if let (Kind::Fraction, Ok(number)) = (kind, typed.parse::<f64>()) {
        return json!(number);
    }
    match (kind, typed.parse::<u64>()) {
        (Kind::Flag | Kind::Either(_), _) if matches!(typed, "true" | "false") => json!(typed == "true"),
        (Kind::Whole(..), Ok(number)) => json!(number),
        (Kind::Sources | Kind::Texts(_), _) => json!([typed]),
        _ => json!(typed),
    }
}

#[cfg(test)]
mod tests {
    use super::super::TABLES;
    use super::*;

    #[test]
    fn every_key_that_takes_several_forms_has_types() {
        for key in TABLES.iter().flat_map(|table| table.keys) {
            if let Kind::Either(forms) = key.kind {
                assert!(!types(forms).is_empty(), "{}: {forms}", key.name);
            }
        }
        assert_eq!(types("\"immutable\", a duration, as in \"30d\", or false"), ["boolean", "string"]);
        assert_eq!(types("true, false or a table, as in [site.compress]"), ["object", "boolean"]);
    }

    #[test]
    fn what_is_not_built_is_no_property() {
        let text = schema().to_string();
        for key in TABLES.iter().flat_map(|table| table.keys) {
            if matches!(key.kind, Kind::Later(_)) {
                assert!(!text.contains(&format!("\"{}\":", key.name)), "{}", key.name);
            }
        }
        assert_eq!(schema()["properties"]["limits"]["properties"]["connections"]["default"], 20_000);
    }
}
