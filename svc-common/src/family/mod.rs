//! The address families: everything that differs between IPv4 and IPv6.

mod v4;
mod v6;

pub use self::{v4::V4, v6::V6};
use crate::{
    icmp::Messages,
    maps::{Cidr, Tuple},
    net::{Be16, proto},
    packet::Packet,
    parse::{Parsed, Unparsed},
    reason::Reason,
    replay::Ordinary,
    stage::rare::Piece,
    wire::{ETH_LEN, Ports},
};

mod sealed {
    /// Only IPv4 and IPv6 are address families.
    pub trait Sealed {}
    impl Sealed for super::V4 {}
    impl Sealed for super::V6 {}
}

/// An address family: everything that differs between IPv4 and IPv6.
pub trait Family: sealed::Sealed + Copy + 'static {
    /// The address as on the wire, 4 or 16 bytes.
    type Addr: Copy + Default + PartialEq + Eq + core::fmt::Debug + core::hash::Hash + 'static;
    /// Ether type in network order.
    const ETHER_TYPE: Be16;
    /// IANA protocol number of the family's ICMP.
    const ICMP: u8;
    /// Its messages.
    type Messages: Messages<Self::Addr>;
    /// Seconds within which all pieces of a datagram have to come (RFC 791 leaves it open, RFC 8200 section 4.5).
    const REASSEMBLY_S: u32;
    /// Whether a datagram whose pieces overlap is void (RFC 5722). IPv4's identifications come again too soon to tell.
    const REFUSES_OVERLAPS: bool;
    /// IANA protocol number of a packet of the family inside of one of the same family.
    const TUNNEL: u8;
    /// Bytes of an IP header without options or extensions.
    const HEADER: usize;
    /// The loopback network's test is the family's own.
    fn is_loopback(addr: &Self::Addr) -> bool;

    /// Reads the IP header into `parsed`: addresses, TTL, where the payload is; returns its protocol. In place, as values that pass
    /// through registers are spilled.
    ///
    /// # Errors
    /// [`Unparsed::Malformed`] if its lengths contradict each other or the frame; [`Unparsed::Fragment`] and
    /// [`Unparsed::ExtensionHeader`].
    fn parse<P: Packet>(pkt: &mut P, parsed: &mut Parsed<Self::Addr>) -> Result<u8, Unparsed>;

    /// Where the transport header is behind an IP header without options or extensions, in bytes from the start of the frame.
    const L4: usize = ETH_LEN + Self::HEADER;

    /// Reads the IP header of an ordinary packet, and its addresses into `tuple`; `None` if it is none.
    fn ordinary<P: Packet>(pkt: &mut P, tuple: &mut Tuple<Self::Addr>) -> Option<Ordinary>;

    /// [`Family::parse`] for packets that it refuses: follows extension headers, and says in `piece` which part of a
    /// datagram the packet is. For a later part, `parsed.l4` is where its payload is.
    ///
    /// # Errors
    /// [`Unparsed::Malformed`], and [`Unparsed::ExtensionHeader`] for what is not followed.
    fn locate<P: Packet>(pkt: &mut P, parsed: &mut Parsed<Self::Addr>, piece: &mut Piece) -> Result<u8, Unparsed>;

    /// Puts new addresses into the IP header, one less TTL if `forward`, and updates the header's own checksum.
    ///
    /// # Errors
    /// [`Reason::Malformed`] if the frame ends before the header does.
    fn rewrite<P: Packet>(
        pkt: &mut P,
        src: &Self::Addr,
        dst: &Self::Addr,
        addr_delta: u16,
        forward: bool,
    ) -> Result<(), Reason>;

    /// Takes one off the TTL of a packet of `len_bytes` bytes that begins after a gap of [`Family::HEADER`] and `between` bytes,
    /// and begins the gap with a header that carries it from `src` to `dst`: as it is, or behind `between` bytes of UDP.
    ///
    /// # Errors
    /// [`Reason::Malformed`] if the frame ends before the headers do.
    fn encapsulate<P: Packet>(
        pkt: &mut P,
        src: &Self::Addr,
        dst: &Self::Addr,
        len_bytes: u32,
        between: usize,
    ) -> Result<(), Reason>;

    /// The destination, whatever else the header says.
    ///
    /// # Errors
    /// [`Reason::Malformed`] if the frame ends before the header does.
    fn destination<P: Packet>(pkt: &mut P) -> Result<Self::Addr, Reason>;

    /// Reads the tuple of a whole TCP or UDP packet whose IP header begins at `offset`, at most 0x7f.
    ///
    /// # Errors
    /// [`Reason::Malformed`] if it is anything else.
    fn inner_tuple<P: Packet>(pkt: &mut P, offset: usize, tuple: &mut Tuple<Self::Addr>) -> Result<(), Reason>;

    /// The sum of the address's 16-bit words, unfolded.
    fn sum(addr: &Self::Addr) -> u32;

    /// The sum of the inverted words, unfolded.
    fn inverted_sum(addr: &Self::Addr) -> u32;

    /// Whether the address is in the network.
    fn contains(cidr: &Cidr<Self::Addr>, addr: &Self::Addr) -> bool;

    /// Mixes the address into a hash that is the same on every machine.
    fn mix(addr: &Self::Addr, hash: u64) -> u64;
}

