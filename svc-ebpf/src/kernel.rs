//! Safe wrappers of BPF helpers.
#![expect(unsafe_code, reason = "calls helpers")]

use core::ffi::c_void;

use aya_ebpf::{
    bindings::xdp_action,
    helpers::{
        bpf_fib_lookup, bpf_jiffies64, bpf_redirect, bpf_redirect_neigh, bpf_redirect_peer, bpf_sk_lookup_tcp,
        bpf_sk_lookup_udp, bpf_sk_release,
    },
};
use svc_common::{
    env::{NextHop, Route},
    maps::{Clock, Tuple},
    net::{Mac, proto},
};

/// 2^32 / HZ, set by the loader: the kernel does not tell programs how many jiffies make a second.
#[unsafe(no_mangle)]
static JIFFY_MULT: u64 = (1 << 32) / 250;

/// The clock while [`JIFFY_MULT`] is zero, as it is in tests alone: so both compilations see the same time. In a section of its
/// own, which is a map of its own.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".data.clock")]
static mut CLOCK_BASE: u64 = 0;

/// The datapath's clock: jiffies as seconds. A load and a multiplication, where the kernel's clocks cost 32 ns.
#[inline(always)]
pub fn now() -> Clock {
    // SAFETY: the loader may have changed the value, so the compiler must not assume the one above.
    let mult = unsafe { core::ptr::read_volatile(&raw const JIFFY_MULT) };
    // The value is frozen before the verifier sees it, so one of the branches is gone.
    if mult == 0 {
        // SAFETY: one aligned word, which nothing in here writes.
        return unsafe { core::ptr::read_volatile(&raw const CLOCK_BASE) } as Clock;
    }
    // SAFETY: no arguments.
    let jiffies = unsafe { bpf_jiffies64() };
    (jiffies.wrapping_mul(mult) >> 32) as Clock
}

/// `struct bpf_fib_lookup` (linux/bpf.h): the addresses' fields are 16 bytes in both families.
#[repr(C)]
pub struct FibLookup {
    family: u8,
    l4_protocol: u8,
    ports: [u16; 2],
    /// In: zero, so that the size is not checked. Out: MTU, since 5.12.
    mtu: u16,
    ifindex: u32,
    tos: u32,
    /// Out: the address that this node would use itself; all zero if the kernel does not tell.
    pub src: [u8; 16],
    dst: [u8; 16],
    vlan: [u16; 2],
    smac: Mac,
    dmac: Mac,
}

const _: () = assert!(size_of::<FibLookup>() == 64);

/// Results of `bpf_fib_lookup` that name a way out (linux/bpf.h).
const FIB_SUCCESS: i64 = 0;
const FIB_NO_NEIGH: i64 = 7;
const FIB_FRAG_NEEDED: i64 = 8;

/// What differs between the look-ups of one route: `BPF_FIB_LOOKUP_SRC` (since 6.7) puts the address that this node would use
/// itself in place of the source.
const FIB_SRC: u32 = 1 << 4;
/// There is no such address.
const FIB_NO_SRC: i64 = 10;

/// Asks the kernel's routes by means of `query`, as for a packet that came in through `ifindex`. `family` is `AF_INET` or `AF_INET6`;
/// addresses of 4 bytes stand at the beginning.
#[inline(always)]
pub fn route(
    ctx: *mut c_void,
    query: &mut FibLookup,
    family: u8,
    proto: u8,
    src: [u8; 16],
    dst: [u8; 16],
    ifindex: u32,
) -> Route {
    query.family = family;
    query.l4_protocol = proto;
    query.ports = [0; 2];
    query.src = src;
    query.dst = dst;
    query.vlan = [0; 2];
    let mut result = look_up(ctx, query, ifindex, FIB_SRC);
    if result < 0 || result == FIB_NO_SRC {
        // Older kernels refuse the flag before they look at anything else.
        result = look_up(ctx, query, ifindex, 0);
        query.src = [0; 16];
    }
    match result {
        FIB_SUCCESS | FIB_FRAG_NEEDED => {
            Route::Via(NextHop { ifindex: query.ifindex, mtu: query.mtu, dst_mac: query.dmac, src_mac: query.smac })
        }
        FIB_NO_NEIGH => Route::Via(NextHop { ifindex: query.ifindex, mtu: query.mtu, ..NextHop::default() }),
        _ => Route::Stack,
    }
}

#[inline(always)]
fn look_up(ctx: *mut c_void, query: &mut FibLookup, ifindex: u32, flags: u32) -> i64 {
    // What an answer writes over.
    query.mtu = 0;
    query.ifindex = ifindex;
    query.tos = 0;
    // SAFETY: the struct has the layout and size that the helper expects; the context is the program's own.
    unsafe { bpf_fib_lookup(ctx, core::ptr::from_mut(query).cast(), size_of::<FibLookup>() as i32, flags) }
}

/// Sends an XDP frame out of a device; `transmit` if that may be done by the driver at once, because it came in there.
#[inline(always)]
pub fn xdp_redirect(ifindex: u32, transmit: bool) -> u32 {
    if transmit {
        return xdp_action::XDP_TX;
    }
    // SAFETY: no pointers.
    unsafe { bpf_redirect(ifindex, 0) as u32 }
}

/// Sends a packet out of a device, Ethernet addresses as they are.
#[inline(always)]
pub fn redirect(ifindex: u32) -> i32 {
    // SAFETY: no pointers.
    unsafe { bpf_redirect(ifindex, 0) as i32 }
}

/// Puts a packet into the other end of a device, in another network namespace. From tc ingress only.
#[inline(always)]
pub fn redirect_peer(ifindex: u32) -> i32 {
    // SAFETY: no pointers.
    unsafe { bpf_redirect_peer(ifindex, 0) as i32 }
}

/// Sends a packet out of a device; the kernel finds the neighbour and waits for it if it has to.
#[inline(always)]
pub fn redirect_neigh(ifindex: u32) -> i32 {
    // SAFETY: no pointers: the kernel looks the route up itself.
    unsafe { bpf_redirect_neigh(ifindex, core::ptr::null_mut(), 0, 0) as i32 }
}

/// Whether a socket of the device's network namespace would take a packet with this tuple; the kernel tells of TCP and UDP
/// only.
#[inline(always)]
pub fn has_socket<A>(ctx: *mut c_void, tuple: &Tuple<A>) -> bool {
    /// `BPF_F_CURRENT_NETNS`.
    const OWN_NAMESPACE: u64 = u64::MAX;
    // `struct bpf_sock_tuple` is what a tuple begins with: both addresses and both ports.
    const { assert!(core::mem::offset_of!(Tuple<A>, sport) == 2 * size_of::<A>()) };
    let len = const { core::mem::offset_of!(Tuple<A>, proto) as u32 };
    let start = core::ptr::from_ref(tuple).cast_mut().cast();
    // SAFETY: the context is the program's own, and so many bytes can be read; the helpers do not write to them.
    let socket = unsafe {
        match tuple.proto {
            proto::TCP => bpf_sk_lookup_tcp(ctx, start, len, OWN_NAMESPACE, 0),
            proto::UDP => bpf_sk_lookup_udp(ctx, start, len, OWN_NAMESPACE, 0),
            _ => return false,
        }
    };
    if socket.is_null() {
        return false;
    }
    // SAFETY: looked up just now, and not used any more.
    unsafe { bpf_sk_release(socket.cast()) };
    true
}
