//! Spans as OTLP has them in JSON: ids in hexadecimal, 64-bit numbers as text. Names are those of OpenTelemetry's
//! conventions for HTTP.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::seen::{Seen, SpanId, Try};
use crate::observe::metrics::Labels;

/// `Span.SpanKind`
const SERVER: u8 = 2;
const CLIENT: u8 = 3;
/// `Status.StatusCode`
const ERROR: u8 = 2;
/// The methods that have names; a stranger's own word would be a name without end.
const METHODS: [&str; 10] =
    ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE", "QUERY"];

/// An `ExportTraceServiceRequest` of these requests. `labels` know their routes.
pub fn encode(batch: &[Seen], service: &str, labels: &Labels) -> Vec<u8> {
    let spans = batch.iter().flat_map(|seen| {
        let tries = seen.tries.iter().enumerate().map(|(number, own)| client(seen, number, own));
        std::iter::once(server(seen, labels)).chain(tries)
    });
    let resource = vec![text("service.name", service), text("service.version", env!("CARGO_PKG_VERSION"))];
    let request = Request {
        resource_spans: [ResourceSpans {
            resource: Resource { attributes: resource },
            scope_spans: [ScopeSpans {
                scope: Scope { name: "vestibule", version: env!("CARGO_PKG_VERSION") },
                spans: spans.collect(),
            }],
        }],
    };
    serde_json::to_vec(&request).unwrap_or_default()
}

/// The request as the edge met it.
fn server<'a>(seen: &'a Seen, labels: &'a Labels) -> Span<'a> {
    let method = method(&seen.method);
    let (_, route) = labels.names(seen.series);
    // An exact route is marked where routes are listed.
    let route = route.strip_prefix("= ").unwrap_or(route);
    let failed = seen.status >= 500 || seen.status == 0;
    let mut attributes = vec![
        text("http.request.method", method),
        text("url.scheme", if seen.secure { "https" } else { "http" }),
        text("url.path", &seen.path),
        text("client.address", seen.client.to_string()),
        text("network.protocol.version", version(seen.protocol)),
    ];
    let original = if method == OTHER { &*seen.method } else { "" };
    for (key, value) in [
        ("http.request.method_original", original),
        ("server.address", &*seen.host),
        ("user_agent.original", &seen.user_agent),
        ("http.route", route),
    ] {
        if !value.is_empty() {
            attributes.push(text(key, value));
        }
    }
    attributes.extend(status(seen.status));
    attributes.extend(failed.then(|| error(seen.error, seen.status)));
    let word = if method == OTHER { "HTTP" } else { method };
    Span {
        name: if route.is_empty() { word.into() } else { format!("{word} {route}").into() },
        kind: SERVER,
        parent_span_id: seen.belonging.parent.as_ref().map(SpanId::as_str),
        // Whose client left has no status, and is no failure of the server.
        status: (seen.status >= 500).then_some(Status { code: ERROR }),
        ..span(seen, &seen.belonging.span, (Duration::ZERO, seen.total), attributes)
    }
}

/// A try at an upstream, below it.
fn client<'a>(seen: &'a Seen, number: usize, own: &'a Try) -> Span<'a> {
    let method = method(&seen.method);
    let mut attributes = vec![text("http.request.method", method)];
    match own.peer.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?))) {
        Some((host, port)) => {
            attributes.push(text("server.address", host.trim_matches(['[', ']'])));
            attributes.push(whole("server.port", port.into()));
        }
        None => attributes.push(text("server.address", &*own.peer)),
    }
    let answered = own.status.unwrap_or_default();
    let failed = own.error.is_some() || answered >= 400;
    attributes.extend((number > 0).then(|| whole("http.request.resend_count", number as u64)));
    attributes.extend(status(answered));
    attributes.extend(failed.then(|| error(own.error, answered)));
    Span {
        name: if method == OTHER { "HTTP".into() } else { method.into() },
        kind: CLIENT,
        parent_span_id: Some(seen.belonging.span.as_str()),
        status: failed.then_some(Status { code: ERROR }),
        ..span(seen, &own.span, (own.began, own.took), attributes)
    }
}

