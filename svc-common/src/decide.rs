//! The first packet of a connection: frontend, selection, backend, source NAT, record.

use crate::{
    csum,
    env::{Env, InsertError, NextHop, Route, Table},
    family::{Family, mix_word},
    flow,
    maps::{Backend, Clock, Config, Flow, Frontend, FrontendKey, Scratch, Selection, Tuple, device_class, flow_flags},
    packet::{Hook, Packet},
    parse::Parsed,
    reason::Reason,
    snat,
};

/// A packet on its way through the slow path.
pub struct At<A> {
    /// What its headers say.
    pub parsed: Parsed<A>,
    /// The time.
    pub now: Clock,
    /// The agent's settings.
    pub config: Config,
}

/// What becomes of a packet without a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is not for us, or the next hook's.
    Pass,
    /// The connection is recorded.
    Recorded,
    /// It is for us, but there is nowhere to send it.
    Drop(Reason),
}

/// The flow hash: equal for equal tuples on every machine.
#[inline(always)]
pub fn hash<F: Family>(tuple: &Tuple<F::Addr>) -> u32 {
    let ports =
        (u64::from(tuple.sport.to_host()) << 32) | (u64::from(tuple.dport.to_host()) << 16) | u64::from(tuple.proto);
    let hash = F::mix(&tuple.dst, F::mix(&tuple.src, 0));
    (mix_word(hash, ports) >> 32) as u32
}

/// Chooses the backend for a new flow: its id and itself.
///
/// `hash` is the flow hash. The same hash and table give the same backend on every node.
///
/// # Errors
/// [`Reason::NoEndpoint`] and [`Reason::NoLocalEndpoint`] if the selection is empty; [`Reason::BackendGone`] if the
/// slot names a backend that is not programmed.
#[inline(always)]
pub fn choose<F: Family, E: Env<F>>(
    env: &mut E,
    frontend: &Frontend,
    selection: u32,
    hash: u32,
) -> Result<(u32, Backend<F::Addr>), Reason> {
    let selection = env.selection(selection);
    if selection.is_empty() {
        return Err(if selection == Selection::DROP { Reason::NoLocalEndpoint } else { Reason::NoEndpoint });
    }
    let index = ((u64::from(hash) * u64::from(selection.len())) >> 32) as u32;
    let id = env.slot(selection.offset().wrapping_add(index));
    match env.lookup_backend(id) {
        Some(backend) if backend.service == frontend.service => Ok((id, backend)),
        _ => Err(Reason::BackendGone),
    }
}

/// How a packet reaches its backend.
enum Path<A> {
    /// The stack forwards or delivers it; the client's address stays.
    Stack,
    /// Our programs send it, with this source address.
    SourceNat(A, NextHop),
}

/// Decides whether the source has to be translated: for clients outside whose backend is not on this node, so that
/// the answer comes back here (B28), and for a pod that reaches itself (B32). If so, `scratch.flow` gets the next hop.
#[inline(always)]
fn path<F: Family, E: Env<F>>(
    env: &mut E,
    scratch: &mut Scratch<F::Addr>,
    tuple: &Tuple<F::Addr>,
    external: bool,
    own: u32,
) -> Result<Path<F::Addr>, Reason> {
    let hairpin = scratch.flow.dst == tuple.src;
    if !external && !hairpin {
        return Ok(Path::Stack);
    }
    let Route::Via(hop) = env.route(&tuple.src, &scratch.flow.dst, tuple.proto, own) else {
        return Ok(Path::Stack);
    };
    let Some(egress) = env.lookup_device(hop.ifindex) else {
        return Err(Reason::UnmanagedDevice);
    };
    if !hairpin {
        match egress.class {
            device_class::WORKLOAD => return Ok(Path::Stack),
            device_class::OTHER => return Err(Reason::UnmanagedDevice),
            _ => {}
        }
    }
    let source = E::device_address(&egress);
    if source == F::Addr::default() {
        return Err(Reason::NoSourceAddress);
    }
    flow::set_next_hop(&mut scratch.flow, Route::Via(hop), Some(&egress), own);
    Ok(Path::SourceNat(source, hop))
}

