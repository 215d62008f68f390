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
    memory: Arc<Memory>,
    /// The last input, and what came of it.
    given: Sorted<ServiceName, Arc<Service>>,
    completed: Sorted<ServiceName, Arc<Service>>,
    complete: bool,
    problems: Vec<Problem>,
    selection: Selection,
}

impl Controllers {
    /// Controllers that may give away what the settings say, and gave away what they remember.
    pub fn new(settings: Settings, memory: impl Into<Arc<Memory>>) -> Self {
        Self { settings, memory: memory.into(), ..Self::default() }
    }

    /// Completes the objects: what is given in them stays as it is. What did not change keeps its `Arc`.
    pub fn complete(&mut self, mut snapshot: Snapshot) -> Snapshot {
        let objects = &mut snapshot.objects;
        let known = objects.services.changes(&self.given, Arc::ptr_eq).is_empty();
        if self.complete != snapshot.complete || !known {
            self.allocate(&objects.services, snapshot.complete);
        }
        objects.services = self.completed.clone();
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
    pub const fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    fn allocate(&mut self, services: &Sorted<ServiceName, Arc<Service>>, complete: bool) {
        let allocated = allocate(services, &self.settings, &self.memory, complete);
        for change in services.changes(&self.given, Arc::ptr_eq).iter().filter(|change| change.now.is_none()) {
            self.completed.remove(change.key);
        }
        for (name, service) in allocated.services {
            let Some(given) = services.get(&name) else { continue };
            let completed = match self.completed.get(&name) {
                Some(done) if **done == service => continue,
                _ if service == **given => given.clone(),
                Some(_) | None => Arc::new(service),
            };
            self.completed.insert(name, completed);
        }
        self.given = services.clone();
        self.memory = Arc::new(allocated.memory);
        self.problems = allocated.problems;
        self.complete = complete;
    }
}
