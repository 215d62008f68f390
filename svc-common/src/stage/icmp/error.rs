//! Errors about packets that we translated: they are translated back, outside and in the packet that they quote.
//!
//! A router or host quotes a packet as it saw it, after our translation, and sends the error to that packet's source. So
//! an error is, like an answer, a packet of the flow whose key is the quoted tuple with source and destination swapped:
//! its destination becomes the flow's, its source, too, if it is the host that the quoted packet went to, and the quoted
//! packet becomes what that flow's partner translated. It holds for errors about requests (the flow is the reverse one)
//! and about answers (the forward one) alike, with and without source NAT.
//!
//! Flows are neither removed nor refreshed by errors, which anybody can forge (B42).

use super::{message_at, tunnel};
use crate::{
    csum,
    decide::{choose, hash},
    env::{Env, NextHop, Route},
    family::Family,
    flow,
    icmp::Messages,
    maps::{FrontendKey, Scratch, device_class, device_flags, flow_flags, frontend_flags},
    net::proto,
    outcome::Packed,
    packet::{Hook, L4Patch, Packet},
    parse::Parsed,
    reason::Reason,
    wire::{IcmpHeader, MacPair, Ports, UdpHeader},
};

/// Offset of the checksum in a message in bytes.
const CHECKSUM: usize = 2;

/// Translates an error if it is about a packet of ours.
#[inline(always)]
pub fn run<F: Family, P: Packet, E: Env<F>>(pkt: &mut P, env: &mut E, parsed: &Parsed<F::Addr>) -> Packed {
    let Some(mut scratch) = env.scratch() else {
        return Packed::PASS;
    };
    let quote = message_at(parsed) + size_of::<IcmpHeader>();
    let len = parsed.l4_len - size_of::<IcmpHeader>() as u32;
    let Scratch { parsed: room, partner_key: key, .. } = &mut *scratch;
    let ports = match F::Messages::read_quote(pkt, quote, len, key, room) {
        // An error goes to the source of the packet that it quotes.
        Some(ports) if key.dst == parsed.tuple.dst => ports,
        _ => return Packed::pass::<P>(Reason::IcmpQuote),
    };
    if tunnel::carries::<F>(key) {
        scratch.parsed = *parsed;
        return tunnel::run::<F, P, E>(pkt, env, &mut scratch, ports);
    }
    if let Some(found) = recall::<F, E>(env, &mut scratch) {
        if !applies::<P>(found) {
            return Packed::PASS;
        }
    } else {
        match expect::<F, P, E>(pkt, env, &mut scratch) {
            Expected::Flow => {}
            Expected::Pass => return Packed::PASS,
            Expected::Drop(reason) => return Packed::drop(reason),
        }
    }
    scratch.parsed = *parsed;
    let way = match way::<F, P, E>(pkt, env, &mut scratch) {
        Ok(way) => way,
        Err(packed) => return packed,
    };
    translate::<F, P>(pkt, &scratch, quote, ports, way).unwrap_or_else(Packed::drop)
}

/// Puts the flow into `scratch.flow`; returns its flags.
#[inline(always)]
fn recall<F: Family, E: Env<F>>(env: &mut E, scratch: &mut Scratch<F::Addr>) -> Option<u8> {
    let Scratch { flow, partner_key: key, .. } = scratch;
    if !env.recall_flow(key, flow) {
        return None;
    }
    if flow.flags & flow_flags::ENCAP != 0 {
        // The backend knows the client by its own address (direct server return). What is about an answer of it needs no
        // tunnel: nobody answers an error.
        let (addr, port) = (flow.dst, flow.dport);
        flow::init::<F>(flow, key, (&key.src, key.sport), (&addr, port), flow_flags::FORWARD);
    }
    Some(flow.flags)
}

/// What an error without a flow is.
enum Expected {
    /// About an answer of a backend, whose flow would be `scratch.flow`.
    Flow,
    /// Not ours, or the next hook's.
    Pass,
    /// Towards a service address, but about nothing that we know.
    Drop(Reason),
}

/// Finds the backend that the quoted answer must have come from: the error may come in at another node than the
/// connection's packets, but the same tuple hashes to the same backend there (B38).
#[inline(always)]
fn expect<F: Family, P: Packet, E: Env<F>>(pkt: &P, env: &mut E, scratch: &mut Scratch<F::Addr>) -> Expected {
    if !matches!(P::HOOK, Hook::Ingress) {
        return Expected::Pass;
    }
    let Scratch { flow, partner_key: key, .. } = scratch;
    let Some(frontend) = env.lookup_frontend(&FrontendKey::dialled(key)) else {
        let row = env.lookup_frontend(&FrontendKey::of_address(key.dst));
        // Nobody has the address: the stack would send the error away again.
        let ours = row.is_some_and(|row| row.flags & frontend_flags::VIP != 0);
        return if ours { Expected::Drop(Reason::IcmpStray) } else { Expected::Pass };
    };
    let (service, external, internal) = (frontend.service, frontend.external, frontend.internal);
    if frontend.flags & frontend_flags::SOURCE_RANGES != 0 && !env.in_ranges(service, &key.src) {
        return Expected::Drop(Reason::SourceRange);
    }
    let Some(class) = env.lookup_device(pkt.ifindex()).map(|device| device.class) else {
        return Expected::Pass;
    };
    let selection = if class == device_class::WORKLOAD { internal } else { external };
    let id = match choose::<F, E>(env, selection, hash::<F>(key)) {
        Ok(id) => id,
        Err(reason) => return Expected::Drop(reason),
    };
    match env.lookup_backend(id) {
        Some(backend) if backend.service == service => {
            flow::init::<F>(flow, key, (&key.src, key.sport), (&backend.addr, backend.port), 0);
            Expected::Flow
        }
        _ => Expected::Drop(Reason::BackendGone),
    }
}

