//! What somebody sees who knocks from outside, row by row, over IPv4 and IPv6: by raw sockets, and by the `openssl`
//! and `curl` that people have.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustls::ClientConnection;
use rustls::pki_types::ServerName;

use crate::support::client::{self, NAME, Wire};
use crate::support::edge::Edge;
use crate::support::upstream::Upstream;

/// A fatal alert `unrecognized_name` (RFC 8446 section 6), as the only thing that is ever said.
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// One edge and the addresses of its two rows.
struct Door {
    edge: Edge,
    https: SocketAddr,
    http: SocketAddr,
    _upstream: Upstream,
}

/// A door per address family. A row's port is the kernel's choice, so no two rows share an address.
fn doors() -> Vec<Door> {
    let mut pairs = vec![("127.0.0.1:0", "127.0.0.2:0")];
    if TcpListener::bind("[::1]:0").is_ok() {
        pairs.extend([("[::1]:0", "127.0.0.2:0"), ("127.0.0.1:0", "[::1]:0")]);
    }
    pairs.into_iter().map(|(https, http)| Door::open(https, http)).collect()
}

impl Door {
    fn open(https: &str, http: &str) -> Self {
        let upstream = Upstream::echo();
        let at = upstream.address();
        let edge = Edge::start(&format!(
            r#"
[sources]
nobody = ["192.0.2.0/24", "2001:db8::/32"]

[ports]
"{https}" = {{ serve = "https", allow = ["public"] }}
"{http}" = {{ serve = "http", allow = ["public"] }}

[[site]]
domains = ["{NAME}", "*.tenants.localhost"]
redirect = ["www.localhost"]
upstream = "{at}"
certificate = "internal"
  [[site.route]]
  path = "/admin/"
  upstream = "{at}"
  allow = ["nobody"]

[[site]]
domains = ["closed.localhost"]
upstream = "{at}"
certificate = "internal"
allow = ["nobody"]
"#
        ));
        Self { https: edge.address(https), http: edge.address(http), edge, _upstream: upstream }
    }

    fn connect(&self, name: &str) -> Wire<client::Tls> {
        Wire::new(client::tls(self.https, &self.edge.ca(), name, &[b"http/1.1"]).unwrap())
    }
}

