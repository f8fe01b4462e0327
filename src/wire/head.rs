//! A message's head: its start line and its field lines, kept as slices of one buffer in the order in which they
//! came. Rewriting a head is one pass over its lines that skips some and appends others.

use std::fmt;

use memchr::memchr;

use super::known::Known;
use super::octets::{is_target, is_token, is_value};

/// The longest head of a request, in octets.
pub const MAX_REQUEST_HEAD: usize = 32 * 1024;
/// The longest head of an upstream's response, in octets.
pub const MAX_RESPONSE_HEAD: usize = 64 * 1024;
/// The longest request target, in octets (RFC 9112 section 3 asks for 8,000 at least).
pub const MAX_TARGET: usize = 8 * 1024;
/// The most field lines of a head.
pub const MAX_LINES: usize = 128;

/// As many lines as a browser or Django sends, most often: what is there from the start need not grow.
const USUAL_LINES: usize = 20;
/// What lines are added to a head, most often, in octets: a date, a cookie.
const USUAL_ADDITIONS: usize = 128;

/// Offsets into a head's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    start: u32,
    end: u32,
}

#[derive(Debug, Clone, Copy)]
struct Line {
    known: Known,
    name: Span,
    value: Span,
}

/// One field line.
#[derive(Debug, Clone, Copy)]
pub struct Field<'a> {
    /// Which one it is, where the edge cares.
    pub known: Known,
    /// The name as it came.
    pub name: &'a [u8],
    /// The value without the white space around it.
    pub value: &'a [u8],
}

/// Why a head cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadHead {
    /// It is not one; the text says where.
    Syntax(&'static str),
    /// More than [`MAX_LINES`] field lines.
    TooManyLines,
    /// Not HTTP/1.0 or HTTP/1.1.
    Version,
}

impl BadHead {
    /// What is wrong, in words.
    pub fn text(self) -> &'static str {
        match self {
            Self::Syntax(text) => text,
            Self::TooManyLines => "more than 128 field lines",
            Self::Version => "the HTTP version is not supported",
        }
    }
}

/// HTTP/1.x, as the start line says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
}

/// A request's start line (RFC 9112 section 3).
#[derive(Debug, Clone)]
pub struct RequestLine {
    /// The method.
    pub method: http::Method,
    /// The target, as it came.
    pub target: Span,
    /// The version.
    pub version: Version,
}

/// A response's start line (RFC 9112 section 4).
#[derive(Debug, Clone, Copy)]
pub struct StatusLine {
    /// 100 to 599.
    pub status: http::StatusCode,
    /// The version.
    pub version: Version,
}

/// Field lines over one buffer.
#[derive(Debug, Default)]
pub struct Head {
    text: Vec<u8>,
    lines: Vec<Line>,
}

impl Head {
    /// Reads a request's head: `text` up to and with the empty line.
    pub fn parse_request(&mut self, text: &[u8]) -> Result<RequestLine, BadHead> {
        let start = self.begin(text)?;
        let line = parse_request_line(self.slice(start), start)?;
        self.parse_lines(start.end as usize + 2)?;
        Ok(line)
    }

    /// Reads a response's head: `text` up to and with the empty line.
    pub fn parse_response(&mut self, text: &[u8]) -> Result<StatusLine, BadHead> {
        let start = self.begin(text)?;
        let line = parse_status_line(self.slice(start))?;
        self.parse_lines(start.end as usize + 2)?;
        Ok(line)
    }

    /// Reads a trailer section: field lines up to and with the empty line.
    pub fn parse_trailers(&mut self, text: &[u8]) -> Result<(), BadHead> {
        self.clear();
        self.text.extend_from_slice(text);
        self.parse_lines(0)
    }

    /// Forgets everything and keeps the allocation.
    pub fn clear(&mut self) {
        self.text.clear();
        self.lines.clear();
    }

