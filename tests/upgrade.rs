//! Upgrades: another process goes on with the very sockets, and whatever goes wrong leaves one that serves.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustls::HandshakeKind;
use rustls::pki_types::ServerName;

use crate::support::client::{self, NAME, Wire, connect};
use crate::support::edge::{self, Edge, HTTPS, ROWS};
use crate::support::h2client::H2Client;
use crate::support::lines::text;
use crate::support::port::Port;
use crate::support::upstream::{Then, Upstream};
use crate::support::{PATIENCE, program, websocket};

const UPGRADES: usize = 20;

#[test]
fn twenty_upgrades_and_ten_that_fail_cost_no_request() {
    let upstream = upstream();
    let mut edge = Edge::start_linked(&config(&upstream, "5s"), &[]);
    let descriptors = edge.descriptors();
    let mut sockets: Vec<_> = (0..4).map(|_| open_websocket(&edge)).collect();
    let load = Load::new(&edge);
    std::thread::scope(|scope| {
        scope.spawn(|| load.run("keep-alive", |load| keep_alive(load, "GET", "")));
        scope.spawn(|| load.run("uploads", |load| keep_alive(load, "POST", &"x".repeat(200_000))));
        scope.spawn(|| load.run("new connections", |load| load.connect()?.get("/load").map(drop)));
        scope.spawn(|| load.run("HTTP/2", over_h2));
        let stop = StopOnDrop(&load.stop);
        for round in 1..=UPGRADES {
            if round % 2 == 0 {
                edge.replace_program("exit 3");
                edge.upgrade().unwrap_err();
                edge.restore_program();
            }
            let before = edge.pid();
            assert_ne!(edge.upgrade().unwrap(), before, "upgrade {round}");
            if round == 1 {
                // The old process has what it had, until `grace` is over.
                for socket in &mut sockets {
                    echoes(socket);
                }
            }
        }
        drop(stop);
    });
    assert_eq!(load.failures.lock().unwrap().as_slice(), [] as [String; 0]);
    assert!(load.requests.load(Ordering::SeqCst) > UPGRADES * 4, "{:?}", load.requests);
    wait_until("the others have left", || edge.processes().len() == 1);
    edge.wait_until_no_client();
    // The way to the one before, and what is pooled to the upstream; one for each upgrade would be more.
    assert!(
        edge.descriptors() < descriptors + 10,
        "{} descriptors, {descriptors} before",
        edge.descriptors()
    );
}

#[test]
fn a_websocket_lives_until_grace_is_over() {
    let upstream = upstream();
    let mut edge = Edge::start_linked(&config(&upstream, "2s"), &[]);
    let mut socket = open_websocket(&edge);
    edge.upgrade().unwrap();
    echoes(&mut socket);
    assert!(edge.wait_first().success());
    socket.rest().unwrap();
    assert_eq!(connect(&edge).get("/load").unwrap().text(), "GET /load");
}

/// Whatever stands in the program's place: the old process goes on, and says why.
#[test]
fn programs_that_cannot_take_over_leave_the_old_one() {
    let upstream = upstream();
    let mut edge = Edge::start_linked(&config(&upstream, "10s"), &[]);
    let program = edge.folder().join("program");
    let mut client = connect(&edge);
    for (script, expected) in [
        ("exit 3", "left with exit code 3 before it was ready"),
        ("kill -SEGV $$", "was ended by SIGSEGV before it was ready"),
        ("exec /bin/true", "left with exit code 0 before it was ready"),
        ("exec /no/such/program", "left with exit code 127 before it was ready"),
    ] {
        edge.replace_program(script);
        let why = edge.upgrade().unwrap_err();
        assert!(why.ends_with(expected), "{script}: {why}");
        assert!(status(&edge).contains(expected), "{}", status(&edge));
        assert_eq!(client.get("/load").unwrap().status, 200);
    }
    edge.put_program(b"\x7fELF\x02\x01\x01\0of another machine");
    let why = edge.upgrade().unwrap_err();
    assert!(why.contains("is not a program for this machine's architecture"), "{why}");
    std::fs::remove_file(&program).unwrap();
    let why = edge.upgrade().unwrap_err();
    assert!(why.contains("cannot be started: No such file or directory"), "{why}");
    assert_eq!(client.get("/load").unwrap().status, 200);
    std::fs::write(&program, "").unwrap();
    edge.restore_program();
    edge.write_config(&config(&upstream, "10s").replace("upstream =", "upstraem ="));
    let why = edge.upgrade().unwrap_err();
    assert!(why.contains("did you mean \"upstream\"") || why.contains("upstraem"), "{why}");
    assert_eq!(client.get("/load").unwrap().status, 200);
    assert_eq!(edge.processes(), [edge.pid()]);
    edge.write_config(&config(&upstream, "10s"));
    edge.upgrade().unwrap();
    assert!(!status(&edge).contains("upgrade"), "{}", status(&edge));
}

