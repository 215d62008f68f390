//! The stages of the pipeline as programs, and the arrays through which they are called.
#![expect(unsafe_code, reason = "tail calls")]

use aya_ebpf::{
    EbpfContext,
    macros::{classifier, map, xdp},
    maps::ProgramArray,
    programs::{TcContext, XdpContext},
};
use svc_common::{
    env::Env,
    family::{Family, V4, V6},
    maps::spec,
    net::Be16,
    outcome::{Outcome, Packed},
    packet::Packet,
    pipeline,
    stage::{self, Stage},
};

use crate::{debug_log, maps::Kernel, packet::Tc, tc, xdp};

// Filled by the agent; the index is the stage. One for each hook, as the stages' programs differ.
#[map]
static STAGES_XDP: ProgramArray = ProgramArray::with_max_entries(spec::STAGES_XDP.capacity, 0);
#[map]
static STAGES_INGRESS: ProgramArray = ProgramArray::with_max_entries(spec::STAGES_INGRESS.capacity, 0);
#[map]
static STAGES_EGRESS: ProgramArray = ProgramArray::with_max_entries(spec::STAGES_EGRESS.capacity, 0);

/// Goes on with a stage of the XDP hook; returns only if its program is missing.
#[inline(always)]
pub fn continue_xdp(ctx: &XdpContext, stage: Stage) {
    tail_call(&STAGES_XDP, ctx, stage);
}

/// Goes on with a stage of a tc hook; returns only if its program is missing.
#[inline(always)]
pub fn continue_tc<const EGRESS: bool>(ctx: &TcContext, stage: Stage) {
    tail_call(if EGRESS { &STAGES_EGRESS } else { &STAGES_INGRESS }, ctx, stage);
}

/// A tail call whose index is known when the program is loaded costs 0.7 ns, another 18 ns.
#[inline(always)]
fn tail_call(programs: &ProgramArray, ctx: &impl EbpfContext, stage: Stage) {
    macro_rules! constant_index {
        ($($stage:ident),*) => {
            match stage {
                // SAFETY: nothing here has a destructor to be run.
                $(Stage::$stage => unsafe { programs.tail_call(ctx, Stage::$stage as u32) },)*
            }
        };
    }
    constant_index!(Rare, Icmp, Reject, TooBig, Decap, Sctp, Read);
}

/// What a program does with a packet of either family.
pub trait Step {
    /// Bytes of headers that have to be readable.
    const HEADERS: u32;

    /// Does it.
    fn run<F: Family, P: Packet, E: Env<F>>(pkt: &mut P, env: &mut E) -> Packed;
}

/// Does a step with a packet of whichever family, and counts the reason.
#[inline(always)]
pub fn run<S: Step, P: Packet>(ether_type: Be16, pkt: &mut P, env: &mut Kernel) -> Outcome {
    let packed = match ether_type {
        V4::ETHER_TYPE => S::run::<V4, _, _>(pkt, env),
        V6::ETHER_TYPE => S::run::<V6, _, _>(pkt, env),
        _ => Packed::default(),
    };
    if let Some(reason) = packed.reason() {
        Kernel::count(reason);
    }
    debug_log::finish();
    packed.outcome()
}

/// The ordinary path; see [`pipeline::run`] for `PARTIAL`.
pub struct Pipeline<const PARTIAL: bool>;

impl<const PARTIAL: bool> Step for Pipeline<PARTIAL> {
    /// Ethernet, the longest IPv4 header and a TCP header; longer than IPv6 without extensions needs.
    const HEADERS: u32 = 14 + 60 + 20;

    #[inline(always)]
    fn run<F: Family, P: Packet, E: Env<F>>(pkt: &mut P, env: &mut E) -> Packed {
        pipeline::run::<F, P, E, PARTIAL>(pkt, env)
    }
}

macro_rules! stages {
    ($($stage:ident: $xdp:ident, $ingress:ident, $egress:ident;)*) => {
        $(
            #[doc = concat!("The stage `", stringify!($stage), "`.")]
            struct $stage;

            impl Step for $stage {
                /// The headers of a packet that an ICMP error quotes included, or a TCP header behind many extension headers.
                const HEADERS: u32 = stage::rare::OFFSETS + 20;

                #[inline(always)]
                fn run<F: Family, P: Packet, E: Env<F>>(pkt: &mut P, env: &mut E) -> Packed {
                    stage::run::<F, P, E>(Stage::$stage, pkt, env)
                }
            }

            #[doc = concat!("The stage `", stringify!($stage), "` at XDP.")]
            #[xdp]
            pub fn $xdp(ctx: XdpContext) -> u32 {
                xdp::run::<$stage, false>(ctx)
            }

            #[doc = concat!("The stage `", stringify!($stage), "` at tc ingress.")]
            #[classifier]
            pub fn $ingress(ctx: TcContext) -> i32 {
                tc::run::<$stage, false>(Tc(ctx))
            }

            #[doc = concat!("The stage `", stringify!($stage), "` at tc egress.")]
            #[classifier]
            pub fn $egress(ctx: TcContext) -> i32 {
                tc::run::<$stage, true>(Tc(ctx))
            }
        )*
    };
}

stages! {
    Rare: svc_xdp_rare, svc_ingress_rare, svc_egress_rare;
    Icmp: svc_xdp_icmp, svc_ingress_icmp, svc_egress_icmp;
    Reject: svc_xdp_reject, svc_ingress_reject, svc_egress_reject;
    TooBig: svc_xdp_too_big, svc_ingress_too_big, svc_egress_too_big;
    Decap: svc_xdp_decap, svc_ingress_decap, svc_egress_decap;
    Sctp: svc_xdp_sctp, svc_ingress_sctp, svc_egress_sctp;
    Read: svc_xdp_read, svc_ingress_read, svc_egress_read;
}
