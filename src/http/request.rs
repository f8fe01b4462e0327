//! A request as both protocols bring it, validated.

use http::Method;

use crate::fault::Fault;
use crate::name::Hostname;
use crate::wire::Known;
use crate::wire::head::{BadHead, Head, MAX_TARGET, RequestLine, Span, Version, members};
use crate::wire::{Framing, framing};

/// The version that the client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
    /// HTTP/2
    Http2,
}

impl Protocol {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Http10 => "HTTP/1.0",
            Self::Http11 => "HTTP/1.1",
            Self::Http2 => "HTTP/2.0",
        }
    }
}

/// A request's head.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) protocol: Protocol,
    pub(super) head: Head,
    /// The target in origin form (or `*`), as it is passed on.
    pub(super) target: Span,
    /// Scheme and authority in an absolute-form target, where there were any.
    pub(super) scheme: Option<Scheme>,
    /// The authority that the request is for: of the target, else of Host; None in an HTTP/1.0 request without one.
    pub(super) authority: Option<Authority>,
    pub(super) framing: Framing,
    /// The client waits for a 100 (RFC 9110 section 10.1.1).
    pub(super) expects_continue: bool,
    /// The client asks for a WebSocket, by Upgrade (RFC 6455) or by extended CONNECT (RFC 8441).
    pub(super) websocket: bool,
}

/// The scheme of an absolute-form target or of `:scheme`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scheme {
    Http,
    Https,
}

/// `host[:port]`, where the host is a DNS name or an address in any form.
#[derive(Debug, Clone, Copy)]
pub(super) struct Authority {
    pub(super) whole: Span,
    pub(super) host: Span,
    pub(super) port: Option<u16>,
}

impl Request {
    /// Reads an HTTP/1 head, which ends with its empty line.
    pub(super) fn from_h1(text: &[u8]) -> Result<Self, Fault> {
        let mut head = Head::default();
        let line = head.parse_request(text).map_err(bad_head)?;
        if head.slice(line.target).len() > MAX_TARGET {
            return Err(Fault::TargetTooLong);
        }
        let framing = framing::of_request(&head, line.version)?;
        let mut target = Target::parse(&head, &line)?;
        target.complete(&mut head, &line.method);
        let authority = authority_of_h1(&head, &line, &target)?;
        let expects_continue = expects_continue(&head, line.version)?;
        Ok(Self {
            websocket: line.method == Method::GET
                && framing == Framing::None
                && line.version == Version::Http11
                && asks_for_websocket(&head),
            protocol: if line.version == Version::Http11 { Protocol::Http11 } else { Protocol::Http10 },
            method: line.method,
            target: target.origin,
            scheme: target.scheme,
            authority,
            framing,
            expects_continue: expects_continue && framing != Framing::None,
            head,
        })
    }

    /// The path of the target, without the query.
    pub(super) fn path(&self) -> &[u8] {
        let target = self.target();
        target.split(|b| *b == b'?').next().unwrap_or(target)
    }

    /// The target in origin form.
    pub(super) fn target(&self) -> &[u8] {
        self.head.slice(self.target)
    }

    /// The host as the client wrote it, without its port.
    pub(super) fn host(&self) -> Option<&[u8]> {
        self.authority.map(|authority| self.head.slice(authority.host))
    }

    /// Whether an HTTP/1 client wants its connection kept (RFC 9112 section 9.3).
    pub(super) fn keeps_alive(&self) -> bool {
        let has = |token: &[u8]| {
            self.head
                .all(Known::Connection)
                .flat_map(members)
                .any(|member| member.eq_ignore_ascii_case(token))
        };
        match self.protocol {
            Protocol::Http10 => has(b"keep-alive") && !has(b"close"),
            Protocol::Http11 => !has(b"close"),
            Protocol::Http2 => true,
        }
    }
}

