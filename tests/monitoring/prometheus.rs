//! A real Prometheus on a port of the kernel's choice.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::PATIENCE;
use crate::support::client::{Wire, tcp};
use crate::support::lines::{Lines, text};

/// A running Prometheus. Dropping it kills the process.
pub(super) struct Prometheus {
    child: Child,
    at: SocketAddr,
    _folder: TempDir,
}

impl Prometheus {
    /// Starts it on the example and its alerts, with the edge as its target, and in a hurry.
    pub(super) fn start(example: &Path, edge: SocketAddr) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = fs::read_to_string(example.join("prometheus.yml")).unwrap();
        let (target, pace) = ("127.0.0.1:9180", "_interval: 15s");
        assert!(config.contains(&format!("targets: [\"{target}\"]")) && config.contains(pace), "{config}");
        let config = config.replace(&format!("[\"{target}\"]"), &format!("[\"{edge}\"]"));
        fs::write(folder.path().join("prometheus.yml"), config.replace(pace, "_interval: 100ms")).unwrap();
        fs::copy(example.join("alerts.yml"), folder.path().join("alerts.yml")).unwrap();
        let mut child = Command::new(program("prometheus"))
            .args([
                "--config.file=prometheus.yml",
                "--storage.tsdb.path=data",
                "--web.listen-address=127.0.0.1:0",
            ])
            .arg("--log.format=json")
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Lines::follow(child.stderr.take().unwrap());
        let line = log.wait_json(0, "its address", |line| text(line, "msg") == "Listening on");
        let at = text(&line, "address").parse().unwrap();
        log.wait_json(0, "ready", |line| text(line, "msg").starts_with("Server is ready"));
        Self { child, at, _folder: folder }
    }

    /// The series of an expression, as soon as there are any.
    pub(super) fn wait_for_series(&self, expression: &str, what: &str) -> Vec<Value> {
        self.wait(&format!("query?query={}", encoded(expression)), &format!("{what}: {expression}"), |data| {
            data["result"].as_array().filter(|series| !series.is_empty()).cloned()
        })
    }

    /// All rules, as soon as each was evaluated. One that cannot be is a failure.
    pub(super) fn wait_for_rules(&self) -> Vec<Value> {
        self.wait("rules", "rules that were evaluated", |data| {
            let groups = data["groups"].as_array().unwrap().iter();
            let rules: Vec<Value> =
                groups.flat_map(|group| group["rules"].as_array().unwrap().clone()).collect();
            let broken = rules.iter().find(|rule| rule["health"] == "err");
            assert!(broken.is_none(), "{broken:?}");
            (!rules.is_empty() && rules.iter().all(|rule| rule["health"] == "ok")).then_some(rules)
        })
    }

    /// An alert of this name, as soon as it is pending or firing.
    pub(super) fn wait_for_alert(&self, name: &str) -> Value {
        self.wait("alerts", name, |data| {
            let mut alerts = data["alerts"].as_array().unwrap().iter();
            alerts.find(|alert| alert["labels"]["alertname"] == name).cloned()
        })
    }

    fn wait<T>(&self, path: &str, what: &str, pick: impl Fn(&Value) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let request = format!("GET /api/v1/{path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
            let answer = Wire::new(tcp(self.at).unwrap()).ask(request).unwrap().json();
            assert_eq!(answer["status"], "success", "{what}: {answer}");
            if let Some(found) = pick(&answer["data"]) {
                return found;
            }
            assert!(Instant::now() < deadline, "in vain: {what}: {answer}");
            std::thread::sleep(Duration::from_millis(20)); // it tells nobody of a scrape
        }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where `scripts/prometheus` puts it.
pub(super) fn program(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("build/prometheus/usr/bin").join(name);
    assert!(path.exists(), "{} is missing; run: scripts/prometheus", path.display());
    path
}

fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |all, byte| all + &format!("%{byte:02X}"))
}
