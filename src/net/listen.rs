//! The sockets of a row: each worker has its own, and the kernel deals connections out between them.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::time::Duration;

use nix::errno::Errno;
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

use crate::config::model::Bind;

/// A row's listening sockets. Dropping what was not taken closes it.
#[derive(Debug)]
pub struct Bound {
    addresses: Vec<SocketAddr>,
    workers: Vec<Vec<TcpListener>>,
}

impl Bound {
    /// What it really listens on, one address a family.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The port, the same for every address.
    pub fn port(&self) -> u16 {
        self.addresses.first().map_or(0, SocketAddr::port)
    }

    /// Hands a worker, counted from 0, its sockets: non-blocking, one an address; nothing the second time.
    pub fn take(&mut self, worker: usize) -> Vec<TcpListener> {
        self.workers.get_mut(worker).map(std::mem::take).unwrap_or_default()
    }
}

/// A row's address that cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}{}", hint(*.address, .source))]
pub struct BindError {
    /// The address.
    pub address: SocketAddr,
    /// What the kernel said.
    pub source: io::Error,
}

/// Binds a row's addresses for so many workers, at least one, and listens with an accept queue of `backlog`
/// connections for each worker. A machine without IPv6 gets a row for every address on IPv4 alone.
///
/// `held` are the addresses that this process listens on already. Sockets that several workers share could be
/// shared with another process of the same user too, in silence; so a plain socket tries the address first, except
/// where `held` would be in its way.
///
/// # Errors
/// The first address that cannot be bound. Nothing stays bound then.
pub fn bind(bind: Bind, backlog: u32, workers: usize, held: &[SocketAddr]) -> Result<Bound, BindError> {
    let mut attempts = if bind.port() == 0 { PORT_ATTEMPTS } else { 1 };
    loop {
        attempts -= 1;
        match bind_all(bind, backlog, workers.max(1), held) {
            // The port that the kernel chose for IPv4 may be taken on IPv6.
            Err(error) if error.source.kind() == io::ErrorKind::AddrInUse && attempts > 0 => {}
            result => return result,
        }
    }
}

fn bind_all(bind: Bind, backlog: u32, workers: usize, held: &[SocketAddr]) -> Result<Bound, BindError> {
    let mut bound = Bound { addresses: Vec::new(), workers: (0..workers).map(|_| Vec::new()).collect() };
    match bind {
        Bind::One(address) => bound.add(address, backlog, held)?,
        Bind::All(port) => {
            bound.add((Ipv4Addr::UNSPECIFIED, port).into(), backlog, held)?;
            let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, bound.port()));
            match bound.add(address, backlog, held) {
                Err(error) if lacks_ipv6(&error.source) => {
                    tracing::info!(port = bound.port(), "this machine has no IPv6: listening on IPv4 alone");
                }
                result => result?,
            }
        }
    }
    Ok(bound)
}

impl Bound {
    fn add(&mut self, mut address: SocketAddr, backlog: u32, held: &[SocketAddr]) -> Result<(), BindError> {
        let failed = |address| move |source| BindError { address, source };
        if !held.iter().any(|held| overlap(*held, address)) {
            probe(address).map_err(failed(address))?;
        }
        for listeners in &mut self.workers {
            let listener = listen(address, backlog).map_err(failed(address))?;
            // Port 0 is a number for the others once the first has it.
            address = listener.local_addr().map_err(failed(address))?;
            listeners.push(listener);
        }
        self.addresses.push(address);
        Ok(())
    }
}

fn probe(address: SocketAddr) -> io::Result<()> {
    socket(address)?.bind(&address.into())
}

fn listen(address: SocketAddr, backlog: u32) -> io::Result<TcpListener> {
    let socket = socket(address)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    // On Linux accepted sockets inherit these two, which spares each of them four calls.
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&KEEPALIVE)?;
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}

/// IPv6 sockets take no IPv4 connections, so that a row has one socket a family, whatever the machine's default.
fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

/// Whether the kernel would call the one in use because of the other.
fn overlap(held: SocketAddr, wanted: SocketAddr) -> bool {
    let any = held.ip().is_unspecified() || wanted.ip().is_unspecified();
    held.port() == wanted.port() && held.is_ipv4() == wanted.is_ipv4() && (any || held.ip() == wanted.ip())
}

fn lacks_ipv6(error: &io::Error) -> bool {
    error.raw_os_error().map(Errno::from_raw).is_some_and(|errno| {
        matches!(errno, Errno::EAFNOSUPPORT | Errno::EPROTONOSUPPORT | Errno::EADDRNOTAVAIL)
    })
}

/// What to do about it.
fn hint(address: SocketAddr, error: &io::Error) -> String {
    let port = address.port();
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!(". Another process listens there; `ss -ltnp 'sport = :{port}'`, as root, names it")
        }
        io::ErrorKind::PermissionDenied => format!(
            ". A low port needs one of: a start as root, with `user` in [process] to drop to; the capability \
             CAP_NET_BIND_SERVICE (`AmbientCapabilities=` of a systemd unit, or `setcap cap_net_bind_service=+ep` on \
             the binary); or `sysctl net.ipv4.ip_unprivileged_port_start={port}`"
        ),
        io::ErrorKind::AddrNotAvailable => {
            format!(". No interface of this machine has {}; `ip address` lists what they have", address.ip())
        }
        _ => String::new(),
    }
}

