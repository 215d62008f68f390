//! The tc egress hook: answers on their way to the client.

use aya_ebpf::{macros::classifier, programs::TcContext};

use crate::{packet::Tc, stages::Pipeline};

/// See the module.
#[classifier]
pub fn svc_tc_egress(ctx: TcContext) -> i32 {
    crate::tc::run::<Pipeline<false>, true>(Tc(ctx))
}
