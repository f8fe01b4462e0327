//! Cloudflare's provider. There is no Cloudflare here: a server of the tests' own speaks what its API's documentation says, and
//! writes the records into a real name server.

use std::convert::Infallible;
use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::dns::{config, pebble};
use super::named::Named;
use super::pebble::Pebble;
use super::proxy::acceptor;
use super::{NAME, record, said, wait_for_handshake};
use crate::support::PATIENCE;
use crate::support::edge::Edge;

/// The API, with one zone, `test`.
struct Api {
    port: u16,
    shared: Arc<Shared>,
    _runtime: tokio::runtime::Runtime,
}

struct Shared {
    /// What updates the name server.
    nsupdate: Vec<String>,
    /// Id, name and content.
    records: Mutex<Vec<(String, String, String)>>,
    /// This answer, for requests of this method.
    fault: Mutex<Option<(Method, u16, String)>>,
    seen: Mutex<Vec<String>>,
}

impl Api {
    fn start(named: &Named, pebble: &Pebble) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let port = listener.local_addr().unwrap().port();
        let nsupdate = vec![
            format!("server 127.0.0.1 {}", named.address().port()),
            named.key("edge").display().to_string(),
        ];
        let shared = Arc::new(Shared {
            nsupdate,
            records: Mutex::default(),
            fault: Mutex::default(),
            seen: Mutex::default(),
        });
        let (acceptor, own) = (acceptor(pebble.folder.path()), Arc::clone(&shared));
        runtime.spawn(async move {
            loop {
                let Ok((tcp, _)) = listener.accept().await else { continue };
                let (acceptor, own) = (acceptor.clone(), Arc::clone(&own));
                tokio::spawn(async move {
                    let Ok(tls) = acceptor.accept(tcp).await else { return };
                    let service = service_fn(|request| answer(Arc::clone(&own), request));
                    let server = hyper::server::conn::http1::Builder::new();
                    let _ = server.serve_connection(TokioIo::new(tls), service).await;
                });
            }
        });
        Self { port, shared, _runtime: runtime }
    }

    /// An edge whose machine trusts the API's certificate.
    fn edge(&self, named: &Named, pebble: &Pebble, domains: &[&str]) -> Edge {
        let token = pebble.folder.path().join("token");
        fs::write(&token, format!("{TOKEN}\n")).unwrap();
        let dns = format!(
            "challenge = \"dns-01\"\ndns = {{ provider = \"cloudflare\", token = {{ file = \"{}\" }}, \
             api = \"https://127.0.0.1:{}/client/v4/\", resolvers = [\"{2}\"], nameservers = [\"{2}\"] }}",
            token.display(),
            self.port,
            named.address()
        );
        Edge::start_with(&config(pebble, &dns, domains), &[("SSL_CERT_FILE", &pebble.ca_root())])
    }

    fn fault(&self, method: Method, status: u16, body: &str) {
        *self.shared.fault.lock().unwrap() = Some((method, status, body.to_owned()));
    }
}

impl Shared {
    /// Status and result.
    fn act(&self, method: &Method, path: &str, query: &str, body: &Value) -> (u16, Value) {
        let asked =
            |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)).unwrap_or_default();
        let mut records = self.records.lock().unwrap();
        match (method, path.strip_prefix("/client/v4/zones").unwrap()) {
            (&Method::GET, "") => {
                let known = asked("name=") == "test";
                (200, if known { json!([{ "id": "023e105f4ecef8ad", "name": "test" }]) } else { json!([]) })
            }
            (&Method::GET, "/023e105f4ecef8ad/dns_records") => {
                let named = records.iter().filter(|(_, name, _)| name == asked("name="));
                let found =
                    named.map(|(id, name, content)| json!({ "id": id, "name": name, "content": content }));
                (200, found.collect())
            }
            (&Method::POST, "/023e105f4ecef8ad/dns_records") => {
                let (name, content) = (body["name"].as_str().unwrap(), body["content"].as_str().unwrap());
                assert_eq!((&body["type"], content.starts_with('"')), (&json!("TXT"), true), "{body}");
                let id = format!("372e67954025e0ba{}", records.len());
                records.push((id, name.to_owned(), content.to_owned()));
                self.update(&format!("add {name} 60 TXT {content}"));
                (200, json!({}))
            }
            (&Method::DELETE, path) => {
                let id = path.strip_prefix("/023e105f4ecef8ad/dns_records/").unwrap();
                let at = records.iter().position(|(own, ..)| own == id).unwrap();
                let (_, name, content) = records.remove(at);
                self.update(&format!("delete {name} TXT {content}"));
                (200, json!({ "id": id }))
            }
            other => panic!("{other:?} is not the API's"),
        }
    }

    fn update(&self, what: &str) {
        let mut child =
            Command::new("nsupdate").arg("-k").arg(&self.nsupdate[1]).stdin(Stdio::piped()).spawn().unwrap();
        write!(child.stdin.take().unwrap(), "{}\nupdate {what}\nsend\n", self.nsupdate[0]).unwrap();
        assert!(child.wait().unwrap().success(), "{what}");
    }
}

