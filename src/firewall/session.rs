//! Who is at the keyboard: so that the rules do not cut off the one who applies them, and that a confirmation comes
//! through a connection that the new rules have let in.

use std::fs;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// The kernel counts a process's start in hundredths of a second, whatever its own tick is (`proc_pid_stat(5)`).
const TICKS_A_SECOND: f64 = 100.0;
/// No chain of parents is longer.
const GENERATIONS: usize = 64;

/// From where a command was given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Session {
    /// `SSH_CONNECTION` of the login: client, port, server, port.
    pub ssh: Option<String>,
    /// When the login began, in seconds since the start of the machine.
    pub began: f64,
    /// The process's session.
    pub sid: i32,
}

/// The ends of an SSH connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ssh {
    /// The client's address.
    pub client: IpAddr,
    /// The address that it connected to.
    pub server: IpAddr,
    /// The port that it connected to.
    pub port: u16,
}

impl Session {
    /// This process's own. `sudo` hides the variable from its command, and not from its parents.
    pub fn own() -> Self {
        let sid = nix::unistd::getsid(None).map_or(0, nix::unistd::Pid::as_raw);
        let parents = lineage(std::process::id());
        let ssh = parents.iter().find_map(|process| process.ssh.clone());
        Self { began: began(&parents, ssh.as_ref()), ssh, sid }
    }

    /// The ends of its SSH connection.
    pub fn ends(&self) -> Option<Ssh> {
        let mut words = self.ssh.as_ref()?.split_whitespace();
        let address = |word: &str| Some(word.split('%').next()?.parse::<IpAddr>().ok()?.to_canonical());
        let client = address(words.next()?)?;
        let (_, server, port) = (words.next()?, address(words.next()?)?, words.next()?.parse().ok()?);
        Some(Ssh { client, server, port })
    }

    /// Why a confirmation from here says nothing about the rules that were applied from `applier` at the moment `at`.
    pub fn proves_nothing(&self, applier: &Self, at: f64) -> Option<&'static str> {
        match (&applier.ssh, &self.ssh) {
            (Some(old), Some(own)) if old == own => {
                Some("this is the connection that applied the rules, which they do not cut")
            }
            (_, Some(_)) if self.began < at => {
                Some("this connection was open before the rules were applied, and they do not cut it")
            }
            (_, None) if self.sid == applier.sid => Some("this is the session that applied the rules"),
            _ => None,
        }
    }
}

struct Process {
    name: String,
    ssh: Option<String>,
    began: f64,
}

/// When the login began. A connection that is shared gives many logins, and is as old as the server's process for it.
fn began(parents: &[Process], ssh: Option<&String>) -> f64 {
    let login = parents.iter().rposition(|process| ssh.is_some() && process.ssh.as_ref() == ssh).unwrap_or(0);
    let servers = parents.iter().skip(login + 1).take_while(|process| process.name.starts_with("sshd"));
    let servers: Vec<&Process> = servers.filter(|_| ssh.is_some()).collect();
    // The last one is who listens, for all connections.
    let oldest = servers.split_last().and_then(|(_, own)| own.last().copied()).or(parents.get(login));
    oldest.map_or(0.0, |process| process.began)
}

/// A process and its parents, the youngest first.
fn lineage(pid: u32) -> Vec<Process> {
    let (mut pid, mut found) = (pid, Vec::new());
    while pid > 1 && found.len() < GENERATIONS {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let Some((name, parent, began)) = parse_stat(&stat) else { break };
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        found.push(Process { name: name.to_owned(), ssh: ssh_of(&environment), began });
        pid = parent;
    }
    found
}

/// The name, the parent, and when it began. The name, in parentheses, may hold anything.
fn parse_stat(stat: &str) -> Option<(&str, u32, f64)> {
    let (head, fields) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    let ticks: f64 = fields.get(19)?.parse().ok()?;
    Some((head.split_once(" (")?.1, fields.get(1)?.parse().ok()?, ticks / TICKS_A_SECOND))
}

fn ssh_of(environment: &[u8]) -> Option<String> {
    let entry =
        environment.split(|byte| *byte == 0).find_map(|entry| entry.strip_prefix(b"SSH_CONNECTION="))?;
    String::from_utf8(entry.to_vec()).ok().filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(ssh: &str, began: f64, sid: i32) -> Session {
        Session { ssh: (!ssh.is_empty()).then(|| ssh.to_owned()), began, sid }
    }

    #[test]
    fn only_a_new_connection_proves_anything() {
        let (one, two) = ("192.0.2.1 1000 203.0.113.1 22", "192.0.2.1 1001 203.0.113.1 22");
        for (applier, confirmer, proves) in [
            (session(one, 50.0, 1), session(one, 50.0, 1), false),
            (session(one, 50.0, 1), session(one, 50.0, 2), false),
            (session(one, 50.0, 1), session(two, 99.0, 2), false),
            (session(one, 50.0, 1), session(two, 101.0, 2), true),
            (session(one, 50.0, 1), session("", 50.0, 2), true),
            (session("", 50.0, 1), session("", 50.0, 1), false),
            (session("", 50.0, 1), session("", 50.0, 2), true),
            (session("", 50.0, 1), session(two, 101.0, 2), true),
            (session("", 50.0, 1), session(two, 99.0, 2), false),
        ] {
            assert_eq!(
                confirmer.proves_nothing(&applier, 100.0).is_none(),
                proves,
                "{applier:?} {confirmer:?}"
            );
        }
    }

    #[test]
    fn a_login_is_as_old_as_its_connection() {
        let own = Some("192.0.2.1 1000 203.0.113.1 22".to_owned());
        for (names, expected) in [
            (&["vestibule", "bash+", "sshd", "sshd", "sshd", "systemd"][..], 6.0),
            (&["vestibule", "bash+", "sshd-session", "sshd", "systemd"], 7.0),
            (&["vestibule", "sudo", "bash+", "sshd", "systemd"], 7.0),
            (&["vestibule", "bash+", "tmux", "systemd"], 8.0),
            (&["vestibule", "bash", "login", "systemd"], 9.0),
            (&[], 0.0),
        ] {
            let process = |(age, name): (u8, &&str)| Process {
                name: name.trim_end_matches('+').to_owned(),
                ssh: name.ends_with('+').then(|| own.clone()).flatten(),
                began: 9.0 - f64::from(age),
            };
            let parents: Vec<Process> = (0..).zip(names).map(process).collect();
            let ssh = parents.iter().find_map(|process| process.ssh.as_ref());
            assert!((began(&parents, ssh) - expected).abs() < 0.1, "{names:?}");
        }
    }

    #[test]
    fn what_proc_says_is_read() {
        let stat = "77 (a ) b) S 76 77 77 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 123456 1 1";
        assert_eq!(parse_stat(stat), Some(("a ) b", 76, 1234.56)));
        for broken in ["", "77", "77 (x) S", "77 (x) S a b"] {
            assert_eq!(parse_stat(broken), None);
        }
        let environment = b"A=1\0SSH_CONNECTION=fe80::1%eth0 50000 ::ffff:203.0.113.1 22\0";
        let own = Session { ssh: ssh_of(environment), began: 0.0, sid: 1 };
        let ends = own.ends().unwrap();
        assert_eq!(
            (ends.client.to_string(), ends.server.to_string(), ends.port),
            ("fe80::1".into(), "203.0.113.1".into(), 22)
        );
        assert!(Session::own().began > 0.0);
    }
}
