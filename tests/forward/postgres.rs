//! A real PostgreSQL behind forward rows, and its own clients before them.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User, chown, geteuid};
use tempfile::TempDir;

use super::*;
use crate::support::lines::Lines;
use crate::support::port::Port;
use crate::support::shared::Shared;
use crate::tls::pki::Anything;

const TLS_ROW: &str = "127.0.0.4:0";
const NAME: &str = "db.localhost";
pub(crate) const PASSWORD: &str = "a word that nobody guesses";

/// A running server with one user, who proves himself by SCRAM. Dropping it ends it.
pub(crate) struct Server {
    child: Child,
    _folder: TempDir,
    pub(crate) port: Port,
}

static SERVER: Shared<Server> = Shared::new();

impl Server {
    pub(crate) fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("vestibule-postgres-").tempdir().unwrap();
        let (data, word) = (folder.path().join("data"), folder.path().join("word"));
        fs::write(&word, PASSWORD).unwrap();
        give_away(&[folder.path(), &word]);
        let mut initdb = program("initdb");
        initdb.args(["--no-sync", "-A", "scram-sha-256", "-U", "edge", "-E", "UTF8", "--locale=C"]);
        let made = initdb.arg("-D").arg(&data).arg("--pwfile").arg(&word).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        let port = Port::reserve();
        let mut server = program("postgres");
        server.arg("-D").arg(&data).arg("-k").arg(folder.path()).args(["-p", &port.number().to_string()]);
        server.args(["-c", "fsync=off", "-c", "listen_addresses=127.0.0.1", "-c", "max_connections=40"]);
        let mut child = server.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Lines::follow(child.stderr.take().unwrap());
        log.wait("a server that is ready", |line| line.contains("ready to accept connections").then_some(()));
        Self { child, _folder: folder, port }
    }

    /// A plain row and one that ends TLS, both before this server.
    fn edge(&self) -> Edge {
        let target = format!("forward = \"{}\", allow = [\"here\"]", self.port.address());
        Edge::start(&rows(&format!(
            "\"{ROW}\" = {{ {target} }}\n\
             \"{TLS_ROW}\" = {{ {target}, tls = \"{NAME}\", certificate = \"internal\" }}"
        )))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), Signal::SIGINT);
        let _ = self.child.wait();
    }
}

