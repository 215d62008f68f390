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
    /// Who writes it.
    pub writer: Writer,
}

/// Who writes a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writer {
    /// The agent; the programs only read, which a test has the verifier prove.
    Agent,
    /// The programs; the agent may remove from it.
    Programs,
    /// The agent, for itself or for the programs that it has loaded: other copies of them have their own.
    Loader,
}

macro_rules! map_specs {
    ($($(#[$doc:meta])* $name:ident = $capacity:expr, layout $layout:literal, written by $writer:ident;)*) => {
        $(
            $(#[$doc])*
            pub const $name: MapSpec =
                MapSpec { name: stringify!($name), layout: $layout, capacity: $capacity, writer: Writer::$writer };
        )*

        /// Every map.
        pub const ALL: &[MapSpec] = &[$($name),*];
    };
}

map_specs! {
    /// IPv4 address, port, protocol -> [`super::Frontend`].
    FRONTENDS_V4 = 65_536, layout 1, written by Agent;
    /// The same for IPv6.
    FRONTENDS_V6 = 65_536, layout 1, written by Agent;
    /// Selection index -> [`super::Selection`]. Memory-mapped by the agent.
    SELECTIONS = 65_536, layout 1, written by Agent;
    /// Row index -> [`super::SlotRow`]. Memory-mapped by the agent.
    SLOTS = 1_048_576, layout 1, written by Agent;
    /// Backend id -> [`super::Backend`]. Memory-mapped by the agent.
    BACKENDS_V4 = 131_072, layout 1, written by Agent;
    /// The same for IPv6.
    BACKENDS_V6 = 131_072, layout 1, written by Agent;
    /// [`super::AffinityKey`] -> [`super::Affinity`]; evicts the least recently used.
    AFFINITY_V4 = 65_536, layout 1, written by Programs;
    /// The same for IPv6.
    AFFINITY_V6 = 65_536, layout 1, written by Programs;
    /// Prefixes of [`super::RangeKey`]: whom a load balancer's address serves.
    RANGES_V4 = 16_384, layout 1, written by Agent;
    /// The same for IPv6.
    RANGES_V6 = 16_384, layout 1, written by Agent;
    /// [`super::Cidrs`].
    SVC_CIDRS_V4 = 1, layout 1, written by Agent;
    /// The same for IPv6.
    SVC_CIDRS_V6 = 1, layout 1, written by Agent;
    /// Established connections; never evicts.
    FLOWS_V4 = 262_144, layout 1, written by Programs;
    /// The same for IPv6.
    FLOWS_V6 = 262_144, layout 1, written by Programs;
    /// Connections without an answer yet; evicts the least recently used.
    EMBRYOS_V4 = 65_536, layout 1, written by Programs;
    /// The same for IPv6.
    EMBRYOS_V6 = 65_536, layout 1, written by Programs;
    /// Datagrams in pieces -> [`super::Datagram`]; evicts the least recently used.
    FRAGMENTS_V4 = 8_192, layout 1, written by Programs;
    /// The same for IPv6.
    FRAGMENTS_V6 = 8_192, layout 1, written by Programs;
    /// Pieces that came before the first of their datagram -> [`super::Held`]; evicts the least recently used.
    HELD_V4 = 2_048, layout 1, written by Programs;
    /// The same for IPv6.
    HELD_V6 = 2_048, layout 1, written by Programs;
    /// [`crate::known::place`] -> `u64`, a bit for each port. Memory-mapped by the agent.
    KNOWN = crate::known::WORDS, layout 1, written by Agent;
    /// ifindex -> [`super::Device`].
    DEVICES = 4_096, layout 1, written by Agent;
    /// [`super::Config`]. Memory-mapped by the agent.
    CONFIG = 1, layout 2, written by Agent;
    /// Reason -> `u64`, per CPU.
    COUNTERS = 64, layout 1, written by Programs;
    /// Service id -> [`super::ServiceCounters`], per CPU.
    SVC_COUNTERS = 65_536, layout 1, written by Programs;
    /// [`crate::stage::Stage`] -> its program at XDP.
    STAGES_XDP = 8, layout 1, written by Loader;
    /// The same at tc ingress.
    STAGES_INGRESS = 8, layout 1, written by Loader;
    /// The same at tc egress.
    STAGES_EGRESS = 8, layout 1, written by Loader;
    /// [`super::Answers`], per CPU.
    ANSWERS = 1, layout 1, written by Programs;
    /// [`super::NewFlows`], per CPU.
    NEW_FLOWS = 1, layout 1, written by Programs;
    /// [`super::Event`]s; a ring buffer, its capacity is in bytes.
    EVENTS = 524_288, layout 1, written by Programs;
    /// [`super::EventsWanted`]. Memory-mapped by the agent.
    EVENTS_WANTED = 1, layout 1, written by Loader;
    /// [`super::EventsSent`], per CPU.
    EVENTS_SENT = 2, layout 1, written by Programs;
    /// Which ports the agent has reserved against local sockets. For the agent alone: it remembers here what outlives it.
    RESERVED_PORTS = 1, layout 1, written by Loader;
    /// [`super::Scratch`], per CPU.
    SCRATCH_V4 = 1, layout 2, written by Programs;
    /// The same for IPv6.
    SCRATCH_V6 = 1, layout 2, written by Programs;
    /// Socket cookie, peer -> [`super::SocketNat`]; never evicts.
    SOCKET_NAT = 262_144, layout 1, written by Programs;
    /// Socket cookie -> [`super::Socket`]; never evicts.
    SOCKETS = 131_072, layout 1, written by Programs;
    /// Cookie of a network namespace whose sockets are left alone -> `u8`, always one.
    SOCKET_SKIP = 4_096, layout 1, written by Agent;
    /// [`super::SocketConfig`].
    SOCKET_CONFIG = 1, layout 1, written by Agent;
    /// [`crate::stage::rare::Located`], per CPU.
    RARE_V4 = 1, layout 2, written by Programs;
    /// The same for IPv6.
    RARE_V6 = 1, layout 2, written by Programs;
    /// [`super::Held`], per CPU: a frame that is about to be held, or that waits while held ones are sent.
    HELD_SCRATCH = 1, layout 1, written by Programs;
}
