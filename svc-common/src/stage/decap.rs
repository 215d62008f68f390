//! Packets inside of others: what another node sends for a backend here (direct server return).
//!
//! Anybody can send such packets. Only those are unpacked that the client could have sent to this node as they are: to a
//! frontend of ours with direct server return whose backend here is the outer destination, or of a connection that is
//! recorded. A nodePort of another node is one of ours if the packet comes from the address that the client dialled. All others
//! pass untouched.

use super::sctp;
use crate::{
    decide::{self, UNPACKED},
    env::{Env, Table},
    family::Family,
    maps::{Frontend, FrontendKey, Tuple, backend_flags, flow_flags, frontend_flags},
    outcome::Packed,
    packet::{Hook, Packet},
    parse::{self, Parsed},
    reason::Reason,
    tunnel,
    wire::ETH_LEN,
};

/// Slots that are looked at for a backend with the outer destination's address, if the selection names another one: the
/// tables of two nodes differ for the moment that a change takes.
const PROBES: u32 = 32;
/// 2^32 divided by the golden ratio: its multiples lie evenly.
const STRIDE: u32 = 0x9e37_79b9;

/// Runs the stage.
#[inline(always)]
pub fn run<F: Family, P: Packet, E: Env<F>>(pkt: &mut P, env: &mut E) -> Packed {
    if !matches!(P::HOOK, Hook::Ingress) {
        return Packed::PASS;
    }
    let mut outer = Parsed::default();
    let read = parse::parse::<F>(pkt, &mut outer);
    let mut tuple = Tuple::default();
    let Some(start) = tunnel::inside::<F, P>(pkt, &outer, read) else {
        return if read.is_ok() { Packed::pass::<P>(Reason::ForeignTunnel) } else { Packed::PASS };
    };
    let owner = match F::inner_tuple(pkt, start, &mut tuple) {
        Ok(()) => owner::<F, E>(env, &tuple, &outer.tuple),
        Err(_) => FOREIGN,
    };
    if owner == FOREIGN {
        return Packed::pass::<P>(Reason::ForeignTunnel);
    }
    let Some(mut located) = env.located() else {
        return Packed::PASS;
    };
    if pkt.close_tunnel((start & 0x7f) - ETH_LEN).is_err() {
        return Packed::drop(Reason::NoRoomForTunnel);
    }
    let packed = sctp::process::<F, P, E>(pkt, env, &mut located, owner);
    // From here on it is not as it came.
    match packed {
        Ok(packed) if !packed.is_pass() => packed,
        // The stack answers what has come too far.
        Ok(packed) if packed.reason().is_some() => packed.delivered(),
        // The stack would send it back to where the tunnel begins.
        Ok(_) => Packed::drop(Reason::BackendGone),
        Err(unparsed) => Packed::drop(unparsed.reason()),
    }
}

/// Not for us.
const FOREIGN: u32 = 0;

/// Whose a packet with this tuple is that was inside of one with the tuple `outer`: [`FOREIGN`], [`UNPACKED`] of a connection that
/// has its backend, or the id of the backend that a new one goes to.
///
/// Not inlined: it needs a part of the stack of its own.
#[cfg_attr(feature = "flat", inline(always))]
#[cfg_attr(not(feature = "flat"), inline(never))]
fn owner<F: Family, E: Env<F>>(env: &mut E, tuple: &Tuple<F::Addr>, outer: &Tuple<F::Addr>) -> u32 {
    let backend = &outer.dst;
    for table in [Table::Established, Table::Embryo] {
        if let Some(flow) = env.lookup_flow(table, tuple)
            && flow.flags & (flow_flags::REVERSE | flow_flags::ENCAP) == 0
            && flow.dst == *backend
        {
            return UNPACKED;
        }
    }
    let mut frontend = env.lookup_frontend(&FrontendKey::dialled(tuple)).copied();
    if frontend.is_none() && outer.src == tuple.dst {
        // A nodePort of the node that sent it.
        frontend = env.lookup_frontend(&FrontendKey::of_any_node(tuple.dport, tuple.proto)).copied();
    }
    let Some(Frontend { service, external: selection, flags, .. }) = frontend else {
        return FOREIGN;
    };
    if flags & frontend_flags::DSR == 0 {
        return FOREIGN;
    }
    let selection = env.selection(selection);
    if selection.is_empty() {
        return FOREIGN;
    }
    let mut hash = decide::hash::<F>(tuple);
    for _ in 0..PROBES {
        let id = env.slot(selection.slot_of(hash));
        let here = env.lookup_backend(id).is_some_and(|found| {
            found.addr == *backend && found.service == service && found.flags & backend_flags::LOCAL != 0
        });
        if here {
            return id;
        }
        // Far from the one before, and, unlike the next slot with its end of the table, the same for the verifier each time.
        hash = hash.wrapping_add(STRIDE);
    }
    FOREIGN
}
