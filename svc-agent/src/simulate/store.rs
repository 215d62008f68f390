//! The planned maps in the datapath's environment in memory.

use std::collections::HashMap;

use anyhow::Context as _;
use ipnet::IpNet;
use svc_common::host::Memory;
use svc_common::maps::{Frontend, SlotRow, spec};

use crate::apply::{AnyBackend, AnyFrontendKey, ApplyError, Capacities, MapContents, MapOp, Store};

/// [`Store`] over [`Memory`].
#[derive(Debug)]
pub struct MemoryStore(Memory);

impl MemoryStore {
    /// Over a memory without services.
    pub const fn new(memory: Memory) -> Self {
        Self(memory)
    }

    /// The memory; the store is empty afterwards.
    pub fn take(&mut self) -> Memory {
        std::mem::take(&mut self.0)
    }

    fn set_frontend(&mut self, key: AnyFrontendKey, value: Frontend) {
        match key {
            AnyFrontendKey::V4(key) => drop(self.0.v4.frontends.insert(key, value)),
            AnyFrontendKey::V6(key) => drop(self.0.v6.frontends.insert(key, value)),
        }
    }

    fn delete_frontend(&mut self, key: AnyFrontendKey) {
        match key {
            AnyFrontendKey::V4(key) => drop(self.0.v4.frontends.remove(&key)),
            AnyFrontendKey::V6(key) => drop(self.0.v6.frontends.remove(&key)),
        }
    }

    fn apply_one(&mut self, op: &MapOp) {
        let memory = &mut self.0;
        match *op {
            MapOp::SetBackend { id, value: AnyBackend::V4(value) } => drop(memory.v4.backends.insert(id, value)),
            MapOp::SetBackend { id, value: AnyBackend::V6(value) } => drop(memory.v6.backends.insert(id, value)),
            MapOp::WriteRows { first, ref rows } => memory.rows.extend((first..).zip(rows.iter().copied())),
            MapOp::SetSelection { index, value } => drop(memory.selections.insert(index, value)),
            MapOp::SetFrontend { key, value } => self.set_frontend(key, value),
            MapOp::DeleteFrontend { key } => self.delete_frontend(key),
            MapOp::SetRange { service, range: IpNet::V4(range) } => {
                memory.v4.ranges.insert((service, range.addr().octets(), range.prefix_len()));
            }
            MapOp::SetRange { service, range: IpNet::V6(range) } => {
                memory.v6.ranges.insert((service, range.addr().octets(), range.prefix_len()));
            }
            MapOp::DeleteRange { service, range: IpNet::V4(range) } => {
                memory.v4.ranges.remove(&(service, range.addr().octets(), range.prefix_len()));
            }
            MapOp::DeleteRange { service, range: IpNet::V6(range) } => {
                memory.v6.ranges.remove(&(service, range.addr().octets(), range.prefix_len()));
            }
            MapOp::SetAddress { addr, flags } => {
                self.set_frontend(AnyFrontendKey::of_address(addr), Frontend { flags, ..Frontend::default() });
            }
            MapOp::DeleteAddress { addr } => self.delete_frontend(AnyFrontendKey::of_address(addr)),
            MapOp::ClearCounters { service } => drop(memory.services.remove(&service)),
            MapOp::RaiseEpoch => memory.config.epoch += 1,
        }
    }
}

impl Store for MemoryStore {
    fn capacities(&self) -> Capacities {
        Capacities {
            frontends: spec::FRONTENDS_V4.capacity,
            backends: spec::BACKENDS_V4.capacity,
            selections: spec::SELECTIONS.capacity,
            slot_rows: spec::SLOTS.capacity,
            services: spec::SVC_COUNTERS.capacity,
            ranges: spec::RANGES_V4.capacity,
        }
    }

    fn read(&mut self) -> anyhow::Result<MapContents> {
        let mut contents = MapContents {
            backends_v4: in_use(&self.0.v4.backends, |backend| backend.flags != 0),
            backends_v6: in_use(&self.0.v6.backends, |backend| backend.flags != 0),
            selections: in_use(&self.0.selections, |selection| selection.0 != 0),
            ..MapContents::default()
        };
        self.0.v4.frontends.iter().for_each(|(key, value)| contents.add(AnyFrontendKey::V4(*key), *value));
        self.0.v6.frontends.iter().for_each(|(key, value)| contents.add(AnyFrontendKey::V6(*key), *value));
        Ok(contents)
    }

    fn read_rows(&mut self, first: u32, count: u32) -> anyhow::Result<Vec<SlotRow>> {
        let end = first.checked_add(count).filter(|end| *end <= spec::SLOTS.capacity);
        let end = end.with_context(|| format!("no {count} rows from {first} on"))?;
        Ok((first..end).map(|row| self.0.rows.get(&row).copied().unwrap_or_default()).collect())
    }

    fn apply(&mut self, ops: &[MapOp]) -> Result<(), ApplyError> {
        ops.iter().for_each(|op| self.apply_one(op));
        Ok(())
    }
}

fn in_use<V: Copy>(map: &HashMap<u32, V>, used: impl Fn(&V) -> bool) -> HashMap<u32, V> {
    map.iter().filter(|(_, value)| used(value)).map(|(index, value)| (*index, *value)).collect()
}
