//! Hosts: the server is the namespace that the test runs in, the others are linked to it.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};

use crate::support::PATIENCE;

/// How long a SYN that was dropped is waited for: on these links an answer takes microseconds.
const SILENCE: Duration = Duration::from_millis(1500);

/// A host: its name, and its addresses beside the server's on the link between them.
pub(super) struct Host {
    pub(super) name: &'static str,
    pub(super) own: [&'static str; 2],
    pub(super) server: [&'static str; 2],
}

pub(super) const PUBLIC: Host =
    Host { name: "public", own: ["192.0.2.9", "2001:db8:30::9"], server: ["192.0.2.1", "2001:db8:30::1"] };
pub(super) const OFFICE: Host = Host {
    name: "office",
    own: ["203.0.113.7", "2001:db8:10::7"],
    server: ["203.0.113.1", "2001:db8:10::1"],
};
pub(super) const CI: Host =
    Host { name: "ci", own: ["198.51.100.7", "2001:db8:20::7"], server: ["198.51.100.1", "2001:db8:20::1"] };

/// Links the hosts to the server, which routes between them.
pub(super) fn build(hosts: &[&Host]) {
    for family in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        fs::write(format!("/proc/sys/net/{family}"), "1").unwrap();
    }
    for host in hosts {
        let name = host.name;
        sh(&format!("ip netns add {name} && ip link add to-{name} type veth peer name eth0 netns {name}"));
        sh(&format!(
            "ip -n {name} link set lo up && ip -n {name} link set eth0 up && ip link set to-{name} up"
        ));
        for ((own, server), width) in host.own.iter().zip(host.server).zip([24, 64]) {
            let nodad = if width == 64 { "nodad" } else { "" };
            sh(&format!("ip addr add {server}/{width} dev to-{name} {nodad}"));
            sh(&format!("ip -n {name} addr add {own}/{width} dev eth0 {nodad}"));
            sh(&format!("ip -n {name} route add default via {server}"));
        }
    }
}

#[track_caller]
pub(super) fn sh(script: &str) -> String {
    let output = Command::new("sh").args(["-ec", script]).output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {told}");
    told.into_owned()
}

/// Does something on a host's network.
pub(super) fn on<T: Send>(host: &str, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let place = File::open(Path::new("/run/netns").join(host)).unwrap();
            setns(place, CloneFlags::CLONE_NEWNET).unwrap();
            work()
        });
        thread.join().unwrap()
    })
}

/// Whether a host can connect. `expected` is how long it is waited for, and nothing else.
pub(super) fn connects(host: &str, to: &str, port: u16, expected: bool) -> bool {
    let to = SocketAddr::new(to.parse().unwrap(), port);
    let patience = if expected { PATIENCE } else { SILENCE };
    on(host, || TcpStream::connect_timeout(&to, patience).is_ok())
}

/// Whether a host's datagram is answered.
pub(super) fn answers(host: &str, to: &str, port: u16, expected: bool) -> bool {
    let to = SocketAddr::new(to.parse().unwrap(), port);
    on(host, || {
        let own: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
        let socket = UdpSocket::bind((own, 0)).unwrap();
        socket.set_read_timeout(Some(if expected { PATIENCE } else { SILENCE })).unwrap();
        socket.send_to(b"?", to).unwrap();
        socket.recv(&mut [0; 8]).is_ok()
    })
}

/// Listens on every address of a host, and says `word` to whoever connects. For as long as the test runs.
pub(super) fn listen(host: Option<&str>, port: u16, word: &'static str) {
    let bind = || TcpListener::bind(SocketAddr::from(([0_u16; 8], port))).unwrap();
    let listener = host.map_or_else(bind, |host| on(host, bind));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.map(|mut stream| stream.write_all(word.as_bytes()));
        }
    });
}

/// Answers datagrams on every address of the server.
pub(super) fn echo(port: u16) {
    let socket = UdpSocket::bind(SocketAddr::from(([0_u16; 8], port))).unwrap();
    std::thread::spawn(move || {
        let mut room = [0; 8];
        while let Ok((length, from)) = socket.recv_from(&mut room) {
            let _ = socket.send_to(&room[..length], from);
        }
    });
}

/// What a host hears that connects.
pub(super) fn hears(host: &str, to: &str, port: u16) -> String {
    let to = SocketAddr::new(to.parse().unwrap(), port);
    on(host, || {
        let mut stream = TcpStream::connect_timeout(&to, PATIENCE).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut told = vec![0; 64];
        let length = stream.read(&mut told).unwrap();
        String::from_utf8_lossy(&told[..length]).into_owned()
    })
}

/// A real sshd on the server, for one key.
pub(super) struct Sshd {
    child: Child,
    folder: PathBuf,
}

impl Sshd {
    pub(super) fn start(folder: &Path) -> Self {
        fs::create_dir_all("/run/sshd").unwrap();
        for key in ["host", "user"] {
            sh(&format!("ssh-keygen -q -t ed25519 -N '' -f {}/{key}", folder.display()));
        }
        let at = folder.display();
        let config = format!(
            "Port 22\nHostKey {at}/host\nAuthorizedKeysFile {at}/user.pub\nStrictModes no\nUsePAM no\n\
             PermitRootLogin yes\nPidFile none\nPasswordAuthentication no\n"
        );
        fs::write(folder.join("sshd_config"), config).unwrap();
        let mut command = Command::new("/usr/sbin/sshd");
        command.args(["-D", "-e", "-f"]).arg(folder.join("sshd_config")).stdin(Stdio::null());
        let child = command.stderr(File::create(folder.join("sshd.log")).unwrap()).spawn().unwrap();
        let log = folder.join("sshd.log");
        let deadline = std::time::Instant::now() + PATIENCE;
        while !fs::read_to_string(&log).unwrap().contains("listening on :: port 22") {
            assert!(std::time::Instant::now() < deadline, "{}", fs::read_to_string(&log).unwrap());
            std::thread::yield_now();
        }
        Self { child, folder: folder.to_owned() }
    }

    /// Logs in from a host and runs a command: whether that worked, and what it said.
    pub(super) fn login(&self, host: &Host, seconds: u64, command: &str) -> (bool, String) {
        self.login_by(&[], host, seconds, command)
    }

    /// The same, with more options of ssh's.
    pub(super) fn login_by(&self, more: &[&str], host: &Host, seconds: u64, command: &str) -> (bool, String) {
        let at = self.folder.display();
        let output = Command::new("ip")
            .args(["netns", "exec", host.name, "ssh", "-F", "none", "-i", &format!("{at}/user")])
            .args([
                "-o",
                "StrictHostKeyChecking=no",
                "-o",
                "UserKnownHostsFile=/dev/null",
                "-o",
                "LogLevel=ERROR",
            ])
            .args(["-o", &format!("ConnectTimeout={seconds}"), "-o", "BatchMode=yes"])
            .args(more)
            .args([&format!("root@{}", host.server[0]), command])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        (output.status.success(), told.into_owned())
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
