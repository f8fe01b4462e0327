//! Every way out of a directory that people have tried.

use bytes::Bytes;
use http::{Request, Uri};

use super::{SECRET, stack};
use crate::support::client::{self, NAME, Response};
use crate::support::h2client::H2Client;

/// What is asked for, and what it is told. The device is there for root alone, and told the same where it is not.
const ATTEMPTS: &[(&str, u16)] = &[
    // Dot segments, in every spelling.
    ("/static/../secret.txt", 400),
    ("/static/..%2fsecret.txt", 400),
    ("/static/..%2Fsecret.txt", 400),
    ("/static/%2e%2e/secret.txt", 400),
    ("/static/%2E%2E/secret.txt", 400),
    ("/static/%2e%2e%2fsecret.txt", 400),
    ("/static/.%2e/secret.txt", 400),
    ("/static/%2e./secret.txt", 400),
    ("/static/dir/../../secret.txt", 400),
    ("/static/dir/%2e%2e/%2e%2e/secret.txt", 400),
    ("/static/dir/..", 400),
    ("/static/..", 400),
    ("/static/.", 400),
    ("/static/./app.css", 400),
    ("/static/%2e/app.css", 400),
    ("/static//../secret.txt", 400),
    ("/static/..//secret.txt", 400),
    ("/static/app.css/../app.css", 400),
    ("/static%2f..%2fsecret.txt", 400),
    ("//static/../secret.txt", 400),
    ("/static;/../secret.txt", 400),
    ("/nowhere/../static/app.css", 400),
    ("/private/../static/app.css", 400),
    // What another decoder might make dots or slashes of.
    ("/static/..;/secret.txt", 404),
    ("/static/..;a=b/secret.txt", 404),
    ("/static/%252e%252e/secret.txt", 404),
    ("/static/%25252e%25252e/secret.txt", 404),
    ("/static/..%252fsecret.txt", 404),
    ("/static/..%c0%afsecret.txt", 404),
    ("/static/%c0%ae%c0%ae/secret.txt", 404),
    ("/static/%e0%80%ae%e0%80%ae/secret.txt", 404),
    ("/static/%ef%bc%8e%ef%bc%8e/secret.txt", 404),
    ("/static/%u002e%u002e/secret.txt", 400),
    ("/static/..%5csecret.txt", 404),
    ("/static/%5c..%5csecret.txt", 404),
    ("/static/..\\secret.txt", 404),
    ("/static/dir\\..\\..\\secret.txt", 404),
    ("/static/%2e%2e%5csecret.txt", 404),
    ("/static/..../secret.txt", 404),
    ("/static/.../secret.txt", 404),
    // The end of a string in C, and of a line.
    ("/static/app.css%00", 400),
    ("/static/app.css%00.png", 400),
    ("/static/%00/secret.txt", 400),
    ("/static/..%00/secret.txt", 400),
    ("/static/app.css%0a", 400),
    ("/static/app.css%0d%0aX-Evil:%20yes", 400),
    ("/static/app.css%7f", 400),
    ("/static/app.css%", 400),
    ("/static/app.css%2", 400),
    ("/static/app.css%zz", 400),
    // The prefix itself.
    ("/static", 404),
    ("/static../secret.txt", 404),
    ("/static..%2fsecret.txt", 404),
    ("/staticsecret.txt", 404),
    ("/STATIC/app.css", 404),
    ("/static/APP.CSS", 404),
    ("/static/", 404),
    ("/static//", 404),
    ("/static/%2f", 404),
    // Absolute names.
    ("/static//etc/passwd", 404),
    ("/static/%2fetc%2fpasswd", 404),
    ("/static/%2f%2fetc/passwd", 404),
    ("/static/file:///etc/passwd", 404),
    ("/static/C:/Windows/win.ini", 404),
    ("/static/~root/.bashrc", 404),
    // Directories, and files as directories.
    ("/static/dir", 404),
    ("/static/dir/", 404),
    ("/static/dir//", 404),
    ("/static/app.css/", 404),
    ("/static/app.css/x", 404),
    ("/static/app.css%2f", 404),
    ("/static/app.css.", 404),
    ("/static/app.css%20", 404),
    ("/static/app.css::$DATA", 404),
    // Links that lead out, or nowhere.
    ("/static/link-out", 404),
    ("/static/link-deep-out", 404),
    ("/static/link-twice", 404),
    ("/static/link-up/secret.txt", 404),
    ("/static/link-up/static/app.css", 404),
    ("/static/link-root/etc/passwd", 404),
    ("/static/dir-out/secret.txt", 404),
    ("/static/dir-out", 404),
    ("/static/dir-in/", 404),
    ("/static/link-absolute", 404),
    ("/static/link-nowhere", 404),
    ("/static/link-loop", 404),
    ("/static/link-environ", 404),
    ("/static/link-fd/0", 404),
    ("/static/link-passwd", 404),
    ("/static/link-null", 404),
    // What is no file.
    ("/static/fifo", 404),
    ("/static/socket", 404),
    ("/static/zero", 404),
    // Routes that only an upstream can lead to.
    ("/private/report.txt", 404),
    ("/%70rivate/report.txt", 404),
    ("//private/report.txt", 404),
    ("/private%2freport.txt", 404),
    ("/closed/report.txt", 403),
];

