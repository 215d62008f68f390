//! `NETLINK_SOCK_DIAG`: connected UDP sockets, and their end (linux/inet_diag.h).

use std::io;

use nix::sys::socket::SockProtocol;

use super::netlink::{ACK, DUMP, Socket};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
/// A UDP socket is "established" while it is connected.
const CONNECTED: u32 = 1 << 1;

/// Length of what comes before `struct inet_diag_sockid` in question and answer, the latter without its header.
const BEFORE_ID: (usize, usize) = (8, 4);
/// Length of `struct inet_diag_sockid`.
const ID: usize = 48;

/// A connected UDP socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connected {
    /// `AF_INET` or `AF_INET6`.
    family: u8,
    /// `struct inet_diag_sockid`, as the kernel gave it.
    id: [u8; ID],
}

impl Connected {
    /// The socket's cookie.
    pub fn cookie(&self) -> u64 {
        let word = |at| self.bytes::<4>(at).map_or(0, u32::from_ne_bytes);
        u64::from(word(44)) << 32 | u64::from(word(40))
    }

    /// Its peer; IPv4 mapped into IPv6.
    pub fn peer(&self) -> Option<([u8; 16], u16)> {
        let port = self.bytes::<2>(2).map(u16::from_be_bytes)?;
        let addr = self.bytes::<16>(20)?;
        if i32::from(self.family) == libc::AF_INET {
            let [a, b, c, d, ..] = addr;
            return Some(([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d], port));
        }
        Some((addr, port))
    }

    fn bytes<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.id.get(at..at + N)?.try_into().ok()
    }
}

/// A way to ask about the sockets of one network namespace: that in which it was opened.
#[derive(Debug)]
pub struct SockDiag(Socket);

impl SockDiag {
    /// Opens one for the calling thread's network namespace.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn open() -> io::Result<Self> {
        Socket::open(SockProtocol::NetlinkSockDiag).map(Self)
    }

    /// The connected UDP sockets of both families.
    ///
    /// # Errors
    /// If the kernel cannot tell: `ENOENT` without CONFIG_INET_UDP_DIAG.
    pub fn connected(&self) -> io::Result<Vec<Connected>> {
        let mut found = Vec::new();
        for family in [libc::AF_INET as u8, libc::AF_INET6 as u8] {
            self.ask(SOCK_DIAG_BY_FAMILY, DUMP, &Connected { family, id: [0; ID] }, |answer| {
                let id = answer.get(BEFORE_ID.1..BEFORE_ID.1 + ID).and_then(|id| id.try_into().ok());
                if let (Some(&family), Some(id)) = (answer.first(), id) {
                    found.push(Connected { family, id });
                }
            })?;
        }
        Ok(found)
    }

    /// Ends a socket: who waits on it, and the next who uses it, gets ECONNABORTED. Never one that took its place.
    ///
    /// # Errors
    /// `EOPNOTSUPP` without CONFIG_INET_DIAG_DESTROY, `ENOENT` if it is closed already.
    pub fn destroy(&self, connected: &Connected) -> io::Result<()> {
        self.ask(SOCK_DESTROY, ACK, connected, |_| {})
    }

    fn ask(&self, kind: u16, flags: u16, about: &Connected, take: impl FnMut(&[u8])) -> io::Result<()> {
        let mut body = Vec::with_capacity(BEFORE_ID.0 + ID);
        body.extend_from_slice(&[about.family, libc::IPPROTO_UDP as u8, 0, 0]);
        body.extend_from_slice(&CONNECTED.to_ne_bytes());
        body.extend_from_slice(&about.id);
        self.0.ask(kind, flags, &body, take)
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn a_connected_socket_is_found_by_its_peer_and_has_a_cookie() {
        let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = peer.local_addr().unwrap().port();
        let v4 = UdpSocket::bind("127.0.0.1:0").unwrap();
        v4.connect(peer.local_addr().unwrap()).unwrap();
        let mapped = UdpSocket::bind("[::]:0").unwrap();
        mapped.connect(("::ffff:127.0.0.1", port)).unwrap();
        let Ok(found) = SockDiag::open().unwrap().connected() else {
            // A kernel without UDP diagnosis.
            return;
        };
        let wanted = ([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1], port);
        let found: Vec<_> = found.iter().filter(|socket| socket.peer() == Some(wanted)).collect();
        assert_eq!(found.len(), 2);
        assert!(found.iter().all(|socket| socket.cookie() != 0) && found[0].cookie() != found[1].cookie());
    }
}
