//! What the pipeline needs of the world: maps, clock, routes, counters.

use crate::{
    family::Family,
    maps::{
        Affinity, AffinityKey, Answers, Backend, Cidrs, Clock, Config, Device, Flow, Frontend, FrontendKey, NewFlows,
        Scratch, Selection, Tuple,
    },
    net::Mac,
    reason::Note,
    stage::rare::fragment::Fragments,
};

/// Which flow table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// `FLOWS`: never evicts.
    Established,
    /// `EMBRYOS`: evicts the least recently used.
    Embryo,
}

/// Why a flow was not inserted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InsertError {
    /// The key is taken.
    Exists,
    /// There is no room.
    Full,
}

/// Where a packet would go, by the node's routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// To this host itself, or nowhere: the stack's business.
    Stack,
    /// Out of a device.
    Via(NextHop),
}

/// A way out of this node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NextHop {
    /// The egress device.
    pub ifindex: u32,
    /// MTU in bytes.
    pub mtu: u16,
    /// The neighbour; zero if it is not resolved.
    pub dst_mac: Mac,
    /// The device's own address, likewise.
    pub src_mac: Mac,
}

impl NextHop {
    /// Whether the neighbour's address is known.
    #[inline(always)]
    pub fn is_resolved(&self) -> bool {
        self.dst_mac != Mac::default()
    }
}

/// The world around one packet.
pub trait Env<F: Family>: Fragments<F> {
    /// Owner of the memory that [`Env::scratch`] lends.
    type Scratch: core::ops::DerefMut<Target = Scratch<F::Addr>>;

    /// Working memory for this packet, contents undefined. Not to be asked for twice.
    fn scratch(&mut self) -> Option<Self::Scratch>;

    /// The datapath's clock.
    fn now(&mut self) -> Clock;

    /// The agent's settings.
    fn config(&mut self) -> Config;

    /// Looks a flow up in the established table; with it come the time and the agent's epoch.
    fn lookup_flow_now(&mut self, key: &Tuple<F::Addr>) -> Option<(&mut Flow<F::Addr>, Clock, u32)> {
        let (now, epoch) = (self.now(), self.config().epoch);
        self.lookup_flow(Table::Established, key).map(|flow| (flow, now, epoch))
    }

    /// Looks a flow up. What is written through the reference is in the table at once.
    fn lookup_flow(&mut self, table: Table, key: &Tuple<F::Addr>) -> Option<&mut Flow<F::Addr>>;

    /// Copies a flow from whichever table has it; whether one has.
    #[inline(always)]
    fn recall_flow(&mut self, key: &Tuple<F::Addr>, flow: &mut Flow<F::Addr>) -> bool {
        for table in [Table::Established, Table::Embryo] {
            if let Some(stored) = self.lookup_flow(table, key) {
                *flow = *stored;
                return true;
            }
        }
        false
    }

    /// Inserts a flow unless its key is taken.
    ///
    /// # Errors
    /// [`InsertError`]; the table is as before.
    fn insert_flow(&mut self, table: Table, key: &Tuple<F::Addr>, flow: &Flow<F::Addr>) -> Result<(), InsertError>;

    /// Removes a flow if it is there.
    fn remove_flow(&mut self, table: Table, key: &Tuple<F::Addr>);

    /// Removes a flow that had no packet for `limit_s` seconds. One that has a packet at this very moment stays, or is
    /// there again afterwards.
    fn remove_silent(&mut self, table: Table, key: &Tuple<F::Addr>, now: Clock, limit_s: u32);

    /// Looks a frontend up.
    fn lookup_frontend(&mut self, key: &FrontendKey<F::Addr>) -> Option<&Frontend>;

    /// A word of the filter ([`crate::known`]).
    fn known(&mut self, place: u32) -> u64;

    /// Where ClusterIPs are taken from.
    fn service_cidrs(&mut self) -> Option<&Cidrs<F::Addr>>;

    /// Whether an address is in one of the source ranges of a service.
    fn in_ranges(&mut self, service: u32, addr: &F::Addr) -> bool;

    /// Looks up which backend a client has. What is written through the reference is in the table at once.
    fn lookup_affinity(&mut self, key: &AffinityKey<F::Addr>) -> Option<&mut Affinity>;

    /// Records which backend a client has, unless that is recorded.
    ///
    /// # Errors
    /// [`InsertError`]; the table is as before.
    fn insert_affinity(&mut self, key: &AffinityKey<F::Addr>, affinity: &Affinity) -> Result<(), InsertError>;

    /// The selection at an index; [`Selection::REJECT`] out of range.
    fn selection(&mut self, index: u32) -> Selection;

    /// The backend id in a slot; zero out of range.
    fn slot(&mut self, slot: u32) -> u32;

    /// Looks a backend up; one that is not present is not found.
    fn lookup_backend(&mut self, id: u32) -> Option<&Backend<F::Addr>>;

    /// Looks a device up.
    fn lookup_device(&mut self, ifindex: u32) -> Option<&Device>;

    /// The device's source address of this family; the default if it has none.
    fn device_address(device: &Device) -> F::Addr;

    /// Where a packet with these addresses that came in through `ifindex` would be sent.
    fn route(&mut self, src: &F::Addr, dst: &F::Addr, proto: u8, ifindex: u32) -> Route;

    /// The address that this node would use itself on the route looked up last; the default if the kernel does not tell.
    fn source(&mut self) -> F::Addr;

    /// Whether a socket of this node would take a packet with this tuple.
    fn has_socket(&mut self, tuple: &Tuple<F::Addr>) -> bool;

    /// What was answered in this second.
    fn answers(&mut self) -> Option<&mut Answers>;

    /// Which connections began and were established in this second.
    fn new_flows(&mut self) -> Option<&mut NewFlows>;

    /// Counts what says nothing of the packet's fate. The reason for that is counted with the outcome ([`Packed::reason`]).
    ///
    /// [`Packed::reason`]: crate::outcome::Packed::reason
    fn note(&mut self, note: Note);

    /// Counts a packet of a service.
    fn count_service(&mut self, service: u32, reverse: bool, bytes: u32);

    /// Counts a recorded connection of a service.
    fn count_new_flow(&mut self, service: u32);

    /// Tells of a connection that was recorded ([`event_kind::BEGIN`]) or removed ([`event_kind::END`]), if anybody wants to
    /// know.
    ///
    /// [`event_kind::BEGIN`]: crate::maps::event_kind::BEGIN
    /// [`event_kind::END`]: crate::maps::event_kind::END
    fn tell_flow(&mut self, kind: u8, key: &Tuple<F::Addr>, flow: &Flow<F::Addr>);
}
