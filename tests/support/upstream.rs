//! Upstreams that a test scripts. Each keeps the raw bytes of every request, reads them as strictly as
//! RFC 9112 lets a recipient, and remembers whatever was ambiguous.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use super::PATIENCE;
use super::client::find;

/// One request, whole, as it reached the upstream.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// The head's octets.
    pub(crate) head: String,
    pub(crate) method: String,
    pub(crate) target: String,
    /// Names in lower case, in their order.
    pub(crate) headers: Vec<(String, String)>,
    /// Without its framing.
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Vec<(String, String)>,
}

impl Seen {
    /// The first field line of this name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }
}

/// What becomes of the connection after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    /// Another request may come.
    Keep,
    /// It is closed.
    Close,
}

/// A listening upstream. Dropping it closes everything.
pub(crate) struct Upstream {
    address: SocketAddr,
    shared: Arc<State>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    record: Mutex<Record>,
    changed: Condvar,
    connections: AtomicUsize,
    open: AtomicUsize,
    leaving: AtomicBool,
    streams: Mutex<Vec<TcpStream>>,
}

#[derive(Default)]
struct Record {
    seen: Vec<Seen>,
    ambiguous: Vec<String>,
}

impl Upstream {
    /// Answers each whole request with `answer`, which writes to the connection.
    pub(crate) fn start(
        answer: impl Fn(&Seen, &mut TcpStream) -> io::Result<Then> + Send + Sync + 'static,
    ) -> Self {
        Self::raw(move |connection| {
            while let Some(seen) = connection.request() {
                if answer(&seen, &mut connection.stream)? == Then::Close {
                    return connection.stream.shutdown(Shutdown::Both);
                }
            }
            Ok(())
        })
    }

