//! What an answer with a file says: kinds, caching, codings, conditions, parts; and how large ones are sent.

use std::fs::{self, File};
use std::os::fd::AsFd;

use http::Request;

use super::{MODIFIED, Stack, stack};
use crate::support::client::{self, NAME, Response};
use crate::support::edge::{self, Edge, ROWS};
use crate::support::h2client::H2Client;

const MIB: u64 = 1 << 20;

#[test]
fn a_file_says_what_it_is() {
    let stack = stack();
    let always =
        [("x-content-type-options", "nosniff"), ("accept-ranges", "bytes"), ("last-modified", MODIFIED)];
    for (path, content_type, caching, vary, sandboxed) in [
        ("/static/app.css", "text/css; charset=utf-8", Some("no-cache"), true, false),
        (
            "/static/app.0123456789ab.js",
            "text/javascript; charset=utf-8",
            Some("public, max-age=31536000, immutable"),
            true,
            false,
        ),
        ("/static/picture.png", "image/png", Some("no-cache"), false, false),
        ("/static/no-extension", "application/octet-stream", Some("no-cache"), false, false),
        ("/plain/app.0123456789ab.js", "text/javascript; charset=utf-8", None, true, false),
        ("/media/evil.svg", "image/svg+xml", Some("max-age=3600"), false, true),
        ("/media/paper.pdf", "application/pdf", Some("max-age=3600"), false, false),
    ] {
        let answer = stack.get(path);
        assert_eq!(answer.status, 200, "{path}");
        for (name, value) in always.into_iter().chain([("content-type", content_type)]) {
            assert_eq!(answer.header(name), Some(value), "{path}: {name}");
        }
        assert_eq!(answer.header("cache-control"), caching, "{path}");
        assert_eq!(answer.header("vary"), vary.then_some("Accept-Encoding"), "{path}");
        let policy = answer.header("content-security-policy");
        assert_eq!(
            policy.is_some_and(|policy| policy.starts_with("sandbox; default-src 'none'")),
            sandboxed,
            "{path}"
        );
        let length = answer.body.len().to_string();
        assert_eq!(answer.header("content-length"), Some(length.as_str()), "{path}");
        assert!(answer.header("etag").is_some_and(|tag| tag.starts_with('"')), "{path}");
        assert!(answer.header("date").is_some() && answer.header("x-request-id").is_some(), "{path}");
    }
}

#[test]
fn head_says_what_get_would() {
    let stack = stack();
    for path in ["/static/app.css", "/static/empty.txt", "/static/nowhere", "/media/evil.svg"] {
        let (head, get) = (stack.ask("HEAD", path, &[]), stack.get(path));
        assert!(head.body.is_empty(), "{path}");
        assert_eq!(head.status, get.status, "{path}");
        assert_eq!(super::comparable(&head).0, super::comparable(&get).0, "{path}");
    }
    let part = stack.ask("HEAD", "/static/digits.txt", &[("range", "bytes=0-1")]);
    assert_eq!((part.status, part.header("content-length")), (200, Some("10")), "Range is about GET alone");
}

#[test]
fn files_are_only_read() {
    let stack = stack();
    for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"] {
        let answer = stack.ask(method, "/static/app.css", &[]);
        assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD")), "{method}");
    }
    assert_eq!(stack.get("/static/app.css").status, 200);
}

#[test]
fn a_name_that_is_redirected_needs_no_route() {
    let (stack, name) = (stack(), format!("www.{NAME}"));
    for path in ["/static/only.js", "/nowhere?a=b"] {
        let stream = client::tls(stack.edge.https(), &stack.edge.ca(), &name, &[b"http/1.1"]).unwrap();
        let mut client = client::Wire::new(stream);
        client.send(format!("GET {path} HTTP/1.1\r\nHost: {name}\r\n\r\n")).unwrap();
        let answer = client.response().unwrap();
        let to = format!("https://{NAME}{path}");
        assert_eq!((answer.status, answer.header("location")), (308, Some(&*to)));
    }
}

