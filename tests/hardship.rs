//! What a machine does to an edge that runs for years: nothing is left to open, a port is taken, whoever should read does not,
//! strangers knock, and processes are killed at the worst moment.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};
use socket2::{Domain, Socket, Type};

use crate::support::PATIENCE;
use crate::support::client::{self, NAME, Wire, connect};
use crate::support::edge::{self, Edge, HTTPS, ROWS};
use crate::support::lines::text;
use crate::support::upstream::Upstream;

/// More connections than there are descriptors: those that are open are served, others wait in the kernel's queue, and are
/// served as soon as there is room.
#[test]
fn descriptors_that_run_out_stop_nobody_for_long() {
    let upstream = Upstream::echo();
    let config = config(&upstream) + "\n[limits]\nhandshake_timeout = \"10m\"\n[process]\nworkers = 2\n";
    let edge = Edge::start_behind(&["prlimit", "--nofile=160:160"], &config);
    let mut before = connect(&edge);
    assert_eq!(before.get("/before").unwrap().status, 200);
    let silent: Vec<TcpStream> = (0..200).map(|_| client::tcp(edge.https()).unwrap()).collect();
    edge.log().wait("the shortage", |line| line.contains("out of descriptors").then_some(()));
    assert_eq!(before.get("/meanwhile").unwrap().status, 200);
    // Each shut half by the client is let go by the edge, and makes room for one that waited.
    drop(silent);
    assert_eq!(connect(&edge).get("/after").unwrap().status, 200);
    assert_eq!(before.get("/after").unwrap().status, 200);
    drop(before);
    edge.wait_until_no_client();
}

/// A reload that waits for a disk keeps nobody from having the edge leave. A pipe that nobody writes to is such a disk.
#[test]
fn term_is_heard_while_a_reload_waits_for_a_file() {
    let mut edge = Edge::start(&config(&Upstream::echo()));
    let file = edge.folder().join("vestibule.toml");
    fs::remove_file(&file).unwrap();
    nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR).unwrap();
    edge.signal(Signal::SIGHUP);
    // Can be opened as soon as it is read.
    let _held = fs::File::options().write(true).open(&file).unwrap();
    edge.signal(Signal::SIGTERM);
    assert!(edge.wait().success());
}

/// A reload that needs a port which somebody else has changes nothing, and names it.
#[test]
fn a_reload_onto_a_taken_port_is_refused_as_a_whole() {
    let upstream = Upstream::echo();
    let edge = Edge::start(&config(&upstream));
    let holder = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    holder.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let taken = holder.local_addr().unwrap().as_socket().unwrap();
    let row = format!("\"{taken}\" = {{ serve = \"https\", allow = [\"public\"] }}\n");
    let redirect = "  [[site.route]]\n  path = \"= /new\"\n  redirect = { to = \"/\", status = 307 }\n";
    let wanted = config(&upstream).replacen("[ports]\n", &format!("[ports]\n{row}"), 1) + redirect;
    edge.write_config(&wanted);
    let mut open = connect(&edge);
    assert!(!edge.reload());
    let named = format!("cannot listen on {taken}");
    assert!(edge.log().all().contains(&named), "{}", edge.log().all());
    for client in [&mut open, &mut connect(&edge)] {
        assert_eq!(client.get("/new").unwrap().status, 200, "the old routes hold");
    }
    // Shared from now on. Were it closed, a child that is just being started could still have it for a moment.
    holder.set_reuse_address(true).unwrap();
    assert!(edge.reload());
    assert_eq!(open.get("/new").unwrap().status, 307);
}

