//! The real edge, as a child process with its own folder.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use super::lines::{Lines, text};
use super::{PATIENCE, program};

/// An https and an http row on loopback addresses, ports chosen by the kernel.
pub(crate) const ROWS: &str = r#"
[ports]
"127.0.0.1:0" = { serve = "https", allow = ["public"] }
"127.0.0.2:0" = { serve = "http", allow = ["public"] }
"#;

/// The row of [`ROWS`] that speaks https.
pub(crate) const HTTPS: &str = "127.0.0.1:0";
/// The row of [`ROWS`] that redirects.
pub(crate) const HTTP: &str = "127.0.0.2:0";

/// A running edge. Dropping it kills the process, and those that took over from it.
pub(crate) struct Edge {
    child: Child,
    /// The process that serves now, after an upgrade.
    successor: Option<Pid>,
    folder: TempDir,
    log: Lines,
    access: Lines,
    rows: Vec<(String, SocketAddr)>,
}

impl Edge {
    /// Starts an edge on this configuration, and waits until it is ready. `[store]`, `[admin]` and `[log]`
    /// are added, so that everything it writes stays in its own folder.
    #[track_caller]
    pub(crate) fn start(config: &str) -> Self {
        Self::start_with(config, &[])
    }

    /// The same, with more in its environment.
    #[track_caller]
    pub(crate) fn start_with(config: &str, environment: &[(&str, &Path)]) -> Self {
        let folder = tempfile::Builder::new().prefix("vestibule-test-").tempdir().unwrap();
        write_config(folder.path(), config);
        Self::start_in(folder, environment)
    }

    /// Starts an edge from a link in its folder, `program`, that may lead elsewhere at the next upgrade.
    #[track_caller]
    pub(crate) fn start_linked(config: &str, environment: &[(&str, &Path)]) -> Self {
        let folder = tempfile::Builder::new().prefix("vestibule-test-").tempdir().unwrap();
        write_config(folder.path(), config);
        let program = folder.path().join("program");
        std::os::unix::fs::symlink(BINARY, &program).unwrap();
        let mut command = command_of(&program, folder.path());
        command.envs(environment.iter().copied());
        Self::start_as(folder, command)
    }

    /// The same behind another program, which is given the edge's own command line.
    #[track_caller]
    pub(crate) fn start_behind(wrapper: &[&str], config: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("vestibule-test-").tempdir().unwrap();
        write_config(folder.path(), config);
        let mut command = command_of(Path::new(wrapper[0]), folder.path());
        let arguments: Vec<_> = command.get_args().map(std::ffi::OsStr::to_owned).collect();
        command = Command::new(wrapper[0]);
        command.args(&wrapper[1..]).arg(BINARY).args(arguments);
        command.current_dir(folder.path()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self::start_as(folder, command)
    }

    /// Puts a shell script in the program's place.
    pub(crate) fn replace_program(&self, script: &str) {
        self.put_program(format!("#!/bin/sh\n{script}\n"));
    }

    /// Puts these bytes in the program's place.
    pub(crate) fn put_program(&self, content: impl AsRef<[u8]>) {
        let new = self.folder().join("new");
        program::write(&new, content);
        fs::rename(new, self.folder().join("program")).unwrap();
    }

    /// Puts the real program back in its place.
    pub(crate) fn restore_program(&self) {
        let new = self.folder().join("new");
        std::os::unix::fs::symlink(BINARY, &new).unwrap();
        fs::rename(new, self.folder().join("program")).unwrap();
    }

    /// Sends USR2 and waits for the upgrade's end: the process that serves then, or why it is still the same.
    #[track_caller]
    pub(crate) fn upgrade(&mut self) -> Result<Pid, String> {
        let mark = self.log.mark();
        self.signal(Signal::SIGUSR2);
        self.upgraded(mark)
    }

    /// Waits for the end of an upgrade that began after the mark.
    #[track_caller]
    pub(crate) fn upgraded(&mut self, mark: usize) -> Result<Pid, String> {
        let pid = self.log.wait_from(mark, "the end of an upgrade", |line| {
            let line: Value = serde_json::from_str(line).ok()?;
            match text(&line, "message") {
                "ready" => {
                    let pid = super::lines::field(&line, "pid")?.as_i64()?;
                    Some(Ok(Pid::from_raw(i32::try_from(pid).unwrap())))
                }
                message if message.starts_with("upgrade failed") => Some(Err(text(&line, "why").to_owned())),
                _ => None,
            }
        })?;
        self.successor = Some(pid);
        Ok(pid)
    }

    /// The process that was started first serves again.
    pub(crate) fn serve_first_again(&mut self) {
        self.successor = None;
    }

    /// Every process that was ever ready here and still lives.
    pub(crate) fn processes(&self) -> Vec<Pid> {
        let all = self.log.all();
        let lines = all.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let ready = lines.filter(|line| text(line, "message") == "ready");
        let pids = ready.filter_map(|line| super::lines::field(&line, "pid")?.as_i64());
        // A number may be another's by now; the working directory is not.
        let is_ours =
            |pid: &i64| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == self.folder.path());
        pids.filter(is_ours).map(|pid| Pid::from_raw(i32::try_from(pid).unwrap())).collect()
    }

