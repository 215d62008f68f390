//! Echo requests to the address of a service are answered here, as no host has the address (B43).

use super::message_at;
use crate::{
    csum,
    env::Env,
    family::Family,
    icmp::{Messages, TTL},
    maps::{FrontendKey, frontend_flags},
    outcome::Packed,
    packet::{Hook, Packet},
    parse::Parsed,
    reason::Reason,
    wire::{EthHeader, IcmpHeader, MacPair},
};

/// Answers the request if its destination is ours; the packet goes back to where it came from.
#[inline(always)]
pub fn run<F: Family, P: Packet, E: Env<F>>(pkt: &mut P, env: &mut E, parsed: &Parsed<F::Addr>) -> Packed {
    // Addresses of the node have rows, too, but are the stack's.
    let row = env.lookup_frontend(&FrontendKey::of_address(parsed.tuple.dst));
    let ours = row.is_some_and(|row| row.flags & frontend_flags::VIP != 0);
    if !ours || matches!(P::HOOK, Hook::Egress) || !F::Messages::is_host(&parsed.tuple.src) {
        return Packed::PASS;
    }
    answer::<F, P>(pkt, parsed).unwrap_or_else(Packed::drop)
}

/// Turns the request into the reply.
///
/// # Errors
/// [`Reason::Malformed`] if the frame ends before its headers, which parsing has excluded.
#[inline(always)]
fn answer<F: Family, P: Packet>(pkt: &mut P, parsed: &Parsed<F::Addr>) -> Result<Packed, Reason> {
    let own = pkt.ifindex();
    let eth = *pkt.header_mut::<EthHeader>(0)?;
    let icmp = pkt.header_mut::<IcmpHeader>(message_at(parsed))?;
    let request = icmp.kind_word();
    icmp.kind = F::Messages::ECHO_REPLY;
    icmp.checksum = csum::apply(icmp.checksum, csum::word_delta(request, icmp.kind_word()));
    // Swapped addresses change no sum.
    F::rewrite(pkt, &parsed.tuple.dst, &parsed.tuple.src, 0xffff, false)?;
    F::Messages::set_ttl(pkt, TTL)?;
    pkt.set_macs(MacPair { dst: eth.src, src: eth.dst })?;
    Ok(Packed::to_device(Packed::SEND, own))
}