/// Clients that ask for metrics and never read hold neither others up nor their own place for ever.
#[test]
fn a_metrics_client_that_never_reads_is_let_go() {
    let upstream = Upstream::echo();
    let listen = "\n[admin]\nsocket = \"./admin.sock\"\nlisten = \"127.0.0.1:0\"\n";
    let edge = Edge::start(&(config(&upstream) + listen));
    let at = edge.address("[admin] listen");
    let ask = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let idle: Vec<TcpStream> = (0..40).map(|_| stuffed(at, ask)).collect();
    for _ in 0..3 {
        let answer = Wire::new(client::tcp(at).unwrap()).ask(ask).unwrap();
        assert!(answer.status == 200 && answer.text().ends_with('\n'), "{answer:?}");
    }
    assert_eq!(connect(&edge).get("/").unwrap().status, 200);
    for mut stream in idle {
        stream.set_read_timeout(Some(PATIENCE * 2)).unwrap();
        let ended = stream.read_to_end(&mut Vec::new());
        let reset = |error: &std::io::Error| error.kind() == std::io::ErrorKind::ConnectionReset;
        assert!(ended.as_ref().is_ok() || ended.as_ref().is_err_and(reset), "{ended:?}");
    }
}

/// A client with room for next to nothing, which has asked.
fn stuffed(at: SocketAddr, ask: &str) -> TcpStream {
    let raw = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    raw.set_recv_buffer_size(1).unwrap();
    raw.connect(&at.into()).unwrap();
    let mut stream = TcpStream::from(raw);
    stream.write_all(ask.as_bytes()).unwrap();
    stream
}

/// The socket's mode keeps others out, and where modes mean nothing, the kernel's word on who knocks does.
#[test]
fn another_user_has_no_say() {
    if !Uid::effective().is_root() {
        return;
    }
    let upstream = Upstream::echo();
    let edge = Edge::start(&config(&upstream));
    let socket = edge.folder().join("admin.sock");
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&socket), 0o600);
    fs::set_permissions(edge.folder(), fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(as_nobody(&socket), "PermissionError");
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).unwrap();
    assert_eq!(as_nobody(&socket), "told nothing");
    edge.log().wait("the stranger", |line| line.contains("a process of another user knocked").then_some(()));
    assert!(edge.reload(), "what was asked by a stranger has not moved the edge");
    assert!(!edge.log().all().contains("leaving"));
}

/// What another user hears who asks for a reload.
fn as_nobody(socket: &std::path::Path) -> String {
    let program = r#"
import os, socket, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    door = socket.socket(socket.AF_UNIX)
    door.connect(sys.argv[1])
    door.sendall(b"POST /v1/reload HTTP/1.1\r\nHost: edge\r\nContent-Length: 0\r\n\r\n")
    print(door.recv(100) or "told nothing")
except (BrokenPipeError, ConnectionResetError):
    print("told nothing")
except OSError as why:
    print(type(why).__name__)
"#;
    let output = Command::new("python3").args(["-c", program]).arg(socket).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// kill -9 of the old process or of the new one, at moments from before the new one runs to when it has long taken over. The
/// old one has a request that does not end, so that it is there all the while.
#[test]
fn whoever_is_killed_at_any_moment_of_an_upgrade_somebody_serves() {
    let upstream = Upstream::echo();
    let edge = Edge::start_linked(&config(&upstream), &[]);
    let mut serves = edge.pid();
    for round in 0..24_u64 {
        let (holder, mark) = (held(&edge), edge.log().mark());
        kill(serves, Signal::SIGUSR2).unwrap();
        std::thread::sleep(Duration::from_millis(round * 17 % 300)); // the moment is what is tried, not what is waited for
        let new = processes(&edge).into_iter().find(|pid| *pid != serves);
        let victim = if round % 2 == 0 { new } else { new.and(Some(serves)) };
        if let Some(victim) = victim {
            let _ = kill(victim, Signal::SIGKILL); // the old one may have left already
            wait_until("it is gone", || !processes(&edge).contains(&victim));
        }
        let answer = connect(&edge).get("/who").unwrap();
        assert_eq!(answer.status, 200, "round {round}");
        drop(holder);
        // Until it is told how the upgrade ended, another process may be yet to come.
        edge.log().wait_from(mark, "the end of the upgrade", |line| {
            (line.contains("\"ready\"") || line.contains("upgrade failed")).then_some(())
        });
        wait_until("one process is left", || processes(&edge).len() == 1);
        wait_until("it says that it serves", || serving(&edge).is_some());
        serves = serving(&edge).unwrap();
        assert_eq!(processes(&edge), [serves], "round {round}");
    }
    kill(serves, Signal::SIGTERM).unwrap();
    wait_until("it leaves", || processes(&edge).is_empty());
}

/// A client whose request the edge has begun to read.
fn held(edge: &Edge) -> Wire<client::Tls> {
    let mut wire = connect(edge);
    let head =
        format!("POST /held HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n");
    wire.send(head).unwrap();
    assert_eq!(wire.exactly(25).unwrap(), b"HTTP/1.1 100 Continue\r\n\r\n");
    wire
}

/// The edge's processes: those that stand in its folder.
fn processes(edge: &Edge) -> Vec<Pid> {
    let numbers =
        fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let own = |pid: &i32| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == edge.folder());
    numbers.filter(own).map(Pid::from_raw).collect()
}