    /// Adds a field line. The caller knows that name and value are well formed.
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        let line = Line { known: Known::of(name), name: self.add(name), value: self.add(value) };
        self.lines.push(line);
    }

    /// Adds text that is no field line, and says where it is.
    pub fn add(&mut self, text: &[u8]) -> Span {
        let start = offset(self.text.len());
        self.text.extend_from_slice(text);
        Span { start, end: offset(self.text.len()) }
    }

    /// The text that a span of this head names.
    pub fn slice(&self, span: Span) -> &[u8] {
        self.text.get(span.start as usize..span.end as usize).unwrap_or_default()
    }

    /// A part of a span: from `start` to `end`, counted from the span's own beginning.
    pub fn within(span: Span, start: usize, end: usize) -> Span {
        Span { start: span.start + offset(start), end: span.start + offset(end) }
    }

    /// The field lines in their order.
    pub fn fields(&self) -> impl Iterator<Item = Field<'_>> {
        self.lines.iter().map(|line| Field {
            known: line.known,
            name: self.slice(line.name),
            value: self.slice(line.value),
        })
    }

    /// Takes off the lines that `keeps` does not keep.
    pub fn retain(&mut self, keeps: impl Fn(Known, &[u8]) -> bool) {
        let text = &self.text;
        let slice = |span: Span| text.get(span.start as usize..span.end as usize).unwrap_or_default();
        self.lines.retain(|line| keeps(line.known, slice(line.name)));
    }

    /// The names that Connection says are for this hop alone (RFC 9110 section 7.6.1), but for the words that are no
    /// field's name.
    pub fn nominated(&self) -> Vec<Vec<u8>> {
        let words: [&[u8]; 3] = [b"close", b"keep-alive", b"upgrade"];
        let names = self.all(Known::Connection).flat_map(members);
        names
            .filter(|name| !words.iter().any(|word| word.eq_ignore_ascii_case(name)))
            .map(<[u8]>::to_vec)
            .collect()
    }

    /// The values of a field that the edge decides little about, line by line, whatever the case of its name.
    pub fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.fields()
            .filter(|field| field.name.eq_ignore_ascii_case(name.as_bytes()))
            .map(|field| field.value)
    }

    /// The values of one field, line by line.
    pub fn all(&self, known: Known) -> impl Iterator<Item = &[u8]> {
        self.lines.iter().filter(move |line| line.known == known).map(|line| self.slice(line.value))
    }

    /// The value of the first line of one field.
    pub fn first(&self, known: Known) -> Option<&[u8]> {
        self.all(known).next()
    }

    /// The value of a field that may stand once: an error where it stands more often.
    pub fn single(&self, known: Known) -> Result<Option<&[u8]>, Repeated> {
        Ok(self.single_span(known)?.map(|span| self.slice(span)))
    }

    /// Where the value of a field is that may stand once.
    pub fn single_span(&self, known: Known) -> Result<Option<Span>, Repeated> {
        let mut lines = self.lines.iter().filter(|line| line.known == known);
        let first = lines.next().map(|line| line.value);
        if lines.next().is_some() { Err(Repeated) } else { Ok(first) }
    }

    fn begin(&mut self, text: &[u8]) -> Result<Span, BadHead> {
        self.clear();
        self.lines.reserve(USUAL_LINES);
        self.text.reserve(text.len() + USUAL_ADDITIONS);
        self.text.extend_from_slice(text);
        let end = line_end(&self.text, 0)?;
        Ok(Span { start: 0, end: offset(end) })
    }

    fn parse_lines(&mut self, mut at: usize) -> Result<(), BadHead> {
        loop {
            let end = line_end(&self.text, at)?;
            if end == at {
                return if end + 2 == self.text.len() {
                    Ok(())
                } else {
                    Err(BadHead::Syntax("text behind the end of the head"))
                };
            }
            if self.lines.len() == MAX_LINES {
                return Err(BadHead::TooManyLines);
            }
            let line = parse_line(self.text.get(at..end).unwrap_or_default(), at)?;
            self.lines.push(line);
            at = end + 2;
        }
    }
}

/// A field that may stand once stands twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repeated;

/// Looks for the end of a head as bytes arrive, and refuses a line feed without its carriage return at once,
/// for a client that ends its lines so would wait for ever.
#[derive(Debug, Default, Clone, Copy)]
pub struct Scanner {
    /// Where the next look begins.
    scanned: usize,
    /// Where the current line began.
    line: usize,
}

impl Scanner {
    /// The length of the head with its empty line, once it is all there. `buffer` grows between calls.
    pub fn find_end(&mut self, buffer: &[u8]) -> Result<Option<usize>, BadHead> {
        while let Some(found) = buffer.get(self.scanned..).and_then(|rest| memchr(b'\n', rest)) {
            let feed = self.scanned + found;
            if feed == self.line || buffer.get(feed - 1) != Some(&b'\r') {
                return Err(BadHead::Syntax("a line ends without a carriage return"));
            }
            let empty = feed - 1 == self.line;
            self.scanned = feed + 1;
            self.line = feed + 1;
            if empty {
                return Ok(Some(feed + 1));
            }
        }
        self.scanned = buffer.len();
        Ok(None)
    }

    /// Whether a whole line was seen.
    pub fn has_line(&self) -> bool {
        self.line > 0
    }
}

/// A list field's members, without white space and without empty ones (RFC 9110 section 5.6.1).
pub fn members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|b| *b == b',').map(<[u8]>::trim_ascii).filter(|member| !member.is_empty())
}

