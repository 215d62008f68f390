//! The XDP hook: packets that enter the node through an uplink.

use aya_ebpf::{EbpfContext, bindings::xdp_action, macros::xdp, programs::XdpContext};
use svc_common::{
    family::{Family, V4},
    outcome::Outcome,
    packet::Packet,
    wire::EthHeader,
};

use crate::{
    events, kernel,
    maps::Kernel,
    packet::Xdp,
    stages::{self, Pipeline, Step},
};

/// For devices whose frames have complete checksums.
#[xdp]
pub fn svc_xdp(ctx: XdpContext) -> u32 {
    run::<Pipeline<false>, false>(ctx)
}

/// For veth, where frames of local sockets may have partial checksums (B05).
#[xdp]
pub fn svc_xdp_veth(ctx: XdpContext) -> u32 {
    run::<Pipeline<true>, true>(ctx)
}

/// Does a step and tells the kernel; `VETH` says what the device is.
#[inline(always)]
pub fn run<S: Step, const VETH: bool>(ctx: XdpContext) -> u32 {
    let mut env = Kernel { ctx: ctx.as_ptr() };
    let mut pkt = Xdp::new(ctx);
    let Ok(eth) = pkt.header_mut::<EthHeader>(0) else {
        return xdp_action::XDP_PASS;
    };
    let ether_type = eth.ether_type;
    match stages::run::<S, _>(ether_type, &mut pkt, &mut env) {
        // At XDP nothing is resolved by the stack: such packets pass untouched and tc translates them.
        Outcome::Pass | Outcome::Deliver | Outcome::Resolve(_) | Outcome::Peer(_) => xdp_action::XDP_PASS,
        // Frames that veth is told to transmit lie in its ring until something else wakes the peer, unless the peer has
        // an XDP program of its own; redirected ones wake it themselves.
        Outcome::Send(ifindex) => kernel::xdp_redirect(ifindex, !VETH && ifindex == pkt.ifindex()),
        Outcome::Drop(reason) => {
            events::dropped(&mut pkt, if ether_type == V4::ETHER_TYPE { 4 } else { 6 }, reason);
            xdp_action::XDP_DROP
        }
        Outcome::Continue(stage) => {
            stages::continue_xdp(&pkt.ctx, stage);
            xdp_action::XDP_PASS
        }
    }
}
