//! ICMP and ICMPv6.

use crate::{
    env::Env,
    family::Family,
    outcome::Packed,
    packet::{Hook, Packet},
    reason::Reason,
};

/// Runs the stage.
#[inline(always)]
pub fn run<F: Family, P: Packet, E: Env<F>>(_pkt: &mut P, env: &mut E) -> Packed {
    if matches!(P::HOOK, Hook::Ingress) {
        env.count(Reason::UnknownProtocol);
    }
    Packed::PASS
}
