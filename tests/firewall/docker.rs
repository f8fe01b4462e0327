//! Ports that containers publish, by a Docker engine of the test's own: its NAT is in the test's network, and nowhere else.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::hosts::{CI, Host, OFFICE, PUBLIC, build, hears, sh};
use super::in_namespaces;
use super::matrix::{apply, vestibule, wrong_cells};
use crate::support::PATIENCE;

/// The containers listen on 8080, for which there is a row that means something else: the port outside is what counts.
const CONFIG: &str = r#"
[sources]
internal = ["203.0.113.0/24", "2001:db8:10::/48"]
ci = ["198.51.100.7", "2001:db8:20::7"]

[ports]
443 = { serve = "https", allow = ["public"] }
8080 = { host = true, allow = ["public"] }
9001 = { host = true, allow = ["internal"] }
9002 = { host = true, allow = ["internal", "ci"] }
9003 = { host = true, allow = ["public"] }

[[site]]
domains = ["app.test"]
upstream = "127.0.0.1:9"
certificate = "internal"
"#;

/// Port, and who reaches it: public, office, CI. Every one is published, and 9004 has no row.
const EXPECTED: &[(u16, [bool; 3])] = &[
    (9001, [false, true, false]),
    (9002, [false, true, true]),
    (9003, [true, true, true]),
    (9004, [false, false, false]),
];

#[test]
#[ignore = "needs a Docker engine: make test-containers"]
fn published_ports_go_by_the_table() {
    in_namespaces("firewall::docker::published");
}

#[test]
#[ignore = "run by the test above"]
fn published() {
    build(&[&PUBLIC, &OFFICE, &CI]);
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("vestibule.toml");
    fs::write(&config, CONFIG).unwrap();
    let mut engine = Engine::start();
    engine.publish("one", &[9001, 9002, 9003, 9004]);
    assert_eq!(wrong_cells(EXPECTED, true), Vec::<String>::new(), "without rules, everything is open");

    apply(&config);
    assert_eq!(wrong_cells(EXPECTED, false), Vec::<String>::new());
    for host in [&PUBLIC, &OFFICE, &CI] {
        for (own, to) in host.own.into_iter().zip(host.server) {
            assert_eq!(seen_from(host, to), own, "the container sees who it is");
        }
    }

    // Whatever Docker changes in its own rules, these decide before them.
    engine.docker("restart --time 0 one");
    engine.docker("network create other");
    engine.publish("two", &[9005]);
    let nobody = [EXPECTED, &[(9005, [false; 3])]].concat();
    assert_eq!(wrong_cells(&nobody, false), Vec::<String>::new(), "after a restart and a new container");
    engine.restart();
    engine.docker("start one two");
    assert_eq!(wrong_cells(&nobody, false), Vec::<String>::new(), "after the engine's restart");
    assert_eq!(vestibule(&["--diff"], &config).0, Some(0));
}

/// The address that a container sees when a host connects to the row for everyone.
fn seen_from(host: &Host, to: &str) -> String {
    hears(host.name, to, 9003)
}

/// A running engine. Dropping it ends its containers, and it.
struct Engine {
    child: Child,
    folder: TempDir,
}

impl Engine {
    fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("vestibule-docker-").tempdir().unwrap();
        let settings =
            r#"{"ipv6": true, "fixed-cidr-v6": "fd00:31::/64", "ip6tables": true, "experimental": true}"#;
        fs::write(folder.path().join("daemon.json"), settings).unwrap();
        let engine = Self { child: spawn(folder.path()), folder };
        engine.wait();
        engine.make_image();
        engine
    }

    fn restart(&mut self) {
        self.stop();
        self.child = spawn(self.folder.path());
        self.wait();
    }

    fn wait(&self) {
        let deadline = Instant::now() + PATIENCE;
        while !self.asks("info").status.success() {
            let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "the engine does not answer: {log}");
            std::thread::sleep(Duration::from_millis(100)); // it tells nobody
        }
    }

    /// Nothing but the places where this machine's own programs are to be seen.
    fn make_image(&self) {
        let root = self.folder.path().join("image");
        fs::create_dir(&root).unwrap();
        for name in ["bin", "lib", "lib64"] {
            std::os::unix::fs::symlink(format!("usr/{name}"), root.join(name)).unwrap();
        }
        sh(&format!("tar -C {} -c . | docker -H {} import - this-machine", root.display(), self.socket()));
    }

    /// Starts a container that says to whoever connects who that is.
    fn publish(&self, name: &str, ports: &[u16]) {
        let published: Vec<String> = ports.iter().map(|port| format!("-p {port}:8080")).collect();
        self.docker(&format!(
            "run -d --name {name} {} -v /usr:/usr:ro this-machine /usr/bin/python3 -c '{SERVER}'",
            published.join(" ")
        ));
        let deadline = Instant::now() + PATIENCE;
        while !self.docker(&format!("logs {name}")).contains("listening") {
            assert!(Instant::now() < deadline, "{name} does not listen");
            std::thread::sleep(Duration::from_millis(50)); // Docker's port is open before the container's
        }
    }

    #[track_caller]
    fn docker(&self, words: &str) -> String {
        let output = self.asks(words);
        let told = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "docker {words}: {told}");
        told.into_owned()
    }

    fn asks(&self, words: &str) -> std::process::Output {
        Command::new("sh").args(["-ec", &format!("docker -H {} {words}", self.socket())]).output().unwrap()
    }

    fn socket(&self) -> String {
        format!("unix://{}/socket", self.folder.path().display())
    }

    fn stop(&mut self) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), Signal::SIGTERM).unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = self.asks("rm -f one two");
        self.stop();
    }
}

fn spawn(folder: &Path) -> Child {
    let at = folder.display();
    let log = File::options().create(true).append(true).open(folder.join("log")).unwrap();
    let mut command = Command::new("/usr/sbin/dockerd");
    command.args(["--config-file", &format!("{at}/daemon.json"), "-H", &format!("unix://{at}/socket")]);
    command.args(["--data-root", &format!("{at}/data"), "--exec-root", "/run/docker-test"]);
    command.args(["--pidfile", &format!("{at}/pid"), "--storage-driver", "vfs"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap()
}

const SERVER: &str = r#"import socket
server = socket.create_server(("::", 8080), family=socket.AF_INET6, dualstack_ipv6=True)
print("listening", flush=True)
while True:
    client, peer = server.accept()
    client.sendall(peer[0].removeprefix("::ffff:").encode())
    client.close()"#;
