//! What XDP can do on a device, by the family `netdev` of generic netlink (linux/netdev.h; since 6.3).

use std::io;

use nix::sys::socket::SockProtocol;

use super::netlink::{ACK, Socket};

/// The family that knows the numbers of the others.
const CONTROL: u16 = 16;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;

const GET_DEVICE: u8 = 1;
const IFINDEX: u16 = 1;
const XDP_FEATURES: u16 = 3;
/// Of the features: frames that an XDP program redirects to the device go out of it.
const SENDS: u64 = 1 << 2;

/// Length of `struct genlmsghdr`, and of `struct nlattr`.
const HEADER: usize = 4;

/// Whether frames that XDP redirects to a device go out of it. A veth takes them while its other end polls: with GRO, or
/// with an XDP program of its own. `None` if this kernel does not tell.
///
/// # Errors
/// If there is no such device, or the kernel does not answer.
pub fn xdp_sends(ifindex: u32) -> io::Result<Option<bool>> {
    let socket = Socket::open(SockProtocol::NetlinkGeneric)?;
    let family = match ask(&socket, CONTROL, GET_FAMILY, (FAMILY_NAME, b"netdev\0"), FAMILY_ID) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        family => family?.map(u16::from_ne_bytes),
    };
    let Some(family) = family else { return Ok(None) };
    let features = ask(&socket, family, GET_DEVICE, (IFINDEX, &ifindex.to_ne_bytes()), XDP_FEATURES)?;
    Ok(features.map(|features| u64::from_ne_bytes(features) & SENDS != 0))
}

/// Asks a family with one attribute; another one of the answer.
fn ask<const N: usize>(
    socket: &Socket,
    family: u16,
    command: u8,
    (kind, value): (u16, &[u8]),
    wanted: u16,
) -> io::Result<Option<[u8; N]>> {
    let len = u16::try_from(HEADER + value.len()).map_err(io::Error::other)?;
    let mut body = vec![command, 1, 0, 0];
    body.extend(len.to_ne_bytes().into_iter().chain(kind.to_ne_bytes()));
    body.extend_from_slice(value);
    body.resize(body.len().next_multiple_of(HEADER), 0);
    let mut found = None;
    socket.ask(family, ACK, &body, |answer| {
        let value = answer.get(HEADER..).and_then(|attributes| attribute(attributes, wanted));
        found = value.and_then(|value| value.try_into().ok());
    })?;
    Ok(found)
}

/// The value of an attribute; they begin at multiples of four.
fn attribute(mut bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let [a, b, c, d] = *bytes.first_chunk()?;
        let (len, kind) = (usize::from(u16::from_ne_bytes([a, b])), u16::from_ne_bytes([c, d]));
        let value = bytes.get(HEADER..len)?;
        if kind == wanted {
            return Some(value);
        }
        bytes = bytes.get(len.next_multiple_of(HEADER)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attribute_is_found_behind_others_and_not_beyond_the_end() {
        let bytes = [6, 0, 1, 0, 7, 7, 0, 0, 12, 0, 3, 0, 1, 2, 3, 4, 5, 6, 7, 8];
        assert_eq!(attribute(&bytes, 3), Some(&[1, 2, 3, 4, 5, 6, 7, 8][..]));
        assert_eq!(attribute(&bytes, 1), Some(&[7, 7][..]));
        assert_eq!(attribute(&bytes, 2), None);
        assert_eq!(attribute(&bytes[..19], 3), None);
        // A length that says nothing, and would be followed for ever.
        assert_eq!(attribute(&[0; 8], 3), None);
        assert_eq!(attribute(&[], 3), None);
    }

    #[test]
    fn nothing_is_sent_out_of_the_loopback_device() {
        const LOOPBACK: u32 = 1;
        assert_ne!(xdp_sends(LOOPBACK).unwrap(), Some(true));
        assert!(xdp_sends(u32::MAX).is_err() || xdp_sends(LOOPBACK).unwrap().is_none());
    }
}
