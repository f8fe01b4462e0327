//! Which addresses are this machine's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// Whether an address is one of this machine's own, as the kernel's routes say: what goes there, goes from there. Sends nothing.
pub fn is_own(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    ip.is_loopback() || ip.is_unspecified() || comes_from(ip) == Some(ip)
}

/// The address that a packet to another would come from.
fn comes_from(ip: IpAddr) -> Option<IpAddr> {
    let any = if ip.is_ipv4() { IpAddr::from(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).ok()?;
    // Any port will do: a UDP socket that is connected has looked for a route, and sent nothing.
    socket.connect(SocketAddr::new(ip, 9)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_addresses_are_known_from_others() {
        for (ip, own) in [
            ("127.0.0.1", true),
            ("127.9.9.9", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("0.0.0.0", true),
            ("192.0.2.1", false),
            ("2001:db8::1", false),
        ] {
            assert_eq!(is_own(ip.parse().unwrap()), own, "{ip}");
        }
        // The address of whatever interface leads away, where there is one.
        let Some(outward) = comes_from(Ipv4Addr::new(192, 0, 2, 1).into()) else { return };
        assert!(is_own(outward));
    }
}
