//! Packets inside of others: how a packet reaches its backend's node as it is (direct server return).

use crate::{
    decide,
    family::Family,
    maps::{Flow, encapsulation},
    net::Be16,
    outcome::Packed,
    packet::Packet,
    parse::{Parsed, Unparsed},
    reason::Reason,
    wire::{ETH_LEN, GENEVE_PORT, GeneveHeader},
};

/// The first of the ports that Geneve packets come from; RFC 8926 section 3.3 asks for a port that tells connections apart.
const FIRST_PORT: u16 = 0xc000;

/// Bytes in front of a packet.
#[inline(always)]
pub const fn overhead<F: Family>(encapsulation: u32) -> usize {
    F::HEADER + if encapsulation == encapsulation::GENEVE { size_of::<GeneveHeader>() } else { 0 }
}

/// Puts a packet into one that carries it to its backend's node, and says where that goes.
///
/// # Errors
/// [`Reason::NoRoomForTunnel`] if the frame cannot grow.
#[inline(always)]
pub fn encapsulate<F: Family, P: Packet>(
    pkt: &mut P,
    parsed: &Parsed<F::Addr>,
    flow: &Flow<F::Addr>,
    encapsulation: u32,
) -> Result<Packed, Reason> {
    if encapsulation == encapsulation::GENEVE {
        open::<F, P>(pkt, parsed, flow, size_of::<GeneveHeader>())?;
        let sport = Be16::from_host(FIRST_PORT | decide::hash::<F>(&parsed.tuple) as u16);
        // An aggregate of more than 64 KiB has no length in its headers.
        let len = u16::try_from(parsed.len_bytes + size_of::<GeneveHeader>() as u32).unwrap_or(0);
        *pkt.header_mut(ETH_LEN + F::HEADER)? = GeneveHeader::new(sport, F::ETHER_TYPE, len);
    } else {
        open::<F, P>(pkt, parsed, flow, 0)?;
    }
    let way = if flow.is_resolved() { Packed::SEND } else { Packed::RESOLVE };
    Ok(Packed::to_device(way, flow.ifindex))
}

/// Makes room for the headers and writes those but `between` bytes before the packet.
#[inline(always)]
fn open<F: Family, P: Packet>(
    pkt: &mut P,
    parsed: &Parsed<F::Addr>,
    flow: &Flow<F::Addr>,
    between: usize,
) -> Result<(), Reason> {
    if pkt.open_tunnel(F::HEADER + between).is_err() {
        return Err(Reason::NoRoomForTunnel);
    }
    F::encapsulate(pkt, &flow.src, &flow.dst, parsed.len_bytes, between)?;
    if flow.is_resolved() {
        pkt.set_macs(flow.macs())?;
    }
    Ok(())
}

/// Where the packet inside of another one begins, of which `read` says how reading it ended; nothing if there is none of the
/// same family.
#[inline(always)]
pub fn inside<F: Family, P: Packet>(pkt: &mut P, outer: &Parsed<F::Addr>, read: Result<(), Unparsed>) -> Option<usize> {
    // At most 14 + 60; the mask tells the verifier.
    let l4 = (outer.l4 & 0x7f) as usize;
    match read {
        Err(Unparsed::Tunnel) => Some(l4),
        Ok(()) if outer.tuple.dport == GENEVE_PORT => {
            let header = *pkt.header_mut::<GeneveHeader>(l4).ok()?;
            let whole = outer.l4_len >= size_of::<GeneveHeader>() as u32;
            (whole && header.carries(F::ETHER_TYPE)).then_some(l4 + size_of::<GeneveHeader>())
        }
        _ => None,
    }
}
