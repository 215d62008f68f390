//! A packet whose flow needs more than a replay: once a second, at a change of the world, at the beginning and the end of
//! a connection.

use crate::{
    env::{Env, InsertError, Route, Table},
    family::Family,
    flow,
    maps::{Flow, FrontendKey, Scratch, Tuple, backend_flags, event_kind, flow_flags, flow_state},
    net::proto,
    packet::{Hook, Packet},
    parse::Parsed,
    reason::{Note, Reason},
    wire::{ETH_LEN, TcpHeader, UdpHeader},
};

/// What to do with a packet whose flow needed attention.
pub enum Attended {
    /// Apply `scratch.flow`.
    Replay,
    /// The flow is gone: the packet opens a connection.
    Decide,
    /// The packet is the next hook's.
    Pass,
    /// The packet ends here.
    Drop(Reason),
}

/// A packet whose flow is not simply replayed: once a second, at a change of the world, at the beginning and the end
/// of a connection. Works on a copy in `scratch.flow` and writes it back.
///
/// Not inlined, like [`crate::decide::decide`]: both have frames of their own on the 512 bytes of stack, and the replay path
/// stays short.
#[cfg_attr(feature = "flat", inline(always))]
#[cfg_attr(not(feature = "flat"), inline(never))]
pub fn attend<F: Family, P: Packet, E: Env<F>>(
    pkt: &mut P,
    env: &mut E,
    scratch: &mut Scratch<F::Addr>,
    table: Table,
) -> Attended {
    let Scratch { parsed, config, now, chosen, flow, partner, partner_key } = scratch;
    let key = &parsed.tuple;
    let own = pkt.ifindex();
    match env.lookup_flow(table, key) {
        Some(stored) => *flow = *stored,
        None => return Attended::Decide,
    }
    let reverse = flow.flags & flow_flags::REVERSE != 0;
    let tunnel = flow.flags & flow_flags::ENCAP != 0;
    *partner_key = flow::partner_key(flow, key.proto);

    if !reverse {
        // Of a connection whose answers go another way, one half is seen.
        let ended = flow::is_finished(flow.state) || (tunnel && flow.state & flow_state::FIN != 0);
        let finished = parsed.is_syn() && ended;
        // What another node sends to a backend here is never sent on.
        let finished = finished || (tunnel && *chosen != 0);
        // TCP and SCTP to a backend that went away run until they end; UDP, and a new connection, moves (B26, B61).
        let movable = key.proto == proto::UDP || parsed.is_syn();
        let stale = flow.epoch != config.epoch;
        // Where nobody answered, there is no connection to be kept: its SYN is as good as a new one.
        let unanswered = parsed.is_syn() && flow.state & flow_state::REPLIED == 0;
        if finished || (stale && movable && !is_served::<F, E>(env, key, flow, unanswered)) {
            env.remove_flow(table, key);
            env.remove_flow(table, partner_key);
            env.tell_flow(event_kind::END, key, flow);
            return Attended::Decide;
        }
    }

    // A flow without a partner gets here with each packet, and need not ask for the way each time.
    let fresh = tunnel && flow.epoch == config.epoch && flow.seen_s == *now;
    if flow.flags & flow_flags::FORWARD != 0 && !fresh {
        let route = env.route(&flow.src, &flow.dst, key.proto, own);
        let Route::Via(hop) = route else {
            if matches!(P::HOOK, Hook::Xdp) {
                return Attended::Pass;
            }
            return Attended::Drop(Reason::NoNextHop);
        };
        flow::set_next_hop::<F>(flow, route, env.lookup_device(hop.ifindex), own, config.encapsulation);
        if hop.is_resolved() {
            flow.epoch = config.epoch;
        }
    } else {
        flow.epoch = config.epoch;
    }
    if matches!(P::HOOK, Hook::Xdp) && !is_sendable::<P, F>(pkt, flow, parsed, own) {
        // tc has other means, and does the rest of this.
        return Attended::Pass;
    }

    let (seen, mut peer_seen) = flow::observed(parsed.tcp_flags);
    // Data after an RST: the RST was not believed (B17).
    let revived = flow.state & flow_state::RST != 0 && parsed.tcp_flags & flow::STATEFUL == 0;
    if revived {
        flow.state &= !flow_state::RST;
    }
    flow.state |= seen;
    flow.seen_s = *now;
    flow.packets = flow.packets.wrapping_add(1);
    flow.bytes = flow.bytes.wrapping_add(u64::from(parsed.len_bytes));
    if tunnel {
        if let Some(stored) = env.lookup_flow(table, key) {
            *stored = *flow;
        }
        return Attended::Replay;
    }
    let half_open = matches!(table, Table::Embryo);
    if half_open && reverse {
        peer_seen |= flow_state::REPLIED;
    }

    // Only the client's own second packet makes a connection established: what it sends can be forged, but not
    // together with an answer that it has to have seen (B23).
    if half_open && !reverse && flow.state & flow_state::REPLIED != 0 && !parsed.is_syn() {
        let (now, limit) = (*now, config.max_new_flows);
        if env.new_flows().is_none_or(|flows| flows.may_establish(now, limit)) {
            flow.state |= flow_state::ESTABLISHED;
            if promote::<F, E>(env, key, flow, partner_key, partner, peer_seen) {
                return Attended::Replay;
            }
            flow.state &= !flow_state::ESTABLISHED;
            env.note(Note::PROMOTION_REFUSED);
        } else {
            env.note(Note::PROMOTION_DEFERRED);
        }
    }

    if let Some(stored) = env.lookup_flow(table, partner_key) {
        stored.seen_s = *now;
        stored.state |= peer_seen;
        if revived {
            stored.state &= !flow_state::RST;
        }
    }
    if let Some(stored) = env.lookup_flow(table, key) {
        *stored = *flow;
    }
    // The sweep may have removed either since. It looks at the time after the removal, this at the table after the time
    // is written, so one of them sees what the other did (B25). An attempted insertion takes the lock of the removal, so
    // the writes are seen before it; a table that evicts would make room for it first.
    if matches!(table, Table::Established) || env.lookup_flow(table, key).is_none() {
        let _present = env.insert_flow(table, key, flow);
    }
    if env.lookup_flow(table, partner_key).is_none() {
        flow::init_partner::<F>(partner, partner_key, key, flow);
        if env.insert_flow(table, partner_key, partner).is_ok() {
            env.note(Note::PARTNER_RESTORED);
        }
    }
    Attended::Replay
}

