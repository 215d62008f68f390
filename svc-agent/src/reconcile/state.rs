//! What is known to be in the maps, and for whom.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::addresses::PerFamily;
use super::adopt::{Found, Leftover, tell_selections_apart};
use super::owners::Owners;
use super::programmed::Programmed;
use crate::apply::{AnyFrontendKey, Capacities};
use crate::compile::allocator::Allocator;
use crate::compile::image::Image;
use crate::resolve::{Desired, PortKey, ResolvedPort, ServiceName};
use crate::sorted::Sorted;

/// What is known to be in the maps.
#[derive(Debug)]
pub struct State {
    /// How much fits.
    pub capacities: Capacities,
    /// What is free.
    pub room: Allocator,
    /// Whose the frontends are.
    pub owners: Owners,
    /// The services that are or were wanted since the start.
    pub services: BTreeMap<ServiceName, Known>,
    /// What was wanted last.
    wanted: Sorted<ServiceName, Arc<Vec<ResolvedPort>>>,
    /// Services whose last pass has not ended well yet.
    pub unfinished: BTreeSet<ServiceName>,
    /// Found at the start, and wanted by nobody yet; by service id.
    pub leftovers: BTreeMap<u32, Leftover>,
    /// Selections found at the start that no frontend uses.
    pub strays: BTreeSet<u32>,
    /// How many source ranges there are.
    pub ranges: PerFamily,
    /// Something that a flow may come from has changed since the epoch was raised.
    pub epoch_due: bool,
}

/// One service.
#[derive(Debug, Default)]
pub struct Known {
    /// What it was brought to; `None` unless all of that is in the maps and nothing else.
    pub done: Option<Arc<Vec<ResolvedPort>>>,
    /// Its ports hold what an earlier agent wrote, which nobody has confirmed to be obsolete.
    pub inherited: bool,
    /// What its ports have in the maps.
    pub ports: Sorted<PortKey, Image>,
}

/// What differs between what is wanted and what was done.
#[derive(Debug, Default)]
pub struct Changes<'a> {
    /// Services that are new, changed or not done yet.
    pub wanted: Vec<(&'a ServiceName, &'a Arc<Vec<ResolvedPort>>)>,
    /// Services that are wanted no more.
    pub gone: Vec<ServiceName>,
}

impl State {
    /// Begins with what was found in the maps.
    pub fn new(capacities: Capacities, found: Found) -> Self {
        let (mut owners, mut ranges) = (Owners::default(), PerFamily::default());
        for leftover in found.leftovers.values() {
            for (&key, value) in &leftover.image.frontends {
                owners.insert(key, value);
            }
            *ranges.of_mut(leftover.image.family) += leftover.image.ranges.len();
        }
        Self {
            capacities,
            room: Allocator::new(capacities, &found.resources()),
            owners,
            services: BTreeMap::new(),
            wanted: Sorted::new(),
            unfinished: BTreeSet::new(),
            leftovers: found.leftovers,
            strays: found.strays,
            ranges,
            epoch_due: false,
        }
    }

    /// What is wanted and not done: what changed since the last call, and what was not finished then.
    pub fn changes<'a>(&mut self, desired: &'a Desired) -> Changes<'a> {
        let changed = desired.services.changes(&self.wanted, Arc::ptr_eq);
        self.unfinished.extend(changed.into_iter().map(|change| change.key.clone()));
        self.wanted = desired.services.clone();
        let mut changes = Changes::default();
        self.unfinished.retain(|name| {
            let known = self.services.get(name);
            let Some((name, ports)) = desired.services.get_key_value(name) else {
                changes.gone.extend(known.map(|_| name.clone()));
                return known.is_some();
            };
            let is_done = known.and_then(|known| known.done.as_ref()).is_some_and(|done| Arc::ptr_eq(done, ports));
            if !is_done {
                changes.wanted.push((name, ports));
            }
            !is_done
        });
        changes
    }

    /// Gives what was found at the start to the wanted service ports that share most frontends with it.
    pub fn adopt(&mut self, desired: &Desired, programmed: &Programmed) {
        if self.leftovers.is_empty() {
            return;
        }
        let mut matches = Vec::new();
        for (name, ports) in &desired.services {
            let known = self.services.get(name);
            let bare = |port: &&ResolvedPort| known.is_none_or(|known| !known.ports.contains_key(&port.key));
            for port in ports.iter().filter(bare) {
                let mut shared: BTreeMap<u32, usize> = BTreeMap::new();
                for frontend in &port.frontends {
                    let key = AnyFrontendKey::new(frontend.addr, frontend.port, port.key.protocol);
                    if let Some(service) = self.owners.of(&key) {
                        *shared.entry(service).or_default() += 1;
                    }
                }
                matches.extend(shared.into_iter().map(|(service, count)| (count, service, name, port)));
            }
        }
        // Stable: among equals, the first name wins.
        matches.sort_by_key(|&(count, ..)| std::cmp::Reverse(count));
        for (_, service, name, port) in matches {
            let fits = |leftover: &Leftover| leftover.sound && leftover.image.family == port.key.family;
            let known = self.services.entry(name.clone()).or_default();
            if known.ports.contains_key(&port.key) || !self.leftovers.get(&service).is_some_and(fits) {
                continue;
            }
            if let Some(Leftover { mut image, .. }) = self.leftovers.remove(&service) {
                tell_selections_apart(&mut image, port);
                programmed.set(&port.key, Some(&image));
                known.ports.insert(port.key.clone(), image);
                known.inherited = true;
            }
        }
    }
}