fn span<'a>(
    seen: &'a Seen,
    id: &'a SpanId,
    (began, took): (Duration, Duration),
    attributes: Vec<Attribute<'a>>,
) -> Span<'a> {
    Span {
        trace_id: std::str::from_utf8(&seen.belonging.trace).unwrap_or_default(),
        id: id.as_str(),
        parent_span_id: None,
        name: "".into(),
        kind: 0,
        start_time_unix_nano: nanos(seen.time, began),
        end_time_unix_nano: nanos(seen.time, began.saturating_add(took)),
        attributes,
        status: None,
    }
}

const OTHER: &str = "_OTHER";

fn method(typed: &str) -> &str {
    if METHODS.contains(&typed) { typed } else { OTHER }
}

/// As in `1.1`, and `2` where there are no others.
fn version(protocol: &str) -> &str {
    let number = protocol.strip_prefix("HTTP/").unwrap_or(protocol);
    number.strip_suffix(".0").filter(|number| *number != "1").unwrap_or(number)
}

fn status(status: u16) -> Option<Attribute<'static>> {
    (status != 0).then(|| whole("http.response.status_code", status.into()))
}

fn error(why: Option<&'static str>, status: u16) -> Attribute<'static> {
    let unsaid = || if status == 0 { OTHER.into() } else { Cow::Owned(status.to_string()) };
    text("error.type", why.map_or_else(unsaid, Cow::Borrowed))
}

fn nanos(time: SystemTime, later: Duration) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    since.saturating_add(later).as_nanos().to_string()
}

fn text<'a>(key: &'static str, value: impl Into<Cow<'a, str>>) -> Attribute<'a> {
    Attribute { key, value: Value::StringValue(value.into()) }
}

