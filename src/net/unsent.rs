//! What the kernel knows of bytes that were written to a TCP socket.
#![allow(unsafe_code, reason = "no library that is used here asks for SIOCOUTQ or SO_MEMINFO")]

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::libc;
use rustix::ioctl::{Getter, Opcode, ioctl};

/// `SIOCOUTQ` of tcp(7).
const OUTSTANDING: Opcode = 0x5411;

/// How many of the octets that were written the other side has not acknowledged. Holds after the connection's end too.
pub fn unacknowledged(socket: &impl AsFd) -> io::Result<u64> {
    // SAFETY: SIOCOUTQ writes one int (tcp(7)), and to nothing but the place that `Getter` has for it.
    let count = unsafe { ioctl(socket, Getter::<OUTSTANDING, c_int>::new()) }?;
    Ok(u64::try_from(count).unwrap_or_default())
}

/// How many octets the kernel takes now. It counts the memory that they need, which for small segments is half as much again:
/// here one of two octets of its room is left to that.
pub fn room(socket: &impl AsFd) -> io::Result<usize> {
    let mut memory = [0_u32; libc::SK_MEMINFO_DROPS as usize + 1];
    let mut length = libc::socklen_t::try_from(size_of_val(&memory)).unwrap_or_default();
    // SAFETY: SO_MEMINFO writes `length` octets at most (socket(7)), which `memory` has.
    let got = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            memory.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    Errno::result(got)?;
    let [_, _, _, most, _, queued, ..] = memory;
    Ok(usize::try_from(most.saturating_sub(queued) / 2).unwrap_or(usize::MAX))
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