#[test]
fn a_program_that_hangs_is_ended() {
    let upstream = upstream();
    let mut edge = Edge::start_linked(&config(&upstream, "10s"), &[]);
    edge.replace_program("exec sleep 1000");
    let why = edge.upgrade().unwrap_err();
    assert!(why.contains("was not ready within"), "{why}");
    assert_eq!(edge.processes(), [edge.pid()]);
    assert_eq!(connect(&edge).get("/load").unwrap().status, 200);
}

#[test]
fn a_second_upgrade_is_refused_while_one_is_under_way() {
    let upstream = upstream();
    let mut edge = Edge::start_linked(&config(&upstream, "10s"), &[]);
    let (go, mark) = (edge.folder().join("go"), edge.log().mark());
    edge.replace_program(&slow(&edge));
    edge.signal(Signal::SIGUSR2);
    wait_for_message(&edge, mark, "upgrade: a new process prepares itself");
    assert!(status(&edge).contains("under way"), "{}", status(&edge));
    edge.signal(Signal::SIGUSR2);
    wait_for_message(&edge, mark, "USR2: refused, for an upgrade is under way already");
    edge.signal(Signal::SIGHUP);
    wait_for_message(&edge, mark, "reload refused: an upgrade is under way");
    std::fs::write(go, "").unwrap();
    edge.upgraded(mark).unwrap();
}

#[test]
fn whoever_is_killed_the_other_serves() {
    let upstream = upstream();
    // The new one, before it is ready.
    let mut edge = Edge::start_linked(&config(&upstream, "10s"), &[]);
    edge.replace_program(&slow(&edge));
    let mark = edge.log().mark();
    edge.signal(Signal::SIGUSR2);
    let new = prepared(&edge, mark);
    kill(new, Signal::SIGKILL).unwrap();
    let why = edge.upgraded(mark).unwrap_err();
    assert!(why.ends_with("was ended by SIGKILL before it was ready"), "{why}");
    assert_eq!(connect(&edge).get("/load").unwrap().status, 200);

    // The old one, before the new one is ready.
    let mark = edge.log().mark();
    edge.signal(Signal::SIGUSR2);
    prepared(&edge, mark);
    edge.signal(Signal::SIGKILL);
    std::fs::write(edge.folder().join("go"), "").unwrap();
    edge.upgraded(mark).unwrap();
    assert_eq!(connect(&edge).get("/load").unwrap().status, 200);
    assert!(status(&edge).contains(&edge.pid().to_string()), "{}", status(&edge));

    // The old one, while it finishes what it has.
    edge.restore_program();
    let (_socket, old) = (open_websocket(&edge), edge.pid());
    edge.upgrade().unwrap();
    kill(old, Signal::SIGKILL).unwrap();
    assert_eq!(connect(&edge).get("/load").unwrap().status, 200);
}

/// The old process has kept its sockets, and serves again on them.
#[test]
fn a_new_process_that_dies_is_replaced_by_the_old_one() {
    let upstream = upstream();
    let mut edge = Edge::start_linked(&config(&upstream, "60s"), &[]);
    let mut socket = open_websocket(&edge);
    for _ in 0..2 {
        let mark = edge.log().mark();
        let new = edge.upgrade().unwrap();
        assert_eq!(connect(&edge).get("/load").unwrap().status, 200);
        kill(new, Signal::SIGKILL).unwrap();
        wait_for_message(&edge, mark, "the process that took over is no more: this one serves again");
        edge.serve_first_again();
        assert_eq!(connect(&edge).get("/load").unwrap().status, 200);
        echoes(&mut socket);
        assert!(status(&edge).contains(&edge.first_pid().to_string()), "{}", status(&edge));
    }
    edge.upgrade().unwrap();
    assert_eq!(connect(&edge).get("/load").unwrap().status, 200);
    drop(socket);
    assert!(edge.wait_first().success());
}

