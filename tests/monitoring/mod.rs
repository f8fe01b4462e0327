//! The dashboard and the alerts of deploy/monitoring: a real Prometheus scrapes a real edge by the example and evaluates them,
//! and what they ask for is what the edge exposes.

mod exposed;
mod prometheus;

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use self::exposed::Exposed;
use self::prometheus::{Prometheus, program};
use crate::support::PATIENCE;
use crate::support::client::{self, NAME, Wire, connect, connect_to};
use crate::support::edge::{self, Edge, ROWS};
use crate::support::upstream::Upstream;

const FORWARD: &str = "127.0.0.3:0";
const CLOSED: &str = "127.0.0.4:0";

/// Each alert fires when it should and is silent when not, as promtool tells from the series of alerts.test.yml.
#[test]
fn the_alerts_tests_pass() {
    for arguments in [
        ["check", "config", "prometheus.yml"],
        ["check", "rules", "alerts.yml"],
        ["test", "rules", "alerts.test.yml"],
    ] {
        let output =
            Command::new(program("promtool")).args(arguments).current_dir(folder()).output().unwrap();
        assert!(output.status.success(), "promtool {arguments:?}: {output:?}");
    }
}

/// Every panel has something to show of an edge to which everything has happened, and every alert is evaluated; those that
/// the edge gives cause for are raised, and say of what.
#[test]
fn what_is_asked_is_exposed() {
    let upstream = Upstream::echo();
    let edge = eventful(&upstream);
    let prometheus = Prometheus::start(&folder(), edge.address("[admin] listen"));
    let exposed = Exposed::parse(&scrape(&edge));
    for (panel, target) in targets(&dashboard()) {
        let expression = typed(&target["expr"]);
        exposed.check(&expression);
        let series = prometheus.wait_for_series(&expression, &panel);
        for label in between(target["legendFormat"].as_str().unwrap(), "{{", "}}") {
            let lacking = series.iter().find(|series| series["metric"][label.as_str()].is_null());
            assert!(lacking.is_none(), "{panel}: no label {label} in {lacking:?}");
        }
    }
    let tests = std::fs::read_to_string(folder().join("alerts.test.yml")).unwrap();
    for alert in prometheus.wait_for_rules() {
        let name = alert["name"].as_str().unwrap();
        exposed.check(alert["query"].as_str().unwrap());
        assert!(
            tests.contains(&format!("ALERTS{{alertname=\"{name}\", alertstate=\"firing\"")),
            "{name} is untested"
        );
    }
    for (alert, told) in [
        ("VestibuleUpstreamUnavailable", "127.0.0.1:1"),
        ("VestibuleCertificateMissing", "certless.test"),
        ("VestibuleMaintenanceForLong", "paused.localhost"),
    ] {
        let raised = prometheus.wait_for_alert(alert);
        let summary = raised["annotations"]["summary"].as_str().unwrap();
        assert!(summary.contains(told) && !raised.to_string().contains("<no value>"), "{raised}");
    }
}

/// What Grafana takes for granted of a dashboard: an id a panel, places that do not overlap, the chosen source everywhere.
#[test]
fn the_dashboard_is_in_order() {
    let dashboard = dashboard();
    assert_eq!(
        (dashboard["uid"].as_str(), dashboard["title"].as_str()),
        (Some("vestibule"), Some("vestibule"))
    );
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let names: Vec<_> = variables.iter().map(|variable| variable["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["datasource", "instance", "site"]);
    let panels = dashboard["panels"].as_array().unwrap();
    let (mut ids, mut cells) = (BTreeSet::new(), BTreeSet::new());
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "twice: {}", panel["id"]);
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().unwrap());
        assert!(x + w <= 24, "{}", panel["title"]);
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(cells.insert(cell), "{} lies on another at {cell:?}", panel["title"]);
        }
    }
    let sources = variables.iter().skip(1).chain(panels.iter().filter(|panel| panel["type"] != "row"));
    let sources: Vec<_> = sources.map(|part| &part["datasource"]).collect();
    let targets = targets(&dashboard);
    let all = sources.into_iter().chain(targets.iter().map(|(_, target)| &target["datasource"]));
    all.for_each(|source| assert_eq!(source["uid"], "${datasource}"));
}

