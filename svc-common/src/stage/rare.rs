//! Packets that the ordinary path does not read: fragments, extension headers, other transport protocols.

use crate::{
    env::Env,
    family::Family,
    outcome::Packed,
    packet::{Hook, Packet},
    parse::{self, Parsed, Unparsed},
};

/// Runs the stage.
#[inline(always)]
pub fn run<F: Family, P: Packet, E: Env<F>>(pkt: &mut P, env: &mut E) -> Packed {
    let mut parsed = Parsed::default();
    let unparsed = parse::parse::<F>(pkt, &mut parsed).err().unwrap_or(Unparsed::Malformed);
    // Once per packet: where it comes in.
    if matches!(P::HOOK, Hook::Ingress) {
        env.count(unparsed.reason());
    }
    Packed::PASS
}
