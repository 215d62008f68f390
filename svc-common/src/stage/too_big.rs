//! Packets of ours that do not fit through the next hop's device (B41).
//!
//! Where the translated packet may go through the stack, it does: the stack cuts it into fragments, or answers, and what
//! it answers is translated like any other error. It does not forward packets with a source address of this node, though;
//! then the sender is told from here.

use super::{
    answer,
    rare::{self, Piece, fragment},
    sctp,
};
use crate::{
    env::{Env, Route},
    family::Family,
    icmp::Messages,
    maps::{Scratch, flow_flags},
    net::proto,
    outcome::Packed,
    packet::{Hook, Packet},
    reason::Reason,
    rewrite::rewrite,
};

/// Runs the stage.
#[inline(always)]
pub fn run<F: Family, P: Packet, E: Env<F>>(pkt: &mut P, env: &mut E) -> Packed {
    let Some(mut scratch) = env.scratch() else {
        return Packed::PASS;
    };
    handle::<F, P, E>(pkt, env, &mut scratch).unwrap_or_else(Packed::drop)
}

#[inline(always)]
fn handle<F: Family, P: Packet, E: Env<F>>(
    pkt: &mut P,
    env: &mut E,
    scratch: &mut Scratch<F::Addr>,
) -> Result<Packed, Reason> {
    let mut piece = Piece::default();
    // XDP leaves such packets to tc, and egress sends nothing.
    if !matches!(P::HOOK, Hook::Ingress) {
        return Err(Reason::Unanswered);
    }
    let read = rare::read::<F>(pkt, &mut scratch.parsed, &mut piece);
    if sctp::complete(pkt, &mut scratch.parsed, read).is_err()
        || !fragment::complete::<F, E>(env, &mut scratch.parsed, &piece)
    {
        return Err(Reason::Unanswered);
    }
    let Scratch { parsed, flow, now, .. } = scratch;
    if !env.recall_flow(&parsed.tuple, flow) {
        return Err(Reason::Unanswered);
    }
    let as_forwarded = flow.flags & flow_flags::REVERSE == 0 && flow.src == parsed.tuple.src;
    // What goes through a tunnel is translated nowhere; its flow has the tunnel's ends.
    let translated = flow.flags & flow_flags::ENCAP == 0;
    if translated && (as_forwarded || (F::Messages::may_be_cut(pkt) && is_foreign::<F, P, E>(pkt, env, &flow.src))) {
        flow.flags &= !(flow_flags::FORWARD | flow_flags::HOP_RESOLVED);
        rewrite::<F, true>(pkt, parsed, flow)?;
        if parsed.tuple.proto == proto::SCTP {
            sctp::update_checksum(pkt, parsed)?;
        }
        return Ok(Packed::DELIVER.because(Reason::TooBig));
    }
    *now = env.now();
    let allowed = piece.offset == 0
        && !F::Messages::may_be_cut(pkt)
        && answer::is_answerable::<F>(pkt, &parsed.tuple.src)
        && env.answers().is_some_and(|answers| answers.take(*now));
    if !allowed {
        return Err(Reason::Unanswered);
    }
    Ok(answer::too_big::<F, P>(pkt, parsed, flow.mtu)?.because(Reason::TooBig))
}

/// Whether the address is not this node's.
#[inline(always)]
fn is_foreign<F: Family, P: Packet, E: Env<F>>(pkt: &P, env: &mut E, addr: &F::Addr) -> bool {
    matches!(env.route(addr, addr, F::ICMP, pkt.ifindex()), Route::Via(_))
}
