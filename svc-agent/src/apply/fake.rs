//! The maps in memory, for tests: fails on demand, and sees every write that a packet could stumble over.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Range;

use anyhow::{Context, bail, ensure};
use ipnet::IpNet;
use svc_common::maps::{Frontend, SLOTS_PER_ROW, Selection, SlotRow, frontend_flags};

use super::{AnyBackend, AnyFrontendKey, ApplyError, Capacities, MapContents, MapOp, Store};
use crate::resolve::AddressFamily;

/// The maps in memory.
#[derive(Clone, Debug)]
pub struct FakeStore {
    /// How much fits; more is refused as the kernel does.
    pub capacities: Capacities,
    /// The frontend maps.
    pub frontends: BTreeMap<AnyFrontendKey, Frontend>,
    /// The flags in the rows of addresses.
    pub addresses: BTreeMap<IpAddr, u32>,
    /// The source ranges, by service id.
    pub ranges: BTreeSet<(u32, IpNet)>,
    /// The backend maps, without free ids.
    pub backends: BTreeMap<(AddressFamily, u32), AnyBackend>,
    /// The selections that are not zero.
    pub selections: BTreeMap<u32, Selection>,
    /// The rows that were ever written.
    pub rows: BTreeMap<u32, SlotRow>,
    /// The epoch.
    pub epoch: u32,
    /// The writes carried out, if [`FakeStore::recording`].
    pub log: Vec<MapOp>,
    /// How long `log` was when the store last settled.
    pub settled_after: Option<usize>,
    /// Whether `log` is kept.
    pub recording: bool,
    /// Whether a write is refused that a packet under way could see half done.
    pub strict: bool,
    /// How many writes succeed before one fails; that one is tried again only by the caller.
    pub fail_after: Option<usize>,
}

impl FakeStore {
    /// Empty maps.
    pub fn new(capacities: Capacities) -> Self {
        Self {
            capacities,
            frontends: BTreeMap::new(),
            addresses: BTreeMap::new(),
            ranges: BTreeSet::new(),
            backends: BTreeMap::new(),
            selections: BTreeMap::new(),
            rows: BTreeMap::new(),
            epoch: 1,
            log: Vec::new(),
            settled_after: None,
            recording: false,
            strict: true,
            fail_after: None,
        }
    }

    /// The backends that the slots of a selection name.
    pub fn named_by(&self, selection: Selection) -> BTreeSet<u32> {
        let slots = selection.offset()..selection.offset().saturating_add(selection.len());
        let id = |slot: u32| {
            let row = self.rows.get(&(slot / SLOTS_PER_ROW)).copied().unwrap_or_default();
            row.0.get((slot % SLOTS_PER_ROW) as usize).copied().unwrap_or(0)
        };
        slots.map(id).collect()
    }

    /// Checks all that the datapath relies on: every frontend leads to selections, slots and backends that are its own.
    ///
    /// # Errors
    /// The first thing that a packet would stumble over.
    pub fn check(&self) -> anyhow::Result<()> {
        self.check_with(&mut |selection| self.named_by(selection))
    }

    /// The same; `named_by` may remember what tables name.
    ///
    /// # Errors
    /// The first thing that a packet would stumble over.
    pub fn check_with(&self, named_by: &mut dyn FnMut(Selection) -> BTreeSet<u32>) -> anyhow::Result<()> {
        let mut owners: BTreeMap<u32, u32> = BTreeMap::new();
        let mut rows: Vec<(Range<u32>, u32)> = Vec::new();
        for (key, frontend) in &self.frontends {
            ensure!((1..self.capacities.services).contains(&frontend.service), "{key:?}: service {}", frontend.service);
            let closed = frontend.flags & frontend_flags::SOURCE_RANGES != 0;
            let ranges = self.ranges.iter().filter(|(service, _)| *service == frontend.service);
            ensure!(!closed || ranges.count() > 0, "{key:?}: a service with ranges that are not there");
            for index in BTreeSet::from([frontend.external, frontend.internal]) {
                ensure!((1..self.capacities.selections).contains(&index), "{key:?}: selection {index}");
                let owner = *owners.entry(index).or_insert(frontend.service);
                ensure!(
                    owner == frontend.service,
                    "selection {index} serves the services {owner} and {}",
                    frontend.service
                );
                let selection = self.selections.get(&index).copied().unwrap_or_default();
                if selection.is_empty() {
                    continue;
                }
                ensure!(selection.offset().is_multiple_of(SLOTS_PER_ROW), "selection {index} begins inside of a row");
                let first = selection.offset() / SLOTS_PER_ROW;
                rows.push((first..first + selection.len().div_ceil(SLOTS_PER_ROW), index));
                for id in named_by(selection) {
                    let backend = self.backends.get(&(key.family(), id));
                    let backend =
                        backend.with_context(|| format!("{key:?}: a slot names backend {id}, which is free"))?;
                    let service = backend.service();
                    ensure!(service == frontend.service, "{key:?}: backend {id} belongs to service {service}");
                }
            }
        }
        rows.sort_by_key(|(rows, index)| (rows.start, *index));
        rows.dedup();
        for pair in rows.windows(2) {
            if let [(before, one), (after, other)] = pair {
                ensure!(before.end <= after.start, "the selections {one} and {other} share rows");
            }
        }
        Ok(())
    }