/// A client, or a target, that vanished without a word is noticed after two minutes.
pub const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_mins(1))
    .with_interval(Duration::from_secs(15))
    .with_retries(4);

/// How often the kernel may choose another port for a row on port 0.
const PORT_ATTEMPTS: u32 = 16;

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, TcpStream};

    use super::*;

    const BACKLOG: u32 = 16;

    fn loopback(port: u16) -> Bind {
        Bind::One((Ipv4Addr::LOCALHOST, port).into())
    }

    fn has_ipv6() -> bool {
        TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
    }

    /// Accepts from whichever of the sockets the kernel chose.
    fn accepts(listeners: &[TcpListener]) -> TcpStream {
        loop {
            if let Some((stream, _)) = listeners.iter().find_map(|listener| listener.accept().ok()) {
                return stream;
            }
            std::thread::yield_now();
        }
    }

    #[test]
    fn every_worker_has_its_own_socket_on_one_port() {
        let mut bound = bind(loopback(0), BACKLOG, 3, &[]).unwrap();
        let address = bound.addresses()[0];
        assert_eq!((bound.addresses().len(), bound.port()), (1, address.port()));
        assert_ne!(bound.port(), 0);
        let listeners: Vec<_> = (0..3).flat_map(|worker| bound.take(worker)).collect();
        assert_eq!(listeners.iter().filter(|l| l.local_addr().unwrap() == address).count(), 3);
        assert!(bound.take(0).is_empty() && bound.take(3).is_empty());
    }

    #[test]
    fn accepted_sockets_inherit_their_options() {
        let mut bound = bind(loopback(0), BACKLOG, 1, &[]).unwrap();
        let _client = TcpStream::connect(bound.addresses()[0]).unwrap();
        let accepted = Socket::from(accepts(&bound.take(0)));
        assert!(accepted.tcp_nodelay().unwrap() && accepted.keepalive().unwrap());
        assert_eq!(accepted.tcp_keepalive_time().unwrap(), Duration::from_mins(1));
        assert_eq!(accepted.tcp_keepalive_retries().unwrap(), 4);
    }

    #[test]
    fn every_address_means_both_families() {
        let mut bound = bind(Bind::All(0), BACKLOG, 2, &[]).unwrap();
        let listeners: Vec<_> = (0..2).flat_map(|worker| bound.take(worker)).collect();
        let mut clients = vec![IpAddr::from(Ipv4Addr::LOCALHOST)];
        clients.extend(has_ipv6().then_some(IpAddr::from(Ipv6Addr::LOCALHOST)));
        assert_eq!(bound.addresses().len(), clients.len());
        for ip in clients {
            let client = TcpStream::connect((ip, bound.port())).unwrap();
            let peer = accepts(&listeners).peer_addr().unwrap();
            assert_eq!(peer, client.local_addr().unwrap());
        }
    }

    #[test]
    fn another_edge_on_the_port_is_noticed() {
        let first = bind(loopback(0), BACKLOG, 2, &[]).unwrap();
        let port = first.port();
        for wanted in [loopback(port), Bind::All(port)] {
            let error = bind(wanted, BACKLOG, 2, &[]).unwrap_err();
            assert_eq!(error.source.kind(), io::ErrorKind::AddrInUse);
            assert!(error.to_string().contains(&format!("`ss -ltnp 'sport = :{port}'`")), "{error}");
        }
    }

    #[test]
    fn one_edge_may_hold_a_port_for_all_addresses_and_for_one() {
        let all = bind(Bind::All(0), BACKLOG, 2, &[]).unwrap();
        let one = bind(loopback(all.port()), BACKLOG, 2, all.addresses()).unwrap();
        assert_eq!(one.port(), all.port());
        let first = bind(loopback(0), BACKLOG, 2, &[]).unwrap();
        // Elsewhere in this test process another family may hold the same number.
        if let Err(error) = bind(Bind::All(first.port()), BACKLOG, 2, first.addresses()) {
            assert!(error.address.is_ipv6(), "{error}");
        }
    }

    #[test]
    fn a_port_is_free_again_when_its_sockets_are_gone() {
        let bound = bind(loopback(0), BACKLOG, 2, &[]).unwrap();
        let port = bound.port();
        drop(bound);
        bind(loopback(port), BACKLOG, 2, &[]).unwrap();
    }

    #[test]
    fn errors_say_what_to_do() {
        let error = bind(Bind::One("192.0.2.1:8443".parse().unwrap()), BACKLOG, 1, &[]).unwrap_err();
        let message = error.to_string();
        assert!(message.starts_with("cannot listen on 192.0.2.1:8443: "), "{message}");
        assert!(
            message
                .ends_with("No interface of this machine has 192.0.2.1; `ip address` lists what they have")
        );
        let denied = BindError {
            address: "0.0.0.0:443".parse().unwrap(),
            source: io::ErrorKind::PermissionDenied.into(),
        };
        assert!(denied.to_string().contains("net.ipv4.ip_unprivileged_port_start=443"), "{denied}");
    }
}
