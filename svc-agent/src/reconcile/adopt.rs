//! What an earlier agent left in the maps, as images of service ports, so that a restart goes on with the same ids (B78).
//!
//! The maps do not tell the names of the services. An image is found again by its frontends.

use std::collections::{BTreeMap, BTreeSet};

use svc_common::maps::{SLOTS_PER_ROW, Selection, SlotRow};

use crate::apply::{AnyBackend, AnyFrontendKey, Capacities, MapContents};
use crate::compile::allocator::{BackendId, Resource};
use crate::compile::image::{Image, Table};
use crate::resolve::{AddressFamily, ResolvedPort};

/// The elements of one service id that were found in the maps.
#[derive(Debug)]
pub struct Leftover {
    /// The elements. Which selection is whose is not known yet.
    pub image: Image,
    /// Whether everything is as an agent writes it. If not, it is replaced rather than adopted.
    pub sound: bool,
}

/// All that was found in the maps.
#[derive(Debug, Default)]
pub struct Found {
    /// By service id.
    pub leftovers: BTreeMap<u32, Leftover>,
    /// Selections that no frontend uses.
    pub strays: BTreeSet<u32>,
}

impl Found {
    /// Sorts out what the maps hold; `read_rows` reads a run of slot rows.
    ///
    /// # Errors
    /// If rows cannot be read.
    pub fn sort_out(
        contents: &MapContents,
        capacities: Capacities,
        read_rows: &mut dyn FnMut(u32, u32) -> anyhow::Result<Vec<SlotRow>>,
    ) -> anyhow::Result<Self> {
        let mut found = Self::default();
        for (&key, &frontend) in &contents.frontends {
            let image = found.image(frontend.service, key.family(), capacities);
            image.frontends.insert(key, frontend);
        }
        for &(service, range) in &contents.ranges {
            found.image(service, AddressFamily::of(range.addr()), capacities).ranges.insert(range);
        }
        let v4 = contents.backends_v4.iter().map(|(&id, &backend)| (id, AnyBackend::V4(backend)));
        let v6 = contents.backends_v6.iter().map(|(&id, &backend)| (id, AnyBackend::V6(backend)));
        for (id, backend) in v4.chain(v6) {
            let image = found.image(backend.service(), backend.family(), capacities);
            image.backends.insert(BackendId { family: backend.family(), id }, backend);
        }

        let mut claims = Claims { capacities, selections: BTreeSet::new(), rows: BTreeMap::new() };
        for Leftover { image, sound } in found.leftovers.values_mut() {
            let used = image.frontends.values().flat_map(|frontend| [frontend.external, frontend.internal]);
            for index in used.collect::<BTreeSet<_>>() {
                if !claims.selection(index) {
                    *sound = false;
                    continue;
                }
                let selection = contents.selections.get(&index).copied().unwrap_or_default();
                let table = match Resource::rows_of(selection) {
                    None => Table::empty(selection),
                    Some(Resource::Rows { first, count }) if claims.rows(selection, first, count) => {
                        Table { selection, members: members(image, &read_rows(first, count)?) }
                    }
                    Some(_) => {
                        *sound = false;
                        Table::empty(Selection::REJECT)
                    }
                };
                image.tables.insert(index, table);
            }
        }
        found.strays = contents.selections.keys().filter(|index| !claims.selections.contains(index)).copied().collect();
        Ok(found)
    }

    /// All that is in use.
    pub fn resources(&self) -> BTreeSet<Resource> {
        let images = self.leftovers.values().flat_map(|leftover| leftover.image.resources());
        images.chain(self.strays.iter().map(|&index| Resource::Selection(index))).collect()
    }

    /// The image of a service id. It is unsound if it spans two families, or is outside of the map.
    fn image(&mut self, service: u32, family: AddressFamily, capacities: Capacities) -> &mut Image {
        let leftover = self.leftovers.entry(service).or_insert_with(|| Leftover {
            image: Image::new(family, service),
            sound: (1..capacities.services).contains(&service),
        });
        leftover.sound &= leftover.image.family == family;
        &mut leftover.image
    }
}

/// What some image has already; nothing may belong to two.
struct Claims {
    capacities: Capacities,
    selections: BTreeSet<u32>,
    /// First row -> row after the last.
    rows: BTreeMap<u32, u32>,
}

impl Claims {
    fn selection(&mut self, index: u32) -> bool {
        (1..self.capacities.selections).contains(&index) && self.selections.insert(index)
    }

    fn rows(&mut self, selection: Selection, first: u32, count: u32) -> bool {
        let aligned = selection.offset().is_multiple_of(SLOTS_PER_ROW);
        let Some(end) = first.checked_add(count).filter(|&end| aligned && end <= self.capacities.slot_rows) else {
            return false;
        };
        let free = self.rows.range(..end).next_back().is_none_or(|(_, &before)| before <= first);
        if free {
            self.rows.insert(first, end);
        }
        free
    }
}

/// The members of a table, if it is the one that this version makes of them.
fn members(image: &Image, rows: &[SlotRow]) -> Option<Vec<u32>> {
    let ids: BTreeSet<u32> = rows.iter().flat_map(|row| row.0).filter(|&id| id != 0).collect();
    let backend = |id| Some((image.backends.get(&BackendId { family: image.family, id })?.name(), id));
    let mut named: Vec<_> = ids.into_iter().map(backend).collect::<Option<_>>()?;
    named.sort_unstable();
    let members: Vec<u32> = named.into_iter().map(|(_, id)| id).collect();
    (image.rows(&members) == rows).then_some(members)
}

/// Tells the selections of an adopted image apart, by what the frontends that `port` wants use at present.
pub fn tell_selections_apart(image: &mut Image, port: &ResolvedPort) {
    let mut scopes = Vec::new();
    for frontend in &port.frontends {
        let key = AnyFrontendKey::new(frontend.addr, frontend.port, port.key.protocol);
        if let Some(found) = image.frontends.get(&key) {
            scopes.push((frontend.external_local, found.external));
            scopes.push((frontend.internal_local, found.internal));
        }
    }
    let first = |local| scopes.iter().find(|(wanted, _)| *wanted == local).map(|&(_, index)| index);
    image.cluster = first(false);
    image.local = first(true).filter(|&index| Some(index) != image.cluster);
}
