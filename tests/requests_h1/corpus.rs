//! The requests, and what must become of each.

use super::{Case, Expect, Shape};
use crate::support::client::NAME;

pub(super) fn cases() -> Vec<Case> {
    [
        framing(),
        codings(),
        chunks(),
        lines(),
        versions(),
        hosts(),
        targets(),
        methods(),
        sizes(),
        connections(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn framing() -> Vec<Case> {
    use Expect::Refused;
    let both = "Content-Length: 5\nTransfer-Encoding: chunked";
    vec![
        ("both lengths", post(both, "0\r\n\r\n"), Refused(400)),
        (
            "both lengths, the other way round",
            post("Transfer-Encoding: chunked\nContent-Length: 5", "0\r\n\r\n"),
            Refused(400),
        ),
        (
            "both lengths, a smuggled request behind",
            post(both, "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: app.localhost\r\n\r\n"),
            Refused(400),
        ),
        ("two equal Content-Lengths", post("Content-Length: 5\nContent-Length: 5", "hello"), Refused(400)),
        (
            "two Content-Lengths that differ",
            post("Content-Length: 5\nContent-Length: 6", "hello!"),
            Refused(400),
        ),
        ("a list in Content-Length", post("Content-Length: 5, 5", "hello"), Refused(400)),
        ("a list of different lengths", post("Content-Length: 5,6", "hello!"), Refused(400)),
        ("a plus sign", post("Content-Length: +5", "hello"), Refused(400)),
        ("a minus sign", post("Content-Length: -5", "hello"), Refused(400)),
        ("a space inside", post("Content-Length: 5 5", "hello"), Refused(400)),
        ("hexadecimal", post("Content-Length: 0x5", "hello"), Refused(400)),
        ("a fraction", post("Content-Length: 5.0", "hello"), Refused(400)),
        ("an exponent", post("Content-Length: 5e0", "hello"), Refused(400)),
        ("an underscore between digits", post("Content-Length: 1_0", "hellohello"), Refused(400)),
        ("quotes", post("Content-Length: \"5\"", "hello"), Refused(400)),
        ("an empty Content-Length", post("Content-Length:", "hello"), Refused(400)),
        ("more than 64 bits", post("Content-Length: 18446744073709551621", "hello"), Refused(400)),
        ("an Arabic digit", post("Content-Length: ٥", "hello"), Refused(400)),
        ("a NUL behind the digits", post("Content-Length: 5\0", "hello"), Refused(400)),
        ("leading zeros", post("Content-Length: 005", "hello"), with_body("POST /x", "hello")),
        (
            "white space around the digits",
            post("Content-Length: \t 5 \t", "hello"),
            with_body("POST /x", "hello"),
        ),
        ("a body for GET", request("GET /x", "Content-Length: 5", "hello"), with_body("GET /x", "hello")),
        ("a length of zero", post("Content-Length: 0", ""), forwarded("POST /x")),
        ("no length", post("", ""), forwarded("POST /x")),
        ("an underscore in the name", post("Content_Length: 5", ""), without("POST /x", &["content_length"])),
    ]
}

fn codings() -> Vec<Case> {
    use Expect::Refused;
    vec![
        ("a coding that is none", post("Transfer-Encoding: xchunked", "0\r\n\r\n"), Refused(400)),
        ("identity", post("Transfer-Encoding: identity", "hello"), Refused(400)),
        ("identity after chunked", post("Transfer-Encoding: chunked, identity", "0\r\n\r\n"), Refused(400)),
        ("chunked twice", post("Transfer-Encoding: chunked, chunked", "0\r\n\r\n"), Refused(400)),
        (
            "chunked on two lines",
            post("Transfer-Encoding: chunked\nTransfer-Encoding: chunked", "0\r\n\r\n"),
            Refused(400),
        ),
        (
            "chunked and another line",
            post("Transfer-Encoding: chunked\nTransfer-Encoding: x", "0\r\n\r\n"),
            Refused(400),
        ),
        (
            "an empty line first",
            post("Transfer-Encoding:\nTransfer-Encoding: chunked", "0\r\n\r\n"),
            Refused(400),
        ),
        ("quoted chunked", post("Transfer-Encoding: \"chunked\"", "0\r\n\r\n"), Refused(400)),
        ("a comma before", post("Transfer-Encoding: ,chunked", "0\r\n\r\n"), Refused(501)),
        ("a parameter", post("Transfer-Encoding: chunked;q=1", "0\r\n\r\n"), Refused(400)),
        ("a vertical tab before", post("Transfer-Encoding: \u{b}chunked", "0\r\n\r\n"), Refused(400)),
        ("a NUL inside", post("Transfer-Encoding: chu\0nked", "0\r\n\r\n"), Refused(400)),
        ("a no-break space", post("Transfer-Encoding: \u{a0}chunked", "0\r\n\r\n"), Refused(400)),
        ("a space before the colon", post("Transfer-Encoding : chunked", "0\r\n\r\n"), Refused(400)),
        ("a tab before the colon", post("Transfer-Encoding\t: chunked", "0\r\n\r\n"), Refused(400)),
        ("a folded value", post("Transfer-Encoding:\n chunked", "0\r\n\r\n"), Refused(400)),
        ("gzip before chunked", post("Transfer-Encoding: gzip, chunked", "0\r\n\r\n"), Refused(501)),
        (
            "chunked in HTTP/1.0",
            raw("POST /x HTTP/1.0\r\nHost: app.localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            Refused(400),
        ),
        (
            "chunked in capitals",
            post("Transfer-Encoding: CHUNKED", "5\r\nhello\r\n0\r\n\r\n"),
            with_body("POST /x", "hello"),
        ),
        (
            "an underscored coding",
            post("Transfer_Encoding: chunked", ""),
            without("POST /x", &["transfer_encoding", "transfer-encoding"]),
        ),
    ]
}

fn chunks() -> Vec<Case> {
    use Expect::{Dropped, Refused};
    vec![
        ("a chunk longer than it says", chunked("4\r\nhello\r\n0\r\n\r\n"), Dropped),
        ("a chunk shorter than it says", chunked("6\r\nhello\r\n0\r\n\r\n"), Dropped),
        ("a signed size", chunked("+5\r\nhello\r\n0\r\n\r\n"), Dropped),
        ("a negative size", chunked("-5\r\nhello\r\n0\r\n\r\n"), Dropped),
        ("a size with 0x", chunked("0x5\r\nhello\r\n0\r\n\r\n"), Dropped),
        ("a space before the size", chunked(" 5\r\nhello\r\n0\r\n\r\n"), Dropped),
        ("a space behind the size", chunked("5 \r\nhello\r\n0\r\n\r\n"), Dropped),
        ("a size that overflows", chunked("fffffffffffffffff\r\nhello\r\n0\r\n\r\n"), Dropped),
        ("no size", chunked("\r\nhello\r\n0\r\n\r\n"), Dropped),
        ("a size that is no number", chunked("five\r\nhello\r\n0\r\n\r\n"), Dropped),
        ("a bare LF behind the size", chunked("5\nhello\r\n0\r\n\r\n"), Dropped),
        ("a bare LF behind the data", chunked("5\r\nhello\n0\r\n\r\n"), Dropped),
        ("a bare CR behind the size", chunked("5\rhello\r\n0\r\n\r\n"), Dropped),
        ("two octets of other text behind the data", chunked("5\r\nhelloXX0\r\n\r\n"), Dropped),
        ("a bare CR in an extension", chunked("5;a\rb\r\nhello\r\n0\r\n\r\n"), Dropped),
        ("a bare LF in an extension", chunked("5;a\nb\r\nhello\r\n0\r\n\r\n"), Dropped),
        (
            "an endless extension",
            chunked(&format!("5;{}\r\nhello\r\n0\r\n\r\n", "a".repeat(20_000))),
            Dropped,
        ),
        ("a bad trailer", chunked("0\r\nBad Name: x\r\n\r\n"), Dropped),
        ("a body that is cut", post("Content-Length: 50", "hello"), Dropped),
        ("a chunked body that is cut", chunked("5\r\nhello\r\n"), Dropped),
        ("an extension", chunked("5;name=value\r\nhello\r\n0;last\r\n\r\n"), with_body("POST /x", "hello")),
        (
            "leading zeros and capitals",
            chunked("0000A\r\n0123456789\r\n000\r\n\r\n"),
            with_body("POST /x", "0123456789"),
        ),
        (
            "forged trailers",
            chunked(
                "5\r\nhello\r\n0\r\nX-Forwarded-For: 6.6.6.6\r\nContent-Length: 9\r\nHost: evil\r\nX_Real_IP: 6.6.6.6\r\n\r\n",
            ),
            Expect::Forwarded(vec![Shape {
                line: "POST /x",
                body: "hello",
                has: vec![("host", NAME)],
                lacks: vec!["content-length", "x_real_ip"],
            }]),
        ),
        (
            "a body over the route's limit",
            request("POST /small/x", "Content-Length: 1025", &"x".repeat(1025)),
            Refused(413),
        ),
        (
            "a body at the limit",
            request("POST /small/x", "Content-Length: 5", "hello"),
            with_body("POST /small/x", "hello"),
        ),
    ]
}

fn lines() -> Vec<Case> {
    use Expect::Refused;
    vec![
        (
            "a bare LF behind the request line",
            raw("GET /x HTTP/1.1\nHost: app.localhost\r\n\r\n"),
            Refused(400),
        ),
        ("bare LFs alone", raw("GET /x HTTP/1.1\nHost: app.localhost\n\n"), Refused(400)),
        (
            "a bare LF between fields",
            raw("GET /x HTTP/1.1\r\nHost: app.localhost\nA: b\r\n\r\n"),
            Refused(400),
        ),
        ("a bare LF as the empty line", raw("GET /x HTTP/1.1\r\nHost: app.localhost\r\n\n"), Refused(400)),
        ("a bare CR in a value", get("A: b\rc"), Refused(400)),
        ("a bare CR that hides a field", get("A: b\rTransfer-Encoding: chunked"), Refused(400)),
        (
            "a bare CR in the request line",
            raw("GET /x\rHTTP/1.1\r\nHost: app.localhost\r\n\r\n"),
            Refused(400),
        ),
        ("CR CR LF", raw("GET /x HTTP/1.1\r\r\nHost: app.localhost\r\n\r\n"), Refused(400)),
        ("a folded line", get("A: b\n c"), Refused(400)),
        ("a line folded with a tab", get("A: b\n\tc"), Refused(400)),
        (
            "a first field line that is folded",
            raw("GET /x HTTP/1.1\r\n Host: app.localhost\r\n\r\n"),
            Refused(400),
        ),
        ("a NUL in a value", get("A: b\0c"), Refused(400)),
        ("a NUL in a name", get("A\0: b"), Refused(400)),
        ("another control character in a value", get("A: b\u{1}c"), Refused(400)),
        ("DEL in a value", get("A: b\u{7f}c"), Refused(400)),
        ("a space before the colon", get("A : b"), Refused(400)),
        ("an empty name", get(": b"), Refused(400)),
        ("no colon", get("AAAA"), Refused(400)),
        ("a name with a space", get("A B: c"), Refused(400)),
        ("a name with a parenthesis", get("A(B): c"), Refused(400)),
        ("a name with letters that are not ASCII", get("Ä: c"), Refused(400)),
        ("a tab in a value", get("A: b\tc"), with("GET /x", &[("a", "b\tc")])),
        ("a value beyond ASCII", get("A: ü"), with("GET /x", &[("a", "ü")])),
        ("an empty value", get("A:"), with("GET /x", &[("a", "")])),
    ]
}

fn versions() -> Vec<Case> {
    use Expect::Refused;
    vec![
        ("HTTP/0.9", raw("GET /x\r\n\r\n"), Refused(400)),
        ("HTTP/0.9 in words", raw("GET /x HTTP/0.9\r\nHost: app.localhost\r\n\r\n"), Refused(505)),
        ("HTTP/2.0 in the line", raw("GET /x HTTP/2.0\r\nHost: app.localhost\r\n\r\n"), Refused(505)),
        ("HTTP/1.2", raw("GET /x HTTP/1.2\r\nHost: app.localhost\r\n\r\n"), Refused(505)),
        ("http/1.1 in small letters", raw("GET /x http/1.1\r\nHost: app.localhost\r\n\r\n"), Refused(400)),
        ("HTTP/1.10", raw("GET /x HTTP/1.10\r\nHost: app.localhost\r\n\r\n"), Refused(400)),
        ("HTTP/01.1", raw("GET /x HTTP/01.1\r\nHost: app.localhost\r\n\r\n"), Refused(400)),
        ("another protocol", raw("GET /x RTSP/1.1\r\nHost: app.localhost\r\n\r\n"), Refused(400)),
        (
            "text behind the version",
            raw("GET /x HTTP/1.1 HTTP/1.0\r\nHost: app.localhost\r\n\r\n"),
            Refused(400),
        ),
        (
            "two spaces before the target",
            raw("GET  /x HTTP/1.1\r\nHost: app.localhost\r\n\r\n"),
            Refused(400),
        ),
        (
            "two spaces before the version",
            raw("GET /x  HTTP/1.1\r\nHost: app.localhost\r\n\r\n"),
            Refused(400),
        ),
        ("a tab for a space", raw("GET\t/x\tHTTP/1.1\r\nHost: app.localhost\r\n\r\n"), Refused(400)),
        ("a space first", raw(" GET /x HTTP/1.1\r\nHost: app.localhost\r\n\r\n"), Refused(400)),
        ("the HTTP/2 preface", raw("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), Refused(505)),
        (
            "a TLS record inside TLS",
            b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00\r\n\r\n".to_vec(),
            Refused(400),
        ),
        ("one empty line first", [b"\r\n", get("").as_slice()].concat(), forwarded("GET /x")),
    ]
}

fn hosts() -> Vec<Case> {
    use Expect::{Answered, Refused};
    let host = |host: &str| raw(&format!("GET /x HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    vec![
        ("no Host", raw("GET /x HTTP/1.1\r\n\r\n"), Refused(400)),
        ("an empty Host", host(""), Refused(400)),
        ("two equal Hosts", get("Host: app.localhost"), Refused(400)),
        ("two different Hosts", get("Host: other.localhost"), Refused(400)),
        (
            "two Hosts, one folded",
            raw("GET /x HTTP/1.1\r\nHost: app.localhost\r\n Host: b\r\n\r\n"),
            Refused(400),
        ),
        ("a list in Host", host("app.localhost, other.localhost"), Refused(400)),
        ("a space in Host", host("app.localhost other"), Refused(400)),
        ("a path in Host", host("app.localhost/x"), Refused(400)),
        ("a user in Host", host("user@app.localhost"), Refused(400)),
        ("a query in Host", host("app.localhost?x"), Refused(400)),
        ("a port that is no number", host("app.localhost:https"), Refused(400)),
        ("a port beyond 65535", host("app.localhost:65536"), Refused(400)),
        ("a percent in Host", host("app%2elocalhost"), Refused(400)),
        ("a Host that no site has", host("unknown.localhost"), Answered(421)),
        ("a Host of another site", host("other.localhost"), Answered(421)),
        ("an address as Host", host("127.0.0.1"), Answered(421)),
        ("an IPv6 address as Host", host("[::1]"), Answered(421)),
        (
            "another name of the same site",
            host("also.localhost"),
            with("GET /x", &[("host", "also.localhost")]),
        ),
        ("capitals", host("APP.LocalHost"), forwarded_host("APP.LocalHost")),
        ("a trailing dot", host("app.localhost."), forwarded_host("app.localhost.")),
        ("HTTP/1.0 with a Host", raw("GET /x HTTP/1.0\r\nHost: app.localhost\r\n\r\n"), forwarded("GET /x")),
        ("HTTP/1.0 without a Host", raw("GET /x HTTP/1.0\r\n\r\n"), forwarded("GET /x")),
        ("an underscored Host", get("H_st: evil"), without("GET /x", &["h_st"])),
    ]
}

/// Host as the client sent it: Django's `ALLOWED_HOSTS` and CSRF check want to see that.
fn forwarded_host(host: &'static str) -> Expect {
    with("GET /x", &[("host", host)])
}

fn targets() -> Vec<Case> {
    use Expect::{Answered, Refused};
    let target = |target: &str| request(&format!("GET {target}"), "", "");
    vec![
        ("an absolute target", target("https://app.localhost/x"), forwarded("GET /x")),
        (
            "an absolute target against Host",
            raw("GET https://app.localhost/x HTTP/1.1\r\nHost: also.localhost\r\n\r\n"),
            forwarded("GET /x"),
        ),
        ("an absolute target of another site", target("https://other.localhost/x"), Answered(421)),
        ("an absolute target of nobody", target("https://unknown.localhost/x"), Answered(421)),
        ("an absolute target with http", target("http://app.localhost/x"), Answered(421)),
        ("an absolute target with a user", target("https://user@app.localhost/x"), Refused(400)),
        ("another scheme", target("ftp://app.localhost/x"), Refused(400)),
        ("a scheme without slashes", target("https:app.localhost/x"), Refused(400)),
        ("a relative target", target("x/y"), Refused(400)),
        ("an asterisk for GET", target("*"), Refused(400)),
        ("a fragment", target("/x#y"), Refused(400)),
        ("a NUL, encoded", target("/x%00y"), Refused(400)),
        ("CR and LF, encoded", target("/x%0d%0aA:b"), Refused(400)),
        ("a broken encoding", target("/x%zz"), Refused(400)),
        ("a cut encoding", target("/x%2"), Refused(400)),
        ("dot segments", target("/a/../x"), Refused(400)),
        ("encoded dot segments", target("/a/%2e%2e/x"), Refused(400)),
        ("half encoded dot segments", target("/a/.%2E/x"), Refused(400)),
        ("dot segments behind an encoded slash", target("/a%2f..%2fx"), Refused(400)),
        ("a single dot", target("/a/./x"), Refused(400)),
        ("a letter that is not ASCII", target("/ü"), Refused(400)),
        ("a control character", target("/a\u{1}b"), Refused(400)),
        ("two slashes first", target("//x/y"), forwarded("GET //x/y")),
        (
            "a query like a URL",
            target("/x?next=https://evil.example/../%00"),
            forwarded("GET /x?next=https://evil.example/../%00"),
        ),
        ("an encoded path as it came", target("/%61b%20c"), forwarded("GET /%61b%20c")),
    ]
}

fn methods() -> Vec<Case> {
    use Expect::{Answered, Refused};
    vec![
        (
            "CONNECT",
            raw("CONNECT app.localhost:443 HTTP/1.1\r\nHost: app.localhost:443\r\n\r\n"),
            Answered(405),
        ),
        ("CONNECT to a path", request("CONNECT /x", "", ""), Answered(405)),
        ("TRACE", request("TRACE /x", "", ""), Answered(405)),
        ("a method with a slash", request("GE/T /x", "", ""), Refused(400)),
        ("a method in quotes", request("\"GET\" /x", "", ""), Refused(400)),
        ("no method", raw("/x HTTP/1.1\r\nHost: app.localhost\r\n\r\n"), Refused(400)),
        ("a small-letter method is another method", request("get /x", "", ""), forwarded("get /x")),
        ("a method of one's own", request("PROPFIND /x", "", ""), forwarded("PROPFIND /x")),
        ("OPTIONS for the whole server", request("OPTIONS *", "", ""), forwarded("OPTIONS *")),
        (
            "an expectation that nobody has",
            post("Expect: wonders\nContent-Length: 5", "hello"),
            Answered(417),
        ),
        (
            "two expectations",
            post("Expect: 100-continue\nExpect: 100-continue\nContent-Length: 5", "hello"),
            Answered(417),
        ),
        (
            "an expectation without waiting",
            post("Expect: 100-continue\nContent-Length: 5", "hello"),
            with_body("POST /x", "hello"),
        ),
    ]
}

fn sizes() -> Vec<Case> {
    use Expect::Refused;
    let many = "A: b\n".repeat(200);
    vec![
        ("a target over the limit", request(&format!("GET /{}", "a".repeat(9000)), "", ""), Refused(414)),
        (
            "a request line over the limit of heads",
            request(&format!("GET /{}", "a".repeat(70_000)), "", ""),
            Refused(414),
        ),
        ("a value over the limit of heads", get(&format!("A: {}", "b".repeat(70_000))), Refused(431)),
        ("a name over the limit of heads", get(&format!("{}: b", "a".repeat(70_000))), Refused(431)),
        ("too many lines", get(&many), Refused(431)),
        ("a long line within the limit", get(&format!("A: {}", "b".repeat(20_000))), forwarded("GET /x")),
    ]
}

fn connections() -> Vec<Case> {
    vec![
        (
            "Connection names a field",
            get("Connection: x-secret\nX-Secret: 1\nX-Open: 2"),
            without("GET /x", &["x-secret"]),
        ),
        (
            "Connection names a forwarding field",
            get("Connection: x-forwarded-for, x-real-ip"),
            with("GET /x", &[("x-forwarded-for", "127.0.0.1")]),
        ),
        ("Connection names Host", get("Connection: host"), forwarded("GET /x")),
        (
            "Connection names the length",
            post("Connection: content-length\nContent-Length: 5", "hello"),
            with_body("POST /x", "hello"),
        ),
        (
            "hop-by-hop fields",
            get("Keep-Alive: timeout=5\nTE: gzip\nProxy-Connection: close\nProxy-Authorization: x"),
            without("GET /x", &["keep-alive", "te", "proxy-connection", "proxy-authorization"]),
        ),
        (
            "an upgrade to h2c",
            get("Connection: Upgrade, HTTP2-Settings\nUpgrade: h2c\nHTTP2-Settings: AAMAAABkAAQAAP__"),
            without("GET /x", &["upgrade", "http2-settings"]),
        ),
        (
            "an upgrade to a WebSocket by POST",
            post("Connection: Upgrade\nUpgrade: websocket", ""),
            without("POST /x", &["upgrade"]),
        ),
        (
            "an upgrade that Connection does not name",
            get("Upgrade: websocket"),
            without("GET /x", &["upgrade"]),
        ),
        ("close", get("Connection: close"), forwarded("GET /x")),
        (
            "a pipeline",
            [post("Content-Length: 5", "hello"), get(""), chunked("3\r\nabc\r\n0\r\n\r\n")].concat(),
            Expect::Forwarded(vec![
                Shape { body: "hello", ..one("POST /x") },
                one("GET /x"),
                Shape { body: "abc", ..one("POST /x") },
            ]),
        ),
        (
            "a body that looks like a request",
            post("Content-Length: 39", "GET /smuggled HTTP/1.1\r\nHost: evil\r\n\r\nx"),
            with_body("POST /x", "GET /smuggled HTTP/1.1\r\nHost: evil\r\n\r\nx"),
        ),
        ("cookies on two lines", get("Cookie: a=1\nCookie: b=2"), with("GET /x", &[("cookie", "a=1; b=2")])),
    ]
}

/// A request for [`NAME`] with these further field lines and this body.
fn request(line: &str, fields: &str, body: &str) -> Vec<u8> {
    let fields: String = fields.split_inclusive('\n').map(|field| field.replace('\n', "\r\n")).collect();
    let end = if fields.is_empty() || fields.ends_with("\r\n") { "" } else { "\r\n" };
    format!("{line} HTTP/1.1\r\nHost: {NAME}\r\n{fields}{end}\r\n{body}").into_bytes()
}

fn get(fields: &str) -> Vec<u8> {
    request("GET /x", fields, "")
}

fn post(fields: &str, body: &str) -> Vec<u8> {
    request("POST /x", fields, body)
}

/// A chunked body, as bytes.
fn chunked(body: &str) -> Vec<u8> {
    post("Transfer-Encoding: chunked", body)
}

fn raw(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

fn one(line: &'static str) -> Shape {
    Shape { line, body: "", has: vec![("host", NAME)], lacks: vec![] }
}

fn forwarded(line: &'static str) -> Expect {
    Expect::Forwarded(vec![one(line)])
}

fn with_body(line: &'static str, body: &'static str) -> Expect {
    Expect::Forwarded(vec![Shape { body, ..one(line) }])
}

fn with(line: &'static str, has: &[(&'static str, &'static str)]) -> Expect {
    Expect::Forwarded(vec![Shape { has: has.to_vec(), ..one(line) }])
}

fn without(line: &'static str, lacks: &[&'static str]) -> Expect {
    Expect::Forwarded(vec![Shape { lacks: lacks.to_vec(), ..one(line) }])
}
