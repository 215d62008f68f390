//! The maps of sockets, and the environment over them.
#![expect(unsafe_code, reason = "map values are shared with other CPUs, and helpers are called")]

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    helpers::generated::{bpf_get_netns_cookie, bpf_get_prandom_u32, bpf_get_socket_cookie},
    macros::map,
    maps::{Array, HashMap},
};
use svc_common::{
    env::InsertError,
    maps::{Socket, SocketConfig, SocketKey, SocketNat, spec},
    reason::Reason,
    socket::Sockets,
};

use crate::maps::{Kernel, value};

// Written by the threads that use a socket, in practice one at a time; what they lose against each other is the agent's
// to find. Elements are made when they are needed: most nodes need few.
#[map]
static SOCKET_NAT: HashMap<SocketKey, SocketNat> =
    HashMap::with_max_entries(spec::SOCKET_NAT.capacity, BPF_F_NO_PREALLOC);
#[map]
static SOCKETS: HashMap<u64, Socket> = HashMap::with_max_entries(spec::SOCKETS.capacity, BPF_F_NO_PREALLOC);
// Written by the agent only.
#[map]
static SOCKET_SKIP: HashMap<u64, u8> = HashMap::with_max_entries(spec::SOCKET_SKIP.capacity, BPF_F_NO_PREALLOC);
#[map]
static SOCKET_CONFIG: Array<SocketConfig> = Array::with_max_entries(spec::SOCKET_CONFIG.capacity, 0);

impl Sockets for Kernel {
    #[inline(always)]
    fn cookie(&mut self) -> u64 {
        // SAFETY: the context is the program's own.
        unsafe { bpf_get_socket_cookie(self.ctx) }
    }

    #[inline(always)]
    fn netns(&mut self) -> u64 {
        // SAFETY: the context is the program's own.
        unsafe { bpf_get_netns_cookie(self.ctx) }
    }

    #[inline(always)]
    fn first_netns(&mut self) -> u64 {
        // SAFETY: the helper takes a null pointer for this.
        unsafe { bpf_get_netns_cookie(core::ptr::null_mut()) }
    }

    #[inline(always)]
    fn settings(&mut self) -> Option<&SocketConfig> {
        SOCKET_CONFIG.get(0)
    }

    #[inline(always)]
    fn skips(&mut self, netns: u64) -> bool {
        SOCKET_SKIP.get_ptr(netns).is_some()
    }

    #[inline(always)]
    fn random(&mut self) -> u32 {
        // SAFETY: no arguments.
        unsafe { bpf_get_prandom_u32() }
    }

    #[inline(always)]
    fn lookup_socket(&mut self, cookie: u64) -> Option<&Socket> {
        // SAFETY: just looked up; elements are replaced as a whole.
        SOCKETS.get_ptr_mut(cookie).map(|socket| unsafe { &*value(socket) })
    }

    #[inline(always)]
    fn set_socket(&mut self, cookie: u64, socket: &Socket) -> Result<(), InsertError> {
        SOCKETS.insert(cookie, socket, 0).map_err(|_| InsertError::Full)
    }

    #[inline(always)]
    fn remove_socket(&mut self, cookie: u64) {
        // An absent key is what is wanted.
        let _ = SOCKETS.remove(cookie);
    }

    #[inline(always)]
    fn lookup_nat(&mut self, key: &SocketKey) -> Option<&SocketNat> {
        // SAFETY: just looked up; elements are replaced as a whole.
        SOCKET_NAT.get_ptr_mut(key).map(|nat| unsafe { &*value(nat) })
    }

    #[inline(always)]
    fn set_nat(&mut self, key: &SocketKey, nat: &SocketNat) -> Result<(), InsertError> {
        SOCKET_NAT.insert(key, nat, 0).map_err(|_| InsertError::Full)
    }

    #[inline(always)]
    fn remove_nat(&mut self, key: &SocketKey) {
        // An absent key is what is wanted.
        let _ = SOCKET_NAT.remove(key);
    }

    #[inline(always)]
    fn count_socket(&mut self, reason: Reason) {
        if let Some(counter) = Kernel::counter(reason) {
            add_one(counter);
        }
    }

    #[inline(always)]
    fn count_connection(&mut self, service: u32) {
        if let Some(counters) = Kernel::service(service) {
            add_one(&raw mut counters.new_flows);
        }
    }
}

/// Adds one in a single instruction: a packet may interrupt the system call on this CPU. The target has no atomics in
/// `core`, as it lacks those that return what was there before.
#[inline(always)]
fn add_one(counter: *mut u64) {
    // SAFETY: a map's value, aligned to eight bytes, which stays mapped for the program's run.
    unsafe {
        core::arch::asm!("lock *(u64 *)({counter} + 0) += {one}", counter = in(reg) counter, one = in(reg) 1_u64);
    }
}
