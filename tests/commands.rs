//! The commands as a person meets them: what they print, where, and what they exit with.

use std::fs;
use std::io::{PipeWriter, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};
use serde_json::Value;

use crate::support::PATIENCE;
use crate::support::client::{self, NAME, Wire};
use crate::support::edge::{Edge, HTTP, HTTPS, ROWS, run};
use crate::support::lines::{Lines, text};
use crate::support::port::Port;
use crate::support::upstream::Upstream;

const BINARY: &str = env!("CARGO_BIN_EXE_vestibule");

#[test]
fn help_and_version_are_answers_and_what_is_not_built_is_not_there() {
    for (arguments, code, expected) in [
        (&["--version"][..], 0, concat!("vestibule ", env!("CARGO_PKG_VERSION"))),
        (&["--help"], 0, "Usage: vestibule <COMMAND>"),
        (&["serve", "--help"], 0, "/etc/vestibule/vestibule.toml"),
        (&["up", "--help"], 0, "--domain <NAME>"),
        (&["certs", "--help"], 0, "trust"),
        (&[], 2, "Usage: vestibule <COMMAND>"),
        (&["audit", "--compose", "x"], 2, "vestibule audit is not built into this version"),
        (&["import", "nginx"], 2, "vestibule import is not built into this version"),
        (&["serve", "--http3"], 2, "unexpected argument '--http3'"),
        (&["up", "--domain", "app.localhost"], 2, "--to <TARGET>"),
    ] {
        let (got, stdout, stderr) = run(arguments);
        let (spoken, silent) = if code == 0 { (&stdout, &stderr) } else { (&stderr, &stdout) };
        assert_eq!((got, silent.as_str()), (Some(code), ""), "{arguments:?}");
        assert!(spoken.contains(expected), "{arguments:?}: {spoken}");
    }
}

#[test]
fn a_check_shows_the_matrix_and_makes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), &minimal(folder.path(), "127.0.0.1:9"));
    let (code, stdout, stderr) = run(&["check", "--config", &file]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.starts_with("FIREWALL"), "{stdout}");
    assert!(stdout.contains(&format!("SITE {NAME}")), "{stdout}");
    assert!(!folder.path().join("store").exists(), "a check makes no CA");
}

#[test]
fn a_check_tells_every_problem_and_exits_with_2() {
    let folder = tempfile::tempdir().unwrap();
    for (more, expected) in [
        ("[limit]\n[tls]\nmin_version = \"1.1\"\n", ["unknown key `limit`", "no version below TLS 1.2"]),
        (
            "[[site]]\ndomains = [\"b.example.com\"]\nupstream = \"x:1\"\n\
             certificate = { cert = \"none.pem\", key = \"none.key\" }\n",
            ["none.pem: cannot be read", "none.key: cannot be read"],
        ),
    ] {
        let file = write(folder.path(), &(minimal(folder.path(), "127.0.0.1:9") + more));
        for command in ["check", "serve"] {
            let (code, stdout, stderr) = run(&[command, "--config", &file]);
            assert_eq!((code, stdout.as_str()), (Some(2), ""), "{stderr}");
            for problem in expected {
                assert!(stderr.contains(problem), "{command}: no {problem:?} in {stderr}");
            }
        }
    }
}

#[test]
fn a_store_that_others_may_write_to_is_warned_of() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    fs::create_dir(&store).unwrap();
    let file = write(folder.path(), &minimal(folder.path(), "127.0.0.1:9"));
    for (mode, warned) in [(0o755, false), (0o775, true)] {
        fs::set_permissions(&store, fs::Permissions::from_mode(mode)).unwrap();
        let (code, _, stderr) = run(&["check", "--config", &file]);
        assert_eq!((code, stderr.contains("chmod go-w")), (Some(0), warned), "{stderr}");
    }
}

