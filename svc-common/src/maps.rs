//! Every map: key, value, name, default capacity and layout version.
//!
//! This is the contract between the kernel programs and the agent. Integers without a wire type are in host order.
//! A layout version rises only when old bytes cannot be read any more: a raise forgets what the map held.
#![expect(unsafe_code, reason = "map types are plain bytes; `map_types!` checks what that needs")]

use crate::{
    net::{Be16, Mac},
    parse::Parsed,
    wire::Ports,
};

/// Plain data that may be copied to and from a map as bytes.
///
/// # Safety
/// `repr(C)`, no padding, any bit pattern valid. `map_types!` checks the size; the fields are chosen so.
pub unsafe trait MapType: Copy + 'static {
    /// The value as bytes.
    fn bytes(&self) -> &[u8] {
        // SAFETY: no padding (trait contract), so every byte is initialised.
        unsafe { core::slice::from_raw_parts(core::ptr::from_ref(self).cast(), size_of::<Self>()) }
    }

    /// Reads a value from exactly its size in bytes, at any alignment.
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != size_of::<Self>() {
            return None;
        }
        // SAFETY: the length was checked, any bit pattern is valid (trait contract), and the read is unaligned.
        Some(unsafe { bytes.as_ptr().cast::<Self>().read_unaligned() })
    }
}

macro_rules! map_types {
    ($($type:ty: $size:literal),* $(,)?) => {
        $(
            const _: () = assert!(size_of::<$type>() == $size);
            // SAFETY: `repr(C)`, integers and byte arrays only; the size is the sum of the fields (tested below).
            unsafe impl MapType for $type {}
            #[cfg(feature = "user")]
            // SAFETY: as above.
            unsafe impl aya::Pod for $type {}
        )*
    };
}

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

    /// The tuple of the answer: source and destination swapped.
    #[inline(always)]
    pub const fn reverse(&self) -> Self {
        Self { src: self.dst, dst: self.src, sport: self.dport, dport: self.sport, proto: self.proto, pad: [0; 3] }
    }
}

/// Key of `FRONTENDS_V4` and `FRONTENDS_V6`.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FrontendKey<A> {
    /// The VIP.
    pub addr: A,
    /// The port that clients dial.
    pub port: Be16,
    /// IANA protocol number.
    pub proto: u8,
    /// Keys are compared byte by byte: always zero.
    pub pad: u8,
}

/// Value of `FRONTENDS_V4` and `FRONTENDS_V6`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Frontend {
    /// Index into `SVC_COUNTERS`; the same for every frontend of one service port.
    pub service: u32,
    /// Index into `SELECTIONS` for packets that come in through an uplink.
    pub external: u32,
    /// Index into `SELECTIONS` for packets of pods and of this host.
    pub internal: u32,
    /// Bits of [`frontend_flags`].
    pub flags: u32,
    /// Session affinity time-out in seconds; zero unless the affinity flag is set.
    pub affinity_s: u32,
}

/// Bits of [`Frontend::flags`].
pub mod frontend_flags {
    /// Mask of the kind of address; the values follow.
    pub const KIND: u32 = 0b11;
    /// A ClusterIP.
    pub const CLUSTER_IP: u32 = 0;
    /// A node address with a nodePort.
    pub const NODE_PORT: u32 = 1;
    /// An address of a load balancer.
    pub const LOAD_BALANCER: u32 = 2;
    /// An ExternalIP.
    pub const EXTERNAL_IP: u32 = 3;
    /// New connections of one client go to one backend for `affinity_s`.
    pub const AFFINITY: u32 = 1 << 2;
    /// Only sources in `RANGES` are served.
    pub const SOURCE_RANGES: u32 = 1 << 3;
}

/// Value of `SELECTIONS`: one Maglev table, replaced by one 8-byte write (B77).
///
/// The low half is the first slot, the high half the number of slots. With zero slots the low half says why:
/// [`Selection::REJECT`] or [`Selection::DROP`].
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Selection(pub u64);

impl Selection {
    /// No endpoint anywhere (B64). All zero, so an unwritten selection rejects.
    pub const REJECT: Self = Self(0);
    /// No endpoint on this node, though there are others (B55).
    pub const DROP: Self = Self(1);

    /// `len` slots from `offset` on.
    #[inline(always)]
    pub const fn new(offset: u32, len: u32) -> Self {
        Self(((len as u64) << 32) | offset as u64)
    }

