//! A real Django behind the edge, under gunicorn's sync and gthread workers and under uvicorn, asked over
//! HTTP/1.1 and HTTP/2.

use std::io;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use http::Request;
use tempfile::TempDir;

use crate::support::client::{self, Response, Tls, Wire};
use crate::support::django::Django;
use crate::support::edge::{Edge, ROWS};
use crate::support::h2client::H2Client;
use crate::support::shared::Shared;
use crate::support::websocket;

/// The edge and three Djangos, one a site.
struct Stack {
    edge: Edge,
    /// What the edge sends where Django says so.
    protected: TempDir,
    _servers: [Django; 3],
}

const SITES: [&str; 3] = ["sync.localhost", "gthread.localhost", "asgi.localhost"];
const ASGI: &str = "asgi.localhost";

static STACK: Shared<Stack> = Shared::new();

#[test]
fn the_page_shows_what_django_sees() {
    let stack = stack();
    for mut browser in stack.browsers() {
        let page = browser.get("/").unwrap();
        assert_eq!(page.status, 200, "{}: {page:?}", browser.name);
        let text = page.text();
        let host = browser.authority.clone();
        for (name, value) in [
            ("scheme", "https"),
            ("is_secure", "True"),
            ("host", host.as_str()),
            ("client address", "127.0.0.1"),
        ] {
            let row = format!("<tr><th>{name}</th><td>{value}</td></tr>");
            assert!(text.contains(&row), "{}: {row} is not in {text}", browser.name);
        }
        let policies: Vec<_> =
            page.headers.iter().filter(|(name, _)| name == "strict-transport-security").collect();
        let [(_, policy)] = policies.as_slice() else { panic!("{}: {:?}", browser.name, page.headers) };
        assert_eq!(policy, "max-age=86400", "{}", browser.name);
    }
}

#[test]
fn an_upload_arrives_whole_and_passes_the_csrf_check() {
    let stack = stack();
    let content: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[n as usize % 3]).collect();
    for mut browser in stack.browsers() {
        let cookie = browser.get("/").unwrap();
        let cookie =
            cookie.header("set-cookie").and_then(|cookie| cookie.split(';').next()).unwrap().to_owned();
        let token = cookie.split_once('=').unwrap().1.to_owned();
        let body = multipart(&content);
        let origin = format!("https://{}", browser.authority);
        let fields = [
            ("content-type", "multipart/form-data; boundary=cut"),
            ("cookie", cookie.as_str()),
            ("x-csrftoken", token.as_str()),
            ("origin", origin.as_str()),
        ];
        let answer = browser.ask("POST", "/upload", &fields, &body).unwrap();
        assert_eq!(answer.status, 200, "{}: {}", browser.name, answer.text());
        assert_eq!(answer.json()["size"], content.len(), "{}", browser.name);
        assert_eq!(answer.json()["sha256"], hex(&content), "{}", browser.name);

        let foreign = [fields[0], fields[1], fields[2], ("origin", "https://evil.example")];
        assert_eq!(browser.ask("POST", "/upload", &foreign, &body).unwrap().status, 403, "{}", browser.name);
    }
}

/// WSGI knows no chunks: a body whose length the client did not say must get one on the way.
#[test]
fn a_body_of_unknown_length_arrives_whole() {
    let stack = stack();
    let content = vec![b'x'; 300_000];
    for site in SITES {
        let authority = stack.authority(site);
        let mut over_h2 = H2Client::connect(stack.edge.https(), &stack.edge.ca(), site).unwrap();
        let request = Request::post(format!("https://{authority}/echo")).body(()).unwrap();
        let answer = over_h2.ask(request, Bytes::from(content.clone())).unwrap();
        assert_eq!(answer.json()["sha256"], hex(&content), "{site} over HTTP/2: {}", answer.text());
        let head = format!(
            "POST /echo HTTP/1.1\r\nHost: {authority}\r\nTransfer-Encoding: chunked\r\n\r\n493e0\r\n"
        );
        let whole = [head.as_bytes(), &content, b"\r\n0\r\n\r\n"].concat();
        let answer = client::connect_to(&stack.edge, site).ask(whole).unwrap();
        assert_eq!(answer.json()["sha256"], hex(&content), "{site} over HTTP/1.1: {}", answer.text());
    }
}

