//! What a service manager is told, as `sd_notify(3)` describes it, and the watchdog that it may keep.

use std::ffi::OsStr;
use std::fmt::Display;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

/// The variable that says how often the watchdog wants to hear of a process, and the one that says which.
const WATCHDOG: &str = "WATCHDOG_USEC";
pub(super) const WATCHDOG_PID: &str = "WATCHDOG_PID";

/// How long the service manager may take to make room for a message.
const PATIENCE: Duration = Duration::from_secs(1);

/// The way to the service manager. Without one, nothing is told.
#[derive(Debug, Default)]
pub(super) struct Notifier(Option<(UnixDatagram, SocketAddr)>);

impl Notifier {
    /// What `NOTIFY_SOCKET` names. One that cannot be used is told of in the log.
    pub(super) fn from_environment() -> Self {
        let name = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty());
        Self(name.and_then(|name| {
            let opened = open(&name);
            opened.inspect_err(|error| tracing::warn!(?name, %error, "NOTIFY_SOCKET cannot be used")).ok()
        }))
    }

    /// It serves.
    pub(super) fn ready(&self, status: impl Display) {
        self.tell(&format!("READY=1\nSTATUS={status}"));
    }

    /// It reads its configuration again; [`Notifier::ready`] ends it.
    pub(super) fn reloading(&self) {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
        self.tell(&format!(
            "RELOADING=1\nMONOTONIC_USEC={}\nSTATUS=reading the configuration",
            now.as_micros()
        ));
    }

    /// It leaves.
    pub(super) fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=leaving: requests in flight may finish");
    }

    /// Another process is the service from now on.
    pub(super) fn main_pid(&self, pid: Pid) {
        self.tell(&format!("MAINPID={pid}\nSTATUS=process {pid} has taken over"));
    }

    /// In words, how it is.
    pub(super) fn status(&self, status: impl Display) {
        self.tell(&format!("STATUS={status}"));
    }

    /// It lives.
    pub(super) fn alive(&self) {
        self.tell("WATCHDOG=1");
    }

    fn tell(&self, message: &str) {
        let Some((socket, address)) = &self.0 else { return };
        if let Err(error) = socket.send_to_addr(message.as_bytes(), address) {
            tracing::warn!(%error, "the service manager cannot be told");
        }
    }
}

fn open(name: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match name.as_bytes().split_first() {
        Some((b'@', name)) => SocketAddr::from_abstract_name(name)?,
        Some((b'/', _)) => SocketAddr::from_pathname(name)?,
        _ => return Err(io::Error::other("neither a path nor an abstract name")),
    };
    let socket = UnixDatagram::unbound()?;
    // Few messages fit into the kernel's queue; a manager that does not read must not hold up the edge for long.
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok((socket, address))
}

/// When the service manager wants to hear that the process lives.
#[derive(Debug)]
pub(super) struct Watchdog(Option<Interval>);

impl Watchdog {
    /// Twice as often as `WATCHDOG_USEC` says, where it speaks to this process. Call inside a runtime.
    pub(super) fn from_environment() -> Self {
        let pid = std::env::var(WATCHDOG_PID).ok();
        if pid.is_some_and(|pid| pid != std::process::id().to_string()) {
            return Self(None);
        }
        let wanted = std::env::var(WATCHDOG).ok().and_then(|value| value.parse().ok());
        Self(wanted.filter(|wanted| *wanted > 1).map(|wanted: u64| every(Duration::from_micros(wanted) / 2)))
    }

    /// Returns when it is time; never without a watchdog. May be dropped at any time.
    pub(super) async fn due(&mut self) {
        match &mut self.0 {
            Some(ticks) => {
                ticks.tick().await;
            }
            None => std::future::pending().await,
        }
    }
}

fn every(period: Duration) -> Interval {
    let mut ticks = interval_at(Instant::now() + period, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_abstract_names_are_spoken_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let name = format!("vestibule-test-{}", std::process::id());
        let at_path = UnixDatagram::bind(&path).unwrap();
        let at_name = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        for (socket, name) in [(at_path, path.into_os_string()), (at_name, format!("@{name}").into())] {
            let notifier = Notifier(Some(open(&name).unwrap()));
            notifier.ready("1 site");
            notifier.reloading();
            let mut buffer = [0; 256];
            let mut next = || {
                let count = socket.recv(&mut buffer).unwrap();
                String::from_utf8_lossy(&buffer[..count]).into_owned()
            };
            assert_eq!(next(), "READY=1\nSTATUS=1 site");
            assert!(next().starts_with("RELOADING=1\nMONOTONIC_USEC="));
        }
        assert!(open(OsStr::new("relative")).is_err());
    }
}