impl fmt::Display for Field<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name.escape_ascii(), self.value.escape_ascii())
    }
}

/// Heads are limited to far less than 4 GiB; a longer one ends at the limit of its own reader first.
fn offset(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// The offset of the CR of the line that begins at `at`.
fn line_end(text: &[u8], at: usize) -> Result<usize, BadHead> {
    let feed = text.get(at..).and_then(|rest| memchr(b'\n', rest)).map(|found| at + found);
    match feed {
        Some(feed) if feed > at && text.get(feed - 1) == Some(&b'\r') => Ok(feed - 1),
        Some(_) => Err(BadHead::Syntax("a line ends without a carriage return")),
        None => Err(BadHead::Syntax("the head is not whole")),
    }
}

fn parse_line(line: &[u8], at: usize) -> Result<Line, BadHead> {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Err(BadHead::Syntax("a field line is folded"));
    }
    let colon = memchr(b':', line).ok_or(BadHead::Syntax("a field line has no colon"))?;
    let (name, rest) = line.split_at(colon);
    if !is_token(name) {
        return Err(BadHead::Syntax("a field name is not a token"));
    }
    let raw = rest.get(1..).unwrap_or_default();
    let value = trim_ows(raw);
    if !is_value(value) {
        return Err(BadHead::Syntax("a field value has a control character"));
    }
    let start = at + colon + 1 + raw.iter().take_while(|b| is_ows(**b)).count();
    Ok(Line {
        known: Known::of(name),
        name: Span { start: offset(at), end: offset(at + colon) },
        value: Span { start: offset(start), end: offset(start + value.len()) },
    })
}

fn parse_request_line(line: &[u8], span: Span) -> Result<RequestLine, BadHead> {
    let bad = BadHead::Syntax("the request line is not METHOD SP TARGET SP VERSION");
    let method_end = memchr(b' ', line).ok_or(bad)?;
    let version_start = line.iter().rposition(|b| *b == b' ').filter(|at| *at > method_end).ok_or(bad)? + 1;
    let (method, version) = (line.get(..method_end).ok_or(bad)?, line.get(version_start..).ok_or(bad)?);
    let target = line.get(method_end + 1..version_start - 1).ok_or(bad)?;
    if !is_token(method) {
        return Err(BadHead::Syntax("the method is not a token"));
    }
    if !is_target(target) {
        return Err(BadHead::Syntax("the request target has a character that no URI has"));
    }
    Ok(RequestLine {
        version: parse_version(version)?,
        method: http::Method::from_bytes(method).map_err(|_| bad)?,
        target: Head::within(span, method_end + 1, version_start - 1),
    })
}

fn parse_status_line(line: &[u8]) -> Result<StatusLine, BadHead> {
    let bad = BadHead::Syntax("the status line is not VERSION SP STATUS SP REASON");
    let version = parse_version(line.get(..8).ok_or(bad)?)?;
    let status = line.get(9..12).ok_or(bad)?;
    let reason = line.get(12..).unwrap_or_default();
    if line.get(8) != Some(&b' ') || !is_value(reason) || !matches!(reason.first(), None | Some(b' ')) {
        return Err(bad);
    }
    let status = http::StatusCode::from_bytes(status).map_err(|_| bad)?;
    if status.as_u16() > 599 { Err(bad) } else { Ok(StatusLine { status, version }) }
}

fn parse_version(text: &[u8]) -> Result<Version, BadHead> {
    match text {
        b"HTTP/1.1" => Ok(Version::Http11),
        b"HTTP/1.0" => Ok(Version::Http10),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Err(BadHead::Version)
        }
        _ => Err(BadHead::Syntax("the HTTP version is malformed")),
    }
}

fn is_ows(b: u8) -> bool {
    b == b' ' || b == b'\t'
}

