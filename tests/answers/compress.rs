//! Compression: when, how, and what the answer then says of itself.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::channel;

use bytes::Bytes;
use http::Request;

use super::edge;
use crate::support::client::{NAME, Response, connect};
use crate::support::edge::Edge;
use crate::support::h2client::H2Client;
use crate::support::upstream::{Seen, Then, Upstream};

const PAGE: &str = "<p>The room between the street and Django.</p>\n";

/// A page of 5 KB.
fn page() -> String {
    PAGE.repeat(100)
}

/// Answers with what the target says: `/STATUS/field:value/field:value`, and a page.
fn scripted() -> Upstream {
    Upstream::start(|seen, stream| {
        let mut parts = seen.target.trim_matches('/').split('/');
        let status = parts.next().filter(|status| !status.is_empty()).unwrap_or("200");
        let mut fields = String::new();
        for field in parts.filter(|part| part.contains(':')) {
            fields += &field.replace("%2f", "/").replace("%20", " ").replace("%22", "\"").replace(':', ": ");
            fields += "\r\n";
        }
        if !fields.contains("Content-Type") {
            fields += "Content-Type: text/html; charset=utf-8\r\n";
        }
        let body = if fields.contains("X-Short") { "short".to_owned() } else { page() };
        let bare = matches!(status, "204" | "304");
        if !bare {
            write!(fields, "Content-Length: {}\r\n", body.len()).unwrap();
        }
        write!(stream, "HTTP/1.1 {status} X\r\n{fields}\r\n")?;
        if !bare && seen.method != "HEAD" {
            stream.write_all(body.as_bytes())?;
        }
        Ok(Then::Keep)
    })
}

fn get(edge: &Edge, target: &str, fields: &str) -> Response {
    ask(edge, "GET", target, fields)
}

fn ask(edge: &Edge, method: &str, target: &str, fields: &str) -> Response {
    connect(edge).ask(format!("{method} {target} HTTP/1.1\r\nHost: {NAME}\r\n{fields}\r\n")).unwrap()
}

fn decoded(answer: &Response) -> Vec<u8> {
    decode(answer.header("content-encoding").unwrap_or("identity"), &answer.body)
}

fn decode(coding: &str, octets: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    match coding {
        "br" => drop(brotli::Decompressor::new(octets, 4096).read_to_end(&mut plain)),
        "zstd" => drop(zstd::stream::read::Decoder::new(octets).unwrap().read_to_end(&mut plain)),
        "gzip" => drop(flate2::read::GzDecoder::new(octets).read_to_end(&mut plain)),
        "identity" => plain.extend_from_slice(octets),
        other => panic!("{other} is no coding"),
    }
    plain
}

#[test]
fn the_client_chooses_and_what_it_chose_is_said() {
    let upstream = scripted();
    let edge = edge(&upstream, "compress = true");
    for (accept, expected) in [
        (None, None),
        (Some(""), None),
        (Some("gzip"), Some("gzip")),
        (Some("gzip, deflate, br, zstd"), Some("zstd")),
        (Some("gzip, deflate, br"), Some("br")),
        (Some("zstd;q=0.5, br;q=0.6, gzip;q=0.7"), Some("gzip")),
        (Some("*"), Some("zstd")),
        (Some("*;q=0, br"), Some("br")),
        (Some("identity, gzip;q=0.5"), None),
        (Some("identity;q=0, gzip;q=0.1"), Some("gzip")),
        (Some("gzip;q=0"), None),
        (Some("deflate, compress"), None),
        (Some("x-gzip"), Some("gzip")),
    ] {
        let field = accept.map(|accept| format!("Accept-Encoding: {accept}\r\n")).unwrap_or_default();
        let answer = get(&edge, "/200/ETag:%22abc%22/Accept-Ranges:bytes/Vary:Cookie", &field);
        assert_eq!(answer.header("content-encoding"), expected, "{accept:?}");
        assert_eq!(answer.header("vary"), Some("Cookie, Accept-Encoding"), "{accept:?}");
        assert!(decoded(&answer) == page().as_bytes(), "{accept:?}");
        if expected.is_some() {
            assert_eq!(answer.header("etag"), Some("W/\"abc\""), "{accept:?}");
            assert_eq!(answer.header("accept-ranges").or(answer.header("content-length")), None);
            assert!(answer.body.len() < 1000, "{} octets of {accept:?}", answer.body.len());
        } else {
            assert_eq!(answer.header("etag"), Some("\"abc\""));
            assert_eq!(answer.header("content-length"), Some("4700"));
            assert_eq!(answer.header("accept-ranges"), Some("bytes"));
        }
    }
}

