//! The kernel's verdicts (linux/bpf.h, linux/pkt_cls.h).

use svc_common::{outcome::Outcome, packet::Hook};

const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;
const XDP_REDIRECT: u32 = 4;
const TC_UNSPEC: u32 = u32::MAX;
const TC_SHOT: u32 = 2;
const TC_REDIRECT: u32 = 7;

/// The one that belongs to an outcome.
pub(super) fn of(hook: Hook, outcome: Outcome, own: u32) -> u32 {
    match (hook, outcome) {
        (Hook::Xdp, Outcome::Pass | Outcome::Deliver | Outcome::Resolve(_) | Outcome::Peer(_)) => XDP_PASS,
        (Hook::Xdp, Outcome::Send(ifindex)) if ifindex == own => XDP_TX,
        (Hook::Xdp, Outcome::Send(_)) => XDP_REDIRECT,
        (Hook::Xdp, Outcome::Drop(_)) => XDP_DROP,
        (_, Outcome::Pass | Outcome::Deliver) => TC_UNSPEC,
        (_, Outcome::Send(_) | Outcome::Resolve(_) | Outcome::Peer(_)) => TC_REDIRECT,
        (_, Outcome::Drop(_)) => TC_SHOT,
        (_, Outcome::Continue(stage)) => unreachable!("{stage:?} was run"),
    }
}

/// A verdict as the kernel names it.
pub(super) fn name(hook: Hook, verdict: u32) -> String {
    match (hook, verdict) {
        (Hook::Xdp, 0) => "XDP_ABORTED".to_owned(),
        (Hook::Xdp, XDP_DROP) => "XDP_DROP".to_owned(),
        (Hook::Xdp, XDP_PASS) => "XDP_PASS".to_owned(),
        (Hook::Xdp, XDP_TX) => "XDP_TX".to_owned(),
        (Hook::Xdp, XDP_REDIRECT) => "XDP_REDIRECT".to_owned(),
        (Hook::Ingress | Hook::Egress, TC_UNSPEC) => "TC_ACT_UNSPEC".to_owned(),
        (Hook::Ingress | Hook::Egress, TC_SHOT) => "TC_ACT_SHOT".to_owned(),
        (Hook::Ingress | Hook::Egress, TC_REDIRECT) => "TC_ACT_REDIRECT".to_owned(),
        _ => verdict.to_string(),
    }
}
