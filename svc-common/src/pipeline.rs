//! The four steps of a packet: parse, replay or decide, rewrite, verdict.

use crate::{
    decide::{self, Decision},
    env::{Env, InsertError, Route, Table},
    family::Family,
    flow,
    maps::{Flow, FrontendKey, Scratch, Tuple, flow_flags, flow_state},
    net::proto,
    packet::{Hook, Packet},
    parse::{self, Parsed},
    reason::Reason,
    rewrite::rewrite,
};

/// What the pipeline decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Untouched; whoever is next has it.
    Pass,
    /// Translated; the stack goes on.
    Deliver,
    /// Translated, next hop's addresses written: send it out of this device.
    Send(u32),
    /// Translated: send it out of this device, whose neighbour the kernel finds.
    Resolve(u32),
    /// For us, but it ends here; counted.
    Drop(Reason),
}

/// An [`Outcome`] in one word.
///
/// The fields of an enum that its variant does not have are undefined; the compiler may compute with them as long as
/// it does not look, which the verifier does not let pass. So programs carry outcomes like this to the hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packed(u64);

impl Packed {
    const PASS: Self = Self(0);
    const DELIVER: Self = Self(1);
    const SEND: u64 = 2;
    const RESOLVE: u64 = 3;
    const DROP: u64 = 4;

    #[inline(always)]
    const fn drop(reason: Reason) -> Self {
        Self(Self::DROP | ((reason as u64) << 8))
    }

    #[inline(always)]
    const fn to_device(kind: u64, ifindex: u32) -> Self {
        Self(kind | ((ifindex as u64) << 8))
    }

    /// The outcome.
    #[inline(always)]
    pub const fn outcome(self) -> Outcome {
        let value = (self.0 >> 8) as u32;
        match self.0 & 0xff {
            1 => Outcome::Deliver,
            Self::SEND => Outcome::Send(value),
            Self::RESOLVE => Outcome::Resolve(value),
            Self::DROP => Outcome::Drop(Reason::from_index(value as u8)),
            _ => Outcome::Pass,
        }
    }
}

/// Runs a frame through the pipeline.
///
/// `PARTIAL` says that checksums may be partial and nobody tells (XDP on veth, B05).
#[inline(always)]
pub fn run<F: Family, P: Packet, E: Env<F>, const PARTIAL: bool>(pkt: &mut P, env: &mut E) -> Packed {
    let mut parsed = Parsed::default();
    if let Err(reason) = parse::parse::<F>(pkt, &mut parsed) {
        // Once per packet: where it comes in.
        if matches!(P::HOOK, Hook::Ingress) {
            env.count(reason);
        }
        return Packed::PASS;
    }
    if PARTIAL && parse::is_partial::<F>(&parsed) {
        env.count(Reason::PartialChecksum);
        return Packed::PASS;
    }
    let now = env.now();
    let epoch = env.config().epoch;
    let own = pkt.ifindex();

    let mut found = None;
    if let Some(flow) = env.lookup_flow(Table::Established, &parsed.tuple) {
        if !applies::<P>(flow.flags) {
            return Packed::PASS;
        }
        let ordinary = flow.epoch == epoch
            && flow.seen_s == now
            && parsed.tcp_flags & flow::STATEFUL == 0
            && flow.state & flow_state::RST == 0;
        if ordinary && is_sendable::<P, F>(flow, &parsed, own) {
            // Two CPUs may lose a count here; it is not worth an atomic operation per packet.
            flow.packets = flow.packets.wrapping_add(1);
            flow.bytes = flow.bytes.wrapping_add(u64::from(parsed.len_bytes));
            let (service, reverse) = (flow.service, flow.flags & flow_flags::REVERSE != 0);
            let outcome = send::<P, F>(pkt, &parsed, flow);
            env.count_service(service, reverse, parsed.len_bytes);
            return outcome;
        }
        found = Some(Table::Established);
    } else if let Some(flow) = env.lookup_flow(Table::Embryo, &parsed.tuple) {
        if !applies::<P>(flow.flags) {
            return Packed::PASS;
        }
        found = Some(Table::Embryo);
    }
    let Some(mut scratch) = env.scratch() else {
        return Packed::PASS;
    };
    scratch.parsed = parsed;
    scratch.now = now;
    scratch.config = env.config();
    let attended = match found {
        Some(table) => attend::<F, P, E>(pkt, env, &mut scratch, table),
        None => Attended::Decide,
    };
    match attended {
        Attended::Replay => {}
        Attended::Pass => return Packed::PASS,
        Attended::Drop(reason) => {
            env.count(reason);
            return Packed::drop(reason);
        }
        Attended::Decide => match decide::decide::<F, P, E>(pkt, env, &mut scratch) {
            Decision::Recorded => {}
            Decision::Pass => return Packed::PASS,
            Decision::Drop(reason) => {
                env.count(reason);
                return Packed::drop(reason);
            }
        },
    }
    let (parsed, flow) = (&scratch.parsed, &scratch.flow);
    if flow.flags & flow_flags::SNAT != 0 && parsed.ttl <= 1 {
        env.count(Reason::TtlExceeded);
        return Packed::PASS;
    }
    let outcome = send::<P, F>(pkt, parsed, flow);
    env.count_service(flow.service, flow.flags & flow_flags::REVERSE != 0, parsed.len_bytes);
    outcome
}

/// Whether a flow applies at this hook. XDP leaves alone what the stack forwards.
#[inline(always)]
fn applies<P: Packet>(flags: u8) -> bool {
    match P::HOOK {
        Hook::Xdp => flags & flow_flags::SNAT != 0,
        Hook::Ingress => flags & flow_flags::EGRESS == 0,
        Hook::Egress => flags & flow_flags::EGRESS != 0,
    }
}