/// Source and destination as they lie in an IP header.
macro_rules! address_pair {
    ($name:ident, $len:literal, $align:literal) => {
        /// Source and destination as they lie in the IP header.
        #[repr(C, align($align))]
        #[derive(Clone, Copy)]
        struct $name {
            src: [u8; $len],
            dst: [u8; $len],
        }
        const _: () = assert!(size_of::<$name>() == 2 * $len);
        #[expect(unsafe_code, reason = "declares that it may be laid over packet bytes")]
        // SAFETY: `repr(C)`, byte arrays only, size checked.
        unsafe impl Header for $name {}
    };
}

use address_pair;

/// TTL of the headers that carry packets to other nodes.
const TUNNEL_TTL: u8 = 64;

/// Completes the tuple of a packet inside of another one with what its transport header at `offset` says.
#[inline(always)]
fn inner_ports<A: Copy>(
    pkt: &mut impl Packet,
    transport: u8,
    offset: usize,
    tuple: &mut Tuple<A>,
) -> Result<(), Reason> {
    if transport != proto::TCP && transport != proto::UDP && transport != proto::SCTP {
        return Err(Reason::Malformed);
    }
    tuple.set_ports_and_proto(*pkt.header_mut::<Ports>(offset)?, transport);
    Ok(())
}

/// One round of a multiplicative hash.
#[inline(always)]
pub(crate) const fn mix_word(hash: u64, word: u64) -> u64 {
    let hash = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    hash ^ (hash >> 32)
}

/// The last round: every bit of the hash depends on every bit of the words (the finaliser of SplitMix64). Without it
/// the ports that a client takes one after the other, every second number, walk over a table in small equal steps, and
/// a few dozen connections share few of its backends.
#[inline(always)]
pub(crate) const fn finish(hash: u64) -> u64 {
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The sum of an address's words, from scratch.
    fn sum(addr: &[u8]) -> u64 {
        addr.chunks(2).map(|pair| u64::from(u16::from_ne_bytes([pair[0], pair[1]]))).sum()
    }

    fn check<F: Family>(addr: F::Addr, bytes: &[u8]) {
        assert_eq!(u64::from(F::sum(&addr)) % 0xffff, sum(bytes) % 0xffff);
        assert_eq!(u64::from(F::sum(&addr) + F::inverted_sum(&addr)) % 0xffff, 0);
    }

    proptest! {
        #[test]
        fn b03_address_sums_are_those_of_their_words(v4: [u8; 4], v6: [u8; 16]) {
            check::<V4>(v4, &v4);
            check::<V6>(v6, &v6);
            check::<V6>([0xff; 16], &[0xff; 16]);
        }
    }
}
