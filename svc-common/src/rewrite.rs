//! Puts a flow's rewrite into a packet.

use crate::{
    family::Family,
    maps::{Flow, flow_flags},
    net::proto,
    packet::{L4Patch, Packet},
    parse::Parsed,
    reason::Reason,
    stage::rare,
    wire::Ports,
};

/// Offset of the checksum in a TCP header in bytes.
const TCP_CHECKSUM: usize = 16;
/// Offset of the checksum in a UDP header in bytes.
const UDP_CHECKSUM: usize = 6;

/// Translates a packet. What our programs forward gets one less TTL, and the next hop's addresses if they are resolved.
///
/// `RARE`: the transport header may lie deeper than behind an IPv4 header, or there is none (`l4` is zero).
///
/// # Errors
/// [`Reason::Malformed`] if the frame ends before its headers, which parsing has excluded.
#[inline(always)]
pub fn rewrite<F: Family, const RARE: bool>(
    pkt: &mut impl Packet,
    parsed: &Parsed<F::Addr>,
    flow: &Flow<F::Addr>,
) -> Result<(), Reason> {
    F::rewrite(pkt, &flow.src, &flow.dst, flow.addr_delta, flow.flags & flow_flags::FORWARD != 0)?;
    if RARE && parsed.l4 == 0 {
        // A later piece of a datagram.
        return set_macs(pkt, flow);
    }
    // At most 14 + 60, or as far as stages read; the mask tells the verifier where `parsed` comes from a map.
    let l4 = (parsed.l4 & if RARE { rare::OFFSETS } else { 0x7f }) as usize;
    if RARE && parsed.tuple.proto == proto::SCTP {
        // Its checksum is of another kind, and its stage lets it follow.
        *pkt.header_mut(l4)? = Ports { sport: flow.sport, dport: flow.dport };
        return set_macs(pkt, flow);
    }
    set_macs(pkt, flow)?;
    transport(pkt, flow, l4, parsed.tuple.proto == proto::UDP)
}

/// Translates TCP or UDP at `l4`.
///
/// # Errors
/// As [`rewrite`].
#[inline(always)]
pub fn transport<A>(pkt: &mut impl Packet, flow: &Flow<A>, l4: usize, udp: bool) -> Result<(), Reason> {
    *pkt.header_mut(l4)? = Ports { sport: flow.sport, dport: flow.dport };
    pkt.patch_l4(L4Patch {
        offset: l4 + if udp { UDP_CHECKSUM } else { TCP_CHECKSUM },
        addr_delta: flow.addr_delta,
        port_delta: flow.port_delta,
        udp,
    })
}

/// Writes the next hop's addresses if they are resolved.
#[inline(always)]
fn set_macs<A>(pkt: &mut impl Packet, flow: &Flow<A>) -> Result<(), Reason> {
    if flow.is_resolved() {
        pkt.set_macs(flow.macs())?;
    }
    Ok(())
}
