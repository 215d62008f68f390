//! ICMP (RFC 792) and ICMPv6 (RFC 4443).

use crate::net::Be16;

/// The first eight bytes of every message.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IcmpHeader {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// Checksum over the message; in ICMPv6 over a pseudo-header, too.
    pub checksum: Be16,
    /// What the type defines: identifier and sequence number, or an MTU in the last two bytes (ICMPv6: in all four).
    pub rest: [u8; 4],
}

impl IcmpHeader {
    /// Type and code as the word that they are in the checksum.
    #[inline(always)]
    pub const fn kind_word(&self) -> Be16 {
        Be16([self.kind, self.code])
    }
}

/// A piece of a packet, for sums over many bytes.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chunk(pub [u32; 8]);

impl Chunk {
    /// Bytes of a chunk.
    pub const LEN: u32 = size_of::<Self>() as u32;

    /// The sum of its 16-bit words, at most 16 * 65,535.
    #[inline(always)]
    pub fn sum(&self) -> u32 {
        self.0.iter().fold(0, |sum, word| sum + Word(*word).sum())
    }
}

/// Four bytes of a packet.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Word(pub u32);

impl Word {
    /// The sum of its 16-bit words.
    #[inline(always)]
    pub const fn sum(self) -> u32 {
        (self.0 & 0xffff) + (self.0 >> 16)
    }
}
