//! The tc ingress hook: packets of pods, and what XDP leaves of those that come in through an uplink.

use aya_ebpf::{macros::classifier, programs::TcContext};

use crate::{packet::Tc, stages::Pipeline};

/// See the module.
#[classifier]
pub fn svc_tc_ingress(ctx: TcContext) -> i32 {
    crate::tc::run::<Pipeline<false>, false>(Tc(ctx))
}
