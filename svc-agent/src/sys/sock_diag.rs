//! `NETLINK_SOCK_DIAG`: connected UDP sockets, and their end (linux/inet_diag.h).

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket};
use nix::sys::time::{TimeVal, TimeValLike as _};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
/// A UDP socket is "established" while it is connected.
const CONNECTED: u32 = 1 << 1;

/// Length of `struct nlmsghdr`.
const HEADER: usize = 16;
/// Length of what comes before `struct inet_diag_sockid` in question and answer, the latter without its header.
const BEFORE_ID: (usize, usize) = (8, 4);
/// Length of `struct inet_diag_sockid`.
const ID: usize = 48;

/// How long the kernel may take to answer.
const PATIENCE_S: i64 = 5;

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
pub struct SockDiag(OwnedFd);

impl SockDiag {
    /// Opens one for the calling thread's network namespace.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn open() -> io::Result<Self> {
        let socket =
            socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkSockDiag)?;
        setsockopt(&socket, ReceiveTimeout, &TimeVal::seconds(PATIENCE_S))?;
        Ok(Self(socket))
    }

    /// The connected UDP sockets of both families.
    ///
    /// # Errors
    /// If the kernel cannot tell: `ENOENT` without CONFIG_INET_UDP_DIAG.
    pub fn connected(&self) -> io::Result<Vec<Connected>> {
        let mut found = Vec::new();
        for family in [libc::AF_INET as u8, libc::AF_INET6 as u8] {
            self.ask(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, &Connected { family, id: [0; ID] })?;
            self.answers(|answer| {
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
        self.ask(SOCK_DESTROY, NLM_F_ACK, connected)?;
        self.answers(|_| {})
    }

    fn ask(&self, kind: u16, flags: u16, about: &Connected) -> io::Result<()> {
        let len = HEADER + BEFORE_ID.0 + ID;
        let mut message = Vec::with_capacity(len);
        message.extend_from_slice(&u32::try_from(len).map_err(io::Error::other)?.to_ne_bytes());
        message.extend_from_slice(&kind.to_ne_bytes());
        message.extend_from_slice(&(NLM_F_REQUEST | flags).to_ne_bytes());
        // Sequence and port.
        message.extend_from_slice(&[0; 8]);
        message.extend_from_slice(&[about.family, libc::IPPROTO_UDP as u8, 0, 0]);
        message.extend_from_slice(&CONNECTED.to_ne_bytes());
        message.extend_from_slice(&about.id);
        send(self.0.as_raw_fd(), &message, MsgFlags::empty())?;
        Ok(())
    }

    /// Reads up to the end of the answer.
    fn answers(&self, mut take: impl FnMut(&[u8])) -> io::Result<()> {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let received = match recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Err(nix::Error::EINTR) => continue,
                received => received?,
            };
            let mut rest = buffer.get(..received).unwrap_or_default();
            while let Some((message, after)) = next(rest) {
                rest = after;
                let Some((kind, body)) = split(message) else { continue };
                match kind {
                    NLMSG_DONE | NLMSG_ERROR => {
                        let code = body.first_chunk().copied().map_or(0, i32::from_ne_bytes);
                        return if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-code)) };
                    }
                    _ => take(body),
                }
            }
        }
    }
}

/// The first message and what comes after it; messages begin at multiples of four.
fn next(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let len = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
    let message = bytes.get(..len).filter(|_| len >= HEADER)?;
    Some((message, bytes.get(len.next_multiple_of(4)..).unwrap_or_default()))
}

/// Kind and body of a message.
fn split(message: &[u8]) -> Option<(u16, &[u8])> {
    Some((u16::from_ne_bytes(message.get(4..6)?.try_into().ok()?), message.get(HEADER..)?))
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
