//! Keeps the endpoints that were made, so that a change of one Pod costs the Services that select it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::endpoints::{matches, selects, slices};
use crate::model::{EndpointSlice, Node, Pod, Problem, Service, ServiceName};
use crate::sorted::{Sorted, shares_all};

/// Pods by name.
type Pods = Sorted<String, Arc<Pod>>;
/// Endpoints by Service.
type Slices = Sorted<ServiceName, Vec<Arc<EndpointSlice>>>;

/// What was made of each Service, and what of.
#[derive(Debug, Default)]
pub struct Selection {
    /// The last input; maps that share what did not change tell at once what did.
    services: Sorted<ServiceName, Arc<Service>>,
    pods: Sorted<String, Pods>,
    nodes: BTreeMap<String, Arc<Node>>,
    given: Slices,
    /// The last result: what was given, and what was made.
    whole: Slices,
    made: BTreeMap<ServiceName, Made>,
    /// What is wrong with Services; most have no entry.
    problems: BTreeMap<ServiceName, Vec<Problem>>,
    /// How many Services were made anew by the last call.
    remade: usize,
}

#[derive(Debug)]
struct Made {
    service: Arc<Service>,
    slices: Vec<Arc<EndpointSlice>>,
}

impl Selection {
    /// Adds the endpoints of the Services that select Pods and have none yet to `slices`. What did not change is not looked
    /// at.
    pub fn complete(
        &mut self,
        services: &Sorted<ServiceName, Arc<Service>>,
        pods: &Sorted<String, Pods>,
        nodes: &BTreeMap<String, Arc<Node>>,
        slices: &mut Slices,
        problems: &mut Vec<Problem>,
    ) {
        let due = self.due(services, pods, nodes, slices);
        self.remade = 0;
        let mut namespace: Option<Namespace<'_>> = None;
        for name in due {
            let old = self.made.remove(&name);
            let service = services.get(&name).filter(|service| selects(service) && !slices.contains_key(&name));
            let made = service.map(|service| {
                // Services come sorted by namespace.
                let namespace = match namespace.take().filter(|last| last.name == name.namespace) {
                    Some(last) => namespace.insert(last),
                    None => namespace.insert(Namespace::new(&name.namespace, pods.get(&name.namespace))),
                };
                Made::new(service, namespace, nodes, old)
            });
            self.take(name, made, slices);
        }
        self.services = services.clone();
        self.pods = pods.clone();
        self.nodes.clone_from(nodes);
        self.given = std::mem::replace(slices, self.whole.clone());
        problems.extend(self.problems.values().flatten().cloned());
    }

    /// The Services whose endpoints may not be what they were.
    fn due(
        &self,
        services: &Sorted<ServiceName, Arc<Service>>,
        pods: &Sorted<String, Pods>,
        nodes: &BTreeMap<String, Arc<Node>>,
        given: &Slices,
    ) -> BTreeSet<ServiceName> {
        let changed = services.changes(&self.services, Arc::ptr_eq);
        let mut due: BTreeSet<ServiceName> = changed.iter().map(|change| change.key.clone()).collect();
        let changed = given.changes(&self.given, |old, new| shares_all(old, new));
        due.extend(changed.iter().map(|change| change.key.clone()));
        if !zones(nodes).eq(zones(&self.nodes)) {
            due.extend(self.made.keys().cloned());
        }
        let none = Pods::new();
        for change in pods.changes(&self.pods, |_, _| false) {
            let (before, now) = (change.before.unwrap_or(&none), change.now.unwrap_or(&none));
            let changed = now.changes(before, Arc::ptr_eq);
            if changed.is_empty() {
                continue;
            }
            let touches = |made: &Made| {
                let mut both = changed.iter().flat_map(|change| change.before.into_iter().chain(change.now));
                both.any(|pod| matches(&made.service, pod))
            };
            let own = self.made.range(ServiceName::new(change.key.as_str(), "")..);
            let own = own.take_while(|(name, _)| name.namespace == *change.key);
            due.extend(own.filter(|(_, made)| touches(made)).map(|(name, _)| name.clone()));
        }
        due
    }

    /// Puts what was made, if anything was, in the place of what was given.
    fn take(&mut self, name: ServiceName, made: Option<(Made, Vec<Problem>)>, given: &Slices) {
        let slices = made.as_ref().map(|(made, _)| &made.slices).or_else(|| given.get(&name));
        match slices {
            Some(slices) if self.whole.get(&name).is_some_and(|known| shares_all(known, slices)) => {}
            Some(slices) => drop(self.whole.insert(name.clone(), slices.clone())),
            None => drop(self.whole.remove(&name)),
        }
        self.problems.remove(&name);
        if let Some((made, problems)) = made {
            self.remade += 1;
            if !problems.is_empty() {
                self.problems.insert(name.clone(), problems);
            }
            self.made.insert(name, made);
        }
    }

    /// How many Services were made anew by the last call.
    #[cfg(test)]
    pub fn remade(&self) -> usize {
        self.remade
    }
}

/// Nodes by name with their zones.
fn zones(nodes: &BTreeMap<String, Arc<Node>>) -> impl Iterator<Item = (&String, &Option<String>)> {
    nodes.iter().map(|(name, node)| (name, &node.zone))
}

impl Made {
    fn new(
        service: &Arc<Service>,
        namespace: &mut Namespace<'_>,
        nodes: &BTreeMap<String, Arc<Node>>,
        old: Option<Self>,
    ) -> (Self, Vec<Problem>) {
        let mut problems = Vec::new();
        let made = slices(service, namespace.matching(service).into_iter(), nodes, &mut problems);
        let mut old = old.map(|old| old.slices).unwrap_or_default();
        let shared = made.into_iter().map(|slice| match old.iter().position(|old| **old == slice) {
            Some(i) => old.swap_remove(i),
            None => Arc::new(slice),
        });
        (Self { service: service.clone(), slices: shared.collect() }, problems)
    }
}

/// The Pods of one namespace.
struct Namespace<'a> {
    name: String,
    pods: Option<&'a Pods>,
    /// Pods by label; made when the first Service asks.
    by_label: Option<HashMap<(&'a str, &'a str), Vec<&'a Pod>>>,
    asked: usize,
}

/// So many Services look through all Pods before an index by label is worth making.
const ASKED: usize = 4;

impl<'a> Namespace<'a> {
    fn new(name: &str, pods: Option<&'a Pods>) -> Self {
        Self { name: name.to_owned(), pods, by_label: None, asked: 0 }
    }

    /// The Pods that a Service selects, in the order of their names.
    fn matching(&mut self, service: &Service) -> Vec<&'a Pod> {
        self.asked += 1;
        let pods = self.pods.into_iter().flat_map(Pods::values);
        if self.asked <= ASKED {
            return pods.map(Arc::as_ref).filter(|pod| matches(service, pod)).collect();
        }
        let index = self.by_label.get_or_insert_with(|| {
            let mut index: HashMap<(&str, &str), Vec<&Pod>> = HashMap::new();
            for pod in pods {
                for (key, value) in &pod.labels {
                    index.entry((key, value)).or_default().push(pod);
                }
            }
            index
        });
        // The rarest label, to look at the fewest Pods.
        let labels = service.selector.iter();
        let candidates = labels
            .map(|(key, value)| index.get(&(key.as_str(), value.as_str())).map(Vec::as_slice).unwrap_or_default());
        let candidates = candidates.min_by_key(|pods| pods.len());
        candidates.unwrap_or_default().iter().copied().filter(|pod| matches(service, pod)).collect()
    }
}