#[test]
fn one_connection_serves_many() {
    let stack = stack();
    let mut wire = client::connect(&stack.edge);
    for _ in 0..3 {
        assert_eq!(wire.get("/static/app.css").unwrap().status, 200);
        assert_eq!(wire.get("/static/empty.txt").unwrap().body.len(), 0);
        assert_eq!(wire.get("/static/nowhere").unwrap().status, 404);
        let head = format!("HEAD /static/app.css HTTP/1.1\r\nHost: {NAME}\r\n\r\n");
        assert_eq!(wire.ask(head).unwrap().status, 200);
        let known = format!("GET /static/app.css HTTP/1.1\r\nHost: {NAME}\r\nIf-None-Match: *\r\n\r\n");
        assert_eq!(wire.ask(known).unwrap().status, 304);
        let ranges = format!("GET /static/digits.txt HTTP/1.1\r\nHost: {NAME}\r\nRange: bytes=90-\r\n\r\n");
        assert_eq!(wire.ask(ranges).unwrap().status, 416);
    }
}

#[test]
fn a_compressed_sibling_is_chosen_by_weight() {
    let stack = stack();
    let mut tags = Vec::new();
    for (path, accept, coding, body) in [
        ("/static/app.css", "gzip, deflate, br, zstd", Some("br"), "brotli"),
        ("/static/app.css", "gzip, zstd", Some("zstd"), "zstandard"),
        ("/static/app.css", "gzip", Some("gzip"), "gzip"),
        ("/static/app.css", "gzip;q=1, br;q=0.5", Some("gzip"), "gzip"),
        ("/static/app.css", "*", Some("br"), "brotli"),
        ("/static/app.css", "deflate", None, "body {"),
        ("/static/app.css", "identity, gzip;q=0.5", None, "body {"),
        ("/static/app.css", "br;q=0", None, "body {"),
        ("/static/only.js", "br, gzip", Some("gzip"), "gzipped"),
        ("/static/only.js", "br", None, "let a;"),
        ("/static/fresh.txt", "gzip", None, "fresh"),
        ("/static/picture.png", "gzip", None, "png"),
        ("/plain/only.js", "gzip", Some("gzip"), "gzipped"),
        ("/media/evil.svg", "gzip", None, "<svg"),
    ] {
        let answer = stack.ask("GET", path, &[("accept-encoding", accept)]);
        assert_eq!(answer.header("content-encoding"), coding, "{path} {accept}");
        assert!(answer.text().starts_with(body), "{path} {accept}: {}", answer.text());
        if path == "/static/app.css" {
            assert_eq!(answer.header("content-type"), Some("text/css; charset=utf-8"));
            assert_eq!(answer.header("vary"), Some("Accept-Encoding"));
            tags.push((coding, answer.header("etag").unwrap().to_owned()));
        }
    }
    tags.sort();
    tags.dedup();
    assert_eq!(tags.len(), 4, "one tag for each coding, and one without: {tags:?}");

    let tag = tags.iter().find(|(coding, _)| *coding == Some("br")).unwrap().1.clone();
    let again = [("accept-encoding", "br"), ("if-none-match", tag.as_str())];
    assert_eq!(stack.ask("GET", "/static/app.css", &again).status, 304);
    assert_eq!(stack.ask("GET", "/static/app.css", &again[1..]).status, 200);
    // A range is of what was chosen.
    let part = stack.ask("GET", "/static/app.css", &[("accept-encoding", "br"), ("range", "bytes=1-3")]);
    assert_eq!((part.status, part.text().as_str()), (206, "rot"));
    assert_eq!(part.header("content-range"), Some("bytes 1-3/6"));
    assert_eq!(part.header("content-encoding"), Some("br"));
}

