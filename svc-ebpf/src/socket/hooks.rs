//! One program for each hook and family.

use aya_ebpf::{
    EbpfContext,
    macros::{cgroup_sock, cgroup_sock_addr},
    programs::{SockAddrContext, SockContext},
};
use svc_common::{
    family::{V4, V6},
    socket::{self, Dialled},
};

use super::call::{self, Call, Fields};
use crate::maps::Kernel;

/// The system call goes on.
const GO_ON: i32 = 1;

#[cgroup_sock_addr(connect4)]
pub fn svc_connect4(ctx: SockAddrContext) -> i32 {
    dial::<V4, false>(ctx)
}

#[cgroup_sock_addr(connect6)]
pub fn svc_connect6(ctx: SockAddrContext) -> i32 {
    dial::<V6, false>(ctx)
}

/// A datagram with an address, of a socket of either family if the address is of IPv4.
#[cgroup_sock_addr(sendmsg4)]
pub fn svc_sendmsg4(ctx: SockAddrContext) -> i32 {
    dial::<V4, true>(ctx)
}

/// A datagram with an IPv6 address.
#[cgroup_sock_addr(sendmsg6)]
pub fn svc_sendmsg6(ctx: SockAddrContext) -> i32 {
    dial::<V6, true>(ctx)
}

#[cgroup_sock_addr(recvmsg4)]
pub fn svc_recvmsg4(ctx: SockAddrContext) -> i32 {
    show::<V4>(ctx)
}

#[cgroup_sock_addr(recvmsg6)]
pub fn svc_recvmsg6(ctx: SockAddrContext) -> i32 {
    show::<V6>(ctx)
}

#[cgroup_sock_addr(getpeername4)]
pub fn svc_peername4(ctx: SockAddrContext) -> i32 {
    show::<V4>(ctx)
}

#[cgroup_sock_addr(getpeername6)]
pub fn svc_peername6(ctx: SockAddrContext) -> i32 {
    show::<V6>(ctx)
}

/// A socket is closed.
#[cgroup_sock(sock_release)]
pub fn svc_release(ctx: SockContext) -> i32 {
    socket::release(&mut Kernel { ctx: ctx.as_ptr() });
    GO_ON
}

#[inline(always)]
fn dial<F: Fields, const SEND: bool>(ctx: SockAddrContext) -> i32 {
    let mut env = Kernel { ctx: ctx.as_ptr() };
    let call = Call::new(ctx);
    let (mut peer, proto) = (call.peer::<F>(), call.proto());
    let dialled =
        if SEND { socket::send(&mut env, &mut peer, proto) } else { socket::connect(&mut env, &mut peer, proto) };
    match dialled {
        Dialled::Unchanged => GO_ON,
        Dialled::Translated => {
            call.set_peer::<F>(&peer);
            GO_ON
        }
        Dialled::Refused => call::refuse(),
    }
}

/// Tells the process of the VIP where the kernel would tell of the backend.
#[inline(always)]
fn show<F: Fields>(ctx: SockAddrContext) -> i32 {
    let mut env = Kernel { ctx: ctx.as_ptr() };
    let call = Call::new(ctx);
    let mut peer = call.peer::<F>();
    if socket::show(&mut env, &mut peer) {
        call.set_peer::<F>(&peer);
    }
    GO_ON
}
