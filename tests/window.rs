//! The window: what it shows, and that nothing in it acts but what is the edge's own.

use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::support::PATIENCE;
use crate::support::client::{self, NAME, Response, Wire, connect};
use crate::support::edge::{Edge, HTTPS, ROWS};
use crate::support::upstream::Upstream;

#[test]
fn it_shows_the_edge() {
    let upstream = Upstream::echo();
    let edge = Edge::start(&config(&upstream));
    connect(&edge).get("/").unwrap();
    let refused = connect(&edge).get("/admin/secret").unwrap();
    let id = refused.header("x-request-id").unwrap();
    let page = look_until(&edge, id);
    for part in [
        "<p class=\"state good\">serving</p>",
        "1 site on 2 ports",
        &format!(
            "<th scope=\"row\" data-label=\"Name\">{NAME} <span class=\"aside\" title=\"www.{NAME}\">and 1 more"
        ),
        "<code>/admin/</code>",
        &format!("hands it to {}", upstream.address()),
        &format!("<th scope=\"row\" data-label=\"Port\">{HTTPS} <span class=\"aside\">https</span></th>"),
        "data-label=\"office\"><span class=\"cell deny\">deny</span>",
        &format!("<b>GET</b> {NAME}/admin/secret</span>"),
        "the client&#39;s address is not allowed here",
        "in 59 days</span> <span class=\"aside why\">a third of its life is left",
        "aria-label=\"Requests over 5 min, per second: ",
    ] {
        assert!(page.contains(part), "no {part:?} in {page}");
    }
    for tag in ["table", "tr", "td", "th", "section", "figure", "svg", "main", "ul"] {
        let count = |text: &str| page.matches(text).count();
        let opened = count(&format!("<{tag}>")) + count(&format!("<{tag} "));
        assert_eq!(opened, count(&format!("</{tag}>")), "{tag}");
    }
}

/// Method, path and host are as hostile as they get through the edge.
#[test]
fn what_clients_send_stays_text() {
    let upstream = Upstream::echo();
    let edge = Edge::start(&config(&upstream));
    let path = "/admin/<script>alert(1)</script>\"'><img/src=x/onerror=alert(1)>";
    let refused = connect(&edge).get(path).unwrap();
    let page = look_until(&edge, refused.header("x-request-id").unwrap());
    let escaped =
        "/admin/&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#39;&gt;&lt;img/src=x/onerror=alert(1)&gt;";
    assert!(page.contains(escaped), "{page}");
    assert_eq!((page.matches("<script").count(), page.matches("<img").count()), (1, 0));
}

/// The policy lets in this style and this script, and nothing else.
#[test]
fn the_policy_is_strict() {
    let upstream = Upstream::echo();
    let edge = Edge::start(&config(&upstream));
    let answer = look(&edge);
    let policy = answer.header("content-security-policy").unwrap().to_owned();
    let page = answer.text();
    let inside = |tag: &str| {
        let (_, rest) = page.split_once(&format!("<{tag}>")).unwrap();
        let (text, _) = rest.split_once(&format!("</{tag}>")).unwrap();
        STANDARD.encode(digest(&SHA256, text.as_bytes()))
    };
    for directive in [
        "default-src 'none'".to_owned(),
        format!("style-src 'sha256-{}'", inside("style")),
        format!("script-src 'sha256-{}'", inside("script")),
        "base-uri 'none'".to_owned(),
        "form-action 'none'".to_owned(),
        "frame-ancestors 'none'".to_owned(),
    ] {
        assert!(policy.split("; ").any(|own| own == directive), "no {directive} in {policy}");
    }
    for outside in [" style=", " onclick=", "http://", "https://", "@import"] {
        let page = page.replace("http://www.w3.org/2000/svg", "");
        assert!(!page.contains(outside), "{outside} in {page}");
    }
    for (name, value) in [
        ("x-frame-options", "DENY"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-resource-policy", "same-origin"),
        ("cache-control", "no-store"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{name}");
    }
}

#[test]
fn a_refused_reload_is_seen() {
    let upstream = Upstream::echo();
    let edge = Edge::start(&config(&upstream));
    let alarm = "The last reload was refused";
    assert!(!look(&edge).text().contains(alarm));
    edge.write_config("[[site]]\nno = 1\n");
    assert!(!edge.reload());
    assert!(look(&edge).text().contains(alarm));
    edge.write_config(&config(&upstream));
    assert!(edge.reload());
    assert!(!look(&edge).text().contains(alarm));
}

fn config(upstream: &Upstream) -> String {
    let rows = ROWS.replacen("[\"public\"]", "[\"public\"], deny = [\"office\"]", 1);
    format!(
        r#"{rows}
[sources]
office = ["203.0.113.0/24"]

[[site]]
domains = ["{NAME}"]
redirect = ["www.{NAME}"]
upstream = "{}"
certificate = "internal"
  [[site.route]]
  path = "/admin/"
  allow = ["office"]

[admin]
socket = "./admin.sock"
listen = "127.0.0.1:0"
"#,
        upstream.address()
    )
}

fn look(edge: &Edge) -> Response {
    let stream = client::tcp(edge.address("[admin] listen")).unwrap();
    Wire::new(stream).ask("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap()
}

/// The page once this text is on it: a request is noted a moment after its client has the answer.
#[track_caller]
fn look_until(edge: &Edge, text: &str) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let page = look(edge).text();
        if page.contains(text) {
            return page;
        }
        assert!(Instant::now() < deadline, "no {text:?} in {page}");
        std::thread::sleep(Duration::from_millis(5)); // nobody is told when a request is noted
    }
}
