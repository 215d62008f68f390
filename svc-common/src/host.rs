//! The environment in memory: the same pipeline without a kernel, for tests, simulation and as the oracle of the loaded
//! programs.

use std::collections::{HashMap, HashSet, hash_map::Entry};

use crate::{
    env::{Env, InsertError, Route, Table},
    expire,
    family::{Family, V4, V6},
    maps::{
        Affinity, AffinityKey, Answers, Backend, Cidrs, Clock, Config, Datagram, DatagramKey, Device, Flow, Frontend,
        FrontendKey, Held, HeldKey, NewFlows, SLOTS_PER_ROW, Scratch, Selection, ServiceCounters, SlotRow, Tuple,
    },
    outcome::Outcome,
    packet::{Frame, Hook, Packet},
    pipeline,
    reason::{Note, Reason},
    stage::{
        self, Stage,
        rare::{Located, fragment::Fragments},
    },
};

/// Runs a frame through the pipeline and whatever stages it needs.
fn run<F: Family, P: Packet>(pkt: &mut P, memory: &mut Memory) -> Outcome
where
    Memory: Env<F>,
{
    let mut packed = pipeline::run::<F, P, Memory, false>(pkt, memory);
    while let Outcome::Continue(stage) = packed.outcome() {
        memory.touched.stages.push(stage);
        packed = stage::run::<F, P, Memory>(stage, pkt, memory);
    }
    if let Some(reason) = packed.reason() {
        memory.count(reason);
    }
    packed.outcome()
}

/// Runs a frame that comes in through (at egress: leaves by) a device: what becomes of it, and what it is then. If
/// `segment_payload` is not zero, it is an aggregate of packets with so many bytes of payload each.
pub fn run_frame(
    memory: &mut Memory,
    hook: Hook,
    frame: &[u8],
    ifindex: u32,
    segment_payload: u32,
) -> (Outcome, Vec<u8>) {
    match hook {
        Hook::Xdp => run_at(memory, Frame::<0>::new(frame, ifindex).aggregate(segment_payload)),
        Hook::Ingress => run_at(memory, Frame::<1>::new(frame, ifindex).aggregate(segment_payload)),
        Hook::Egress => run_at(memory, Frame::<2>::new(frame, ifindex).aggregate(segment_payload)),
    }
}

fn run_at<const H: u8>(memory: &mut Memory, mut frame: Frame<H>) -> (Outcome, Vec<u8>) {
    let outcome = match frame.bytes().get(12..14) {
        Some([0x08, 0x00]) => run::<V4, _>(&mut frame, memory),
        Some([0x86, 0xdd]) => run::<V6, _>(&mut frame, memory),
        _ => Outcome::Pass,
    };
    memory.again.append(&mut frame.again);
    (outcome, frame.bytes().to_vec())
}

/// A route to all addresses that begin alike.
#[derive(Clone, Copy, Debug)]
pub struct Prefix<A> {
    /// What they begin with.
    pub addr: A,
    /// How many bits of it.
    pub bits: u8,
    /// The route.
    pub route: Route,
}

impl<A: AsRef<[u8]>> Prefix<A> {
    fn holds(&self, addr: &A) -> bool {
        begin_alike(self.addr.as_ref(), addr.as_ref(), self.bits)
    }
}

/// Whether the first `bits` bits of two addresses are the same.
fn begin_alike(own: &[u8], addr: &[u8], bits: u8) -> bool {
    let (whole, rest) = (usize::from(bits / 8), bits % 8);
    let differ = own.get(whole).zip(addr.get(whole)).map_or(0, |(own, addr)| own ^ addr);
    own.get(..whole) == addr.get(..whole) && u16::from(differ) >> (8 - rest) == 0
}