/// The process that answers on the admin socket.
fn serving(edge: &Edge) -> Option<Pid> {
    let socket = edge.folder().join("admin.sock");
    let (code, told, _) = edge::run(&["status", "--socket", &socket.display().to_string()]);
    let line = told.lines().find_map(|line| line.strip_prefix("process "))?;
    (code == Some(0)).then(|| Pid::from_raw(line.trim().parse().unwrap()))
}

/// An ordinary user with one capability, and no root at any moment: as systemd's unit starts it. In a network of its own, where
/// 443 is nobody's.
#[test]
fn one_capability_is_enough_to_start() {
    if !Uid::effective().is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let file = folder.path().join("vestibule.toml");
    let at = folder.path().display();
    let rows = "[ports]\n80 = { serve = \"http\", allow = [\"public\"] }\n443 = { serve = \"https\", allow = [\"public\"] }\n";
    fs::write(
        &file,
        format!(
            "{rows}[[site]]\ndomains = [\"{NAME}\"]\nupstream = \"127.0.0.1:9\"\ncertificate = \"internal\"\n\
             [store]\npath = \"{at}/store\"\n[admin]\nsocket = \"{at}/admin.sock\"\n"
        ),
    )
    .unwrap();
    // Of the capabilities one is left, for the program and for whatever it starts.
    let caps = ["--inh-caps", "--ambient-caps", "--bounding-set"]
        .map(|kind| format!("{kind}=-all,+net_bind_service"));
    let script = format!(
        "ip link set lo up && exec setpriv --reuid=65534 --regid=65534 --clear-groups --no-new-privs {} \"$0\" \"$@\"",
        caps.join(" ")
    );
    let mut command = Command::new("unshare");
    command.args(["-n", "sh", "-c", &script, edge::BINARY, "serve", "--config"]).arg(&file);
    let mut child = command.current_dir(&folder).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let log = crate::support::lines::Lines::follow(child.stderr.take().unwrap());
    log.wait_json(0, "ready", |line| text(line, "message") == "ready");
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    let found =
        |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    // 1 << CAP_NET_BIND_SERVICE
    let seen = (found("Uid:"), found("CapEff:"), found("CapBnd:"), found("NoNewPrivs:"));
    kill(pid, Signal::SIGTERM).unwrap();
    assert!(child.wait().unwrap().success(), "{}", log.all());
    let wanted = ("65534\t65534\t65534\t65534", "0000000000000400", "0000000000000400", "1");
    assert_eq!((seen.0.as_str(), seen.1.as_str(), seen.2.as_str(), seen.3.as_str()), wanted);
    for port in [80, 443] {
        assert!(log.all().contains(&format!(":{port}\"")), "{}", log.all());
    }
}

fn wait_until(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE * 2;
    while !done() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(5)); // other processes tell nobody of their end
    }
}

fn config(upstream: &Upstream) -> String {
    assert!(ROWS.contains(HTTPS));
    format!(
        "{ROWS}\n[[site]]\ndomains = [\"{NAME}\"]\nupstream = \"{}\"\ncertificate = \"internal\"\n",
        upstream.address()
    )
}
