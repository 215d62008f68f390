//! Geneve (RFC 8926), as far as it is used here: no options, and the packet itself inside, without an Ethernet header.

use super::{Ports, UdpHeader};
use crate::net::Be16;

/// The port of Geneve.
pub const GENEVE_PORT: Be16 = Be16::from_host(6081);

/// The UDP header and Geneve's own.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GeneveHeader {
    /// The UDP header.
    pub udp: UdpHeader,
    /// Version, which is zero, and the length of the options.
    pub version_len: u8,
    /// Whether the packet is for the tunnel's end itself, and whether an option has to be understood.
    pub flags: u8,
    /// Ether type of what is inside.
    pub protocol: Be16,
    /// Network, 24 bits, and a byte that is zero.
    pub network: [u8; 4],
}

impl GeneveHeader {
    /// The header before a packet of `len` bytes with this ether type.
    ///
    /// UDP's checksum is left out, in IPv6, too (RFC 6935): the packet inside has its own.
    #[inline(always)]
    pub const fn new(sport: Be16, protocol: Be16, len: u16) -> Self {
        let ports = Ports { sport, dport: GENEVE_PORT };
        let udp = UdpHeader { ports, len: Be16::from_host(len), checksum: Be16::from_host(0) };
        Self { udp, version_len: 0, flags: 0, protocol, network: [0; 4] }
    }

    /// Whether a packet with this ether type follows at once.
    #[inline(always)]
    pub fn carries(&self, protocol: Be16) -> bool {
        self.udp.ports.dport == GENEVE_PORT && self.version_len == 0 && self.flags == 0 && self.protocol == protocol
    }
}
