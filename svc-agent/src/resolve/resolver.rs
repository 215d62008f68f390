//! Keeps what was resolved, so that a change of one endpoint costs one Service (B80).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::claims::{Granted, Grants, grant, inherit};
use super::service::resolve;
use super::{Desired, Inherited, Node, Policy, ResolvedPort};
use crate::model::{EndpointSlice, Problem, Service, ServiceName};
use crate::sorted::{Sorted, shares_all};
use crate::sources::{Objects, Snapshot};

/// Turns snapshots into desired states.
#[derive(Debug, Default)]
pub struct Resolver {
    policy: Policy,
    node: Option<Node>,
    grants: Grants,
    /// Until the first complete snapshot: who owned what may be in a file that cannot be read yet.
    inherited: Option<Inherited>,
    /// The last input; maps that share what did not change tell at once what did.
    services: Sorted<ServiceName, Arc<Service>>,
    slices: Sorted<ServiceName, Vec<Arc<EndpointSlice>>>,
    cache: BTreeMap<ServiceName, Cached>,
    /// The last result.
    resolved: Sorted<ServiceName, Arc<Vec<ResolvedPort>>>,
    /// What is wrong with Services; most have no entry.
    problems: BTreeMap<ServiceName, Vec<Problem>>,
    /// Endpoints without a Service.
    orphans: BTreeMap<ServiceName, Problem>,
    /// How many Services the last call looked at.
    looked: usize,
}

/// One Service, with everything that its result was made of.
#[derive(Debug)]
struct Cached {
    service: Arc<Service>,
    slices: Vec<Arc<EndpointSlice>>,
    granted: Vec<Granted>,
    ports: Arc<Vec<ResolvedPort>>,
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

    /// Resolves what changed since the last call; the rest keeps its `Arc`, and is not looked at.
    pub fn update(&mut self, snapshot: &Snapshot, node: &Node) -> Desired {
        let objects = &snapshot.objects;
        let moved = self.node.as_ref() != Some(node);
        let mut touched: BTreeSet<ServiceName> = BTreeSet::new();
        touched.extend(objects.services.changes(&self.services, Arc::ptr_eq).iter().map(|change| change.key.clone()));
        if moved || !touched.is_empty() {
            let before = std::mem::take(&mut self.grants);
            let known = match &self.inherited {
                Some(inherited) => &inherit(objects.services.values(), &objects.slices, &self.policy, node, inherited),
                None => &before,
            };
            self.grants = grant(objects.services.values(), &self.policy, node, known);
            touched.extend(self.grants.changed(&before));
            self.node = Some(node.clone());
        }
        let slices = objects.slices.changes(&self.slices, |old, new| shares_all(old, new));
        touched.extend(slices.iter().map(|change| change.key.clone()));
        if moved {
            touched.extend(objects.services.keys().cloned());
        }
        if snapshot.complete {
            self.inherited = None;
        }
        self.looked = touched.len();
        for name in touched {
            self.look(&name, objects, node, moved);
        }
        self.services = objects.services.clone();
        self.slices = objects.slices.clone();
        let mut problems = snapshot.problems.clone();
        problems.extend(self.grants.problems.iter().cloned());
        problems.extend(self.problems.values().flatten().cloned());
        problems.extend(self.orphans.values().cloned());
        Desired { services: self.resolved.clone(), complete: snapshot.complete, problems }
    }

    /// How many Services the last call looked at.
    #[cfg(test)]
    pub fn looked(&self) -> usize {
        self.looked
    }

    /// Resolves one Service anew, unless all that its result was made of is as it was.
    fn look(&mut self, name: &ServiceName, objects: &Objects, node: &Node, moved: bool) {
        let slices = objects.slices.get(name).map(Vec::as_slice).unwrap_or_default();
        match orphan(name, slices).filter(|_| !objects.services.contains_key(name)) {
            Some(problem) => drop(self.orphans.insert(name.clone(), problem)),
            None => drop(self.orphans.remove(name)),
        }
        let old = self.cache.remove(name);
        let Some(service) = objects.services.get(name) else {
            self.resolved.remove(name);
            self.problems.remove(name);
            return;
        };
        let granted = self.grants.services.get(name).map(Vec::as_slice).unwrap_or_default();
        let old = match old {
            Some(cached) if !moved && cached.is_of(service, slices, granted) => {
                self.cache.insert(name.clone(), cached);
                return;
            }
            old => old,
        };
        let (cached, problems) = Cached::new(service, slices, granted, node, old);
        if problems.is_empty() {
            self.problems.remove(name);
        } else {
            self.problems.insert(name.clone(), problems);
        }
        if cached.ports.is_empty() {
            self.resolved.remove(name);
        } else if self.resolved.get(name).is_none_or(|ports| !Arc::ptr_eq(ports, &cached.ports)) {
            self.resolved.insert(name.clone(), cached.ports.clone());
        }
        self.cache.insert(name.clone(), cached);
    }
}

impl Cached {
    fn new(
        service: &Arc<Service>,
        slices: &[Arc<EndpointSlice>],
        granted: &[Granted],
        node: &Node,
        old: Option<Self>,
    ) -> (Self, Vec<Problem>) {
        let mut problems = Vec::new();
        let ports = resolve(service, slices, granted, node, &mut problems);
        // The input may have changed in what does not matter here: a label, the place in a file.
        let ports = match old {
            Some(old) if *old.ports == ports => old.ports,
            _ => Arc::new(ports),
        };
        let (slices, granted) = (slices.to_vec(), granted.to_vec());
        (Self { service: service.clone(), slices, granted, ports }, problems)
    }

    fn is_of(&self, service: &Arc<Service>, slices: &[Arc<EndpointSlice>], granted: &[Granted]) -> bool {
        Arc::ptr_eq(&self.service, service) && shares_all(&self.slices, slices) && self.granted == granted
    }
}

/// Endpoints without a Service: most often a slip in one of the names.
fn orphan(name: &ServiceName, slices: &[Arc<EndpointSlice>]) -> Option<Problem> {
    let slice = slices.first()?;
    Some(Problem::notice(format!("{}: endpoints of Service `{name}`, which is not there: not used", slice.origin)))
}