/// The maps of one family, and the routes that the kernel would find.
#[derive(Clone, Debug)]
pub struct Tables<F: Family> {
    /// `FRONTENDS`.
    pub frontends: HashMap<FrontendKey<F::Addr>, Frontend>,
    /// `BACKENDS`.
    pub backends: HashMap<u32, Backend<F::Addr>>,
    /// `SVC_CIDRS`.
    pub service_cidrs: Cidrs<F::Addr>,
    /// `RANGES`: service, address, bits.
    pub ranges: HashSet<(u32, F::Addr, u8)>,
    /// `AFFINITY`. Nothing is evicted.
    pub affinity: HashMap<AffinityKey<F::Addr>, Affinity>,
    /// `FLOWS`.
    pub flows: HashMap<Tuple<F::Addr>, Flow<F::Addr>>,
    /// How many flows fit.
    pub flows_capacity: usize,
    /// `EMBRYOS`. Nothing is evicted: the oracle stays below its size.
    pub embryos: HashMap<Tuple<F::Addr>, Flow<F::Addr>>,
    /// `FRAGMENTS`; likewise.
    pub datagrams: HashMap<DatagramKey<F::Addr>, Datagram>,
    /// `HELD`; likewise.
    pub held: HashMap<HeldKey<F::Addr>, Held>,
    /// `RARE`, while a stage that comes next wants it.
    pub located: Option<Box<Located<F::Addr>>>,
    /// Destination -> route.
    pub routes: HashMap<F::Addr, Route>,
    /// Routes to networks; the longest that fits counts, but for one to the very destination.
    pub prefixes: Vec<Prefix<F::Addr>>,
    /// Where everything else goes.
    pub default_route: Route,
    /// Protocols and ports of the node's sockets.
    pub sockets: HashSet<(u8, u16)>,
    /// The address that the node uses itself on every route; the default if the kernel does not tell.
    pub source: F::Addr,
}

impl<F: Family> Default for Tables<F> {
    fn default() -> Self {
        Self {
            frontends: HashMap::new(),
            backends: HashMap::new(),
            service_cidrs: Cidrs::default(),
            ranges: HashSet::new(),
            affinity: HashMap::new(),
            flows: HashMap::new(),
            flows_capacity: usize::MAX,
            embryos: HashMap::new(),
            datagrams: HashMap::new(),
            held: HashMap::new(),
            located: None,
            routes: HashMap::new(),
            prefixes: Vec::new(),
            default_route: Route::Stack,
            sockets: HashSet::new(),
            source: F::Addr::default(),
        }
    }
}

/// What was looked up, inserted, removed or counted, so that a comparison need not go through everything.
#[derive(Clone, Debug, Default)]
pub struct Touched {
    /// Stages that were run.
    pub stages: Vec<Stage>,
    /// Flows of IPv4.
    pub v4: Vec<(Table, Tuple<[u8; 4]>)>,
    /// Flows of IPv6.
    pub v6: Vec<(Table, Tuple<[u8; 16]>)>,
    /// Counters.
    pub reasons: Vec<Reason>,
    /// Counters of services.
    pub services: Vec<u32>,
}

impl Touched {
    /// Starts anew.
    pub fn clear(&mut self) {
        self.stages.clear();
        self.v4.clear();
        self.v6.clear();
        self.reasons.clear();
        self.services.clear();
    }
}

/// The whole environment.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// IPv4.
    pub v4: Tables<V4>,
    /// IPv6.
    pub v6: Tables<V6>,
    /// `SELECTIONS`.
    pub selections: HashMap<u32, Selection>,
    /// `SLOTS`, by row.
    pub rows: HashMap<u32, SlotRow>,
    /// `DEVICES`.
    pub devices: HashMap<u32, Device>,
    /// `KNOWN`, if packets of others are to be told by it.
    pub known: Option<HashMap<u32, u64>>,
    /// `CONFIG`.
    pub config: Config,
    /// `COUNTERS`.
    pub counters: HashMap<Reason, u64>,
    /// `SVC_COUNTERS`.
    pub services: HashMap<u32, ServiceCounters>,
    /// `ANSWERS`.
    pub answers: Answers,
    /// `NEW_FLOWS`.
    pub new_flows: NewFlows,
    /// The clock.
    pub now: Clock,
    /// Frames that were sent again, for the owner to run and remove.
    pub again: Vec<Vec<u8>>,
    /// What happened since the owner last cleared it.
    pub touched: Touched,
    /// What the socket hooks work with.
    pub sockets: crate::socket::host::Tables,
}

impl Memory {
    fn count(&mut self, reason: Reason) {
        self.touched.reasons.push(reason);
        *self.counters.entry(reason).or_default() += 1;
    }
}

