//! The context of a system call on a socket: its addresses, its result.
#![expect(unsafe_code, reason = "reads and writes the context, which the verifier guards by constant offsets")]

use core::ptr::{read_volatile, write_volatile};

use aya_ebpf::{bindings::bpf_sock_addr, helpers::generated::bpf_set_retval, programs::SockAddrContext};
use svc_common::{
    family::{V4, V6},
    maps::{Peer, peer_side},
    net::Be16,
    socket::Mapped,
};

/// Whether the kernel lets a program choose the error (5.18), set by the loader; the verifier does not look at what
/// comes after a condition that is never true.
#[unsafe(no_mangle)]
static HAS_SET_RETVAL: u32 = 0;

/// A family's fields of the context: a program may touch those of its own family only.
pub trait Fields: Mapped {
    /// Reads the address.
    fn read(call: &Call) -> Self::Addr;

    /// Writes the address.
    fn write(call: &Call, addr: &Self::Addr);
}

/// A system call that has an address.
pub struct Call(SockAddrContext);

impl Call {
    /// The call of a context.
    #[inline(always)]
    pub fn new(ctx: SockAddrContext) -> Self {
        Self(ctx)
    }

    fn fields(&self) -> *mut bpf_sock_addr {
        self.0.sock_addr
    }

    /// The peer that the process names, or that it is to be told of.
    #[inline(always)]
    pub fn peer<F: Fields>(&self) -> Peer {
        // SAFETY: the context is valid. Four bytes, as the kernel wants them; the port is the first two.
        let port = unsafe { read_volatile(&raw const (*self.fields()).user_port) };
        Peer::new(F::widen(&F::read(self)), Be16::from_raw(port as u16), peer_side::VIP)
    }

    /// Puts another peer in its place.
    #[inline(always)]
    pub fn set_peer<F: Fields>(&self, peer: &Peer) {
        F::write(self, &F::narrow(&peer.addr));
        // SAFETY: as above.
        unsafe { write_volatile(&raw mut (*self.fields()).user_port, u32::from(peer.port.raw())) };
    }

    /// The IANA protocol number; zero for what is greater than these.
    #[inline(always)]
    pub fn proto(&self) -> u8 {
        // SAFETY: the context is valid.
        let proto = unsafe { read_volatile(&raw const (*self.fields()).protocol) };
        if proto > 0xff { 0 } else { proto as u8 }
    }
}

/// Makes the system call fail with ECONNREFUSED, where the kernel can; else with EPERM. Returns what the program has to.
#[inline(always)]
pub fn refuse() -> i32 {
    const ECONNREFUSED: i32 = 111;
    // SAFETY: the loader may have changed the value, so the compiler must not assume the one above.
    if unsafe { read_volatile(&raw const HAS_SET_RETVAL) } != 0 {
        // SAFETY: no pointers.
        unsafe { bpf_set_retval(-ECONNREFUSED) };
    }
    0
}

impl Fields for V4 {
    #[inline(always)]
    fn read(call: &Call) -> [u8; 4] {
        // SAFETY: the context is valid.
        unsafe { read_volatile(&raw const (*call.fields()).user_ip4) }.to_ne_bytes()
    }

    #[inline(always)]
    fn write(call: &Call, addr: &[u8; 4]) {
        // SAFETY: the context is valid.
        unsafe { write_volatile(&raw mut (*call.fields()).user_ip4, u32::from_ne_bytes(*addr)) };
    }
}

impl Fields for V6 {
    #[inline(always)]
    fn read(call: &Call) -> [u8; 16] {
        let words = call.0.sock_addr.cast::<u8>();
        const AT: usize = core::mem::offset_of!(bpf_sock_addr, user_ip6);
        // SAFETY: the context is valid, and the field is four words; each is read alone, as the kernel wants it.
        let word = |n: usize| unsafe { read_volatile(words.add(AT + 4 * n).cast::<u32>()) }.to_ne_bytes();
        let ([a, b, c, d], [e, f, g, h], [i, j, k, l], [m, n, o, p]) = (word(0), word(1), word(2), word(3));
        [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
    }

    #[inline(always)]
    fn write(call: &Call, addr: &[u8; 16]) {
        let fields = call.0.sock_addr.cast::<u8>();
        const AT: usize = core::mem::offset_of!(bpf_sock_addr, user_ip6);
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = *addr;
        let write = |n: usize, word: [u8; 4]| {
            // SAFETY: as for reading.
            unsafe { write_volatile(fields.add(AT + 4 * n).cast::<u32>(), u32::from_ne_bytes(word)) };
        };
        write(0, [a, b, c, d]);
        write(1, [e, f, g, h]);
        write(2, [i, j, k, l]);
        write(3, [m, n, o, p]);
    }
}
