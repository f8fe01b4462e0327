//! One access line, and its three forms.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use super::escape::{json, quoted, word};
use crate::config::model::LogFormat;
use crate::fault::Fault;
use crate::observe::clock::Stamp;
use crate::observe::metrics::Series;

/// What one request was. Text that comes from outside is raw bytes here; every form makes it harmless.
///
/// An empty text and a None are left out of the JSON form and are `-` in the combined one.
#[derive(Debug, Clone, Copy)]
pub struct Line<'a> {
    /// When the request began.
    pub time: SystemTime,
    /// Who asked.
    pub client: IpAddr,
    /// The host that was asked for, as it was sent.
    pub host: &'a [u8],
    /// The method.
    pub method: &'a str,
    /// The raw request target.
    pub path: &'a [u8],
    /// As in `HTTP/1.1`.
    pub protocol: &'static str,
    /// The status of the answer, 499 where the client left before it; 0 where a status has no meaning.
    pub status: u16,
    /// Octets of the request's body.
    pub request_bytes: u64,
    /// Octets of the response's body.
    pub response_bytes: u64,
    /// The address that answered, or that was tried last.
    pub upstream: Option<&'a str>,
    /// How long connecting to the upstream took; None for a pooled connection.
    pub connect: Option<Duration>,
    /// From the request's beginning to the first byte of the upstream's answer.
    pub first_byte: Option<Duration>,
    /// From the request's beginning to the answer's end.
    pub total: Duration,
    /// What was agreed in the handshake; None on a plain port.
    pub tls: Option<Tls<'a>>,
    /// The id that the answer and the upstream carry too.
    pub request_id: &'a str,
    /// The trace that the request belongs to; empty for none.
    pub trace_id: &'a str,
    /// The row of `[ports]`.
    pub row: &'a str,
    /// The first domain of the site.
    pub site: Option<&'a str>,
    /// Why the request was refused or failed.
    pub fault: Option<&'a Fault>,
    /// The site and the route that it met, as the metrics number them.
    pub series: Series,
    /// How often it was sent to an upstream.
    pub tries: u32,
    /// Who said the password that the edge asks for.
    pub user: Option<&'a str>,
    /// Why a forwarded connection ended; None for a request.
    pub ended: Option<Ended>,
    /// The Referer field.
    pub referer: Option<&'a [u8]>,
    /// The User-Agent field.
    pub user_agent: Option<&'a [u8]>,
}

/// How a forwarded connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// One word for why.
    pub why: &'static str,
    /// One word for why it never came to a target.
    pub refused: Option<&'static str>,
}

/// What was agreed in a TLS handshake.
#[derive(Debug, Clone, Copy)]
pub struct Tls<'a> {
    /// As in `TLSv1.3`.
    pub version: &'a str,
    /// As in `TLS13_AES_128_GCM_SHA256`.
    pub suite: &'a str,
    /// Whether a ticket spared the certificate.
    pub resumed: bool,
}

impl Line<'_> {
    /// One word for why the request, or the connection, was refused or failed.
    pub fn refused(&self) -> Option<&'static str> {
        self.fault.map(Fault::token).or_else(|| self.ended?.refused)
    }

    /// Whether it was refused, or failed.
    pub fn is_trouble(&self) -> bool {
        self.fault.is_some() || self.status >= 500
    }

    /// A line with nothing in it but when and who.
    pub const fn new(time: SystemTime, client: IpAddr) -> Self {
        Self {
            time,
            client,
            host: b"",
            method: "",
            path: b"",
            protocol: "",
            status: 0,
            request_bytes: 0,
            response_bytes: 0,
            upstream: None,
            connect: None,
            first_byte: None,
            total: Duration::ZERO,
            tls: None,
            request_id: "",
            trace_id: "",
            row: "",
            site: None,
            fault: None,
            series: Series::NONE,
            tries: 0,
            user: None,
            ended: None,
            referer: None,
            user_agent: None,
        }
    }
}

/// Writes lines, and remembers what the last one can lend the next.
#[derive(Debug, Default)]
pub(super) struct Renderer {
    stamp: Stamp,
}

impl Renderer {
    /// Appends the line in this form, its newline included.
    pub(super) fn render(&mut self, out: &mut Vec<u8>, format: LogFormat, line: &Line<'_>) {
        match format {
            LogFormat::Json => self.json(out, line),
            LogFormat::Combined => self.combined(out, line),
            LogFormat::Text => self.text(out, line),
        }
        out.push(b'\n');
    }

