//! Header fields set and taken off.

use std::fs;
use std::io::Write as _;

use super::edge;
use crate::support::client::{NAME, Response, connect};
use crate::support::upstream::{Then, Upstream};

const CONFIG: &str = r#"
[site.proxy]
retries = 0
hold = "0s"
headers = { set = { X-Frame-Options = "DENY", X-Team = "edge" }, remove = ["Server", "X-Powered-By"] }
[[site.route]]
path = "/api/"
headers = { set = { X-Frame-Options = "SAMEORIGIN", Server = "api" }, remove = ["x-team"] }
[[site.route]]
path = "/old/"
redirect = { to = "/" }
[[site.route]]
path = "/dead/"
upstream = "127.0.0.1:1"
"#;

#[test]
fn they_are_changed_on_every_answer() {
    let upstream = Upstream::start(|_, stream| {
        stream.write_all(
            b"HTTP/1.1 200 OK\r\nSERVER: gunicorn\r\nX-Frame-Options: ALLOWALL\r\nx-frame-options: twice\r\n\
              X-Powered-By: Django\r\nX-Stays: yes\r\nContent-Length: 2\r\n\r\nok",
        )?;
        Ok(Then::Keep)
    });
    let files = tempfile::tempdir().unwrap();
    fs::write(files.path().join("a.txt"), "a").unwrap();
    let route = format!("[[site.route]]\npath = \"/files/\"\nfiles = \"{}\"", files.path().display());
    let edge = edge(&upstream, &format!("{CONFIG}{route}"));
    let mut client = connect(&edge);
    for (path, status) in
        [("/", 200), ("/files/a.txt", 200), ("/files/b.txt", 404), ("/old/", 308), ("/dead/", 502)]
    {
        let answer = client.get(path).unwrap();
        assert_eq!(answer.status, status, "{path}");
        assert_eq!(values(&answer, "x-frame-options"), ["DENY"], "{path}");
        assert_eq!(values(&answer, "x-team"), ["edge"], "{path}");
        assert!(answer.header("server").or(answer.header("x-powered-by")).is_none(), "{path}: {answer:?}");
    }
    assert_eq!(client.get("/").unwrap().header("x-stays"), Some("yes"));
    let answer = client.get("/api/").unwrap();
    assert_eq!(values(&answer, "x-frame-options"), ["SAMEORIGIN"]);
    assert_eq!(values(&answer, "server"), ["api"], "what the route sets, the site does not take off");
    assert!(answer.header("x-team").or(answer.header("x-powered-by")).is_none(), "{answer:?}");
}

#[test]
fn what_they_may_not_take_away() {
    let upstream = Upstream::start(|_, stream| {
        stream.write_all(
            b"HTTP/1.1 200 OK\r\nVary: Cookie\r\nCache-Control: private\r\nContent-Length: 2\r\n\r\nok",
        )?;
        Ok(Then::Keep)
    });
    let files = tempfile::tempdir().unwrap();
    for name in ["a.txt", "a.txt.gz"] {
        fs::write(files.path().join(name), name).unwrap();
    }
    let text = format!(
        "[site.proxy]\nheaders = {{ set = {{ Vary = \"Origin\", Cache-Control = \"max-age=600\" }} }}\n\
         [[site.route]]\npath = \"/files/\"\nfiles = \"{}\"\nsandbox = false\n",
        files.path().display()
    );
    let edge = edge(&upstream, &text);
    let mut client = connect(&edge);
    for (path, status, vary, cache) in [
        ("/", 200, &["Cookie", "Origin"][..], "max-age=600"),
        ("/files/a.txt", 200, &["Accept-Encoding", "Origin"], "max-age=600"),
        ("/files/b.txt", 404, &["Origin"], "no-store"),
    ] {
        let ask = format!("GET {path} HTTP/1.1\r\nHost: {NAME}\r\nAccept-Encoding: gzip\r\n\r\n");
        let answer = client.ask(ask).unwrap();
        assert_eq!(answer.status, status, "{path}");
        assert_eq!(values(&answer, "vary"), vary, "{path}");
        assert_eq!(values(&answer, "cache-control"), [cache], "{path}");
    }
}

fn values<'a>(answer: &'a Response, name: &str) -> Vec<&'a str> {
    answer.headers.iter().filter(|(own, _)| own == name).map(|(_, value)| value.as_str()).collect()
}
