//! Connections: the flow tables, and what a program needs while it changes them.

use super::Config;
use crate::{
    net::{Be16, Mac},
    parse::Parsed,
    wire::{MacPair, Ports},
};

/// What a packet shows of its connection; the key of the flow tables.
///
/// Aligned to words, so that keys are built and compared by words: a key built byte by byte costs 5 ns more.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tuple<A> {
    /// Source address.
    pub src: A,
    /// Destination address.
    pub dst: A,
    /// Source port.
    pub sport: Be16,
    /// Destination port.
    pub dport: Be16,
    /// IANA protocol number.
    pub proto: u8,
    /// Keys are compared byte by byte: always zero.
    pub pad: [u8; 3],
}

impl<A: Copy> Tuple<A> {
    /// Writes ports and protocol as two whole words. The kernel hashes keys by words, and a load of a word that was
    /// stored in parts waits for the stores: about 4 ns for each.
    #[inline(always)]
    pub fn set_ports_and_proto(&mut self, ports: Ports, proto: u8) {
        const { assert!(core::mem::offset_of!(Self, dport) == core::mem::offset_of!(Self, sport) + 2) };
        const { assert!(core::mem::offset_of!(Self, pad) == core::mem::offset_of!(Self, proto) + 1) };
        let base = core::ptr::from_mut(self).cast::<u8>();
        // SAFETY: each word lies inside `self`, covers two neighbouring fields (checked above) and is aligned, as the
        // fields before it are words; all bytes are valid for them.
        unsafe {
            base.add(core::mem::offset_of!(Self, sport)).cast::<u32>().write(ports.to_word());
            base.add(core::mem::offset_of!(Self, proto)).cast::<u32>().write(u32::from(proto).to_le());
        }
    }

    /// Both ports.
    #[inline(always)]
    pub const fn ports(&self) -> Ports {
        Ports { sport: self.sport, dport: self.dport }
    }

    /// The tuple of the answer: source and destination swapped.
    #[inline(always)]
    pub const fn reverse(&self) -> Self {
        Self { src: self.dst, dst: self.src, sport: self.dport, dport: self.sport, proto: self.proto, pad: [0; 3] }
    }
}

/// Value of the flow tables: what happens to every further packet with this tuple. 64 bytes for IPv4, so that with the
/// kernel's own 48 bytes and the key one element fills two cache lines; 88 bytes for IPv6.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow<A> {
    /// New source address.
    pub src: A,
    /// New destination address.
    pub dst: A,
    /// New source port.
    pub sport: Be16,
    /// New destination port.
    pub dport: Be16,
    /// What the address change adds to a ones' complement sum, as the bytes lie in memory.
    pub addr_delta: u16,
    /// What the port change adds, likewise.
    pub port_delta: u16,
    /// MTU towards the next hop in bytes; zero if unknown.
    pub mtu: u16,
    /// Bits of [`flow_state`].
    pub state: u8,
    /// Bits of [`flow_flags`].
    pub flags: u8,
    /// [`Config::epoch`] when the flow was last checked; zero means never.
    pub epoch: u32,
    /// [`crate::maps::Clock`] seconds of the last packet, at most a second late.
    pub seen_s: u32,
    /// Egress device; zero if the stack forwards.
    pub ifindex: u32,
    /// Next hop; zero unless the flag says that it is resolved.
    pub dst_mac: Mac,
    /// The egress device's own address, likewise.
    pub src_mac: Mac,
    /// The service port.
    pub service: u32,
    /// The backend.
    pub backend: u32,
    /// Packets, modulo 2^32.
    pub packets: u32,
    /// Bytes of IP packets.
    pub bytes: u64,
}

impl<A: PartialEq> Flow<A> {
    /// Whether it does the same to packets as another flow.
    #[inline(always)]
    pub fn leads_where(&self, other: &Self) -> bool {
        self.src == other.src && self.dst == other.dst && self.sport == other.sport && self.dport == other.dport
    }
}

