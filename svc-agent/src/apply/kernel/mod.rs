//! The real maps: arrays through shared memory, hash maps by system call.

mod arrays;
mod epoch;
mod known;
mod networks;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::Context as _;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{HashMap, MapData, MapError, PerCpuArray, PerCpuValues};
use ipnet::IpNet;
use svc_common::maps::{Backend, Frontend, FrontendKey, RangeKey, Selection, ServiceCounters, SlotRow, spec};

use self::arrays::{map_array, outside, read_backends, read_value, set_backend};
pub use self::epoch::Epoch;
use self::known::Known;
pub use self::networks::set_service_networks;
use super::{AnyBackend, AnyFrontendKey, ApplyError, Capacities, MapContents, MapOp, Store};
use crate::attach::maps::Maps;
use crate::sys::mmap::MappedArray;
use crate::sys::rcu;

/// [`Store`] over the pinned maps.
pub struct KernelStore {
    frontends_v4: HashMap<MapData, FrontendKey<[u8; 4]>, Frontend>,
    frontends_v6: HashMap<MapData, FrontendKey<[u8; 16]>, Frontend>,
    ranges_v4: LpmTrie<MapData, RangeKey<[u8; 4]>, u32>,
    ranges_v6: LpmTrie<MapData, RangeKey<[u8; 16]>, u32>,
    selections: Arc<MappedArray>,
    slots: Arc<MappedArray>,
    backends_v4: Arc<MappedArray>,
    backends_v6: Arc<MappedArray>,
    known: Known,
    counters: PerCpuArray<MapData, ServiceCounters>,
    epoch: Epoch,
    capacities: Capacities,
}

impl KernelStore {
    /// A store over the open maps.
    ///
    /// # Errors
    /// If a map cannot be mapped into memory or has unexpected sizes.
    pub fn new(maps: &Maps, epoch: Epoch) -> anyhow::Result<Self> {
        Ok(Self {
            frontends_v4: HashMap::try_from(maps.map(&spec::FRONTENDS_V4)?)?,
            frontends_v6: HashMap::try_from(maps.map(&spec::FRONTENDS_V6)?)?,
            ranges_v4: LpmTrie::try_from(maps.map(&spec::RANGES_V4)?)?,
            ranges_v6: LpmTrie::try_from(maps.map(&spec::RANGES_V6)?)?,
            selections: map_array::<Selection>(maps, &spec::SELECTIONS)?,
            slots: map_array::<SlotRow>(maps, &spec::SLOTS)?,
            backends_v4: map_array::<Backend<[u8; 4]>>(maps, &spec::BACKENDS_V4)?,
            backends_v6: map_array::<Backend<[u8; 16]>>(maps, &spec::BACKENDS_V6)?,
            known: Known::new(maps)?,
            counters: PerCpuArray::try_from(maps.map(&spec::SVC_COUNTERS)?)?,
            epoch,
            capacities: Capacities {
                frontends: maps.capacity(&spec::FRONTENDS_V4)?.min(maps.capacity(&spec::FRONTENDS_V6)?),
                backends: maps.capacity(&spec::BACKENDS_V4)?.min(maps.capacity(&spec::BACKENDS_V6)?),
                selections: maps.capacity(&spec::SELECTIONS)?,
                slot_rows: maps.capacity(&spec::SLOTS)?,
                services: maps.capacity(&spec::SVC_COUNTERS)?,
                ranges: maps.capacity(&spec::RANGES_V4)?.min(maps.capacity(&spec::RANGES_V6)?),
            },
        })
    }

    /// One selection; [`Selection::REJECT`] if there is no such index.
    pub fn selection(&self, index: u32) -> Selection {
        self.selections.double(index).map_or(Selection::REJECT, |word| Selection(word.load(Ordering::Relaxed)))
    }

    /// Rows of slots.
    ///
    /// # Errors
    /// If there are not so many.
    pub fn rows(&self, first: u32, count: u32) -> anyhow::Result<Vec<SlotRow>> {
        let end = first.checked_add(count).with_context(|| format!("`SLOTS` has no {count} rows from {first} on"))?;
        (first..end).map(|index| read_value(&self.slots, index).ok_or_else(|| outside(&spec::SLOTS, index))).collect()
    }

