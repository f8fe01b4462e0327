//! `[trace]`: where spans go.

use super::super::model::{Tracing, is_web_url};
use super::super::raw::{Table, Value};
use super::{Home, acme};

/// What OTLP over HTTP appends (the OTLP specification, "OTLP/HTTP Request").
const PATH: &str = "/v1/traces";

const TOKEN_HELP: &str =
    "write what opens the collector in `headers`, as { file = \"/run/secrets/…\" } or { env = \"NAME\" }";

/// Reads `[trace]`.
pub(super) fn read(root: &Table<'_>, home: &Home<'_>) -> Option<Tracing> {
    let table = root.table("trace")?;
    let headers = table.get("headers").and_then(|value| acme::secret(&value, home));
    let service = table.get("service").map_or(Some("vestibule"), |value| service(&value));
    let (url, sample) = (table.get("endpoint").and_then(|value| endpoint(&value)), table.fraction("sample"));
    Some(Tracing { url: url?, headers, service: service?.to_owned(), sample: sample? })
}

fn endpoint(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    if text.contains('@') || text.split('/').skip(3).any(acme::is_token) {
        value.report.secret(&value.place, TOKEN_HELP);
        return None;
    }
    if !is_web_url(text) || text.contains('?') {
        let help = "write it as in \"http://collector:4318\", without a query";
        value.refuse(format!("{text:?} is not the URL of a collector"), help);
        return None;
    }
    let base = text.trim_end_matches('/');
    if let Some(base) = base.strip_suffix(PATH) {
        value.refuse(format!("the edge appends {PATH}"), format!("write \"{base}\""));
        return None;
    }
    if base.ends_with(":4317") {
        let help = format!("OTLP over HTTP is at \"{}\" as a rule", base.replace(":4317", ":4318"));
        value.report.warn(
            &value.place,
            "4317 is the port of OTLP over gRPC, which the edge does not speak",
            help,
        );
    }
    Some(format!("{base}{PATH}"))
}

fn service<'a>(value: &Value<'a>) -> Option<&'a str> {
    let text = value.text()?;
    if text.trim().is_empty() || text.contains(char::is_control) {
        value.refuse(format!("{text:?} is not a name"), "write one, as in \"edge\"");
        return None;
    }
    Some(text)
}