/// What stands in other files is told in the same run: lists, passwords, pages, certificates, secrets, a CA's root, the log's
/// folder; beside what is wrong in the file itself, and each with its line.
#[test]
fn a_check_looks_into_every_file() {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("502.html");
    for pipe in [&page, &folder.path().join("root.pem")] {
        nix::unistd::mkfifo(pipe, nix::sys::stat::Mode::S_IRUSR).unwrap();
    }
    let more = "[site.errors]\n502 = \"502.html\"\n[[site]]\ndomains = [\"b.example.com\"]\nupstream = \"x\"\n\
                auth = { realm = \"x\", file = \"none-passwords\" }\n\
                [acme]\nca_root = \"root.pem\"\neab = { key_id = \"x\", hmac = { file = \"none-hmac\" } }\n\
                [log]\naccess = \"/none/access.log\"\n";
    let file = write(folder.path(), &(minimal(folder.path(), "127.0.0.1:9") + more));
    let (code, stdout, stderr) = run(&["check", "--config", &file]);
    assert_eq!((code, stdout.as_str()), (Some(2), ""), "{stderr}");
    for problem in [
        "the port of \"x\" is missing",
        "none-passwords cannot be read",
        "502.html: not a regular file",
        "root.pem: not a regular file",
        "none-hmac: the secret",
        "/none is no directory",
    ] {
        assert!(stderr.contains(problem), "no {problem:?} in {stderr}");
    }
    let places = stderr.lines().filter(|line| line.starts_with(" --> "));
    assert!(places.clone().count() == 6 && places.clone().all(|place| place.contains(".toml:")), "{stderr}");
}

#[test]
fn a_configuration_that_is_not_there_is_named() {
    let (code, _, stderr) = run(&["check", "--config", "/none/edge.toml"]);
    assert_eq!(code, Some(2));
    assert!(stderr.contains("/none/edge.toml"), "{stderr}");
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(BINARY).arg("check").current_dir(&folder).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        Path::new("/etc/vestibule/vestibule.toml").exists() || stderr.contains("--config FILE"),
        "{stderr}"
    );
    fs::create_dir(folder.path().join("config")).unwrap();
    fs::write(folder.path().join("config/vestibule.toml"), minimal(folder.path(), "127.0.0.1:9")).unwrap();
    assert!(Command::new(BINARY).arg("check").current_dir(&folder).output().unwrap().status.success());
}