/// A package manager puts the new file in the place of the old one.
#[test]
fn the_program_at_the_same_path_is_started() {
    let upstream = upstream();
    let mut edge = Edge::start_linked(&config(&upstream, "10s"), &[]);
    let place = edge.folder().join("program");
    for round in 0..2 {
        let new = edge.folder().join("new");
        program::copy(Path::new(edge::BINARY), &new);
        std::fs::rename(&new, &place).unwrap();
        let pid = edge.upgrade().unwrap();
        let runs = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap();
        assert_eq!(runs, place, "upgrade {round}");
    }
}

#[test]
fn sessions_are_resumed_by_the_new_process() {
    let upstream = upstream();
    let mut edge = Edge::start_linked(&config(&upstream, "10s"), &[]);
    let config = client::config(&edge.ca(), &[b"http/1.1"]);
    let shake = |edge: &Edge| {
        let name = ServerName::try_from(NAME).unwrap();
        let connection = rustls::ClientConnection::new(Arc::clone(&config), name).unwrap();
        let stream = rustls::StreamOwned::new(connection, client::tcp(edge.https()).unwrap());
        let mut wire = Wire::new(stream);
        wire.get("/load").unwrap();
        wire.handshake_kind()
    };
    assert_ne!(shake(&edge), Some(HandshakeKind::Resumed));
    for _ in 0..2 {
        edge.upgrade().unwrap();
        assert_eq!(shake(&edge), Some(HandshakeKind::Resumed));
    }
}

/// Sockets that are more than workers are accepted from all the same; rows come and go.
#[test]
fn workers_and_rows_may_differ() {
    let upstream = upstream();
    let with = |workers: usize, rows: &str| {
        config(&upstream, "10s")
            .replace("[process]", &format!("[process]\nworkers = {workers}"))
            .replace("[ports]", &format!("[ports]\n{rows}"))
    };
    let mut edge = Edge::start_linked(&with(3, ""), &[]);
    let address = edge.https();
    for (workers, rows) in [
        (1, "\"127.0.0.3:0\" = { serve = \"https\", allow = [\"public\"] }"),
        (4, ""),
        (2, "\"127.0.0.4:0\" = { serve = \"http\", allow = [\"public\"] }"),
    ] {
        edge.write_config(&with(workers, rows));
        edge.upgrade().unwrap();
        for _ in 0..24 {
            assert_eq!(connect(&edge).get("/load").unwrap().status, 200, "{workers} workers");
        }
        assert!(status(&edge).contains(&format!("workers       {workers}\n")), "{}", status(&edge));
        assert!(status(&edge).contains(&address.to_string()), "{}", status(&edge));
    }
}

/// What was said by command holds for the new process too.
#[test]
fn a_drained_upstream_stays_drained() {
    let upstream = upstream();
    let mut edge = Edge::start_linked(&config(&upstream, "10s"), &[]);
    let (socket, name) = (edge.folder().join("admin.sock"), upstream.address().to_string());
    let (code, _, err) = edge::run(&["drain", &name, "--socket", &socket.display().to_string()]);
    assert_eq!(code, Some(0), "{err}");
    let drained =
        |edge: &Edge| status(edge).lines().find(|line| line.starts_with("upstream")).unwrap().to_owned();
    assert!(drained(&edge).contains("drained"), "{}", drained(&edge));
    edge.upgrade().unwrap();
    assert!(drained(&edge).contains("drained"), "{}", drained(&edge));
}

