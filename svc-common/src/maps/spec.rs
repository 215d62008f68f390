//! The maps by name.

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
    /// [`super::AffinityKey`] -> [`super::Affinity`]; evicts the least recently used.
    AFFINITY_V4 = 65_536, layout 1;
    /// The same for IPv6.
    AFFINITY_V6 = 65_536, layout 1;
    /// Prefixes of [`super::RangeKey`]: whom a load balancer's address serves.
    RANGES_V4 = 16_384, layout 1;
    /// The same for IPv6.
    RANGES_V6 = 16_384, layout 1;
    /// [`super::Cidrs`].
    SVC_CIDRS_V4 = 1, layout 1;
    /// The same for IPv6.
    SVC_CIDRS_V6 = 1, layout 1;
    /// Established connections; never evicts.
    FLOWS_V4 = 262_144, layout 1;
    /// The same for IPv6.
    FLOWS_V6 = 262_144, layout 1;
    /// Connections without an answer yet; evicts the least recently used.
    EMBRYOS_V4 = 65_536, layout 1;
    /// The same for IPv6.
    EMBRYOS_V6 = 65_536, layout 1;
    /// Datagrams in pieces -> [`super::Datagram`]; evicts the least recently used.
    FRAGMENTS_V4 = 8_192, layout 1;
    /// The same for IPv6.
    FRAGMENTS_V6 = 8_192, layout 1;
    /// Pieces that came before the first of their datagram -> [`super::Held`]; evicts the least recently used.
    HELD_V4 = 2_048, layout 1;
    /// The same for IPv6.
    HELD_V6 = 2_048, layout 1;
    /// ifindex -> [`super::Device`].
    DEVICES = 4_096, layout 1;
    /// [`super::Config`]. Memory-mapped by the agent.
    CONFIG = 1, layout 2;
    /// Reason -> `u64`, per CPU.
    COUNTERS = 64, layout 1;
    /// Service id -> [`super::ServiceCounters`], per CPU.
    SVC_COUNTERS = 65_536, layout 1;
    /// [`crate::stage::Stage`] -> its program at XDP.
    STAGES_XDP = 8, layout 1;
    /// The same at tc ingress.
    STAGES_INGRESS = 8, layout 1;
    /// The same at tc egress.
    STAGES_EGRESS = 8, layout 1;
    /// [`super::Answers`], per CPU.
    ANSWERS = 1, layout 1;
    /// [`super::NewFlows`], per CPU.
    NEW_FLOWS = 1, layout 1;
    /// [`super::Event`]s; a ring buffer, its capacity is in bytes.
    EVENTS = 524_288, layout 1;
    /// [`super::EventsWanted`]. Memory-mapped by the agent.
    EVENTS_WANTED = 1, layout 1;
    /// [`super::EventsSent`], per CPU.
    EVENTS_SENT = 2, layout 1;
    /// Which ports the agent has reserved against local sockets. For the agent alone: it remembers here what outlives it.
    RESERVED_PORTS = 1, layout 1;
    /// [`super::Scratch`], per CPU.
    SCRATCH_V4 = 1, layout 2;
    /// The same for IPv6.
    SCRATCH_V6 = 1, layout 2;
    /// Socket cookie, peer -> [`super::SocketNat`]; never evicts.
    SOCKET_NAT = 262_144, layout 1;
    /// Socket cookie -> [`super::Socket`]; never evicts.
    SOCKETS = 131_072, layout 1;
    /// Cookie of a network namespace whose sockets are left alone -> `u8`, always one.
    SOCKET_SKIP = 4_096, layout 1;
    /// [`super::SocketConfig`].
    SOCKET_CONFIG = 1, layout 1;
    /// [`crate::stage::rare::Located`], per CPU.
    RARE_V4 = 1, layout 2;
    /// The same for IPv6.
    RARE_V6 = 1, layout 2;
    /// [`super::Held`], per CPU: a frame that is about to be held, or that waits while held ones are sent.
    HELD_SCRATCH = 1, layout 1;
}