#[test]
fn what_stays_as_it_is() {
    let upstream = scripted();
    let edge = edge(&upstream, "compress = true");
    let all = "Accept-Encoding: gzip, br, zstd\r\n";
    for (target, varies) in [
        ("/200/Content-Encoding:gzip", false),
        ("/200/Content-Encoding:identity, br", false),
        ("/200/Cache-Control:public, no-transform", false),
        ("/200/Content-Type:text%2fevent-stream", false),
        ("/200/Content-Type:image%2fpng", false),
        ("/200/Content-Type:application%2foctet-stream", false),
        ("/206/Content-Range:bytes 0-4699%2f9000", false),
        ("/200/Content-Digest:sha-256=:x:", false),
        ("/200/Trailer:X-Sum", false),
        ("/200/X-Short:1", false),
    ] {
        let answer = get(&edge, &target.replace(' ', "%20"), all);
        let own = target.contains("Encoding").then_some(());
        assert!(own.is_some() || answer.header("content-encoding").is_none(), "{target}: {answer:?}");
        assert_eq!(answer.header("vary").is_some(), varies, "{target}: {answer:?}");
        assert!(answer.body == page().as_bytes() || answer.body == b"short", "{target}");
        assert!(answer.header("content-length").is_some(), "{target}");
    }
    for (target, coded) in [
        ("/404", true),
        ("/500", true),
        ("/200/Content-Encoding:identity", true),
        ("/200/Content-Type:application%2fproblem+json", true),
        ("/200/Content-Type:IMAGE%2fSVG+XML", true),
        ("/200/Vary:*", true),
        ("/204", false),
    ] {
        let answer = get(&edge, target, all);
        assert_eq!(answer.header("content-encoding"), coded.then_some("zstd"), "{target}: {answer:?}");
        assert_eq!(
            answer.headers.iter().filter(|(name, _)| name == "content-encoding").count(),
            usize::from(coded)
        );
    }
}

#[test]
fn head_and_304_say_what_get_and_200_would() {
    let upstream = scripted();
    let edge = edge(&upstream, "compress = true");
    let all = "Accept-Encoding: gzip, br, zstd\r\n";
    let head = ask(&edge, "HEAD", "/200/ETag:%22abc%22", all);
    assert_eq!(head.header("content-encoding"), Some("zstd"));
    assert_eq!((head.header("etag"), head.header("vary")), (Some("W/\"abc\""), Some("Accept-Encoding")));
    assert_eq!(head.header("content-length").or(head.header("transfer-encoding")), None);
    let plain = ask(&edge, "HEAD", "/200/ETag:%22abc%22", "");
    assert_eq!(
        (plain.header("content-length"), plain.header("vary")),
        (Some("4700"), Some("Accept-Encoding"))
    );
    for (known, tag) in
        [("\"abc\"", "\"abc\""), ("W/\"abc\"", "W/\"abc\""), ("\"x\", W/\"abc\"", "W/\"abc\"")]
    {
        let answer = get(&edge, "/304/ETag:%22abc%22", &format!("{all}If-None-Match: {known}\r\n"));
        assert_eq!((answer.status, answer.header("etag")), (304, Some(tag)), "{known}");
        assert_eq!(answer.header("vary"), Some("Accept-Encoding"), "{known}");
    }
}

