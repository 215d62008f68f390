//! Every map, and the environment over them.
#![expect(unsafe_code, reason = "map values are shared with other CPUs")]

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_NOEXIST},
    macros::map,
    maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, lpm_trie::Key},
};
use svc_common::{
    env::{Env, InsertError, Route, Table},
    expire,
    family::{V4, V6},
    maps::{
        Affinity, AffinityKey, Answers, Backend, Cidrs, Clock, Config, Device, Flow, Frontend, FrontendKey, NewFlows,
        PORT_WORDS, RangeKey, SLOTS_PER_ROW, Scratch, Selection, ServiceCounters, SlotRow, Tuple, spec,
    },
    reason::{Note, Reason},
};

use crate::{
    debug_log, events,
    kernel::{self, FibLookup},
};

// Written by the agent only; read here.
#[map]
static SELECTIONS: Array<Selection> = Array::with_max_entries(spec::SELECTIONS.capacity, BPF_F_MMAPABLE);
#[map]
static SLOTS: Array<SlotRow> = Array::with_max_entries(spec::SLOTS.capacity, BPF_F_MMAPABLE);
#[map]
static KNOWN: Array<u64> = Array::with_max_entries(spec::KNOWN.capacity, BPF_F_MMAPABLE);
#[map]
static DEVICES: HashMap<u32, Device> = HashMap::with_max_entries(spec::DEVICES.capacity, 0);
#[map]
static CONFIG: Array<Config> = Array::with_max_entries(spec::CONFIG.capacity, BPF_F_MMAPABLE);
// For the agent alone.
#[map]
static RESERVED_PORTS: Array<[u64; PORT_WORDS]> = Array::with_max_entries(spec::RESERVED_PORTS.capacity, 0);
// Written here, per CPU.
#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(spec::COUNTERS.capacity, 0);
#[map]
static SVC_COUNTERS: PerCpuArray<ServiceCounters> = PerCpuArray::with_max_entries(spec::SVC_COUNTERS.capacity, 0);
// How many packets were made in this second.
#[map]
static ANSWERS: PerCpuArray<Answers> = PerCpuArray::with_max_entries(spec::ANSWERS.capacity, 0);
// How many connections began in this second.
#[map]
static NEW_FLOWS: PerCpuArray<NewFlows> = PerCpuArray::with_max_entries(spec::NEW_FLOWS.capacity, 0);

// A route look-up's question and answer: too large for the stack beside the pipeline.
#[map]
static FIB_SCRATCH: PerCpuArray<FibLookup> = PerCpuArray::with_max_entries(1, 0);

/// The pipeline's environment in the kernel.
pub struct Kernel {
    /// The program's context, which some helpers ask for.
    pub ctx: *mut c_void,
}

impl Kernel {
    #[inline(always)]
    #[expect(clippy::indexing_slicing, reason = "the mask keeps the index in bounds, for compiler and verifier")]
    fn slot(slot: u32) -> u32 {
        let Some(row) = SLOTS.get(slot / SLOTS_PER_ROW) else { return 0 };
        row.0[(slot % SLOTS_PER_ROW) as usize & (SLOTS_PER_ROW as usize - 1)]
    }

    /// Counts why a packet had the fate that it had, once, or a note.
    #[inline(always)]
    pub fn count(reason: Reason) {
        debug_log::counted(reason);
        if let Some(counter) = Self::counter(reason) {
            // SAFETY: per CPU, and programs on one CPU do not interrupt each other at these hooks.
            unsafe { *counter += 1 };
        }
    }

    /// Where a reason is counted on this CPU.
    #[inline(always)]
    pub fn counter(reason: Reason) -> Option<*mut u64> {
        COUNTERS.get_ptr_mut(reason as u32)
    }

    /// The counters of a service on this CPU.
    #[inline(always)]
    pub fn service(service: u32) -> Option<&'static mut ServiceCounters> {
        // SAFETY: as above.
        SVC_COUNTERS.get_ptr_mut(service).map(|counters| unsafe { value(counters) })
    }
}

/// A reference to a map's value, with the knowledge that it is aligned: without it values are copied byte by byte.
///
/// # Safety
/// `value` comes from a map look-up of this run.
#[inline(always)]
pub unsafe fn value<'a, T>(value: *mut T) -> &'a mut T {
    // SAFETY: maps keep values at multiples of eight bytes, and they stay mapped for the program's run (RCU).
    unsafe {
        core::hint::assert_unchecked(value.is_aligned());
        &mut *value
    }
}