/// `sd_notify(3)`, and the watchdog.
#[test]
fn a_service_manager_is_told() {
    let upstream = upstream();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    let (sender, messages) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok(count) = manager.recv(&mut buffer) {
            if sender.send(String::from_utf8_lossy(&buffer[..count]).into_owned()).is_err() {
                return;
            }
        }
    });
    let deadline = Instant::now() + PATIENCE * 3;
    let any = || messages.recv_timeout(deadline.saturating_duration_since(Instant::now())).unwrap();
    let next = || std::iter::repeat_with(any).find(|told| told != "WATCHDOG=1").unwrap();
    let watchdog = [("NOTIFY_SOCKET", path.as_path()), ("WATCHDOG_USEC", Path::new("100000"))];
    let mut edge = Edge::start_linked(&config(&upstream, "10s"), &watchdog);
    assert_eq!(next(), "READY=1\nSTATUS=serving: sites 1, ports 2, generation 1");
    assert_eq!(any(), "WATCHDOG=1");
    assert!(edge.reload());
    assert!(next().starts_with("RELOADING=1\nMONOTONIC_USEC="));
    assert_eq!(next(), "READY=1\nSTATUS=serving: sites 1, ports 2, generation 2");
    edge.write_config("nonsense");
    assert!(!edge.reload());
    assert!(next().starts_with("RELOADING=1\n"));
    assert!(next().starts_with("READY=1\nSTATUS=a reload was refused"));
    edge.upgrade().unwrap_err();
    assert!(next().starts_with("STATUS=an upgrade failed at "));
    edge.write_config(&config(&upstream, "10s"));
    let pid = edge.upgrade().unwrap();
    assert!(next().starts_with(&format!("MAINPID={pid}\n")));
    assert!(next().starts_with("READY=1\n"), "the new process speaks for itself");
    edge.signal(Signal::SIGTERM);
    assert!(next().starts_with("STOPPING=1\n"));
}

/// What `sd_listen_fds(3)` describes: a process binds and becomes the edge.
#[test]
fn sockets_of_a_service_manager_are_taken_by_their_addresses() {
    let upstream = upstream();
    let ports = [Port::reserve(), Port::reserve()];
    let [ours, stray] = ports.each_ref().map(Port::address);
    let program = format!(
        r#"
import os, socket, sys
wanted = [("127.0.0.1", {}), ("127.0.0.1", {})]
sockets = [socket.create_server(address) for address in wanted]
high = [os.dup2(one.fileno(), 100 + at) for at, one in enumerate(sockets)]
for at, number in enumerate(high):
    os.dup2(number, 3 + at)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="2", LISTEN_FDNAMES="https:other")
os.execv(sys.argv[1], sys.argv[1:])
"#,
        ours.port(),
        stray.port()
    );
    let config = config(&upstream, "10s")
        .replace(HTTPS, &ours.to_string())
        .replace("[process]", "[process]\nworkers = 3");
    let mut edge = Edge::start_behind(&["python3", "-c", &program], &config);
    let request = |edge: &Edge| {
        let tls = client::tls(edge.address(&ours.to_string()), &edge.ca(), NAME, &[b"http/1.1"]).unwrap();
        assert_eq!(Wire::new(tls).get("/load").unwrap().status, 200);
    };
    let told = edge.log().wait_json(0, "the socket that no row is for", |line| {
        text(line, "message").contains("no row of [ports] listens there")
    });
    assert!(told.to_string().contains(&stray.to_string()), "{told}");
    (0..12).for_each(|_| request(&edge));
    edge.upgrade().unwrap();
    (0..12).for_each(|_| request(&edge));
}

/// A program that waits for the file `go` before it is the edge.
fn slow(edge: &Edge) -> String {
    let (folder, program) = (edge.folder().display(), edge::BINARY);
    // Without its folder it goes on, and ends: a test that failed leaves nothing behind.
    format!("while [ -d {folder} ] && [ ! -e {folder}/go ]; do sleep 0.02; done; exec {program} \"$@\"")
}

/// Waits until a new process was started, and tells which.
fn prepared(edge: &Edge, mark: usize) -> Pid {
    let line = edge.log().wait_json(mark, "a new process", |line| {
        text(line, "message") == "upgrade: a new process prepares itself"
    });
    Pid::from_raw(text(&line, "pid").parse().unwrap())
}

fn wait_for_message(edge: &Edge, mark: usize, message: &str) {
    edge.log().wait_json(mark, message, |line| text(line, "message") == message);
}

fn wait_until(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(5)); // other processes tell nobody of their end
    }
}

