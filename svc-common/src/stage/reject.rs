//! The answer to a packet for us that nobody serves.

use crate::{env::Env, family::Family, outcome::Packed, packet::Packet, reason::Reason};

/// Runs the stage. Why was counted before.
#[inline(always)]
pub fn run<F: Family, P: Packet, E: Env<F>>(_pkt: &mut P, env: &mut E) -> Packed {
    env.count(Reason::Unanswered);
    Packed::drop(Reason::Unanswered)
}