#[test]
fn conditions_hold() {
    let stack = stack();
    let path = "/static/digits.txt";
    let tag = stack.get(path).header("etag").unwrap().to_owned();
    let (tag, weak) = (tag.as_str(), format!("W/{tag}"));
    let weak = weak.as_str();
    let (before, after) = ("Sun, 06 Nov 1994 08:49:36 GMT", "Sun, 06 Nov 1994 08:49:38 GMT");
    for (fields, expected) in [
        (&[("if-none-match", tag)][..], 304),
        (&[("if-none-match", weak)], 304),
        (&[("if-none-match", "*")], 304),
        (&[("if-none-match", "\"x\"")], 200),
        (&[("if-none-match", "\"x\""), ("if-modified-since", MODIFIED)], 200),
        (&[("if-modified-since", MODIFIED)], 304),
        (&[("if-modified-since", after)], 304),
        (&[("if-modified-since", before)], 200),
        (&[("if-modified-since", "never")], 200),
        (&[("if-match", tag)], 200),
        (&[("if-match", "*")], 200),
        (&[("if-match", weak)], 412),
        (&[("if-match", "\"x\"")], 412),
        (&[("if-unmodified-since", MODIFIED)], 200),
        (&[("if-unmodified-since", before)], 412),
        (&[("if-match", tag), ("if-none-match", tag)], 304),
        (&[("if-match", "\"x\""), ("if-none-match", tag)], 412),
        (&[("range", "bytes=0-1"), ("if-none-match", tag)], 304),
        (&[("range", "bytes=0-1"), ("if-range", tag)], 206),
        (&[("range", "bytes=0-1"), ("if-range", weak)], 200),
        (&[("range", "bytes=0-1"), ("if-range", "\"x\"")], 200),
        (&[("range", "bytes=0-1"), ("if-range", MODIFIED)], 206),
        (&[("range", "bytes=0-1"), ("if-range", after)], 200),
        (&[("range", "bytes=90-"), ("if-range", "\"x\"")], 200),
    ] {
        let answer = stack.ask("GET", path, fields);
        assert_eq!(answer.status, expected, "{fields:?}");
        if expected == 304 {
            assert_eq!(answer.header("etag"), Some(tag), "{fields:?}");
            assert_eq!(answer.header("cache-control"), Some("no-cache"), "{fields:?}");
            assert!(answer.header("content-type").is_none() && answer.body.is_empty(), "{fields:?}");
        }
    }
}

#[test]
fn parts_are_cut_out() {
    let stack = stack();
    for (range, status, content_range, body) in [
        ("bytes=0-3", 206, Some("bytes 0-3/10"), "0123"),
        ("bytes=9-", 206, Some("bytes 9-9/10"), "9"),
        ("bytes=-3", 206, Some("bytes 7-9/10"), "789"),
        ("bytes=-30", 206, Some("bytes 0-9/10"), "0123456789"),
        ("bytes=5-500", 206, Some("bytes 5-9/10"), "56789"),
        ("bytes=0-1,3-4", 206, Some("bytes 0-4/10"), "01234"),
        ("bytes=10-", 416, Some("bytes */10"), ""),
        ("bytes=-0", 416, Some("bytes */10"), ""),
        ("bytes=4-3", 200, None, "0123456789"),
        ("lines=0-3", 200, None, "0123456789"),
        ("bytes=x", 200, None, "0123456789"),
    ] {
        let answer = stack.ask("GET", "/static/digits.txt", &[("range", range)]);
        assert_eq!((answer.status, answer.text().as_str()), (status, body), "{range}");
        assert_eq!(answer.header("content-range"), content_range, "{range}");
    }
    let empty = stack.ask("GET", "/static/empty.txt", &[("range", "bytes=0-")]);
    assert_eq!((empty.status, empty.header("content-range")), (416, Some("bytes */0")));
}