/// One of the server's own programs, of the newest version that is installed. PostgreSQL does not run as root.
fn program(name: &str) -> Command {
    let versions =
        fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL is installed: scripts/test does it");
    let mut found: Vec<PathBuf> =
        versions.map(|entry| entry.unwrap().path().join("bin").join(name)).collect();
    found.retain(|path| path.exists());
    found.sort();
    let path = found.pop().unwrap();
    if !geteuid().is_root() {
        return Command::new(path);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--init-groups", "--"]).arg(path);
    command.current_dir("/");
    command
}

fn give_away(paths: &[&Path]) {
    if geteuid().is_root() {
        let user =
            User::from_name("postgres").unwrap().expect("PostgreSQL is installed: scripts/test does it");
        for path in paths {
            chown(*path, Some(user.uid), Some(user.gid)).unwrap();
        }
    }
    assert_ne!(fs::metadata(paths[0]).unwrap().uid(), 0, "PostgreSQL does not run as root");
}

/// A client's command, as its user would type it.
fn client_of(name: &str, address: SocketAddr, tls: Option<&Path>) -> Command {
    let mut command = Command::new(name);
    command.env("PGPASSWORD", PASSWORD).env("PGUSER", "edge").env("PGDATABASE", "postgres");
    command.env("PGHOSTADDR", address.ip().to_string()).env("PGPORT", address.port().to_string());
    match tls {
        Some(ca) => command.env("PGSSLMODE", "verify-full").env("PGSSLROOTCERT", ca).env("PGHOST", NAME),
        None => command.env("PGSSLMODE", "disable").env("PGHOST", address.ip().to_string()),
    };
    command.stdin(Stdio::null());
    command
}

/// What psql prints.
#[track_caller]
fn asked(mut psql: Command, sql: &str) -> String {
    let output = psql.args(["-X", "-A", "-t", "-c", sql]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn psql_in_plain_and_over_verified_tls() {
    let server = SERVER.get(Server::start);
    let edge = server.edge();
    assert_eq!(asked(client_of("psql", edge.address(ROW), None), "select 6 * 7"), "42");
    assert!(is_goodbye(&ended(&edge, 0).0));
    let mark = edge.mark();
    assert_eq!(asked(client_of("psql", edge.address(TLS_ROW), Some(&edge.ca())), "select 6 * 7"), "42");
    let (end, line) = ended(&edge, mark);
    assert!(is_goodbye(&end) && line["tls"] == "TLSv1.3", "{line}");
    let length = "select length(repeat('x', 3000000)), repeat('y', 3000000)";
    let out = asked(client_of("psql", edge.address(TLS_ROW), Some(&edge.ca())), length);
    assert_eq!(out.len(), "3000000|".len() + 3_000_000);
}

/// psql takes its leave, and then both sides close: either may be the first.
fn is_goodbye(end: &str) -> bool {
    ["client_closed", "upstream_closed"].contains(&end)
}

/// A client that will not have TLS is told so in its own protocol; one that trusts another CA leaves.
#[test]
fn psql_without_tls_is_told_why_not() {
    let server = SERVER.get(Server::start);
    let edge = server.edge();
    let output = client_of("psql", edge.address(TLS_ROW), None).args(["-c", "select 1"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("this port takes connections with TLS alone (sslmode=require)"), "{said}");
    let other = rcgen::generate_simple_self_signed(vec!["other".to_owned()]).unwrap();
    let ca = edge.folder().join("other.pem");
    fs::write(&ca, other.cert.pem()).unwrap();
    let output =
        client_of("psql", edge.address(TLS_ROW), Some(&ca)).args(["-c", "select 1"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("certificate verify failed"), "{said}");
}

/// Ctrl-C in psql is a connection of its own, which begins without TLS whatever the first one speaks.
#[test]
fn a_query_is_cancelled() {
    let server = SERVER.get(Server::start);
    let edge = server.edge();
    for row in [ROW, TLS_ROW] {
        let ca = edge.ca();
        let tls = (row == TLS_ROW).then_some(ca.as_path());
        let mut psql = client_of("psql", edge.address(row), tls);
        let sql = "select 'begun'; select pg_sleep(3600)";
        psql.args(["-X", "-A", "-t", "-c", "select 'begun'", "-c", sql.split("; ").nth(1).unwrap()]);
        let mut child = psql.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let out = Lines::follow(child.stdout.take().unwrap());
        out.wait("the first answer", |line| (line == "begun").then_some(()));
        // Until the server has the second one, there is nothing to cancel.
        let sleeping =
            "select count(*) from pg_stat_activity where query like 'select pg_sleep%' and state = 'active'";
        while asked(client_of("psql", edge.address(ROW), None), sleeping) == "0" {}
        kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGINT).unwrap();
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        child.wait().unwrap();
        assert!(said.contains("canceling statement due to user request"), "{row}: {said}");
    }
}

/// TLS from the first octet, as PostgreSQL 17's clients have it with `sslnegotiation=direct`.
#[test]
fn tls_may_come_first() {
    let server = SERVER.get(Server::start);
    let edge = server.edge();
    let mut tls = client::tls(edge.address(TLS_ROW), &edge.ca(), NAME, &[b"postgresql"]).unwrap();
    assert_eq!(tls.conn.alpn_protocol(), Some(&b"postgresql"[..]));
    tls.write_all(b"\0\0\0\x25\0\x03\0\0user\0edge\0database\0postgres\0\0").unwrap();
    let mut kind = [0];
    tls.read_exact(&mut kind).unwrap();
    assert_eq!(&kind, b"R", "an authentication request");
}

/// A client that asks for GSSAPI first, and only then for TLS.
#[test]
fn encryption_is_negotiated_step_by_step() {
    let server = SERVER.get(Server::start);
    let edge = server.edge();
    let mut tcp = client::tcp(edge.address(TLS_ROW)).unwrap();
    for (request, answer) in [(b"\0\0\0\x08\x04\xd2\x16\x30", b'N'), (b"\0\0\0\x08\x04\xd2\x16\x2f", b'S')] {
        tcp.write_all(request).unwrap();
        let mut heard = [0];
        tcp.read_exact(&mut heard).unwrap();
        assert_eq!(heard, [answer]);
    }
    let name = rustls::pki_types::ServerName::IpAddress(IpAddr::from([127, 0, 0, 4]).into());
    let mut session = rustls::ClientConnection::new(unnamed(&edge), name).unwrap();
    while session.is_handshaking() {
        session.complete_io(&mut tcp).unwrap();
    }
    // It may ask for each kind once.
    let mut tcp = client::tcp(edge.address(TLS_ROW)).unwrap();
    let _ = tcp.write_all(&b"\0\0\0\x08\x04\xd2\x16\x30".repeat(1000));
    let mut heard = Vec::new();
    let _ = tcp.read_to_end(&mut heard);
    assert!(heard.len() <= 2, "{heard:?}");
}

/// A client that checks no name, and sends none.
fn unnamed(edge: &Edge) -> Arc<rustls::ClientConfig> {
    let mut config = Arc::unwrap_or_clone(client::config(&edge.ca(), &[]));
    config.enable_sni = false;
    config.dangerous().set_certificate_verifier(Arc::new(Anything));
    Arc::new(config)
}

#[test]
fn pgbench_runs() {
    let server = SERVER.get(Server::start);
    let edge = server.edge();
    let run = |command: &mut Command| {
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    run(client_of("pgbench", edge.address(ROW), None).args(["-i", "-q"]));
    for (row, tls) in [(ROW, None), (TLS_ROW, Some(edge.ca()))] {
        let told =
            run(client_of("pgbench", edge.address(row), tls.as_deref()).args(["-c4", "-j2", "-t50", "-n"]));
        assert!(told.contains("number of transactions actually processed: 200/200"), "{told}");
    }
}
