//! The shortest way through the pipeline: an ordinary packet of a connection whose flow says all that it takes.
//!
//! What comes out is what [`crate::pipeline::process`] makes of the packet, in half of the instructions: each field is read
//! where it is needed and nothing is kept.

use crate::{
    attend::fits_in,
    decide::is_service_address,
    env::Env,
    family::Family,
    flow::{STATEFUL, applies},
    known::concerns,
    maps::{Flow, Tuple, flow_flags, flow_state},
    net::proto,
    outcome::Packed,
    packet::{Hook, Packet},
    reason::Reason,
    rewrite::transport,
    wire::{ETH_LEN, GENEVE_PORT, TcpHeader, UdpHeader},
};

/// What an ordinary packet's IP header says, beside the addresses: no options, no extension headers, not a fragment, and the frame
/// holds all of it.
#[derive(Clone, Copy, Debug)]
pub struct Ordinary {
    /// IANA protocol number.
    pub proto: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Bytes of the IP packet.
    pub len_bytes: u32,
}

/// What [`Flow::marks`] has to be at a hook, and which bits of it count.
const fn expected(hook: Hook) -> (u16, u16) {
    const fn marks(state: u8, flags: u8) -> u16 {
        u16::from_ne_bytes([state, flags])
    }
    let sent = flow_flags::FORWARD | flow_flags::HOP_RESOLVED;
    match hook {
        Hook::Xdp => (marks(0, sent), marks(flow_state::RST, sent | flow_flags::HOP_PEER)),
        Hook::Ingress => (0, marks(flow_state::RST, flow_flags::EGRESS)),
        Hook::Egress => (marks(0, flow_flags::EGRESS), marks(flow_state::RST, flow_flags::EGRESS)),
    }
}

/// Translates the packet, or leaves it alone if it is none of ours, and says where it goes; `None` if it has to go the long way,
/// and is untouched.
#[inline(always)]
pub fn replay<F: Family, P: Packet, E: Env<F>>(pkt: &mut P, env: &mut E) -> Option<Packed> {
    let mut tuple = Tuple::default();
    let head = F::ordinary(pkt, &mut tuple)?;
    let payload = head.len_bytes - (F::L4 - ETH_LEN) as u32;
    if head.proto == proto::TCP && payload >= size_of::<TcpHeader>() as u32 {
        let tcp = pkt.header_mut::<TcpHeader>(F::L4).ok()?;
        if tcp.flags & STATEFUL != 0 {
            return None;
        }
        tuple.set_ports_and_proto(tcp.ports, proto::TCP);
    } else if head.proto == proto::UDP && payload >= size_of::<UdpHeader>() as u32 {
        let udp = pkt.header_mut::<UdpHeader>(F::L4).ok()?;
        if udp.ports.dport == GENEVE_PORT {
            return None;
        }
        tuple.set_ports_and_proto(udp.ports, proto::UDP);
    } else {
        return None;
    }
    let Some((flow, now, epoch)) = env.lookup_flow_now(&tuple) else {
        let ours = concerns::<F, E>(env, &tuple) || is_service_address::<F, E>(env, &tuple.dst);
        return if ours { None } else { Some(Packed::PASS) };
    };
    let (marks, mask) = const { expected(P::HOOK) };
    if flow.epoch != epoch || flow.seen_s != now || flow.marks() & mask != marks {
        return if applies::<P>(flow.flags) { None } else { Some(Packed::PASS) };
    }
    let forward = matches!(P::HOOK, Hook::Xdp) || flow.flags & flow_flags::FORWARD != 0;
    if forward {
        let sendable = match P::HOOK {
            Hook::Xdp => {
                let reachable = flow.flags & flow_flags::HOP_XDP != 0 || flow.ifindex == pkt.ifindex();
                reachable && head.len_bytes <= u32::from(flow.mtu)
            }
            _ => flow.is_resolved() && fits_in(pkt, flow.mtu, head.len_bytes, F::L4 as u32, head.proto),
        };
        if !sendable || head.ttl <= 1 {
            return None;
        }
    }
    // Two CPUs may lose a count here; it is not worth an atomic operation per packet.
    flow.packets = flow.packets.wrapping_add(1);
    flow.bytes = flow.bytes.wrapping_add(u64::from(head.len_bytes));
    let (service, reverse) = (flow.service, flow.flags & flow_flags::REVERSE != 0);
    let ifindex = flow.ifindex;
    let peer = flow.flags & flow_flags::HOP_PEER != 0;
    if let Err(reason) = rewrite::<F>(pkt, flow, forward, head.proto == proto::UDP) {
        return Some(Packed::drop(reason));
    }
    env.count_service(service, reverse, head.len_bytes);
    Some(if !forward {
        Packed::DELIVER
    } else if peer && !matches!(P::HOOK, Hook::Xdp) {
        Packed::to_device(Packed::PEER, ifindex)
    } else {
        Packed::to_device(Packed::SEND, ifindex)
    })
}

/// Translates the packet; what our programs forward has a next hop.
///
/// # Errors
/// [`Reason::Malformed`] if the frame ends before its headers, which has been excluded.
#[inline(always)]
fn rewrite<F: Family>(pkt: &mut impl Packet, flow: &Flow<F::Addr>, forward: bool, udp: bool) -> Result<(), Reason> {
    F::rewrite(pkt, &flow.src, &flow.dst, flow.addr_delta, forward)?;
    if forward {
        pkt.set_macs(flow.macs())?;
    }
    transport(pkt, flow, F::L4, udp)
}

#[cfg(test)]
#[path = "replay_tests.rs"]
mod tests;
