//! Netlink for what no library speaks: one question, and its answer to the end.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket};
use nix::sys::time::{TimeVal, TimeValLike as _};

/// One thing: the kernel says when it is done.
pub const ACK: u16 = 4;
/// Everything that there is of a kind.
pub const DUMP: u16 = 0x300;

const REQUEST: u16 = 1;
const ERROR: u16 = 2;
const DONE: u16 = 3;

/// Length of `struct nlmsghdr`.
const HEADER: usize = 16;
/// How long the kernel may take to answer.
const PATIENCE_S: i64 = 5;

/// A socket that asks in one network namespace: that in which it was opened.
#[derive(Debug)]
pub struct Socket(OwnedFd);

impl Socket {
    /// Opens one for the calling thread's network namespace.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn open(protocol: SockProtocol) -> io::Result<Self> {
        let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        setsockopt(&socket, ReceiveTimeout, &TimeVal::seconds(PATIENCE_S))?;
        Ok(Self(socket))
    }

    /// Asks, and gives away the body of every message of the answer. `flags` is [`ACK`] or [`DUMP`]: without either, the answer
    /// has no end.
    ///
    /// # Errors
    /// What the kernel says, or nothing in five seconds.
    pub fn ask(&self, kind: u16, flags: u16, body: &[u8], take: impl FnMut(&[u8])) -> io::Result<()> {
        let len = HEADER + body.len();
        let mut message = Vec::with_capacity(len);
        message.extend_from_slice(&u32::try_from(len).map_err(io::Error::other)?.to_ne_bytes());
        message.extend_from_slice(&kind.to_ne_bytes());
        message.extend_from_slice(&(REQUEST | flags).to_ne_bytes());
        // Sequence and port.
        message.extend_from_slice(&[0; 8]);
        message.extend_from_slice(body);
        send(self.0.as_raw_fd(), &message, MsgFlags::empty())?;
        self.answer(take)
    }

    fn answer(&self, mut take: impl FnMut(&[u8])) -> io::Result<()> {
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
                    DONE | ERROR => {
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
