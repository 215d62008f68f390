//! IPv4 (RFC 791).

use crate::net::Be16;

/// An IPv4 header without its options.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ipv4Header {
    /// Version in the high half, header length in words in the low half.
    pub version_ihl: u8,
    /// Differentiated services and ECN.
    pub tos: u8,
    /// Bytes of header and payload.
    pub total_len: Be16,
    /// Identification of a datagram's fragments.
    pub id: Be16,
    /// Flags and fragment offset.
    pub fragment: Be16,
    /// Time to live.
    pub ttl: u8,
    /// IANA protocol number of the payload.
    pub proto: u8,
    /// Header checksum.
    pub checksum: Be16,
    /// Source address.
    pub src: [u8; 4],
    /// Destination address.
    pub dst: [u8; 4],
}

impl Ipv4Header {
    /// More-fragments flag and offset: zero if the packet is a whole datagram.
    #[inline(always)]
    pub const fn fragment_bits(&self) -> u16 {
        self.fragment.to_host() & 0x3fff
    }

    /// Whether the payload begins elsewhere, in the datagram's first fragment.
    #[inline(always)]
    pub const fn is_later_fragment(&self) -> bool {
        self.fragment.to_host() & 0x1fff != 0
    }

    /// Whether routers must not cut it into fragments.
    #[inline(always)]
    pub const fn dont_fragment(&self) -> bool {
        self.fragment.to_host() & 0x4000 != 0
    }
}