/// Whether this hook can send the packet with what the flow knows.
#[inline(always)]
fn is_sendable<P: Packet, F: Family>(flow: &Flow<F::Addr>, parsed: &Parsed<F::Addr>, own: u32) -> bool {
    let resolved = flow.flags & flow_flags::HOP_RESOLVED != 0;
    match P::HOOK {
        Hook::Xdp => {
            resolved
                && (flow.ifindex == own || flow.flags & flow_flags::HOP_XDP != 0)
                && parsed.len_bytes <= u32::from(flow.mtu)
                && parsed.ttl > 1
        }
        Hook::Ingress => flow.flags & flow_flags::SNAT == 0 || (resolved && parsed.ttl > 1),
        Hook::Egress => true,
    }
}

/// Translates the packet and says where it goes.
#[inline(always)]
fn send<P: Packet, F: Family>(pkt: &mut P, parsed: &Parsed<F::Addr>, flow: &Flow<F::Addr>) -> Packed {
    if let Err(reason) = rewrite::<F>(pkt, parsed, flow) {
        return Packed::drop(reason);
    }
    if flow.flags & flow_flags::SNAT == 0 {
        Packed::DELIVER
    } else if flow.flags & flow_flags::HOP_RESOLVED != 0 {
        Packed::to_device(Packed::SEND, flow.ifindex)
    } else {
        Packed::to_device(Packed::RESOLVE, flow.ifindex)
    }
}

/// What to do with a packet whose flow needed attention.
enum Attended {
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
/// Not inlined, like [`decide::decide`]: both have frames of their own on the 512 bytes of stack, and the replay path
/// stays short.
#[inline(never)]
fn attend<F: Family, P: Packet, E: Env<F>>(
    pkt: &P,
    env: &mut E,
    scratch: &mut Scratch<F::Addr>,
    table: Table,
) -> Attended {
    let Scratch { parsed, config, now, flow, partner, partner_key, .. } = scratch;
    let key = &parsed.tuple;
    match env.lookup_flow(table, key) {
        Some(stored) => *flow = *stored,
        None => return Attended::Decide,
    }
    let reverse = flow.flags & flow_flags::REVERSE != 0;
    *partner_key = flow::partner_key(flow, key.proto);

    if !reverse {
        let finished = parsed.is_syn() && flow::is_finished(flow.state);
        // TCP to a backend that went away runs until it ends; anything else, and a new connection, moves (B26, B61).
        let movable = key.proto != proto::TCP || parsed.is_syn();
        let stale = flow.epoch != config.epoch;
        if finished || (stale && movable && !is_served::<F, E>(env, key, flow)) {
            env.remove_flow(table, key);
            env.remove_flow(table, partner_key);
            return Attended::Decide;
        }
    }

    if flow.flags & flow_flags::SNAT != 0 {
        let route = env.route(&flow.src, &flow.dst, key.proto, pkt.ifindex());
        let Route::Via(hop) = route else {
            if matches!(P::HOOK, Hook::Xdp) {
                return Attended::Pass;
            }
            return Attended::Drop(Reason::NoNextHop);
        };
        flow::set_next_hop(flow, route, env.lookup_device(hop.ifindex), pkt.ifindex());
        if hop.is_resolved() {
            flow.epoch = config.epoch;
        }
        if matches!(P::HOOK, Hook::Xdp) && !is_sendable::<P, F>(flow, parsed, pkt.ifindex()) {
            // tc has other means, and does the rest of this.
            return Attended::Pass;
        }
    } else {
        flow.epoch = config.epoch;
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
    let half_open = matches!(table, Table::Embryo);
    if half_open && reverse {
        peer_seen |= flow_state::REPLIED;
    }

    // Only the client's own second packet makes a connection established: what it sends can be forged, but not
    // together with an answer that it has to have seen (B23).
    if half_open && !reverse && flow.state & flow_state::REPLIED != 0 && !parsed.is_syn() {
        flow.state |= flow_state::ESTABLISHED;
        if promote::<F, E>(env, key, flow, partner_key, partner, peer_seen) {
            return Attended::Replay;
        }
        flow.state &= !flow_state::ESTABLISHED;
        env.count(Reason::PromotionRefused);
    }

    match env.lookup_flow(table, partner_key) {
        Some(stored) => {
            stored.seen_s = *now;
            stored.state |= peer_seen;
            if revived {
                stored.state &= !flow_state::RST;
            }
        }
        None => {
            flow::init_partner::<F>(partner, partner_key, key, flow);
            if env.insert_flow(table, partner_key, partner).is_ok() {
                env.count(Reason::PartnerRestored);
            }
        }
    }
    if let Some(stored) = env.lookup_flow(table, key) {
        *stored = *flow;
    }
    Attended::Replay
}

/// Whether the flow's backend still serves what the client dialled.
#[inline(always)]
fn is_served<F: Family, E: Env<F>>(env: &mut E, key: &Tuple<F::Addr>, flow: &Flow<F::Addr>) -> bool {
    let key = FrontendKey { addr: key.dst, port: key.dport, proto: key.proto, pad: 0 };
    let Some(service) = env.lookup_frontend(&key).map(|frontend| frontend.service) else {
        return false;
    };
    env.lookup_backend(flow.backend).is_some_and(|backend| {
        service == flow.service
            && backend.service == flow.service
            && backend.addr == flow.dst
            && backend.port == flow.dport
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
