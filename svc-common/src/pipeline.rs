//! The four steps of a packet: parse, replay or decide, rewrite, verdict.

use crate::{
    attend::{Attended, attend, fits, is_sendable},
    decide::{Decision, decide},
    env::{Env, Table},
    family::Family,
    flow,
    maps::{Flow, flow_flags, flow_state},
    net::proto,
    outcome::Packed,
    packet::{Hook, Packet},
    parse::{self, Parsed},
    reason::{Note, Reason},
    replay::replay,
    rewrite::rewrite,
    stage::Stage,
    tunnel,
};

/// Runs a frame through the pipeline.
///
/// `PARTIAL` says that checksums may be partial and nobody tells (XDP on veth, B05).
#[inline(always)]
pub fn run<F: Family, P: Packet, E: Env<F>, const PARTIAL: bool>(pkt: &mut P, env: &mut E) -> Packed {
    if !PARTIAL && let Some(packed) = replay(pkt, env) {
        return packed;
    }
    attentive::<F, P, E, PARTIAL>(pkt, env)
}

/// [`run`] without the short way.
#[inline(always)]
pub(crate) fn attentive<F: Family, P: Packet, E: Env<F>, const PARTIAL: bool>(pkt: &mut P, env: &mut E) -> Packed {
    let mut parsed = Parsed::default();
    if let Err(unparsed) = parse::parse::<F>(pkt, &mut parsed) {
        return to_stage::<PARTIAL>(unparsed.stage());
    }
    process::<F, P, E, PARTIAL, false>(pkt, env, &parsed, 0)
}

/// The stages do not know partial checksums; where they may be, such packets are tc's.
#[inline(always)]
fn to_stage<const PARTIAL: bool>(stage: Stage) -> Packed {
    if PARTIAL { Packed::PASS } else { Packed::to_stage(stage) }
}

/// Replays or decides a packet whose headers are read; with `RARE` for whatever [`rewrite`] has to know more about. If the packet
/// opens a connection, its backend is `chosen`, unless that is zero; [`crate::decide::UNPACKED`] leaves the choice open, too, but
/// lets it be sent to no other node as it is.
#[inline(always)]
pub fn process<F: Family, P: Packet, E: Env<F>, const PARTIAL: bool, const RARE: bool>(
    pkt: &mut P,
    env: &mut E,
    parsed: &Parsed<F::Addr>,
    chosen: u32,
) -> Packed {
    if PARTIAL && parse::is_partial::<F>(parsed) {
        env.note(Note::PARTIAL_CHECKSUM);
        return Packed::PASS;
    }
    let now = env.now();
    let epoch = env.config().epoch;
    let own = pkt.ifindex();

    let mut found = None;
    if let Some(flow) = env.lookup_flow(Table::Established, &parsed.tuple) {
        if !flow::applies::<P>(flow.flags) {
            return Packed::PASS;
        }
        let ordinary = flow.epoch == epoch
            && flow.seen_s == now
            && parsed.tcp_flags & flow::STATEFUL == 0
            && flow.state & flow_state::RST == 0;
        if ordinary && is_sendable::<P, F>(pkt, flow, parsed, own) {
            // Two CPUs may lose a count here; it is not worth an atomic operation per packet.
            flow.packets = flow.packets.wrapping_add(1);
            flow.bytes = flow.bytes.wrapping_add(u64::from(parsed.len_bytes));
            let (service, reverse) = (flow.service, flow.flags & flow_flags::REVERSE != 0);
            let sent = send::<P, F, RARE>(pkt, parsed, flow);
            // One word before anything else is called: the half of a result that is not there is undefined.
            let sent = sent.unwrap_or_else(Packed::drop);
            env.count_service(service, reverse, parsed.len_bytes);
            return sent;
        }
        found = Some(Table::Established);
    } else if let Some(flow) = env.lookup_flow(Table::Embryo, &parsed.tuple) {
        if !flow::applies::<P>(flow.flags) {
            return Packed::PASS;
        }
        found = Some(Table::Embryo);
    }
    let Some(mut scratch) = env.scratch() else {
        return Packed::PASS;
    };
    scratch.parsed = *parsed;
    scratch.now = now;
    scratch.config = env.config();
    scratch.chosen = chosen;
    let attended = match found {
        Some(table) => attend::<F, P, E>(pkt, env, &mut scratch, table),
        None => Attended::Decide,
    };
    match attended {
        Attended::Replay => {}
        Attended::Pass => return Packed::PASS,
        Attended::Drop(reason) => return Packed::drop(reason),
        Attended::Decide => match decide::<F, P, E>(pkt, env, &mut scratch) {
            Decision::Recorded => {}
            Decision::Pass => return Packed::PASS,
            Decision::Unpack => return to_stage::<PARTIAL>(Stage::Decap),
            Decision::Reject => return to_stage::<PARTIAL>(Stage::Reject),
            Decision::Drop(reason) => return Packed::drop(reason),
        },
    }
    let (parsed, flow) = (&scratch.parsed, &scratch.flow);
    if flow.flags & flow_flags::FORWARD != 0 && parsed.ttl <= 1 {
        return Packed::pass::<P>(Reason::TtlExceeded);
    }
    if RARE && flow.flags & flow_flags::ENCAP != 0 && parsed.tuple.proto != proto::SCTP {
        return Packed::drop(Reason::NotTunnelled);
    }
    if flow.flags & flow_flags::FORWARD != 0 && !fits(pkt, flow, parsed) {
        return to_stage::<PARTIAL>(Stage::TooBig);
    }
    if flow.flags & flow_flags::ENCAP != 0 {
        if PARTIAL {
            return Packed::PASS;
        }
        env.count_service(flow.service, false, parsed.len_bytes);
        let sent = tunnel::encapsulate::<F, P>(pkt, parsed, flow, scratch.config.encapsulation);
        return sent.unwrap_or_else(Packed::drop);
    }
    let sent = send::<P, F, RARE>(pkt, parsed, flow).unwrap_or_else(Packed::drop);
    env.count_service(flow.service, flow.flags & flow_flags::REVERSE != 0, parsed.len_bytes);
    sent
}

/// Translates the packet and says where it goes.
///
/// # Errors
/// Those of [`rewrite`]: the packet may be half translated and has to end here.
#[inline(always)]
fn send<P: Packet, F: Family, const RARE: bool>(
    pkt: &mut P,
    parsed: &Parsed<F::Addr>,
    flow: &Flow<F::Addr>,
) -> Result<Packed, Reason> {
    rewrite::<F, RARE>(pkt, parsed, flow)?;
    Ok(if flow.flags & flow_flags::FORWARD == 0 {
        Packed::DELIVER
    } else if flow.flags & flow_flags::HOP_PEER != 0 && !matches!(P::HOOK, Hook::Xdp) {
        Packed::to_device(Packed::PEER, flow.ifindex)
    } else if flow.is_resolved() {
        Packed::to_device(Packed::SEND, flow.ifindex)
    } else {
        Packed::to_device(Packed::RESOLVE, flow.ifindex)
    })
}
