//! Forward rows: TCP through the real edge, byte for byte, with raw sockets and with real servers.

mod ends;
mod life;
mod limits;
pub(crate) mod postgres;
pub(crate) mod redis;
mod relay;
mod ssh;
mod tls;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use serde_json::Value;
use socket2::SockRef;

use crate::support::PATIENCE;
use crate::support::client;
use crate::support::edge::Edge;
use crate::support::lines::text;

/// The forward row of [`row`].
const ROW: &str = "127.0.0.3:0";

/// A configuration with this row beside what every one needs.
fn row(row: &str) -> String {
    rows(&format!("\"{ROW}\" = {{ {row} }}"))
}

/// A configuration with these rows.
fn rows(rows: &str) -> String {
    format!(
        r#"
[sources]
here = ["127.0.0.0/8", "::1"]
nobody = ["203.0.113.9"]
[ports]
"127.0.0.1:0" = {{ serve = "https", allow = ["public"] }}
{rows}
[[site]]
domains = ["app.localhost", "*.wild.localhost"]
upstream = "127.0.0.1:1"
certificate = "internal"
"#
    )
}

/// What stands behind a row: a listener that a test accepts on.
struct Target(TcpListener);

impl Target {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        // It is how long `accept` waits, too.
        SockRef::from(&listener).set_read_timeout(Some(PATIENCE)).unwrap();
        Self(listener)
    }

    fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    /// A row that forwards here, with more keys.
    fn row(&self, more: &str) -> String {
        row(&self.keys(more))
    }

    fn keys(&self, more: &str) -> String {
        format!("forward = \"{}\", allow = [\"public\"]{more}", self.address())
    }

    fn accept(&self) -> TcpStream {
        let (stream, _) = self.0.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }
}

/// Both ends of a new connection through the row.
fn joined(edge: &Edge, target: &Target) -> (TcpStream, TcpStream) {
    let client = client::tcp(edge.address(ROW)).unwrap();
    (client, target.accept())
}

/// Says something on one end, and hears it on the other.
#[track_caller]
fn says(from: &mut TcpStream, to: &mut TcpStream, what: &str) {
    from.write_all(what.as_bytes()).unwrap();
    let mut heard = vec![0; what.len()];
    to.read_exact(&mut heard).unwrap();
    assert_eq!(heard, what.as_bytes());
}

/// Everything until the end.
fn rest(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).map(|_| bytes)
}

/// Closes a connection by a reset.
#[allow(clippy::needless_pass_by_value, reason = "what is dropped here is closed")]
fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

/// The next access line of a forwarded connection: why it ended, and the line.
fn ended(edge: &Edge, mark: usize) -> (String, Value) {
    let line = edge.access_line(mark, "a connection's end", |line| line.get("ended").is_some());
    (text(&line, "ended").to_owned(), line)
}