    /// The first slot.
    #[inline(always)]
    pub const fn offset(self) -> u32 {
        self.0 as u32
    }

    /// The number of slots; zero if there is nothing to choose from.
    #[inline(always)]
    pub const fn len(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Whether there is nothing to choose from.
    #[inline(always)]
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }
}

/// Slots in one element of `SLOTS`: one cache line.
pub const SLOTS_PER_ROW: u32 = 16;

/// Value of `SLOTS`: a run of 16 slots. Slot `i` is `rows[i / 16].0[i % 16]`, a backend id; zero names none.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotRow(pub [u32; SLOTS_PER_ROW as usize]);

/// Value of `BACKENDS_V4` and `BACKENDS_V6`; the index is the backend id, zero is never used.
///
/// A backend belongs to one service port: an endpoint that serves two has two ids. So a flow can tell from the id
/// alone whether its backend still serves its service.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Backend<A> {
    /// Address of the endpoint.
    pub addr: A,
    /// Port of the endpoint.
    pub port: Be16,
    /// Bits of [`backend_flags`]; zero means that the id is free.
    pub flags: u16,
    /// The service port it belongs to.
    pub service: u32,
}

/// Bits of [`Backend::flags`].
pub mod backend_flags {
    /// The id is in use.
    pub const PRESENT: u16 = 1;
    /// The endpoint is ready.
    pub const READY: u16 = 1 << 1;
    /// The endpoint still serves while it terminates.
    pub const SERVING: u16 = 1 << 2;
    /// The endpoint is going away.
    pub const TERMINATING: u16 = 1 << 3;
    /// The endpoint is on this node.
    pub const LOCAL: u16 = 1 << 4;
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

/// Bits of [`Flow::flags`]: what the flow is. They do not change while it lives, but for the next hop's.
pub mod flow_flags {
    /// Backend to client; otherwise client to backend.
    pub const REVERSE: u8 = 1;
    /// Applies where the packet leaves towards the client (tc egress); otherwise where it comes in.
    pub const EGRESS: u8 = 1 << 1;
    /// The connection's source is translated, so our programs forward it; otherwise the stack does.
    pub const SNAT: u8 = 1 << 2;
    /// `dst_mac` and `src_mac` are resolved.
    pub const HOP_RESOLVED: u8 = 1 << 3;
    /// XDP programs may send to `ifindex` from any device.
    pub const HOP_XDP: u8 = 1 << 4;
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

/// Value of `DEVICES`; the key is the ifindex.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// One of [`device_class`].
    pub class: u8,
    /// Bits of [`device_flags`].
    pub flags: u8,
    /// MTU in bytes.
    pub mtu: u16,
    /// The device's own address.
    pub mac: Mac,
    /// Always zero.
    pub pad: [u8; 2],
    /// Source for IPv4 connections that leave here; all zero if there is none.
    pub v4: [u8; 4],
    /// Source for IPv6 connections that leave here; all zero if there is none.
    pub v6: [u8; 16],
}

/// Values of [`Device::class`].
pub mod device_class {
    /// Not managed: known for its addresses only.
    pub const OTHER: u8 = 0;
    /// Faces the network.
    pub const UPLINK: u8 = 1;
    /// The host end of a pod's veth, or a bridge of pods.
    pub const WORKLOAD: u8 = 2;
    /// A tunnel to other nodes.
    pub const OVERLAY: u8 = 3;
}

/// Bits of [`Device::flags`].
pub mod device_flags {
    /// XDP programs may redirect frames to this device.
    pub const XDP_TARGET: u8 = 1;
}

/// The one value of `CONFIG`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Raised by the agent whenever anything a flow was derived from may have changed; never zero.
    pub epoch: u32,
    /// First source port for source NAT.
    pub snat_port_min: u16,
    /// Last source port for source NAT.
    pub snat_port_max: u16,
}

/// Key of `COUNTERS` is a [`crate::reason::Reason`]; of `SVC_COUNTERS` a service id. Both are per CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServiceCounters {
    /// Packets from clients.
    pub packets: u64,
    /// Bytes of their IP packets.
    pub bytes: u64,
    /// Packets from backends.
    pub reply_packets: u64,
    /// Bytes of their IP packets.
    pub reply_bytes: u64,
    /// Connections recorded.
    pub new_flows: u64,
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
    /// Always zero.
    pub pad: u32,
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

