//! The first packet of a connection: frontend, selection, backend, source NAT, record.

use crate::{
    affinity::{self, Sticky},
    attend::is_sendable,
    env::{Env, InsertError, Route, Table},
    family::{Family, finish, mix_word},
    flow,
    maps::{
        Flow, FrontendKey, Scratch, Selection, Tuple, backend_flags, device_class, device_flags, event_kind,
        flow_flags, flow_state, frontend_flags,
    },
    net::{Be16, proto},
    packet::{Hook, Packet},
    reason::{Note, Reason},
    snat,
    wire::GENEVE_PORT,
};

/// What becomes of a packet without a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is not for us, or the next hook's.
    Pass,
    /// The connection is recorded, or need not be.
    Recorded,
    /// It carries another packet, which may be for a backend here.
    Unpack,
    /// It is for us, but nobody serves it: the client is told (B64, B66).
    Reject,
    /// It is for us, but there is nowhere to send it.
    Drop(Reason),
}

/// The flow hash: equal for equal tuples on every machine.
#[inline(always)]
pub fn hash<F: Family>(tuple: &Tuple<F::Addr>) -> u32 {
    let ports =
        (u64::from(tuple.sport.to_host()) << 32) | (u64::from(tuple.dport.to_host()) << 16) | u64::from(tuple.proto);
    let hash = F::mix(&tuple.dst, F::mix(&tuple.src, 0));
    (finish(mix_word(hash, ports)) >> 32) as u32
}

/// Stands for the backend of a packet that was inside of another one and whose connection is recorded: if it is not any more,
/// any backend may have it, but it is not put into a packet again. No backend has this id.
pub const UNPACKED: u32 = u32::MAX;

/// Chooses the backend for a new flow: its id.
///
/// `hash` is the flow hash. The same hash and table give the same backend on every node.
///
/// # Errors
/// [`Reason::NoEndpoint`] and [`Reason::NoLocalEndpoint`] if the selection is empty.
#[inline(always)]
pub fn choose<F: Family, E: Env<F>>(env: &mut E, selection: u32, hash: u32) -> Result<u32, Reason> {
    let selection = env.selection(selection);
    if selection.is_empty() {
        return Err(if selection == Selection::DROP { Reason::NoLocalEndpoint } else { Reason::NoEndpoint });
    }
    Ok(env.slot(selection.slot_of(hash)))
}

/// How a packet reaches its backend.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Path {
    /// The stack forwards or delivers it; the client's address stays.
    Stack,
    /// Our programs send it; the client's address stays.
    Forward,
    /// Our programs send it; it gets an address of this node.
    SourceNat,
    /// Our programs send it as it is, inside of a packet of this node's to the backend, whose node answers itself.
    Tunnel,
}

/// Where a new connection comes from and where it goes, as far as the path depends on it.
struct Ends {
    /// The device that it comes in through.
    own: u32,
    /// Whether that is no pod's.
    external: bool,
    /// Whether our programs may forward both of its directions.
    fast: bool,
    /// Whether the backend's node may answer itself.
    dsr: bool,
    /// Whether the client has dialled a node.
    node_port: bool,
    /// What carries the packets of such a connection.
    encapsulation: u32,
}