fn whole(key: &'static str, value: u64) -> Attribute<'static> {
    Attribute { key, value: Value::IntValue(value.to_string()) }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    resource_spans: [ResourceSpans<'a>; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ResourceSpans<'a> {
    resource: Resource<'a>,
    scope_spans: [ScopeSpans<'a>; 1],
}

#[derive(Serialize)]
struct Resource<'a> {
    attributes: Vec<Attribute<'a>>,
}

#[derive(Serialize)]
struct ScopeSpans<'a> {
    scope: Scope,
    spans: Vec<Span<'a>>,
}

#[derive(Serialize)]
struct Scope {
    name: &'static str,
    version: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Span<'a> {
    trace_id: &'a str,
    #[serde(rename = "spanId")]
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_span_id: Option<&'a str>,
    name: Cow<'a, str>,
    kind: u8,
    start_time_unix_nano: String,
    end_time_unix_nano: String,
    attributes: Vec<Attribute<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status>,
}

#[derive(Serialize)]
struct Attribute<'a> {
    key: &'static str,
    value: Value<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum Value<'a> {
    StringValue(Cow<'a, str>),
    IntValue(String),
}

#[derive(Serialize)]
struct Status {
    code: u8,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Belonging;
    use super::*;
    use crate::fault::Fault;
    use crate::observe::access::{Line, Tls};

    #[test]
    #[allow(clippy::too_many_lines, reason = "a whole request, as it goes out")]
    fn a_request_and_its_tries_are_spans_of_one_trace() {
        let mut labels = Labels::default();
        let series = labels.series("app.example.com", "/admin/");
        let (own, first, second) = (SpanId::random(), SpanId::random(), SpanId::random());
        let line = Line {
            host: b"app.example.com",
            method: "GET",
            path: b"/admin/\xff?token=secret",
            protocol: "HTTP/2.0",
            status: 502,
            total: Duration::from_millis(30),
            tls: Some(Tls { version: "TLSv1.3", suite: "x", resumed: false }),
            user_agent: Some(b"curl/8.0"),
            fault: Some(&Fault::ConnectTimeout),
            series,
            ..Line::new(SystemTime::UNIX_EPOCH + Duration::from_secs(7), [203, 0, 113, 9].into())
        };
        let trace = *b"4bf92f3577b34da6a3ce929d0e0e4736";
        let parent = SpanId::read(b"00f067aa0ba902b7");
        let tries = vec![
            Try {
                span: first,
                peer: "[::1]:8000".into(),
                began: Duration::from_millis(1),
                took: Duration::from_millis(2),
                status: None,
                error: Some("unreachable"),
            },
            Try { span: second, peer: "/run/app.sock".into(), status: Some(404), ..Try::default() },
        ];
        let seen = Seen::of(&line, Belonging { trace, span: own, parent }, tries);
        let value: serde_json::Value = serde_json::from_slice(&encode(&[seen], "edge", &labels)).unwrap();
        let spans = &value["resourceSpans"][0]["scopeSpans"][0]["spans"];
        assert_eq!(
            value["resourceSpans"][0]["resource"]["attributes"][0],
            json!({ "key": "service.name", "value": { "stringValue": "edge" } })
        );
        let text = |key: &str, value: &str| json!({ "key": key, "value": { "stringValue": value } });
        let whole = |key: &str, value: &str| json!({ "key": key, "value": { "intValue": value } });
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        let expected = json!([
            {
                "traceId": trace, "spanId": own.as_str(), "parentSpanId": "00f067aa0ba902b7",
                "name": "GET /admin/", "kind": 2,
                "startTimeUnixNano": "7000000000", "endTimeUnixNano": "7030000000",
                "attributes": [
                    text("http.request.method", "GET"),
                    text("url.scheme", "https"),
                    text("url.path", "/admin/\u{fffd}"),
                    text("client.address", "203.0.113.9"),
                    text("network.protocol.version", "2"),
                    text("server.address", "app.example.com"),
                    text("user_agent.original", "curl/8.0"),
                    text("http.route", "/admin/"),
                    whole("http.response.status_code", "502"),
                    text("error.type", "connect_timeout"),
                ],
                "status": { "code": 2 },
            },
            {
                "traceId": trace, "spanId": first.as_str(), "parentSpanId": own.as_str(), "name": "GET", "kind": 3,
                "startTimeUnixNano": "7001000000", "endTimeUnixNano": "7003000000",
                "attributes": [
                    text("http.request.method", "GET"),
                    text("server.address", "::1"),
                    whole("server.port", "8000"),
                    text("error.type", "unreachable"),
                ],
                "status": { "code": 2 },
            },
            {
                "traceId": trace, "spanId": second.as_str(), "parentSpanId": own.as_str(), "name": "GET", "kind": 3,
                "startTimeUnixNano": "7000000000", "endTimeUnixNano": "7000000000",
                "attributes": [
                    text("http.request.method", "GET"),
                    text("server.address", "/run/app.sock"),
                    whole("http.request.resend_count", "1"),
                    whole("http.response.status_code", "404"),
                    text("error.type", "404"),
                ],
                "status": { "code": 2 },
            },
        ]);
        assert_eq!(spans, &expected);
    }

    #[test]
    fn a_stranger_s_words_name_no_span() {
        let left = Fault::ClientGone;
        let line = Line { method: "BREW", status: 499, protocol: "HTTP/1.0", fault: Some(&left), ..empty() };
        let belonging = Belonging { trace: [b'1'; 32], span: SpanId::default(), parent: None };
        let text =
            String::from_utf8(encode(&[Seen::of(&line, belonging, Vec::new())], "x", &Labels::default()));
        let text = text.unwrap();
        for part in
            ["\"name\":\"HTTP\"", "\"_OTHER\"", "\"BREW\"", "\"client_gone\"", "{\"stringValue\":\"1.0\"}"]
        {
            assert!(text.contains(part), "no {part} in {text}");
        }
        assert!(
            !text.contains("499") && !text.contains("\"status\"") && !text.contains("parentSpanId"),
            "{text}"
        );
    }

    fn empty() -> Line<'static> {
        Line::new(SystemTime::UNIX_EPOCH, [203, 0, 113, 9].into())
    }
}
