//! Spans of sampled traces: what a collector gets, and what becomes of them where it does not take them.

mod collector;
mod django;

use std::io::Write as _;
use std::io::{self, Read as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Instant;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use self::collector::{Collector, Says, attribute, spans};
use crate::support::PATIENCE;
use crate::support::client::{NAME, connect};
use crate::support::edge::{Edge, ROWS};
use crate::support::lines::text;
use crate::support::upstream::{Seen, Upstream};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

#[test]
fn a_request_is_a_span_and_its_try_another_above_the_upstream_s_own() {
    let (upstream, collector) = (Upstream::echo(), Collector::start(&[Says::TAKEN]));
    let more = "headers = { env = \"OTEL_HEADERS\" }\nservice = \"edge-1\"";
    let fields = [("OTEL_HEADERS", Path::new("authorization=Bearer%20s3cret,x-scope-orgid=7"))];
    let mut edge = Edge::start_with(&config(&upstream, "pass", &collector.url, more), &fields);
    let mark = edge.mark();
    let asked =
        format!("GET /page?token=x HTTP/1.1\r\nHost: {NAME}\r\nUser-Agent: test/1\r\ntracestate: a=1\r\n");
    let sampled = ask(&edge, &upstream, &format!("{asked}traceparent: 00-{TRACE}-{PARENT}-01\r\n\r\n"));
    let unsampled = ask(&edge, &upstream, &format!("{asked}traceparent: 00-{TRACE}-{PARENT}-00\r\n\r\n"));
    let untraced = ask(&edge, &upstream, &format!("{asked}\r\n"));
    assert_eq!(
        unsampled.header("traceparent").unwrap(),
        format!("00-{TRACE}-{PARENT}-00"),
        "passed on as it is"
    );
    assert_eq!((untraced.header("traceparent"), sampled.header("tracestate")), (None, Some("a=1")));
    edge.access_line(mark, "the line", |line| line["path"] == "/page?token=x" && line["trace_id"] == TRACE);
    edge.signal(Signal::SIGTERM);
    assert!(edge.wait().success());

    let (head, body) = collector.next();
    assert!(head.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{head}");
    for field in ["content-type: application/json", "authorization: Bearer s3cret", "x-scope-orgid: 7"] {
        assert!(head.contains(&format!("{field}\r\n")), "no {field} in {head}");
    }
    let service = &body["resourceSpans"][0]["resource"]["attributes"][0];
    assert_eq!(service, &json!({ "key": "service.name", "value": { "stringValue": "edge-1" } }));
    let spans = spans(&body);
    let [server, client] = &spans[..] else { panic!("{spans:?}") };
    assert_eq!((&server["traceId"], &client["traceId"]), (&json!(TRACE), &json!(TRACE)));
    assert_eq!((&server["parentSpanId"], &client["parentSpanId"]), (&json!(PARENT), &server["spanId"]));
    let told = format!("00-{TRACE}-{}-01", client["spanId"].as_str().unwrap());
    assert_eq!(sampled.header("traceparent"), Some(told.as_str()));
    assert_eq!((&server["name"], &server["kind"]), (&json!("GET /"), &json!(2)));
    assert_eq!((&client["name"], &client["kind"]), (&json!("GET"), &json!(3)));
    for (key, expected) in [
        ("http.request.method", "GET"),
        ("url.scheme", "https"),
        ("url.path", "/page"),
        ("server.address", NAME),
        ("client.address", "127.0.0.1"),
        ("network.protocol.version", "1.1"),
        ("user_agent.original", "test/1"),
        ("http.route", "/"),
        ("http.response.status_code", "200"),
    ] {
        assert_eq!(attribute(server, key), Some(expected), "{key} of {server}");
    }
    assert_eq!(attribute(client, "server.port"), Some(&*upstream.address().port().to_string()));
    assert_eq!(attribute(server, "error.type"), None);
    let nanos = |span: &Value, key: &str| span[key].as_str().unwrap().parse::<u64>().unwrap();
    let [began, sent, answered, over] = [
        nanos(server, "startTimeUnixNano"),
        nanos(client, "startTimeUnixNano"),
        nanos(client, "endTimeUnixNano"),
        nanos(server, "endTimeUnixNano"),
    ];
    assert!(began <= sent && sent < answered && answered <= over, "{spans:?}");
    assert!(!edge.log().all().contains("s3cret"), "{}", edge.log().all());
    assert!(collector.is_done(), "one batch");
}

#[test]
fn each_try_at_an_upstream_is_a_span_and_names_itself() {
    let upstream = Upstream::raw(|connection| {
        let number = connection.number;
        while connection.request().is_some() {
            if number == 0 {
                return Ok(());
            }
            connection.stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
        }
        Ok(())
    });
    let collector = Collector::start(&[Says::TAKEN]);
    let mut edge = Edge::start(&config(&upstream, "begin", &collector.url, ""));
    let mark = edge.mark();
    assert_eq!(connect(&edge).get("/").unwrap().status, 200);
    let line = edge.access_line(mark, "the line", |line| line["path"] == "/");
    edge.signal(Signal::SIGTERM);
    assert!(edge.wait().success());
    let spans = spans(&collector.next().1);
    let [server, first, second] = &spans[..] else { panic!("{spans:?}") };
    assert_eq!((&server["traceId"], &server["parentSpanId"]), (&line["request_id"], &Value::Null));
    assert_eq!(attribute(first, "error.type"), Some("unanswered"));
    assert_eq!(first["status"]["code"], 2);
    assert_eq!(attribute(second, "http.response.status_code"), Some("200"));
    assert_eq!(attribute(second, "http.request.resend_count"), Some("1"));
    let named: Vec<_> =
        upstream.seen().iter().map(|seen| seen.header("traceparent").unwrap().to_owned()).collect();
    let expected = [first, second].map(|span| {
        format!("00-{}-{}-01", span["traceId"].as_str().unwrap(), span["spanId"].as_str().unwrap())
    });
    assert_eq!(named, expected);
}

#[test]
fn traces_that_begin_here_are_sampled_by_their_share_and_a_reload_changes_all_of_it() {
    let (upstream, first, second) =
        (Upstream::echo(), Collector::start(&[Says::TAKEN]), Collector::start(&[Says::TAKEN]));
    let mut edge = Edge::start(&config(&upstream, "begin", &first.url, "sample = 0.0"));
    let asked = format!("GET / HTTP/1.1\r\nHost: {NAME}\r\n\r\n");
    assert!(ask(&edge, &upstream, &asked).header("traceparent").unwrap().ends_with("-00"));
    edge.write_config(&config(&upstream, "begin", &second.url, "sample = 1"));
    assert!(edge.reload());
    let told = ask(&edge, &upstream, &asked).header("traceparent").unwrap().to_owned();
    assert!(told.ends_with("-01"), "{told}");
    let spans = spans(&second.next().1);
    assert_eq!(spans[1]["spanId"].as_str(), told.get(36..52), "{told}");
    wait_for(&edge, "vestibule_trace_spans_total{outcome=\"exported\"} 2");
    // The one that leaves beside another sends what it has.
    ask(&edge, &upstream, &asked);
    edge.upgrade().unwrap();
    assert_eq!(collector::spans(&second.next().1).len(), 2);
    edge.write_config(&config(&upstream, "begin", "", ""));
    assert!(edge.reload());
    let id = ask(&edge, &upstream, &asked);
    let own = id.header("x-request-id").unwrap();
    assert_eq!(
        id.header("traceparent").unwrap(),
        format!("00-{own}-{}-01", &own[16..]),
        "as without a collector"
    );
    assert!(first.is_done() && second.is_done());
}

#[test]
fn what_a_collector_has_no_time_for_is_sent_again_and_what_it_refuses_is_counted() {
    let collector = Collector::start(&[
        Says::Answer(503, "", ""),
        Says::Answer(429, "Retry-After: 1\r\n", ""),
        Says::Answer(
            200,
            "",
            r#"{"partialSuccess":{"rejectedSpans":"1","errorMessage":"too\u001b[2J old"}}"#,
        ),
        Says::Answer(400, "", r#"{"code":3,"message":"malformed"}"#),
    ]);
    let upstream = Upstream::echo();
    let edge = Edge::start(&config(&upstream, "pass", &collector.url, ""));
    let sampled =
        format!("GET /closed/ HTTP/1.1\r\nHost: {NAME}\r\ntraceparent: 00-{TRACE}-{PARENT}-01\r\n\r\n");
    // At once, so that their spans go in one batch.
    let mut client = connect(&edge);
    client.send(sampled.repeat(2)).unwrap();
    for _ in 0..2 {
        assert_eq!(client.response().unwrap().status, 403);
    }
    let bodies: Vec<Value> = (0..3).map(|_| collector.next().1).collect();
    assert!(bodies.iter().all(|body| body == &bodies[0] && spans(body).len() == 2), "{bodies:?}");
    let [_, _, taken] =
        [0, 1, 2].map(|place| attribute(&spans(&bodies[place])[0], "error.type").map(str::to_owned));
    assert_eq!(taken, None, "a 403 is no failure of the server's");
    wait_for(&edge, "vestibule_trace_spans_total{outcome=\"failed\"} 1");
    connect(&edge).ask(&sampled).unwrap();
    collector.next();
    wait_for(&edge, "vestibule_trace_spans_total{outcome=\"failed\"} 2");
    assert!(scrape(&edge).contains("vestibule_trace_spans_total{outcome=\"exported\"} 1\n"));
    edge.log().wait("the loss", |line| line.contains("are lost").then_some(()));
    let log = edge.log().all();
    let told = log.lines().filter(|line| line.contains("spans"));
    let told: Vec<Value> = told.map(|line| serde_json::from_str(line).unwrap()).collect();
    let told: Vec<_> = told.iter().map(|told| (text(told, "message"), text(told, "why"))).collect();
    // Each kind of trouble once a minute.
    let [(delay, until), (refusal, _), (loss, why)] = told[..] else { panic!("{told:?}") };
    assert!(
        delay.ends_with("tried again") && until.starts_with("it answered 503 Service Unavailable; again in ")
    );
    assert!(refusal.ends_with("did not take all spans"));
    assert!(loss.ends_with("are lost") && why.starts_with("it answered 400"), "{loss}: {why}");
}

/// Neither a collector that is not there nor one that hangs holds up a request, or the end.
#[test]
fn a_burst_is_served_while_nobody_takes_its_spans() {
    let upstream = Upstream::echo();
    let mut edge = Edge::start(&config(&upstream, "pass", "http://127.0.0.1:1", ""));
    let sampled =
        format!("GET /closed/ HTTP/1.1\r\nHost: {NAME}\r\ntraceparent: 00-{TRACE}-{PARENT}-01\r\n\r\n");
    let burst = |edge: &Edge, times: usize| {
        let mut client = connect(edge);
        (0..times).for_each(|_| assert_eq!(client.ask(&sampled).unwrap().status, 403));
    };
    burst(&edge, 3000);
    let counted = |edge: &Edge, outcome: &str| {
        let name = format!("vestibule_trace_spans_total{{outcome=\"{outcome}\"}} ");
        let text = scrape(edge);
        text.lines().find_map(|line| line.strip_prefix(&name)).unwrap().parse::<usize>().unwrap()
    };
    let collector =
        Collector::start(&[Says::TAKEN, Says::TAKEN, Says::TAKEN, Says::TAKEN, Says::TAKEN, Says::Nothing]);
    edge.write_config(&config(&upstream, "pass", &collector.url, ""));
    assert!(edge.reload());
    let mut taken = 0;
    // On a slow machine the first batch may have been given up by now.
    let lost = |edge: &Edge| counted(edge, "dropped") + counted(edge, "failed");
    let begin = Instant::now();
    while taken + lost(&edge) < 3000 {
        taken += collector.come().map_or(0, |batch| spans(&batch).len());
        assert!(begin.elapsed() < PATIENCE, "{taken} taken, {} lost", lost(&edge));
    }
    assert!(lost(&edge) >= 3000 - 2048 - 512);
    wait_for(&edge, &format!("vestibule_trace_spans_total{{outcome=\"exported\"}} {taken}"));
    collector.rest();
    burst(&edge, 600);
    collector.next();
    edge.signal(Signal::SIGTERM);
    assert!(edge.wait().success());
    assert!(
        edge.log().all().contains("the last spans could not be exported in time"),
        "{}",
        edge.log().all()
    );
}

/// A site whose traces go on or begin, and a collector unless its URL is empty.
fn config(upstream: &Upstream, trace: &str, collector: &str, more: &str) -> String {
    let address = upstream.address();
    let export = if collector.is_empty() {
        String::new()
    } else {
        format!("[trace]\nendpoint = \"{collector}\"\n{more}\n")
    };
    format!(
        "{ROWS}\n{export}\n[sources]\noffice = [\"203.0.113.0/24\"]\n\n[process]\nworkers = 1\ngrace = \"20s\"\n\n\
         [[site]]\ndomains = [\"{NAME}\"]\nupstream = \"{address}\"\ncertificate = \"internal\"\n\
         [site.proxy]\ntrace = \"{trace}\"\n[[site.route]]\npath = \"/closed/\"\nallow = [\"office\"]\n"
    )
}

/// What the upstream saw of a request.
#[track_caller]
fn ask(edge: &Edge, upstream: &Upstream, request: &str) -> Seen {
    let mark = upstream.mark();
    assert_eq!(connect(edge).ask(request).unwrap().status, 200);
    upstream.wait_from(mark, "the request", |_| true)
}

#[track_caller]
fn wait_for(edge: &Edge, sample: &str) {
    let deadline = Instant::now() + PATIENCE;
    while !scrape(edge).lines().any(|line| line == sample) {
        assert!(Instant::now() < deadline, "{sample}\n{}", scrape(edge));
        std::thread::sleep(std::time::Duration::from_millis(10)); // nobody is told when a counter moves
    }
}

#[track_caller]
fn scrape(edge: &Edge) -> String {
    let asked = || -> io::Result<String> {
        let mut stream = UnixStream::connect(edge.folder().join("admin.sock"))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    asked().unwrap()
}
