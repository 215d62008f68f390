//! Where frames come from and where they end, for benchmarks of the whole path of a node.
use aya_ebpf::{
    bindings::{TC_ACT_SHOT, xdp_action},
    helpers::{bpf_get_prandom_u32, bpf_redirect},
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};

use crate::frame::at;

/// A UDP frame that carries a copy of its own headers: where it has been before, they were rewritten.
#[repr(C)]
#[derive(Clone, Copy)]
struct Frame {
    /// Ethernet, IPv4 and UDP headers and 6 bytes of the payload.
    head: [u64; 6],
    /// The same as it was in the beginning.
    copy: [u64; 6],
    /// Which bits of the source port, and of the lower half of the source address, are random: as on the wire.
    port_mask: u16,
    addr_mask: u16,
    /// What makes the checksums right for any source: the complements of the port and of the lower half.
    port_complement: u16,
    addr_complement: u16,
    /// The device that sends the frame; zero if the device that it is said to come from receives it.
    ifindex: u32,
    pad: u32,
}

/// The identification of the IPv4 header, the lower half of the source address and the source port.
#[repr(C)]
#[derive(Clone, Copy)]
struct Variable {
    eth: [u16; 9],
    identification: u16,
    between: [u16; 4],
    source: u16,
    destination: [u16; 2],
    port: u16,
}

/// Makes a frame new and has it received or sent. To be run with live frames.
#[xdp]
pub fn limit_inject(ctx: XdpContext) -> u32 {
    inject(&ctx).unwrap_or(xdp_action::XDP_ABORTED)
}

#[inline(always)]
fn inject(ctx: &XdpContext) -> Option<u32> {
    let (start, end) = (ctx.data(), ctx.data_end());
    let frame: &mut Frame = at(start, end, 0)?;
    frame.head = frame.copy;
    let (port_mask, addr_mask, ifindex) = (frame.port_mask, frame.addr_mask, frame.ifindex);
    if port_mask != 0 {
        // SAFETY: it has no arguments.
        let random = unsafe { bpf_get_prandom_u32() };
        let variable: &mut Variable = at(start, end, 0)?;
        variable.port ^= random as u16 & port_mask;
        variable.source ^= (random >> 16) as u16 & addr_mask;
        let (port, addr) = (!variable.port, !variable.source);
        variable.identification = addr;
        let frame: &mut Frame = at(start, end, 0)?;
        (frame.port_complement, frame.addr_complement) = (port, addr);
    }
    if ifindex == 0 {
        return Some(xdp_action::XDP_PASS);
    }
    // SAFETY: any index will do; the kernel looks it up.
    Some(unsafe { bpf_redirect(ifindex, 0) } as u32)
}

/// Drops everything that has come as far as this.
#[classifier]
pub fn limit_drop(_ctx: TcContext) -> i32 {
    TC_ACT_SHOT
}