/// Whether the flow's backend still serves what the client dialled; if `new`, whether new connections may get it.
#[inline(always)]
fn is_served<F: Family, E: Env<F>>(env: &mut E, key: &Tuple<F::Addr>, flow: &Flow<F::Addr>, new: bool) -> bool {
    let mut frontend = env.lookup_frontend(&FrontendKey::dialled(key)).map(|frontend| frontend.service);
    if frontend.is_none() {
        // Another node's nodePort, of which a packet came here inside of another one.
        frontend = env.lookup_frontend(&FrontendKey::of_any_node(key.dport, key.proto)).map(|any| any.service);
    }
    let Some(service) = frontend else {
        return false;
    };
    env.lookup_backend(flow.backend).is_some_and(|backend| {
        service == flow.service
            && backend.service == flow.service
            && backend.addr == flow.dst
            && backend.port == flow.dport
            && (!new || backend.flags & (backend_flags::CLUSTER_SET | backend_flags::LOCAL_SET) != 0)
    })
}

/// Moves a connection to the established table. Fails, changing nothing there, if there is no room for both
/// directions.
#[inline(always)]
fn promote<F: Family, E: Env<F>>(
    env: &mut E,
    key: &Tuple<F::Addr>,
    flow: &Flow<F::Addr>,
    partner_key: &mut Tuple<F::Addr>,
    partner: &mut Flow<F::Addr>,
    peer_seen: u8,
) -> bool {
    match env.lookup_flow(Table::Embryo, partner_key) {
        Some(stored) => {
            *partner = *stored;
            partner.state |= flow_state::ESTABLISHED | flow_state::REPLIED | peer_seen;
        }
        None => flow::init_partner::<F>(partner, partner_key, key, flow),
    }
    if env.insert_flow(Table::Established, key, flow) == Err(InsertError::Full) {
        return false;
    }
    if env.insert_flow(Table::Established, partner_key, partner) == Err(InsertError::Full) {
        env.remove_flow(Table::Established, key);
        return false;
    }
    env.remove_flow(Table::Embryo, key);
    env.remove_flow(Table::Embryo, partner_key);
    true
}

/// Whether this hook can send the packet with what the flow knows.
#[inline(always)]
pub fn is_sendable<P: Packet, F: Family>(
    pkt: &mut P,
    flow: &Flow<F::Addr>,
    parsed: &Parsed<F::Addr>,
    own: u32,
) -> bool {
    let resolved = flow.is_resolved();
    match P::HOOK {
        Hook::Xdp => {
            resolved
                && (flow.ifindex == own || flow.flags & flow_flags::HOP_XDP != 0)
                && parsed.len_bytes <= u32::from(flow.mtu)
                && parsed.ttl > 1
        }
        Hook::Ingress => {
            flow.flags & flow_flags::FORWARD == 0 || (resolved && parsed.ttl > 1 && fits(pkt, flow, parsed))
        }
        Hook::Egress => true,
    }
}

/// What stands for the size of the segments where each is as its sender made it (`GSO_BY_FRAGS`), as in aggregates of SCTP:
/// the sender has cut them to its path MTU.
const BY_FRAGMENTS: u32 = 0xffff;

/// Whether the packet, or each that an aggregate is cut into, fits through the next hop's device (B09).
#[inline(always)]
pub fn fits<P: Packet, A>(pkt: &mut P, flow: &Flow<A>, parsed: &Parsed<A>) -> bool {
    fits_in(pkt, flow.mtu, parsed.len_bytes, parsed.l4, parsed.tuple.proto)
}

/// [`fits`] for what is known of a packet whose transport header is at `l4`.
#[inline(always)]
pub fn fits_in<P: Packet>(pkt: &mut P, mtu: u16, len_bytes: u32, l4: u32, proto: u8) -> bool {
    let mtu = u32::from(mtu);
    if len_bytes <= mtu || mtu == 0 {
        return true;
    }
    let payload = pkt.segment_payload();
    if payload == 0 {
        return false;
    }
    if payload == BY_FRAGMENTS {
        return true;
    }
    // At most 14 + 60; the mask tells the verifier where `parsed` comes from a map.
    let l4 = l4 & 0x7f;
    let transport = if proto == proto::TCP {
        match pkt.header_mut::<TcpHeader>(l4 as usize) {
            Ok(tcp) => u32::from(tcp.data_offset >> 4) * 4,
            Err(_) => return false,
        }
    } else {
        size_of::<UdpHeader>() as u32
    };
    l4 - ETH_LEN as u32 + transport + payload <= mtu
}
