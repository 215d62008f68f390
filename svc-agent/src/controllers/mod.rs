//! The controllers that are missing where there is no Kubernetes: they give Services what an API server, a controller
//! manager and a load balancer's controller would.
//!
//! A function from snapshots to snapshots with a memory. It knows no files but the one that keeps its memory
//! ([`mod@file`]), and nothing of this node: every node that reads the same objects comes to the same result, except where it
//! remembers something else.

mod allocate;
mod endpoints;
mod families;
pub mod file;
mod health;
mod local;
pub mod memory;
mod numbers;
pub mod pool;
mod selection;
mod settings;
mod table;

#[cfg(test)]
mod allocate_tests;
#[cfg(test)]
mod endpoints_tests;
#[cfg(test)]
mod property_tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use self::allocate::allocate;
pub use self::local::LocalControllers;
pub use self::memory::Memory;
use self::selection::Selection;
pub use self::settings::Settings;
use crate::model::{Problem, Service, ServiceName};
use crate::sorted::Sorted;
use crate::sources::Snapshot;

/// Completes snapshots.
#[derive(Debug, Default)]
pub struct Controllers {
    settings: Settings,
    memory: Memory,
    /// The last input, and what came of it.
    before: BTreeMap<ServiceName, Done>,
    complete: bool,
    problems: Vec<Problem>,
    selection: Selection,
}

#[derive(Debug)]
struct Done {
    given: Arc<Service>,
    completed: Arc<Service>,
}

impl Controllers {
    /// Controllers that may give away what the settings say, and gave away what they remember.
    pub fn new(settings: Settings, memory: Memory) -> Self {
        Self { settings, memory, ..Self::default() }
    }

    /// Completes the objects: what is given in them stays as it is. What did not change keeps its `Arc`.
    pub fn complete(&mut self, mut snapshot: Snapshot) -> Snapshot {
        let objects = &mut snapshot.objects;
        if self.complete != snapshot.complete || !self.knows(&objects.services) {
            self.allocate(&objects.services, snapshot.complete);
        }
        let completed = self.before.iter().map(|(name, done)| (name.clone(), done.completed.clone()));
        objects.services = completed.collect();
        snapshot.problems.extend(self.problems.iter().cloned());
        self.selection.complete(
            &objects.services,
            &objects.pods,
            &objects.nodes,
            &mut objects.slices,
            &mut snapshot.problems,
        );
        snapshot
    }

    /// What was given to whom, for a file.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    fn knows(&self, services: &Sorted<ServiceName, Arc<Service>>) -> bool {
        let same = |((name, service), (old_name, old)): ((&ServiceName, &Arc<Service>), (&ServiceName, &Done))| {
            name == old_name && Arc::ptr_eq(service, &old.given)
        };
        services.len() == self.before.len() && services.iter().zip(&self.before).all(same)
    }

    fn allocate(&mut self, services: &Sorted<ServiceName, Arc<Service>>, complete: bool) {
        let allocated = allocate(services, &self.settings, &self.memory, complete);
        let mut before = std::mem::take(&mut self.before);
        for (name, service) in allocated.services {
            let Some(given) = services.get(&name) else { continue };
            let completed = match before.remove(&name) {
                _ if service == **given => given.clone(),
                Some(done) if *done.completed == service => done.completed,
                Some(_) | None => Arc::new(service),
            };
            self.before.insert(name, Done { given: given.clone(), completed });
        }
        self.memory = allocated.memory;
        self.problems = allocated.problems;
        self.complete = complete;
    }
}
