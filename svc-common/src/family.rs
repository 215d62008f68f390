//! The address families: everything that differs between IPv4 and IPv6.

use crate::{
    csum,
    icmp::{Icmp, Icmpv6, Messages},
    maps::{Cidr, Tuple},
    net::{Be16, proto},
    packet::{Hook, Packet},
    parse::{Parsed, Unparsed},
    reason::Reason,
    stage::rare::{Piece, extension},
    wire::{ETH_LEN, Header, Ipv4Header, Ipv6Header, Ports, ipv6_next},
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

    /// The same for packets that [`Family::parse`] refuses: follows extension headers, and says in `piece` which part of a
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

    /// Takes one off the TTL of a packet of `len_bytes` bytes that begins after a gap of [`Family::HEADER`] bytes, and
    /// fills the gap with a header that carries it from `src` to `dst`.
    ///
    /// # Errors
    /// [`Reason::Malformed`] if the frame ends before the headers do.
    fn encapsulate<P: Packet>(pkt: &mut P, src: &Self::Addr, dst: &Self::Addr, len_bytes: u32) -> Result<(), Reason>;

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

address_pair!(Ipv4Pair, 4, 4);
address_pair!(Ipv6Pair, 16, 8);

/// TTL of the headers that carry packets to other nodes.
const TUNNEL_TTL: u8 = 64;
/// The flag of an IPv4 header.
const DO_NOT_FRAGMENT: u16 = 0x4000;

/// Completes the tuple of a packet inside of another one with what its transport header at `offset` says.
#[inline(always)]
fn inner_ports<A: Copy>(
    pkt: &mut impl Packet,
    transport: u8,
    offset: usize,
    tuple: &mut Tuple<A>,
) -> Result<(), Reason> {
    if transport != proto::TCP && transport != proto::UDP {
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

/// IPv4.
#[derive(Clone, Copy, Debug)]
pub struct V4;

impl V4 {
    /// Reads the header into `parsed`; returns the protocol, and the fragment's bits and identification.
    #[inline(always)]
    fn header<P: Packet>(pkt: &mut P, parsed: &mut Parsed<[u8; 4]>) -> Result<(u8, u16, Be16), Unparsed> {
        let frame_len = pkt.len_bytes();
        let ip = pkt.header_mut::<Ipv4Header>(ETH_LEN)?;
        let header_len = usize::from(ip.version_ihl & 0x0f) * 4;
        let mut total_len = u32::from(ip.total_len.to_host());
        if total_len == 0 && !matches!(P::HOOK, Hook::Xdp) {
            // An aggregate of more than 64 KiB (BIG TCP) has no length in its header.
            total_len = frame_len - ETH_LEN as u32;
        }
        if ip.version_ihl >> 4 != 4
            || header_len < size_of::<Ipv4Header>()
            || total_len < header_len as u32
            || frame_len < total_len + ETH_LEN as u32
        {
            return Err(Unparsed::Malformed);
        }
        parsed.tuple.src = ip.src;
        parsed.tuple.dst = ip.dst;
        parsed.ttl = ip.ttl;
        parsed.l4 = (ETH_LEN + header_len) as u32;
        parsed.l4_len = total_len - header_len as u32;
        Ok((ip.proto, ip.fragment_bits(), ip.id))
    }
}

impl Family for V4 {
    type Addr = [u8; 4];
    const ETHER_TYPE: Be16 = Be16::from_host(0x0800);
    const ICMP: u8 = proto::ICMP;
    type Messages = Icmp;
    const REASSEMBLY_S: u32 = 30;
    const REFUSES_OVERLAPS: bool = false;
    const TUNNEL: u8 = proto::IPIP;
    const HEADER: usize = size_of::<Ipv4Header>();

    #[inline(always)]
    fn is_loopback(addr: &[u8; 4]) -> bool {
        addr[0] == 127
    }

    #[inline(always)]
    fn parse<P: Packet>(pkt: &mut P, parsed: &mut Parsed<[u8; 4]>) -> Result<u8, Unparsed> {
        let (proto, fragment, _) = Self::header(pkt, parsed)?;
        if fragment != 0 { Err(Unparsed::Fragment) } else { Ok(proto) }
    }

    #[inline(always)]
    fn locate<P: Packet>(pkt: &mut P, parsed: &mut Parsed<[u8; 4]>, piece: &mut Piece) -> Result<u8, Unparsed> {
        let (proto, fragment, id) = Self::header(pkt, parsed)?;
        *piece = Piece::new(u32::from(id.to_host()), proto, fragment & 0x1fff, fragment & 0x2000 != 0);
        Ok(proto)
    }

    #[inline(always)]
    fn rewrite<P: Packet>(
        pkt: &mut P,
        src: &[u8; 4],
        dst: &[u8; 4],
        addr_delta: u16,
        forward: bool,
    ) -> Result<(), Reason> {
        let ip = pkt.header_mut::<Ipv4Header>(ETH_LEN)?;
        let mut delta = u32::from(addr_delta);
        if forward {
            ip.ttl = ip.ttl.wrapping_sub(1);
            delta += csum::TTL_DELTA;
        }
        ip.checksum = csum::apply(ip.checksum, delta);
        pkt.set_addresses(ETH_LEN + 12, &Ipv4Pair { src: *src, dst: *dst })
    }

    #[inline(always)]
    fn encapsulate<P: Packet>(pkt: &mut P, src: &[u8; 4], dst: &[u8; 4], len_bytes: u32) -> Result<(), Reason> {
        let inner = pkt.header_mut::<Ipv4Header>(ETH_LEN + Self::HEADER)?;
        inner.ttl = inner.ttl.wrapping_sub(1);
        inner.checksum = csum::apply(inner.checksum, csum::TTL_DELTA);
        let tos = inner.tos;
        let outer = pkt.header_mut::<Ipv4Header>(ETH_LEN)?;
        *outer = Ipv4Header {
            version_ihl: 0x45,
            tos,
            // An aggregate of more than 64 KiB has no length in its header.
            total_len: Be16::from_host(u16::try_from(len_bytes + Self::HEADER as u32).unwrap_or(0)),
            // Packets that are never cut need no identification (RFC 6864).
            id: Be16::default(),
            fragment: Be16::from_host(DO_NOT_FRAGMENT),
            ttl: TUNNEL_TTL,
            proto: Self::TUNNEL,
            checksum: Be16::default(),
            src: *src,
            dst: *dst,
        };
        let words =
            [Be16([outer.version_ihl, outer.tos]), outer.total_len, outer.fragment, Be16([outer.ttl, outer.proto])];
        let sum = words.iter().map(|word| u32::from(word.raw())).sum::<u32>() + Self::sum(src) + Self::sum(dst);
        outer.checksum = Be16::from_raw(!csum::fold(sum));
        Ok(())
    }

    #[inline(always)]
    fn inner_tuple<P: Packet>(pkt: &mut P, offset: usize, tuple: &mut Tuple<[u8; 4]>) -> Result<(), Reason> {
        let ip = pkt.header_mut::<Ipv4Header>(offset & 0x7f)?;
        let header_len = usize::from(ip.version_ihl & 0x0f) * 4;
        if ip.version_ihl >> 4 != 4 || header_len < Self::HEADER || ip.fragment_bits() != 0 {
            return Err(Reason::Malformed);
        }
        (tuple.src, tuple.dst) = (ip.src, ip.dst);
        let transport = ip.proto;
        inner_ports(pkt, transport, (offset & 0x7f) + header_len, tuple)
    }

    #[inline(always)]
    fn sum(addr: &[u8; 4]) -> u32 {
        let word = u32::from_ne_bytes(*addr);
        (word & 0xffff) + (word >> 16)
    }

    #[inline(always)]
    fn inverted_sum(addr: &[u8; 4]) -> u32 {
        0xffff * 2 - Self::sum(addr)
    }

    #[inline(always)]
    fn contains(cidr: &Cidr<[u8; 4]>, addr: &[u8; 4]) -> bool {
        let [net, mask, addr] = [cidr.addr, cidr.mask, *addr].map(u32::from_ne_bytes);
        mask != 0 && addr & mask == net
    }

    #[inline(always)]
    fn mix(addr: &[u8; 4], hash: u64) -> u64 {
        mix_word(hash, u64::from(u32::from_be_bytes(*addr)))
    }
}

/// IPv6.
#[derive(Clone, Copy, Debug)]
pub struct V6;

impl V6 {
    /// The address as two words in memory order; by a transmutation, as bytes put together are loaded one by one.
    #[inline(always)]
    fn words(addr: &[u8; 16]) -> [u64; 2] {
        zerocopy::transmute!(*addr)
    }
}

impl V6 {
    /// Reads the fixed header into `parsed` and returns what follows it.
    #[inline(always)]
    fn header<P: Packet>(pkt: &mut P, parsed: &mut Parsed<[u8; 16]>) -> Result<u8, Unparsed> {
        let frame_len = pkt.len_bytes();
        let ip = pkt.header_mut::<Ipv6Header>(ETH_LEN)?;
        let start = (ETH_LEN + size_of::<Ipv6Header>()) as u32;
        let mut l4_len = u32::from(ip.payload_len.to_host());
        if l4_len == 0 && !matches!(P::HOOK, Hook::Xdp) {
            l4_len = frame_len - start;
        }
        if ip.version_class_flow[0] >> 4 != 6 || frame_len < start + l4_len {
            return Err(Unparsed::Malformed);
        }
        parsed.tuple.src = ip.src;
        parsed.tuple.dst = ip.dst;
        parsed.ttl = ip.hop_limit;
        parsed.l4 = start;
        parsed.l4_len = l4_len;
        Ok(ip.next_header)
    }
}

impl Family for V6 {
    type Addr = [u8; 16];
    const ETHER_TYPE: Be16 = Be16::from_host(0x86dd);
    const ICMP: u8 = proto::ICMPV6;
    type Messages = Icmpv6;
    const REASSEMBLY_S: u32 = 60;
    const REFUSES_OVERLAPS: bool = true;
    const TUNNEL: u8 = proto::IPV6;
    const HEADER: usize = size_of::<Ipv6Header>();

    #[inline(always)]
    fn is_loopback(addr: &[u8; 16]) -> bool {
        let [high, low] = Self::words(addr);
        high == 0 && low == u64::from_ne_bytes([0, 0, 0, 0, 0, 0, 0, 1])
    }

    #[inline(always)]
    fn parse<P: Packet>(pkt: &mut P, parsed: &mut Parsed<[u8; 16]>) -> Result<u8, Unparsed> {
        let next = Self::header(pkt, parsed)?;
        match next {
            ipv6_next::FRAGMENT => Err(Unparsed::Fragment),
            ipv6_next::HOP_BY_HOP | ipv6_next::ROUTING | ipv6_next::AUTHENTICATION | ipv6_next::DESTINATION => {
                Err(Unparsed::ExtensionHeader)
            }
            _ => Ok(next),
        }
    }

    #[inline(always)]
    fn locate<P: Packet>(pkt: &mut P, parsed: &mut Parsed<[u8; 16]>, piece: &mut Piece) -> Result<u8, Unparsed> {
        let next = Self::header(pkt, parsed)?;
        extension::walk(pkt, next, parsed, piece)
    }

    #[inline(always)]
    fn rewrite<P: Packet>(
        pkt: &mut P,
        src: &[u8; 16],
        dst: &[u8; 16],
        _addr_delta: u16,
        forward: bool,
    ) -> Result<(), Reason> {
        if forward {
            let ip = pkt.header_mut::<Ipv6Header>(ETH_LEN)?;
            ip.hop_limit = ip.hop_limit.wrapping_sub(1);
        }
        pkt.set_addresses(ETH_LEN + 8, &Ipv6Pair { src: *src, dst: *dst })
    }

    #[inline(always)]
    fn encapsulate<P: Packet>(pkt: &mut P, src: &[u8; 16], dst: &[u8; 16], len_bytes: u32) -> Result<(), Reason> {
        let inner = pkt.header_mut::<Ipv6Header>(ETH_LEN + Self::HEADER)?;
        inner.hop_limit = inner.hop_limit.wrapping_sub(1);
        let version_class_flow = inner.version_class_flow;
        *pkt.header_mut(ETH_LEN)? = Ipv6Header {
            version_class_flow,
            payload_len: Be16::from_host(u16::try_from(len_bytes).unwrap_or(0)),
            next_header: Self::TUNNEL,
            hop_limit: TUNNEL_TTL,
            src: *src,
            dst: *dst,
        };
        Ok(())
    }

    #[inline(always)]
    fn inner_tuple<P: Packet>(pkt: &mut P, offset: usize, tuple: &mut Tuple<[u8; 16]>) -> Result<(), Reason> {
        let ip = pkt.header_mut::<Ipv6Header>(offset & 0x7f)?;
        if ip.version_class_flow[0] >> 4 != 6 {
            return Err(Reason::Malformed);
        }
        (tuple.src, tuple.dst) = (ip.src, ip.dst);
        let transport = ip.next_header;
        inner_ports(pkt, transport, (offset & 0x7f) + Self::HEADER, tuple)
    }

    #[inline(always)]
    fn sum(addr: &[u8; 16]) -> u32 {
        let [a, b] = Self::words(addr);
        let sum = (a & 0xffff_ffff) + (a >> 32) + (b & 0xffff_ffff) + (b >> 32);
        ((sum & 0xffff) + ((sum >> 16) & 0xffff) + (sum >> 32)) as u32
    }

    #[inline(always)]
    fn inverted_sum(addr: &[u8; 16]) -> u32 {
        // Up to twice 0xffff and a carry of at most 3.
        0xffff * 3 - Self::sum(addr)
    }

    #[inline(always)]
    fn contains(cidr: &Cidr<[u8; 16]>, addr: &[u8; 16]) -> bool {
        let [[net_high, net_low], [high_mask, low_mask], [high, low]] =
            [Self::words(&cidr.addr), Self::words(&cidr.mask), Self::words(addr)];
        high_mask != 0 && high & high_mask == net_high && low & low_mask == net_low
    }

    #[inline(always)]
    fn mix(addr: &[u8; 16], hash: u64) -> u64 {
        let [a, b] = Self::words(addr);
        mix_word(mix_word(hash, u64::from_be(a)), u64::from_be(b))
    }
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
