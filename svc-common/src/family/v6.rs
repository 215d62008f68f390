//! IPv6.

use super::{Family, TUNNEL_TTL, address_pair, inner_ports, mix_word};
use crate::{
    icmp::Icmpv6,
    maps::{Cidr, Tuple},
    net::{Be16, proto},
    packet::{Hook, Packet},
    parse::{Parsed, Unparsed},
    reason::Reason,
    replay::Ordinary,
    stage::rare::{Piece, extension},
    wire::{ETH_LEN, Header, Ipv6Header, ipv6_next},
};

address_pair!(Ipv6Pair, 16, 8);

/// IPv6.
#[derive(Clone, Copy, Debug)]
pub struct V6;

impl V6 {
    /// The address as two words in memory order; by a transmutation, as bytes put together are loaded one by one.
    #[inline(always)]
    fn words(addr: &[u8; 16]) -> [u64; 2] {
        zerocopy::transmute!(*addr)
    }

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
    fn ordinary<P: Packet>(pkt: &mut P, tuple: &mut Tuple<[u8; 16]>) -> Option<Ordinary> {
        let ip = pkt.header_mut::<Ipv6Header>(ETH_LEN).ok()?;
        if ip.version_class_flow[0] >> 4 != 6 {
            return None;
        }
        let len_bytes = u32::from(ip.payload_len.to_host()) + Self::HEADER as u32;
        (tuple.src, tuple.dst) = (ip.src, ip.dst);
        let head = Ordinary { proto: ip.next_header, ttl: ip.hop_limit, len_bytes };
        if pkt.holds(len_bytes + ETH_LEN as u32) { Some(head) } else { None }
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
    fn encapsulate<P: Packet>(
        pkt: &mut P,
        src: &[u8; 16],
        dst: &[u8; 16],
        len_bytes: u32,
        between: usize,
    ) -> Result<(), Reason> {
        let inner = pkt.header_mut::<Ipv6Header>(ETH_LEN + Self::HEADER + between)?;
        inner.hop_limit = inner.hop_limit.wrapping_sub(1);
        let version_class_flow = inner.version_class_flow;
        *pkt.header_mut(ETH_LEN)? = Ipv6Header {
            version_class_flow,
            payload_len: Be16::from_host(u16::try_from(len_bytes + between as u32).unwrap_or(0)),
            next_header: if between == 0 { Self::TUNNEL } else { proto::UDP },
            hop_limit: TUNNEL_TTL,
            src: *src,
            dst: *dst,
        };
        Ok(())
    }

    #[inline(always)]
    fn destination<P: Packet>(pkt: &mut P) -> Result<[u8; 16], Reason> {
        Ok(pkt.header_mut::<Ipv6Header>(ETH_LEN)?.dst)
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
