//! The sockets of a row: each worker has its own, and the kernel deals connections out between them.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::time::Duration;

use nix::errno::Errno;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use crate::config::model::Bind;

/// A row's listening sockets. Dropping what was not taken closes it.
#[derive(Debug)]
pub struct Bound {
    addresses: Vec<SocketAddr>,
    sockets: Vec<TcpListener>,
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

    /// Hands a worker, counted from 0, its sockets: non-blocking, one an address, more where more were given; nothing the
    /// second time.
    pub fn take(&mut self, worker: usize) -> Vec<TcpListener> {
        self.workers.get_mut(worker).map(std::mem::take).unwrap_or_default()
    }

    /// Each of its sockets once more, for whom they are handed on to: they listen for as long as anybody has them.
    pub fn take_originals(&mut self) -> Vec<TcpListener> {
        std::mem::take(&mut self.sockets)
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
    adopt(bind, backlog, workers, held, Vec::new())
}

/// The same for a row of which `given` listen already: they are used, and what lacks is bound. Where there are more of
/// them than workers, some workers have several; where there are fewer and no more can be bound, workers share them.
///
/// # Errors
/// As for [`bind`].
pub fn adopt(
    bind: Bind,
    backlog: u32,
    workers: usize,
    held: &[SocketAddr],
    given: Vec<TcpListener>,
) -> Result<Bound, BindError> {
    let mut given = Some(given).filter(|given| !given.is_empty());
    let mut attempts = if bind.port() == 0 && given.is_none() { PORT_ATTEMPTS } else { 1 };
    loop {
        attempts -= 1;
        match bind_all(bind, backlog, workers.max(1), held, given.take().unwrap_or_default()) {
            // The port that the kernel chose for IPv4 may be taken on IPv6.
            Err(error) if error.source.kind() == io::ErrorKind::AddrInUse && attempts > 0 => {}
            result => return result,
        }
    }
}

fn bind_all(
    bind: Bind,
    backlog: u32,
    workers: usize,
    held: &[SocketAddr],
    given: Vec<TcpListener>,
) -> Result<Bound, BindError> {
    let mut bound = Bound {
        addresses: Vec::new(),
        sockets: Vec::new(),
        workers: (0..workers).map(|_| Vec::new()).collect(),
    };
    match bind {
        Bind::One(address) => bound.add(address, backlog, held, given)?,
        Bind::All(port) => bound.add_all(port, backlog, held, given)?,
    }
    Ok(bound)
}

impl Bound {
    fn add_all(
        &mut self,
        port: u16,
        backlog: u32,
        held: &[SocketAddr],
        given: Vec<TcpListener>,
    ) -> Result<(), BindError> {
        let is_ipv6 = |socket: &TcpListener| socket.local_addr().is_ok_and(|address| address.is_ipv6());
        let (ipv6, ipv4): (Vec<_>, Vec<_>) = given.into_iter().partition(is_ipv6);
        // systemd's `ListenStream=443` takes both families.
        let is_both = |socket: &TcpListener| SockRef::from(socket).only_v6().is_ok_and(|only| !only);
        if !(ipv4.is_empty() && ipv6.first().is_some_and(is_both)) {
            self.add((Ipv4Addr::UNSPECIFIED, port).into(), backlog, held, ipv4)?;
        }
        let port = if self.port() == 0 { port } else { self.port() };
        match self.add((Ipv6Addr::UNSPECIFIED, port).into(), backlog, held, ipv6) {
            Err(error) if lacks_ipv6(&error.source) => {
                tracing::info!(port, "this machine has no IPv6: listening on IPv4 alone");
                Ok(())
            }
            result => result,
        }
    }

