//! A collector that says what a test wants it to say.

use std::io::{BufReader, Write as _};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::Value;

use crate::support::{PATIENCE, post};

/// What it says to a batch.
#[derive(Clone, Copy)]
pub(super) enum Says {
    /// A status, field lines, and a body.
    Answer(u16, &'static str, &'static str),
    /// Nothing, for ever.
    Nothing,
}

impl Says {
    pub(super) const TAKEN: Self = Self::Answer(200, "", "{\"partialSuccess\":{}}");
}

/// Where batches arrive; each is answered in turn, and those after the last as that.
pub(super) struct Collector {
    pub(super) url: String,
    batches: Receiver<(String, Value)>,
}

impl Collector {
    pub(super) fn start(says: &'static [Says]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (sender, batches) = channel();
        let mut says = says.iter().copied();
        std::thread::spawn(move || {
            let (mut last, mut open) = (Says::TAKEN, Vec::new());
            for stream in listener.incoming() {
                let mut stream = BufReader::new(stream.unwrap());
                let (head, body) = post::read(&mut stream);
                last = says.next().unwrap_or(last);
                match last {
                    Says::Answer(status, fields, body) => {
                        let length = body.len();
                        let head = format!(
                            "HTTP/1.1 {status} X\r\n{fields}content-length: {length}\r\nconnection: close\r\n\r\n"
                        );
                        let _ = write!(stream.get_mut(), "{head}{body}");
                    }
                    Says::Nothing => open.push(stream),
                }
                if sender.send((head, serde_json::from_slice(&body).unwrap())).is_err() {
                    return;
                }
            }
        });
        Self { url, batches }
    }

    /// The next batch: the request's head and its body.
    #[track_caller]
    pub(super) fn next(&self) -> (String, Value) {
        self.batches.recv_timeout(PATIENCE).expect("a batch")
    }

    /// A batch that has come, or comes in a moment.
    pub(super) fn come(&self) -> Option<Value> {
        self.batches.recv_timeout(Duration::from_millis(10)).ok().map(|(_, body)| body)
    }

    /// Forgets what has come.
    pub(super) fn rest(&self) {
        while self.batches.try_recv().is_ok() {}
    }

    /// Whether nothing came that was not asked for.
    pub(super) fn is_done(&self) -> bool {
        self.batches.recv_timeout(Duration::ZERO).is_err()
    }
}

/// The spans of a batch.
pub(super) fn spans(body: &Value) -> Vec<Value> {
    body["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap().clone()
}

/// An attribute of a span.
pub(super) fn attribute<'a>(span: &'a Value, key: &str) -> Option<&'a str> {
    let all = span["attributes"].as_array().unwrap();
    let value = &all.iter().find(|own| own["key"] == key)?["value"];
    value["stringValue"].as_str().or_else(|| value["intValue"].as_str())
}
