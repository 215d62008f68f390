//! What differs between ICMP and ICMPv6: message types, what the checksum covers, and the packet that an error quotes
//! (RFC 792, RFC 4443).

use crate::{
    csum,
    family::{Family, V4, V6},
    maps::Tuple,
    net::{Be16, proto},
    packet::Packet,
    parse::Parsed,
    reason::Reason,
    stage::rare::{OFFSETS, Piece, extension},
    wire::{Chunk, ETH_LEN, Ipv4Header, Ipv6Header, Ports},
};

/// Bytes of the transport header that every error quotes at least (RFC 792); ports are in the first four.
pub const QUOTED_L4: u32 = 8;

/// TTL and hop limit of packets that are made here.
pub const TTL: u8 = 64;

/// A family's control messages.
pub trait Messages<A> {
    /// Type of an echo request.
    const ECHO_REQUEST: u8;
    /// Type of an echo reply.
    const ECHO_REPLY: u8;
    /// Type and code of the error that tells a smaller MTU.
    const TOO_BIG: (u8, u8);
    /// Type and code of the error that nobody listens at the port.
    const PORT_UNREACHABLE: (u8, u8);
    /// Bytes of the IP header before a message that is made here.
    const HEADER: usize;
    /// Most bytes of a packet that an error made here quotes, in whole [`Chunk`]s: the error is to have at most 576
    /// bytes (RFC 1812 section 4.3.2.3), with ICMPv6 1280 (RFC 4443 section 3).
    const QUOTE: u32;

    /// Whether this type is that of an error which quotes the packet it is about.
    fn is_error(kind: u8) -> bool;

    /// Whether the address can be one host's on a network, so that an answer to it goes to that host alone (B42).
    fn is_host(addr: &A) -> bool;

    /// Reads the addresses, protocol and ports of the packet quoted at `at`, of which `len` bytes are there, source and
    /// destination swapped: so it is the key of the flow that leads back to where the quoted packet came from. Returns
    /// where the ports are, or the packet inside of that one; nothing if the quote shows neither. `room` is overwritten.
    fn read_quote<P: Packet>(
        pkt: &mut P,
        at: usize,
        len: u32,
        key: &mut Tuple<A>,
        room: &mut Parsed<A>,
    ) -> Option<usize>;

    /// Changes the addresses in the quoted IP header.
    ///
    /// # Errors
    /// [`Reason::Malformed`] if the frame ends before them.
    fn rewrite_quote<P: Packet>(pkt: &mut P, at: usize, src: &A, dst: &A, addr_delta: u16) -> Result<(), Reason>;

    /// Of the address changes in the IP header and in the quoted one, what the checksum of the message covers: the
    /// former through the pseudo-header. In IPv4 there is none, and the quoted header's own checksum keeps the sum
    /// over it constant.
    fn covered(outer: u16, quoted: u16) -> (u16, u16);

    /// Sets the TTL or hop limit.
    ///
    /// # Errors
    /// [`Reason::Malformed`] if the frame ends before it.
    fn set_ttl<P: Packet>(pkt: &mut P, ttl: u8) -> Result<(), Reason>;

    /// Writes the IP header of an answer of `len` bytes; returns the sum of the pseudo-header, zero where there is none.
    ///
    /// # Errors
    /// [`Reason::Malformed`] if the frame ends before it.
    fn put_header<P: Packet>(pkt: &mut P, src: &A, dst: &A, protocol: u8, len: u32) -> Result<u32, Reason>;

    /// Whether routers may cut the packet into fragments.
    fn may_be_cut<P: Packet>(pkt: &mut P) -> bool;
}

/// Whether the ports are in the first four bytes of the protocol's header.
#[inline(always)]
const fn has_ports(protocol: u8) -> bool {
    matches!(protocol, proto::TCP | proto::UDP | proto::SCTP)
}

/// Puts the ports at `at` into a key, swapped. A packet inside of the quoted one stands there instead, if its protocol is
/// `tunnel`.
#[inline(always)]
fn read_ports<A: Copy>(
    pkt: &mut impl Packet,
    at: usize,
    (protocol, tunnel): (u8, u8),
    key: &mut Tuple<A>,
) -> Option<usize> {
    if protocol == tunnel {
        key.set_ports_and_proto(Ports::default(), protocol);
        return Some(at);
    }
    if !has_ports(protocol) {
        return None;
    }
    let ports = pkt.header_mut::<Ports>(at).ok()?;
    key.set_ports_and_proto(Ports { sport: ports.dport, dport: ports.sport }, protocol);
    Some(at)
}

