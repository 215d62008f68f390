//! The node: devices, settings, counters.

use super::Clock;
use crate::net::Mac;

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

/// Words of the one value of `RESERVED_PORTS`, which has a bit for each port.
pub const PORT_WORDS: usize = 1024;

/// Bits of [`Device::flags`].
pub mod device_flags {
    /// XDP programs may redirect frames to this device.
    pub const XDP_TARGET: u8 = 1;
    /// Our programs forward connections from and to this device past the stack. A workload device with this flag has its
    /// other end in another network namespace, where packets are put straight into it.
    pub const FAST: u8 = 1 << 1;
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
    /// Connections that one CPU may begin in a second, and that it may establish; zero means any number.
    pub max_new_flows: u32,
    /// One of [`encapsulation`].
    pub encapsulation: u32,
}

/// Values of [`Config::encapsulation`]: what carries a packet to its backend's node.
pub mod encapsulation {
    /// A header of IP.
    pub const IPIP: u32 = 0;
    /// Geneve: IP, UDP and a header of its own.
    pub const GENEVE: u32 = 1;
}

/// How many networks [`Cidrs`] holds.
pub const MAX_CIDRS: usize = 4;

/// A network. With a mask of zero there is none.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cidr<A> {
    /// Its first address.
    pub addr: A,
    /// The bits that its addresses have in common.
    pub mask: A,
}

/// The one value of `SVC_CIDRS_V4` and `SVC_CIDRS_V6`: where ClusterIPs are taken from.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cidrs<A>(pub [Cidr<A>; MAX_CIDRS]);

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

/// The one value of `ANSWERS`, per CPU: how many packets were made in this second, so that they stay few (B41).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// The second.
    pub second: Clock,
    /// How many in it.
    pub count: u32,
}

impl Answers {
    /// Answers per second and CPU, as many as the kernel gives on all CPUs together (`icmp_msgs_per_sec`).
    pub const LIMIT: u32 = 1_000;

    /// Whether one more may be given now; if so, it is counted.
    #[inline(always)]
    pub fn take(&mut self, now: Clock) -> bool {
        if self.second != now {
            *self = Self { second: now, count: 0 };
        }
        if self.count >= Self::LIMIT {
            return false;
        }
        self.count += 1;
        true
    }
}

/// The one value of `NEW_FLOWS`, per CPU: what one CPU did in this second, so that a flood leaves it time and the tables room
/// (B23).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NewFlows {
    /// The second.
    pub second: Clock,
    /// Connections that began in it.
    pub begun: u32,
    /// Connections that were moved to the established table.
    pub established: u32,
}

impl NewFlows {
    /// Whether a connection may begin now; if so, it is counted.
    #[inline(always)]
    pub fn may_begin(&mut self, now: Clock, limit: u32) -> bool {
        self.turn(now);
        self.begun = self.begun.saturating_add(1);
        limit == 0 || self.begun <= limit
    }

    /// Whether a connection may be established now; if so, it is counted.
    #[inline(always)]
    pub fn may_establish(&mut self, now: Clock, limit: u32) -> bool {
        self.turn(now);
        self.established = self.established.saturating_add(1);
        limit == 0 || self.established <= limit
    }

    #[inline(always)]
    fn turn(&mut self, now: Clock) {
        if self.second != now {
            *self = Self { second: now, begun: 0, established: 0 };
        }
    }
}
