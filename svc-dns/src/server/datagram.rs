//! Datagrams with both of their addresses: an answer has to come from where the question went to, whatever addresses
//! this machine has.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, RawFd};

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg};

/// Where a datagram came from and went to.
#[derive(Clone, Copy, Debug)]
pub struct Path {
    /// The client.
    pub client: SocketAddr,
    /// The address of this machine, with the device for addresses that are the device's alone.
    local: Option<(IpAddr, u32)>,
}

/// Receives a datagram into `buffer`; tells its length.
pub fn receive(socket: &impl AsRawFd, buffer: &mut [u8]) -> io::Result<(usize, Path)> {
    let mut control = nix::cmsg_space!(libc::in_pktinfo, libc::in6_pktinfo);
    let mut parts = [IoSliceMut::new(buffer)];
    let received = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty())?;
    let client = received.address.as_ref().and_then(client).ok_or(io::ErrorKind::InvalidData)?;
    let mut local = None;
    for message in received.cmsgs()? {
        match message {
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                local = Some((IpAddr::V4(Ipv4Addr::from(u32::from_be(info.ipi_spec_dst.s_addr))), 0));
            }
            ControlMessageOwned::Ipv6PacketInfo(info) => {
                let address = Ipv6Addr::from(info.ipi6_addr.s6_addr);
                let device = if address.is_unicast_link_local() { info.ipi6_ifindex } else { 0 };
                local = Some((IpAddr::V6(address), device));
            }
            _ => {}
        }
    }
    Ok((received.bytes, Path { client, local }))
}

/// Sends an answer the same way back.
pub fn reply(socket: &impl AsRawFd, bytes: &[u8], path: &Path) -> io::Result<()> {
    let parts = [IoSlice::new(bytes)];
    let to = SockaddrStorage::from(path.client);
    let send = |control: &[ControlMessage<'_>]| send_on(socket.as_raw_fd(), &parts, control, &to);
    match path.local {
        Some((IpAddr::V4(local), _)) => send(&[ControlMessage::Ipv4PacketInfo(&libc::in_pktinfo {
            ipi_ifindex: 0,
            ipi_spec_dst: libc::in_addr { s_addr: u32::from(local).to_be() },
            ipi_addr: libc::in_addr { s_addr: 0 },
        })]),
        Some((IpAddr::V6(local), device)) => send(&[ControlMessage::Ipv6PacketInfo(&libc::in6_pktinfo {
            ipi6_addr: libc::in6_addr { s6_addr: local.octets() },
            ipi6_ifindex: device,
        })]),
        None => send(&[]),
    }
}

fn send_on(fd: RawFd, parts: &[IoSlice<'_>], control: &[ControlMessage<'_>], to: &SockaddrStorage) -> io::Result<()> {
    sendmsg(fd, parts, control, MsgFlags::empty(), Some(to))?;
    Ok(())
}

fn client(address: &SockaddrStorage) -> Option<SocketAddr> {
    match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
        (Some(v4), _) => Some(SocketAddrV4::from(*v4).into()),
        (_, Some(v6)) => Some(SocketAddrV6::from(*v6).into()),
        _ => None,
    }
}