/// The sum of the pseudo-header of an answer of `len` bytes.
#[inline(always)]
fn pseudo_header<F: Family>(src: &F::Addr, dst: &F::Addr, protocol: u8, len: u32) -> u32 {
    let rest = [u16::from(protocol), len as u16].map(|word| u32::from(Be16::from_host(word).raw()));
    let [protocol, len] = rest;
    F::sum(src) + F::sum(dst) + protocol + len
}

/// ICMP.
#[derive(Clone, Copy, Debug)]
pub struct Icmp;

impl Messages<[u8; 4]> for Icmp {
    const ECHO_REQUEST: u8 = 8;
    const ECHO_REPLY: u8 = 0;
    const TOO_BIG: (u8, u8) = (3, 4);
    const PORT_UNREACHABLE: (u8, u8) = (3, 3);
    const HEADER: usize = size_of::<Ipv4Header>();
    const QUOTE: u32 = 17 * Chunk::LEN;

    #[inline(always)]
    fn is_error(kind: u8) -> bool {
        // Destination unreachable, time exceeded, parameter problem.
        matches!(kind, 3 | 11 | 12)
    }

    #[inline(always)]
    fn is_host(addr: &[u8; 4]) -> bool {
        let [first, ..] = *addr;
        // This network, loopback; multicast and above.
        first != 0 && first != 127 && first < 224
    }

    #[inline(always)]
    fn read_quote<P: Packet>(
        pkt: &mut P,
        at: usize,
        len: u32,
        key: &mut Tuple<[u8; 4]>,
        _room: &mut Parsed<[u8; 4]>,
    ) -> Option<usize> {
        let ip = pkt.header_mut::<Ipv4Header>(at).ok()?;
        let header_len = u32::from(ip.version_ihl & 0x0f) * 4;
        if ip.version_ihl >> 4 != 4
            || header_len < size_of::<Ipv4Header>() as u32
            || len < header_len + QUOTED_L4
            || ip.is_later_fragment()
        {
            return None;
        }
        (key.src, key.dst) = (ip.dst, ip.src);
        let protocol = ip.proto;
        read_ports(pkt, at + header_len as usize, (protocol, proto::IPIP), key)
    }

    #[inline(always)]
    fn rewrite_quote<P: Packet>(
        pkt: &mut P,
        at: usize,
        src: &[u8; 4],
        dst: &[u8; 4],
        addr_delta: u16,
    ) -> Result<(), Reason> {
        let ip = pkt.header_mut::<Ipv4Header>(at)?;
        (ip.src, ip.dst) = (*src, *dst);
        ip.checksum = csum::apply(ip.checksum, u32::from(addr_delta));
        Ok(())
    }

    #[inline(always)]
    fn covered(_outer: u16, _quoted: u16) -> (u16, u16) {
        // Zero in ones' complement.
        (0xffff, 0xffff)
    }

    #[inline(always)]
    fn set_ttl<P: Packet>(pkt: &mut P, ttl: u8) -> Result<(), Reason> {
        let ip = pkt.header_mut::<Ipv4Header>(ETH_LEN)?;
        let delta = csum::word_delta(Be16([ip.ttl, ip.proto]), Be16([ttl, ip.proto]));
        ip.ttl = ttl;
        ip.checksum = csum::apply(ip.checksum, delta);
        Ok(())
    }

    #[inline(always)]
    fn put_header<P: Packet>(pkt: &mut P, src: &[u8; 4], dst: &[u8; 4], protocol: u8, len: u32) -> Result<u32, Reason> {
        let ip = pkt.header_mut::<Ipv4Header>(ETH_LEN)?;
        *ip = Ipv4Header {
            version_ihl: 0x45,
            tos: 0,
            total_len: Be16::from_host((Self::HEADER as u32 + len) as u16),
            id: Be16::from_host(0),
            // Never a fragment, so no identification is needed (RFC 6864).
            fragment: Be16::from_host(0x4000),
            ttl: TTL,
            proto: protocol,
            checksum: Be16::from_host(0),
            src: *src,
            dst: *dst,
        };
        let words = [Be16([0x45, 0]), ip.total_len, ip.fragment, Be16([TTL, protocol])];
        let sum = words.iter().fold(V4::sum(src) + V4::sum(dst), |sum, word| sum + u32::from(word.raw()));
        ip.checksum = Be16::from_raw(!csum::fold(sum));
        Ok(if protocol == proto::ICMP { 0 } else { pseudo_header::<V4>(src, dst, protocol, len) })
    }