map_types!(
    Tuple<[u8; 4]>: 16, Tuple<[u8; 16]>: 40,
    FrontendKey<[u8; 4]>: 8, FrontendKey<[u8; 16]>: 20,
    Frontend: 20,
    Selection: 8,
    SlotRow: 64,
    Backend<[u8; 4]>: 12, Backend<[u8; 16]>: 24,
    Flow<[u8; 4]>: 64, Flow<[u8; 16]>: 88,
    Device: 32,
    Config: 8,
    ServiceCounters: 40,
    Scratch<[u8; 4]>: 192, Scratch<[u8; 16]>: 288,
);

/// What the agent checks of a pinned map before it uses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapSpec {
    /// Name in the object file and under the pin directory; at most 15 bytes, the kernel keeps no more.
    pub name: &'static str,
    /// Rises when old contents cannot be read any more.
    pub layout: u32,
    /// Elements unless configured otherwise.
    pub capacity: u32,
}

macro_rules! map_specs {
    ($($(#[$doc:meta])* $name:ident = $capacity:expr, layout $layout:literal;)*) => {
        $($(#[$doc])* pub const $name: MapSpec = MapSpec { name: stringify!($name), layout: $layout, capacity: $capacity };)*

        /// Every map.
        pub const ALL: &[MapSpec] = &[$($name),*];
    };
}

/// The maps by name.
pub mod spec {
    use super::MapSpec;

    map_specs! {
        /// IPv4 address, port, protocol -> [`super::Frontend`].
        FRONTENDS_V4 = 65_536, layout 1;
        /// The same for IPv6.
        FRONTENDS_V6 = 65_536, layout 1;
        /// Selection index -> [`super::Selection`]. Memory-mapped by the agent.
        SELECTIONS = 65_536, layout 1;
        /// Row index -> [`super::SlotRow`]. Memory-mapped by the agent.
        SLOTS = 1_048_576, layout 1;
        /// Backend id -> [`super::Backend`]. Memory-mapped by the agent.
        BACKENDS_V4 = 131_072, layout 1;
        /// The same for IPv6.
        BACKENDS_V6 = 131_072, layout 1;
        /// Established connections; never evicts.
        FLOWS_V4 = 262_144, layout 1;
        /// The same for IPv6.
        FLOWS_V6 = 262_144, layout 1;
        /// Connections without an answer yet; evicts the least recently used.
        EMBRYOS_V4 = 65_536, layout 1;
        /// The same for IPv6.
        EMBRYOS_V6 = 65_536, layout 1;
        /// ifindex -> [`super::Device`].
        DEVICES = 4_096, layout 1;
        /// [`super::Config`]. Memory-mapped by the agent.
        CONFIG = 1, layout 1;
        /// Reason -> `u64`, per CPU.
        COUNTERS = 64, layout 1;
        /// Service id -> [`super::ServiceCounters`], per CPU.
        SVC_COUNTERS = 65_536, layout 1;
        /// [`super::Scratch`], per CPU.
        SCRATCH_V4 = 1, layout 1;
        /// The same for IPv6.
        SCRATCH_V6 = 1, layout 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_the_kernels_limit() {
        for map in spec::ALL {
            assert!(map.name.len() <= 15, "{}", map.name);
        }
    }

    #[test]
    fn a_map_type_survives_the_way_through_bytes() {
        let tuple = Tuple {
            src: [10, 0, 0, 1],
            dst: [10, 96, 0, 1],
            sport: Be16::from_host(40_000),
            dport: Be16::from_host(80),
            proto: 6,
            pad: [0; 3],
        };
        assert_eq!(tuple.bytes(), [10, 0, 0, 1, 10, 96, 0, 1, 0x9c, 0x40, 0, 80, 6, 0, 0, 0]);
        assert_eq!(Tuple::from_bytes(tuple.bytes()), Some(tuple));
        assert_eq!(Tuple::<[u8; 4]>::from_bytes(&[0; 15]), None);
        assert_eq!(tuple.reverse().reverse(), tuple);
    }

    #[test]
    fn a_selection_is_one_word() {
        let selection = Selection::new(4096, 1009);
        assert_eq!((selection.offset(), selection.len(), selection.is_empty()), (4096, 1009, false));
        assert!(Selection::REJECT.is_empty() && Selection::DROP.is_empty());
        assert_eq!(Selection::default(), Selection::REJECT);
    }
}