impl Authority {
    /// Reads `host[:port]` (RFC 3986 section 3.2, without user information).
    pub(super) fn parse(head: &Head, whole: Span) -> Result<Self, Fault> {
        let text = head.slice(whole);
        let bad = Fault::BadRequest("the host is malformed");
        let host_end = if text.first() == Some(&b'[') {
            match memchr::memchr(b']', text) {
                Some(at) => at + 1,
                None => return Err(bad),
            }
        } else {
            memchr::memchr(b':', text).unwrap_or(text.len())
        };
        let (host, port) = text.split_at(host_end);
        if !is_host(host) {
            return Err(bad);
        }
        let port = match port.strip_prefix(b":") {
            None if port.is_empty() => None,
            None => return Err(bad),
            Some(b"") => None,
            Some(digits) => Some(framing::digits(digits).and_then(|n| u16::try_from(n).ok()).ok_or(bad)?),
        };
        Ok(Self { whole, host: Head::within(whole, 0, host_end), port })
    }
}

/// A request target, taken apart.
struct Target {
    origin: Span,
    scheme: Option<Scheme>,
    authority: Option<Span>,
}

impl Target {
    /// The four forms of RFC 9112 section 3.2.
    fn parse(head: &Head, line: &RequestLine) -> Result<Self, Fault> {
        let text = head.slice(line.target);
        if line.method == Method::CONNECT {
            return Err(Fault::MethodNotAllowed);
        }
        match text.first() {
            Some(b'/') => Ok(Self { origin: line.target, scheme: None, authority: None }),
            Some(b'*') if text.len() == 1 && line.method == Method::OPTIONS => {
                Ok(Self { origin: line.target, scheme: None, authority: None })
            }
            _ => Self::absolute(text, line.target),
        }
    }

    fn absolute(text: &[u8], whole: Span) -> Result<Self, Fault> {
        let bad = Fault::BadRequest("the request target is neither a path nor an absolute URI");
        let begins =
            |prefix: &[u8]| text.get(..prefix.len()).is_some_and(|own| own.eq_ignore_ascii_case(prefix));
        let (scheme, start) = match () {
            () if begins(b"http://") => (Scheme::Http, 7),
            () if begins(b"https://") => (Scheme::Https, 8),
            () => return Err(bad),
        };
        let rest = text.get(start..).unwrap_or_default();
        let end = start + rest.iter().position(|b| matches!(b, b'/' | b'?')).unwrap_or(rest.len());
        let authority = Some(Head::within(whole, start, end));
        Ok(Self { origin: Head::within(whole, end, text.len()), scheme: Some(scheme), authority })
    }

    /// An empty path is `/`, or `*` where OPTIONS asks for the whole server (RFC 9112 section 3.2.1 and 3.2.4).
    fn complete(&mut self, head: &mut Head, method: &Method) {
        let completed = match head.slice(self.origin) {
            [] if method == Method::OPTIONS => b"*".to_vec(),
            query @ ([] | [b'?', ..]) => [b"/", query].concat(),
            _ => return,
        };
        self.origin = head.add(&completed);
    }
}

/// The target's own authority wins over Host (RFC 9112 section 3.2.2), but Host must still be there, once, and well
/// formed (section 3.2).
fn authority_of_h1(head: &Head, line: &RequestLine, target: &Target) -> Result<Option<Authority>, Fault> {
    let host = head.single_span(Known::Host).map_err(|_| Fault::BadRequest("Host stands more than once"))?;
    if host.is_none() && line.version == Version::Http11 {
        return Err(Fault::BadRequest("Host is missing"));
    }
    let host = host.map(|span| Authority::parse(head, span)).transpose()?;
    match target.authority {
        Some(span) => Authority::parse(head, span).map(Some),
        None => Ok(host),
    }
}

pub(super) fn expects_continue(head: &Head, version: Version) -> Result<bool, Fault> {
    match head.single(Known::Expect).map_err(|_| Fault::ExpectationFailed)? {
        None => Ok(false),
        Some(value) if value.eq_ignore_ascii_case(b"100-continue") => Ok(version == Version::Http11),
        Some(_) => Err(Fault::ExpectationFailed),
    }
}

fn asks_for_websocket(head: &Head) -> bool {
    let upgrade =
        head.all(Known::Connection).flat_map(members).any(|token| token.eq_ignore_ascii_case(b"upgrade"));
    upgrade
        && head.all(Known::Upgrade).flat_map(members).any(|token| token.eq_ignore_ascii_case(b"websocket"))
}