/// Decides how the connection is forwarded.
///
/// The source has to be translated for clients outside whose backend is not on this node, so that the answer comes back
/// here (B28), and for a pod that reaches itself (B32). If so, the flow gets the address that the node itself would use
/// there. With direct server return the packets of clients outside go to the backend's node inside of others, which have
/// that address. Every other connection is forwarded past the stack where that is known to work for both directions: what comes
/// in through a device with [`device_flags::FAST`] is answered through one. Where our programs forward, the flow gets the
/// next hop.
#[inline(always)]
fn path<F: Family, E: Env<F>>(
    env: &mut E,
    flow: &mut Flow<F::Addr>,
    key: &Tuple<F::Addr>,
    Ends { own, external, fast, dsr, node_port, encapsulation }: Ends,
) -> Result<Path, Reason> {
    let hairpin = flow.dst == key.src;
    if !external && !hairpin && !fast {
        return Ok(Path::Stack);
    }
    let route = env.route(&key.src, &flow.dst, key.proto, own);
    let Route::Via(hop) = route else {
        return Ok(Path::Stack);
    };
    let egress = env.lookup_device(hop.ifindex);
    let (class, flags) = egress.map_or((device_class::OTHER, 0), |egress| (egress.class, egress.flags));
    if !hairpin && (!external || class == device_class::WORKLOAD) {
        if !fast || flags & device_flags::FAST == 0 {
            return Ok(Path::Stack);
        }
        flow.flags |= flow_flags::FORWARD;
        flow::set_next_hop::<F>(flow, route, egress, own, encapsulation);
        return Ok(Path::Forward);
    }
    if class == device_class::OTHER && (!hairpin || egress.is_none()) {
        return Err(Reason::UnmanagedDevice);
    }
    let tunnel = dsr && !hairpin;
    flow.flags |= flow_flags::FORWARD | if tunnel { flow_flags::ENCAP } else { 0 };
    flow::set_next_hop::<F>(flow, route, egress, own, encapsulation);
    // The device may have several addresses, of which the next hop can answer some, or none of its own.
    let mut source = env.source();
    if tunnel && node_port {
        // Which node was dialled, for the backend's node: the address means nothing there.
        source = key.dst;
    }
    if source == F::Addr::default()
        && let Some(egress) = env.lookup_device(hop.ifindex)
    {
        source = E::device_address(egress);
    }
    if source == F::Addr::default() {
        return Err(Reason::NoSourceAddress);
    }
    flow::set_source_address::<F>(flow, key, source);
    if tunnel {
        // What leads to no partner, as no packet has port zero.
        flow.sport = Be16::default();
        // Its answers are not seen here, but it may last as long as any.
        flow.state = flow_state::REPLIED | flow_state::ESTABLISHED;
        return Ok(Path::Tunnel);
    }
    Ok(Path::SourceNat)
}

/// Stands for the flags of an address that has no row; no row has all of them.
const NOT_OURS: u32 = u32::MAX;

