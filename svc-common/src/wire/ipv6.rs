//! IPv6 (RFC 8200).

use crate::net::Be16;

/// An IPv6 header without extensions.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ipv6Header {
    /// Version, traffic class, flow label.
    pub version_class_flow: [u8; 4],
    /// Bytes after this header.
    pub payload_len: Be16,
    /// IANA protocol number of what follows.
    pub next_header: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// Source address.
    pub src: [u8; 16],
    /// Destination address.
    pub dst: [u8; 16],
}

/// Extension headers by their protocol numbers (RFC 8200 section 4).
pub mod ipv6_next {
    /// Hop-by-hop options.
    pub const HOP_BY_HOP: u8 = 0;
    /// Routing.
    pub const ROUTING: u8 = 43;
    /// Fragment.
    pub const FRAGMENT: u8 = 44;
    /// Authentication (RFC 4302).
    pub const AUTHENTICATION: u8 = 51;
    /// Destination options.
    pub const DESTINATION: u8 = 60;
}

/// The first 8 bytes of an extension header. Those of an Authentication header may begin at any multiple of 4 bytes.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExtensionHeader {
    /// What follows.
    pub next_header: u8,
    /// Its length, in units of its own; reserved in a Fragment header.
    pub len: u8,
    /// Fragment: offset in units of 8 bytes, two reserved bits, more-fragments flag. Routing: type and segments left.
    pub specific: [u8; 2],
    /// Fragment: the identification.
    pub id: [u8; 4],
}

impl ExtensionHeader {
    /// Its length in bytes, were it of type `own`.
    #[inline(always)]
    pub const fn len_bytes(&self, own: u8) -> u32 {
        let len = self.len as u32;
        match own {
            ipv6_next::FRAGMENT => 8,
            ipv6_next::AUTHENTICATION => (len + 2) * 4,
            _ => (len + 1) * 8,
        }
    }
}
