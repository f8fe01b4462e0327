//! The old process's side: a new one is started, listened to, and let take over or given up.

use std::ffi::OsString;
use std::fmt;
use std::future::pending;
use std::io::Write as _;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use super::parcel::{ADMIN, CHANNEL, GO, PARCEL, PASSED, Parcel, READY, REFUSED, ROW};
use super::program::{Program, cannot_start};
use super::spawn::spawn;
use crate::runtime::notify::WATCHDOG_PID;

/// How long a new process may take until it is ready.
const PATIENCE: Duration = Duration::from_secs(15);

/// A new process that is not ready yet. Dropping it ends the process.
#[derive(Debug)]
pub(in crate::runtime) struct Upgrade {
    successor: Option<Successor>,
    deadline: Instant,
}

/// A process that was started to take over.
#[derive(Debug)]
pub(in crate::runtime) struct Successor {
    pub(in crate::runtime) pid: Pid,
    channel: UnixStream,
    /// None once it says nothing any more.
    said: Option<Lines<BufReader<tokio::net::UnixStream>>>,
    ended: oneshot::Receiver<End>,
    /// Its end means nothing any more.
    relieved: bool,
}

/// What is heard of a new process.
enum News {
    Ready,
    Refused(String),
    Passed,
    End(End),
}

impl News {
    fn of(line: &str) -> Option<Self> {
        let refused = |line: &str| {
            let why = line.strip_prefix(REFUSED)?;
            Some(Self::Refused(serde_json::from_str(why).unwrap_or_else(|_| why.to_owned())))
        };
        match line {
            READY => Some(Self::Ready),
            PASSED => Some(Self::Passed),
            line => refused(line),
        }
    }
}

/// How the process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Code(i32),
    Signal(Signal),
    Unknown,
}

impl Upgrade {
    /// Starts the program on these sockets. Call inside a runtime.
    ///
    /// # Errors
    /// It cannot be started; the text says why.
    pub(super) fn begin(
        program: &Program,
        parcel: &Parcel,
        rows: &[BorrowedFd<'_>],
        admin: BorrowedFd<'_>,
    ) -> Result<Self, String> {
        let failed = |error: std::io::Error| cannot_start(&program.path, &error);
        let packed = parcel.pack().map_err(failed)?;
        let (channel, theirs) = UnixStream::pair().map_err(failed)?;
        let rest = [(ADMIN, admin), (PARCEL, packed.as_fd()), (CHANNEL, theirs.as_fd())];
        let (names, handed): (Vec<_>, Vec<_>) = rows.iter().map(|socket| (ROW, *socket)).chain(rest).unzip();
        channel.set_nonblocking(true).map_err(failed)?;
        let listening = channel.try_clone().and_then(tokio::net::UnixStream::from_std).map_err(failed)?;
        let pid = spawn(&program.path, &program.arguments, &environment(&names), &handed).map_err(failed)?;
        let said = Some(BufReader::new(listening).lines());
        let ended = wait_for(pid).map_err(|error| {
            let _ = kill(pid, Signal::SIGKILL);
            failed(error)
        })?;
        let successor = Successor { pid, channel, said, ended, relieved: false };
        Ok(Self { successor: Some(successor), deadline: Instant::now() + PATIENCE })
    }

    pub(in crate::runtime) fn pid(&self) -> Option<Pid> {
        self.successor.as_ref().map(|successor| successor.pid)
    }

    /// Waits until the new process is ready, or until it is clear that it will not be, and why. May be dropped at any
    /// time.
    pub(in crate::runtime) async fn outcome(&mut self) -> Result<(), String> {
        let Some(successor) = &mut self.successor else { return pending().await };
        loop {
            tokio::select! {
                news = successor.news() => match news {
                    News::Ready => return Ok(()),
                    News::Refused(why) => return Err(why),
                    News::End(end) => return Err(format!("the new process {end} before it was ready")),
                    News::Passed => {}
                },
                () = sleep_until(self.deadline) => {
                    let seconds = PATIENCE.as_secs();
                    return Err(format!("the new process was not ready within {seconds} s, and was ended"));
                }
            }
        }
    }

    /// Lets the process live: it takes over once it is told to.
    pub(in crate::runtime) fn succeed(mut self) -> Option<Successor> {
        self.successor.take()
    }
}

impl Drop for Upgrade {
    fn drop(&mut self) {
        if let Some(successor) = &mut self.successor {
            successor.kill();
        }
    }
}

impl Successor {
    /// Tells it to take over.
    pub(in crate::runtime) fn go(&self) {
        let _ = writeln!(&self.channel, "{GO}");
    }

    /// Waits until this process is needed again, and says why: the other ended, and nobody took over from it. For ever
    /// where it does not come to that. May be dropped at any time.
    pub(in crate::runtime) async fn failed(&mut self) -> String {
        while !self.relieved {
            match self.news().await {
                // Told to leave, it leaves with 0, and so does this one.
                News::Passed | News::End(End::Code(0)) => self.relieved = true,
                News::End(end) => return end.to_string(),
                News::Ready | News::Refused(_) => {}
            }
        }
        pending().await
    }

    /// What it says, and its end. May be dropped at any time.
    async fn news(&mut self) -> News {
        loop {
            let line = async {
                match &mut self.said {
                    Some(said) => said.next_line().await,
                    None => pending().await,
                }
            };
            tokio::select! {
                biased;
                line = line => match line {
                    Ok(Some(line)) => if let Some(news) = News::of(&line) {
                        return news;
                    },
                    Ok(None) | Err(_) => self.said = None,
                },
                end = &mut self.ended, if !self.ended.is_terminated() => {
                    return News::End(end.unwrap_or(End::Unknown));
                }
            }
        }
    }

    fn kill(&mut self) {
        // Once its end was seen, the number may be another's.
        if !self.ended.is_terminated() && self.ended.try_recv().is_err() {
            let _ = kill(self.pid, Signal::SIGKILL);
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "left with exit code {code}"),
            Self::Signal(signal) => write!(f, "was ended by {}", signal.as_str()),
            Self::Unknown => f.write_str("ended"),
        }
    }
}

/// A thread that has nothing else to do, and that ends with this process at the latest.
fn wait_for(pid: Pid) -> std::io::Result<oneshot::Receiver<End>> {
    let (sender, receiver) = oneshot::channel();
    let wait = move || {
        let end = match waitpid(pid, None) {
            Ok(WaitStatus::Exited(_, code)) => End::Code(code),
            Ok(WaitStatus::Signaled(_, signal, _)) => End::Signal(signal),
            _ => End::Unknown,
        };
        let _ = sender.send(end);
    };
    std::thread::Builder::new().name("successor".into()).spawn(wait)?;
    Ok(receiver)
}

/// This process's own, with what the new one is told about its descriptors.
fn environment(names: &[&str]) -> Vec<(OsString, OsString)> {
    let is_ours = |name: &OsString| {
        let own = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", WATCHDOG_PID];
        own.iter().any(|own| name == own)
    };
    let told = [("LISTEN_FDS", names.len().to_string()), ("LISTEN_FDNAMES", names.join(":"))];
    let kept = std::env::vars_os().filter(|(name, _)| !is_ours(name));
    kept.chain(told.map(|(name, value)| (name.into(), value.into()))).collect()
}
