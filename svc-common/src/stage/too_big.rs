//! The answer to a packet that our programs would forward but that does not fit through the next hop's device.

use crate::{env::Env, family::Family, outcome::Packed, packet::Packet, reason::Reason};

/// Runs the stage.
#[inline(always)]
pub fn run<F: Family, P: Packet, E: Env<F>>(_pkt: &mut P, env: &mut E) -> Packed {
    env.count(Reason::TooBig);
    Packed::drop(Reason::TooBig)
}