#[test]
fn a_download_arrives_whole() {
    let stack = stack();
    for mut browser in stack.browsers() {
        let page = browser.get("/").unwrap().text();
        let told = page.split_once("id=\"sha256\">").unwrap().1.split('<').next().unwrap().to_owned();
        let download = browser.get("/download").unwrap();
        assert_eq!(download.body.len(), 64 << 20, "{}", browser.name);
        assert_eq!(hex(&download.body), told, "{}", browser.name);
    }
}

#[test]
fn a_file_that_django_hands_over_is_the_edges_to_send() {
    let stack = stack();
    let name = "Bericht für März.pdf";
    let content: Vec<u8> = (0..500_000_u32).flat_map(u32::to_le_bytes).collect();
    std::fs::write(stack.protected.path().join(name), &content).unwrap();
    let path = "/files/Bericht%20f%C3%BCr%20M%C3%A4rz.pdf";
    for mut browser in stack.browsers() {
        let whole = browser.get(path).unwrap();
        assert_eq!((whole.status, whole.body.len()), (200, content.len()), "{}", browser.name);
        assert_eq!(hex(&whole.body), hex(&content), "{}", browser.name);
        for (name, value) in [
            ("content-type", "application/pdf"),
            ("content-disposition", "attachment; filename*=utf-8''Bericht%20f%C3%BCr%20M%C3%A4rz.pdf"),
            ("cache-control", "private"),
            ("accept-ranges", "bytes"),
            ("strict-transport-security", "max-age=86400"),
        ] {
            assert_eq!(whole.header(name), Some(value), "{}: {:?}", browser.name, whole.headers);
        }
        assert!(whole.header("set-cookie").unwrap().starts_with("downloaded=yes"), "{}", browser.name);
        assert_eq!(whole.header("x-accel-redirect"), None, "{}", browser.name);
        let tag = whole.header("etag").unwrap().to_owned();
        let range = [("range", "bytes=1000000-1000999"), ("if-range", tag.as_str())];
        let part = browser.ask("GET", path, &range, b"").unwrap();
        assert_eq!(
            (part.status, part.body.as_slice()),
            (206, &content[1_000_000..1_001_000]),
            "{}",
            browser.name
        );
        assert_eq!(part.header("content-range"), Some("bytes 1000000-1000999/2000000"), "{}", browser.name);
        let again = browser.ask("GET", path, &[("if-none-match", &tag)], b"").unwrap();
        assert_eq!(again.status, 304, "{}", browser.name);
        let head = browser.ask("HEAD", path, &[], b"").unwrap();
        assert_eq!((head.status, head.header("content-length")), (200, Some("2000000")), "{}", browser.name);
        assert_eq!(browser.get("/files/nothing.pdf").unwrap().status, 404, "{}", browser.name);
        assert_eq!(browser.get("/protected/").unwrap().status, 404, "{}", browser.name);
        assert_eq!(browser.get("/files/%2e%2e%2fsecret").unwrap().status, 400, "{}", browser.name);
    }
}

#[test]
fn django_hears_about_the_client_from_the_edge_alone() {
    let stack = stack();
    let forged = [
        ("x-forwarded-for", "6.6.6.6"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "evil.example"),
        ("x-forwarded-port", "666"),
        ("x-forwarded-ssl", "off"),
        ("x-forwarded-protocol", "http"),
        ("x-real-ip", "6.6.6.6"),
        ("forwarded", "for=6.6.6.6;proto=http"),
        ("x_forwarded_for", "6.6.6.6"),
        ("script_name", "/evil"),
        ("x-request-id", "evil"),
    ];
    for mut browser in stack.browsers() {
        let answer = browser.ask("POST", "/echo/a%20b?c=d%2Fe", &forged, b"hello").unwrap();
        assert_eq!(answer.status, 200, "{}: {}", browser.name, answer.text());
        let seen = answer.json();
        assert!(!seen.to_string().contains("6.6.6.6") && !seen.to_string().contains("evil"), "{seen}");
        assert_eq!(seen["is_secure"], true, "{seen}");
        assert_eq!(seen["host"], browser.authority, "{seen}");
        assert_eq!(seen["method"], "POST", "{seen}");
        assert_eq!(seen["path"], "/echo/a%20b?c=d%2Fe", "{seen}");
        assert_eq!(seen["sha256"], hex(b"hello"), "{seen}");
        assert_eq!(seen["protocol"], "HTTP/1.1", "{seen}");
        let port = stack.edge.https().port().to_string();
        for (name, value) in [
            ("x-forwarded-for", "127.0.0.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", browser.authority.as_str()),
            ("x-forwarded-port", port.as_str()),
            ("x-real-ip", "127.0.0.1"),
        ] {
            assert_eq!(seen["headers"][name], value, "{}: {seen}", browser.name);
        }
        assert_eq!(seen["headers"]["x-request-id"].as_str().unwrap().len(), 32, "{seen}");
    }
}