/// An edge that has met everything the families of its metrics tell of.
fn eventful(upstream: &Upstream) -> Edge {
    let at = upstream.address();
    let rows = format!(
        "{ROWS}\"{FORWARD}\" = {{ forward = \"{at}\", allow = [\"public\"] }}\n\
         \"{CLOSED}\" = {{ serve = \"https\", allow = [\"office\"] }}\n"
    );
    let site = |name: &str, more: &str| format!("[[site]]\ndomains = [\"{name}\"]\n{more}\n");
    let own = |to: &str| format!("upstream = \"{to}\"\ncertificate = \"internal\"\n");
    let edge = Edge::start(&format!(
        "{rows}[sources]\noffice = [\"203.0.113.0/24\"]\n\
         [admin]\nsocket = \"./admin.sock\"\nlisten = \"127.0.0.1:0\"\n\
         [acme]\nemail = \"ops@example.com\"\ndirectory = \"https://127.0.0.1:1/directory\"\n{}{}{}{}",
        site(NAME, &own(&at.to_string())),
        site("dead.localhost", &(own("127.0.0.1:1") + "  [site.proxy]\n  hold = \"1ms\"\n")),
        site("paused.localhost", &own(&at.to_string())),
        site("certless.test", &format!("upstream = \"{at}\"\n")),
    ));
    assert_eq!(connect(&edge).get("/").unwrap().status, 200);
    let ask = "GET / HTTP/1.1\r\nHost: dead.localhost\r\n\r\n";
    assert_eq!(connect_to(&edge, "dead.localhost").ask(ask).unwrap().status, 503);
    let unknown = client::tls(edge.https(), &edge.ca(), "nobody.localhost", &[b"http/1.1"]);
    assert!(unknown.is_err());
    assert_eq!(Wire::new(client::tcp(edge.address(CLOSED)).unwrap()).rest().unwrap(), b"");
    let mut forwarded = Wire::new(client::tcp(edge.address(FORWARD)).unwrap());
    assert_eq!(forwarded.get("/").unwrap().status, 200);
    drop(forwarded);
    let socket = edge.folder().join("admin.sock").display().to_string();
    let (code, _, err) = edge::run(&["maintenance", "on", "paused.localhost", "--socket", &socket]);
    assert_eq!(code, Some(0), "{err}");
    edge
}

/// Scrapes until the forwarded connection is seen to have ended: the last of what happened.
fn scrape(edge: &Edge) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut stream = client::tcp(edge.address("[admin] listen")).unwrap();
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        if text.contains("vestibule_forward_ended_total{") {
            return text;
        }
        assert!(Instant::now() < deadline, "{text}");
        std::thread::sleep(Duration::from_millis(5)); // nobody is told when a counter moves
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/monitoring")
}

fn dashboard() -> Value {
    serde_json::from_slice(&std::fs::read(folder().join("dashboard.json")).unwrap()).unwrap()
}

/// The targets of all panels, each with its panel's title.
fn targets(dashboard: &Value) -> Vec<(String, Value)> {
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = |panel: &Value| panel["targets"].as_array().cloned().unwrap_or_default();
    panels
        .flat_map(|panel| targets(panel).into_iter().map(|target| (panel["title"].to_string(), target)))
        .collect()
}

/// An expression as Grafana sends it where all is chosen.
fn typed(expression: &Value) -> String {
    let all = expression.as_str().unwrap().replace("$__rate_interval", "1m");
    let all = all.replace("$instance", ".*").replace("$site", ".*");
    assert!(!all.contains('$'), "{all}");
    all
}

/// What stands between each pair of marks.
fn between(text: &str, open: &str, close: &str) -> Vec<String> {
    let parts = text.split(open).skip(1);
    parts.map(|part| part.split(close).next().unwrap().trim().to_owned()).collect()
}
