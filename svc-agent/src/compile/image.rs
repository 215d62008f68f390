//! What one service port looks like in the maps.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use svc_common::maps::{Frontend, SLOTS_PER_ROW, Selection, SlotRow};

use super::allocator::{BackendId, Resource};
use super::maglev::{self, Member};
use crate::apply::{AnyBackend, AnyFrontendKey, MapOp};
use crate::resolve::AddressFamily;

/// The elements of all maps that belong to one service port: wanted, or known to be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The family of the backends that its tables name.
    pub family: AddressFamily,
    /// Its service id.
    pub service: u32,
    /// Index of the selection of the cluster set, if any frontend uses it.
    pub cluster: Option<u32>,
    /// Index of the selection of the local set, if any frontend uses it.
    pub local: Option<u32>,
    /// What clients dial.
    pub frontends: BTreeMap<AnyFrontendKey, Frontend>,
    /// The source ranges of its load balancer's addresses, of its family.
    pub ranges: BTreeSet<IpNet>,
    /// Its selections by index.
    pub tables: BTreeMap<u32, Table>,
    /// Its backends.
    pub backends: BTreeMap<BackendId, AnyBackend>,
}

/// One selection and what its slots hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// The selection.
    pub selection: Selection,
    /// The backends that the table was made of, sorted by address and port; `None` if the slots hold something else.
    /// A backend keeps its id and its name while the service lives, so equal members make equal tables.
    pub members: Option<Vec<u32>>,
}

impl Table {
    /// A selection without slots.
    pub const fn empty(selection: Selection) -> Self {
        Self { selection, members: Some(Vec::new()) }
    }
}

impl Image {
    /// Of a service port that has nothing in the maps yet.
    pub fn new(family: AddressFamily, service: u32) -> Self {
        Self {
            family,
            service,
            cluster: None,
            local: None,
            frontends: BTreeMap::new(),
            ranges: BTreeSet::new(),
            tables: BTreeMap::new(),
            backends: BTreeMap::new(),
        }
    }

    /// Whether it has nothing in the maps.
    pub fn is_empty(&self) -> bool {
        self.frontends.is_empty() && self.ranges.is_empty() && self.tables.is_empty() && self.backends.is_empty()
    }

    /// What its elements take.
    pub fn resources(&self) -> BTreeSet<Resource> {
        let selections = self.tables.keys().map(|&index| Resource::Selection(index));
        let rows = self.tables.values().filter_map(|table| Resource::rows_of(table.selection));
        let backends = self.backends.keys().map(|&id| Resource::Backend(id));
        [Resource::Service(self.service)].into_iter().chain(selections).chain(rows).chain(backends).collect()
    }

    /// The rows of slots that a table of this image consists of; none if its members are not all backends of it.
    pub fn rows(&self, members: &[u32]) -> Vec<SlotRow> {
        let member = |&id: &u32| {
            let (addr, port) = self.backends.get(&BackendId { family: self.family, id })?.name();
            Some(Member { addr, port, weight: 1 })
        };
        let named: Option<Vec<_>> = members.iter().map(member).collect();
        let slots = named.and_then(|named| maglev::table(&named)).unwrap_or_default();
        let ids: Vec<u32> = slots.iter().map(|&slot| members.get(slot as usize).copied().unwrap_or(0)).collect();
        let row = |ids: &[u32]| {
            let mut row = SlotRow::default();
            row.0.iter_mut().zip(ids).for_each(|(slot, &id)| *slot = id);
            row
        };
        ids.chunks(SLOTS_PER_ROW as usize).map(row).collect()
    }

    /// Records a write that was carried out on the way to `target`, or to nothing at all.
    pub fn record(&mut self, op: &MapOp, target: Option<&Self>) {
        match *op {
            MapOp::SetBackend { id, value } if value.is_free() => {
                self.backends.remove(&BackendId { family: value.family(), id });
            }
            MapOp::SetBackend { id, value } => {
                self.backends.insert(BackendId { family: value.family(), id }, value);
            }
            MapOp::SetSelection { index, .. } => match target.and_then(|target| target.tables.get(&index)) {
                Some(table) => drop(self.tables.insert(index, table.clone())),
                None => drop(self.tables.remove(&index)),
            },
            MapOp::SetFrontend { key, value } => drop(self.frontends.insert(key, value)),
            MapOp::DeleteFrontend { key } => drop(self.frontends.remove(&key)),
            MapOp::SetRange { range, .. } => drop(self.ranges.insert(range)),
            MapOp::DeleteRange { range, .. } => drop(self.ranges.remove(&range)),
            MapOp::SetAddress { .. } | MapOp::DeleteAddress { .. } => {}
            MapOp::WriteRows { .. } | MapOp::ClearCounters { .. } | MapOp::RaiseEpoch => {}
        }
        if let Some(target) = target {
            (self.cluster, self.local) = (target.cluster, target.local);
        }
    }

    /// The ids of its backends by address and port.
    pub fn backend_ids(&self) -> BTreeMap<(IpAddr, u16), BackendId> {
        self.backends.iter().map(|(&id, backend)| (backend.name(), id)).collect()
    }
}