#[inline(always)]
pub fn inserted(result: Result<(), i32>) -> Result<(), InsertError> {
    const EEXIST: i32 = -17;
    match result {
        Ok(()) => Ok(()),
        Err(EEXIST) => Err(InsertError::Exists),
        Err(_) => Err(InsertError::Full),
    }
}

/// An IPv4 address at the beginning of the 16 bytes that a route query takes.
#[inline(always)]
fn widened(addr: &[u8; 4]) -> [u8; 16] {
    let [a, b, c, d] = *addr;
    [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
}

macro_rules! family {
    (
        $family:ty, $addr:ty, $frontends:ident, $cidrs:ident, $ranges:ident, $affinity:ident, $backends:ident, $flows:ident, $embryos:ident,
        $scratch:ident, $device_address:ident, $af:literal, $widened:expr
    ) => {
        // Written by the agent only.
        #[map]
        static $frontends: HashMap<FrontendKey<$addr>, Frontend> =
            HashMap::with_max_entries(spec::$frontends.capacity, 0);
        #[map]
        static $cidrs: Array<Cidrs<$addr>> = Array::with_max_entries(spec::$cidrs.capacity, 0);
        #[map]
        static $ranges: LpmTrie<RangeKey<$addr>, u32> = LpmTrie::with_max_entries(spec::$ranges.capacity, 0);
        #[map]
        static $backends: Array<Backend<$addr>> = Array::with_max_entries(spec::$backends.capacity, BPF_F_MMAPABLE);
        // Written by several CPUs: inserted if absent; what changes in a flow is monotonous or a count, and a lost
        // update is made good by the next packet.
        #[map]
        static $flows: HashMap<Tuple<$addr>, Flow<$addr>> = HashMap::with_max_entries(spec::$flows.capacity, 0);
        #[map]
        static $embryos: LruHashMap<Tuple<$addr>, Flow<$addr>> =
            LruHashMap::with_max_entries(spec::$embryos.capacity, 0);

        // Written by several CPUs: inserted if absent, changed by one 8-byte store.
        #[map]
        static $affinity: LruHashMap<AffinityKey<$addr>, Affinity> =
            LruHashMap::with_max_entries(spec::$affinity.capacity, 0);

        // Per CPU, and used by one program at a time: neither hook interrupts the other on one CPU.
        #[map]
        static $scratch: PerCpuArray<Scratch<$addr>> = PerCpuArray::with_max_entries(spec::$scratch.capacity, 0);

        impl Env<$family> for Kernel {
            type Scratch = &'static mut Scratch<$addr>;

            #[inline(always)]
            fn scratch(&mut self) -> Option<Self::Scratch> {
                // SAFETY: see the map; the pipeline asks once per packet.
                $scratch.get_ptr_mut(0).map(|scratch| unsafe { value(scratch) })
            }

            #[inline(always)]
            fn now(&mut self) -> Clock {
                kernel::now()
            }

            #[inline(always)]
            fn config(&mut self) -> Config {
                CONFIG.get(0).copied().unwrap_or_default()
            }

            #[inline(always)]
            fn lookup_flow(&mut self, table: Table, key: &Tuple<$addr>) -> Option<&mut Flow<$addr>> {
                let flow = match table {
                    Table::Established => $flows.get_ptr_mut(key),
                    Table::Embryo => $embryos.get_ptr_mut(key),
                };
                // SAFETY: just looked up; see the rule above for its contents.
                flow.map(|flow| unsafe { value(flow) })
            }

            // What is asked for behind the look-up need not be kept on the stack meanwhile.
            #[inline(always)]
            fn lookup_flow_now(&mut self, key: &Tuple<$addr>) -> Option<(&mut Flow<$addr>, Clock, u32)> {
                let flow = $flows.get_ptr_mut(key)?;
                let epoch = CONFIG.get(0).map_or(0, |config| config.epoch);
                // SAFETY: as above.
                Some((unsafe { value(flow) }, kernel::now(), epoch))
            }

            #[inline(always)]
            fn insert_flow(&mut self, table: Table, key: &Tuple<$addr>, flow: &Flow<$addr>) -> Result<(), InsertError> {
                inserted(match table {
                    Table::Established => $flows.insert(key, flow, u64::from(BPF_NOEXIST)),
                    Table::Embryo => $embryos.insert(key, flow, u64::from(BPF_NOEXIST)),
                })
            }

            #[inline(always)]
            fn remove_flow(&mut self, table: Table, key: &Tuple<$addr>) {
                // An absent key is what is wanted.
                let _ = match table {
                    Table::Established => $flows.remove(key),
                    Table::Embryo => $embryos.remove(key),
                };
            }

            // Not inlined: two copies of a flow need a part of the stack.
            #[inline(never)]
            fn remove_silent(&mut self, table: Table, key: &Tuple<$addr>, now: Clock, limit_s: u32) {
                let found = match table {
                    Table::Established => $flows.get_ptr_mut(key),
                    Table::Embryo => $embryos.get_ptr_mut(key),
                };
                let Some(found) = found else { return };
                // SAFETY: just looked up; the memory of an element stays that of some element after its removal.
                let before = unsafe { *found };
                if expire::since(now, before.seen_s) < limit_s {
                    return;
                }
                Env::<$family>::remove_flow(self, table, key);
                // SAFETY: as above.
                let after = unsafe { *found };
                // A packet that found the flow before it was removed writes to it, and afterwards looks whether it is still
                // there. So either it sees the removal or its time is seen here (B25).
                if after.seen_s != before.seen_s && after.leads_where(&before) {
                    let _taken = Env::<$family>::insert_flow(self, table, key, &after);
                }
            }

            #[inline(always)]
            fn lookup_frontend(&mut self, key: &FrontendKey<$addr>) -> Option<&Frontend> {
                // SAFETY: just looked up; the agent replaces whole elements.
                $frontends.get_ptr_mut(key).map(|frontend| unsafe { &*value(frontend) })
            }

            #[inline(always)]
            fn known(&mut self, place: u32) -> u64 {
                // SAFETY: one 8-byte load of an aligned word that the agent changes by atomic operations.
                KNOWN.get_ptr(place).map_or(u64::MAX, |word| unsafe { word.read_volatile() })
            }

            #[inline(always)]
            fn service_cidrs(&mut self) -> Option<&Cidrs<$addr>> {
                // SAFETY: just looked up; the agent writes it when it starts.
                $cidrs.get_ptr_mut(0).map(|cidrs| unsafe { &*value(cidrs) })
            }

            #[inline(always)]
            fn in_ranges(&mut self, service: u32, addr: &$addr) -> bool {
                let bits = RangeKey::<$addr>::SERVICE_BITS + 8 * size_of::<$addr>() as u32;
                $ranges.get(Key::new(bits, RangeKey::new(service, *addr))).is_some()
            }

            #[inline(always)]
            fn lookup_affinity(&mut self, key: &AffinityKey<$addr>) -> Option<&mut Affinity> {
                // SAFETY: just looked up; see the map for its contents.
                $affinity.get_ptr_mut(key).map(|affinity| unsafe { value(affinity) })
            }

            #[inline(always)]
            fn insert_affinity(&mut self, key: &AffinityKey<$addr>, affinity: &Affinity) -> Result<(), InsertError> {
                inserted($affinity.insert(key, affinity, u64::from(BPF_NOEXIST)))
            }

            #[inline(always)]
            fn selection(&mut self, index: u32) -> Selection {
                match SELECTIONS.get_ptr(index) {
                    // SAFETY: one 8-byte load of an aligned word that the agent replaces by one store.
                    Some(selection) => unsafe { selection.read_volatile() },
                    None => Selection::REJECT,
                }
            }

            #[inline(always)]
            fn slot(&mut self, slot: u32) -> u32 {
                Kernel::slot(slot)
            }

            #[inline(always)]
            fn lookup_backend(&mut self, id: u32) -> Option<&Backend<$addr>> {
                // SAFETY: just looked up.
                let backend = $backends.get_ptr_mut(id).map(|backend| unsafe { &*value(backend) });
                backend.filter(|backend| backend.flags != 0)
            }

            #[inline(always)]
            fn lookup_device(&mut self, ifindex: u32) -> Option<&Device> {
                // SAFETY: just looked up; the agent replaces whole elements.
                DEVICES.get_ptr_mut(ifindex).map(|device| unsafe { &*value(device) })
            }

            #[inline(always)]
            fn device_address(device: &Device) -> $addr {
                device.$device_address
            }

            #[inline(always)]
            fn route(&mut self, src: &$addr, dst: &$addr, proto: u8, ifindex: u32) -> Route {
                // SAFETY: per CPU, as `$scratch`.
                let Some(query) = FIB_SCRATCH.get_ptr_mut(0).map(|query| unsafe { value(query) }) else {
                    return Route::Stack;
                };
                kernel::route(self.ctx, query, $af, proto, $widened(src), $widened(dst), ifindex)
            }

            #[inline(always)]
            fn source(&mut self) -> $addr {
                // SAFETY: per CPU, as `$scratch`.
                let query = FIB_SCRATCH.get_ptr_mut(0).map(|query| unsafe { &*value(query) });
                query.and_then(|query| query.src.first_chunk().copied()).unwrap_or_default()
            }

            #[inline(always)]
            fn has_socket(&mut self, tuple: &Tuple<$addr>) -> bool {
                kernel::has_socket(self.ctx, tuple)
            }

            #[inline(always)]
            fn answers(&mut self) -> Option<&mut Answers> {
                // SAFETY: per CPU, as `$scratch`.
                ANSWERS.get_ptr_mut(0).map(|answers| unsafe { value(answers) })
            }

            #[inline(always)]
            fn new_flows(&mut self) -> Option<&mut NewFlows> {
                // SAFETY: per CPU, as `$scratch`.
                NEW_FLOWS.get_ptr_mut(0).map(|flows| unsafe { value(flows) })
            }

            #[inline(always)]
            fn note(&mut self, note: Note) {
                Kernel::count(note.reason());
            }

            #[inline(always)]
            fn count_service(&mut self, service: u32, reverse: bool, bytes: u32) {
                if let Some(counters) = Kernel::service(service) {
                    if reverse {
                        counters.reply_packets += 1;
                        counters.reply_bytes += u64::from(bytes);
                    } else {
                        counters.packets += 1;
                        counters.bytes += u64::from(bytes);
                    }
                }
            }

            #[inline(always)]
            fn tell_flow(&mut self, kind: u8, key: &Tuple<$addr>, flow: &Flow<$addr>) {
                /// Not inlined: rare, and called from several places.
                #[cfg_attr(feature = "flat", inline(always))]
                #[cfg_attr(not(feature = "flat"), inline(never))]
                fn tell(kind: u8, wanted: u32, key: &Tuple<$addr>, flow: &Flow<$addr>) {
                    let family = if $af == 2 { 4 } else { 6 };
                    events::flow(kind, family, wanted, flow.service, flow.backend, |event| {
                        event.src = $widened(&key.src);
                        event.dst = $widened(&key.dst);
                        event.new_src = $widened(&flow.src);
                        event.new_dst = $widened(&flow.dst);
                        event.ports = [key.sport, key.dport, flow.sport, flow.dport];
                        event.proto = key.proto;
                        event.flags = flow.flags;
                        event.state = flow.state;
                        event.pad = [0; 5];
                    });
                }
                let wanted = events::wants_flows();
                if wanted != 0 || debug_log::IS_ON {
                    tell(kind, wanted, key, flow);
                }
            }

            #[inline(always)]
            fn count_new_flow(&mut self, service: u32) {
                if let Some(counters) = Kernel::service(service) {
                    counters.new_flows += 1;
                }
            }
        }
    };
}

family!(
    V4,
    [u8; 4],
    FRONTENDS_V4,
    SVC_CIDRS_V4,
    RANGES_V4,
    AFFINITY_V4,
    BACKENDS_V4,
    FLOWS_V4,
    EMBRYOS_V4,
    SCRATCH_V4,
    v4,
    2,
    widened
);
family!(
    V6,
    [u8; 16],
    FRONTENDS_V6,
    SVC_CIDRS_V6,
    RANGES_V6,
    AFFINITY_V6,
    BACKENDS_V6,
    FLOWS_V6,
    EMBRYOS_V6,
    SCRATCH_V6,
    v6,
    10,
    <[u8; 16]>::clone
);