#[test]
fn answers_without_a_body_and_errors_pass() {
    let stack = stack();
    for mut browser in stack.browsers() {
        for status in [200, 204, 304, 404, 418, 500, 503] {
            let answer = browser.get(&format!("/status/{status}")).unwrap();
            assert_eq!(answer.status, status, "{}", browser.name);
        }
        let answer = browser.ask("HEAD", "/", &[], b"").unwrap();
        assert_eq!((answer.status, answer.body.len()), (200, 0), "{}", browser.name);
        assert_eq!(browser.get("/nothing/here").unwrap().status, 404, "{}", browser.name);
    }
}

/// The second event is an hour away: the first has passed everything on the way by itself.
#[test]
fn an_event_arrives_before_the_stream_ends() {
    let stack = stack();
    let path = "/events/?count=2&every=3600";
    let mut h1 = client::connect_to(&stack.edge, ASGI);
    h1.send(format!("GET {path} HTTP/1.1\r\nHost: {ASGI}\r\n\r\n")).unwrap();
    let head = String::from_utf8(h1.until(b"\r\n\r\n").unwrap()).unwrap();
    assert!(head.to_ascii_lowercase().contains("content-type: text/event-stream"), "{head}");
    h1.until(b"data: event 0\n\n").unwrap();
    h1.vanish();

    let mut h2 = H2Client::connect(stack.edge.https(), &stack.edge.ca(), ASGI).unwrap();
    let request = Request::get(format!("https://{ASGI}{path}")).body(()).unwrap();
    let (head, mut body) = h2.begin(request).unwrap();
    assert_eq!(head.headers()["content-type"], "text/event-stream");
    let first = h2.wait(async { body.data().await.unwrap().map_err(io::Error::other) }).unwrap();
    assert_eq!(first, "id: 0\ndata: event 0\n\n");
}

#[test]
fn a_websocket_over_http_1_talks_both_ways() {
    let stack = stack();
    let authority = stack.authority(ASGI);
    let mut socket = client::connect_to(&stack.edge, ASGI);
    let fields = websocket::UPGRADE;
    let answer = socket
        .ask(format!(
            "GET /ws/echo HTTP/1.1\r\nHost: {authority}\r\nOrigin: https://{authority}\r\n{fields}\r\n"
        ))
        .unwrap();
    assert_eq!(answer.status, 101, "{answer:?}");
    assert_eq!(answer.header("sec-websocket-accept"), Some(websocket::ACCEPT));
    let long = "long ".repeat(5000);
    for text in ["hello", "Grüße", long.as_str()] {
        socket.send(websocket::text_frame(text)).unwrap();
        assert_eq!(read_frame(&mut socket), text);
    }
    socket.send(websocket::text_frame("who")).unwrap();
    assert_eq!(read_frame(&mut socket), "wss 127.0.0.1");
}

#[test]
fn a_websocket_of_another_origin_is_djangos_to_refuse() {
    let stack = stack();
    let mut socket = client::connect_to(&stack.edge, ASGI);
    let fields = websocket::UPGRADE;
    let answer = socket
        .ask(format!("GET /ws/echo HTTP/1.1\r\nHost: {ASGI}\r\nOrigin: https://evil.example\r\n{fields}\r\n"))
        .unwrap();
    assert_eq!(answer.status, 403, "{answer:?}");
}

/// RFC 8441: extended CONNECT on a stream, beside which other streams go on.
#[test]
fn a_websocket_over_http_2_talks_both_ways() {
    let stack = stack();
    let authority = stack.authority(ASGI);
    let mut client = H2Client::connect(stack.edge.https(), &stack.edge.ca(), ASGI).unwrap();
    let page = || Request::get(format!("https://{authority}/")).body(()).unwrap();
    assert_eq!(client.ask(page(), Bytes::new()).unwrap().status, 200); // by now the edge's SETTINGS have come
    let request = Request::connect(format!("https://{authority}/ws/echo"))
        .extension(h2::ext::Protocol::from_static("websocket"))
        .header("origin", format!("https://{authority}"))
        .header("sec-websocket-version", "13")
        .body(())
        .unwrap();
    let (head, mut send, mut receive) = client.connect_websocket(request).unwrap();
    assert_eq!(head.status(), 200, "{head:?}");
    let mut buffer = Vec::new();
    for text in ["hello", "Grüße", "who"] {
        send.send_data(Bytes::from(websocket::text_frame(text)), false).unwrap();
        let told = loop {
            if let Some((told, used)) = websocket::parse_frame(&buffer) {
                buffer.drain(..used);
                break told;
            }
            let data =
                client.wait(async { receive.data().await.unwrap().map_err(io::Error::other) }).unwrap();
            let _ = receive.flow_control().release_capacity(data.len());
            buffer.extend_from_slice(&data);
        };
        assert_eq!(told, if text == "who" { "wss 127.0.0.1" } else { text });
    }
    assert_eq!(client.ask(page(), Bytes::new()).unwrap().status, 200);
}

