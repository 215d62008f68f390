//! What both tc hooks do with a packet.

use aya_ebpf::{
    EbpfContext,
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC},
};
use svc_common::{
    family::{Family, V4},
    outcome::Outcome,
};

use crate::{
    events, kernel,
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
    match stages::run::<S, _>(ether_type, &mut pkt, &mut env) {
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