#[test]
fn the_running_edge_tells_its_status() {
    let edge = Edge::start(&site("127.0.0.1:9"));
    let socket = edge.folder().join("admin.sock");
    assert_eq!(socket.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let file = edge.folder().join("vestibule.toml");
    for (flag, path) in [("--socket", &socket), ("--config", &file)] {
        let (code, stdout, stderr) = run(&["status", flag, path.to_str().unwrap()]);
        assert_eq!(code, Some(0), "{stderr}");
        for expected in [
            format!("{HTTPS} https on {}\n", edge.https()),
            format!("{HTTP} http on {}\n", edge.address(HTTP)),
            format!("version       {}\n", env!("CARGO_PKG_VERSION")),
            "generation    1\n".to_owned(),
            format!("site          {NAME}\n"),
        ] {
            assert!(stdout.contains(&expected), "no {expected:?} in {stdout}");
        }
    }
    let (_, stdout, _) = run(&["status", "--format", "json", "--socket", socket.to_str().unwrap()]);
    let status: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((&status["generation"], &status["rows"][0]["row"]), (&1.into(), &HTTPS.into()));
}

#[test]
fn a_reload_tells_what_changed_or_what_is_wrong() {
    let edge = Edge::start(&site("127.0.0.1:9"));
    let socket = edge.folder().join("admin.sock");
    let reload = || run(&["reload", "--socket", socket.to_str().unwrap()]);
    assert_eq!(reload().1, "reloaded: generation 2\nnothing has changed\n");
    edge.write_config(&site("127.0.0.1:10"));
    assert_eq!(reload().1, format!("reloaded: generation 3\n~ site {NAME}\n"));
    edge.write_config(&(site("127.0.0.1:10") + "[tls]\nmin_versoin = \"1.3\"\n"));
    let (code, stdout, stderr) = reload();
    assert_eq!((code, stdout.as_str()), (Some(2), ""));
    assert!(stderr.contains("unknown key `min_versoin`") && stderr.contains("min_version"), "{stderr}");
    assert!(stderr.ends_with("the running configuration stays as it is\n"), "{stderr}");
    edge.write_config(&(site("127.0.0.1:10") + "[process]\nworkers = 7\n"));
    assert_eq!(reload().1, "reloaded: generation 4\n! [process] workers takes a restart\n");
    let page = edge.folder().join("404.html");
    fs::write(&page, "one").unwrap();
    edge.write_config(&(site("127.0.0.1:10") + "[site.errors]\n404 = \"404.html\"\n"));
    reload();
    fs::write(&page, "two").unwrap();
    assert_eq!(reload().1, format!("reloaded: generation 6\n~ site {NAME}\n"));
}

/// A row that is gone accepts nobody, and whoever waits on it is let go; a row that comes is served.
#[test]
fn a_reload_closes_and_opens_rows() {
    let edge = Edge::start(&site("127.0.0.1:9"));
    let mut idle = client::tcp(edge.address(HTTP)).unwrap();
    edge.wait_for_clients(1); // one that still stood in the kernel's queue would be reset
    edge.write_config(&site("127.0.0.1:9").replace("127.0.0.2:0", "127.0.0.3:0"));
    assert!(edge.reload());
    assert_eq!(idle.read(&mut [0; 1]).unwrap(), 0, "closed in silence");
    TcpStream::connect(edge.address(HTTP)).unwrap_err();
    let fresh = edge.log().wait("the new row", |line| {
        let line: Value = serde_json::from_str(line).ok()?;
        (text(&line, "row") == "127.0.0.3:0").then(|| text(&line, "address").parse::<SocketAddr>().unwrap())
    });
    let asked = format!("GET /x HTTP/1.1\r\nHost: {NAME}\r\n\r\n");
    let answer = Wire::new(client::tcp(fresh).unwrap()).ask(asked).unwrap();
    let location = format!("https://{NAME}:{}/x", edge.https().port());
    assert_eq!((answer.status, answer.header("location")), (308, Some(location.as_str())));
}

/// Nothing of a reload stays when one of its rows cannot be bound.
#[test]
fn a_reload_whose_rows_are_taken_is_refused() {
    let edge = Edge::start(&site("127.0.0.1:9"));
    let [a, b] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let rows: String = [&a, &b]
        .map(|taken| {
            format!("\"{}\" = {{ serve = \"https\", allow = [\"public\"] }}\n", taken.local_addr().unwrap())
        })
        .concat();
    edge.write_config(&site("127.0.0.1:9").replace("[ports]\n", &format!("[ports]\n{rows}")));
    let (code, _, stderr) = run(&["reload", "--socket", edge.folder().join("admin.sock").to_str().unwrap()]);
    assert_eq!(code, Some(2));
    for taken in [a, b] {
        let expected = format!("cannot listen on {}", taken.local_addr().unwrap());
        assert!(stderr.contains(&expected), "no {expected:?} in {stderr}");
    }
    assert_eq!(client::connect(&edge).get("/").unwrap().status, 502, "the old one goes on");
}

#[test]
fn the_certificates_of_the_running_edge_are_listed() {
    let edge = Edge::start(&site("127.0.0.1:9"));
    let socket = edge.folder().join("admin.sock");
    let certs = |words: &[&str]| run(&[&["certs"], words, &["--socket", socket.to_str().unwrap()]].concat());
    for words in [&[][..], &["list"]] {
        let (code, stdout, stderr) = certs(words);
        assert_eq!(code, Some(0), "{stderr}");
        let line = stdout.lines().nth(1).unwrap();
        assert!(line.starts_with(NAME) && line.contains("the edge itself"), "{stdout}");
        assert!(line.ends_with("in 59 days: a third of its life is left"), "{stdout}");
        assert!(stdout.ends_with("\n1 certificate: all in order\n"), "{stdout}");
    }
    let (_, stdout, _) = certs(&["show", &NAME.to_uppercase()]);
    assert!(stdout.contains("source        internal\n") && stdout.contains("serial        "), "{stdout}");
    for (words, expected) in [
        (["show", "other.example"], "no certificate is for other.example"),
        (["renew", NAME], "is the edge's own, and renewed by itself"),
        (["revoke", "other.example"], "no site has the name other.example"),
        (["renew", "127.0.0.1"], "an IP address is not a host name"),
    ] {
        let (code, stdout, stderr) = certs(&words);
        assert_eq!((code, stdout.as_str()), (Some(2), ""));
        assert!(stderr.contains(expected), "{stderr}");
    }
}

#[test]
fn nobody_at_the_socket_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("none.sock");
    for command in [&["status"][..], &["reload"], &["certs"], &["certs", "renew", NAME]] {
        let (code, stdout, stderr) = run(&[command, &["--socket", socket.to_str().unwrap()]].concat());
        assert_eq!((code, stdout.as_str()), (Some(2), ""));
        assert!(stderr.contains("no edge answers") && stderr.contains("none.sock"), "{stderr}");
    }
}

