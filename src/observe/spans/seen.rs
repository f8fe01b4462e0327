//! A request of a sampled trace: what its spans are made of.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::fault::Fault;
use crate::observe::access::Line;
use crate::observe::metrics::Series;

/// The most that is kept of a text, in octets.
const TEXT: usize = 1024;

/// A span's id in hexadecimal; never zeros alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpanId([u8; 16]);

impl SpanId {
    /// A new one.
    pub fn random() -> Self {
        Self::of(getrandom::u64().unwrap_or_default().max(1))
    }

    /// The one that a `traceparent` has.
    pub fn read(text: &[u8]) -> Option<Self> {
        text.try_into().ok().map(Self)
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    fn of(bits: u64) -> Self {
        let mut text = [b'0'; 16];
        text.iter_mut().zip(format!("{bits:016x}").bytes()).for_each(|(place, digit)| *place = digit);
        Self(text)
    }
}

#[cfg(test)]
impl Default for SpanId {
    fn default() -> Self {
        Self::of(1)
    }
}

/// Where a request belongs.
#[derive(Debug, Clone, Copy)]
pub struct Belonging {
    /// The trace's id, in hexadecimal.
    pub trace: [u8; 32],
    /// The edge's own span.
    pub span: SpanId,
    /// The span that it came from; None where the trace begins here.
    pub parent: Option<SpanId>,
}

/// A request that is over. Text that came from outside is cut, and is as it was sent but for what is not UTF-8.
#[derive(Debug, Clone)]
pub struct Seen {
    pub(super) belonging: Belonging,
    pub(super) time: SystemTime,
    pub(super) total: Duration,
    pub(super) client: IpAddr,
    pub(super) method: String,
    pub(super) host: String,
    /// Without the query, in which there are secrets.
    pub(super) path: String,
    /// As in `HTTP/1.1`.
    pub(super) protocol: &'static str,
    pub(super) secure: bool,
    pub(super) user_agent: String,
    /// 0 where it had no answer.
    pub(super) status: u16,
    /// Why it was refused or failed.
    pub(super) error: Option<&'static str>,
    /// The site and the route that it met.
    pub(super) series: Series,
    pub(super) tries: Vec<Try>,
}

/// A try to have it answered by an upstream.
#[derive(Debug, Clone)]
pub struct Try {
    /// Its span.
    pub span: SpanId,
    /// Who was asked.
    pub peer: Arc<str>,
    /// From the request's beginning to that of the connection, or of the sending where there was one.
    pub began: Duration,
    /// Until the answer's head came, or it was clear that none would.
    pub took: Duration,
    /// The answer's.
    pub status: Option<u16>,
    /// Why there was none.
    pub error: Option<&'static str>,
}

impl Seen {
    /// What a line tells of a request.
    pub fn of(line: &Line<'_>, belonging: Belonging, tries: Vec<Try>) -> Self {
        Self {
            belonging,
            time: line.time,
            total: line.total,
            client: line.client,
            method: text(line.method.as_bytes()),
            host: text(line.host),
            path: text(line.path.split(|octet| *octet == b'?').next().unwrap_or_default()),
            protocol: line.protocol,
            secure: line.tls.is_some(),
            user_agent: text(line.user_agent.unwrap_or_default()),
            // 499 is an access line's own word.
            status: if matches!(line.fault, Some(Fault::ClientGone)) { 0 } else { line.status },
            error: line.refused(),
            series: line.series,
            tries,
        }
    }

    /// How many spans it is.
    pub fn spans(&self) -> usize {
        1 + self.tries.len()
    }
}

#[cfg(test)]
impl Default for Seen {
    fn default() -> Self {
        let belonging = Belonging { trace: [b'1'; 32], span: SpanId::default(), parent: None };
        Self::of(&Line::new(SystemTime::UNIX_EPOCH, [0; 4].into()), belonging, Vec::new())
    }
}

#[cfg(test)]
impl Default for Try {
    fn default() -> Self {
        let (began, took) = Default::default();
        Self { span: SpanId::default(), peer: "".into(), began, took, status: None, error: None }
    }
}

fn text(octets: &[u8]) -> String {
    let Some(first) = octets.get(..TEXT) else { return String::from_utf8_lossy(octets).into_owned() };
    // A character may have been cut in two.
    String::from_utf8_lossy(first).trim_end_matches(char::REPLACEMENT_CHARACTER).to_owned()
}
