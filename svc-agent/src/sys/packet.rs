//! Packet sockets: frames of one protocol as a device gets them, without their Ethernet header.
#![expect(unsafe_code, reason = "no library makes link-layer addresses or attaches filters")]

use std::io;
use std::mem::zeroed;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use svc_common::net::{Be16, Mac};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Receives and sends by one device.
#[derive(Debug)]
pub struct PacketSocket {
    fd: AsyncFd<OwnedFd>,
    ifindex: i32,
    protocol: Be16,
}

/// A frame that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Bytes of it in the buffer.
    pub len: usize,
    /// Who sent it, by its Ethernet header.
    pub source: Mac,
    /// It was for this device: its own address, or a broadcast or multicast one.
    pub for_us: bool,
}

/// An instruction of a classic BPF program; jumps count instructions from the next one.
pub type Instruction = libc::sock_filter;

impl PacketSocket {
    /// Opens a socket for a protocol (as in Ethernet headers) on a device; `filter` says which frames come at all and sees
    /// them without their Ethernet header. Without a filter all do.
    ///
    /// To be called within a runtime.
    ///
    /// # Errors
    /// `EPERM` without CAP_NET_RAW; `ENODEV` if there is no such device.
    pub fn open(ifindex: u32, protocol: u16, filter: &[Instruction]) -> io::Result<Self> {
        let ifindex = i32::try_from(ifindex).map_err(io::Error::other)?;
        let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // Protocol 0: nothing comes before the filter is there.
        // SAFETY: no memory is involved; a descriptor that is not negative is new and nobody else's.
        let fd = unsafe {
            let fd = libc::socket(libc::AF_PACKET, kind, 0);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        // SAFETY: an `OwnedFd` owns its descriptor and does not change it; it is closed after the registration ended.
        let fd = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?;
        let socket = Self { fd, ifindex, protocol: Be16::from_host(protocol) };
        if !filter.is_empty() {
            socket.attach(filter)?;
        }
        let address = socket.address(Mac::default());
        // SAFETY: `address` is a whole `sockaddr_ll`, which the kernel only reads.
        let bound = unsafe {
            libc::bind(socket.fd.as_raw_fd(), (&raw const address).cast(), size_of_val(&address) as libc::socklen_t)
        };
        if bound != 0 { Err(io::Error::last_os_error()) } else { Ok(socket) }
    }

    /// Waits for a frame; what does not fit into the buffer is cut off. May be dropped at any await.
    ///
    /// # Errors
    /// `ENETDOWN` once after the device went down.
    pub async fn receive(&self, buffer: &mut [u8]) -> io::Result<Received> {
        self.fd.async_io(Interest::READABLE, |_| self.try_receive(buffer)).await
    }

    fn try_receive(&self, buffer: &mut [u8]) -> io::Result<Received> {
        // SAFETY: all zero is a valid `sockaddr_ll`.
        let mut from: libc::sockaddr_ll = unsafe { zeroed() };
        let mut from_len = size_of_val(&from) as libc::socklen_t;
        // SAFETY: the kernel writes at most `buffer.len()` bytes to `buffer` and at most `from_len` to `from`; any bytes are
        // valid in both.
        let received = unsafe {
            libc::recvfrom(
                self.fd.as_raw_fd(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                0,
                (&raw mut from).cast(),
                &raw mut from_len,
            )
        };
        let len = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        let [a, b, c, d, e, f, _, _] = from.sll_addr;
        let for_us = matches!(from.sll_pkttype, libc::PACKET_HOST | libc::PACKET_BROADCAST | libc::PACKET_MULTICAST);
        Ok(Received { len: len.min(buffer.len()), source: Mac([a, b, c, d, e, f]), for_us })
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// If the device is down, or its queue full.
    pub fn send(&self, to: Mac, bytes: &[u8]) -> io::Result<()> {
        let address = self.address(to);
        // SAFETY: the kernel reads `bytes.len()` bytes of `bytes` and a whole `sockaddr_ll`.
        let sent = unsafe {
            libc::sendto(
                self.fd.as_raw_fd(),
                bytes.as_ptr().cast(),
                bytes.len(),
                0,
                (&raw const address).cast(),
                size_of_val(&address) as libc::socklen_t,
            )
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn attach(&self, filter: &[Instruction]) -> io::Result<()> {
        let program = libc::sock_fprog {
            len: u16::try_from(filter.len()).map_err(io::Error::other)?,
            filter: filter.as_ptr().cast_mut(),
        };
        // SAFETY: the kernel reads the program and `len` instructions of `filter`, and writes to neither.
        let attached = unsafe {
            libc::setsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_ATTACH_FILTER,
                (&raw const program).cast(),
                size_of_val(&program) as libc::socklen_t,
            )
        };
        if attached != 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn address(&self, to: Mac) -> libc::sockaddr_ll {
        let [a, b, c, d, e, f] = to.0;
        libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: self.protocol.raw(),
            sll_ifindex: self.ifindex,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 6,
            sll_addr: [a, b, c, d, e, f, 0, 0],
        }
    }
}