#[test]
fn a_second_edge_is_refused() {
    let edge = Edge::start(&site("127.0.0.1:9"));
    let second = edge.folder().join("vestibule.toml");
    let (code, _, stderr) = run(&["serve", "--config", second.to_str().unwrap()]);
    assert_eq!(code, Some(2));
    assert!(stderr.contains("another edge is running"), "{stderr}");
    let folder = tempfile::tempdir().unwrap();
    let ports = minimal(folder.path(), "127.0.0.1:9")
        .replace(HTTPS, &edge.https().to_string())
        .replace(HTTP, &edge.address(HTTP).to_string());
    let (code, _, stderr) = run(&["serve", "--config", &write(folder.path(), &ports)]);
    assert_eq!(code, Some(2));
    for row in [HTTPS, HTTP] {
        let expected = format!("cannot listen on {}", edge.address(row));
        assert!(stderr.contains(&expected), "no {expected:?} in {stderr}");
    }
    assert_eq!(client::connect(&edge).get("/").unwrap().status, 502, "the first one goes on");
}

#[test]
fn up_serves_with_a_ca_of_its_own() {
    let upstream = Upstream::echo();
    let folder = tempfile::tempdir().unwrap();
    // Two rows cannot both be on port 0 of one address.
    let port = Port::reserve();
    let http = port.number().to_string();
    let mut up = Command::new(BINARY);
    up.args([
        "up",
        "--domain",
        NAME,
        "--to",
        &upstream.address().to_string(),
        "--http",
        &http,
        "--https",
        "0",
    ]);
    up.arg("--socket").arg(folder.path().join("up.sock"));
    let mut up = Running::start(up.current_dir(&folder).env("XDG_DATA_HOME", folder.path()));
    let root = folder.path().join("vestibule/certs/internal/root.pem");
    let port: u16 = up.stdout.wait("the URL", |line| {
        let url = line.strip_prefix(&format!("https://{NAME}:"))?;
        url.strip_suffix(&format!(" -> {}", upstream.address()))?.parse().ok()
    });
    let curl = format!("curl --cacert {} https://{NAME}:{port}/", root.display());
    up.stdout.wait("the curl line", |line| (line == curl).then_some(()));
    let tls = client::tls(([127, 0, 0, 1], port).into(), &root, NAME, &[b"http/1.1"]).unwrap();
    assert_eq!(Wire::new(tls).get("/hello").unwrap().status, 200);
    up.stdout.wait("an access line", |line| line.contains("/hello").then_some(()));
    let mut trust = Command::new(BINARY);
    trust.args(["certs", "trust"]).current_dir(&folder).env("XDG_DATA_HOME", folder.path());
    let trust = trust.output().unwrap();
    let told = String::from_utf8(trust.stdout).unwrap();
    assert!(told.contains(&format!("curl --cacert {}", root.display())), "{told}");
    up.leave();
    assert!(!folder.path().join("up.sock").exists(), "its socket goes with it");
}

