//! Frames as they are, put onto a device from inside of a namespace.
#![expect(unsafe_code, reason = "no library makes the address of a packet socket from an index")]

use std::io;
use std::os::fd::AsRawFd;

use anyhow::{Context as _, Result};
use nix::libc;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::netns::Netns;

/// Sends frames out of a device of a namespace.
///
/// # Errors
/// If there is no such device or it does not take them.
pub fn send(ns: &Netns, device: &str, frames: &[Vec<u8>]) -> Result<()> {
    ns.run(|| -> io::Result<()> {
        let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)?;
        let index = if_nametoindex(device)?;
        frames.iter().try_for_each(|frame| send_one(&socket, index, frame))
    })
    .flatten()
    .with_context(|| format!("cannot send frames out of {device} of {}", ns.name()))
}

fn send_one(socket: &impl AsRawFd, index: u32, frame: &[u8]) -> io::Result<()> {
    // SAFETY: all zero is a valid address.
    let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    to.sll_family = libc::AF_PACKET as libc::sa_family_t;
    to.sll_ifindex = index as libc::c_int;
    // SAFETY: both pointers are valid for the lengths that are given with them.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            0,
            (&raw const to).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    if sent == frame.len() as isize { Ok(()) } else { Err(io::Error::last_os_error()) }
}
