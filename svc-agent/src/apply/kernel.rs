//! The real maps: arrays through shared memory, hash maps by system call.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::Context as _;
use aya::maps::{HashMap, MapData, MapError, PerCpuArray, PerCpuValues};
use svc_common::maps::{
    Backend, Config, Frontend, FrontendKey, MapSpec, MapType, Selection, ServiceCounters, SlotRow, backend_flags, spec,
};

use super::{AnyBackend, AnyFrontendKey, ApplyError, Capacities, MapContents, MapOp, Store};
use crate::attach::maps::Maps;
use crate::sys::mmap::MappedArray;
use crate::sys::rcu;

/// Words of a value in the order of memory.
fn words(bytes: &[u8]) -> impl Iterator<Item = u32> + '_ {
    bytes.as_chunks::<4>().0.iter().map(|word| u32::from_ne_bytes(*word))
}

fn map_array<V>(maps: &Maps, map: &MapSpec) -> anyhow::Result<MappedArray> {
    MappedArray::new(maps.data(map)?.fd(), size_of::<V>(), maps.capacity(map)?)
        .with_context(|| format!("cannot map `{}` into memory", map.name))
}

fn outside(map: &MapSpec, index: u32) -> anyhow::Error {
    anyhow::anyhow!("`{}` has no element {index}", map.name)
}

/// `CONFIG`, whose epoch is raised by several parts of the agent.
#[derive(Clone, Debug)]
pub struct Epoch(Arc<MappedArray>);

impl Epoch {
    /// Maps `CONFIG` and writes the ports for source NAT. The epoch of a new map starts at `start`, so that no flow that
    /// is older than the map looks current.
    ///
    /// # Errors
    /// If the map cannot be mapped.
    pub fn new(maps: &Maps, ports: std::ops::RangeInclusive<u16>, start: u32) -> anyhow::Result<Self> {
        let array = map_array::<Config>(maps, &spec::CONFIG)?;
        let config = Config { epoch: start.max(1), snat_port_min: *ports.start(), snat_port_max: *ports.end() };
        let mut values = words(config.bytes());
        let (Some(epoch), Some(ports)) = (values.next(), values.next()) else {
            anyhow::bail!("`CONFIG` has another layout than expected");
        };
        // Both ports are one word: no packet sees the first of one range and the last of another.
        array.word(0, 1).context("`CONFIG` is empty")?.store(ports, Ordering::Relaxed);
        let epoch_word = array.word(0, 0).context("`CONFIG` is empty")?;
        // Zero means that the map is new; anything else is an epoch that flows may carry.
        let _adopted = epoch_word.compare_exchange(0, epoch, Ordering::Release, Ordering::Relaxed);
        Ok(Self(Arc::new(array)))
    }

    /// Makes every flow check itself with its next packet.
    pub fn raise(&self) {
        if let Some(epoch) = self.0.word(0, 0) {
            // Release: what was written before is seen by whoever sees the new epoch.
            let _before = epoch.fetch_update(Ordering::Release, Ordering::Relaxed, |now| Some(next_epoch(now)));
        }
    }

    /// The epoch.
    pub fn current(&self) -> u32 {
        self.0.word(0, 0).map_or(0, |epoch| epoch.load(Ordering::Relaxed))
    }
}

/// Zero means "never checked" in a flow, so it is no epoch.
const fn next_epoch(now: u32) -> u32 {
    if now == u32::MAX { 1 } else { now + 1 }
}

