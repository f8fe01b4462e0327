//! Accepting connections, for as long as the socket lives.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use tokio::net::{TcpListener, TcpStream};

/// A connection that was accepted.
#[derive(Debug)]
pub struct Accepted {
    /// The connection.
    pub stream: TcpStream,
    /// Who connected.
    pub peer: SocketAddr,
    /// The address that was connected to.
    pub local: SocketAddr,
}

/// A listening socket that outlives errors.
#[derive(Debug)]
pub struct Acceptor {
    listener: TcpListener,
    shortage: Option<Shortage>,
}

impl Acceptor {
    /// Registers a non-blocking socket with the running reactor.
    ///
    /// # Errors
    /// The reactor cannot take it.
    pub fn new(listener: std::net::TcpListener) -> io::Result<Self> {
        Ok(Self { listener: TcpListener::from_std(listener)?, shortage: None })
    }

    /// The next connection. Errors of one connection are passed over; while descriptors or memory run out it
    /// waits, with the kernel's queue as the buffer, and the log hears of it once. May be dropped at any time, and
    /// loses no connection.
    pub async fn accept(&mut self) -> Accepted {
        loop {
            let error = match self.listener.accept().await.and_then(with_local) {
                Ok(accepted) => {
                    self.succeeded();
                    return accepted;
                }
                Err(error) => error,
            };
            if let Some(pause) = self.failed(&error) {
                tokio::time::sleep(pause).await;
            }
        }
    }

    fn failed(&mut self, error: &io::Error) -> Option<Duration> {
        if is_of_one_connection(error) {
            tracing::debug!(%error, "a connection was lost before it was accepted");
            return None;
        }
        let shortage = self.shortage.get_or_insert_with(|| {
            tracing::error!(%error, "connections cannot be accepted and wait{}", hint(error));
            Shortage { pause: FIRST_PAUSE, last: Instant::now() }
        });
        let pause = shortage.pause;
        *shortage = Shortage { pause: (pause * 2).min(LONGEST_PAUSE), last: Instant::now() };
        Some(pause)
    }

    /// A shortage that comes and goes is one episode.
    fn succeeded(&mut self) {
        let Some(shortage) = &mut self.shortage else { return };
        shortage.pause = FIRST_PAUSE;
        if shortage.last.elapsed() >= EPISODE_END {
            self.shortage = None;
            tracing::info!("connections are accepted again");
        }
    }
}

#[derive(Debug)]
struct Shortage {
    pause: Duration,
    last: Instant,
}

fn with_local((stream, peer): (TcpStream, SocketAddr)) -> io::Result<Accepted> {
    let local = stream.local_addr()?;
    Ok(Accepted { stream, peer, local })
}

/// Errors that Linux hands over from the connection's own life, accept(2); the next connection is not concerned.
fn is_of_one_connection(error: &io::Error) -> bool {
    error.raw_os_error().map(Errno::from_raw).is_some_and(|errno| {
        matches!(
            errno,
            Errno::ECONNABORTED
                | Errno::ECONNRESET
                | Errno::EHOSTDOWN
                | Errno::EHOSTUNREACH
                | Errno::EINTR
                | Errno::ENETDOWN
                | Errno::ENETUNREACH
                | Errno::ENONET
                | Errno::ENOPROTOOPT
                | Errno::ENOTCONN
                | Errno::EOPNOTSUPP
                | Errno::EPERM
                | Errno::EPROTO
                | Errno::ETIMEDOUT
        )
    })
}

fn hint(error: &io::Error) -> &'static str {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EMFILE) => {
            ": the process is out of descriptors; raise its limit (LimitNOFILE=, ulimit -n)"
        }
        Some(Errno::ENFILE) => ": the machine is out of descriptors; raise sysctl fs.file-max",
        Some(Errno::ENOBUFS | Errno::ENOMEM) => ": the machine is out of memory for sockets",
        _ => "",
    }
}

const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// So long without an error, and a shortage is over.
const EPISODE_END: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::process::Command;

    use nix::sys::resource::{Resource, setrlimit};

    use super::*;

    fn acceptor() -> (Acceptor, SocketAddr) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        (Acceptor::new(listener).unwrap(), address)
    }

    #[tokio::test]
    async fn both_ends_are_told() {
        let (mut acceptor, address) = acceptor();
        let client = TcpStream::connect(address).await.unwrap();
        let accepted = acceptor.accept().await;
        assert_eq!((accepted.peer, accepted.local), (client.local_addr().unwrap(), address));
        assert_eq!(accepted.stream.peer_addr().unwrap(), accepted.peer);
    }

    #[tokio::test]
    async fn errors_are_told_apart() {
        let (mut acceptor, _) = acceptor();
        for (errno, waits) in [
            (Errno::ECONNABORTED, false),
            (Errno::EPROTO, false),
            (Errno::ENETDOWN, false),
            (Errno::EPERM, false),
            (Errno::EMFILE, true),
            (Errno::ENFILE, true),
            (Errno::ENOBUFS, true),
            (Errno::ENOMEM, true),
            (Errno::EINVAL, true),
        ] {
            let pause = acceptor.failed(&io::Error::from_raw_os_error(errno as i32));
            assert_eq!(pause.is_some(), waits, "{errno}");
        }
    }

    #[tokio::test]
    async fn pauses_grow_and_end() {
        let (mut acceptor, _) = acceptor();
        let shortage = io::Error::from_raw_os_error(Errno::EMFILE as i32);
        let pauses: Vec<_> =
            (0..9).filter_map(|_| acceptor.failed(&shortage)).map(|p| p.as_millis()).collect();
        assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
        acceptor.succeeded();
        assert_eq!(acceptor.failed(&shortage), Some(FIRST_PAUSE));
    }

    /// The limit is the whole process's, so the real test runs in one of its own.
    #[test]
    fn running_out_of_descriptors_is_survived() {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "net::accept::tests::out_of_descriptors", "--ignored"]);
        let output = child.output().unwrap();
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && stdout.contains("1 passed"), "{stdout}");
    }

    #[tokio::test(start_paused = true)]
    #[ignore = "takes every descriptor of its process: run by running_out_of_descriptors_is_survived"]
    async fn out_of_descriptors() {
        let (mut acceptor, address) = acceptor();
        let client = std::net::TcpStream::connect(address).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, 64, 64).unwrap();
        let taken: Vec<_> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
        assert!(!taken.is_empty());
        let waiting = tokio::time::timeout(Duration::from_mins(1), acceptor.accept()).await;
        assert!(waiting.is_err());
        drop(taken);
        let accepted = acceptor.accept().await;
        assert_eq!(accepted.peer, client.local_addr().unwrap());
    }
}
