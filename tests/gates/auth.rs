//! Passwords: whoever says the right one comes in, whoever does not is asked.

use std::fs;
use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::Request;

use super::config;
use crate::support::client::{NAME, Response, connect};
use crate::support::edge::Edge;
use crate::support::h2client::H2Client;
use crate::support::upstream::Upstream;

/// Asks once, over a connection of its own.
fn ask(edge: &Edge, path: &str, login: &str) -> Response {
    let login = if login.is_empty() { String::new() } else { format!("Authorization: {}\r\n", basic(login)) };
    connect(edge).ask(format!("GET {path} HTTP/1.1\r\nHost: {NAME}\r\n{login}\r\n")).unwrap()
}

fn basic(login: &str) -> String {
    format!("Basic {}", STANDARD.encode(login))
}

/// A line as one of the real programs writes it.
fn line(program: &str, arguments: &[&str]) -> String {
    let output =
        Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn file(folder: &Path, lines: &[String]) -> String {
    let path = folder.join("htpasswd");
    fs::write(&path, lines.join("\n")).unwrap();
    path.display().to_string()
}

#[test]
fn what_htpasswd_openssl_and_argon2_write_lets_people_in() {
    let upstream = Upstream::echo();
    let folder = tempfile::tempdir().unwrap();
    let lines = [
        line("htpasswd", &["-nbB", "bcrypt", "s3cret: \u{fc}"]),
        line("htpasswd", &["-nb5", "sha512", "s3cret: \u{fc}"]),
        line("htpasswd", &["-nb2", "sha256", "s3cret: \u{fc}"]),
        format!("openssl:{}", line("openssl", &["passwd", "-6", "s3cret: \u{fc}"])),
        format!("argon2:{}", line("sh", &["-c", "printf 's3cret: \u{fc}' | argon2 saltsalt -id -e"])),
    ];
    let file = file(folder.path(), &lines);
    let auth = format!("auth = {{ file = \"{file}\", realm = \"Staff only\" }}");
    let edge = Edge::start(&config(&upstream, &auth));
    for user in ["bcrypt", "sha512", "sha256", "openssl", "argon2"] {
        for _ in 0..2 {
            let (mark, seen) = (edge.mark(), upstream.mark());
            assert_eq!(ask(&edge, "/", &format!("{user}:s3cret: \u{fc}")).status, 200, "{user}");
            let head = upstream.wait_from(seen, "the request", |_| true);
            assert_eq!(head.header("authorization"), None, "it was the edge's");
            edge.access_line(mark, "the user", |line| line["user"] == user && line["status"] == 200);
        }
        assert_eq!(ask(&edge, "/", &format!("{user}:s3cret")).status, 401, "{user}");
    }
}

#[test]
fn whoever_says_nothing_right_is_asked() {
    let upstream = Upstream::echo();
    let folder = tempfile::tempdir().unwrap();
    let file = file(folder.path(), &[line("htpasswd", &["-nbB", "alice", "secret"])]);
    let auth = format!("auth = {{ file = \"{file}\", realm = \"Staff only\" }}");
    let edge = Edge::start(&config(&upstream, &auth));
    let (mark, seen) = (edge.mark(), upstream.mark());
    for login in ["", "alice:Secret", "bob:secret", "alice", ":"] {
        let answer = ask(&edge, "/", login);
        assert_eq!(answer.status, 401, "{login:?}");
        assert_eq!(answer.header("www-authenticate"), Some("Basic realm=\"Staff only\", charset=\"UTF-8\""));
        assert!(answer.text().contains("Unauthorized"));
    }
    let twice = format!("Authorization: {}\r\n", basic("alice:secret")).repeat(2);
    let request = format!("GET / HTTP/1.1\r\nHost: {NAME}\r\n{twice}\r\n");
    assert_eq!(connect(&edge).ask(request).unwrap().status, 401);
    let line = edge.access_line(mark, "the refusal", |line| line["refused"] == "password");
    assert_eq!((&line["status"], line.get("user")), (&401.into(), None));
    let mut over_h2 = H2Client::connect(edge.https(), &edge.ca(), NAME).unwrap();
    let mut asked = |login: &str| {
        let get =
            Request::get(format!("https://{NAME}/")).header("authorization", basic(login)).body(()).unwrap();
        over_h2.ask(get, Bytes::new()).unwrap().status
    };
    assert_eq!(asked("alice:wrong"), 401);
    assert_eq!(upstream.mark(), seen, "nothing reached Django");
    assert_eq!(asked("alice:secret"), 200);
}

#[test]
fn routes_have_doors_of_their_own_or_none() {
    let upstream = Upstream::echo();
    let folder = tempfile::tempdir().unwrap();
    let site = file(folder.path(), &[line("htpasswd", &["-nbB", "site", "secret"])]);
    fs::create_dir(folder.path().join("own")).unwrap();
    let own = file(&folder.path().join("own"), &[line("htpasswd", &["-nbB", "own", "secret"])]);
    fs::create_dir(folder.path().join("static")).unwrap();
    fs::write(folder.path().join("static/app.0123456789ab.js"), "a").unwrap();
    let more = format!(
        "auth = {{ file = \"{site}\" }}\n[[site.route]]\npath = \"/own/\"\nauth = {{ file = \"{own}\" }}\n\
         [[site.route]]\npath = \"/free/\"\nauth = false\n\
         [[site.route]]\npath = \"/static/\"\nfiles = \"{}/static\"\ncache = \"immutable\"\n",
        folder.path().display()
    );
    let edge = Edge::start(&config(&upstream, &more));
    for (path, login, status) in [
        ("/", "site:secret", 200),
        ("/", "own:secret", 401),
        ("/own/", "own:secret", 200),
        ("/own/", "site:secret", 401),
        ("/free/", "", 200),
        ("/static/app.0123456789ab.js", "", 401),
        ("/static/app.0123456789ab.js", "site:secret", 200),
    ] {
        assert_eq!(ask(&edge, path, login).status, status, "{path} {login}");
    }
    let file = ask(&edge, "/static/app.0123456789ab.js", "site:secret");
    assert_eq!(file.header("cache-control"), Some("private, max-age=31536000, immutable"));
    let seen = upstream.mark();
    ask(&edge, "/free/", "django:knows");
    let head = upstream.wait_from(seen, "the request", |_| true);
    assert_eq!(head.header("authorization"), Some(&*basic("django:knows")), "it was not the edge's");
}

#[test]
fn guessing_is_held_back() {
    let upstream = Upstream::echo();
    let folder = tempfile::tempdir().unwrap();
    let lines = ["alice", "bob"].map(|name| line("htpasswd", &["-nbB", name, "secret"]));
    let auth = format!("auth = {{ file = \"{}\" }}", file(folder.path(), &lines));
    let edge = Edge::start(&config(&upstream, &auth));
    assert_eq!(ask(&edge, "/", "alice:secret").status, 200);
    let mut guesses = (0..100).map(|guess| ask(&edge, "/", &format!("bob:{guess}")));
    let refused = guesses.find(|answer| answer.status != 401).unwrap();
    assert_eq!(refused.status, 429);
    assert!((1..=6).contains(&refused.header("retry-after").unwrap().parse::<u32>().unwrap()));
    assert_eq!(ask(&edge, "/", "alice:secret").status, 200, "whoever is known is not held back");
}

#[test]
fn a_reload_reads_the_file_again_or_says_what_is_wrong_with_it() {
    let upstream = Upstream::echo();
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), &[line("htpasswd", &["-nbB", "alice", "secret"])]);
    let edge = Edge::start(&config(&upstream, &format!("auth = {{ file = \"{path}\" }}")));
    assert_eq!(ask(&edge, "/", "alice:secret").status, 200);
    file(folder.path(), &["# nobody".into(), "alice:secret".into()]);
    let mark = edge.log().mark();
    assert!(!edge.reload());
    let told =
        edge.log().wait_from(mark, "the reason", |line| line.contains("refused").then(|| line.to_owned()));
    assert!(told.contains("htpasswd has a wrong line:") && told.contains("line 2: "), "{told}");
    assert_eq!(ask(&edge, "/", "alice:secret").status, 200, "the old ones stay");
    file(folder.path(), &[line("htpasswd", &["-nbB", "alice", "other"])]);
    assert!(edge.reload());
    assert_eq!(ask(&edge, "/", "alice:secret").status, 401);
    assert_eq!(ask(&edge, "/", "alice:other").status, 200);
}