async fn answer(
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    assert_eq!(parts.headers.get(AUTHORIZATION).unwrap(), &format!("Bearer {TOKEN}"));
    let (path, query) = (parts.uri.path(), parts.uri.query().unwrap_or_default());
    shared.seen.lock().unwrap().push(format!("{} {path}", parts.method));
    let fault = shared.fault.lock().unwrap().clone().filter(|(method, ..)| *method == parts.method);
    let (status, text) = fault.map_or_else(
        || {
            let (status, result) = shared.act(&parts.method, path, query, &body);
            (status, json!({ "success": true, "errors": [], "messages": [], "result": result }).to_string())
        },
        |(_, status, body)| (status, body),
    );
    Ok(Response::builder().status(status).body(Full::new(Bytes::from(text))).unwrap())
}

#[test]
fn a_wildcard_by_its_api() {
    let named = Named::start();
    let pebble = pebble(&named);
    let api = Api::start(&named, &pebble);
    let edge = api.edge(&named, &pebble, &[NAME, "*.app.test"]);
    for name in [NAME, "any.app.test"] {
        wait_for_handshake(&pebble, name, PATIENCE);
    }
    named.wait_for_txt("_acme-challenge.app.test.", 0);
    assert!(api.shared.records.lock().unwrap().is_empty());
    let posts = api.shared.seen.lock().unwrap().iter().filter(|line| line.starts_with("POST")).count();
    assert_eq!((posts, pebble.proxy.orders()), (2, 2));
    drop(edge);
}

#[test]
fn what_it_refuses_is_said_with_the_fix() {
    let named = Named::start();
    let pebble = pebble(&named);
    let api = Api::start(&named, &pebble);
    let error =
        r#"{"success":false,"errors":[{"code":10000,"message":"Authentication error"}],"result":null}"#;
    for (method, status, body, expected) in [
        (
            Method::GET,
            403,
            error,
            "answered 403 while looking the zone up; 10000 Authentication error; give the token",
        ),
        (
            Method::POST,
            404,
            "<html>Not Found</html>",
            "answered 404 while writing the record, which is no answer",
        ),
        (
            Method::GET,
            200,
            "\u{0}garbage",
            "answered 200 while looking the zone up, which is no answer of this API",
        ),
        (Method::GET, 200, r#"{"success":true,"result":7}"#, "gave something else than a list while"),
        (Method::GET, 200, r#"{"success":true,"result":[{"id":"../x"}]}"#, "gave an entry without an id"),
        (
            Method::GET,
            200,
            r#"{"success":true,"result":[]}"#,
            "has no zone with _acme-challenge.app.test. that this",
        ),
        (Method::GET, 200, &"x".repeat(3 << 20), "cut its answer short: the answer is too long"),
    ] {
        api.fault(method, status, body);
        let edge = api.edge(&named, &pebble, &[NAME]);
        let failure = said(&edge, "no certificate was obtained")["failure"].as_str().unwrap().to_owned();
        assert!(failure.starts_with("app.test: writing the record: "), "{failure}");
        assert!(failure.contains(expected) && failure.len() < 400, "{failure}");
        assert!(record(&edge, NAME)["order"]["url"].is_string());
        assert!(!edge.log().all().contains(TOKEN));
    }
    assert!(pebble.proxy.seen(super::proxy::CHALLENGE).is_empty());
}

const TOKEN: &str = "hunter2-token";