/// Decides and records. On [`Decision::Recorded`] the forward flow is in `scratch.flow`.
#[cfg_attr(feature = "flat", inline(always))]
#[cfg_attr(not(feature = "flat"), inline(never))]
pub fn decide<F: Family, P: Packet, E: Env<F>>(pkt: &mut P, env: &mut E, scratch: &mut Scratch<F::Addr>) -> Decision {
    if matches!(P::HOOK, Hook::Egress) {
        return stray::<F, E>(env, &scratch.parsed.tuple.dst);
    }
    let Scratch { parsed, config, now, chosen, flow, .. } = scratch;
    let key = &parsed.tuple;
    let own = pkt.ifindex();
    let forced = *chosen;
    // The address first: what is not ours costs one look-up.
    let address = env.lookup_frontend(&FrontendKey::of_address(key.dst)).map_or(NOT_OURS, |row| row.flags);
    let mut frontend = None;
    if address != NOT_OURS {
        frontend = env.lookup_frontend(&FrontendKey::dialled(key)).copied();
    }
    if forced != 0 && frontend.is_none() {
        frontend = env.lookup_frontend(&FrontendKey::of_any_node(key.dport, key.proto)).copied();
    }
    let frontend = match frontend {
        Some(frontend) => frontend,
        None if address != NOT_OURS && address & frontend_flags::VIP != 0 => {
            return Decision::Reject;
        }
        None => {
            if address == NOT_OURS && is_service_address::<F, E>(env, &key.dst) {
                return Decision::Drop(Reason::UnassignedAddress);
            }
            if matches!(P::HOOK, Hook::Ingress) {
                if key.proto == proto::UDP && key.dport == GENEVE_PORT && forced == 0 {
                    return Decision::Unpack;
                }
                if parsed.is_syn() {
                    make_way::<F, E>(env, scratch);
                }
            }
            return Decision::Pass;
        }
    };
    let service = frontend.service;
    let Some((class, own_flags)) = env.lookup_device(own).map(|device| (device.class, device.flags)) else {
        return Decision::Pass;
    };
    let external = class != device_class::WORKLOAD;
    // Neither from outside nor from a pod: past the stack nobody else would refuse it.
    if F::is_loopback(&key.src) {
        return Decision::Drop(Reason::LoopbackFromWire);
    }
    let hash = hash::<F>(key);
    if frontend.flags & frontend_flags::SOURCE_RANGES != 0 && !env.in_ranges(service, &key.src) {
        return Decision::Drop(Reason::SourceRange);
    }
    let selection = if external { frontend.external } else { frontend.internal };
    let free = forced == 0 || forced == UNPACKED;
    let id = match if free { choose::<F, E>(env, selection, hash) } else { Ok(forced) } {
        Ok(fresh) if free && frontend.flags & frontend_flags::AFFINITY != 0 => {
            affinity::choose::<F, E>(env, &key.src, &Sticky::new(&frontend, external), fresh, *now)
        }
        Ok(id) => id,
        Err(Reason::NoEndpoint) => return Decision::Reject,
        Err(reason) => return Decision::Drop(reason),
    };
    let backend_state = match env.lookup_backend(id) {
        Some(backend) if backend.service == service => {
            flow::init::<F>(flow, key, (&key.src, key.sport), (&backend.addr, backend.port), 0);
            backend.flags
        }
        _ => return Decision::Drop(Reason::BackendGone),
    };
    flow.service = service;
    flow.backend = id;
    flow.seen_s = *now;
    flow.packets = 1;
    flow.bytes = u64::from(parsed.len_bytes);
    flow.epoch = config.epoch;
    let fast = backend_state & backend_flags::IN_CLUSTER != 0 && own_flags & device_flags::FAST != 0;
    let dsr = frontend.flags & frontend_flags::DSR != 0 && forced == 0 && backend_state & backend_flags::LOCAL == 0;
    let node_port = frontend.flags & frontend_flags::KIND == frontend_flags::NODE_PORT;
    let ends = Ends { own, external, fast, dsr, node_port, encapsulation: config.encapsulation };
    let path = match path::<F, E>(env, flow, key, ends) {
        Ok(path) => path,
        Err(reason) => return Decision::Drop(reason),
    };
    if path != Path::Stack && !flow.is_resolved() {
        // The next packet asks again.
        flow.epoch = 0;
    }
    if matches!(P::HOOK, Hook::Xdp) && (path == Path::Stack || !is_sendable::<P, F>(pkt, flow, parsed, own)) {
        // What XDP cannot send is decided at tc.
        return Decision::Pass;
    }
    let (now, limit) = (*now, config.max_new_flows);
    if !env.new_flows().is_none_or(|flows| flows.may_begin(now, limit)) {
        if path != Path::Tunnel {
            return Decision::Drop(Reason::NewFlowLimit);
        }
        // Its answers go another way, so the hash is enough: the next packet finds the same backend.
        env.note(Note::FLOW_NOT_RECORDED);
        return Decision::Recorded;
    }
    if path == Path::Tunnel {
        // For whoever loses a race.
        scratch.partner_key = flow::partner_key(&scratch.flow, scratch.parsed.tuple.proto);
    }
    let has_port = path == Path::Tunnel || (path != Path::SourceNat && keep_port::<F, E>(env, scratch));
    if !has_port && let Err(reason) = snat::search::<F, E>(env, scratch, hash) {
        return Decision::Drop(reason);
    }
    match env.insert_flow(Table::Embryo, &scratch.parsed.tuple, &scratch.flow) {
        Ok(()) => {
            env.count_new_flow(service);
            env.tell_flow(event_kind::BEGIN, &scratch.parsed.tuple, &scratch.flow);
            Decision::Recorded
        }
        Err(error) => lost_race::<F, E>(env, scratch, error),
    }
}

/// Whether addresses of services are taken from where this one is.
#[inline(always)]
pub fn is_service_address<F: Family, E: Env<F>>(env: &mut E, addr: &F::Addr) -> bool {
    env.service_cidrs().is_some_and(|cidrs| cidrs.0.iter().any(|cidr| F::contains(cidr, addr)))
}