/// [`Store`] over the pinned maps.
pub struct KernelStore {
    frontends_v4: HashMap<MapData, FrontendKey<[u8; 4]>, Frontend>,
    frontends_v6: HashMap<MapData, FrontendKey<[u8; 16]>, Frontend>,
    selections: MappedArray,
    slots: MappedArray,
    backends_v4: MappedArray,
    backends_v6: MappedArray,
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
            selections: map_array::<Selection>(maps, &spec::SELECTIONS)?,
            slots: map_array::<SlotRow>(maps, &spec::SLOTS)?,
            backends_v4: map_array::<Backend<[u8; 4]>>(maps, &spec::BACKENDS_V4)?,
            backends_v6: map_array::<Backend<[u8; 16]>>(maps, &spec::BACKENDS_V6)?,
            counters: PerCpuArray::try_from(maps.map(&spec::SVC_COUNTERS)?)?,
            epoch,
            capacities: Capacities {
                frontends: maps.capacity(&spec::FRONTENDS_V4)?.min(maps.capacity(&spec::FRONTENDS_V6)?),
                backends: maps.capacity(&spec::BACKENDS_V4)?.min(maps.capacity(&spec::BACKENDS_V6)?),
                selections: maps.capacity(&spec::SELECTIONS)?,
                slot_rows: maps.capacity(&spec::SLOTS)?,
                services: maps.capacity(&spec::SVC_COUNTERS)?,
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
            MapOp::SetFrontend { key, value } => match key {
                AnyFrontendKey::V4(key) => self.frontends_v4.insert(key, value, 0),
                AnyFrontendKey::V6(key) => self.frontends_v6.insert(key, value, 0),
            }
            .context("cannot write to `FRONTENDS`"),
            MapOp::DeleteFrontend { key } => {
                let removed = match key {
                    AnyFrontendKey::V4(key) => self.frontends_v4.remove(key),
                    AnyFrontendKey::V6(key) => self.frontends_v6.remove(key),
                };
                if_present(removed).context("cannot remove from `FRONTENDS`")
            }
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

/// Removing what is not there is done already.
fn if_present(removed: Result<(), MapError>) -> Result<(), MapError> {
    match removed {
        Err(MapError::KeyNotFound | MapError::ElementNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        other => other,
    }
}

/// Writes a backend so that nobody takes a half-written one for a whole one: while its address changes, its flags are
/// zero, which means that the id is free.
fn set_backend<A: Copy>(array: &MappedArray, map: &MapSpec, id: u32, value: &Backend<A>) -> anyhow::Result<()>
where
    Backend<A>: MapType,
{
    // `flags` shares its word with `port`.
    let flags_at = std::mem::offset_of!(Backend<A>, flags) / 4;
    let word = |at| array.word(id, at).ok_or_else(|| outside(map, id));
    let flags_word = word(flags_at)?;
    let new: Vec<u32> = words(value.bytes()).collect();
    let same_target = (0..new.len())
        .filter(|at| *at != flags_at)
        .all(|at| word(at).is_ok_and(|word| Some(&word.load(Ordering::Relaxed)) == new.get(at)));
    if value.flags & backend_flags::PRESENT == 0 || !same_target {
        flags_word.store(0, Ordering::Release);
    }
    for (at, value) in new.iter().enumerate().filter(|(at, _)| *at != flags_at) {
        word(at)?.store(*value, Ordering::Release);
    }
    if let Some(value) = new.get(flags_at) {
        flags_word.store(*value, Ordering::Release);
    }
    Ok(())
}

/// Every backend that is in use, by id.
fn read_backends<A: Copy>(array: &MappedArray) -> std::collections::HashMap<u32, Backend<A>>
where
    Backend<A>: MapType,
{
    (0..array.len())
        .filter_map(|id| Some((id, read_value::<Backend<A>>(array, id)?)))
        .filter(|(_, backend)| backend.flags != 0)
        .collect()
}

fn read_value<V: MapType>(array: &MappedArray, index: u32) -> Option<V> {
    let mut bytes = Vec::with_capacity(size_of::<V>());
    for at in 0..size_of::<V>() / 4 {
        bytes.extend_from_slice(&array.word(index, at)?.load(Ordering::Relaxed).to_ne_bytes());
    }
    V::from_bytes(&bytes)
}

impl Store for KernelStore {
    fn capacities(&self) -> Capacities {
        self.capacities
    }

    fn read(&mut self) -> anyhow::Result<MapContents> {
        let mut contents = MapContents::default();
        for entry in self.frontends_v4.iter() {
            let (key, value) = entry.context("cannot read `FRONTENDS_V4`")?;
            contents.frontends.insert(AnyFrontendKey::V4(key), value);
        }
        for entry in self.frontends_v6.iter() {
            let (key, value) = entry.context("cannot read `FRONTENDS_V6`")?;
            contents.frontends.insert(AnyFrontendKey::V6(key), value);
        }
        contents.backends_v4 = read_backends(&self.backends_v4);
        contents.backends_v6 = read_backends(&self.backends_v6);
        contents.selections = (0..self.selections.len())
            .filter_map(|index| Some((index, Selection(self.selections.double(index)?.load(Ordering::Relaxed)))))
            .filter(|(_, selection)| selection.0 != 0)
            .collect();
        Ok(contents)
    }

    fn read_rows(&mut self, first: u32, count: u32) -> anyhow::Result<Vec<SlotRow>> {
        self.rows(first, count)
    }

    fn apply(&mut self, ops: &[MapOp]) -> Result<(), ApplyError> {
        for (index, op) in ops.iter().enumerate() {
            self.apply_one(op).map_err(|source| ApplyError { index, source })?;
        }
        Ok(())
    }

    fn settle(&mut self) {
        rcu::wait_for_programs();
    }
}

#[cfg(test)]
mod tests {
    use svc_common::net::Be16;

    use super::*;

    #[test]
    fn an_epoch_is_never_zero() {
        assert_eq!([1, 41, u32::MAX].map(next_epoch), [2, 42, 1]);
    }

    #[test]
    fn a_backend_reads_back_as_written_and_frees_its_id() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        let array = MappedArray::new(&file, 12, 8).unwrap();
        let flags = backend_flags::PRESENT | backend_flags::READY;
        let backend = Backend { addr: [10, 0, 0, 7], port: Be16::from_host(8080), flags, service: 5 };
        set_backend(&array, &spec::BACKENDS_V4, 3, &backend).unwrap();
        assert_eq!(read_backends::<[u8; 4]>(&array), [(3, backend)].into());
        set_backend(&array, &spec::BACKENDS_V4, 3, &Backend::<[u8; 4]>::default()).unwrap();
        assert!(read_backends::<[u8; 4]>(&array).is_empty());
        assert!(set_backend(&array, &spec::BACKENDS_V4, 8, &backend).is_err());
    }
}