#[test]
fn sites_and_routes_say_what_is_compressed() {
    let upstream = scripted();
    let files = tempfile::tempdir().unwrap();
    fs::write(files.path().join("a.css"), page()).unwrap();
    fs::write(files.path().join("b.css"), page()).unwrap();
    fs::write(files.path().join("b.css.gz"), "compressed before").unwrap();
    fs::write(files.path().join("a.png"), page()).unwrap();
    let more = format!(
        "[site.compress]\ntypes = [\"text/*\"]\nmin_size = \"4KiB\"\n\
         [[site.route]]\npath = \"/200/off/\"\ncompress = false\n\
         [[site.route]]\npath = \"/200/json/\"\ncompress = {{ types = [\"application/json\"] }}\n\
         [[site.route]]\npath = \"/files/\"\ncache = \"immutable\"\nfiles = \"{}\"\n",
        files.path().display()
    );
    let edge = edge(&upstream, &more);
    let all = "Accept-Encoding: gzip, br, zstd\r\n";
    for (target, coding) in [
        ("/200/", Some("zstd")),
        ("/200/Content-Type:application%2fjson", None),
        ("/200/off/", None),
        ("/200/json/Content-Type:application%2fjson", Some("zstd")),
        ("/200/json/", None),
        ("/files/a.css", Some("zstd")),
        ("/files/a.png", None),
    ] {
        let answer = get(&edge, target, all);
        assert_eq!(answer.header("content-encoding"), coding, "{target}");
        assert!(decoded(&answer) == page().as_bytes(), "{target}");
    }
    let sibling = get(&edge, "/files/b.css", all);
    assert_eq!(
        (sibling.header("content-encoding"), sibling.text().as_str()),
        (Some("gzip"), "compressed before")
    );
    let part = get(&edge, "/files/a.css", &format!("{all}Range: bytes=0-6\r\n"));
    assert_eq!((part.status, part.header("content-encoding"), part.text().as_str()), (206, None, "<p>The "));
    let whole = get(&edge, "/files/a.css", all);
    let tag = whole.header("etag").unwrap();
    assert!(tag.starts_with("W/\""), "{whole:?}");
    let same = get(&edge, "/files/a.css", &format!("{all}If-None-Match: {tag}\r\n"));
    assert_eq!(
        (same.status, same.header("etag"), same.header("vary")),
        (304, Some(tag), Some("Accept-Encoding"))
    );
}

#[test]
fn nothing_is_compressed_unasked() {
    let upstream = scripted();
    let edge = edge(&upstream, "");
    let answer = get(&edge, "/200/ETag:%22abc%22", "Accept-Encoding: gzip\r\n");
    assert_eq!((answer.header("content-encoding"), answer.header("vary")), (None, None));
    assert_eq!(answer.header("etag"), Some("\"abc\""));
}

#[test]
fn what_another_site_fetches_with_cookies_stays_plain() {
    let upstream = scripted();
    let edge = edge(&upstream, "compress = true");
    for (fields, coding) in [
        ("Sec-Fetch-Site: cross-site\r\nCookie: sessionid=x\r\n", None),
        ("Sec-Fetch-Site: cross-site\r\n", Some("gzip")),
        ("Sec-Fetch-Site: cross-site\r\nCookie: a=b\r\nSec-Fetch-User: ?1\r\n", Some("gzip")),
        ("Sec-Fetch-Site: same-origin\r\nCookie: a=b\r\n", Some("gzip")),
        ("Cookie: a=b\r\n", Some("gzip")),
    ] {
        let answer = get(&edge, "/", &format!("Accept-Encoding: gzip\r\n{fields}"));
        assert_eq!(
            (answer.header("content-encoding"), answer.header("vary")),
            (coding, Some("Accept-Encoding")),
            "{fields}"
        );
    }
}

/// An upstream that sends each further piece once the test has read the one before.
fn paced(head: &'static str) -> (Upstream, std::sync::mpsc::Sender<&'static str>) {
    let (sender, receiver) = channel::<&'static str>();
    let receiver = Mutex::new(receiver);
    let upstream = Upstream::start(move |_: &Seen, stream| {
        stream.write_all(head.as_bytes())?;
        while let Ok(piece) = receiver.lock().unwrap().recv() {
            write!(stream, "{:x}\r\n{piece}\r\n", piece.len())?;
            if piece.is_empty() {
                break;
            }
        }
        Ok(Then::Close)
    });
    (upstream, sender)
}

const CHUNKED: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n";