impl<A> Flow<A> {
    /// State and flags as one word in memory order, to be compared at once.
    #[inline(always)]
    pub const fn marks(&self) -> u16 {
        const { assert!(core::mem::offset_of!(Self, flags) == core::mem::offset_of!(Self, state) + 1) };
        const { assert!(core::mem::offset_of!(Self, state) % 2 == 0) };
        // SAFETY: both bytes lie inside of `self`, and the word is aligned.
        unsafe { core::ptr::from_ref(self).byte_add(core::mem::offset_of!(Self, state)).cast::<u16>().read() }
    }

    /// The next hop's addresses, as they lie in a header.
    #[inline(always)]
    pub const fn macs(&self) -> MacPair {
        const { assert!(core::mem::offset_of!(Self, src_mac) == core::mem::offset_of!(Self, dst_mac) + 6) };
        const { assert!(core::mem::offset_of!(Self, dst_mac) % align_of::<MacPair>() == 0) };
        // SAFETY: both fields lie inside of `self`, one behind the other, and the first is aligned.
        unsafe { core::ptr::from_ref(self).byte_add(core::mem::offset_of!(Self, dst_mac)).cast::<MacPair>().read() }
    }

    /// Whether the next hop's addresses are known.
    #[inline(always)]
    pub const fn is_resolved(&self) -> bool {
        self.flags & flow_flags::HOP_RESOLVED != 0
    }
}

/// Bits of [`Flow::flags`]: what the flow is. They do not change while it lives, but for the next hop's.
pub mod flow_flags {
    /// Backend to client; otherwise client to backend.
    pub const REVERSE: u8 = 1;
    /// Applies where the packet leaves towards the client (tc egress); otherwise where it comes in.
    pub const EGRESS: u8 = 1 << 1;
    /// Our programs forward it, both directions where they come in; otherwise the stack does. Always set where the
    /// connection's source address is translated.
    pub const FORWARD: u8 = 1 << 2;
    /// `dst_mac` and `src_mac` are resolved.
    pub const HOP_RESOLVED: u8 = 1 << 3;
    /// XDP programs may send to `ifindex` from any device.
    pub const HOP_XDP: u8 = 1 << 4;
    /// `ifindex` is the host end of a pod's device: packets go straight to the pod's end. Implies `HOP_RESOLVED`.
    pub const HOP_PEER: u8 = 1 << 5;
    /// Direct server return: packets go to the backend's node as they are, but for the TTL, inside of a header from `src`
    /// to `dst`. The flow has no partner, as the answers do not come this way, and stays in the half-open table.
    pub const ENCAP: u8 = 1 << 6;
}

/// Bits of [`Flow::state`]: what has been seen.
pub mod flow_state {
    /// A packet of the other direction was seen.
    pub const REPLIED: u8 = 1;
    /// A FIN in this direction.
    pub const FIN: u8 = 1 << 1;
    /// A FIN in the other direction.
    pub const PEER_FIN: u8 = 1 << 2;
    /// An RST in either direction.
    pub const RST: u8 = 1 << 3;
    /// The connection is in the established table.
    pub const ESTABLISHED: u8 = 1 << 4;
}

/// Value of `SCRATCH_V4` and `SCRATCH_V6`: what does not fit on the 512 bytes of stack while a flow is made or changed.
/// Valid within one run of a program only.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scratch<A> {
    /// What the headers of the packet at hand say.
    pub parsed: Parsed<A>,
    /// The agent's settings.
    pub config: Config,
    /// The time.
    pub now: Clock,
    /// The backend that a new connection has to go to; zero leaves it to the selection.
    pub chosen: u32,
    /// The packet's flow.
    pub flow: Flow<A>,
    /// Its partner.
    pub partner: Flow<A>,
    /// The partner's key.
    pub partner_key: Tuple<A>,
}

/// Marks `u32` seconds of the datapath's clock: kernel jiffies scaled to seconds since an arbitrary start. Only
/// differences mean anything; the agent reads the same clock by running the program `svc_clock`.
pub type Clock = u32;
