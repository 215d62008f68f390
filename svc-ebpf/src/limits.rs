//! What the benchmarks compare with: the least that a program at this hook can do. The agent does not load these.

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
use svc_common::{packet::Packet, wire::MacPair};

use crate::packet::Xdp;

/// Does nothing.
#[xdp]
pub fn limit_empty(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// Swaps the Ethernet addresses and sends the frame back.
#[xdp]
pub fn limit_mac_swap(ctx: XdpContext) -> u32 {
    let mut pkt = Xdp::new(ctx);
    let Ok(macs) = pkt.header_mut::<MacPair>(0) else {
        return xdp_action::XDP_PASS;
    };
    *macs = MacPair { dst: macs.src, src: macs.dst };
    xdp_action::XDP_TX
}
