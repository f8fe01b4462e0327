//! `vestibule explain`: what it says of requests that went well, that were refused, and that nobody made.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::PATIENCE;
use crate::support::client::{NAME, connect};
use crate::support::edge::{Edge, HTTPS, ROWS, run};
use crate::support::upstream::Upstream;

#[test]
fn a_request_is_explained_from_the_row_to_the_timings() {
    let upstream = Upstream::echo();
    let edge = Edge::start(&config(&upstream));
    let mark = edge.mark();
    connect(&edge).get("/some/page?x=1").unwrap();
    let line = edge.access_line(mark, "the line", |line| line["path"] == "/some/page?x=1");
    let met = explained(&edge, line["request_id"].as_str().unwrap());
    for (key, expected) in [
        ("client", json!("127.0.0.1")),
        ("method", json!("GET")),
        ("host", json!(NAME)),
        ("path", json!("/some/page?x=1")),
        ("protocol", line["protocol"].clone()),
        ("tls", json!("TLSv1.3")),
        ("site", json!(NAME)),
        ("route", json!("/")),
        ("does", json!(format!("hands it to {}", upstream.address()))),
        ("status", json!(200)),
        ("refused", json!("")),
        ("upstream", json!(upstream.address().to_string())),
        ("tries", json!(1)),
        ("total_ms", line["total_ms"].clone()),
        ("first_byte_ms", line["first_byte_ms"].clone()),
        ("response_bytes", line["response_bytes"].clone()),
        ("time", line["time"].clone()),
        ("changed_since", json!(false)),
    ] {
        assert_eq!(met[key], expected, "{key} of {met}");
    }
    let gate = |gate: String, deny: Value| json!({ "gate": gate, "allow": ["public"], "deny": deny, "verdict": "let_in" });
    let expected = [format!("row {HTTPS}"), format!("site {NAME}"), "route /".to_owned()];
    let expected: Vec<_> = expected.into_iter().map(|name| gate(name, json!([]))).collect();
    assert_eq!(met["gates"], json!(expected));
}

#[test]
fn what_was_refused_says_by_which_gate() {
    let upstream = Upstream::echo();
    let edge = Edge::start(&config(&upstream));
    for (path, gates, why) in [
        ("/admin/x", [("row", "let_in"), ("site", "let_in"), ("route", "refused")], "forbidden"),
        ("/dead/", [("row", "let_in"), ("site", "let_in"), ("route", "let_in")], "unreachable"),
    ] {
        let page = connect(&edge).get(path).unwrap();
        let met = explained(&edge, page.header("x-request-id").unwrap());
        let got: Vec<_> = met["gates"].as_array().unwrap().iter().collect();
        for ((kind, verdict), gate) in gates.iter().zip(&got) {
            assert!(gate["gate"].as_str().unwrap().starts_with(kind), "{met}");
            assert_eq!(&gate["verdict"], verdict, "{met}");
        }
        assert_eq!((got.len(), &met["refused"]), (3, &json!(why)), "{met}");
        assert_ne!(met["why"], "", "{met}");
    }
    let page = connect(&edge).ask("GET / HTTP/1.1\r\nHost: other.localhost\r\n\r\n").unwrap();
    let met = explained(&edge, page.header("x-request-id").unwrap());
    assert_eq!((met["refused"].as_str(), met["site"].as_str()), (Some("misdirected"), Some("")), "{met}");
    assert!(edge.reload());
    let met = explained(&edge, page.header("x-request-id").unwrap());
    assert_eq!(met["changed_since"], true, "{met}");
}

#[test]
fn a_trace_is_named_in_the_line_and_in_what_is_explained() {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    let upstream = Upstream::echo();
    for (trace, begins) in [("pass", false), ("begin", true)] {
        let edge = Edge::start(&config(&upstream).replace("hold =", &format!("trace = {trace:?}\n  hold =")));
        let traced = format!("traceparent: 00-{TRACE}-00f067aa0ba902b7-00\r\n");
        let wrong = format!("traceparent: 00-{TRACE}-00f067aa0ba902b7\r\n");
        // What the edge answers itself begins no trace.
        for (path, fields, expected) in [
            ("/", &*traced, Some(TRACE)),
            ("/admin/", &traced, Some(TRACE)),
            ("/", &wrong, None),
            ("/", "", None),
            ("/admin/", "", Some("")),
        ] {
            let mark = edge.mark();
            let asked = format!("GET {path} HTTP/1.1\r\nHost: {NAME}\r\n{fields}\r\n");
            connect(&edge).ask(asked).unwrap();
            let line = edge.access_line(mark, "the line", |line| line["path"] == path);
            let id = line["request_id"].as_str().unwrap().to_owned();
            let expected = expected.unwrap_or(if begins { &id } else { "" });
            assert_eq!(line["trace_id"].as_str().unwrap_or_default(), expected, "{line}");
            assert_eq!(explained(&edge, &id)["trace_id"], expected, "{line}");
            let (_, page, _) = explain(&edge, &[&id]);
            assert_eq!(page.contains(&format!("\ntrace       {expected}\n")), !expected.is_empty(), "{page}");
        }
    }
}

/// With no access lines at all, too.
#[test]
fn a_person_reads_it_and_a_wrong_id_is_said() {
    let upstream = Upstream::echo();
    let edge = Edge::start(&(config(&upstream) + "[log]\nformat = \"json\"\naccess = \"off\"\n"));
    let page = connect(&edge).get("/admin/").unwrap();
    let id = page.header("x-request-id").unwrap();
    explained(&edge, id);
    let (code, stdout, stderr) = explain(&edge, &[&id.to_uppercase()]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    for line in [
        format!("request     {id}\n"),
        format!("asked       GET {NAME} /admin/\n"),
        "route       /admin/: refused (allow office)\n".to_owned(),
        "answer      403: the client's address is not allowed here (forbidden)\n".to_owned(),
    ] {
        assert!(stdout.contains(&line), "no {line:?} in {stdout}");
    }
    let (code, stdout, stderr) = explain(&edge, &[&"0".repeat(32)]);
    assert_eq!((code, stdout.as_str()), (Some(1), ""));
    assert!(stderr.contains("is among the latest 1,"), "{stderr}");
    let (code, _, stderr) = explain(&edge, &["../status"]);
    assert_eq!(code, Some(2));
    assert!(stderr.contains("is not a request's id"), "{stderr}");
}

fn config(upstream: &Upstream) -> String {
    format!(
        r#"{ROWS}
[sources]
office = ["203.0.113.0/24"]

[[site]]
domains = ["{NAME}"]
upstream = "{}"
certificate = "internal"
  [site.proxy]
  hold = "0s"
  [[site.route]]
  path = "/admin/"
  allow = ["office"]
  [[site.route]]
  path = "/dead/"
  upstream = "127.0.0.1:9"
"#,
        upstream.address()
    )
}

fn explain(edge: &Edge, arguments: &[&str]) -> (Option<i32>, String, String) {
    let socket = edge.folder().join("admin.sock");
    run(&[&["explain", "--socket", socket.to_str().unwrap()], arguments].concat())
}

/// What is said once the request is known: a moment after its client has the answer.
#[track_caller]
fn explained(edge: &Edge, id: &str) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (code, stdout, stderr) = explain(edge, &[id, "--format", "json"]);
        if code == Some(0) {
            return serde_json::from_str(&stdout).unwrap();
        }
        assert!(Instant::now() < deadline, "{stderr}");
        std::thread::sleep(Duration::from_millis(5)); // nobody is told when a request is noted
    }
}