fn status(edge: &Edge) -> String {
    let socket = edge.folder().join("admin.sock");
    let (code, out, err) = edge::run(&["status", "--socket", &socket.display().to_string()]);
    assert_eq!(code, Some(0), "{err}");
    out
}

fn open_websocket(edge: &Edge) -> Wire<client::Tls> {
    let mut socket = connect(edge);
    let fields = websocket::UPGRADE;
    assert_eq!(socket.ask(format!("GET /ws HTTP/1.1\r\nHost: {NAME}\r\n{fields}\r\n")).unwrap().status, 101);
    socket
}

fn echoes(socket: &mut Wire<client::Tls>) {
    socket.send(b"still here").unwrap();
    assert_eq!(socket.exactly(10).unwrap(), b"still here");
}

/// Echoes what comes over a WebSocket, and answers requests with what they are.
fn upstream() -> Upstream {
    Upstream::start(|seen, stream| {
        if seen.target != "/ws" {
            let body = format!("{} {}", seen.method, seen.target);
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())?;
            return Ok(Then::Keep);
        }
        write!(
            stream,
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {}\r\n\r\n",
            websocket::ACCEPT
        )?;
        let mut octets = [0; 64];
        loop {
            match stream.read(&mut octets)? {
                0 => return Ok(Then::Close),
                count => stream.write_all(&octets[..count])?,
            }
        }
    })
}

/// Requests without a pause until it is told to stop.
struct Load {
    address: std::net::SocketAddr,
    ca: std::path::PathBuf,
    stop: AtomicBool,
    requests: AtomicUsize,
    failures: Mutex<Vec<String>>,
}

impl Load {
    fn new(edge: &Edge) -> Self {
        Self {
            address: edge.https(),
            ca: edge.ca(),
            stop: AtomicBool::new(false),
            requests: AtomicUsize::new(0),
            failures: Mutex::default(),
        }
    }

    fn run(&self, kind: &str, serve: impl Fn(&Self) -> std::io::Result<()>) {
        while !self.stop.load(Ordering::SeqCst) {
            if let Err(error) = serve(self) {
                self.failures.lock().unwrap().push(format!("{kind}: {error}"));
                return;
            }
            self.requests.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn connect(&self) -> std::io::Result<Wire<client::Tls>> {
        Ok(Wire::new(client::tls(self.address, &self.ca, NAME, &[b"http/1.1"])?))
    }
}

/// One connection for as long as the edge keeps it: it says when it will not.
fn keep_alive(load: &Load, method: &str, body: &str) -> std::io::Result<()> {
    let mut wire = load.connect()?;
    while !load.stop.load(Ordering::SeqCst) {
        let length = body.len();
        let answer = wire.ask(format!(
            "{method} /load HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: {length}\r\n\r\n{body}"
        ))?;
        if answer.status != 200 {
            return Err(std::io::Error::other(format!("{answer:?}")));
        }
        load.requests.fetch_add(1, Ordering::SeqCst);
        if answer.header("connection") == Some("close") {
            return Ok(());
        }
    }
    Ok(())
}

/// One connection until the edge says that it takes no more on it (RFC 9113 section 6.8).
fn over_h2(load: &Load) -> std::io::Result<()> {
    let mut client = H2Client::connect(load.address, &load.ca, NAME)?;
    while !load.stop.load(Ordering::SeqCst) {
        let request = Request::get(format!("https://{NAME}/load")).body(()).unwrap();
        match client.ask(request, Bytes::new()) {
            Ok(answer) if answer.status == 200 => load.requests.fetch_add(1, Ordering::SeqCst),
            Ok(answer) => return Err(std::io::Error::other(format!("{answer:?}"))),
            Err(error) if was_told_to_go(&error) => return Ok(()),
            Err(error) => return Err(error),
        };
    }
    Ok(())
}

fn was_told_to_go(error: &std::io::Error) -> bool {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<h2::Error>());
    cause.is_some_and(|cause| cause.is_go_away() && cause.reason() == Some(h2::Reason::NO_ERROR))
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn config(upstream: &Upstream, grace: &str) -> String {
    format!(
        r#"{ROWS}
[process]
grace = "{grace}"

[[site]]
domains = ["{NAME}"]
upstream = "{}"
certificate = "internal"
"#,
        upstream.address()
    )
}