    fn json(&mut self, out: &mut Vec<u8>, line: &Line<'_>) {
        out.extend_from_slice(b"{\"time\":\"");
        self.stamp.rfc3339(out, line.time);
        out.extend_from_slice(b"\",\"client\":\"");
        ip(out, line.client);
        out.push(b'"');
        json_text(out, b",\"method\":", line.method.as_bytes());
        json_text(out, b",\"host\":", line.host);
        json_text(out, b",\"path\":", line.path);
        json_text(out, b",\"protocol\":", line.protocol.as_bytes());
        if line.status != 0 {
            json_number(out, b",\"status\":", line.status.into());
        }
        json_number(out, b",\"request_bytes\":", line.request_bytes);
        json_number(out, b",\"response_bytes\":", line.response_bytes);
        json_upstream(out, line);
        json_millis(out, b",\"total_ms\":", Some(line.total));
        if let Some(tls) = &line.tls {
            json_text(out, b",\"tls\":", tls.version.as_bytes());
            json_text(out, b",\"cipher\":", tls.suite.as_bytes());
            out.extend_from_slice(if tls.resumed { b",\"resumed\":true" } else { b",\"resumed\":false" });
        }
        json_text(out, b",\"request_id\":", line.request_id.as_bytes());
        json_text(out, b",\"trace_id\":", line.trace_id.as_bytes());
        json_text(out, b",\"row\":", line.row.as_bytes());
        json_text(out, b",\"site\":", line.site.unwrap_or_default().as_bytes());
        json_text(out, b",\"user\":", line.user.unwrap_or_default().as_bytes());
        json_text(out, b",\"ended\":", line.ended.map_or("", |ended| ended.why).as_bytes());
        json_text(out, b",\"refused\":", line.refused().unwrap_or_default().as_bytes());
        json_text(out, b",\"referer\":", line.referer.unwrap_or_default());
        json_text(out, b",\"user_agent\":", line.user_agent.unwrap_or_default());
        out.push(b'}');
    }

    /// The NCSA combined format: `client - user [time] "request" status bytes "referer" "user agent"`.
    fn combined(&mut self, out: &mut Vec<u8>, line: &Line<'_>) {
        ip(out, line.client);
        out.extend_from_slice(b" - ");
        // Whatever reads this splits it at spaces.
        word(out, line.user.unwrap_or("-").as_bytes());
        out.extend_from_slice(b" [");
        self.stamp.common(out, line.time);
        out.extend_from_slice(b"] \"");
        if let Some(ended) = line.ended {
            for (gap, part) in [("", line.protocol), (" ", line.row), (" ", ended.why)] {
                out.extend_from_slice(gap.as_bytes());
                quoted(out, part.as_bytes());
            }
        } else if line.method.is_empty() && line.path.is_empty() {
            out.push(b'-');
        } else {
            quoted(out, line.method.as_bytes());
            out.push(b' ');
            quoted(out, line.path);
            out.push(b' ');
            quoted(out, line.protocol.as_bytes());
        }
        out.extend_from_slice(b"\" ");
        status(out, line.status);
        out.push(b' ');
        number(out, line.response_bytes);
        for field in [line.referer, line.user_agent] {
            out.extend_from_slice(b" \"");
            quoted(out, field.filter(|field| !field.is_empty()).unwrap_or(b"-"));
            out.push(b'"');
        }
    }

    /// `time status method host path total client`, and what else there is as `key=value`.
    fn text(&mut self, out: &mut Vec<u8>, line: &Line<'_>) {
        self.stamp.rfc3339(out, line.time);
        out.push(b' ');
        status(out, line.status);
        for field in [line.method.as_bytes(), line.host, line.path] {
            out.push(b' ');
            word(out, if field.is_empty() { b"-" } else { field });
        }
        out.push(b' ');
        millis(out, line.total);
        out.extend_from_slice(b"ms ");
        ip(out, line.client);
        for (key, value) in [(&b" in="[..], line.request_bytes), (b" out=", line.response_bytes)] {
            out.extend_from_slice(key);
            number(out, value);
        }
        for (key, value) in [
            (&b" protocol="[..], line.protocol),
            (b" tls=", line.tls.map_or("", |tls| tls.version)),
            (b" cipher=", line.tls.map_or("", |tls| tls.suite)),
            (b" row=", line.row),
            (b" site=", line.site.unwrap_or_default()),
            (b" upstream=", line.upstream.unwrap_or_default()),
            (b" user=", line.user.unwrap_or_default()),
            (b" ended=", line.ended.map_or("", |ended| ended.why)),
            (b" refused=", line.refused().unwrap_or_default()),
            (b" trace=", line.trace_id),
            (b" id=", line.request_id),
        ] {
            text_field(out, key, value);
        }
    }
}

