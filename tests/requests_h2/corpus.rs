//! The requests, and what must become of each.

use super::{Case, Expect, Shape, fields};
use crate::support::client::NAME;
use crate::support::h2raw::{CONTINUATION, DATA, END_HEADERS, END_STREAM, Field, H2, HEADERS, block};

pub(super) fn cases() -> Vec<Case> {
    [
        pseudo_headers(),
        authorities(),
        paths(),
        names_and_values(),
        connection_fields(),
        lengths(),
        blocks(),
        passing(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn pseudo_headers() -> Vec<Case> {
    use Expect::{Answered, Refused};
    let late: Vec<Field<'static>> = vec![
        (b":method", b"GET"),
        (b":scheme", b"https"),
        (b"a", b"b"),
        (b":authority", b"app.localhost"),
        (b":path", b"/x"),
    ];
    vec![
        case("a pseudo-header behind a field", late, Refused),
        case("no :method", less(":method"), Refused),
        case("no :scheme", less(":scheme"), Refused),
        case("no :path", less(":path"), Refused),
        case("two :methods", fields(&[(b":method", b"GET")]), Refused),
        case("two :paths", fields(&[(b":path", b"/admin")]), Refused),
        case("two :authorities", fields(&[(b":authority", b"app.localhost")]), Refused),
        case("two :schemes", fields(&[(b":scheme", b"https")]), Refused),
        case("a pseudo-header of a response", fields(&[(b":status", b"200")]), Refused),
        case("a pseudo-header that nobody knows", fields(&[(b":evil", b"x")]), Refused),
        case("an empty pseudo-header", fields(&[(b":", b"x")]), Refused),
        case("an empty :method", swap(":method", b""), Refused),
        case("a :method with a space", swap(":method", b"GET /admin HTTP/1.1"), Refused),
        case("a :method with CR and LF", swap(":method", b"GET / HTTP/1.1\r\nA: b\r\n\r\nGET"), Refused),
        case("an :scheme of http", swap(":scheme", b"http"), Answered(421)),
        case("an :scheme of ftp", swap(":scheme", b"ftp"), Refused),
        case("an :scheme with a path in it", swap(":scheme", b"https://evil/?"), Refused),
        case("CONNECT", vec![(b":method", b"CONNECT"), (b":authority", b"app.localhost:443")], Answered(405)),
        case("CONNECT with a path", swap(":method", b"CONNECT"), Refused),
        case("TRACE", swap(":method", b"TRACE"), Answered(405)),
        case("a :protocol without CONNECT", fields(&[(b":protocol", b"websocket")]), Refused),
    ]
}

fn authorities() -> Vec<Case> {
    use Expect::{Answered, Refused};
    vec![
        case("no authority at all", less(":authority"), Refused),
        case("an empty :authority", swap(":authority", b""), Refused),
        case("the authority of another site", swap(":authority", b"other.localhost"), Answered(421)),
        case("the authority of nobody", swap(":authority", b"unknown.localhost"), Answered(421)),
        case("an address as the authority", swap(":authority", b"127.0.0.1"), Answered(421)),
        case("a user in the authority", swap(":authority", b"user@app.localhost"), Refused),
        case("a path in the authority", swap(":authority", b"app.localhost/admin"), Refused),
        case("a space in the authority", swap(":authority", b"app.localhost x"), Refused),
        case("CR and LF in the authority", swap(":authority", b"app.localhost\r\nA: b"), Refused),
        case("a Host that differs from the authority", fields(&[(b"host", b"other.localhost")]), Refused),
        case(
            "two Hosts",
            [less(":authority"), vec![(b"host", b"app.localhost"), (b"host", b"app.localhost")]].concat(),
            Refused,
        ),
        case(
            "another name of the same site",
            swap(":authority", b"also.localhost"),
            forwarded("GET /x", &[("host", "also.localhost")], &[]),
        ),
        case(
            "Host in the authority's place",
            [less(":authority"), vec![(b"host", b"app.localhost")]].concat(),
            forwarded("GET /x", &[("host", NAME)], &[]),
        ),
        case(
            "an equal Host beside the authority",
            fields(&[(b"host", b"app.localhost")]),
            forwarded("GET /x", &[("host", NAME)], &[]),
        ),
    ]
}

fn paths() -> Vec<Case> {
    use Expect::Refused;
    vec![
        case("an empty :path", swap(":path", b""), Refused),
        case("a relative :path", swap(":path", b"x"), Refused),
        case("an absolute :path", swap(":path", b"https://evil/x"), Refused),
        case("an asterisk for GET", swap(":path", b"*"), Refused),
        case("a space in :path", swap(":path", b"/x HTTP/1.1"), Refused),
        case("CR and LF in :path", swap(":path", b"/x HTTP/1.1\r\nHost: evil\r\n\r\nGET /y"), Refused),
        case("a LF in :path", swap(":path", b"/x\ny"), Refused),
        case("a NUL in :path", swap(":path", b"/x\0y"), Refused),
        case("a tab in :path", swap(":path", b"/x\ty"), Refused),
        case("a fragment in :path is left out", swap(":path", b"/x#y"), forwarded("GET /x", &[], &[])),
        case("an encoded NUL in :path", swap(":path", b"/x%00"), Refused),
        case("dot segments in :path", swap(":path", b"/a/%2e%2e/x"), Refused),
        case("a letter beyond ASCII in :path", swap(":path", b"/\xc3\xbc"), Refused),
    ]
}

fn names_and_values() -> Vec<Case> {
    use Expect::Refused;
    vec![
        case("a name in capitals", fields(&[(b"X-Capital", b"x")]), Refused),
        case("an empty name", fields(&[(b"", b"x")]), Refused),
        case("a name with a space", fields(&[(b"a b", b"x")]), Refused),
        case("a name with a colon", fields(&[(b"a:b", b"x")]), Refused),
        case("a name with CR and LF", fields(&[(b"a\r\nhost: evil\r\nb", b"x")]), Refused),
        case("a name with a NUL", fields(&[(b"a\0", b"x")]), Refused),
        case("a name beyond ASCII", fields(&[(b"\xc3\xa4", b"x")]), Refused),
        case("a CR in a value", fields(&[(b"a", b"b\rc")]), Refused),
        case("a LF in a value", fields(&[(b"a", b"b\nc")]), Refused),
        case("a whole field in a value", fields(&[(b"a", b"b\r\nTransfer-Encoding: chunked")]), Refused),
        case(
            "a whole request in a value",
            fields(&[(b"a", b"b\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n")]),
            Refused,
        ),
        case("a NUL in a value", fields(&[(b"a", b"b\0c")]), Refused),
        case("another control character in a value", fields(&[(b"a", b"b\x01c")]), Refused),
    ]
}

fn connection_fields() -> Vec<Case> {
    use Expect::Refused;
    vec![
        case("connection", fields(&[(b"connection", b"close")]), Refused),
        case(
            "connection: upgrade",
            fields(&[(b"connection", b"upgrade"), (b"upgrade", b"websocket")]),
            Refused,
        ),
        case("transfer-encoding", post(&[(b"transfer-encoding", b"chunked")]), Refused),
        case_with_body(
            "transfer-encoding with a body",
            post(&[(b"transfer-encoding", b"chunked")]),
            b"0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n",
            Refused,
        ),
        case("upgrade", fields(&[(b"upgrade", b"h2c")]), Refused),
        case("keep-alive", fields(&[(b"keep-alive", b"timeout=5")]), Refused),
        case("proxy-connection", fields(&[(b"proxy-connection", b"close")]), Refused),
        case("te other than trailers", fields(&[(b"te", b"gzip")]), Refused),
        case("te: trailers", fields(&[(b"te", b"trailers")]), forwarded("GET /x", &[], &["te"])),
    ]
}

fn lengths() -> Vec<Case> {
    use Expect::{Answered, Refused};
    vec![
        case_with_body(
            "a content-length that is too long",
            post(&[(b"content-length", b"9")]),
            b"hello",
            Refused,
        ),
        case_with_body(
            "a content-length that is too short",
            post(&[(b"content-length", b"3")]),
            b"hello",
            Refused,
        ),
        case("a content-length without a body", post(&[(b"content-length", b"5")]), Refused),
        case_with_body(
            "two content-lengths",
            post(&[(b"content-length", b"5"), (b"content-length", b"6")]),
            b"hello",
            Refused,
        ),
        case_with_body("a signed content-length", post(&[(b"content-length", b"+5")]), b"hello", Refused),
        case_with_body("a list of content-lengths", post(&[(b"content-length", b"5, 5")]), b"hello", Refused),
        case_with_body(
            "a content-length that is no number",
            post(&[(b"content-length", b"five")]),
            b"hello",
            Refused,
        ),
        case_with_body(
            "a content-length of 0 with a body",
            post(&[(b"content-length", b"0")]),
            b"GET /smuggled HTTP/1.1\r\n\r\n",
            Refused,
        ),
        case_with_body("a true content-length", post(&[(b"content-length", b"5")]), b"hello", body(b"hello")),
        case_with_body("no content-length", post(&[]), b"hello", body(b"hello")),
        case("no body", post(&[]), body(b"")),
        frames(
            "a body over the route's limit",
            |client| {
                let fields = swap(":path", b"/small/x").into_iter().collect::<Vec<_>>();
                client.write(HEADERS, END_HEADERS, 1, &block(&fields))?;
                client.write(DATA, END_STREAM, 1, &[b'x'; 1025])
            },
            Answered(413),
        ),
        case("an unknown expectation", post(&[(b"expect", b"wonders")]), Answered(417)),
    ]
}

fn blocks() -> Vec<Case> {
    use Expect::{Answered, Refused};
    vec![
        frames(
            "a block that is no HPACK",
            |client| client.write(HEADERS, END_HEADERS | END_STREAM, 1, &[0xff; 9]),
            Refused,
        ),
        frames(
            "an index that is not there",
            |client| client.write(HEADERS, END_HEADERS | END_STREAM, 1, &[0xfe]),
            Refused,
        ),
        frames("an empty block", |client| client.write(HEADERS, END_HEADERS | END_STREAM, 1, &[]), Refused),
        frames("DATA before HEADERS", |client| client.write(DATA, END_STREAM, 1, b"x"), Refused),
        frames("an even stream", |client| client.request(2, &fields(&[]), b""), Refused),
        frames("stream 0", |client| client.request(0, &fields(&[]), b""), Refused),
        frames(
            "another frame between HEADERS and CONTINUATION",
            |client| {
                client.write(HEADERS, END_STREAM, 1, &block(&fields(&[])))?;
                client.write(DATA, 0, 1, b"x")
            },
            Refused,
        ),
        frames(
            "pseudo-headers among the trailers are left out",
            |client| {
                client.write(HEADERS, END_HEADERS, 1, &block(&post(&[])))?;
                client.write(DATA, 0, 1, b"hello")?;
                client.write(HEADERS, END_HEADERS | END_STREAM, 1, &block(&[(b":path", b"/admin")]))
            },
            body(b"hello"),
        ),
        frames(
            "a value over the limit of heads",
            |client| {
                let value = vec![b'b'; 12_000];
                client.write(HEADERS, END_STREAM, 1, &block(&fields(&[])))?;
                for last in [0, 0, 0, 0, 0, END_HEADERS] {
                    client.write(CONTINUATION, last, 1, &block(&[(b"a", &value)]))?;
                }
                Ok(())
            },
            Answered(431),
        ),
        frames(
            "a request in many frames",
            |client| {
                let whole = block(&fields(&[(b"a", b"b")]));
                client.write(HEADERS, END_STREAM, 1, &whole[..1])?;
                client.write(CONTINUATION, 0, 1, &whole[1..30])?;
                client.write(CONTINUATION, 0, 1, &whole[30..])?;
                client.write(CONTINUATION, END_HEADERS, 1, &[])
            },
            forwarded("GET /x", &[("a", "b")], &[]),
        ),
    ]
}

fn passing() -> Vec<Case> {
    vec![
        case(
            "a plain request",
            fields(&[]),
            forwarded("GET /x", &[("host", NAME), ("x-forwarded-proto", "https")], &[]),
        ),
        case(
            "cookies in pieces are one again",
            fields(&[(b"cookie", b"a=1"), (b"cookie", b"b=2")]),
            forwarded("GET /x", &[("cookie", "a=1; b=2")], &[]),
        ),
        case(
            "forged forwarding fields",
            fields(&[
                (b"x-forwarded-for", b"6.6.6.6"),
                (b"x-real-ip", b"6.6.6.6"),
                (b"x_real_ip", b"6.6.6.6"),
            ]),
            forwarded(
                "GET /x",
                &[("x-forwarded-for", "127.0.0.1"), ("x-real-ip", "127.0.0.1")],
                &["x_real_ip"],
            ),
        ),
        frames(
            "forged trailers",
            |client| {
                client.write(HEADERS, END_HEADERS, 1, &block(&post(&[])))?;
                client.write(DATA, 0, 1, b"hello")?;
                let forged: [Field<'_>; 3] =
                    [(b"x_real_ip", b"6.6.6.6"), (b"host", b"evil"), (b"content-length", b"9")];
                client.write(HEADERS, END_HEADERS | END_STREAM, 1, &block(&forged))
            },
            Expect::Forwarded(Shape {
                line: "POST /x",
                body: b"hello".to_vec(),
                has: vec![("host", NAME)],
                lacks: vec!["x_real_ip", "content-length"],
            }),
        ),
        frames(
            "padding and priority",
            |client| {
                let mut padded = vec![3, 0, 0, 0, 0, 16];
                padded.extend(block(&fields(&[])));
                padded.extend([0; 3]);
                client.write(HEADERS, END_HEADERS | END_STREAM | 0x28, 1, &padded)
            },
            forwarded("GET /x", &[("host", NAME)], &[]),
        ),
    ]
}

/// The same, as a POST.
fn post(more: &'static [Field<'static>]) -> Vec<Field<'static>> {
    swap(":method", b"POST").into_iter().chain(more.iter().copied()).collect()
}

/// A whole request in which one pseudo-header has another value.
fn swap(name: &str, value: &'static [u8]) -> Vec<Field<'static>> {
    fields(&[])
        .into_iter()
        .map(|(found, old)| (found, if found == name.as_bytes() { value } else { old }))
        .collect()
}

/// A whole request without one pseudo-header.
fn less(name: &str) -> Vec<Field<'static>> {
    fields(&[]).into_iter().filter(|(found, _)| *found != name.as_bytes()).collect()
}

fn case(name: &'static str, fields: Vec<Field<'static>>, expect: Expect) -> Case {
    (name, Box::new(move |client| client.request(1, &fields, b"")), expect)
}

fn case_with_body(
    name: &'static str,
    fields: Vec<Field<'static>>,
    body: &'static [u8],
    expect: Expect,
) -> Case {
    (name, Box::new(move |client| client.request(1, &fields, body)), expect)
}

fn frames(
    name: &'static str,
    send: impl Fn(&mut H2) -> std::io::Result<()> + 'static,
    expect: Expect,
) -> Case {
    (name, Box::new(send), expect)
}

fn forwarded(line: &'static str, has: &[(&'static str, &'static str)], lacks: &[&'static str]) -> Expect {
    Expect::Forwarded(Shape { line, body: Vec::new(), has: has.to_vec(), lacks: lacks.to_vec() })
}

fn body(body: &[u8]) -> Expect {
    Expect::Forwarded(Shape {
        line: "POST /x",
        body: body.to_vec(),
        has: vec![("host", NAME)],
        lacks: vec![],
    })
}