    /// One backend of `BACKENDS_V4`; `None` if the id is free.
    pub fn backend_v4(&self, id: u32) -> Option<Backend<[u8; 4]>> {
        read_value::<Backend<[u8; 4]>>(&self.backends_v4, id).filter(|backend| backend.flags != 0)
    }

    /// The same of `BACKENDS_V6`.
    pub fn backend_v6(&self, id: u32) -> Option<Backend<[u8; 16]>> {
        read_value::<Backend<[u8; 16]>>(&self.backends_v6, id).filter(|backend| backend.flags != 0)
    }

    /// The counters of one service, summed over the CPUs.
    pub fn service_counters(&self, service: u32) -> ServiceCounters {
        let mut sum = ServiceCounters::default();
        for cpu in self.counters.get(&service, 0).iter().flat_map(|values| values.iter()) {
            sum.packets += cpu.packets;
            sum.bytes += cpu.bytes;
            sum.reply_packets += cpu.reply_packets;
            sum.reply_bytes += cpu.reply_bytes;
            sum.new_flows += cpu.new_flows;
        }
        sum
    }

    fn apply_one(&mut self, op: &MapOp) -> anyhow::Result<()> {
        match op {
            MapOp::SetBackend { id, value: AnyBackend::V4(value) } => {
                set_backend(&self.backends_v4, &spec::BACKENDS_V4, *id, value)
            }
            MapOp::SetBackend { id, value: AnyBackend::V6(value) } => {
                set_backend(&self.backends_v6, &spec::BACKENDS_V6, *id, value)
            }
            MapOp::WriteRows { first, rows } => self.write_rows(*first, rows),
            MapOp::SetSelection { index, value } => {
                let word = self.selections.double(*index).ok_or_else(|| outside(&spec::SELECTIONS, *index))?;
                // Release: the slots that it points to were written before.
                word.store(value.0, Ordering::Release);
                Ok(())
            }
            MapOp::SetFrontend { key, value } => self.set_frontend(key, value),
            MapOp::DeleteFrontend { key } => self.delete_frontend(key),
            MapOp::SetRange { service, range } => match range {
                IpNet::V4(range) => {
                    self.ranges_v4.insert(&range_key(*service, range.addr().octets(), range.prefix_len()), 1, 0)
                }
                IpNet::V6(range) => {
                    self.ranges_v6.insert(&range_key(*service, range.addr().octets(), range.prefix_len()), 1, 0)
                }
            }
            .context("cannot write to `RANGES`"),
            MapOp::DeleteRange { service, range } => {
                let removed = match range {
                    IpNet::V4(range) => {
                        self.ranges_v4.remove(&range_key(*service, range.addr().octets(), range.prefix_len()))
                    }
                    IpNet::V6(range) => {
                        self.ranges_v6.remove(&range_key(*service, range.addr().octets(), range.prefix_len()))
                    }
                };
                if_present(removed).context("cannot remove from `RANGES`")
            }
            MapOp::SetAddress { addr, flags } => {
                let value = Frontend { flags: *flags, ..Frontend::default() };
                self.set_frontend(&AnyFrontendKey::of_address(*addr), &value)
            }
            MapOp::DeleteAddress { addr } => self.delete_frontend(&AnyFrontendKey::of_address(*addr)),
            MapOp::ClearCounters { service } => {
                let cpus = aya::util::nr_cpus().map_err(|(_, error)| error)?;
                let zero = PerCpuValues::try_from(vec![ServiceCounters::default(); cpus])?;
                self.counters.set(*service, zero, 0).context("cannot write to `SVC_COUNTERS`")
            }
            MapOp::RaiseEpoch => {
                self.epoch.raise();
                Ok(())
            }
        }
    }