#[test]
fn an_address_that_the_row_does_not_allow_gets_not_one_byte() {
    for (row, refusal) in [
        ("127.0.0.1:0", r#"allow = ["nobody"]"#),
        ("127.0.0.1:0", r#"allow = ["public"], deny = ["here"]"#),
        ("[::1]:0", r#"allow = ["nobody"]"#),
        ("[::1]:0", r#"allow = ["public"], deny = ["here"]"#),
    ] {
        if TcpListener::bind(row).is_err() {
            continue; // no IPv6 on this machine
        }
        for serve in ["https", "http"] {
            let edge = Edge::start(&format!(
                r#"
[sources]
nobody = ["192.0.2.0/24"]
here = ["127.0.0.0/8", "::1"]

[ports]
"{row}" = {{ serve = "{serve}", {refusal} }}
"127.0.0.4:0" = {{ serve = "https", allow = ["public"] }}

[[site]]
domains = ["{NAME}"]
upstream = "127.0.0.1:9"
certificate = "internal"
"#
            ));
            let mut socket = client::tcp(edge.address(row)).unwrap();
            let _ = socket.write_all(b"GET / HTTP/1.1\r\nHost: app.localhost\r\n\r\n");
            assert_eq!(heard(socket), b"", "{row} {serve} {refusal}");
        }
    }
}

#[test]
fn an_address_that_a_site_or_route_does_not_allow_gets_403() {
    for door in doors() {
        let paths = ["/admin/", "/admin/x", "/%61dmin/x", "//admin//x", "/admin%2fx"];
        for path in paths {
            assert_eq!(door.connect(NAME).get(path).unwrap().status, 403, "{path}");
        }
        assert_eq!(door.connect(NAME).get("/administrators").unwrap().status, 200);
        let answer =
            door.connect("closed.localhost").ask("GET / HTTP/1.1\r\nHost: closed.localhost\r\n\r\n").unwrap();
        assert_eq!(answer.status, 403);
    }
}

#[test]
fn a_name_that_no_site_has_gets_an_alert_and_no_certificate() {
    for door in doors() {
        for name in
            ["other.localhost", "localhost", "a.b.tenants.localhost", "tenants.localhost", "127.0.0.1", "::1"]
        {
            // A client sends no SNI for an address (RFC 6066 section 3): those two are the missing name.
            let mut socket = client::tcp(door.https).unwrap();
            socket.write_all(&client_hello(&door, name)).unwrap();
            assert_eq!(heard(socket), UNRECOGNIZED_NAME, "{name}");
        }
        for name in ["127.0.0.1", "[::1]", "app.localhost:443", "_", "*", "other.localhost"] {
            let told = openssl(&door, &["-servername", name]);
            assert!(told.contains("no peer certificate available"), "{name}: {told}");
            assert!(told.contains("unrecognized name"), "{name}: {told}");
        }
        for name in ["a.tenants.localhost", "APP.localhost", "www.localhost"] {
            let told = openssl(&door, &["-servername", name]);
            assert!(told.contains("Verification: OK"), "{name}: {told}");
        }
    }
}

#[test]
fn old_protocols_and_suites_without_ecdhe_get_an_alert() {
    for door in doors() {
        let weak = "DEFAULT:@SECLEVEL=0";
        for (options, alert) in [
            (&["-tls1_1", "-cipher", weak][..], "alert protocol version"),
            (&["-tls1", "-cipher", weak][..], "alert protocol version"),
            (&["-tls1_2", "-cipher", "AES128-GCM-SHA256"][..], "alert handshake failure"),
            (&["-tls1_2", "-cipher", "DHE-RSA-AES128-GCM-SHA256"][..], "alert handshake failure"),
            (&["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA256"][..], "alert handshake failure"),
        ] {
            let told = openssl(&door, &[&["-servername", NAME], options].concat());
            assert!(told.contains(alert), "{options:?}: {told}");
            assert!(told.contains("no peer certificate available"), "{options:?}: {told}");
        }
        for options in [&["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"][..], &["-tls1_3"][..]] {
            let told = openssl(&door, &[&["-servername", NAME], options].concat());
            assert!(told.contains("Verification: OK"), "{told}");
        }
    }
}

#[test]
fn plain_http_redirects_known_names_and_says_nothing_to_others() {
    for door in doors() {
        let port = door.https.port();
        for (request, host) in [
            ("GET /a?b=c HTTP/1.1\r\nHost: app.localhost", NAME),
            ("POST /a?b=c HTTP/1.1\r\nHost: app.localhost\r\nContent-Length: 0", NAME),
            ("GET /a?b=c HTTP/1.1\r\nHost: APP.localhost.", NAME),
            ("GET http://app.localhost/a?b=c HTTP/1.1\r\nHost: app.localhost", NAME),
            ("GET /a?b=c HTTP/1.1\r\nHost: x.tenants.localhost", "x.tenants.localhost"),
            ("GET /a?b=c HTTP/1.0\r\nHost: app.localhost", NAME),
        ] {
            let mut wire = Wire::new(client::tcp(door.http).unwrap());
            let answer = wire.ask(format!("{request}\r\n\r\n")).unwrap();
            assert_eq!(answer.status, 308, "{request}");
            assert_eq!(
                answer.header("location"),
                Some(format!("https://{host}:{port}/a?b=c").as_str()),
                "{request}"
            );
        }
        let own_port = format!("GET /a HTTP/1.1\r\nHost: {NAME}:{}\r\n\r\n", door.http.port());
        assert_eq!(Wire::new(client::tcp(door.http).unwrap()).ask(own_port).unwrap().status, 308);
        for request in [
            "GET / HTTP/1.1\r\nHost: other.localhost",
            "GET / HTTP/1.1\r\nHost: 127.0.0.1",
            "GET / HTTP/1.1\r\nHost: [::1]",
            "GET / HTTP/1.1\r\nHost: a.b.tenants.localhost",
            "GET http://other.localhost/ HTTP/1.1\r\nHost: app.localhost",
            "GET / HTTP/1.0",
        ] {
            let mut socket = client::tcp(door.http).unwrap();
            socket.write_all(format!("{request}\r\n\r\n").as_bytes()).unwrap();
            assert_eq!(heard(socket), b"", "{request}");
        }
    }
}

#[test]
fn other_names_inside_tls_get_421_and_own_ones_are_the_same_site() {
    for door in doors() {
        let port = door.https.port();
        for (host, status) in [
            ("other.localhost".to_owned(), 421),
            ("closed.localhost".to_owned(), 421),
            ("127.0.0.1".to_owned(), 421),
            (NAME.to_owned(), 200),
            (format!("{NAME}:{port}"), 200),
            ("App.LocalHost.".to_owned(), 200),
            ("x.tenants.localhost".to_owned(), 200),
        ] {
            let answer = door.connect(NAME).ask(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).unwrap();
            assert_eq!(answer.status, status, "{host}");
        }
        let answer = door
            .connect("www.localhost")
            .ask(format!("GET /a?b HTTP/1.1\r\nHost: www.localhost:{port}\r\n\r\n"))
            .unwrap();
        assert_eq!(answer.status, 308);
        assert_eq!(answer.header("location"), Some(format!("https://{NAME}:{port}/a?b").as_str()));
    }
}

#[test]
fn an_upstream_that_is_not_there_is_a_502_that_names_nothing() {
    let closed = "127.0.0.1:1";
    let edge = Edge::start(&format!(
        "{}\n[[site]]\ndomains = [\"{NAME}\"]\nupstream = \"{closed}\"\ncertificate = \"internal\"\n\
         [site.proxy]\nhold = \"0s\"\n",
        crate::support::edge::ROWS
    ));
    let answer = client::connect(&edge).get("/").unwrap();
    assert_eq!(answer.status, 502);
    let whole = format!("{:?}{}", answer.headers, answer.text());
    for word in [closed, "127.0.0.1", "vestibule", "refused", "upstream"] {
        assert!(!whole.contains(word), "{word} in {whole}");
    }
}

#[test]
fn curl_agrees() {
    for door in doors() {
        let (port, ca) = (door.https.port().to_string(), door.edge.ca());
        let ca = ca.to_str().unwrap();
        let to = format!("{NAME}:{port}:{}", door.https.ip());
        let other = format!("other.localhost:{port}:{}", door.https.ip());
        let url = format!("https://{NAME}:{port}/x");
        assert_eq!(curl(&["--http1.1", "--cacert", ca, "--resolve", &to, &url]), (Some(0), "200 1.1".into()));
        assert_eq!(curl(&["--http2", "--cacert", ca, "--resolve", &to, &url]), (Some(0), "200 2".into()));
        let other_host = ["--cacert", ca, "--resolve", &to, "-H", "Host: other.localhost", &url];
        assert_eq!(curl(&other_host), (Some(0), "421 2".into()));
        let refused = (Some(35), "000 0".to_owned());
        assert_eq!(curl(&["-k", "--resolve", &other, &format!("https://other.localhost:{port}/")]), refused);
        assert_eq!(curl(&["-k", &format!("https://{}/", door.https)]), refused);
        assert_eq!(
            curl(&["-k", "--tls-max", "1.1", "--ciphers", "DEFAULT:@SECLEVEL=0", "--resolve", &to, &url]),
            refused
        );
        let plain = format!("{NAME}:{}:{}", door.http.port(), door.http.ip());
        let plain_url = format!("http://{NAME}:{}/x", door.http.port());
        assert_eq!(curl(&["--resolve", &plain, &plain_url]), (Some(0), "308 1.1".into()));
        assert_eq!(curl(&[&format!("http://{}/", door.http)]), (Some(52), "000 0".into()));
    }
}

/// Everything that comes until the edge closes, whether it closes or resets.
fn heard(mut socket: impl Read) -> Vec<u8> {
    let mut told = Vec::new();
    match socket.read_to_end(&mut told) {
        Err(error) if !client::ended(&error) => panic!("not closed: {error}, after {told:?}"),
        _ => told,
    }
}

fn client_hello(door: &Door, name: &str) -> Vec<u8> {
    let config = client::config(&door.edge.ca(), &[b"h2", b"http/1.1"]);
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut connection = ClientConnection::new(Arc::clone(&config), name).unwrap();
    let mut hello = Vec::new();
    connection.write_tls(&mut hello).unwrap();
    hello
}

fn openssl(door: &Door, options: &[&str]) -> String {
    let address = door.https.to_string();
    let mut command = Command::new("openssl");
    command
        .args(["s_client", "-connect", &address, "-CAfile"])
        .arg(door.edge.ca())
        .args(options)
        .stdin(Stdio::null());
    let output = command.output().expect("openssl: run `make test`, which installs it");
    [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat()
}

/// curl's exit code, and the status and HTTP version that it saw.
fn curl(options: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new("curl");
    command.args(["--silent", "--noproxy", "*", "--max-time", "20", "--output", "/dev/null"]);
    command.args(["--write-out", "%{http_code} %{http_version}"]).args(options).stdin(Stdio::null());
    let output = command.output().expect("curl: run `make test`, which installs it");
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}