fn trim_ows(text: &[u8]) -> &[u8] {
    let start = text.iter().position(|b| !is_ows(*b)).unwrap_or(text.len());
    let end = text.iter().rposition(|b| !is_ows(*b)).map_or(start, |at| at + 1);
    text.get(start..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request(text: &[u8]) -> Result<(RequestLine, Head), BadHead> {
        let mut head = Head::default();
        let line = head.parse_request(text)?;
        Ok((line, head))
    }

    #[test]
    fn a_head_keeps_its_lines_in_order() {
        let (line, head) =
            request(b"GET /a?b=c HTTP/1.1\r\nHost: x\r\nX-A:  1 \t\r\nx-a:2\r\nEmpty: \r\n\r\n").unwrap();
        assert_eq!(line.method, http::Method::GET);
        assert_eq!(head.slice(line.target), b"/a?b=c");
        let fields: Vec<String> = head.fields().map(|field| field.to_string()).collect();
        assert_eq!(fields, ["Host: x", "X-A: 1", "x-a: 2", "Empty: "]);
        assert_eq!(head.single(Known::Host), Ok(Some(&b"x"[..])));
    }

    #[test]
    fn what_two_readers_could_read_in_two_ways_is_refused() {
        for text in [
            &b"GET / HTTP/1.1\nHost: x\r\n\r\n"[..],
            b"GET / HTTP/1.1\r\nHost: x\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n",
            b"GET / HTTP/1.1\r\n Host: x\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
            b"GET / HTTP/1.1\r\n: x\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\0b\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n",
            b"GET / HTTP/1.1\r\nHo\x80st: a\r\n\r\n",
            b"GET  / HTTP/1.1\r\n\r\n",
            b"GET / a HTTP/1.1\r\n\r\n",
            b"GET /a\tb HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1 \r\n\r\n",
            b" GET / HTTP/1.1\r\n\r\n",
            b"GET /#f HTTP/1.1\r\n\r\n",
            b"GET /\xc3\xa9 HTTP/1.1\r\n\r\n",
            b"G(T / HTTP/1.1\r\n\r\n",
            b"GET / http/1.1\r\n\r\n",
            b"GET / HTTP/1.1x\r\n\r\n",
            b"GET /\r\n\r\n",
        ] {
            assert!(matches!(request(text), Err(BadHead::Syntax(_))), "{}", text.escape_ascii());
        }
        assert_eq!(request(b"GET / HTTP/2.0\r\n\r\n").unwrap_err(), BadHead::Version);
        assert_eq!(request(b"GET / HTTP/1.2\r\n\r\n").unwrap_err(), BadHead::Version);
    }

    #[test]
    fn the_scanner_finds_the_end_wherever_the_bytes_are_cut() {
        let text = b"GET / HTTP/1.1\r\nHost: x\r\n\r\nrest";
        for cut in 0..text.len() {
            let mut scanner = Scanner::default();
            let early = scanner.find_end(&text[..cut]).unwrap();
            assert_eq!(early, (cut >= 27).then_some(27), "cut at {cut}");
            if early.is_none() {
                assert_eq!(scanner.find_end(text), Ok(Some(27)));
            }
        }
        for bad in [&b"\n"[..], b"GET / HTTP/1.1\n", b"A\r\nB\n\n"] {
            assert!(Scanner::default().find_end(bad).is_err());
        }
    }

    #[test]
    fn status_lines() {
        let status = |text: &[u8]| Head::default().parse_response(text).map(|line| line.status.as_u16());
        assert_eq!(status(b"HTTP/1.1 200 OK\r\n\r\n"), Ok(200));
        assert_eq!(status(b"HTTP/1.0 404\r\n\r\n"), Ok(404));
        assert_eq!(status(b"HTTP/1.1 204 \r\n\r\n"), Ok(204));
        for bad in [
            "HTTP/1.1 20 OK",
            "HTTP/1.1 2000 OK",
            "HTTP/1.1200 OK",
            "HTTP/1.1 099 x",
            "HTTP/1.1 600 x",
            "junk",
        ] {
            assert!(status(format!("{bad}\r\n\r\n").as_bytes()).is_err(), "{bad}");
        }
    }

    proptest! {
        /// Whatever is accepted here, a lenient parser reads in the same way.
        #[test]
        fn accepted_heads_mean_the_same_to_others(
            text in "(GET|POST) [!-~]{1,12} HTTP/1.[01]\r\n([!-~]{1,6}:[ -~\t\r\n]{0,8}\r\n){0,4}\r\n"
        ) {
            if let Ok((line, head)) = request(text.as_bytes()) {
                let mut lines = [httparse::EMPTY_HEADER; MAX_LINES];
                let mut other = httparse::Request::new(&mut lines);
                prop_assert!(other.parse(text.as_bytes()).unwrap().is_complete());
                prop_assert_eq!(other.path.unwrap().as_bytes(), head.slice(line.target));
                let theirs: Vec<_> = other.headers.iter().map(|h| (h.name.as_bytes(), h.value)).collect();
                let ours: Vec<_> = head.fields().map(|f| (f.name, f.value)).collect();
                prop_assert_eq!(theirs, ours);
            }
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut head = Head::default();
            let _ = head.parse_request(&bytes);
            let _ = head.parse_response(&bytes);
            let _ = head.parse_trailers(&bytes);
            let _ = Scanner::default().find_end(&bytes);
        }
    }
}
