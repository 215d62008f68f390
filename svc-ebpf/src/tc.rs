//! What both tc hooks do with a packet.

use aya_ebpf::{
    EbpfContext,
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC},
};
use svc_common::{
    family::{Family, V4, V6},
    outcome::{Outcome, Packed},
};

use crate::{
    debug_log, events, kernel,
    maps::Kernel,
    packet::Tc,
    stages::{self, Step},
};

/// Does a step and tells the kernel. Whatever stays in the stack is left to the next program of the hook.
#[inline(always)]
pub fn run<S: Step, const EGRESS: bool>(mut pkt: Tc<EGRESS>) -> i32 {
    let (ether_type, tagged) = pkt.protocol();
    if tagged {
        return TC_ACT_UNSPEC;
    }
    pkt.pull_headers(S::HEADERS);
    let mut env = Kernel { ctx: pkt.0.as_ptr() };
    let packed = match ether_type {
        V4::ETHER_TYPE => S::run::<V4, _, _>(&mut pkt, &mut env),
        V6::ETHER_TYPE => S::run::<V6, _, _>(&mut pkt, &mut env),
        _ => Packed::default(),
    };
    if let Some(reason) = packed.reason() {
        Kernel::count(reason);
    }
    debug_log::finish();
    match packed.outcome() {
        Outcome::Pass | Outcome::Deliver => TC_ACT_UNSPEC,
        Outcome::Send(ifindex) => kernel::redirect(ifindex),
        Outcome::Peer(ifindex) => kernel::redirect_peer(ifindex),
        Outcome::Resolve(ifindex) => kernel::redirect_neigh(ifindex),
        Outcome::Drop(reason) => {
            events::dropped(&mut pkt, if ether_type == V4::ETHER_TYPE { 4 } else { 6 }, reason);
            TC_ACT_SHOT
        }
        Outcome::Continue(stage) => {
            stages::continue_tc::<EGRESS>(&pkt.0, stage);
            TC_ACT_UNSPEC
        }
    }
}
