//! The answer to a packet whose service has no endpoint anywhere.

use crate::{env::Env, family::Family, outcome::Packed, packet::Packet, reason::Reason};

/// Runs the stage.
#[inline(always)]
pub fn run<F: Family, P: Packet, E: Env<F>>(_pkt: &mut P, env: &mut E) -> Packed {
    env.count(Reason::NoEndpoint);
    Packed::drop(Reason::NoEndpoint)
}
