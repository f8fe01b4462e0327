//! `vestibule explain`: what one request met, as a person wants to see it.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use http::Method;

use super::edge::ask;
use super::{Failure, Format, RunningEdge, files, print, print_json};
use crate::admin::explain::{Explained, GateMet, Met};

/// How often a request is looked for, and the pause between: lines are handed on a fifth of a second late at most.
const LOOKS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(100);

/// `vestibule explain REQUEST_ID`
pub(super) fn run(id: &str, edge: &RunningEdge, format: Format) -> Result<(), Failure> {
    let id = id.to_ascii_lowercase();
    if id.len() != 32 || !id.bytes().all(|octet| octet.is_ascii_hexdigit()) {
        return Err(Failure::new(format_args!(
            "{id:?} is not a request's id: 32 hexadecimal digits, as X-Request-ID, error pages and access lines have them"
        )));
    }
    let explained = remembered(&files::socket(edge)?, &id)?;
    let Some(met) = &explained.request else {
        return Err(Failure::no(format_args!(
            "no request {id} is among the latest {}, which are all that this process remembers",
            explained.kept
        )));
    };
    match format {
        Format::Text => print(&page(met)),
        Format::Json => print_json(met),
    }
}

/// What the edge remembers. A request that was answered just now is there a moment later.
fn remembered(socket: &Path, id: &str) -> Result<Explained, Failure> {
    let mut looks = LOOKS;
    loop {
        let explained: Explained = ask(socket, Method::GET, &format!("/v1/explain?id={id}"))?;
        looks -= 1;
        if explained.request.is_some() || looks == 0 {
            return Ok(explained);
        }
        std::thread::sleep(PAUSE);
    }
}

fn page(met: &Met) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() {
            let _ = writeln!(text, "{name:<12}{}", harmless(value));
        }
    };
    line("request", &met.id);
    line("trace", &met.trace_id);
    line("time", &met.time);
    line("client", &met.client);
    line("asked", &spaced(&[&met.method, &met.host, &met.path]));
    line("spoken", &spaced(&[&met.protocol, &met.tls]));
    for gate in &met.gates {
        let (name, which) = gate.gate.split_once(' ').unwrap_or((&gate.gate, ""));
        line(name, &format!("{which}: {}", verdict(gate)));
    }
    line("route does", &met.does);
    line("upstream", &upstream(met));
    line("answer", &answer(met));
    line("timings", &timings(met));
    line(
        "bytes",
        &format!("{} of the request's body, {} of the answer's", met.request_bytes, met.response_bytes),
    );
    if met.changed_since {
        line("note", "the configuration was changed since; gates and route are those of now");
    }
    text
}

fn spaced(words: &[&str]) -> String {
    words.iter().copied().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

fn verdict(gate: &GateMet) -> String {
    let deny = if gate.deny.is_empty() { String::new() } else { format!(", deny {}", gate.deny.join(", ")) };
    format!("{} (allow {}{deny})", gate.verdict, gate.allow.join(", "))
}

fn upstream(met: &Met) -> String {
    match (met.upstream.as_str(), met.tries) {
        ("", _) => String::new(),
        (address, 0) => format!("{address}, which took no connection"),
        (address, 1) => format!("{address}, sent once"),
        (address, tries) => format!("{address} in the end, sent {tries} times"),
    }
}

fn answer(met: &Met) -> String {
    let status = if met.status == 0 { "none".to_owned() } else { met.status.to_string() };
    if met.refused.is_empty() { status } else { format!("{status}: {} ({})", met.why, met.refused) }
}

fn timings(met: &Met) -> String {
    let mut parts = Vec::new();
    parts.extend(met.connect_ms.map(|millis| format!("connected in {millis} ms")));
    parts.extend(met.first_byte_ms.map(|millis| format!("the upstream answered after {millis} ms")));
    parts.push(format!("over after {} ms", met.total_ms));
    parts.join(", ")
}

/// What a client sent must not speak to the terminal.
fn harmless(text: &str) -> String {
    let escape = |letter: char| {
        let hidden = letter.is_control()
            || matches!(letter, '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if hidden { letter.escape_default().to_string() } else { letter.to_string() }
    };
    text.chars().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::explain::{Millis, Verdict};

    #[test]
    fn a_request_is_a_page() {
        let gate = |gate: &str, deny: &[&str], verdict| GateMet {
            gate: gate.into(),
            allow: vec!["public".into()],
            deny: deny.iter().map(|&name| name.into()).collect(),
            verdict,
        };
        let met = Met {
            id: "0123456789abcdef0123456789abcdef".into(),
            trace_id: "4bf92f3577b34da6a3ce929d0e0e4736".into(),
            time: "2026-01-01T00:00:00.123Z".into(),
            client: "203.0.113.9".into(),
            method: "GET".into(),
            host: "app.example.com".into(),
            path: "/a\u{1b}[2J\u{202e}".into(),
            protocol: "HTTP/2.0".into(),
            tls: "TLSv1.3".into(),
            site: "app.example.com".into(),
            route: "/".into(),
            does: "hands it to django:8000".into(),
            gates: vec![
                gate("row 443", &["abuse"], Verdict::LetIn),
                gate("site app.example.com", &[], Verdict::LetIn),
                gate("route /", &[], Verdict::Refused),
            ],
            status: 502,
            refused: "unanswered".into(),
            why: "the upstream closed the connection before it answered".into(),
            upstream: "10.0.0.3:8000".into(),
            tries: 2,
            connect_ms: Some(Millis(1007)),
            first_byte_ms: None,
            total_ms: Millis(21_090),
            request_bytes: 17,
            response_bytes: 512,
            changed_since: true,
        };
        let expected = "\
request     0123456789abcdef0123456789abcdef
trace       4bf92f3577b34da6a3ce929d0e0e4736
time        2026-01-01T00:00:00.123Z
client      203.0.113.9
asked       GET app.example.com /a\\u{1b}[2J\\u{202e}
spoken      HTTP/2.0 TLSv1.3
row         443: let in (allow public, deny abuse)
site        app.example.com: let in (allow public)
route       /: refused (allow public)
route does  hands it to django:8000
upstream    10.0.0.3:8000 in the end, sent 2 times
answer      502: the upstream closed the connection before it answered (unanswered)
timings     connected in 1.007 ms, over after 21.090 ms
bytes       17 of the request's body, 512 of the answer's
note        the configuration was changed since; gates and route are those of now
";
        assert_eq!(page(&met), expected);
        let json = serde_json::to_string(&met).unwrap();
        assert!(json.contains("\"connect_ms\":1.007") && json.contains("\"verdict\":\"let_in\""), "{json}");
        assert_eq!(serde_json::from_str::<Met>(&json).unwrap(), met);
    }
}
