//! What there is only so much of in the maps: ids and rows, taken for a whole service or not at all.

use std::collections::BTreeSet;
use std::ops::Range;

use svc_common::maps::{SLOTS_PER_ROW, Selection, spec};

use super::ids::Ids;
use super::rows::Rows;
use crate::apply::Capacities;
use crate::resolve::AddressFamily;

/// Index into `BACKENDS_V4` or `BACKENDS_V6`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendId {
    /// Which of the two maps.
    pub family: AddressFamily,
    /// The index.
    pub id: u32,
}

/// Something in the maps that one service port alone may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Resource {
    /// A service id.
    Service(u32),
    /// A selection index.
    Selection(u32),
    /// A backend id.
    Backend(BackendId),
    /// Rows of slots.
    Rows {
        /// The first one.
        first: u32,
        /// How many.
        count: u32,
    },
}

impl Resource {
    /// The rows behind a selection; `None` if it has no slots.
    pub fn rows_of(selection: Selection) -> Option<Self> {
        let (first, count) = (selection.offset() / SLOTS_PER_ROW, selection.len().div_ceil(SLOTS_PER_ROW));
        (count > 0).then_some(Self::Rows { first, count })
    }
}

/// There is no room for all of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// A map has no free element left.
    #[error("map `{map}` is full: all of its {capacity} elements are in use")]
    Map {
        /// Its name.
        map: &'static str,
        /// How many elements it has.
        capacity: u32,
    },
    /// A map has less free elements than the service needs.
    #[error("map `{map}` is full: {needed} more elements are needed, {free} of {capacity} are free")]
    Elements {
        /// Its name.
        map: &'static str,
        /// How many the service adds.
        needed: u32,
        /// How many are free.
        free: u32,
        /// How many there are.
        capacity: u32,
    },
    /// There is no room for a Maglev table.
    #[error("map `{map}` is full: no {needed} adjacent ones of its {capacity} elements are free")]
    Rows {
        /// Its name.
        map: &'static str,
        /// Rows that the table needs.
        needed: u32,
        /// How many there are.
        capacity: u32,
    },
    /// No table is large enough.
    #[error("{backends} backends are more than one selection can hold")]
    TooManyBackends {
        /// How many there are.
        backends: usize,
    },
}

/// What is free in the maps.
#[derive(Debug)]
pub struct Allocator {
    capacities: Capacities,
    services: Ids,
    selections: Ids,
    backends_v4: Ids,
    backends_v6: Ids,
    rows: Rows,
    /// Taken since the last [`Allocator::commit`].
    taken: Vec<Resource>,
}

impl Allocator {
    /// Everything is free but what is in `used`. The rows in it do not overlap and are inside of the map.
    pub fn new(capacities: Capacities, used: &BTreeSet<Resource>) -> Self {
        let (mut services, mut selections) = (BTreeSet::new(), BTreeSet::new());
        let (mut v4, mut v6, mut rows) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
        for resource in used {
            match *resource {
                Resource::Service(id) => drop(services.insert(id)),
                Resource::Selection(index) => drop(selections.insert(index)),
                Resource::Backend(BackendId { family: AddressFamily::V4, id }) => drop(v4.insert(id)),
                Resource::Backend(BackendId { family: AddressFamily::V6, id }) => drop(v6.insert(id)),
                Resource::Rows { first, count } => rows.push(first..first + count),
            }
        }
        Self {
            capacities,
            services: Ids::new(capacities.services, &services),
            selections: Ids::new(capacities.selections, &selections),
            backends_v4: Ids::new(capacities.backends, &v4),
            backends_v6: Ids::new(capacities.backends, &v6),
            rows: Rows::new(capacities.slot_rows, rows),
            taken: Vec::new(),
        }
    }

    /// Takes a service id.
    ///
    /// # Errors
    /// [`Full`] if there is none.
    pub fn service(&mut self) -> Result<u32, Full> {
        let full = Full::Map { map: spec::SVC_COUNTERS.name, capacity: self.capacities.services };
        let id = self.services.take().ok_or(full)?;
        self.taken.push(Resource::Service(id));
        Ok(id)
    }

    /// Takes a selection index.
    ///
    /// # Errors
    /// [`Full`] if there is none.
    pub fn selection(&mut self) -> Result<u32, Full> {
        let full = Full::Map { map: spec::SELECTIONS.name, capacity: self.capacities.selections };
        let index = self.selections.take().ok_or(full)?;
        self.taken.push(Resource::Selection(index));
        Ok(index)
    }

    /// Takes a backend id.
    ///
    /// # Errors
    /// [`Full`] if there is none.
    pub fn backend(&mut self, family: AddressFamily) -> Result<BackendId, Full> {
        let (ids, map) = match family {
            AddressFamily::V4 => (&mut self.backends_v4, spec::BACKENDS_V4.name),
            AddressFamily::V6 => (&mut self.backends_v6, spec::BACKENDS_V6.name),
        };
        let id = ids.take().ok_or(Full::Map { map, capacity: self.capacities.backends })?;
        let id = BackendId { family, id };
        self.taken.push(Resource::Backend(id));
        Ok(id)
    }

