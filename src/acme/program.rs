//! Programs of other people's, run to their end: in a group of their own, with a deadline, and with the end of what they said.

use std::convert::Infallible;
use std::os::unix::fs::PermissionsExt;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::config::show_duration;

/// How much of what a program says on stderr is told, in octets: the end.
const SAID: usize = 2000;
/// How long the end of stderr is waited for behind the program's own: a child of its own may hold it open.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// What the edge's own supervisor has told it, and no program of others.
const OWN: [&str; 3] = ["NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID"];

/// A program and its first arguments.
pub(super) struct Program {
    command: Vec<String>,
    limit: Duration,
}

/// The program and whatever it started, for as long as it runs: dropping this ends all of it.
struct Group(Option<Pid>);

impl Program {
    /// The path of the program stands first; it may take so long.
    pub(super) fn new(command: Vec<String>, limit: Duration) -> Self {
        Self { command, limit }
    }

    /// Its path.
    pub(super) fn path(&self) -> &str {
        self.command.first().map(String::as_str).unwrap_or_default()
    }

    /// Whether it could be run. Reads the disk.
    pub(super) fn check(&self) -> Result<(), String> {
        let program = self.path();
        let found = std::fs::metadata(program).map_err(|error| format!("{program}: {error}"))?;
        if found.is_file() && found.permissions().mode() & 0o111 != 0 {
            return Ok(());
        }
        Err(format!("{program} is not a program; make it one with chmod +x"))
    }

    /// Runs it with these arguments behind its own, and the input on its stdin. It has the edge's own user and environment;
    /// once the time is up, it is killed with all that it started.
    ///
    /// # Errors
    /// It cannot be run, fails, or is killed: the words go behind its path, and end with the end of its stderr. Whether it
    /// reads the input is its own affair.
    pub(super) async fn run(&self, arguments: &[&str], input: &[u8]) -> Result<(), String> {
        let mut child = self.start(arguments).map_err(|error| format!("cannot be run: {error}"))?;
        let mut group = Group::of(&child);
        let (stdin, stderr) = (child.stdin.take(), child.stderr.take());
        let mut said = Vec::new();
        let ended = timeout(self.limit, async {
            tokio::select! {
                ended = finish(&mut child, stderr, &mut said) => ended,
                never = feed(stdin, input) => match never {},
            }
        })
        .await;
        let said = shown(&said);
        let Ok(ended) = ended else {
            group.kill();
            let _ = child.wait().await;
            group.reap().await;
            let limit = show_duration(self.limit);
            return Err(format!("did not end within {limit}, and was killed{said}"));
        };
        group.0 = None;
        match ended {
            Ok(status) if status.success() => {
                tracing::debug!(program = self.path(), ?arguments, said, "a program has run");
                Ok(())
            }
            Ok(status) => Err(format!("failed: {status}{said}")),
            Err(error) => Err(format!("is lost: {error}")),
        }
    }

    fn start(&self, arguments: &[&str]) -> std::io::Result<Child> {
        let mut command = Command::new(self.path());
        command.args(self.command.iter().skip(1)).args(arguments);
        for name in OWN {
            command.env_remove(name);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        command.process_group(0).kill_on_drop(true).spawn()
    }
}

impl Group {
    fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw))
    }

    fn kill(&self) {
        if let Some(group) = self.0 {
            // It may have ended by itself.
            let _ = killpg(group, Signal::SIGKILL);
        }
    }

    /// Takes the rest of the group out of the kernel's table where this process is the one that inherits orphans, as the
    /// first of a container does.
    async fn reap(&mut self) {
        let Some(group) = self.0.take() else { return };
        let rest = Pid::from_raw(-group.as_raw());
        for _ in 0..50 {
            match waitpid(rest, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) => tokio::time::sleep(Duration::from_millis(20)).await,
                Ok(_) => {}
                Err(_) => return,
            }
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Gives it what it may read, and nothing more; it ends with the program.
async fn feed(stdin: Option<impl AsyncWrite + Unpin>, input: &[u8]) -> Infallible {
    if let Some(mut stdin) = stdin {
        let _ = stdin.write_all(input).await;
    }
    std::future::pending().await
}

/// The program's end, and the end of what it said.
async fn finish(
    child: &mut Child,
    stderr: Option<impl AsyncRead + Unpin>,
    said: &mut Vec<u8>,
) -> std::io::Result<ExitStatus> {
    let mut listening = std::pin::pin!(listen(stderr, said));
    let ended = tokio::select! {
        ended = child.wait() => ended,
        () = &mut listening => return child.wait().await,
    };
    let _ = timeout(LAST_WORDS, listening).await;
    ended
}

async fn listen(stderr: Option<impl AsyncRead + Unpin>, said: &mut Vec<u8>) {
    let Some(mut stderr) = stderr else { return };
    let mut part = [0; 4096];
    while let Ok(length @ 1..) = stderr.read(&mut part).await {
        said.extend_from_slice(part.get(..length).unwrap_or_default());
        let surplus = said.len().saturating_sub(SAID);
        said.drain(..surplus);
    }
}

/// One line without control characters, behind a colon.
fn shown(said: &[u8]) -> String {
    let text = String::from_utf8_lossy(said);
    let line = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    let line = line.collect::<Vec<_>>().join(" ");
    if line.is_empty() { line } else { format!(": {line}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn run(script: &str, limit: Duration) -> Result<(), String> {
        let command = ["/bin/sh", "-c", script, "hook"].map(str::to_owned).to_vec();
        Program::new(command, limit).run(&["one", "two words"], "input".repeat(100_000).as_bytes()).await
    }

    #[tokio::test]
    async fn it_is_called_as_documented() {
        let limit = Duration::from_secs(20);
        let right = "test \"$1/$2/$#\" = 'one/two words/2' || exit 1; test $(wc -c) = 500000";
        assert_eq!(run(right, limit).await, Ok(()));
        assert_eq!(run("sleep 100 & exit 0", limit).await, Ok(()), "nothing is read");
        assert_eq!(run("yes >&2 & kill $!; echo much; echo more >&2", limit).await, Ok(()));
    }

    #[tokio::test]
    async fn its_failure_is_told_with_the_end_of_what_it_said() {
        let limit = Duration::from_secs(20);
        let error =
            run("head -c 100000 /dev/urandom >&2; printf '\\033[1m\\nno\\tzone\\n' >&2; exit 3", limit).await;
        let error = error.unwrap_err();
        assert!(error.starts_with("failed: exit status: 3: "), "{error}");
        assert!(error.ends_with("[1m no zone") && !error.contains(char::is_control), "{error}");
        assert!(error.len() < 4 * SAID);
        let missing = Program::new(vec!["/nowhere/hook".to_owned()], limit);
        let error = missing.run(&[], b"").await.unwrap_err();
        assert!(error.starts_with("cannot be run: No such file"), "{error}");
    }

    #[tokio::test]
    async fn what_hangs_is_killed_with_all_that_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pids");
        let script = format!("sleep 1000 & echo $! $$ > {}; wait", file.display());
        let error = run(&script, Duration::from_secs(1)).await.unwrap_err();
        assert!(error.ends_with("did not end within 1s, and was killed"), "{error}");
        for pid in std::fs::read_to_string(&file).unwrap().split_whitespace() {
            let status = format!("/proc/{pid}/stat");
            let gone = || std::fs::read_to_string(&status).map_or(true, |stat| stat.contains(") Z "));
            for _ in 0..1000 {
                if gone() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(5)).await; // the kernel tells nobody of grandchildren
            }
            assert!(gone(), "{pid} still runs");
        }
    }
}
