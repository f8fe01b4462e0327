//! Several upstreams: who is asked, who waits, who is well, and who is not there any more.

mod choice;
mod names;
mod retire;
mod waiting;

use std::io::{self, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::PATIENCE;
use crate::support::client::NAME;
use crate::support::edge::{Edge, ROWS, run};
use crate::support::upstream::{Then, Upstream};

/// An edge with one worker, these upstreams, and lines of `[site.proxy]`.
fn edge(upstreams: &[String], proxy: &str) -> Edge {
    Edge::start(&config(upstreams, proxy))
}

fn config(upstreams: &[String], proxy: &str) -> String {
    format!(
        "{ROWS}\n[process]\nworkers = 1\n\n[[site]]\ndomains = [\"{NAME}\"]\nupstream = {upstreams:?}\n\
         certificate = \"internal\"\n[site.proxy]\n{proxy}\n"
    )
}

/// An upstream that answers with a word of its own.
fn named(name: &'static str) -> Upstream {
    Upstream::start(move |_, stream| say(stream, name))
}

fn say(stream: &mut TcpStream, text: &str) -> io::Result<Then> {
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len())?;
    Ok(Then::Keep)
}

fn addresses(upstreams: &[&Upstream]) -> Vec<String> {
    upstreams.iter().map(|upstream| upstream.address().to_string()).collect()
}

/// A command about the running edge.
fn command(edge: &Edge, arguments: &[&str]) -> (Option<i32>, String, String) {
    let socket = edge.folder().join("admin.sock");
    run(&[arguments, &["--socket", socket.to_str().unwrap()]].concat())
}

/// What the edge says of its upstreams, once it is so.
#[track_caller]
fn wait_for_status(edge: &Edge, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let start = Instant::now();
    loop {
        let (code, out, error) = command(edge, &["status", "--format", "json"]);
        assert_eq!(code, Some(0), "{error}");
        let status: Value = serde_json::from_str(&out).unwrap();
        if is_so(&status["upstreams"]) {
            return status["upstreams"].clone();
        }
        assert!(start.elapsed() < PATIENCE, "{what}: {}", status["upstreams"]);
        std::thread::sleep(Duration::from_millis(10)); // the edge tells nobody by itself
    }
}

/// Whether so many requests wait for the one upstream.
fn wait(count: u64) -> impl Fn(&Value) -> bool {
    move |upstreams| upstreams[0]["waiting"] == count
}
