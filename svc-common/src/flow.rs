//! Flows: how a pair is made, what its states mean, and which one is whose partner.

use crate::{
    csum,
    env::{NextHop, Route},
    family::Family,
    maps::{Device, Flow, Tuple, device_class, device_flags, flow_flags, flow_state},
    net::Be16,
    packet::{Hook, Packet},
    tunnel,
    wire::tcp_flags,
};

/// TCP flags that change a flow's state.
pub const STATEFUL: u8 = tcp_flags::SYN | tcp_flags::FIN | tcp_flags::RST;

/// The bits of [`Flow::flags`] that describe the next hop.
const HOP: u8 = flow_flags::HOP_RESOLVED | flow_flags::HOP_XDP | flow_flags::HOP_PEER;

/// Makes `flow` turn packets with tuple `old` into packets from `src` to `dst`. It has not seen any, and its epoch is
/// never the current one, so that its first packet finds the next hop.
#[inline(always)]
pub fn init<F: Family>(
    flow: &mut Flow<F::Addr>,
    old: &Tuple<F::Addr>,
    src: (&F::Addr, Be16),
    dst: (&F::Addr, Be16),
    flags: u8,
) {
    let addresses = F::inverted_sum(&old.src) + F::inverted_sum(&old.dst) + F::sum(src.0) + F::sum(dst.0);
    let ports = csum::word_delta(old.sport, src.1) + csum::word_delta(old.dport, dst.1);
    flow.src = *src.0;
    flow.dst = *dst.0;
    flow.sport = src.1;
    flow.dport = dst.1;
    flow.addr_delta = csum::fold(addresses);
    flow.port_delta = csum::fold(ports);
    flow.flags = flags;
    flow.state = 0;
    flow.epoch = 0;
    flow.packets = 0;
    flow.bytes = 0;
    set_next_hop::<F>(flow, Route::Stack, None, 0, 0);
}

/// Gives a flow with key `key` another new source port.
#[inline(always)]
pub fn set_source_port<A>(flow: &mut Flow<A>, key: &Tuple<A>, port: Be16) {
    flow.sport = port;
    flow.port_delta = csum::fold(csum::word_delta(key.sport, port) + csum::word_delta(key.dport, flow.dport));
}

/// Gives a flow with key `key`, which keeps the source address, another one.
#[inline(always)]
pub fn set_source_address<F: Family>(flow: &mut Flow<F::Addr>, key: &Tuple<F::Addr>, addr: F::Addr) {
    flow.addr_delta = csum::fold(u32::from(flow.addr_delta) + F::inverted_sum(&key.src) + F::sum(&addr));
    flow.src = addr;
}

/// Whether a flow applies at this hook. XDP leaves alone what the stack forwards, and what ends in a pod of this node.
#[inline(always)]
pub fn applies<P: Packet>(flags: u8) -> bool {
    match P::HOOK {
        Hook::Xdp => flags & (flow_flags::FORWARD | flow_flags::HOP_PEER) == flow_flags::FORWARD,
        Hook::Ingress => flags & flow_flags::EGRESS == 0,
        Hook::Egress => flags & flow_flags::EGRESS != 0,
    }
}

/// The key of the flow's partner: what packets look like after the flow was applied to them, reversed.
#[inline(always)]
pub fn partner_key<A: Copy>(flow: &Flow<A>, proto: u8) -> Tuple<A> {
    Tuple { src: flow.dst, dst: flow.src, sport: flow.dport, dport: flow.sport, proto, pad: [0; 3] }
}

/// The flags of the partner of a flow with `flags`.
///
/// Where the stack forwards, the reverse flow applies where packets leave towards the client: between the two hooks the
/// stack sees client and backend on both ways. Where our programs forward, it applies where they come in.
#[inline(always)]
pub const fn partner_flags(flags: u8) -> u8 {
    let forward = flags & flow_flags::FORWARD;
    let reverse = !flags & flow_flags::REVERSE;
    if reverse != 0 && forward == 0 { reverse | flow_flags::EGRESS } else { reverse | forward }
}

/// Makes `partner` and `partner_key` the other direction of the flow with key `key`.
///
/// Not inlined: it is called from several places, each of which would need its part of the stack.
#[cfg_attr(feature = "flat", inline(always))]
#[cfg_attr(not(feature = "flat"), inline(never))]
pub fn init_partner<F: Family>(
    partner: &mut Flow<F::Addr>,
    partner_key: &mut Tuple<F::Addr>,
    key: &Tuple<F::Addr>,
    flow: &Flow<F::Addr>,
) {
    *partner_key = self::partner_key(flow, key.proto);
    let flags = partner_flags(flow.flags);
    init::<F>(partner, partner_key, (&key.dst, key.dport), (&key.src, key.sport), flags);
    partner.service = flow.service;
    partner.backend = flow.backend;
    partner.seen_s = flow.seen_s;
    partner.state = mirrored(flow.state);
}