macro_rules! family {
    ($family:ty, $addr:ty, $tables:ident, $device_address:ident) => {
        impl Fragments<$family> for Memory {
            type Located = Box<Located<$addr>>;
            type Held = Box<Held>;

            fn located(&mut self) -> Option<Self::Located> {
                Some(self.$tables.located.take().unwrap_or_default())
            }

            fn keep_located(&mut self, located: Self::Located) {
                self.$tables.located = Some(located);
            }

            fn held_scratch(&mut self) -> Option<Box<Held>> {
                Some(Box::default())
            }

            fn lookup_datagram(&mut self, key: &DatagramKey<$addr>) -> Option<&mut Datagram> {
                self.$tables.datagrams.get_mut(key)
            }

            fn insert_datagram(&mut self, key: &DatagramKey<$addr>, datagram: &Datagram) {
                self.$tables.datagrams.entry(*key).or_insert(*datagram);
            }

            fn lookup_held(&mut self, key: &HeldKey<$addr>) -> Option<&Held> {
                self.$tables.held.get(key)
            }

            fn insert_held(&mut self, key: &HeldKey<$addr>, held: &Held) -> Result<(), InsertError> {
                if self.$tables.held.contains_key(key) {
                    return Err(InsertError::Exists);
                }
                self.$tables.held.insert(*key, *held);
                Ok(())
            }

            fn remove_held(&mut self, key: &HeldKey<$addr>) -> bool {
                self.$tables.held.remove(key).is_some()
            }
        }

        impl Env<$family> for Memory {
            type Scratch = Box<Scratch<$addr>>;

            fn scratch(&mut self) -> Option<Self::Scratch> {
                Some(Box::default())
            }

            fn now(&mut self) -> Clock {
                self.now
            }

            fn config(&mut self) -> Config {
                self.config
            }

            fn lookup_flow(&mut self, table: Table, key: &Tuple<$addr>) -> Option<&mut Flow<$addr>> {
                self.touched.$tables.push((table, *key));
                match table {
                    Table::Established => self.$tables.flows.get_mut(key),
                    Table::Embryo => self.$tables.embryos.get_mut(key),
                }
            }

            fn insert_flow(&mut self, table: Table, key: &Tuple<$addr>, flow: &Flow<$addr>) -> Result<(), InsertError> {
                self.touched.$tables.push((table, *key));
                let capacity = self.$tables.flows_capacity;
                let (flows, full) = match table {
                    Table::Established => (&mut self.$tables.flows, capacity),
                    Table::Embryo => (&mut self.$tables.embryos, usize::MAX),
                };
                if flows.contains_key(key) {
                    return Err(InsertError::Exists);
                }
                if flows.len() >= full {
                    return Err(InsertError::Full);
                }
                flows.insert(*key, *flow);
                Ok(())
            }

            fn remove_flow(&mut self, table: Table, key: &Tuple<$addr>) {
                self.touched.$tables.push((table, *key));
                match table {
                    Table::Established => self.$tables.flows.remove(key),
                    Table::Embryo => self.$tables.embryos.remove(key),
                };
            }

            fn remove_silent(&mut self, table: Table, key: &Tuple<$addr>, now: Clock, limit_s: u32) {
                let silent = |flow: &&mut Flow<$addr>| expire::since(now, flow.seen_s) >= limit_s;
                if Env::<$family>::lookup_flow(self, table, key).filter(silent).is_some() {
                    Env::<$family>::remove_flow(self, table, key);
                }
            }

            fn lookup_frontend(&mut self, key: &FrontendKey<$addr>) -> Option<&Frontend> {
                self.$tables.frontends.get(key)
            }

            fn known(&mut self, place: u32) -> u64 {
                self.known.as_ref().map_or(u64::MAX, |words| words.get(&place).copied().unwrap_or_default())
            }

            fn service_cidrs(&mut self) -> Option<&Cidrs<$addr>> {
                Some(&self.$tables.service_cidrs)
            }

            fn in_ranges(&mut self, service: u32, addr: &$addr) -> bool {
                let mut ranges = self.$tables.ranges.iter();
                ranges.any(|(owner, net, bits)| *owner == service && begin_alike(net, addr, *bits))
            }

            fn lookup_affinity(&mut self, key: &AffinityKey<$addr>) -> Option<&mut Affinity> {
                self.$tables.affinity.get_mut(key)
            }

            fn insert_affinity(&mut self, key: &AffinityKey<$addr>, affinity: &Affinity) -> Result<(), InsertError> {
                match self.$tables.affinity.entry(*key) {
                    Entry::Occupied(_) => Err(InsertError::Exists),
                    Entry::Vacant(entry) => {
                        entry.insert(*affinity);
                        Ok(())
                    }
                }
            }

            fn selection(&mut self, index: u32) -> Selection {
                self.selections.get(&index).copied().unwrap_or_default()
            }

            fn slot(&mut self, slot: u32) -> u32 {
                let row = self.rows.get(&(slot / SLOTS_PER_ROW));
                row.and_then(|row| row.0.get((slot % SLOTS_PER_ROW) as usize)).copied().unwrap_or(0)
            }

            fn lookup_backend(&mut self, id: u32) -> Option<&Backend<$addr>> {
                self.$tables.backends.get(&id).filter(|backend| backend.flags != 0)
            }

            fn lookup_device(&mut self, ifindex: u32) -> Option<&Device> {
                self.devices.get(&ifindex)
            }

            fn device_address(device: &Device) -> $addr {
                device.$device_address
            }

            fn route(&mut self, _src: &$addr, dst: &$addr, _proto: u8, _ifindex: u32) -> Route {
                let tables = &self.$tables;
                let network = || tables.prefixes.iter().filter(|it| it.holds(dst)).max_by_key(|it| it.bits);
                let route = tables.routes.get(dst).copied().or_else(|| network().map(|it| it.route));
                route.unwrap_or(tables.default_route)
            }

            fn source(&mut self) -> $addr {
                self.$tables.source
            }

            fn has_socket(&mut self, tuple: &Tuple<$addr>) -> bool {
                self.$tables.sockets.contains(&(tuple.proto, tuple.dport.to_host()))
            }

            fn answers(&mut self) -> Option<&mut Answers> {
                Some(&mut self.answers)
            }

            fn new_flows(&mut self) -> Option<&mut NewFlows> {
                Some(&mut self.new_flows)
            }

            fn note(&mut self, note: Note) {
                self.count(note.reason());
            }

            fn count_service(&mut self, service: u32, reverse: bool, bytes: u32) {
                self.touched.services.push(service);
                let counters = self.services.entry(service).or_default();
                if reverse {
                    counters.reply_packets += 1;
                    counters.reply_bytes += u64::from(bytes);
                } else {
                    counters.packets += 1;
                    counters.bytes += u64::from(bytes);
                }
            }

            fn tell_flow(&mut self, _kind: u8, _key: &Tuple<$addr>, _flow: &Flow<$addr>) {}

            fn count_new_flow(&mut self, service: u32) {
                self.touched.services.push(service);
                self.services.entry(service).or_default().new_flows += 1;
            }
        }
    };
}

family!(V4, [u8; 4], v4, v4);
family!(V6, [u8; 16], v6, v6);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_and_the_address_itself_come_first() {
        let via = |ifindex| Route::Via(crate::env::NextHop { ifindex, ..Default::default() });
        let mut memory = Memory::default();
        let tables = &mut memory.v4;
        tables.default_route = via(1);
        for (addr, bits, ifindex) in [([10, 0, 0, 0], 8, 2), ([10, 244, 1, 128], 25, 3), ([10, 244, 0, 0], 16, 4)] {
            tables.prefixes.push(Prefix { addr, bits, route: via(ifindex) });
        }
        tables.routes.insert([10, 244, 1, 200], Route::Stack);
        let mut route = |dst| Env::<V4>::route(&mut memory, &[0; 4], &dst, 6, 1);
        assert_eq!(route([192, 0, 2, 1]), via(1));
        assert_eq!(route([10, 1, 1, 1]), via(2));
        assert_eq!(route([10, 244, 1, 127]), via(4));
        assert_eq!(route([10, 244, 1, 129]), via(3));
        assert_eq!(route([10, 244, 1, 200]), Route::Stack);
    }
}
