//! Headers as they lie on the wire, one file each.
//!
//! Multi-byte fields are [`crate::net::Be16`] or byte arrays in network order. The structs are aligned as the headers
//! are when the IP header starts on an 8-byte boundary, so that whole words are loaded and stored.
#![expect(unsafe_code, reason = "declares which structs may be laid over packet bytes")]

mod eth;
mod geneve;
mod icmp;
mod ipv4;
mod ipv6;
mod sctp;
mod tcp;
mod udp;

pub use eth::{ETH_LEN, EthHeader, MacPair};
pub use geneve::{GENEVE_PORT, GeneveHeader};
pub use icmp::{Chunk, IcmpHeader, Word};
pub use ipv4::Ipv4Header;
pub use ipv6::{ExtensionHeader, Ipv6Header, ipv6_next};
pub use sctp::{SctpChunk, SctpHeader, sctp_chunk};
pub use tcp::{TcpHeader, tcp_flags};
pub use udp::UdpHeader;

use crate::net::Be16;

/// The first four bytes of TCP and UDP.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ports {
    /// Source port.
    pub sport: Be16,
    /// Destination port.
    pub dport: Be16,
}

impl Ports {
    /// Both ports as they lie in memory.
    #[inline(always)]
    pub const fn to_word(self) -> u32 {
        // SAFETY: four bytes without padding.
        unsafe { core::mem::transmute::<Self, u32>(self) }
    }
}

/// A struct that may be laid over packet bytes.
///
/// # Safety
/// `repr(C)`, no padding, any bytes valid, alignment at most 8.
pub unsafe trait Header: Copy + 'static {}

macro_rules! headers {
    ($($header:ty: $size:literal),* $(,)?) => {
        $(
            const _: () = assert!(size_of::<$header>() == $size && align_of::<$header>() <= 8);
            // SAFETY: `repr(C)`, byte arrays only, size checked.
            unsafe impl Header for $header {}
        )*
    };
}

headers!(EthHeader: 14, MacPair: 12, IcmpHeader: 8, Chunk: 32, Word: 4, Ipv4Header: 20, Ipv6Header: 40, ExtensionHeader: 8, Ports: 4, SctpChunk: 4, SctpHeader: 12, TcpHeader: 20, UdpHeader: 8, GeneveHeader: 16);