#[test]
fn what_up_is_given_is_checked() {
    for (domain, to, expected) in [
        ("127.0.0.1", "127.0.0.1:8000", "an IP address is not a host name"),
        ("*", "127.0.0.1:8000", "a catch-all is not a host name"),
        ("app.localhost", "nonsense://x", "upstream"),
    ] {
        let (code, stdout, stderr) =
            run(&["up", "--domain", domain, "--to", to, "--http", "1", "--https", "0"]);
        assert_eq!((code, stdout.as_str()), (Some(2), ""), "{stderr}");
        assert!(stderr.contains(expected), "{stderr}");
    }
}

/// Ports as root, everything else as the user: the store, the socket, and files read again at a reload.
#[test]
fn root_is_given_up() {
    if !Uid::effective().is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
    let own = "[store]\npath = \"lib/edge/store\"\n[admin]\nsocket = \"run/edge/admin.sock\"\n[process]\nuser = \"nobody\"\n";
    let file = write(folder.path(), &(site("127.0.0.1:9") + own));
    let mut serve = Command::new(BINARY);
    let mut edge = Running::start(serve.args(["serve", "--config", &file]).current_dir(&folder));
    edge.stderr.wait("ready", |line| line.contains("\"ready\"").then_some(()));
    let status = fs::read_to_string(format!("/proc/{}/status", edge.child.id())).unwrap();
    for (line, wanted) in
        [("Uid:", "65534\t65534\t65534\t65534"), ("CapEff:", "0000000000000000"), ("NoNewPrivs:", "1")]
    {
        let found = status.lines().find_map(|own| own.strip_prefix(line)).unwrap().trim();
        assert_eq!(found, wanted, "{line}");
    }
    let socket = folder.path().join("run/edge/admin.sock");
    let reload = || run(&["reload", "--socket", socket.to_str().unwrap()]);
    let (code, _, stderr) = reload();
    assert_eq!(code, Some(0), "{stderr}");
    let lowest = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap();
    if lowest.trim() == "0" {
        return edge.leave();
    }
    let low = ROWS.replace("127.0.0.2:0", "127.0.0.2:1");
    write(folder.path(), &(site("127.0.0.1:9").replace(ROWS, &low) + own));
    let (code, _, stderr) = reload();
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("root was given up for \"nobody\""), "{stderr}");
    edge.leave();
}

/// As `serve` would, `check` reads certificates as the user, and not as root.
#[test]
fn a_check_sees_what_the_user_cannot_read() {
    if !Uid::effective().is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
    let key = folder.path().join("edge.key");
    fs::write(&key, "for root alone").unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let files = "certificate = { cert = \"edge.pem\", key = \"edge.key\" }";
    let config = site("127.0.0.1:9").replace("certificate = \"internal\"", files);
    let file = write(folder.path(), &(config + "[process]\nuser = \"nobody\"\n"));
    for command in ["check", "serve"] {
        let (code, _, stderr) = run(&[command, "--config", &file]);
        assert_eq!(code, Some(2), "{command}: {stderr}");
        for problem in ["edge.pem: cannot be read: No such", "edge.key: cannot be read: Permission denied"] {
            assert!(stderr.contains(problem), "{command}: no {problem:?} in {stderr}");
        }
    }
}