#[test]
fn several_parts_are_a_multipart_body() {
    let stack = stack();
    let whole = stack.get("/static/app.css").text();
    let answer = stack.ask("GET", "/static/app.css", &[("range", "bytes=1000-1009,0-4,-3")]);
    assert_eq!(answer.status, 206);
    let boundary =
        answer.header("content-type").unwrap().strip_prefix("multipart/byteranges; boundary=").unwrap();
    let size = whole.len();
    let part = |from: usize, to: usize| {
        format!(
            "\r\n--{boundary}\r\nContent-Type: text/css; charset=utf-8\r\nContent-Range: bytes {from}-{}/{size}\r\n\r\n{}",
            to - 1,
            &whole[from..to]
        )
    };
    // The last three are near enough to the first ten that one part is less than two.
    let near = size - 1010 < 128;
    let expected = if near {
        [part(0, 5), part(1000, size)].concat()
    } else {
        [part(1000, 1010), part(0, 5), part(size - 3, size)].concat()
    };
    assert_eq!(answer.text(), format!("{expected}\r\n--{boundary}--\r\n"));
    let flood: Vec<String> = (0..100).map(|n| format!("{0}-{0}", n * 10)).collect();
    let flood = format!("bytes={}", flood.join(","));
    assert_eq!(stack.ask("GET", "/static/app.css", &[("range", &flood)]).status, 200);
}

/// Holes in it take no room on the disk.
#[test]
fn a_large_file_takes_no_memory() {
    let stack = Stack::start();
    let path = stack.folder.path().join("static/large.bin");
    File::create(&path).unwrap().set_len(256 * MIB).unwrap();
    assert_eq!(client::connect(&stack.edge).get("/static/app.css").unwrap().status, 200);
    let before = stack.edge.peak_memory();

    let mut wire = client::connect(&stack.edge);
    wire.send(format!("GET /static/large.bin HTTP/1.1\r\nHost: {NAME}\r\n\r\n")).unwrap();
    let head = wire.until(b"\r\n\r\n").unwrap();
    assert!(head.windows(25).any(|text| text == b"content-length: 268435456"), "{}", head.escape_ascii());
    for _ in 0..256 {
        assert!(wire.exactly(1 << 20).unwrap().iter().all(|octet| *octet == 0));
    }

    let mut h2 = H2Client::connect(stack.edge.https(), &stack.edge.ca(), NAME).unwrap();
    let uri = format!("https://{NAME}/static/large.bin");
    let (head, mut body) = h2.begin(Request::get(uri).body(()).unwrap()).unwrap();
    assert_eq!(head.headers()["content-length"], "268435456");
    let mut received = 0;
    while let Some(data) = h2.wait(async { Ok(body.data().await) }).unwrap() {
        let data = data.unwrap();
        received += data.len() as u64;
        body.flow_control().release_capacity(data.len()).unwrap();
    }
    assert_eq!(received, 256 * MIB);

    let grown = stack.edge.peak_memory() - before;
    assert!(grown < 16 * MIB, "{grown} octets more");
    fs::remove_file(path).unwrap();
}