#[test]
fn no_attempt_leads_out() {
    let stack = stack();
    assert!(ATTEMPTS.len() >= 60);
    let mut h2 = H2Client::connect(stack.edge.https(), &stack.edge.ca(), NAME).unwrap();
    let mut over_h2 = 0;
    for (path, expected) in ATTEMPTS {
        refused(path, *expected, &stack.ask_h1("GET", path, &[]));
        let Ok(uri) = format!("https://{NAME}{path}").parse::<Uri>() else { continue };
        refused(path, *expected, &h2.ask(Request::get(uri).body(()).unwrap(), Bytes::new()).unwrap());
        over_h2 += 1;
    }
    assert!(over_h2 >= 60, "{over_h2} over HTTP/2");
}

#[track_caller]
fn refused(path: &str, expected: u16, answer: &Response) {
    assert_eq!(answer.status, expected, "{path}: {answer:?}");
    let text = answer.text();
    assert!(
        !text.contains(SECRET) && !text.contains("root:") && !text.contains("color: black"),
        "{path}: {text}"
    );
}

#[test]
fn an_absolute_target_is_a_path_like_any_other() {
    let stack = stack();
    for (target, expected) in [
        ("https://app.localhost/static/digits.txt", 200),
        ("https://app.localhost/static/../secret.txt", 400),
        ("https://app.localhost/private/report.txt", 404),
    ] {
        assert_eq!(stack.ask_h1("GET", target, &[]).status, expected, "{target}");
    }
}

#[test]
fn long_names_are_no_files() {
    let stack = stack();
    for (name, expected) in [
        ("a".repeat(255), 404),
        ("a".repeat(256), 404),
        ("a".repeat(4000), 404),
        ("a/".repeat(2040) + "a", 404),
        ("dir/deeper/".to_owned() + &"a/".repeat(3000), 404),
        ("%61".repeat(2500), 404),
        ("a".repeat(9000), 414),
    ] {
        let answer = client::connect(&stack.edge).get(&format!("/static/{name}")).unwrap();
        assert_eq!(answer.status, expected, "{} octets", name.len());
    }
}

#[test]
fn what_lies_beneath_is_served_by_its_name() {
    let stack = stack();
    for (path, expected) in [
        ("/static/dir/a%20b.html", "<p>"),
        ("/static/dir%2fdeeper%2Fdeep.txt", "deep"),
        ("//static///dir/deeper/deep.txt", "deep"),
        ("/static/dir-in/deeper/deep.txt", "deep"),
        ("/static/b%C3%BCcher.txt", "b\u{fc}cher"),
        ("/static/100%25.txt", "per cent"),
        ("/static/back%5cslash.txt", "backslash"),
        ("/static/...", "three dots"),
        ("/static/digits.txt?../../secret.txt", "0123456789"),
        ("/robots.txt", "User-agent: *\n"),
    ] {
        let answer = stack.get(path);
        assert_eq!((answer.status, answer.text().as_str()), (200, expected), "{path}");
    }
    let whole = stack.get("/static/app.css").body;
    for link in ["link-in", "link-around"] {
        assert_eq!(stack.get(&format!("/static/{link}")).body, whole, "{link}");
    }
}

#[test]
fn a_directory_may_be_put_in_the_place_of_another() {
    let stack = stack();
    let at = stack.folder.path();
    let edge_with = |folder: &str| {
        let route = format!("[[site.route]]\npath = \"/\"\nfiles = \"{}/{folder}\"\n", at.display());
        let site = format!("[[site]]\ndomains = [\"{NAME}\"]\ncertificate = \"internal\"\n");
        crate::support::edge::Edge::start(&[crate::support::edge::ROWS, &site, &route].concat())
    };
    for release in ["one", "two"] {
        std::fs::create_dir_all(at.join("releases").join(release)).unwrap();
        super::write(&at.join("releases").join(release).join("a.txt"), release);
    }
    std::os::unix::fs::symlink("releases/one", at.join("current")).unwrap();
    let edge = edge_with("current");
    assert_eq!(client::connect(&edge).get("/a.txt").unwrap().text(), "one");
    std::os::unix::fs::symlink("releases/two", at.join("next")).unwrap();
    std::fs::rename(at.join("next"), at.join("current")).unwrap();
    assert_eq!(client::connect(&edge).get("/a.txt").unwrap().text(), "two");
}