/// What leaves the node for an address of services that no service has: it would be routed in circles (B66).
#[inline(always)]
pub fn stray<F: Family, E: Env<F>>(env: &mut E, dst: &F::Addr) -> Decision {
    if is_service_address::<F, E>(env, dst) && env.lookup_frontend(&FrontendKey::of_address(*dst)).is_none() {
        return Decision::Drop(Reason::UnassignedAddress);
    }
    Decision::Pass
}

/// A client dials a backend itself: its answers must not be taken for those of an earlier connection to a VIP from the
/// same port, so if there is one that is finished, it goes (B13).
#[cfg_attr(feature = "flat", inline(always))]
#[cfg_attr(not(feature = "flat"), inline(never))]
fn make_way<F: Family, E: Env<F>>(env: &mut E, scratch: &mut Scratch<F::Addr>) {
    let Scratch { parsed, partner_key, .. } = scratch;
    let answer = parsed.tuple.reverse();
    for table in [Table::Established, Table::Embryo] {
        let Some(reverse) = env.lookup_flow(table, &answer) else { continue };
        // Behind a translated source is another client.
        let own = reverse.flags & flow_flags::REVERSE != 0 && reverse.dst == answer.dst;
        if !own || !flow::is_finished(reverse.state) {
            return;
        }
        *partner_key = flow::partner_key(reverse, answer.proto);
        env.remove_flow(table, partner_key);
        env.remove_flow(table, &answer);
    }
}

/// Records the reverse flow with the client's own port; false if another connection has its key: then the client uses
/// one port towards two VIPs that share a backend (B12), and this connection needs another source port.
#[inline(always)]
fn keep_port<F: Family, E: Env<F>>(env: &mut E, scratch: &mut Scratch<F::Addr>) -> bool {
    snat::claim(env, scratch).is_ok() || (snat::make_way(env, scratch, true) && snat::claim(env, scratch).is_ok())
}

/// Another CPU recorded the same connection first (B24): its choice counts.
#[inline(always)]
fn lost_race<F: Family, E: Env<F>>(env: &mut E, scratch: &mut Scratch<F::Addr>, error: InsertError) -> Decision {
    let Scratch { parsed, flow, partner_key, .. } = scratch;
    let key = &parsed.tuple;
    if error == InsertError::Exists
        && let Some(winner) = env.lookup_flow(Table::Embryo, key)
    {
        let same = winner.src == flow.src
            && winner.dst == flow.dst
            && winner.sport == flow.sport
            && winner.dport == flow.dport;
        *flow = *winner;
        if !same {
            env.remove_flow(Table::Embryo, partner_key);
        }
        return Decision::Recorded;
    }
    env.remove_flow(Table::Embryo, partner_key);
    Decision::Drop(Reason::FlowTableFull)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::family::{V4, V6};

    const CONNECTIONS: u16 = 600;

    /// How far the parts of one client's connections, which take every `step`th port, are from even: chi squared.
    fn unevenness<F: Family>(src: F::Addr, dst: F::Addr, first: u16, step: u16, parts: u64) -> f64 {
        let mut counts = vec![0u32; parts as usize];
        for n in 0..CONNECTIONS {
            let sport = Be16::from_host(first.wrapping_add(n * step));
            let tuple = Tuple { src, dst, sport, dport: Be16::from_host(80), proto: 6, pad: [0; 3] };
            counts[((u64::from(hash::<F>(&tuple)) * parts) >> 32) as usize] += 1;
        }
        let even = f64::from(CONNECTIONS) / parts as f64;
        counts.iter().map(|&count| (f64::from(count) - even).powi(2) / even).sum()
    }

    proptest! {
        /// Linux gives a client's connections every second port, one after the other.
        #[test]
        fn b15_connections_from_ports_in_a_row_spread_evenly(
            v4: ([u8; 4], [u8; 4]), v6: ([u8; 16], [u8; 16]), first: u16, step in 1u16..=4, parts in 2u64..=16,
        ) {
            // Exceeded by chance less than once in a hundred million draws for 15 degrees of freedom.
            let limit = 75.0;
            prop_assert!(unevenness::<V4>(v4.0, v4.1, first, step, parts) < limit);
            prop_assert!(unevenness::<V6>(v6.0, v6.1, first, step, parts) < limit);
        }
    }
}