/// The log's reader has stopped: the edge serves, obeys and leaves all the same.
#[test]
fn a_log_that_nobody_reads_stops_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (_reader, mut log) = std::io::pipe().unwrap();
    fill(&mut log);
    let file = write(folder.path(), &minimal(folder.path(), "127.0.0.1:9"));
    let mut serve = Command::new(BINARY);
    serve.args(["serve", "--config", &file]).current_dir(&folder).stdin(Stdio::null()).stdout(Stdio::null());
    let mut child = serve.stderr(log).spawn().unwrap();
    let deadline = Instant::now() + PATIENCE;
    for command in ["status", "reload"] {
        while run(&[command, "--config", &file]).0 != Some(0) {
            assert!(Instant::now() < deadline, "the edge does not answer a {command}");
        }
    }
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGTERM).unwrap();
    assert!(child.wait().unwrap().success());
}

/// Writes until the pipe takes no more.
fn fill(pipe: &mut PipeWriter) {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    fcntl(&*pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    while pipe.write(&[0]).is_ok() {}
    fcntl(&*pipe, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
}

#[test]
fn usr1_opens_the_access_log_again() {
    let edge = Edge::start(&(site("127.0.0.1:9") + "[log]\naccess = \"./access.log\"\n"));
    let log = edge.folder().join("access.log");
    let moved = edge.folder().join("access.log.1");
    fs::rename(&log, &moved).unwrap();
    edge.signal(Signal::SIGUSR1);
    edge.log().wait("the reopening", |line| line.contains("opened again").then_some(()));
    assert_eq!(client::connect(&edge).get("/after").unwrap().status, 502);
    let deadline = Instant::now() + PATIENCE;
    while !fs::read_to_string(&log).is_ok_and(|lines| lines.contains("/after")) {
        assert!(Instant::now() < deadline, "no line in the new file");
        std::thread::yield_now();
    }
    assert!(!fs::read_to_string(&moved).unwrap().contains("/after"));
}

#[test]
fn a_second_term_leaves_at_once() {
    let mut edge = Edge::start(&site("127.0.0.1:9"));
    let mut waits = client::connect(&edge);
    let head =
        format!("POST / HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n");
    waits.send(head).unwrap();
    assert_eq!(waits.any_response(true).unwrap().status, 100);
    edge.signal(Signal::SIGTERM);
    edge.log().wait("the drain", |line| line.contains("leaving").then_some(()));
    edge.signal(Signal::SIGTERM);
    assert!(edge.wait().success());
    edge.log().wait("what was cut", |line| line.contains("told again to leave").then_some(()));
    assert!(!edge.folder().join("admin.sock").exists());
}

/// A command that runs until it is told to leave.
struct Running {
    child: Child,
    stdout: Lines,
    stderr: Lines,
}

impl Running {
    fn start(command: &mut Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdout = Lines::follow(child.stdout.take().unwrap());
        let stderr = Lines::follow(child.stderr.take().unwrap());
        Self { child, stdout, stderr }
    }

    /// Tells it to leave, which it does well.
    fn leave(&mut self) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        kill(pid, Signal::SIGTERM).unwrap();
        self.stderr.wait_end();
        assert!(self.child.wait().unwrap().success(), "{}", self.stderr.all());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One site on [`ROWS`].
fn site(upstream: &str) -> String {
    format!(
        "{ROWS}\n[[site]]\ndomains = [\"{NAME}\"]\nupstream = \"{upstream}\"\ncertificate = \"internal\"\n\
         [site.proxy]\nhold = \"0s\"\n"
    )
}

/// The same, keeping what it writes in `folder`.
fn minimal(folder: &Path, upstream: &str) -> String {
    let at = folder.display();
    format!("{}[store]\npath = \"{at}/store\"\n[admin]\nsocket = \"{at}/admin.sock\"\n", site(upstream))
}

fn write(folder: &Path, config: &str) -> String {
    let file = folder.join("vestibule.toml");
    fs::write(&file, config).unwrap();
    file.to_str().unwrap().to_owned()
}