/// Nothing of it is in the kernel's memory, so that every piece waits for the disk.
#[test]
fn a_file_that_must_be_read_from_disk_arrives_whole() {
    let stack = stack();
    let content: Vec<u8> = (0..2_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let path = stack.folder.path().join("static/cold.bin");
    fs::write(&path, &content).unwrap();
    let file = File::open(&path).unwrap();
    for _ in 0..2 {
        file.sync_all().unwrap();
        let advice = nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED;
        nix::fcntl::posix_fadvise(file.as_fd(), 0, 0, advice).unwrap();
        let answer = client::connect(&stack.edge).get("/static/cold.bin").unwrap();
        assert!(answer.status == 200 && answer.body == content, "{} octets", answer.body.len());
    }
    fs::remove_file(path).unwrap();
}

#[test]
fn a_file_that_becomes_shorter_ends_the_connection() {
    let stack = stack();
    let path = stack.folder.path().join("static/shrinking.bin");
    let file = File::create(&path).unwrap();
    file.set_len(64 * MIB).unwrap();
    let mut wire = client::connect(&stack.edge);
    let mark = stack.edge.mark();
    wire.send(format!("GET /static/shrinking.bin HTTP/1.1\r\nHost: {NAME}\r\n\r\n")).unwrap();
    wire.until(b"\r\n\r\n").unwrap();
    wire.exactly(1 << 20).unwrap();
    file.set_len(MIB).unwrap();
    let rest = wire.rest().unwrap().len() as u64;
    assert!(rest < 63 * MIB, "{rest}");
    let line =
        stack.edge.access_line(mark, "the access line", |line| line["path"] == "/static/shrinking.bin");
    assert_eq!(line["refused"], "file_broken", "{line}");

    file.set_len(64 * MIB).unwrap();
    let mut h2 = H2Client::connect(stack.edge.https(), &stack.edge.ca(), NAME).unwrap();
    let uri = format!("https://{NAME}/static/shrinking.bin");
    let (_, mut body) = h2.begin(Request::get(uri).body(()).unwrap()).unwrap();
    file.set_len(MIB).unwrap();
    let error = loop {
        match h2.wait(async { Ok(body.data().await) }).unwrap() {
            Some(Ok(data)) => body.flow_control().release_capacity(data.len()).unwrap(),
            Some(Err(error)) => break error,
            None => panic!("a short body looks whole"),
        }
    };
    assert_eq!(error.reason(), Some(h2::Reason::INTERNAL_ERROR));
    fs::remove_file(path).unwrap();
}

#[test]
fn a_directory_that_is_not_there_is_told_at_load() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("edge.toml");
    fs::write(folder.path().join("a-file"), "").unwrap();
    let text = format!(
        "[store]\npath = \"{}/store\"\n{ROWS}\n[[site]]\ndomains = [\"{NAME}\"]\ncertificate = \"internal\"\n\
         [[site.route]]\npath = \"/a/\"\nfiles = \"nowhere\"\n[[site.route]]\npath = \"/b/\"\nfiles = \"a-file\"\n\
         [[site.route]]\npath = \"/c/\"\nfiles = \".\"\n",
        folder.path().display()
    );
    fs::write(&file, text).unwrap();
    let (code, _, told) = edge::run(&["check", "--config", file.to_str().unwrap()]);
    assert_eq!(code, Some(2), "{told}");
    for part in [
        "/nowhere cannot be used: No such file",
        "(site[0].route[0].files)",
        "/a-file cannot be used: Not a directory",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert!(!told.contains("route[2]"), "{told}");
}

#[test]
fn a_reload_serves_other_files_or_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["old", "new"] {
        fs::create_dir(folder.path().join(name)).unwrap();
        fs::write(folder.path().join(name).join("a.txt"), name).unwrap();
    }
    let config = |name: &str, cache: &str| {
        format!(
            "{ROWS}\n[[site]]\ndomains = [\"{NAME}\"]\ncertificate = \"internal\"\n[[site.route]]\npath = \"/\"\n\
             files = \"{}/{name}\"\ncache = {cache}\n",
            folder.path().display()
        )
    };
    let edge = Edge::start(&config("old", "false"));
    let mut wire = client::connect(&edge);
    for (name, cache, taken, served, caching) in [
        ("nowhere", "false", false, "old", None),
        ("new", "\"1m\"", true, "new", Some("max-age=60")),
        ("new", "\"2m\"", true, "new", Some("max-age=120")),
    ] {
        edge.write_config(&config(name, cache));
        assert_eq!(edge.reload(), taken, "{name} {cache}");
        let answer = wire.get("/a.txt").unwrap();
        assert_eq!(
            (answer.text().as_str(), answer.header("cache-control")),
            (served, caching),
            "{name} {cache}"
        );
    }
}

#[test]
fn a_file_that_the_edge_may_not_read_is_told_in_the_log() {
    let stack = stack();
    let answer: Response = stack.get("/static/link-out");
    assert_eq!(answer.status, 404);
    stack.edge.log().wait("the reason", |line| {
        (line.contains("link-out") && line.contains("leads out of the directory")).then_some(())
    });
}
