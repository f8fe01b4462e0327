//! Sockets that another process opened for this one, as `sd_listen_fds(3)` describes them: systemd's socket activation,
//! and the process that this one takes over from.
#![allow(
    unsafe_code,
    reason = "the numbers of open descriptors come in the environment; only here are they believed"
)]

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use socket2::{Domain, SockRef, Type};

use crate::config::model::Bind;

/// The first descriptor that is handed on.
pub const FIRST: RawFd = 3;
/// More than any start hands on.
const MOST: usize = 65_536;

/// Why what was handed on cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InheritError {
    /// The environment does not make sense.
    #[error(
        "{name}={value} in the environment: not a number of descriptors; unset it, or start the edge with sockets"
    )]
    Environment {
        /// The variable.
        name: &'static str,
        /// What it holds.
        value: String,
    },
    /// A descriptor that is not open.
    #[error(
        "LISTEN_FDS says that {count} descriptors were handed on, and number {descriptor} is not open: {source}"
    )]
    Closed {
        /// How many there should be.
        count: usize,
        /// The one that is missing.
        descriptor: RawFd,
        /// What the kernel said.
        source: io::Error,
    },
}

/// A descriptor and the name that `LISTEN_FDNAMES` has for it; empty where it has none.
pub type Named = (String, OwnedFd);

/// Takes what was handed on to this process: nothing where `LISTEN_PID` names another, and nothing the second time.
/// What is taken is closed on exec.
///
/// # Errors
/// The environment names descriptors that are not there.
pub fn claim() -> Result<Vec<Named>, InheritError> {
    static CLAIMED: AtomicBool = AtomicBool::new(false);
    let own = number("LISTEN_PID")? == Some(std::process::id() as usize);
    let count = number("LISTEN_FDS")?.unwrap_or(0);
    if !own || CLAIMED.swap(true, Ordering::SeqCst) {
        return Ok(Vec::new());
    }
    if count > MOST {
        return Err(InheritError::Environment { name: "LISTEN_FDS", value: count.to_string() });
    }
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let names = names.split(':').map(str::to_owned).chain(std::iter::repeat(String::new()));
    let take = |(descriptor, name)| Ok((name, take(descriptor, count)?));
    (FIRST..).take(count).zip(names).map(take).collect()
}

fn number(name: &'static str) -> Result<Option<usize>, InheritError> {
    let Ok(value) = std::env::var(name) else { return Ok(None) };
    value.parse().map(Some).map_err(|_| InheritError::Environment { name, value })
}

fn take(descriptor: RawFd, count: usize) -> Result<OwnedFd, InheritError> {
    // SAFETY: borrowed for one call alone, which answers EBADF where the descriptor is not open.
    let borrowed = unsafe { BorrowedFd::borrow_raw(descriptor) };
    fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).map_err(|errno| InheritError::Closed {
        count,
        descriptor,
        source: errno.into(),
    })?;
    // SAFETY: it is open, and who started this process says that it is ours; `claim` takes it once.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Listening TCP sockets that were handed on, until rows take them.
#[derive(Debug, Default)]
pub struct Given {
    sockets: Vec<Socket>,
}

#[derive(Debug)]
struct Socket {
    /// The row that it was open for, where that is known.
    row: Option<String>,
    address: SocketAddr,
    listener: TcpListener,
}

impl Given {
    /// Takes a descriptor up, for the row that it was open for, as typed, where that is known. Gives back what is no listening
    /// TCP socket.
    pub fn add(&mut self, row: Option<String>, descriptor: OwnedFd) -> Result<(), OwnedFd> {
        let socket = SockRef::from(&descriptor);
        let listens = socket.r#type().is_ok_and(|kind| kind == Type::STREAM)
            && socket.domain().is_ok_and(|domain| matches!(domain, Domain::IPV4 | Domain::IPV6))
            && socket.is_listener().unwrap_or(false);
        let Some(address) = socket.local_addr().ok().filter(|_| listens).and_then(|own| own.as_socket())
        else {
            return Err(descriptor);
        };
        self.sockets.push(Socket { row, address, listener: descriptor.into() });
        Ok(())
    }

    /// The sockets of a row: those that were open for it, and those at its addresses that were open for nobody else.
    pub fn take(&mut self, bind: Bind) -> Vec<TcpListener> {
        let key = bind.to_string();
        let is_its = |socket: &mut Socket| match &socket.row {
            Some(row) => *row == key,
            None => is_at(socket.address, bind),
        };
        self.sockets.extract_if(.., is_its).map(|socket| socket.listener).collect()
    }

    /// Lets rows that are not in the file any more be taken by their addresses.
    pub fn forget_rows(&mut self, is_there: impl Fn(&str) -> bool) {
        for socket in &mut self.sockets {
            socket.row = socket.row.take().filter(|row| is_there(row));
        }
    }

    /// Where the sockets listen that nobody took.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.sockets.iter().map(|socket| socket.address).collect()
    }
}

fn is_at(address: SocketAddr, bind: Bind) -> bool {
    match bind {
        Bind::One(wanted) => address == wanted,
        Bind::All(port) => address.ip().is_unspecified() && address.port() == port,
    }
}

/// The number, for messages.
pub fn describe(name: &str, descriptor: &OwnedFd) -> String {
    let number = descriptor.as_raw_fd();
    if name.is_empty() { format!("descriptor {number}") } else { format!("descriptor {number} ({name})") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(address: &str) -> (SocketAddr, OwnedFd) {
        let listener = TcpListener::bind(address).unwrap();
        (listener.local_addr().unwrap(), listener.into())
    }

    #[test]
    fn rows_take_what_was_theirs_then_what_is_at_their_address() {
        let mut given = Given::default();
        let ((first, a), (second, b)) = (listener("127.0.0.1:0"), listener("127.0.0.1:0"));
        let (third, c) = listener("0.0.0.0:0");
        given.add(Some("127.0.0.1:0".into()), a).unwrap();
        given.add(None, b).unwrap();
        given.add(Some("8443".into()), c).unwrap();
        assert!(given.take(Bind::One(first)).is_empty(), "it is another row's");
        let own = |listeners: Vec<TcpListener>| -> Vec<_> {
            listeners.iter().map(|listener| listener.local_addr().unwrap()).collect()
        };
        assert_eq!(own(given.take(Bind::One("127.0.0.1:0".parse().unwrap()))), [first]);
        assert_eq!(own(given.take(Bind::One(second))), [second]);
        assert_eq!(given.addresses(), [third]);
        given.forget_rows(|_| false);
        assert_eq!(own(given.take(Bind::All(third.port()))), [third]);
    }

    #[test]
    fn only_sockets_that_listen_are_taken() {
        let mut given = Given::default();
        let (address, _listener) = listener("127.0.0.1:0");
        let file = std::fs::File::open("/dev/null").unwrap();
        let client = std::net::TcpStream::connect(address).unwrap();
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        for other in [OwnedFd::from(file), client.into(), udp.into()] {
            given.add(None, other).unwrap_err();
        }
        assert!(given.addresses().is_empty());
    }
}