/// Decides and records. On [`Decision::Recorded`] the forward flow is in `scratch.flow`.
#[inline(never)]
pub fn decide<F: Family, P: Packet, E: Env<F>>(
    pkt: &P,
    env: &mut E,
    scratch: &mut Scratch<F::Addr>,
    at: &At<F::Addr>,
) -> Decision {
    if matches!(P::HOOK, Hook::Egress) {
        return Decision::Pass;
    }
    let At { parsed, now, config } = at;
    let key = &parsed.tuple;
    let own = pkt.ifindex();
    let Some(frontend) = env.lookup_frontend(&FrontendKey { addr: key.dst, port: key.dport, proto: key.proto, pad: 0 })
    else {
        return Decision::Pass;
    };
    let Some(class) = env.lookup_device(own).map(|device| device.class) else {
        return Decision::Pass;
    };
    let external = class != device_class::WORKLOAD;
    if external && F::is_loopback(&key.src) {
        return Decision::Drop(Reason::LoopbackFromWire);
    }
    let hash = hash::<F>(key);
    let selection = if external { frontend.external } else { frontend.internal };
    match choose::<F, E>(env, &frontend, selection, hash) {
        Ok((id, backend)) => {
            let flow = &mut scratch.flow;
            flow::init::<F>(flow, key, &backend_tuple(key, &backend), 0);
            flow.service = frontend.service;
            flow.backend = id;
            flow.seen_s = *now;
        }
        Err(reason) => return Decision::Drop(reason),
    }
    let has_port = match path::<F, E>(env, scratch, key, external, own) {
        Ok(Path::Stack) => {
            if matches!(P::HOOK, Hook::Xdp) {
                return Decision::Pass;
            }
            scratch.flow.epoch = config.epoch;
            take_or_take_over::<F, E>(env, scratch, key)
        }
        Ok(Path::SourceNat(source, hop)) => {
            let flow = &mut scratch.flow;
            let ready = hop.is_resolved() && flow.flags & flow_flags::HOP_XDP != 0;
            if matches!(P::HOOK, Hook::Xdp) && !ready {
                return Decision::Pass;
            }
            if hop.is_resolved() {
                flow.epoch = config.epoch;
            }
            flow.flags |= flow_flags::SNAT;
            let addresses = u32::from(flow.addr_delta) + F::inverted_sum(&key.src) + F::sum(&source);
            flow.addr_delta = csum::fold(addresses);
            flow.src = source;
            false
        }
        Err(reason) => return Decision::Drop(reason),
    };
    let recorded = if has_port { Ok(()) } else { snat::search::<F, E>(env, scratch, key, hash, config) };
    if let Err(reason) = recorded {
        return Decision::Drop(reason);
    }
    scratch.flow.packets = 1;
    scratch.flow.bytes = u64::from(parsed.len_bytes);
    match env.insert_flow(Table::Embryo, key, &scratch.flow) {
        Ok(()) => {
            env.count_new_flow(frontend.service);
            Decision::Recorded
        }
        Err(error) => lost_race::<F, E>(env, scratch, key, error),
    }
}

/// What the backend gets while the source stays.
#[inline(always)]
fn backend_tuple<A: Copy>(key: &Tuple<A>, backend: &Backend<A>) -> Tuple<A> {
    Tuple { src: key.src, dst: backend.addr, sport: key.sport, dport: backend.port, proto: key.proto, pad: [0; 3] }
}

/// Records the reverse flow with the client's own port; false if another connection has its key.
///
/// A taken key may be a remnant of the very same connection, which is used again, or belong to a finished connection
/// to another VIP, which gives way. Otherwise the client uses one port towards two VIPs that share a backend (B12):
/// then this connection needs another source port, and keeps its address.
#[inline(always)]
fn take_or_take_over<F: Family, E: Env<F>>(env: &mut E, scratch: &mut Scratch<F::Addr>, key: &Tuple<F::Addr>) -> bool {
    if snat::claim(env, scratch, key).is_ok() {
        return true;
    }
    let mut table = Table::Established;
    let mut gives_way = env.lookup_flow(table, &scratch.partner_key).map(|flow| gives_way(flow, key));
    if gives_way.is_none() {
        table = Table::Embryo;
        gives_way = env.lookup_flow(table, &scratch.partner_key).map(|flow| self::gives_way(flow, key));
    }
    if gives_way != Some(true) {
        return false;
    }
    env.remove_flow(table, &scratch.partner_key);
    snat::claim(env, scratch, key).is_ok()
}

/// Whether a reverse flow belongs to the same connection or is finished.
#[inline(always)]
fn gives_way<A: Copy + PartialEq>(reverse: &Flow<A>, key: &Tuple<A>) -> bool {
    let same = reverse.src == key.dst && reverse.sport == key.dport && reverse.flags & flow_flags::REVERSE != 0;
    same || flow::is_finished(reverse.state)
}

/// Another CPU recorded the same connection first (B24): its choice counts.
#[inline(always)]
fn lost_race<F: Family, E: Env<F>>(
    env: &mut E,
    scratch: &mut Scratch<F::Addr>,
    key: &Tuple<F::Addr>,
    error: InsertError,
) -> Decision {
    if error == InsertError::Exists
        && let Some(winner) = env.lookup_flow(Table::Embryo, key)
    {
        let same = flow::partner_key(winner, key.proto) == scratch.partner_key;
        scratch.flow = *winner;
        if !same {
            env.remove_flow(Table::Embryo, &scratch.partner_key);
        }
        return Decision::Recorded;
    }
    env.remove_flow(Table::Embryo, &scratch.partner_key);
    Decision::Drop(Reason::FlowTableFull)
}
