//! Services: frontends, selections, slots, backends.

use super::Tuple;
use crate::net::Be16;

/// Key of `FRONTENDS_V4` and `FRONTENDS_V6`.
///
/// Besides the frontends there is one row for each of their addresses ([`FrontendKey::of_address`]). It comes after
/// them and goes after them, so an address without a row has no frontend.
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

impl<A> FrontendKey<A> {
    /// The key of an address itself: no port, no protocol.
    #[inline(always)]
    pub const fn of_address(addr: A) -> Self {
        Self { addr, port: Be16::from_host(0), proto: 0, pad: 0 }
    }
}

impl<A: Copy> FrontendKey<A> {
    /// The key of what a packet of a client is addressed to.
    #[inline(always)]
    pub const fn dialled(tuple: &Tuple<A>) -> Self {
        Self { addr: tuple.dst, port: tuple.dport, proto: tuple.proto, pad: 0 }
    }
}

impl<A: Default> FrontendKey<A> {
    /// The key of a nodePort with direct server return, whichever node's: the address is the unspecified one.
    #[inline(always)]
    pub fn of_any_node(port: Be16, proto: u8) -> Self {
        Self { addr: A::default(), port, proto, pad: 0 }
    }
}

/// Value of `FRONTENDS_V4` and `FRONTENDS_V6`. In the row of an address only `flags` means something, the rest is zero.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
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

impl Frontend {
    /// The generation of the service's affinity, see [`frontend_flags::GENERATION_SHIFT`].
    #[inline(always)]
    pub const fn generation(&self) -> u32 {
        self.flags >> frontend_flags::GENERATION_SHIFT
    }
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
    /// `external` is the selection of the local set; otherwise it is the cluster set's.
    pub const EXTERNAL_LOCAL: u32 = 1 << 5;
    /// The same for `internal`.
    pub const INTERNAL_LOCAL: u32 = 1 << 6;
    /// Where the generation of the service's affinity begins, 8 bits: it changes when affinity is switched off, so that
    /// nothing of before counts when it is switched on again (B53).
    pub const GENERATION_SHIFT: u32 = 24;
    /// Direct server return: clients outside are answered by the backend's node itself.
    pub const DSR: u32 = 1 << 7;
    /// In the row of an address: all of it belongs to services, as no process of this node can listen there. So a port
    /// without a frontend is refused (B66) and an echo request answered (B43). Not set for addresses of the node.
    pub const VIP: u32 = 1 << 4;
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

    /// The slot for a connection: hashes are spread evenly over the slots. Out of range if there are none.
    #[inline(always)]
    pub const fn slot_of(self, hash: u32) -> u32 {
        self.offset().wrapping_add(((hash as u64 * self.len() as u64) >> 32) as u32)
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
    /// The endpoint is on a node of the cluster, this or another, so that pods' addresses are known there. Whatever else
    /// an endpoint may be, the stack has a say in how pods reach it: where a node hides its pods' addresses from the world
    /// (masquerading), it must do so here, too.
    pub const IN_CLUSTER: u16 = 1 << 5;
    /// New connections that use the cluster set may get it.
    pub const CLUSTER_SET: u16 = 1 << 6;
    /// New connections that use the local set may get it.
    pub const LOCAL_SET: u16 = 1 << 7;
}

/// Key of `AFFINITY_V4` and `AFFINITY_V6`: a client of a service port.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AffinityKey<A> {
    /// The client's address, before source NAT.
    pub client: A,
    /// The service port.
    pub service: u32,
    /// The generation of its affinity.
    pub generation: u32,
}

/// Value of `AFFINITY_V4` and `AFFINITY_V6`.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Affinity {
    /// The backend of the client's last new connection.
    pub backend: u32,
    /// [`crate::maps::Clock`] seconds of that connection.
    pub seen_s: u32,
}

/// Key of `RANGES_V4` and `RANGES_V6` behind the length of the prefix, which counts [`RangeKey::SERVICE_BITS`] more than
/// that of the range. The value means nothing.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RangeKey<A> {
    /// The service port, in native order.
    pub service: [u8; 4],
    /// An address.
    pub addr: A,
}

impl<A> RangeKey<A> {
    /// Bits before the address.
    pub const SERVICE_BITS: u32 = 32;

    /// The key of an address and a service port.
    #[inline(always)]
    pub const fn new(service: u32, addr: A) -> Self {
        Self { service: service.to_ne_bytes(), addr }
    }
}
