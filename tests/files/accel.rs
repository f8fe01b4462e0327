//! X-Accel-Redirect: an upstream hands a request over to a file.

use super::{Stack, stack};
use crate::support::client::Response;

/// Asks the upstream, which answers with these field lines.
#[track_caller]
fn handed(stack: &Stack, method: &str, answer: &str, fields: &[(&str, &str)]) -> Response {
    let fields: Vec<_> = [("x-answer", answer)].iter().chain(fields).copied().collect();
    stack.ask(method, "/up/", &fields)
}

#[test]
fn the_file_takes_the_place_of_the_answer() {
    let stack = stack();
    let answer = handed(
        &stack,
        "GET",
        "X-Accel-Redirect: /private/report.txt?ignored=../x|Content-Type: text/x-own|Content-Disposition: attachment|\
         Set-Cookie: a=b|Set-Cookie: c=d|Cache-Control: private|Expires: 0|ETag: \"django\"|Vary: Cookie|\
         Last-Modified: Sat, 01 Jan 2000 00:00:00 GMT|Content-Encoding: gzip|X-Frame-Options: DENY|\
         X-Accel-Buffering: no|X-Accel-Expires: 60|X-Accel-Limit-Rate: 1024|X-Accel-Charset: utf-8",
        &[],
    );
    assert_eq!((answer.status, answer.text().as_str()), (200, "0123456789"), "{answer:?}");
    for (name, value) in [
        ("content-type", "text/x-own; charset=utf-8"),
        ("content-disposition", "attachment"),
        ("cache-control", "private"),
        ("expires", "0"),
        ("vary", "Cookie"),
        ("content-length", "10"),
        ("last-modified", super::MODIFIED),
        ("x-content-type-options", "nosniff"),
        ("accept-ranges", "bytes"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{name}: {answer:?}");
    }
    assert!(answer.header("content-security-policy").is_some_and(|policy| policy.starts_with("sandbox")));
    let cookies: Vec<_> = answer.headers.iter().filter(|(name, _)| name == "set-cookie").collect();
    assert_eq!(cookies.len(), 2, "{answer:?}");
    assert_ne!(answer.header("etag"), Some("\"django\""));
    for name in ["content-encoding", "x-frame-options"] {
        assert_eq!(answer.header(name), None, "{name}");
    }
    assert!(!answer.headers.iter().any(|(name, _)| name.starts_with("x-accel")), "{answer:?}");
}

#[test]
fn what_the_upstream_leaves_open_the_route_says() {
    let stack = stack();
    let answer = handed(
        &stack,
        "GET",
        "X-Accel-Redirect: /private/report.txt|Content-Type:",
        &[("accept-encoding", "gzip")],
    );
    assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(
        answer.header("cache-control"),
        Some("private, max-age=86400"),
        "the upstream let this one in"
    );
    assert_eq!((answer.header("content-encoding"), answer.text().as_str()), (None, "0123456789"));
}

#[test]
fn methods_conditions_and_ranges_are_the_files() {
    let stack = stack();
    let to = "X-Accel-Redirect: /private/report.txt";
    for method in ["GET", "POST", "DELETE"] {
        let answer = handed(&stack, method, to, &[]);
        assert_eq!((answer.status, answer.text().as_str()), (200, "0123456789"), "{method}");
    }
    let head = handed(&stack, "HEAD", to, &[]);
    assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, Some("10"), 0));
    let tag = head.header("etag").unwrap();
    for (fields, status, body) in [
        (&[("range", "bytes=2-4")][..], 206, "234"),
        (&[("range", "bytes=20-")], 416, ""),
        (&[("range", "bytes=2-4"), ("if-range", "\"x\"")], 200, "0123456789"),
        (&[("if-none-match", tag)], 304, ""),
        (&[("if-modified-since", super::MODIFIED)], 304, ""),
        (&[("if-match", "\"x\"")], 412, ""),
    ] {
        let answer = handed(&stack, "GET", to, fields);
        assert_eq!((answer.status, answer.text().as_str()), (status, body), "{fields:?}");
    }
    let none = handed(&stack, "GET", &format!("{to}|Accept-Ranges: none"), &[("range", "bytes=2-4")]);
    assert_eq!((none.status, none.header("accept-ranges")), (200, None));
}

#[test]
fn only_internal_routes_can_be_led_to() {
    let stack = stack();
    for (target, status) in [
        ("/private/report.txt", 200),
        ("/private/a%20b%3f.txt", 200),
        ("//private//report.txt", 200),
        ("/%70rivate/report.txt", 200),
        ("/private/nowhere", 404),
        ("/private/", 404),
        ("/private/../static/app.css", 404),
        ("/private/../../secret.txt", 404),
        ("/private/%2e%2e/secret.txt", 404),
        ("/private/..%2fsecret.txt", 404),
        ("/private/report.txt%00", 404),
        ("/private/link-out", 404),
        ("/private/%", 404),
        ("private/report.txt", 404),
        ("https://app.localhost/private/report.txt", 404),
        ("@named", 404),
        ("", 404),
        ("/closed/report.txt", 403),
        ("/static/app.css", 502),
        ("/up/", 502),
        ("/nowhere/", 502),
        ("/private", 502),
    ] {
        let answer = handed(&stack, "GET", format!("X-Accel-Redirect: {target}").trim_end(), &[]);
        assert_eq!(answer.status, status, "{target}: {answer:?}");
        assert!(!answer.text().contains("Django") && !answer.text().contains(super::SECRET), "{target}");
    }
    stack.edge.log().wait("what to configure", |line| {
        (line.contains("/static/app.css") && line.contains("internal = true")).then_some(())
    });
}

#[test]
fn from_a_client_the_field_means_nothing() {
    let stack = stack();
    for path in ["/static/digits.txt", "/up/"] {
        let answer = stack.ask("GET", path, &[("x-accel-redirect", "/private/report.txt")]);
        assert_eq!(answer.status, 200);
        assert_ne!(answer.header("cache-control"), Some("max-age=86400"), "{path}");
    }
    assert!(stack.upstream.seen().iter().all(|seen| seen.header("x-accel-redirect").is_none()));
}

/// The upstream's connection is used again: its body was thrown away, and not left in it.
#[test]
fn the_upstreams_connection_stays() {
    let stack = Stack::start();
    let mut wire = crate::support::client::connect(&stack.edge);
    let before = stack.upstream.connections();
    for _ in 0..20 {
        let request = "GET /up/ HTTP/1.1\r\nHost: app.localhost\r\nX-Answer: X-Accel-Redirect: /private/report.txt\r\n\r\n";
        assert_eq!(wire.ask(request).unwrap().text(), "0123456789");
    }
    let opened = stack.upstream.connections() - before;
    assert!(opened < 15, "{opened} connections for 20 requests");
}
