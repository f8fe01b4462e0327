//! A real Redis behind forward rows, and its own clients before them.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use super::*;
use crate::support::lines::Lines;
use crate::support::port::Port;

const TLS_ROW: &str = "127.0.0.4:0";

/// A running server. Dropping it ends it.
pub(crate) struct Server {
    child: Child,
    pub(crate) port: Port,
}

impl Server {
    pub(crate) fn start() -> Self {
        let port = Port::reserve();
        let mut command = Command::new("redis-server");
        command.args([
            "--port",
            &port.number().to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
        ]);
        let mut child = command.current_dir("/").stdout(Stdio::piped()).spawn().unwrap();
        let log = Lines::follow(child.stdout.take().unwrap());
        log.wait("a server that is ready", |line| line.contains("Ready to accept connections").then_some(()));
        Self { child, port }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn asked(address: SocketAddr, more: &[&str]) -> String {
    let mut command = Command::new("redis-cli");
    command.args(["-h", &address.ip().to_string(), "-p", &address.port().to_string()]).args(more);
    let output = command.stdin(Stdio::null()).output().unwrap();
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn redis_cli_and_redis_benchmark_in_plain_and_over_tls() {
    let server = Server::start();
    let target = format!("forward = \"{}\", allow = [\"here\"]", server.port.address());
    let edge = Edge::start(&rows(&format!(
        "\"{ROW}\" = {{ {target} }}\n\
         \"{TLS_ROW}\" = {{ {target}, tls = \"redis.localhost\", certificate = \"internal\" }}"
    )));
    let ca = edge.ca();
    let ca = ca.to_str().unwrap();
    let tls = ["--tls", "--cacert", ca, "--sni", "redis.localhost"];
    assert_eq!(asked(edge.address(ROW), &["set", "key", "value"]), "OK\n");
    assert_eq!(asked(edge.address(TLS_ROW), &[&tls[..], &["get", "key"]].concat()), "value\n");
    let stranger = ["--tls", "--cacert", ca, "--sni", "other.localhost", "ping"];
    assert!(asked(edge.address(TLS_ROW), &stranger).contains("SSL_connect failed"));
    assert!(!asked(edge.address(TLS_ROW), &["ping"]).contains("PONG"));
    for (row, tls) in [(ROW, &[][..]), (TLS_ROW, &tls[..])] {
        let address = edge.address(row);
        let mut bench = Command::new("redis-benchmark");
        bench.args(["-h", &address.ip().to_string(), "-p", &address.port().to_string(), "-q"]);
        bench.args(["-n", "2000", "-c", "20", "-P", "4", "-t", "set,get,lrange_600"]).args(tls);
        let output = bench.output().unwrap();
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && told.matches("requests per second").count() >= 3, "{output:?}");
    }
}