    fn set_frontend(&mut self, key: &AnyFrontendKey, value: &Frontend) -> anyhow::Result<()> {
        match key {
            AnyFrontendKey::V4(key) => self.frontends_v4.insert(key, value, 0),
            AnyFrontendKey::V6(key) => self.frontends_v6.insert(key, value, 0),
        }
        .context("cannot write to `FRONTENDS`")
    }

    fn delete_frontend(&mut self, key: &AnyFrontendKey) -> anyhow::Result<()> {
        let removed = match key {
            AnyFrontendKey::V4(key) => self.frontends_v4.remove(key),
            AnyFrontendKey::V6(key) => self.frontends_v6.remove(key),
        };
        if_present(removed).context("cannot remove from `FRONTENDS`")
    }

    fn write_rows(&self, first: u32, rows: &[SlotRow]) -> anyhow::Result<()> {
        for (index, row) in (first..).zip(rows) {
            for (at, slot) in row.0.iter().enumerate() {
                let word = self.slots.word(index, at).ok_or_else(|| outside(&spec::SLOTS, index))?;
                word.store(*slot, Ordering::Relaxed);
            }
        }
        Ok(())
    }
}

/// The key of a source range.
fn range_key<A>(service: u32, addr: A, bits: u8) -> Key<RangeKey<A>>
where
    RangeKey<A>: aya::Pod,
{
    Key::new(RangeKey::<A>::SERVICE_BITS + u32::from(bits), RangeKey::new(service, addr))
}

/// What a key of a source range says; nothing if no agent has written it.
fn named_range<A: Copy + Into<IpAddr>>(key: &Key<RangeKey<A>>) -> Option<(u32, IpNet)>
where
    RangeKey<A>: aya::Pod,
{
    let (bits, RangeKey { service, addr }) = (key.prefix_len(), key.data());
    let bits = u8::try_from(bits.checked_sub(RangeKey::<A>::SERVICE_BITS)?).ok()?;
    Some((u32::from_ne_bytes(service), IpNet::new(addr.into(), bits).ok()?))
}

/// Removing what is not there is done already.
fn if_present(removed: Result<(), MapError>) -> Result<(), MapError> {
    match removed {
        Err(MapError::KeyNotFound | MapError::ElementNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        other => other,
    }
}

impl Store for KernelStore {
    fn capacities(&self) -> Capacities {
        self.capacities
    }

    fn read(&mut self) -> anyhow::Result<MapContents> {
        let mut contents = MapContents::default();
        for entry in self.frontends_v4.iter() {
            let (key, value) = entry.context("cannot read `FRONTENDS_V4`")?;
            contents.add(AnyFrontendKey::V4(key), value);
        }
        for entry in self.frontends_v6.iter() {
            let (key, value) = entry.context("cannot read `FRONTENDS_V6`")?;
            contents.add(AnyFrontendKey::V6(key), value);
        }
        for entry in self.ranges_v4.iter() {
            contents.ranges.extend(named_range(&entry.context("cannot read `RANGES_V4`")?.0));
        }
        for entry in self.ranges_v6.iter() {
            contents.ranges.extend(named_range(&entry.context("cannot read `RANGES_V6`")?.0));
        }
        contents.backends_v4 = read_backends(&self.backends_v4);
        contents.backends_v6 = read_backends(&self.backends_v6);
        contents.selections = (0..self.selections.len())
            .filter_map(|index| Some((index, Selection(self.selections.double(index)?.load(Ordering::Relaxed)))))
            .filter(|(_, selection)| selection.0 != 0)
            .collect();
        self.known.adopt(&contents);
        Ok(contents)
    }

    fn read_rows(&mut self, first: u32, count: u32) -> anyhow::Result<Vec<SlotRow>> {
        self.rows(first, count)
    }

    fn apply(&mut self, ops: &[MapOp]) -> Result<(), ApplyError> {
        for (index, op) in ops.iter().enumerate() {
            self.known.announce(op);
            self.apply_one(op).map_err(|source| ApplyError { index, source })?;
        }
        Ok(())
    }

    fn settle(&mut self) {
        rcu::wait_for_programs();
    }
}
