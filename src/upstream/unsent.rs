//! What the kernel knows of bytes that were written to a TCP socket.
#![allow(unsafe_code, reason = "no library that is used here asks for SIOCOUTQ")]

use std::ffi::c_int;
use std::io;
use std::os::fd::AsFd;

use rustix::ioctl::{Getter, Opcode, ioctl};

/// `SIOCOUTQ` of tcp(7).
const OUTSTANDING: Opcode = 0x5411;

/// How many of the octets that were written the other side has not acknowledged. Holds after the connection's end too.
pub(super) fn unacknowledged(socket: &impl AsFd) -> io::Result<u64> {
    // SAFETY: SIOCOUTQ writes one int (tcp(7)), and to nothing but the place that `Getter` has for it.
    let count = unsafe { ioctl(socket, Getter::<OUTSTANDING, c_int>::new()) }?;
    Ok(u64::try_from(count).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpListener, TcpStream};

    use super::*;

    #[test]
    fn what_a_closed_socket_was_sent_is_not_acknowledged() {
        for (closes_first, expected) in [(true, 300), (false, 0)] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let mut server = listener.accept().unwrap().0;
            client.write_all(b"before").unwrap();
            server.read_exact(&mut [0; 6]).unwrap();
            server.write_all(b"answer").unwrap();
            client.read_exact(&mut [0; 6]).unwrap();
            if closes_first {
                drop(server);
                client.write_all(&[0; 300]).unwrap();
            } else {
                client.write_all(&[0; 300]).unwrap();
                server.read_exact(&mut [0; 300]).unwrap();
                server.shutdown(Shutdown::Both).unwrap();
            }
            assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
            assert_eq!(unacknowledged(&client).unwrap(), expected);
        }
    }
}