    /// Answers every request with 200, its method and target.
    pub(crate) fn echo() -> Self {
        Self::start(|seen, stream| {
            let body = format!("{} {}", seen.method, seen.target);
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len())?;
            if seen.method != "HEAD" {
                stream.write_all(body.as_bytes())?;
            }
            Ok(Then::Keep)
        })
    }

    /// Hands each connection to `serve`, on a thread of its own.
    pub(crate) fn raw(serve: impl Fn(&mut Connection) -> io::Result<()> + Send + Sync + 'static) -> Self {
        Self::raw_at(([127, 0, 0, 1], 0).into(), serve)
    }

    /// The same, at this address.
    pub(crate) fn raw_at(
        address: SocketAddr,
        serve: impl Fn(&mut Connection) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(State::default());
        let (state, serve) = (Arc::clone(&shared), Arc::new(serve));
        let accepting = std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if state.leaving.load(Ordering::SeqCst) {
                    return;
                }
                state.streams.lock().unwrap().push(stream.try_clone().unwrap());
                let (serve, mut connection) = (Arc::clone(&serve), Connection::new(stream, &state));
                std::thread::spawn(move || serve(&mut connection));
            }
        });
        Self { address, shared, accepting: Some(accepting) }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Every whole request so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.record.lock().unwrap().seen.clone()
    }

    /// How many whole requests came so far: a mark for [`Upstream::wait_from`].
    pub(crate) fn mark(&self) -> usize {
        self.shared.record.lock().unwrap().seen.len()
    }

    /// The first request after the mark that `pick` accepts.
    #[track_caller]
    pub(crate) fn wait_from(&self, mark: usize, what: &str, pick: impl Fn(&Seen) -> bool) -> Seen {
        let deadline = Instant::now() + PATIENCE;
        let mut record = self.shared.record.lock().unwrap();
        loop {
            if let Some(seen) = record.seen.iter().skip(mark).find(|seen| pick(seen)) {
                return seen.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{what} did not reach the upstream; it saw {:?}", record.seen);
            record = self.shared.changed.wait_timeout(record, left).unwrap().0;
        }
    }

    /// What was ambiguous in what it was sent. Nothing ever should be.
    pub(crate) fn ambiguous(&self) -> Vec<String> {
        self.shared.record.lock().unwrap().ambiguous.clone()
    }

    /// Connections accepted so far.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Waits until no more than this many connections are open.
    #[track_caller]
    pub(crate) fn wait_open(&self, at_most: usize) {
        let record = self.shared.record.lock().unwrap();
        let open = || self.shared.open.load(Ordering::SeqCst);
        let waited = self.shared.changed.wait_timeout_while(record, PATIENCE, |_| open() > at_most);
        drop(waited);
        assert!(open() <= at_most, "{} connections are still open", open());
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.shared.leaving.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        // With its end the socket is closed, and another upstream may have the address.
        let _ = self.accepting.take().map(JoinHandle::join);
        for stream in self.shared.streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// One connection from the edge.
pub(crate) struct Connection {
    /// For answers; reading goes through [`Connection::request`].
    pub(crate) stream: TcpStream,
    /// Counted from 0.
    pub(crate) number: usize,
    buffer: Vec<u8>,
    shared: Arc<State>,
}

impl Connection {
    fn new(stream: TcpStream, shared: &Arc<State>) -> Self {
        let number = shared.connections.fetch_add(1, Ordering::SeqCst);
        shared.open.fetch_add(1, Ordering::SeqCst);
        let _ = stream.set_nodelay(true);
        Self { stream, number, buffer: Vec::new(), shared: Arc::clone(shared) }
    }

    /// The next whole request, recorded; None when the edge has closed, or sent half of one.
    pub(crate) fn request(&mut self) -> Option<Seen> {
        let mut seen = self.head()?;
        if seen.header("expect").is_some() {
            self.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").ok()?;
        }
        self.body(&mut seen)?;
        self.note(|record| record.seen.push(seen.clone()));
        Some(seen)
    }

    /// The next request's head alone.
    pub(crate) fn head(&mut self) -> Option<Seen> {
        let head = self.until(b"\r\n\r\n")?;
        let (seen, doubts) = parse(&head);
        for doubt in doubts {
            let text = String::from_utf8_lossy(&head).into_owned();
            self.note(|record| record.ambiguous.push(format!("{doubt}: {text:?}")));
        }
        Some(seen)
    }

    /// Reads and throws away until the edge closes.
    pub(crate) fn drain(&mut self) {
        while self.more().is_some() {
            self.buffer.clear();
        }
    }

    fn body(&mut self, seen: &mut Seen) -> Option<()> {
        if seen.header("transfer-encoding").is_some() {
            while let size @ 1.. = self.chunk_size()? {
                seen.body.extend(self.exactly(size)?);
                if self.exactly(2)? != b"\r\n" {
                    self.doubt("no CRLF after a chunk");
                    return None;
                }
            }
            loop {
                let line = self.until(b"\r\n")?;
                match split_field(&line) {
                    Some(field) => seen.trailers.push(field),
                    None => return Some(()),
                }
            }
        }
        if let Some(length) = seen.header("content-length") {
            seen.body = self.exactly(length.parse().ok()?)?;
        }
        Some(())
    }

    fn chunk_size(&mut self) -> Option<usize> {
        let line = self.until(b"\r\n")?;
        let digits = std::str::from_utf8(&line).ok()?.strip_suffix("\r\n")?;
        if digits.is_empty() || digits.len() > 15 || !digits.bytes().all(|octet| octet.is_ascii_hexdigit()) {
            self.doubt(&format!("a chunk's size is {digits:?}"));
            return None;
        }
        usize::from_str_radix(digits, 16).ok()
    }

    /// So many octets; None when the edge has closed.
    pub(crate) fn exactly(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < count {
            self.more()?;
        }
        Some(self.buffer.drain(..count).collect())
    }

    fn until(&mut self, mark: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(position) = self.buffer.windows(mark.len()).position(|window| window == mark) {
                return Some(self.buffer.drain(..position + mark.len()).collect());
            }
            self.more()?;
        }
    }

    fn more(&mut self) -> Option<()> {
        let mut block = [0; 16 * 1024];
        let count = self.stream.read(&mut block).ok().filter(|&count| count > 0)?;
        self.buffer.extend_from_slice(block.get(..count)?);
        Some(())
    }

    fn doubt(&self, what: &str) {
        self.note(|record| record.ambiguous.push(what.to_owned()));
    }

    fn note(&self, change: impl FnOnce(&mut Record)) {
        change(&mut self.shared.record.lock().unwrap());
        self.shared.changed.notify_all();
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Both);
        self.shared.open.fetch_sub(1, Ordering::SeqCst);
        self.note(|_| ());
    }
}

