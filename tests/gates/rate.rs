//! Rates: who is over one is told so, and nobody else notices.

use bytes::Bytes;
use http::Request;

use super::config;
use crate::support::client::{NAME, Response, connect};
use crate::support::edge::Edge;
use crate::support::h2client::H2Client;
use crate::support::upstream::Upstream;

/// Asks once, over a connection of its own, so that any worker may answer.
fn ask(edge: &Edge, path: &str, more: &str) -> Response {
    connect(edge).ask(format!("GET {path} HTTP/1.1\r\nHost: {NAME}\r\n{more}\r\n")).unwrap()
}

/// How many of so many requests pass; the others are refused.
fn passed(edge: &Edge, count: usize, path: &str, more: &str) -> usize {
    let statuses: Vec<u16> = (0..count).map(|_| ask(edge, path, more).status).collect();
    assert!(statuses.iter().all(|status| [200, 429].contains(status)), "{statuses:?}");
    statuses.iter().filter(|status| **status == 200).count()
}

#[test]
fn what_is_one_too_many_is_told_when_to_come_back() {
    let upstream = Upstream::echo();
    let route = "[[site.route]]\npath = \"/login/\"\nrate = { limit = 4, every = \"4h\", burst = 2 }";
    let edge = Edge::start(&config(&upstream, route));
    let first = ask(&edge, "/login/", "");
    assert_eq!((first.status, first.header("ratelimit")), (200, Some("\"client\";r=2;t=3600")));
    assert_eq!(first.header("ratelimit-policy"), Some("\"client\";q=4;w=14400"));
    assert_eq!(passed(&edge, 10, "/login/", ""), 2, "two workers count as one");
    let (mark, seen) = (edge.mark(), upstream.mark());
    let mut client = connect(&edge);
    let refused = client
        .ask(format!("POST /login/ HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: 4\r\n\r\nbody"))
        .unwrap();
    assert_eq!(refused.status, 429);
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((3000..=3600).contains(&wait), "{wait}");
    assert_eq!(refused.header("ratelimit"), Some(&*format!("\"client\";r=0;t={wait}")));
    assert!(
        refused.text().contains("Too Many Requests") && refused.header("cache-control") == Some("no-store")
    );
    edge.access_line(mark, "the refusal", |line| line["refused"] == "rate" && line["status"] == 429);
    let mut client = connect(&edge);
    let json = client
        .ask(format!("GET /login/x HTTP/1.1\r\nHost: {NAME}\r\nAccept: application/json\r\n\r\n"))
        .unwrap();
    assert_eq!((json.status, &json.json()["status"]), (429, &429.into()));
    assert_eq!(upstream.mark(), seen, "nothing reaches Django");
    let elsewhere = client.get("/").unwrap();
    assert_eq!((elsewhere.status, elsewhere.header("ratelimit")), (200, None));
    let mut over_h2 = H2Client::connect(edge.https(), &edge.ca(), NAME).unwrap();
    let post = Request::post(format!("https://{NAME}/login/")).body(()).unwrap();
    assert_eq!(over_h2.ask(post, Bytes::from_static(b"body")).unwrap().status, 429);
}

#[test]
fn the_true_client_is_counted_and_a_network_of_ipv6_is_one() {
    let upstream = Upstream::echo();
    let edge = Edge::start(&config(&upstream, "rate = { limit = 3, every = \"1d\" }"));
    let from = |client: &str| passed(&edge, 5, "/", &format!("X-Forwarded-For: {client}\r\n"));
    for (client, expected) in [
        ("192.0.2.1", 3),
        ("192.0.2.2", 3),
        ("192.0.2.1", 0),
        ("::ffff:192.0.2.2", 0),
        ("2001:db8::1", 3),
        ("2001:db8:0:0:ffff::2", 0),
        ("2001:db8:0:1::1", 3),
    ] {
        assert_eq!(from(client), expected, "{client}");
    }
}