#[test]
fn what_the_upstream_has_sent_can_be_read_before_it_sends_more() {
    for (coding, buffered) in [("gzip", true), ("br", true), ("zstd", false), ("br", false)] {
        let (upstream, pieces) = paced(CHUNKED);
        let edge = edge(&upstream, &format!("compress = true\n[site.proxy]\nbuffer_response = {buffered}"));
        let mut client = connect(&edge);
        client.send(format!("GET / HTTP/1.1\r\nHost: {NAME}\r\nAccept-Encoding: {coding}\r\n\r\n")).unwrap();
        let head = String::from_utf8(client.until(b"\r\n\r\n").unwrap()).unwrap();
        assert!(head.contains(&format!("content-encoding: {coding}\r\n")), "{head}");
        let (mut read, mut sent) = (Vec::new(), String::new());
        for piece in ["the first, ", "the second, ", "and the third"] {
            sent.push_str(piece);
            pieces.send(piece).unwrap();
            while decode(coding, &read) != sent.as_bytes() {
                // The line end behind a chunk comes with what comes next.
                let size = client.until(b"\r\n").unwrap();
                let size = std::str::from_utf8(&size).unwrap().trim().to_owned();
                if !size.is_empty() {
                    read.extend(client.exactly(usize::from_str_radix(&size, 16).unwrap()).unwrap());
                }
            }
        }
        pieces.send("").unwrap();
        let rest = client.until(b"0\r\n\r\n").unwrap();
        assert!(rest.len() > 5, "{coding} has an end of its own");
    }
}

#[test]
fn http2_too() {
    let (upstream, pieces) = paced(CHUNKED);
    let edge = edge(&upstream, "compress = true");
    let mut client = H2Client::connect(edge.https(), &edge.ca(), NAME).unwrap();
    let request = || {
        let builder = Request::get(format!("https://{NAME}/")).header("accept-encoding", "zstd, br");
        builder.body(()).unwrap()
    };
    let (head, mut stream) = client.begin(request()).unwrap();
    assert_eq!(head.headers()["content-encoding"], "zstd");
    let (mut read, mut sent) = (Vec::new(), String::new());
    for piece in ["the first, ", "the second"] {
        sent.push_str(piece);
        pieces.send(piece).unwrap();
        while decode("zstd", &read) != sent.as_bytes() {
            let data =
                client.wait(async { stream.data().await.unwrap().map_err(std::io::Error::other) }).unwrap();
            stream.flow_control().release_capacity(data.len()).unwrap();
            read.extend_from_slice(&data);
        }
    }
    drop((stream, client, edge, pieces));
    let upstream = scripted();
    let edge = super::edge(&upstream, "compress = true");
    let mut client = H2Client::connect(edge.https(), &edge.ca(), NAME).unwrap();
    let answer = client.ask(request(), Bytes::new()).unwrap();
    assert_eq!((answer.header("content-encoding"), answer.header("content-length")), (Some("zstd"), None));
    assert!(decoded(&answer) == page().as_bytes());
    let mut head = request();
    *head.method_mut() = http::Method::HEAD;
    let answer = client.ask(head, Bytes::new()).unwrap();
    assert_eq!((answer.header("content-encoding"), answer.body.len()), (Some("zstd"), 0));
}

#[test]
fn an_upstream_that_breaks_off_leaves_no_whole_body() {
    let upstream = Upstream::start(|_, stream| {
        stream.write_all(CHUNKED.as_bytes())?;
        write!(stream, "5\r\nhello\r\n")?;
        Ok(Then::Close)
    });
    let edge = edge(&upstream, "compress = true");
    let mut client = connect(&edge);
    client.send(format!("GET / HTTP/1.1\r\nHost: {NAME}\r\nAccept-Encoding: gzip\r\n\r\n")).unwrap();
    let all = client.rest().unwrap();
    assert!(!all.ends_with(b"0\r\n\r\n"), "the body ends as if it were whole");
}

#[test]
fn curl_reads_it() {
    let lines =
        (0..200_000_u32).map(|n| [n.to_string(), n.wrapping_mul(2_654_435_761).to_string()].join(" "));
    let text = lines.collect::<Vec<_>>().join("\n");
    let body = text.clone();
    let upstream = Upstream::start(move |_, stream| {
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Type: text/csv\r\nContent-Length: {}\r\n\r\n",
            body.len()
        )?;
        stream.write_all(body.as_bytes())?;
        Ok(Then::Keep)
    });
    let edge = edge(&upstream, "compress = true");
    for coding in ["gzip", "br", "zstd"] {
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--fail", "--compressed", "--http1.1", "--cacert"])
            .arg(edge.ca())
            .args(["--resolve", &format!("{NAME}:{}:127.0.0.1", edge.https().port())])
            .args(["--header", &format!("Accept-Encoding: {coding}")])
            .arg(format!("https://{NAME}:{}/", edge.https().port()))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(output.status.success(), "{coding}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(output.stdout == text.as_bytes(), "{coding}: {} octets", output.stdout.len());
    }
}