/// Reads a head, and lists all that two readers could take in two ways.
fn parse(head: &[u8]) -> (Seen, Vec<&'static str>) {
    let mut doubts = line_doubts(head);
    let text = String::from_utf8_lossy(head).into_owned();
    let mut lines = text.trim_end_matches("\r\n").split("\r\n");
    let first: Vec<_> = lines.next().unwrap_or_default().split(' ').map(str::to_owned).collect();
    let [method, target, version] = first.try_into().unwrap_or_else(|_| {
        doubts.push("the request line is not three words");
        Default::default()
    });
    if version != "HTTP/1.1" {
        doubts.push("the version is not HTTP/1.1");
    }
    let headers: Vec<_> = lines.filter_map(|line| split_field(line.as_bytes())).collect();
    doubts.extend(header_doubts(&headers));
    let seen = Seen { head: text, method, target, headers, body: Vec::new(), trailers: Vec::new() };
    (seen, doubts)
}

fn line_doubts(head: &[u8]) -> Vec<&'static str> {
    let mut doubts = Vec::new();
    let count = |octet: u8| memchr::memchr_iter(octet, head).count();
    let pairs = head.windows(2).filter(|pair| pair == b"\r\n").count();
    if count(b'\r') != pairs || count(b'\n') != pairs {
        doubts.push("a bare CR or LF");
    }
    if head.iter().any(|&octet| octet < 0x20 && !matches!(octet, b'\r' | b'\n' | b'\t') || octet == 0x7f) {
        doubts.push("a control character");
    }
    for line in head.split(|&octet| octet == b'\n').skip(1).filter(|line| line.len() > 1) {
        let name = line.split(|&octet| octet == b':').next().unwrap_or_default();
        if name.len() == line.len() || name.is_empty() || !name.iter().all(|&octet| is_plain(octet)) {
            doubts.push("a field name that is not plain (letters, digits and hyphens)");
        }
    }
    doubts
}

fn header_doubts(headers: &[(String, String)]) -> Vec<&'static str> {
    let count = |name: &str| headers.iter().filter(|(found, _)| found == name).count();
    let value = |name: &str| find(headers, name).unwrap_or_default();
    let mut doubts = Vec::new();
    let mut hold = |fine: bool, doubt| {
        if !fine {
            doubts.push(doubt);
        }
    };
    hold(count("host") == 1, "not exactly one Host");
    hold(count("content-length") + count("transfer-encoding") <= 1, "more than one framing");
    hold(
        value("content-length").bytes().all(|octet| octet.is_ascii_digit()),
        "a Content-Length that is no number",
    );
    hold(matches!(value("transfer-encoding"), "" | "chunked"), "a Transfer-Encoding that is not chunked");
    for name in ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-real-ip", "forwarded"] {
        hold(count(name) == 1, "not exactly one of a forwarding header");
    }
    hold(count("x-request-id") == 1, "not exactly one X-Request-ID");
    hold(value("x-forwarded-proto") == "https", "X-Forwarded-Proto is not https");
    doubts
}

fn is_plain(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || b"-!#$%&'*+.^`|~".contains(&octet)
}

fn split_field(line: &[u8]) -> Option<(String, String)> {
    let line = String::from_utf8_lossy(line);
    let (name, value) = line.trim_end_matches("\r\n").split_once(':')?;
    Some((name.to_ascii_lowercase(), value.trim().to_owned()))
}
