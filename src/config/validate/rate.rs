//! `rate`: how often something may be asked.

use std::time::Duration;

use http::HeaderName;

use super::super::meant::did_you_mean;
use super::super::model::{Limited, PathPattern, Per, Rate};
use super::super::raw::{Table, Value};
use super::super::schema::RATE;

/// What requests can be told apart by.
const HELP: &str = "write \"client\", \"all\", \"header:NAME\" or \"cookie:NAME\"";

/// Reads `rate` of a site.
pub(super) fn of_site(table: &Table<'_>) -> Option<Limited> {
    table.get("rate").and_then(|value| rate(&value)).map(|rate| Limited { rate, route: None })
}

/// Reads `rate` of a route over that of its site.
pub(super) fn of_route(
    table: &Table<'_>,
    path: Option<&PathPattern>,
    inherited: Option<&Limited>,
) -> Option<Limited> {
    let Some(value) = table.get("rate") else { return inherited.cloned() };
    rate(&value).map(|rate| Limited { rate, route: path.cloned() })
}

/// None where it is off, or wrong.
fn rate(value: &Value<'_>) -> Option<Rate> {
    match value.flag() {
        Some(false) => return None,
        Some(true) => {
            value.refuse("true does not say how often", "write { limit = 10, every = \"1m\" }");
            return None;
        }
        None if !value.node.is_table() => {
            value.mismatch();
            return None;
        }
        None => {}
    }
    let table = value.table(&RATE)?;
    let per = table.get("per").map_or(Some(Per::Client), |value| per(&value));
    let (limit, every) = (table.whole("limit"), table.duration("every"));
    if let (Some(every), Some(value)) = (every, table.get("every")) {
        want_whole(&value, every);
    }
    let burst = table.whole("burst").or(limit.map(|limit| limit - 1));
    Some(Rate { per: per?, limit: limit?, every: every?, burst: burst? })
}

fn want_whole(value: &Value<'_>, every: Duration) {
    if every.subsec_nanos() != 0 {
        value.refuse("a rate counts whole seconds", "write \"1s\" or \"1m\", with a limit to match");
    }
}

fn per(value: &Value<'_>) -> Option<Per> {
    let text = value.text()?;
    match text.split_once(':') {
        None if text == "client" => Some(Per::Client),
        None if text == "all" => Some(Per::All),
        Some(("header", name)) => header(value, name).map(Per::Header),
        Some(("cookie", name)) => cookie(value, name).map(Per::Cookie),
        _ => {
            let near = did_you_mean(text, ["client", "all"].into_iter());
            let help = if near.is_empty() { HELP } else { &near };
            value.refuse(format!("requests cannot be told apart by {text:?}"), help);
            None
        }
    }
}

fn header(value: &Value<'_>, name: &str) -> Option<String> {
    let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else {
        value.refuse(
            format!("{name:?} is not the name of a header"),
            "write it as in \"header:Authorization\"",
        );
        return None;
    };
    let forged =
        ["x-forwarded-", "forwarded", "x-real-ip"].iter().any(|begin| name.as_str().starts_with(begin));
    if forged {
        let help = "write \"client\"; behind a load balancer, [client_address] says whom to believe about it";
        value.refuse(format!("`{name}` is whatever the client says"), help);
        return None;
    }
    Some(name.as_str().to_owned())
}

fn cookie(value: &Value<'_>, name: &str) -> Option<String> {
    // RFC 6265 section 4.1.1: a token, as header names are, but for the case of its letters.
    if HeaderName::from_bytes(name.as_bytes()).is_err() {
        value.refuse(format!("{name:?} is not the name of a cookie"), "write it as in \"cookie:sessionid\"");
        return None;
    }
    Some(name.to_owned())
}