/// The state as the partner has it.
#[inline(always)]
const fn mirrored(state: u8) -> u8 {
    let mut mirrored = state & (flow_state::RST | flow_state::ESTABLISHED | flow_state::REPLIED);
    if state & flow_state::FIN != 0 {
        mirrored |= flow_state::PEER_FIN;
    }
    if state & flow_state::PEER_FIN != 0 {
        mirrored |= flow_state::FIN;
    }
    mirrored
}

/// Whether a SYN with the same tuple opens a new connection (B16, B61).
#[inline(always)]
pub const fn is_finished(state: u8) -> bool {
    let both = flow_state::FIN | flow_state::PEER_FIN;
    state & flow_state::RST != 0 || state & both == both
}

/// What a packet sets in its own flow and in the partner.
#[inline(always)]
pub const fn observed(tcp_flags: u8) -> (u8, u8) {
    if tcp_flags & tcp_flags::RST != 0 {
        (flow_state::RST, flow_state::RST)
    } else if tcp_flags & tcp_flags::FIN != 0 {
        (flow_state::FIN, flow_state::PEER_FIN)
    } else {
        (0, 0)
    }
}

/// Puts a route into a flow; `egress` is its device, `own` the one that the packet came in through. Without a route
/// the flow keeps no next hop. In a tunnel so many bytes less go through it as `encapsulation` takes.
#[inline(always)]
pub fn set_next_hop<F: Family>(
    flow: &mut Flow<F::Addr>,
    route: Route,
    egress: Option<&Device>,
    own: u32,
    encapsulation: u32,
) {
    let hop = match route {
        Route::Via(hop) => hop,
        Route::Stack => NextHop::default(),
    };
    flow.ifindex = hop.ifindex;
    flow.mtu = hop.mtu;
    flow.dst_mac = hop.dst_mac;
    flow.src_mac = hop.src_mac;
    flow.flags &= !HOP;
    if hop.is_resolved() {
        flow.flags |= flow_flags::HOP_RESOLVED;
    }
    if let Some(egress) = egress {
        if flow.mtu == 0 {
            // Before 5.12 a route look-up does not tell.
            flow.mtu = egress.mtu;
        }
        if hop.ifindex == own || egress.flags & device_flags::XDP_TARGET != 0 {
            flow.flags |= flow_flags::HOP_XDP;
        }
        let fast = egress.class == device_class::WORKLOAD && egress.flags & device_flags::FAST != 0;
        if hop.is_resolved() && fast && flow.flags & flow_flags::ENCAP == 0 {
            flow.flags |= flow_flags::HOP_PEER;
        }
    }
    if flow.flags & flow_flags::ENCAP != 0 {
        // What fits inside of the header.
        flow.mtu = flow.mtu.saturating_sub(tunnel::overhead::<F>(encapsulation) as u16);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{family::V4, net::proto};

    const FORWARD: u8 = flow_flags::FORWARD;
    const REVERSE: u8 = flow_flags::REVERSE;
    const EGRESS: u8 = flow_flags::EGRESS;

    fn tuple(src: [u8; 4], sport: u16, dst: [u8; 4], dport: u16) -> Tuple<[u8; 4]> {
        Tuple { src, dst, sport: Be16::from_host(sport), dport: Be16::from_host(dport), proto: proto::TCP, pad: [0; 3] }
    }

    #[test]
    fn b21_the_partner_of_the_partner_is_the_flow_itself() {
        let key = tuple([192, 0, 2, 1], 40_000, [10, 96, 0, 1], 80);
        for (flags, state) in [(0, flow_state::FIN), (FORWARD, flow_state::ESTABLISHED), (0, flow_state::RST)] {
            let mut flow = Flow::default();
            let backend = (&[10, 244, 0, 5], Be16::from_host(8080));
            init::<V4>(&mut flow, &key, (&key.src, key.sport), backend, flags);
            (flow.service, flow.backend, flow.seen_s, flow.state) = (7, 9, 100, state);
            let (mut reverse, mut reverse_key) = (Flow::default(), Tuple::default());
            init_partner::<V4>(&mut reverse, &mut reverse_key, &key, &flow);
            assert_eq!(reverse.flags, if flags == 0 { REVERSE | EGRESS } else { REVERSE | FORWARD });
            assert_eq!(reverse_key, tuple([10, 244, 0, 5], 8080, [192, 0, 2, 1], 40_000));
            let (mut again, mut again_key) = (Flow::default(), Tuple::default());
            init_partner::<V4>(&mut again, &mut again_key, &reverse_key, &reverse);
            assert_eq!((again, again_key), (flow, key));
        }
    }
}
