//! Removes connections that are over, for the agent, which runs this program over frames of its own; it is attached nowhere.

use aya_ebpf::{EbpfContext, macros::classifier, programs::TcContext};
use svc_common::{
    expire,
    family::{Family, V4, V6},
};

use crate::{maps::Kernel, packet::Tc};

/// Returns which of the frame's flows were removed, one bit for each.
#[classifier]
pub fn svc_sweep(ctx: TcContext) -> i32 {
    let mut pkt = Tc::<false>(ctx);
    let mut env = Kernel { ctx: pkt.0.as_ptr() };
    let (ether_type, _) = pkt.protocol();
    let removed = match ether_type {
        V4::ETHER_TYPE => expire::sweep::<V4, _, _>(&mut pkt, &mut env),
        V6::ETHER_TYPE => expire::sweep::<V6, _, _>(&mut pkt, &mut env),
        _ => 0,
    };
    removed as i32
}