#[test]
fn a_sites_rate_is_for_all_its_routes_that_have_no_other() {
    let upstream = Upstream::echo();
    let files = tempfile::tempdir().unwrap();
    std::fs::write(files.path().join("a.css"), "a").unwrap();
    let routes = format!(
        "rate = {{ per = \"all\", limit = 4, every = \"1d\" }}\n\
         [[site.route]]\npath = \"/static/\"\nfiles = \"{}\"\n\
         [[site.route]]\npath = \"/free/\"\nrate = false\n\
         [[site.route]]\npath = \"/own/\"\nrate = {{ limit = 2, every = \"1d\" }}\n",
        files.path().display()
    );
    let edge = Edge::start(&config(&upstream, &routes));
    let counts =
        [("/", 1), ("/static/a.css", 2), ("/own/", 5), ("/", 5), ("/static/a.css", 1), ("/free/", 9)];
    let passed = counts.map(|(path, count)| passed(&edge, count, path, ""));
    assert_eq!(passed, [1, 2, 2, 1, 0, 9]);
}

#[test]
fn requests_are_told_apart_by_what_the_rate_names() {
    let upstream = Upstream::echo();
    let routes = "[[site.route]]\npath = \"/token/\"\nrate = { per = \"header:authorization\", limit = 2, every = \"1d\" }\n\
                  [[site.route]]\npath = \"/session/\"\nrate = { per = \"cookie:sessionid\", limit = 2, every = \"1d\" }\n";
    let edge = Edge::start(&config(&upstream, routes));
    for (path, more, expected) in [
        ("/token/", "Authorization: Bearer one\r\n", 2),
        ("/token/", "AUTHORIZATION: Bearer two\r\nX-Forwarded-For: 192.0.2.1\r\n", 2),
        ("/token/", "Authorization: Bearer two\r\nX-Forwarded-For: 192.0.2.2\r\n", 0),
        ("/token/", "", 2),
        ("/token/", "X-Forwarded-For: 192.0.2.2\r\n", 2),
        ("/session/", "Cookie: a=b; sessionid=one\r\n", 2),
        ("/session/", "Cookie: sessionid=one; c=d\r\n", 0),
        ("/session/", "Cookie: sessionid=two\r\n", 2),
    ] {
        assert_eq!(passed(&edge, 3, path, more), expected, "{path} {more:?}");
    }
}

#[test]
fn a_reload_forgets_only_what_changed() {
    let upstream = Upstream::echo();
    let routes = |limit| {
        format!(
            "[[site.route]]\npath = \"/a/\"\nrate = {{ limit = 2, every = \"1d\" }}\n\
             [[site.route]]\npath = \"/b/\"\nrate = {{ limit = {limit}, every = \"1d\" }}\n"
        )
    };
    let edge = Edge::start(&config(&upstream, &routes(2)));
    assert_eq!((passed(&edge, 3, "/a/", ""), passed(&edge, 3, "/b/", "")), (2, 2));
    edge.write_config(&config(&upstream, &routes(3)));
    assert!(edge.reload());
    assert_eq!((passed(&edge, 3, "/a/", ""), passed(&edge, 5, "/b/", "")), (0, 3));
}

/// What Django says of its own rates stands, and what the site takes off is off.
#[test]
fn the_fields_are_others_to_decide_about() {
    let upstream = Upstream::start(|_, stream| {
        use std::io::Write as _;
        stream.write_all(b"HTTP/1.1 200 OK\r\nRateLimit: \"django\";r=1\r\nContent-Length: 0\r\n\r\n")?;
        Ok(crate::support::upstream::Then::Keep)
    });
    let routes = "rate = { limit = 9, every = \"1d\" }\n[[site.route]]\npath = \"/off/\"\nredirect = { to = \"/\" }\n\
                  headers = { remove = [\"RateLimit\", \"RateLimit-Policy\"] }\n";
    let edge = Edge::start(&config(&upstream, routes));
    let answer = ask(&edge, "/", "");
    assert_eq!(
        (answer.header("ratelimit"), answer.header("ratelimit-policy")),
        (Some("\"django\";r=1"), None)
    );
    let answer = ask(&edge, "/off/", "");
    assert_eq!(
        (answer.status, answer.header("ratelimit"), answer.header("ratelimit-policy")),
        (308, None, None)
    );
}
