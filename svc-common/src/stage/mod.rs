//! Stages: the rare paths of the pipeline. In the kernel each is a program of its own, reached by a tail call, with a stack
//! of its own and an instruction count of its own; the ordinary path does not pay for them.
//!
//! A stage finds the packet as it came and reads it afresh; but for [`Stage::Read`], which goes on where [`Stage::Rare`] ended.

mod answer;
mod decap;
mod icmp;
pub mod rare;
mod reject;
mod sctp;
mod too_big;

use crate::{
    decide::{self, Decision},
    env::Env,
    family::Family,
    outcome::Packed,
    packet::{Hook, Packet},
};

/// Which stage; the value is its index in the arrays of programs (`STAGES_XDP`, `STAGES_INGRESS`, `STAGES_EGRESS`).
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Fragments, IPv6 extension headers and transport protocols other than TCP, UDP, SCTP and ICMP.
    Rare = 0,
    /// ICMP and ICMPv6.
    Icmp = 1,
    /// A packet to a frontend that has no endpoint anywhere (B64).
    Reject = 2,
    /// A packet of ours that does not fit through the next hop's device (B41).
    TooBig = 3,
    /// A packet inside of another one, which another node may have sent for a backend here.
    Decap = 4,
    /// SCTP, whose checksum is of another kind.
    Sctp = 5,
    /// What [`Stage::Rare`] has read and does not leave alone.
    Read = 6,
}

impl Stage {
    /// Every stage, by index.
    pub const ALL: [Self; 7] =
        [Self::Rare, Self::Icmp, Self::Reject, Self::TooBig, Self::Decap, Self::Sctp, Self::Read];
}

/// Runs one stage, known when the program is built.
#[inline(always)]
pub fn run<F: Family, P: Packet, E: Env<F>>(stage: Stage, pkt: &mut P, env: &mut E) -> Packed {
    let packed = match stage {
        Stage::Rare => rare::run::<F, P, E>(pkt, env),
        Stage::Icmp => icmp::run::<F, P, E>(pkt, env),
        Stage::Reject => reject::run::<F, P, E>(pkt, env),
        Stage::TooBig => too_big::run::<F, P, E>(pkt, env),
        Stage::Decap => decap::run::<F, P, E>(pkt, env),
        Stage::Sctp => sctp::run::<F, P, E>(pkt, env),
        Stage::Read => rare::go_on::<F, P, E>(pkt, env),
    };
    // XDP does not know what tc makes of the packet.
    if !packed.is_pass() || matches!(P::HOOK, Hook::Xdp) {
        return packed;
    }
    match F::destination(pkt) {
        Ok(dst) => leave::<F, E>(env, &dst, packed),
        Err(_) => packed,
    }
}

/// Leaves a packet to the stack, unless that would route it in circles (B66).
///
/// Not inlined: it needs a part of the stack of its own.
#[cfg_attr(feature = "flat", inline(always))]
#[cfg_attr(not(feature = "flat"), inline(never))]
fn leave<F: Family, E: Env<F>>(env: &mut E, dst: &F::Addr, packed: Packed) -> Packed {
    match decide::stray::<F, E>(env, dst) {
        Decision::Drop(reason) => Packed::drop(reason),
        _ => packed,
    }
}
