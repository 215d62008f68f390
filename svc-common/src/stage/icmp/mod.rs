//! ICMP and ICMPv6: errors about packets of ours, and echo requests to addresses of services. Everything else passes
//! untouched, neighbour discovery and multicast listeners above all (B48).

mod echo;
mod error;
mod tunnel;

use crate::{
    env::Env,
    family::Family,
    icmp::Messages,
    outcome::Packed,
    packet::Packet,
    parse::Parsed,
    reason::Reason,
    wire::{ETH_LEN, IcmpHeader},
};

/// Runs the stage.
#[inline(always)]
pub fn run<F: Family, P: Packet, E: Env<F>>(pkt: &mut P, env: &mut E) -> Packed {
    let mut parsed = Parsed::default();
    if F::parse(pkt, &mut parsed) != Ok(F::ICMP) {
        return Packed::PASS;
    }
    parsed.len_bytes = parsed.l4_len + parsed.l4 - ETH_LEN as u32;
    let header = match pkt.header_mut::<IcmpHeader>(message_at(&parsed)) {
        Ok(header) if parsed.l4_len >= size_of::<IcmpHeader>() as u32 => *header,
        _ => return Packed::pass::<P>(Reason::Malformed),
    };
    if F::Messages::is_error(header.kind) {
        error::run::<F, P, E>(pkt, env, &parsed)
    } else if header.kind == F::Messages::ECHO_REQUEST && header.code == 0 {
        echo::run::<F, P, E>(pkt, env, &parsed)
    } else {
        Packed::PASS
    }
}

/// Where the message is: at most 14 + 60; the mask tells the verifier.
#[inline(always)]
const fn message_at<A>(parsed: &Parsed<A>) -> usize {
    (parsed.l4 & 0x7f) as usize
}