    fn add(
        &mut self,
        mut address: SocketAddr,
        backlog: u32,
        held: &[SocketAddr],
        given: Vec<TcpListener>,
    ) -> Result<(), BindError> {
        let failed = |address| move |source| BindError { address, source };
        if given.is_empty() && !held.iter().any(|held| overlap(*held, address)) {
            probe(address).map_err(failed(address))?;
        }
        for socket in &given {
            address = socket.local_addr().map_err(failed(address))?;
            prepare(&SockRef::from(socket)).map_err(failed(address))?;
            listen_on(&SockRef::from(socket), backlog).map_err(failed(address))?;
        }
        let mut sockets = given;
        while sockets.len() < self.workers.len() {
            match listen(address, backlog) {
                Ok(socket) => {
                    // Port 0 is a number for the others once the first has it.
                    address = socket.local_addr().map_err(failed(address))?;
                    sockets.push(socket);
                }
                // Whoever opened the first may be somebody whom this process can add none to.
                Err(_) if !sockets.is_empty() => break,
                Err(error) => return Err(failed(address)(error)),
            }
        }
        self.deal(&sockets).map_err(failed(address))?;
        self.sockets.extend(sockets);
        self.addresses.push(address);
        Ok(())
    }

    /// Every worker has at least one of the sockets, and every socket at least one worker.
    fn deal(&mut self, sockets: &[TcpListener]) -> io::Result<()> {
        let (rounds, workers) = (sockets.len().max(self.workers.len()), self.workers.len());
        for (index, socket) in sockets.iter().cycle().take(rounds).enumerate() {
            if let Some(own) = self.workers.get_mut(index % workers) {
                own.push(socket.try_clone()?);
            }
        }
        Ok(())
    }
}

fn probe(address: SocketAddr) -> io::Result<()> {
    socket(address)?.bind(&address.into())
}

fn listen(address: SocketAddr, backlog: u32) -> io::Result<TcpListener> {
    let socket = socket(address)?;
    socket.set_reuse_port(true)?;
    prepare(&socket)?;
    socket.bind(&address.into())?;
    listen_on(&socket, backlog)?;
    Ok(socket.into())
}

fn prepare(socket: &Socket) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    // On Linux accepted sockets inherit these two, which spares each of them four calls.
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&KEEPALIVE)
}

/// For a socket that listens already, it sets the queue's length.
fn listen_on(socket: &Socket, backlog: u32) -> io::Result<()> {
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))
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
    fn what_is_given_is_used_and_what_lacks_is_bound() {
        for (before, after, sockets) in [(2, 2, 2), (3, 1, 3), (1, 3, 3)] {
            let mut first = bind(loopback(0), BACKLOG, before, &[]).unwrap();
            let port = first.port();
            let mut second = adopt(loopback(0), BACKLOG, after, &[], first.take_originals()).unwrap();
            assert_eq!(second.port(), port);
            drop(first);
            let listeners: Vec<_> = (0..after).flat_map(|worker| second.take(worker)).collect();
            assert_eq!(listeners.len(), before.max(after));
            assert_eq!(second.take_originals().len(), sockets);
            for _ in 0..16 {
                let client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
                assert_eq!(accepts(&listeners).peer_addr().unwrap(), client.local_addr().unwrap());
            }
        }
    }

    #[test]
    fn workers_share_a_socket_that_no_more_can_be_added_to() {
        let given = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = given.local_addr().unwrap();
        let mut bound = adopt(Bind::One(address), BACKLOG, 3, &[], vec![given]).unwrap();
        assert_eq!((0..3).map(|worker| bound.take(worker).len()).collect::<Vec<_>>(), [1, 1, 1]);
        assert_eq!(bound.take_originals().len(), 1);
    }

    #[test]
    fn one_socket_may_be_for_both_families() {
        if !has_ipv6() {
            return;
        }
        let socket = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP)).unwrap();
        socket.set_only_v6(false).unwrap();
        socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)).into()).unwrap();
        socket.listen(1).unwrap();
        let port = socket.local_addr().unwrap().as_socket().unwrap().port();
        let mut bound = adopt(Bind::All(port), BACKLOG, 1, &[], vec![socket.into()]).unwrap();
        assert_eq!(bound.addresses(), [SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))]);
        let _client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        accepts(&bound.take(0));
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
