//! Keeps what was resolved, so that a change of one endpoint costs one Service (B80).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::claims::{Granted, Grants, grant, inherit};
use super::service::resolve;
use super::{Desired, Inherited, Node, Policy, ResolvedPort};
use crate::model::{EndpointSlice, Problem, Service, ServiceName};
use crate::sources::{Objects, Snapshot};

/// Turns snapshots into desired states.
#[derive(Debug, Default)]
pub struct Resolver {
    policy: Policy,
    node: Option<Node>,
    grants: Grants,
    /// Until the first complete snapshot: who owned what may be in a file that cannot be read yet.
    inherited: Option<Inherited>,
    cache: BTreeMap<ServiceName, Cached>,
}

/// One Service, with everything that its result was made of.
#[derive(Debug)]
struct Cached {
    service: Arc<Service>,
    slices: Vec<Arc<EndpointSlice>>,
    granted: Vec<Granted>,
    ports: Arc<Vec<ResolvedPort>>,
    problems: Vec<Problem>,
}

impl Resolver {
    /// A resolver with the operator's rules.
    pub fn new(policy: Policy) -> Self {
        Self { policy, ..Self::default() }
    }

    /// Has the owners of before the start keep what they had.
    pub fn inherit(&mut self, inherited: Inherited) {
        self.inherited = Some(inherited);
        self.node = None;
    }

    /// Resolves what changed since the last call; the rest keeps its `Arc`.
    pub fn update(&mut self, snapshot: &Snapshot, node: &Node) -> Desired {
        let objects = &snapshot.objects;
        let moved = self.node.as_ref() != Some(node);
        if moved || self.services_changed(objects) {
            if let Some(inherited) = &self.inherited {
                self.grants = inherit(objects.services.values(), &objects.slices, &self.policy, node, inherited);
            }
            self.grants = grant(objects.services.values(), &self.policy, node, &self.grants);
            self.node = Some(node.clone());
        }
        if snapshot.complete {
            self.inherited = None;
        }
        let mut before = std::mem::take(&mut self.cache);
        let mut desired = Desired { complete: snapshot.complete, ..Desired::default() };
        desired.problems.extend(snapshot.problems.iter().cloned());
        desired.problems.extend(self.grants.problems.iter().cloned());
        for (name, service) in &objects.services {
            let slices = objects.slices.get(name).map(Vec::as_slice).unwrap_or_default();
            let granted = self.grants.services.get(name).map(Vec::as_slice).unwrap_or_default();
            let cached = match before.remove(name) {
                Some(cached) if !moved && cached.is_of(service, slices, granted) => cached,
                old => Cached::new(service, slices, granted, node, old),
            };
            desired.problems.extend(cached.problems.iter().cloned());
            if !cached.ports.is_empty() {
                desired.services.insert(name.clone(), cached.ports.clone());
            }
            self.cache.insert(name.clone(), cached);
        }
        desired.problems.extend(orphans(objects));
        desired
    }

    fn services_changed(&self, objects: &Objects) -> bool {
        let same = |((name, service), (old_name, old)): ((&ServiceName, &Arc<Service>), (&ServiceName, &Cached))| {
            name == old_name && Arc::ptr_eq(service, &old.service)
        };
        objects.services.len() != self.cache.len() || !objects.services.iter().zip(&self.cache).all(same)
    }
}

impl Cached {
    fn new(
        service: &Arc<Service>,
        slices: &[Arc<EndpointSlice>],
        granted: &[Granted],
        node: &Node,
        old: Option<Self>,
    ) -> Self {
        let mut problems = Vec::new();
        let ports = resolve(service, slices, granted, node, &mut problems);
        // The input may have changed in what does not matter here: a label, the place in a file.
        let ports = match old {
            Some(old) if *old.ports == ports => old.ports,
            _ => Arc::new(ports),
        };
        Self { service: service.clone(), slices: slices.to_vec(), granted: granted.to_vec(), ports, problems }
    }

    fn is_of(&self, service: &Arc<Service>, slices: &[Arc<EndpointSlice>], granted: &[Granted]) -> bool {
        Arc::ptr_eq(&self.service, service)
            && self.slices.len() == slices.len()
            && self.slices.iter().zip(slices).all(|(old, new)| Arc::ptr_eq(old, new))
            && self.granted == granted
    }
}

/// Endpoints without a Service: most often a slip in one of the names.
fn orphans(objects: &Objects) -> impl Iterator<Item = Problem> {
    let lost = objects.slices.iter().filter(|(name, _)| !objects.services.contains_key(*name));
    lost.filter_map(|(name, slices)| {
        let slice = slices.first()?;
        Some(Problem::notice(format!("{}: endpoints of Service `{name}`, which is not there: not used", slice.origin)))
    })
}