/// Whether an error about a flow with these flags is translated at this hook: where the flow's packets are; and where this
/// node's own stack sends errors about packets that it could not forward.
#[inline(always)]
fn applies<P: Packet>(flags: u8) -> bool {
    match P::HOOK {
        Hook::Xdp | Hook::Ingress => flow::applies::<P>(flags),
        Hook::Egress => flags & flow_flags::REVERSE != 0,
    }
}

/// Which way the translated error goes.
#[derive(Clone, Copy)]
enum Way {
    /// Through the stack.
    Stack,
    /// Sent by us.
    Device(NextHop),
}

/// Finds the way, or what becomes of the packet without one: the next hook or the stack has it. The flow's own next hop is not used: errors are
/// rare, and it may never have been looked up.
#[inline(always)]
fn way<F: Family, P: Packet, E: Env<F>>(pkt: &P, env: &mut E, scratch: &mut Scratch<F::Addr>) -> Result<Way, Packed> {
    let Scratch { parsed, flow, partner_key: key, .. } = scratch;
    if matches!(P::HOOK, Hook::Egress) || flow.flags & flow_flags::FORWARD == 0 {
        return Ok(Way::Stack);
    }
    if parsed.ttl <= 1 {
        return Err(Packed::pass::<P>(Reason::TtlExceeded));
    }
    let own = pkt.ifindex();
    let src = if parsed.tuple.src == key.src { &flow.src } else { &parsed.tuple.src };
    let xdp = matches!(P::HOOK, Hook::Xdp);
    match env.route(src, &flow.dst, F::ICMP, own) {
        Route::Via(hop) if xdp => {
            let sends = hop.ifindex == own
                || env.lookup_device(hop.ifindex).is_some_and(|device| device.flags & device_flags::XDP_TARGET != 0);
            let sendable = sends && hop.is_resolved() && parsed.len_bytes <= u32::from(hop.mtu);
            if sendable { Ok(Way::Device(hop)) } else { Err(Packed::PASS) }
        }
        Route::Via(hop) => Ok(Way::Device(hop)),
        Route::Stack if xdp => Err(Packed::PASS),
        Route::Stack => Ok(Way::Stack),
    }
}

/// Translates the error outside and inside. Of the quoted transport header the ports change, and UDP's checksum, which is
/// always there; TCP's is often cut off and nobody checks it (B40).
///
/// # Errors
/// [`Reason::Malformed`] if the frame ends before its headers, which reading has excluded: the packet may be half
/// translated and has to end here.
#[inline(always)]
fn translate<F: Family, P: Packet>(
    pkt: &mut P,
    scratch: &Scratch<F::Addr>,
    quote: usize,
    ports: usize,
    way: Way,
) -> Result<Packed, Reason> {
    let Scratch { parsed, flow, partner_key: key, .. } = scratch;
    let old = &parsed.tuple;
    let src = if old.src == key.src { &flow.src } else { &old.src };
    let addresses = F::inverted_sum(&old.src) + F::inverted_sum(&old.dst) + F::sum(src) + F::sum(&flow.dst);
    let addr_delta = csum::fold(addresses);

    F::Messages::rewrite_quote(pkt, quote, &flow.dst, &flow.src, flow.addr_delta)?;
    *pkt.header_mut(ports)? = Ports { sport: flow.dport, dport: flow.sport };
    let mut quoted_delta = u32::from(flow.port_delta);
    if key.proto == proto::UDP {
        let field = &mut pkt.header_mut::<UdpHeader>(ports)?.checksum;
        let before = *field;
        *field = csum::apply_l4(before, u32::from(flow.addr_delta) + u32::from(flow.port_delta), true);
        quoted_delta += csum::word_delta(before, *field);
    }
    let forward = matches!(way, Way::Device(_));
    F::rewrite(pkt, src, &flow.dst, addr_delta, forward)?;
    let (outer, quoted) = F::Messages::covered(addr_delta, flow.addr_delta);
    pkt.patch_l4(L4Patch {
        offset: message_at(parsed) + CHECKSUM,
        addr_delta: outer,
        port_delta: csum::fold(u32::from(quoted) + quoted_delta),
        udp: false,
    })?;
    Ok(match way {
        Way::Stack => Packed::DELIVER,
        Way::Device(hop) if hop.is_resolved() => {
            pkt.set_macs(MacPair { dst: hop.dst_mac, src: hop.src_mac })?;
            Packed::to_device(Packed::SEND, hop.ifindex)
        }
        Way::Device(hop) => Packed::to_device(Packed::RESOLVE, hop.ifindex),
    })
}
