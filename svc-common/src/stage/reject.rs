//! The answer to a packet for us that nobody serves (B64, B66): an RST to TCP, otherwise the ICMP error that nobody listens
//! at the port; both from the address that was dialled. Local sockets see "connection refused" for either.

use super::{
    answer,
    rare::{self, Piece},
    sctp,
};
use crate::{
    env::Env,
    family::Family,
    icmp::Messages,
    maps::{FrontendKey, Scratch},
    net::proto,
    outcome::Packed,
    packet::{Hook, Packet},
    reason::Reason,
    wire::tcp_flags,
};

/// Runs the stage.
#[inline(always)]
pub fn run<F: Family, P: Packet, E: Env<F>>(pkt: &mut P, env: &mut E) -> Packed {
    let refused = match env.scratch() {
        Some(mut scratch) => refuse::<F, P, E>(pkt, env, &mut scratch),
        None => Err(Reason::Unanswered),
    };
    refused.unwrap_or_else(Packed::drop)
}

#[inline(always)]
fn refuse<F: Family, P: Packet, E: Env<F>>(
    pkt: &mut P,
    env: &mut E,
    scratch: &mut Scratch<F::Addr>,
) -> Result<Packed, Reason> {
    let Scratch { parsed, .. } = scratch;
    // Nothing is decided where packets leave.
    if matches!(P::HOOK, Hook::Egress) {
        return Err(Reason::Unanswered);
    }
    let read = rare::read::<F>(pkt, parsed, &mut Piece::default());
    if sctp::complete(pkt, parsed, read).is_err() {
        return Err(Reason::Unanswered);
    }
    let now = env.now();
    let allowed = parsed.tcp_flags & tcp_flags::RST == 0
        && answer::is_answerable::<F>(pkt, &parsed.tuple.src)
        && env.answers().is_some_and(|answers| answers.take(now));
    if !allowed {
        return Err(Reason::Unanswered);
    }
    // What has led here is looked up again, as it is rare and nothing else comes along from one program to the next.
    let known = env.lookup_frontend(&FrontendKey::dialled(&parsed.tuple)).is_some();
    let answer = if parsed.tuple.proto == proto::TCP {
        answer::reset::<F, P>(pkt, parsed)
    } else {
        answer::error::<F, P>(pkt, parsed, F::Messages::PORT_UNREACHABLE, 0)
    };
    Ok(answer?.because(if known { Reason::NoEndpoint } else { Reason::UnknownPort }))
}