    /// Takes the rows for a table of `slots` slots, at least one.
    ///
    /// # Errors
    /// [`Full`] if there is no such room.
    pub fn rows(&mut self, slots: u32) -> Result<Selection, Full> {
        let needed = slots.div_ceil(SLOTS_PER_ROW);
        let full = Full::Rows { map: spec::SLOTS.name, needed, capacity: self.capacities.slot_rows };
        let Range { start: first, .. } = self.rows.take(needed).ok_or(full)?;
        self.taken.push(Resource::Rows { first, count: needed });
        Ok(Selection::new(first * SLOTS_PER_ROW, slots))
    }

    /// Keeps what was taken.
    pub fn commit(&mut self) {
        self.taken.clear();
    }

    /// Gives back what was taken since the last [`Allocator::commit`] and is written nowhere.
    pub fn undo(&mut self) {
        while let Some(resource) = self.taken.pop() {
            match resource {
                Resource::Service(id) => self.services.untake(id),
                Resource::Selection(index) => self.selections.untake(index),
                Resource::Backend(BackendId { family: AddressFamily::V4, id }) => self.backends_v4.untake(id),
                Resource::Backend(BackendId { family: AddressFamily::V6, id }) => self.backends_v6.untake(id),
                Resource::Rows { first, count } => self.rows.untake(first..first + count),
            }
        }
    }

    /// Frees what nothing in the maps names any more; from the next pass on it may be taken.
    ///
    /// What never fitted into the map, because another agent wrote it, is forgotten.
    pub fn free(&mut self, resource: Resource) {
        let capacities = &self.capacities;
        let valid = |id: u32, capacity: u32| (1..capacity).contains(&id);
        match resource {
            Resource::Service(id) if valid(id, capacities.services) => self.services.free(id),
            Resource::Selection(index) if valid(index, capacities.selections) => self.selections.free(index),
            Resource::Backend(BackendId { family, id }) if valid(id, capacities.backends) => match family {
                AddressFamily::V4 => self.backends_v4.free(id),
                AddressFamily::V6 => self.backends_v6.free(id),
            },
            Resource::Rows { first, count } => self.rows.free(first..first + count),
            Resource::Service(_) | Resource::Selection(_) | Resource::Backend(_) => {}
        }
    }

    /// How much is free or will be: services, selections, backends of both families, rows.
    #[cfg(test)]
    pub fn free_counts(&self) -> [usize; 5] {
        let [services, selections, v4, v6] =
            [&self.services, &self.selections, &self.backends_v4, &self.backends_v6].map(Ids::free_count);
        [services, selections, v4, v6, self.rows.free_count()]
    }

    /// Lets what was freed in this pass be taken.
    pub fn end_pass(&mut self) {
        self.services.end_pass();
        self.selections.end_pass();
        self.backends_v4.end_pass();
        self.backends_v6.end_pass();
        self.rows.end_pass();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Capacities =
        Capacities { frontends: 8, backends: 3, selections: 3, slot_rows: 65, services: 3, ranges: 3 };

    #[test]
    fn b80_what_was_taken_for_a_service_that_does_not_fit_is_given_back() {
        let mut allocator = Allocator::new(SMALL, &BTreeSet::new());
        assert_eq!(allocator.service(), Ok(1));
        assert_eq!(allocator.rows(1021), Ok(Selection::new(0, 1021)));
        allocator.commit();
        for _ in 0..3 {
            assert_eq!(allocator.service(), Ok(2));
            assert_eq!(allocator.backend(AddressFamily::V6).map(|id| id.id), Ok(1));
            assert_eq!(allocator.selection(), Ok(1));
            assert_eq!(allocator.rows(1), Ok(Selection::new(64 * 16, 1)));
            let full = allocator.rows(1021).unwrap_err();
            assert_eq!(full.to_string(), "map `SLOTS` is full: no 64 adjacent ones of its 65 elements are free");
            allocator.undo();
        }
    }

    #[test]
    fn b78_what_is_found_in_the_maps_is_not_taken() {
        let backend = BackendId { family: AddressFamily::V4, id: 1 };
        let used = [Resource::Service(2), Resource::Selection(1), Resource::Backend(backend)];
        let mut allocator = Allocator::new(SMALL, &used.into());
        assert_eq!(allocator.service(), Ok(1));
        assert_eq!(allocator.service(), Err(Full::Map { map: "SVC_COUNTERS", capacity: 3 }));
        assert_eq!(allocator.selection(), Ok(2));
        assert_eq!(allocator.backend(AddressFamily::V4).map(|id| id.id), Ok(2));
        assert_eq!(allocator.backend(AddressFamily::V6).map(|id| id.id), Ok(1));
    }
}