    /// Ends the process as the kernel would, and starts another in the same folder.
    #[track_caller]
    pub(crate) fn kill_and_start(mut self) -> Self {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let folder = std::mem::replace(&mut self.folder, elsewhere);
        drop(self);
        Self::start_in(folder, &[])
    }

    #[track_caller]
    fn start_in(folder: TempDir, environment: &[(&str, &Path)]) -> Self {
        let mut command = command(folder.path());
        command.envs(environment.iter().copied());
        Self::start_as(folder, command)
    }

    /// Starts this command line in the folder, and waits until it is ready.
    #[track_caller]
    fn start_as(folder: TempDir, mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let log = Lines::follow(child.stderr.take().unwrap());
        let access = Lines::follow(child.stdout.take().unwrap());
        let mut edge = Self { child, successor: None, folder, log, access, rows: Vec::new() };
        edge.learn_rows();
        edge
    }

    /// Where the row with this key of `[ports]` really listens.
    #[track_caller]
    pub(crate) fn address(&self, row: &str) -> SocketAddr {
        let found = self.rows.iter().find(|(key, _)| key == row);
        found.unwrap_or_else(|| panic!("no row {row}; the log:\n{}", self.log.all())).1
    }

    /// Where [`HTTPS`] listens.
    #[track_caller]
    pub(crate) fn https(&self) -> SocketAddr {
        self.address(HTTPS)
    }

    /// The root of the edge's own CA, in PEM.
    pub(crate) fn ca(&self) -> PathBuf {
        self.folder.path().join("store/internal/root.pem")
    }

    /// Its own folder, for whatever else a test wants to keep there.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The access lines so far: a mark for [`Edge::access_line`].
    pub(crate) fn mark(&self) -> usize {
        self.access.mark()
    }

    /// The first access line after the mark that `pick` accepts.
    #[track_caller]
    pub(crate) fn access_line(&self, mark: usize, what: &str, pick: impl Fn(&Value) -> bool) -> Value {
        self.access.wait_json(mark, what, pick)
    }

    /// The edge's log.
    pub(crate) fn log(&self) -> &Lines {
        &self.log
    }

    /// Replaces the configuration file; nothing happens until a reload.
    pub(crate) fn write_config(&self, config: &str) {
        write_config(self.folder.path(), config);
    }

    /// Sends HUP and waits for the log to say how the reload ended: true when it was taken.
    #[track_caller]
    pub(crate) fn reload(&self) -> bool {
        let mark = self.log.mark();
        self.signal(Signal::SIGHUP);
        self.log.wait_from(mark, "the end of a reload", |line| {
            let line: Value = serde_json::from_str(line).ok()?;
            match text(&line, "message") {
                "reloaded" => Some(true),
                message if message.starts_with("reload refused") => Some(false),
                _ => None,
            }
        })
    }