    #[inline(always)]
    fn may_be_cut<P: Packet>(pkt: &mut P) -> bool {
        pkt.header_mut::<Ipv4Header>(ETH_LEN).is_ok_and(|ip| !ip.dont_fragment())
    }
}

/// ICMPv6.
#[derive(Clone, Copy, Debug)]
pub struct Icmpv6;

impl Messages<[u8; 16]> for Icmpv6 {
    const ECHO_REQUEST: u8 = 128;
    const ECHO_REPLY: u8 = 129;
    const TOO_BIG: (u8, u8) = (2, 0);
    const PORT_UNREACHABLE: (u8, u8) = (1, 4);
    const HEADER: usize = size_of::<Ipv6Header>();
    const QUOTE: u32 = 38 * Chunk::LEN;

    #[inline(always)]
    fn is_error(kind: u8) -> bool {
        // Destination unreachable, packet too big, time exceeded, parameter problem.
        matches!(kind, 1..=4)
    }

    #[inline(always)]
    fn is_host(addr: &[u8; 16]) -> bool {
        let [high, low]: [u64; 2] = zerocopy::transmute!(*addr);
        let [first, ..] = *addr;
        // Unspecified, loopback; multicast.
        !(high == 0 && u64::from_be(low) <= 1) && first != 0xff
    }

    #[inline(always)]
    fn read_quote<P: Packet>(
        pkt: &mut P,
        at: usize,
        len: u32,
        key: &mut Tuple<[u8; 16]>,
        room: &mut Parsed<[u8; 16]>,
    ) -> Option<usize> {
        let start = size_of::<Ipv6Header>() as u32;
        let ip = pkt.header_mut::<Ipv6Header>(at).ok()?;
        if ip.version_class_flow[0] >> 4 != 6 || len < start {
            return None;
        }
        (key.src, key.dst) = (ip.dst, ip.src);
        let next = ip.next_header;
        room.l4 = at as u32 + start;
        room.l4_len = len - start;
        let mut piece = Piece::default();
        let protocol = extension::walk(pkt, next, room, &mut piece).ok()?;
        if piece.offset != 0 || room.l4_len < QUOTED_L4 {
            return None;
        }
        read_ports(pkt, (room.l4 & OFFSETS) as usize, (protocol, proto::IPV6), key)
    }

    #[inline(always)]
    fn rewrite_quote<P: Packet>(
        pkt: &mut P,
        at: usize,
        src: &[u8; 16],
        dst: &[u8; 16],
        _addr_delta: u16,
    ) -> Result<(), Reason> {
        let ip = pkt.header_mut::<Ipv6Header>(at)?;
        (ip.src, ip.dst) = (*src, *dst);
        Ok(())
    }

    #[inline(always)]
    fn covered(outer: u16, quoted: u16) -> (u16, u16) {
        (outer, quoted)
    }

    #[inline(always)]
    fn set_ttl<P: Packet>(pkt: &mut P, ttl: u8) -> Result<(), Reason> {
        pkt.header_mut::<Ipv6Header>(ETH_LEN)?.hop_limit = ttl;
        Ok(())
    }

    #[inline(always)]
    fn put_header<P: Packet>(
        pkt: &mut P,
        src: &[u8; 16],
        dst: &[u8; 16],
        protocol: u8,
        len: u32,
    ) -> Result<u32, Reason> {
        *pkt.header_mut::<Ipv6Header>(ETH_LEN)? = Ipv6Header {
            version_class_flow: [0x60, 0, 0, 0],
            payload_len: Be16::from_host(len as u16),
            next_header: protocol,
            hop_limit: TTL,
            src: *src,
            dst: *dst,
        };
        Ok(pseudo_header::<V6>(src, dst, protocol, len))
    }

    #[inline(always)]
    fn may_be_cut<P: Packet>(_pkt: &mut P) -> bool {
        false
    }
}