    /// Carries out one write.
    ///
    /// # Errors
    /// If it does not fit, or if it is half done for packets under way and the store is strict.
    pub fn write(&mut self, op: &MapOp) -> anyhow::Result<()> {
        match *op {
            MapOp::SetBackend { id, value } => {
                ensure!((1..self.capacities.backends).contains(&id), "no backend id {id}");
                let at = (value.family(), id);
                if value.is_free() {
                    self.backends.remove(&at);
                } else {
                    let found = self.backends.get(&at);
                    let same =
                        found.is_none_or(|found| (found.name(), found.service()) == (value.name(), value.service()));
                    ensure!(same || !self.strict, "backend id {id} is in use: {found:?} cannot become {value:?}");
                    self.backends.insert(at, value);
                }
            }
            MapOp::WriteRows { first, ref rows } => {
                let end = first + rows.len() as u32;
                ensure!(end <= self.capacities.slot_rows, "no rows {first}..{end}");
                let used = self
                    .frontends
                    .values()
                    .filter(|_| self.strict)
                    .flat_map(|frontend| [frontend.external, frontend.internal]);
                for (index, selection) in used.filter_map(|index| self.selections.get_key_value(&index)) {
                    let start = selection.offset() / SLOTS_PER_ROW;
                    let apart = end <= start || start.saturating_add(selection.len().div_ceil(SLOTS_PER_ROW)) <= first;
                    ensure!(
                        apart || selection.is_empty() || !self.strict,
                        "rows {first}..{end} belong to selection {index}"
                    );
                }
                self.rows.extend((first..end).zip(rows.iter().copied()));
            }
            MapOp::SetSelection { index, value } => {
                ensure!((1..self.capacities.selections).contains(&index), "no selection {index}");
                if value == Selection::default() {
                    self.selections.remove(&index);
                } else {
                    self.selections.insert(index, value);
                }
            }
            MapOp::SetFrontend { key, value } => {
                ensure!(self.frontends.contains_key(&key) || self.has_room(key.family()), "E2BIG");
                self.frontends.insert(key, value);
            }
            MapOp::DeleteFrontend { key } => drop(self.frontends.remove(&key)),
            MapOp::SetRange { service, range } => {
                let same = self.ranges.iter().filter(|(_, other)| other.addr().is_ipv4() == range.addr().is_ipv4());
                ensure!(same.count() < self.capacities.ranges as usize, "E2BIG");
                self.ranges.insert((service, range));
            }
            MapOp::DeleteRange { service, range } => drop(self.ranges.remove(&(service, range))),
            MapOp::SetAddress { addr, flags } => {
                ensure!(self.addresses.contains_key(&addr) || self.has_room(AddressFamily::of(addr)), "E2BIG");
                self.addresses.insert(addr, flags);
            }
            MapOp::DeleteAddress { addr } => drop(self.addresses.remove(&addr)),
            MapOp::ClearCounters { service } => {
                ensure!((1..self.capacities.services).contains(&service), "no service {service}");
            }
            MapOp::RaiseEpoch => self.epoch += 1,
        }
        Ok(())
    }

    /// Whether the frontend map of a family, which has the rows of addresses too, takes one more element.
    fn has_room(&self, family: AddressFamily) -> bool {
        let frontends = self.frontends.keys().filter(|key| key.family() == family).count();
        let addresses = self.addresses.keys().filter(|addr| AddressFamily::of(**addr) == family).count();
        frontends + addresses < self.capacities.frontends as usize
    }

    /// One write, unless it is the one that shall fail.
    fn attempt(&mut self, op: &MapOp) -> anyhow::Result<()> {
        match self.fail_after {
            Some(0) => {
                self.fail_after = None;
                bail!("a write that shall fail");
            }
            Some(left) => self.fail_after = Some(left - 1),
            None => {}
        }
        self.write(op)?;
        if self.recording {
            self.log.push(op.clone());
        }
        Ok(())
    }
}

