//! Ports that nobody else gets.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Socket, Type};

/// A port of 127.0.0.1 that the kernel gives to nobody else for as long as this lives. Who connects is refused, until a
/// server takes it by its number: they all set `SO_REUSEADDR`, and nobody listens here.
pub(crate) struct Port(Socket);

impl Port {
    /// One of the kernel's choice.
    pub(crate) fn reserve() -> Self {
        Self::at(0).unwrap()
    }

    /// This one, unless somebody has it.
    pub(crate) fn at(number: u16) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], number)).into())?;
        socket.set_reuse_address(true)?; // not before: it is nobody else's then
        Ok(Self(socket))
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap().as_socket().unwrap()
    }

    pub(crate) fn number(&self) -> u16 {
        self.address().port()
    }
}
