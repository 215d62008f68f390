//! Errors about packets that this node has put a packet of a client into (direct server return): that it is too long for a
//! link on the way to the backend's node.
//!
//! Nobody here could send less, so the client is told instead: what is inside of the quoted packet is quoted to it, with the
//! MTU less what the tunnel takes. The router's answer quotes enough of the packet if it does as RFC 1812 and RFC 4443 say;
//! of one that quotes 8 bytes nothing can be made.

use crate::{
    env::{Env, Route},
    family::Family,
    icmp::Messages,
    maps::{Scratch, encapsulation, flow_flags},
    net::proto,
    outcome::Packed,
    packet::{Hook, Packet},
    parse::Parsed,
    reason::Reason,
    stage::answer,
    tunnel,
    wire::{ETH_LEN, GENEVE_PORT, GeneveHeader, IcmpHeader},
};

/// Least bytes of a packet that a quote tells anything by: a header without options, and the ports with what follows them.
const LEAST: u32 = 8;

/// Whether the key of a quoted packet, source and destination swapped, is that of one which carries another.
#[inline(always)]
pub fn carries<F: Family>(key: &crate::maps::Tuple<F::Addr>) -> bool {
    key.proto == F::TUNNEL || (key.proto == proto::UDP && key.sport == GENEVE_PORT)
}

/// Tells the client. `scratch.partner_key` is the quoted packet's key, `content` where the content of the quoted IP packet
/// begins.
///
/// Not inlined: it needs a part of the stack of its own.
#[cfg_attr(feature = "flat", inline(always))]
#[cfg_attr(not(feature = "flat"), inline(never))]
pub fn run<F: Family, P: Packet, E: Env<F>>(
    pkt: &mut P,
    env: &mut E,
    scratch: &mut Scratch<F::Addr>,
    content: usize,
) -> Packed {
    if !matches!(P::HOOK, Hook::Ingress) {
        return Packed::PASS;
    }
    if pkt.is_aggregate() {
        // No ICMP message is one; the kernel would not shorten it.
        return Packed::pass::<P>(Reason::IcmpQuote);
    }
    let Scratch { parsed, flow, partner_key: key, partner, now, .. } = scratch;
    let kind = if key.proto == proto::UDP { encapsulation::GENEVE } else { encapsulation::IPIP };
    let start = content + if kind == encapsulation::GENEVE { size_of::<GeneveHeader>() } else { 0 };
    let message = (parsed.l4 & 0x7f) as usize;
    let Ok(header) = pkt.header_mut::<IcmpHeader>(message).copied() else {
        return Packed::pass::<P>(Reason::Malformed);
    };
    let [.., high, low] = header.rest;
    let mtu = u16::from_be_bytes([high, low]).saturating_sub(tunnel::overhead::<F>(kind) as u16);
    let end = message as u32 + parsed.l4_len;
    let quoted = end.saturating_sub(start as u32);
    let known = (header.kind, header.code) == F::Messages::TOO_BIG
        && mtu != 0
        && start <= 0x7f
        && quoted >= F::HEADER as u32 + LEAST
        && F::inner_tuple(pkt, start, &mut parsed.tuple).is_ok()
        && env.recall_flow(&parsed.tuple, flow)
        && flow.flags & flow_flags::ENCAP != 0
        && flow.dst == key.src
        && flow.src == key.dst;
    if !known {
        return Packed::pass::<P>(Reason::IcmpQuote);
    }
    *now = env.now();
    let Route::Via(hop) = env.route(&parsed.tuple.dst, &parsed.tuple.src, F::ICMP, pkt.ifindex()) else {
        return Packed::pass::<P>(Reason::IcmpQuote);
    };
    if !env.answers().is_some_and(|answers| answers.take(*now)) {
        return Packed::drop(Reason::Unanswered);
    }
    parsed.len_bytes = quoted;
    // The flow's partner has no use here; this keeps the hop off the stack.
    partner.ifindex = hop.ifindex;
    (partner.dst_mac, partner.src_mac) = (hop.dst_mac, hop.src_mac);
    partner.flags = if hop.is_resolved() { flow_flags::HOP_RESOLVED } else { 0 };
    match tell::<F, P>(pkt, parsed, (start & 0x7f) - ETH_LEN, mtu) {
        Ok(()) if partner.is_resolved() => match pkt.set_macs(partner.macs()) {
            Ok(()) => Packed::to_device(Packed::SEND, partner.ifindex).because(Reason::TooBig),
            Err(reason) => Packed::drop(reason),
        },
        Ok(()) => Packed::to_device(Packed::RESOLVE, partner.ifindex).because(Reason::TooBig),
        Err(reason) => Packed::drop(reason),
    }
}

/// Takes everything off that is before the client's packet, and quotes that to the client.
#[inline(always)]
fn tell<F: Family, P: Packet>(pkt: &mut P, parsed: &Parsed<F::Addr>, before: usize, mtu: u16) -> Result<(), Reason> {
    pkt.close_gap(before)?;
    answer::put_error::<F, P>(pkt, parsed, F::Messages::TOO_BIG, mtu)
}