    /// The most memory that the process has held at once so far, in octets.
    pub(crate) fn peak_memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
    }

    /// Sends a signal to this process alone.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// Waits until the process has left by itself.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.log.wait_end();
        self.child.wait().unwrap()
    }

    /// Whether the process still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits until every client's connection is closed.
    #[track_caller]
    pub(crate) fn wait_until_no_client(&self) {
        self.wait_for_clients(0);
    }

    /// Waits until so many clients' connections were accepted and are open.
    #[track_caller]
    pub(crate) fn wait_for_clients(&self, count: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.client_connections() != count {
            let open = self.client_connections();
            assert!(Instant::now() < deadline, "{open} clients' connections are open, and not {count}");
            std::thread::sleep(Duration::from_millis(5)); // the kernel tells nobody what another process does
        }
    }

    /// The connections that the process holds open with its clients: established or half closed, from the kernel's own
    /// tables.
    fn client_connections(&self) -> usize {
        let own = self.socket_inodes();
        let ports: Vec<u16> = self.rows.iter().map(|(_, address)| address.port()).collect();
        let tables =
            ["/proc/net/tcp", "/proc/net/tcp6"].map(|table| fs::read_to_string(table).unwrap_or_default());
        let lines = tables.iter().flat_map(|table| table.lines().skip(1));
        lines
            .filter_map(Socket::parse)
            .filter(|socket| socket.is_client(&ports) && own.contains(&socket.inode))
            .count()
    }

    fn socket_inodes(&self) -> HashSet<u64> {
        let entries = fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap();
        let links = entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
        links
            .filter_map(|link| link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok())
            .collect()
    }

    /// The process that serves.
    pub(crate) fn pid(&self) -> Pid {
        self.successor.unwrap_or_else(|| self.first_pid())
    }

    /// The process that was started first.
    pub(crate) fn first_pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap())
    }

    /// Waits until the process that was started first has left.
    pub(crate) fn wait_first(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the first process does not leave");
            std::thread::sleep(Duration::from_millis(5)); // the standard library cannot wait for a child with a limit
        }
    }

    #[track_caller]
    fn learn_rows(&mut self) {
        let mut rows = Vec::new();
        self.log.wait("ready", |line| {
            let line: Value = serde_json::from_str(line).ok()?;
            if text(&line, "message") == "listening" {
                rows.push((text(&line, "row").to_owned(), text(&line, "address").parse().unwrap()));
            }
            (text(&line, "message") == "ready").then_some(())
        });
        self.rows = rows;
    }

    /// How many descriptors the process has open.
    pub(crate) fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        for pid in self.processes() {
            let _ = kill(pid, Signal::SIGKILL);
        }
        if std::thread::panicking() {
            let _ = writeln!(
                std::io::stderr(),
                "the edge's log:\n{}\nits access lines:\n{}",
                self.log.all(),
                self.access.all()
            );
        }
    }
}

/// One line of the kernel's table of TCP sockets.
struct Socket {
    local_port: u16,
    listens: bool,
    inode: u64,
}

impl Socket {
    fn parse(line: &str) -> Option<Self> {
        let words: Vec<_> = line.split_whitespace().collect();
        let port = words.get(1)?.rsplit(':').next()?;
        Some(Self {
            local_port: u16::from_str_radix(port, 16).ok()?,
            listens: *words.get(3)? == "0A",
            inode: words.get(9)?.parse().ok()?,
        })
    }

    fn is_client(&self, ports: &[u16]) -> bool {
        !self.listens && ports.contains(&self.local_port)
    }
}

/// Runs a command of the binary to its end: exit code, stdout, stderr.
pub(crate) fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(BINARY).args(arguments).stdin(Stdio::null()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn command(folder: &Path) -> Command {
    command_of(Path::new(BINARY), folder)
}

fn command_of(program: &Path, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command.arg("serve").arg("--config").arg(folder.join("vestibule.toml"));
    command.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn write_config(folder: &Path, config: &str) {
    let mut whole = config.to_owned();
    let at = folder.display();
    for (table, content) in [
        ("store", format!("path = \"{at}/store\"")),
        ("admin", format!("socket = \"{at}/admin.sock\"")),
        ("log", "format = \"json\"".to_owned()),
    ] {
        if !config.contains(&format!("[{table}]")) {
            writeln!(whole, "\n[{table}]\n{content}").unwrap();
        }
    }
    fs::write(folder.join("vestibule.toml"), whole).unwrap();
}

/// The program under test.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_vestibule");