fn text_field(out: &mut Vec<u8>, key: &[u8], value: &str) {
    if !value.is_empty() {
        out.extend_from_slice(key);
        word(out, value.as_bytes());
    }
}

fn json_upstream(out: &mut Vec<u8>, line: &Line<'_>) {
    json_text(out, b",\"upstream\":", line.upstream.unwrap_or_default().as_bytes());
    json_millis(out, b",\"connect_ms\":", line.connect);
    json_millis(out, b",\"first_byte_ms\":", line.first_byte);
}

fn json_text(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    if value.is_empty() {
        return;
    }
    out.extend_from_slice(key);
    out.push(b'"');
    json(out, value);
    out.push(b'"');
}

fn json_number(out: &mut Vec<u8>, key: &[u8], value: u64) {
    out.extend_from_slice(key);
    number(out, value);
}

fn json_millis(out: &mut Vec<u8>, key: &[u8], value: Option<Duration>) {
    if let Some(value) = value {
        out.extend_from_slice(key);
        millis(out, value);
    }
}

fn number(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Three digits, for what reads the combined format splits on them.
fn status(out: &mut Vec<u8>, status: u16) {
    let padding = usize::from(status < 100) + usize::from(status < 10);
    out.extend(std::iter::repeat_n(b'0', padding));
    number(out, status.into());
}

/// Milliseconds with three decimals.
fn millis(out: &mut Vec<u8>, duration: Duration) {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    number(out, micros / 1000);
    out.push(b'.');
    let rest = micros % 1000;
    let padding = usize::from(rest < 100) + usize::from(rest < 10);
    out.extend(std::iter::repeat_n(b'0', padding));
    number(out, rest);
}

/// Appends an address as it is written. An IPv4 one takes a tenth of what its `Display` takes.
pub fn ip(out: &mut Vec<u8>, ip: IpAddr) {
    use std::io::Write;
    let IpAddr::V4(ip) = ip else {
        // Writing to a vector cannot fail.
        let _ = write!(out, "{ip}");
        return;
    };
    for (n, octet) in ip.octets().into_iter().enumerate() {
        if n > 0 {
            out.push(b'.');
        }
        number(out, octet.into());
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn render(format: LogFormat, line: &Line<'_>) -> String {
        let mut out = Vec::new();
        Renderer::default().render(&mut out, format, line);
        String::from_utf8(out).unwrap()
    }

    fn full() -> Line<'static> {
        Line {
            host: b"app.example.com",
            method: "GET",
            path: b"/a b?c=\"d\"",
            protocol: "HTTP/2.0",
            status: 200,
            request_bytes: 17,
            response_bytes: 5_000_000_000,
            upstream: Some("192.0.2.2:8000"),
            connect: Some(Duration::from_micros(1_007)),
            first_byte: Some(Duration::from_micros(20_500)),
            total: Duration::from_micros(21_090),
            tls: Some(Tls { version: "TLSv1.3", suite: "TLS13_AES_128_GCM_SHA256", resumed: true }),
            request_id: "0123456789abcdef",
            trace_id: "fedcba9876543210",
            row: "443",
            site: Some("app.example.com"),
            fault: Some(&Fault::Forbidden),
            user: Some("zoë m"),
            referer: Some(b"https://example.com/\x1b[2J"),
            user_agent: Some(b"curl/8.0 (\xff)"),
            ..empty()
        }
    }

    fn empty() -> Line<'static> {
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_709_210_096_007);
        Line::new(time, IpAddr::from([203, 0, 113, 9]))
    }

    #[test]
    fn json_has_every_field() {
        let value: Value = serde_json::from_str(&render(LogFormat::Json, &full())).unwrap();
        let expected = json!({
            "time": "2024-02-29T12:34:56.007Z", "client": "203.0.113.9", "method": "GET",
            "host": "app.example.com", "path": "/a b?c=\"d\"", "protocol": "HTTP/2.0", "status": 200,
            "request_bytes": 17, "response_bytes": 5_000_000_000_u64, "upstream": "192.0.2.2:8000",
            "connect_ms": 1.007, "first_byte_ms": 20.5, "total_ms": 21.09, "tls": "TLSv1.3",
            "cipher": "TLS13_AES_128_GCM_SHA256", "resumed": true, "request_id": "0123456789abcdef",
            "trace_id": "fedcba9876543210", "row": "443", "site": "app.example.com", "user": "zoë m", "refused": "forbidden",
            "referer": "https://example.com/\u{1b}[2J", "user_agent": "curl/8.0 (\u{fffd})",
        });
        assert_eq!(value, expected);
    }

    #[test]
    fn the_other_forms() {
        assert_eq!(
            render(LogFormat::Combined, &full()),
            "203.0.113.9 - zo\\xc3\\xab\\x20m [29/Feb/2024:12:34:56 +0000] \"GET /a b?c=\\x22d\\x22 HTTP/2.0\" 200 5000000000 \
             \"https://example.com/\\x1b[2J\" \"curl/8.0 (\\xff)\"\n"
        );
        assert_eq!(
            render(LogFormat::Text, &full()),
            "2024-02-29T12:34:56.007Z 200 GET app.example.com /a\\x20b?c=\\x22d\\x22 21.090ms 203.0.113.9 in=17 \
             out=5000000000 protocol=HTTP/2.0 tls=TLSv1.3 cipher=TLS13_AES_128_GCM_SHA256 row=443 \
             site=app.example.com upstream=192.0.2.2:8000 user=zo\\xc3\\xab\\x20m refused=forbidden \
             trace=fedcba9876543210 id=0123456789abcdef\n"
        );
    }

    #[test]
    fn a_forwarded_connection_is_told_by_its_row_and_its_end() {
        let line = Line {
            protocol: "TCP",
            request_bytes: 17,
            response_bytes: 4711,
            upstream: Some("192.0.2.2:5432"),
            row: "5432",
            ended: Some(Ended { why: "client_closed", refused: None }),
            ..empty()
        };
        assert_eq!(
            render(LogFormat::Json, &line),
            "{\"time\":\"2024-02-29T12:34:56.007Z\",\"client\":\"203.0.113.9\",\"protocol\":\"TCP\",\
             \"request_bytes\":17,\"response_bytes\":4711,\"upstream\":\"192.0.2.2:5432\",\"total_ms\":0.000,\
             \"row\":\"5432\",\"ended\":\"client_closed\"}\n"
        );
        assert_eq!(
            render(LogFormat::Combined, &line),
            "203.0.113.9 - - [29/Feb/2024:12:34:56 +0000] \"TCP 5432 client_closed\" 000 4711 \"-\" \"-\"\n"
        );
        assert_eq!(
            render(LogFormat::Text, &line),
            "2024-02-29T12:34:56.007Z 000 - - - 0.000ms 203.0.113.9 in=17 out=4711 protocol=TCP row=5432 \
             upstream=192.0.2.2:5432 ended=client_closed\n"
        );
    }

    #[test]
    fn what_is_missing_is_left_out() {
        assert_eq!(
            render(LogFormat::Json, &empty()),
            "{\"time\":\"2024-02-29T12:34:56.007Z\",\"client\":\"203.0.113.9\",\"request_bytes\":0,\
             \"response_bytes\":0,\"total_ms\":0.000}\n"
        );
        assert_eq!(
            render(LogFormat::Combined, &empty()),
            "203.0.113.9 - - [29/Feb/2024:12:34:56 +0000] \"-\" 000 0 \"-\" \"-\"\n"
        );
        assert_eq!(
            render(LogFormat::Text, &Line { client: Ipv6Addr::LOCALHOST.into(), ..empty() }),
            "2024-02-29T12:34:56.007Z 000 - - - 0.000ms ::1 in=0 out=0\n"
        );
    }

    proptest! {
        #[test]
        fn no_field_forges_a_line(host: Vec<u8>, path: Vec<u8>, referer: Vec<u8>, user_agent: Vec<u8>) {
            let line = Line {
                host: &host, path: &path, referer: Some(&referer), user_agent: Some(&user_agent), ..full()
            };
            for format in [LogFormat::Json, LogFormat::Combined, LogFormat::Text] {
                let text = render(format, &line);
                prop_assert_eq!(text.find(|c: char| c.is_control()), Some(text.len() - 1));
            }
            let value: Value = serde_json::from_str(&render(LogFormat::Json, &line)).unwrap();
            for (key, sent) in [("host", &host), ("path", &path), ("referer", &referer), ("user_agent", &user_agent)] {
                let read = value.get(key).and_then(Value::as_str).unwrap_or_default();
                prop_assert_eq!(read, String::from_utf8_lossy(sent));
            }
            prop_assert_eq!(&value["status"], &json!(200));
            prop_assert_eq!(&value["refused"], &json!("forbidden"));
            let words = render(LogFormat::Text, &line).split(' ').count();
            let usual = render(LogFormat::Text, &full()).split(' ').count();
            prop_assert_eq!(words, usual);
        }
    }
}