impl Store for FakeStore {
    fn capacities(&self) -> Capacities {
        self.capacities
    }

    fn read(&mut self) -> anyhow::Result<MapContents> {
        let mut contents = MapContents {
            frontends: self.frontends.iter().map(|(&key, &value)| (key, value)).collect(),
            addresses: self.addresses.iter().map(|(&addr, &flags)| (addr, flags)).collect(),
            ranges: self.ranges.iter().copied().collect(),
            selections: self.selections.iter().map(|(&index, &value)| (index, value)).collect(),
            ..MapContents::default()
        };
        for (&(_, id), &backend) in &self.backends {
            match backend {
                AnyBackend::V4(backend) => drop(contents.backends_v4.insert(id, backend)),
                AnyBackend::V6(backend) => drop(contents.backends_v6.insert(id, backend)),
            }
        }
        Ok(contents)
    }

    fn read_rows(&mut self, first: u32, count: u32) -> anyhow::Result<Vec<SlotRow>> {
        let end = first.checked_add(count).filter(|&end| end <= self.capacities.slot_rows);
        let end = end.with_context(|| format!("no {count} rows from {first} on"))?;
        Ok((first..end).map(|row| self.rows.get(&row).copied().unwrap_or_default()).collect())
    }

    fn apply(&mut self, ops: &[MapOp]) -> Result<(), ApplyError> {
        for (index, op) in ops.iter().enumerate() {
            self.attempt(op).map_err(|source| ApplyError { index, source })?;
        }
        Ok(())
    }
    fn settle(&mut self) {
        self.settled_after = Some(self.log.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: Capacities =
        Capacities { frontends: 1, backends: 4, selections: 4, slot_rows: 2, services: 4, ranges: 4 };

    /// The writes of a service with one backend, in the right order.
    fn writes() -> Vec<MapOp> {
        let backend = AnyBackend::new(IpAddr::from([10, 0, 0, 1]), 8080, 1, 1);
        let frontend = Frontend { service: 1, external: 1, internal: 1, flags: 0, affinity_s: 0 };
        vec![
            MapOp::SetBackend { id: 1, value: backend },
            MapOp::WriteRows { first: 0, rows: vec![SlotRow([1; SLOTS_PER_ROW as usize])] },
            MapOp::SetSelection { index: 1, value: Selection::new(0, 1) },
            MapOp::SetFrontend { key: AnyFrontendKey::new(IpAddr::from([10, 96, 0, 1]), 80, 6), value: frontend },
        ]
    }

    #[test]
    fn b77_every_reference_to_nothing_is_noticed() {
        let mut whole = FakeStore::new(ROOM);
        whole.apply(&writes()).unwrap();
        whole.check().unwrap();
        let mut damaged = [whole.clone(), whole.clone(), whole.clone(), whole.clone()];
        let [free, foreign, empty, shared] = &mut damaged;
        free.backends.clear();
        foreign.frontends.values_mut().for_each(|frontend| frontend.service = 2);
        empty.rows.clear();
        shared.selections.insert(2, Selection::new(0, 1));
        shared.frontends.values_mut().for_each(|frontend| frontend.external = 2);
        for store in damaged {
            assert!(store.check().is_err(), "{store:?}");
        }
    }

    #[test]
    fn b77_what_a_packet_may_be_reading_cannot_be_overwritten() {
        let mut store = FakeStore::new(ROOM);
        store.apply(&writes()).unwrap();
        let other = AnyBackend::new(IpAddr::from([10, 0, 0, 2]), 8080, 1, 1);
        assert!(store.write(&MapOp::SetBackend { id: 1, value: other }).is_err());
        assert!(store.write(&MapOp::WriteRows { first: 0, rows: vec![SlotRow::default()] }).is_err());
        assert!(store.write(&MapOp::WriteRows { first: 1, rows: vec![SlotRow::default()] }).is_ok());
    }

    #[test]
    fn b80_a_full_map_and_a_failing_write_stop_the_plan_where_they_happen() {
        for (fail_after, done) in [(Some(0), 0), (Some(2), 2), (None, 4)] {
            let mut store = FakeStore { fail_after, recording: true, ..FakeStore::new(ROOM) };
            let result = store.apply(&writes()).map_err(|error| error.index);
            assert_eq!(result, if done == 4 { Ok(()) } else { Err(done) });
            assert_eq!(store.log, writes()[..done]);
        }
        let mut store = FakeStore::new(Capacities { frontends: 0, ..ROOM });
        assert_eq!(store.apply(&writes()).map_err(|error| error.index), Err(3));
    }
}