/// Octets that a host may have: letters, digits, `-`, `.`, `_`, and what an IPv6 literal needs in its brackets.
fn is_host(host: &[u8]) -> bool {
    match host.strip_prefix(b"[") {
        Some(literal) => literal.strip_suffix(b"]").is_some_and(|inside| {
            std::str::from_utf8(inside).is_ok_and(|text| text.parse::<std::net::Ipv6Addr>().is_ok())
        }),
        None => {
            !host.is_empty()
                && host.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
        }
    }
}

fn bad_head(bad: BadHead) -> Fault {
    match bad {
        BadHead::Syntax(reason) => Fault::BadRequest(reason),
        BadHead::TooManyLines => Fault::HeadTooLarge,
        BadHead::Version => Fault::Version,
    }
}

/// The name that a host is, if it is one.
pub(super) fn hostname(host: &[u8]) -> Option<Hostname> {
    Hostname::from_wire(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Request, u16> {
        Request::from_h1(text.as_bytes()).map_err(|fault| fault.status().as_u16())
    }

    #[test]
    fn targets_and_hosts() {
        for (line, host, expected) in [
            ("GET /a?b", Some("x.test"), Ok(("/a?b", "x.test"))),
            ("GET http://y.test/a", Some("x.test"), Ok(("/a", "y.test"))),
            ("GET HTTPS://y.test:8443/", Some("x.test"), Ok(("/", "y.test"))),
            ("OPTIONS *", Some("x.test"), Ok(("*", "x.test"))),
            ("GET *", Some("x.test"), Err(400)),
            ("GET http://y.test", Some("x.test"), Ok(("/", "y.test"))),
            ("GET http://y.test?q", Some("x.test"), Ok(("/?q", "y.test"))),
            ("OPTIONS http://y.test", Some("x.test"), Ok(("*", "y.test"))),
            ("GET http:///a", Some("x.test"), Err(400)),
            ("GET http://u@y.test/", Some("x.test"), Err(400)),
            ("GET ftp://y.test/", Some("x.test"), Err(400)),
            ("GET a/b", Some("x.test"), Err(400)),
            ("CONNECT y.test:443", Some("x.test"), Err(405)),
            ("GET /", None, Err(400)),
            ("GET /", Some(""), Err(400)),
            ("GET /", Some("a b"), Err(400)),
            ("GET /", Some("a,b"), Err(400)),
            ("GET /", Some("a/b"), Err(400)),
            ("GET /", Some("a:99999"), Err(400)),
            ("GET /", Some("a:-1"), Err(400)),
            ("GET /", Some("[::1"), Err(400)),
            ("GET /", Some("[::1]x"), Err(400)),
            ("GET /", Some("[::1]:443"), Ok(("/", "[::1]"))),
            ("GET /", Some("X.Test.:443"), Ok(("/", "X.Test."))),
            ("GET /", Some("x.test:"), Ok(("/", "x.test"))),
            ("GET /", Some("x.test\r\nHost: x.test"), Err(400)),
        ] {
            let host = host.map_or(String::new(), |host| format!("Host: {host}\r\n"));
            let got = read(&format!("{line} HTTP/1.1\r\n{host}\r\n"));
            let seen = got.as_ref().map(|request| {
                (
                    std::str::from_utf8(request.target()).unwrap(),
                    std::str::from_utf8(request.host().unwrap()).unwrap(),
                )
            });
            assert_eq!(seen.map_err(|status| *status), expected, "{line} {host}");
        }
    }

    #[test]
    fn expectations_upgrades_and_keep_alive() {
        let request =
            read("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nExpect: 100-Continue\r\n\r\n").unwrap();
        assert!(request.expects_continue && request.keeps_alive());
        assert_eq!(read("POST / HTTP/1.1\r\nHost: x\r\nExpect: wonders\r\n\r\n").unwrap_err(), 417);
        let request = read(
            "GET / HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n",
        )
        .unwrap();
        assert!(request.websocket);
        let request =
            read("GET / HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nConnection: Upgrade, close\r\n\r\n").unwrap();
        assert!(!request.websocket && !request.keeps_alive());
        let request = read("GET / HTTP/1.0\r\n\r\n").unwrap();
        assert!(request.authority.is_none() && !request.keeps_alive());
    }
}
