//! A real sshd behind a forward row: the server speaks first, and files go through whole.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use tempfile::TempDir;

use super::*;
use crate::support::port::Port;

/// A running sshd that takes one key. Dropping it ends it.
struct Server {
    child: Child,
    folder: TempDir,
    port: Port,
}

impl Server {
    fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("vestibule-ssh-").tempdir().unwrap();
        for key in ["host", "user"] {
            let mut keygen = Command::new("ssh-keygen");
            keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(folder.path().join(key));
            assert!(keygen.status().unwrap().success());
        }
        let port = Port::reserve();
        let at = folder.path().display();
        let config = format!(
            "ListenAddress 127.0.0.1\nPort {}\nHostKey {at}/host\nAuthorizedKeysFile {at}/user.pub\n\
             StrictModes no\nUsePAM no\nPidFile none\nPermitRootLogin prohibit-password\nPasswordAuthentication no\n\
             Subsystem sftp internal-sftp\n",
            port.number()
        );
        fs::write(folder.path().join("config"), config).unwrap();
        if nix::unistd::geteuid().is_root() {
            fs::create_dir_all("/run/sshd").unwrap();
        }
        let mut sshd = Command::new("/usr/sbin/sshd");
        sshd.arg("-D").arg("-e").arg("-f").arg(folder.path().join("config"));
        let child = sshd.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let server = Self { child, folder, port };
        let end = Instant::now() + PATIENCE;
        while TcpStream::connect(server.port.address()).is_err() {
            assert!(Instant::now() < end, "sshd does not listen");
            std::thread::sleep(Duration::from_millis(5)); // it says so nowhere that a test could wait for
        }
        server
    }

    fn options(&self, address: SocketAddr) -> Vec<String> {
        let at = self.folder.path().display();
        let known = self.folder.path().join("known");
        let host = fs::read_to_string(self.folder.path().join("host.pub")).unwrap();
        fs::write(&known, format!("[{}]:{} {host}", address.ip(), address.port())).unwrap();
        fs::set_permissions(self.folder.path().join("user"), fs::Permissions::from_mode(0o600)).unwrap();
        ["-F", "none", "-i", &format!("{at}/user"), "-o", &format!("UserKnownHostsFile={at}/known")]
            .into_iter()
            .chain(["-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes"])
            .map(str::to_owned)
            .collect()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[track_caller]
fn done(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn ssh_and_scp_work_through_a_row() {
    let server = Server::start();
    let edge = Edge::start(&row(&format!("forward = \"{}\", allow = [\"here\"]", server.port.address())));
    let address = edge.address(ROW);
    let (options, port) = (server.options(address), address.port().to_string());
    let host = address.ip().to_string();
    let told = done(Command::new("ssh").args(&options).args(["-p", &port, &host, "echo through the row"]));
    assert_eq!(told, "through the row\n");
    let big: Vec<u8> = (0..8_000_000_u32).map(|at| at.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    fs::write(server.path("big"), &big).unwrap();
    let there = format!("{host}:{}", server.path("there").display());
    let copy = |from: &Path, to: &str| {
        done(Command::new("scp").args(&options).args(["-q", "-P", &port]).arg(from).arg(to));
    };
    copy(&server.path("big"), &there);
    copy(Path::new(&there), server.path("back").to_str().unwrap());
    assert!(fs::read(server.path("back")).unwrap() == big);
}
