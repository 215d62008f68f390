//! IPv4.

use super::{Family, TUNNEL_TTL, address_pair, inner_ports, mix_word};
use crate::{
    csum,
    icmp::Icmp,
    maps::{Cidr, Tuple},
    net::{Be16, proto},
    packet::{Hook, Packet},
    parse::{Parsed, Unparsed},
    reason::Reason,
    replay::Ordinary,
    stage::rare::Piece,
    wire::{ETH_LEN, Header, Ipv4Header},
};

address_pair!(Ipv4Pair, 4, 4);

/// The flag of an IPv4 header.
const DO_NOT_FRAGMENT: u16 = 0x4000;

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
    fn ordinary<P: Packet>(pkt: &mut P, tuple: &mut Tuple<[u8; 4]>) -> Option<Ordinary> {
        let ip = pkt.header_mut::<Ipv4Header>(ETH_LEN).ok()?;
        let len_bytes = u32::from(ip.total_len.to_host());
        if ip.version_ihl != 0x45 || ip.fragment_bits() != 0 || len_bytes < Self::HEADER as u32 {
            return None;
        }
        (tuple.src, tuple.dst) = (ip.src, ip.dst);
        let head = Ordinary { proto: ip.proto, ttl: ip.ttl, len_bytes };
        if pkt.holds(len_bytes + ETH_LEN as u32) { Some(head) } else { None }
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
    fn encapsulate<P: Packet>(
        pkt: &mut P,
        src: &[u8; 4],
        dst: &[u8; 4],
        len_bytes: u32,
        between: usize,
    ) -> Result<(), Reason> {
        let inner = pkt.header_mut::<Ipv4Header>(ETH_LEN + Self::HEADER + between)?;
        inner.ttl = inner.ttl.wrapping_sub(1);
        inner.checksum = csum::apply(inner.checksum, csum::TTL_DELTA);
        let tos = inner.tos;
        let outer = pkt.header_mut::<Ipv4Header>(ETH_LEN)?;
        *outer = Ipv4Header {
            version_ihl: 0x45,
            tos,
            // An aggregate of more than 64 KiB has no length in its header.
            total_len: Be16::from_host(u16::try_from(len_bytes + (Self::HEADER + between) as u32).unwrap_or(0)),
            // Packets that are never cut need no identification (RFC 6864).
            id: Be16::default(),
            fragment: Be16::from_host(DO_NOT_FRAGMENT),
            ttl: TUNNEL_TTL,
            proto: if between == 0 { Self::TUNNEL } else { proto::UDP },
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
    fn destination<P: Packet>(pkt: &mut P) -> Result<[u8; 4], Reason> {
        Ok(pkt.header_mut::<Ipv4Header>(ETH_LEN)?.dst)
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