impl Stack {
    fn authority(&self, name: &str) -> String {
        format!("{name}:{}", self.edge.https().port())
    }

    /// Each site over each protocol. A connection is made when its turn comes: one that has asked nothing is not kept for long.
    fn browsers(&self) -> impl Iterator<Item = Browser> {
        let each = SITES.into_iter().flat_map(|site| [(site, "HTTP/1.1"), (site, "HTTP/2")]);
        each.map(|(site, protocol)| Browser {
            name: format!("{site} over {protocol}"),
            authority: self.authority(site),
            line: match protocol {
                "HTTP/2" => Line::H2(H2Client::connect(self.edge.https(), &self.edge.ca(), site).unwrap()),
                _ => Line::H1(Box::new(client::connect_to(&self.edge, site))),
            },
        })
    }
}

/// One connection, of either protocol.
struct Browser {
    name: String,
    authority: String,
    line: Line,
}

enum Line {
    H1(Box<Wire<Tls>>),
    H2(H2Client),
}

impl Browser {
    fn get(&mut self, path: &str) -> io::Result<Response> {
        self.ask("GET", path, &[], b"")
    }

    fn ask(
        &mut self,
        method: &str,
        path: &str,
        fields: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Response> {
        match &mut self.line {
            Line::H1(wire) => {
                let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n", self.authority);
                for (name, value) in fields {
                    head += &[name, ": ", value, "\r\n"].concat();
                }
                if !body.is_empty() {
                    head += &["Content-Length: ", &body.len().to_string(), "\r\n"].concat();
                }
                wire.ask([head.as_bytes(), b"\r\n", body].concat())
            }
            Line::H2(client) => {
                let request =
                    Request::builder().method(method).uri(format!("https://{}{path}", self.authority));
                let mut request =
                    fields.iter().fold(request, |request, (name, value)| request.header(*name, *value));
                if !body.is_empty() {
                    request = request.header("content-length", body.len()); // as browsers do
                }
                client.ask(request.body(()).unwrap(), Bytes::copy_from_slice(body))
            }
        }
    }
}

fn stack() -> Arc<Stack> {
    STACK.get(|| {
        let servers = [Django::gunicorn("sync"), Django::gunicorn("gthread"), Django::uvicorn()];
        let protected = tempfile::Builder::new().prefix("vestibule-protected-").tempdir().unwrap();
        let route = format!(
            "[[site.route]]\npath = \"/protected/\"\ninternal = true\nfiles = \"{}\"\n",
            protected.path().display()
        );
        let sites = SITES.iter().zip(&servers).map(|(name, server)| {
            format!(
                "[[site]]\ndomains = [\"{name}\"]\nupstream = \"{}\"\ncertificate = \"internal\"\nhsts = \"1d\"\n{route}",
                server.upstream
            )
        });
        let config = [ROWS.to_owned(), sites.collect::<Vec<_>>().concat()].concat();
        Stack { edge: Edge::start(&config), protected, _servers: servers }
    })
}

fn multipart(content: &[u8]) -> Vec<u8> {
    let head = "--cut\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.bin\"\r\n\r\n";
    [head.as_bytes(), content, b"\r\n--cut--\r\n"].concat()
}

fn read_frame(socket: &mut Wire<Tls>) -> String {
    let mut frame = Vec::new();
    loop {
        frame.extend(socket.exactly(1).unwrap());
        if let Some((text, _)) = websocket::parse_frame(&frame) {
            return text;
        }
    }
}

fn hex(content: &[u8]) -> String {
    let digest = digest(&SHA256, content);
    digest.as_ref().iter().fold(String::new(), |hex, octet| hex + &format!("{octet:02x}"))
}
