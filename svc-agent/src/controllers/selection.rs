//! Keeps the endpoints that were made, so that a change of one Pod costs the Services that select it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::endpoints::{matches, selects, slices};
use crate::model::{EndpointSlice, Node, Pod, Problem, Service, ServiceName};
use crate::sorted::Sorted;

/// Pods by name.
type Pods = BTreeMap<String, Arc<Pod>>;

/// What was made of each Service, and what of.
#[derive(Debug, Default)]
pub struct Selection {
    pods: BTreeMap<String, Pods>,
    nodes: BTreeMap<String, Arc<Node>>,
    made: BTreeMap<ServiceName, Made>,
    /// How many Services were made anew by the last call.
    remade: usize,
}

#[derive(Debug)]
struct Made {
    service: Arc<Service>,
    slices: Vec<Arc<EndpointSlice>>,
    problems: Vec<Problem>,
}

impl Selection {
    /// Adds the endpoints of the Services that select Pods and have none yet to `slices`.
    pub fn complete(
        &mut self,
        services: &Sorted<ServiceName, Arc<Service>>,
        pods: &BTreeMap<String, Pods>,
        nodes: &BTreeMap<String, Arc<Node>>,
        given: &mut Sorted<ServiceName, Vec<Arc<EndpointSlice>>>,
        problems: &mut Vec<Problem>,
    ) {
        let zones = |nodes: &BTreeMap<String, Arc<Node>>| -> Vec<_> {
            nodes.values().map(|node| (node.name.clone(), node.zone.clone())).collect()
        };
        let moved = zones(nodes) != zones(&self.nodes);
        let mut before = std::mem::take(&mut self.made);
        self.remade = 0;
        let none = Pods::new();
        let mut namespace: Option<Namespace<'_>> = None;
        for (name, service) in services {
            if !selects(service) || given.contains_key(name) {
                continue;
            }
            // Services come sorted by namespace.
            let namespace = match namespace.take().filter(|last| last.name == name.namespace) {
                Some(last) => namespace.insert(last),
                None => {
                    let old = self.pods.get(&name.namespace).unwrap_or(&none);
                    let new = pods.get(&name.namespace).unwrap_or(&none);
                    namespace.insert(Namespace::new(&name.namespace, old, new))
                }
            };
            let made = match before.remove(name) {
                Some(made) if !moved && Arc::ptr_eq(&made.service, service) && !namespace.touches(service) => made,
                old => {
                    self.remade += 1;
                    Made::new(service, namespace, nodes, old)
                }
            };
            problems.extend(made.problems.iter().cloned());
            given.insert(name.clone(), made.slices.clone());
            self.made.insert(name.clone(), made);
        }
        self.pods.clone_from(pods);
        self.nodes.clone_from(nodes);
    }

    /// How many Services were made anew by the last call.
    #[cfg(test)]
    pub fn remade(&self) -> usize {
        self.remade
    }
}

impl Made {
    fn new(
        service: &Arc<Service>,
        namespace: &mut Namespace<'_>,
        nodes: &BTreeMap<String, Arc<Node>>,
        old: Option<Self>,
    ) -> Self {
        let mut problems = Vec::new();
        let made = slices(service, namespace.matching(service).into_iter(), nodes, &mut problems);
        let mut old = old.map(|old| old.slices).unwrap_or_default();
        let shared = made.into_iter().map(|slice| match old.iter().position(|old| **old == slice) {
            Some(i) => old.swap_remove(i),
            None => Arc::new(slice),
        });
        Self { service: service.clone(), slices: shared.collect(), problems }
    }
}

/// The Pods of one namespace, and which of them changed.
struct Namespace<'a> {
    name: &'a str,
    pods: &'a Pods,
    /// Pods that came, went or changed, as they were and as they are.
    changed: Vec<&'a Pod>,
    /// Pods by label; made when the first Service asks.
    by_label: Option<HashMap<(&'a str, &'a str), Vec<&'a Pod>>>,
    asked: usize,
}

/// So many Services look through all Pods before an index by label is worth making.
const ASKED: usize = 4;

impl<'a> Namespace<'a> {
    fn new(name: &'a str, old: &'a Pods, new: &'a Pods) -> Self {
        let same = |name: &String, pod: &Arc<Pod>, others: &Pods| {
            others.get(name).is_some_and(|other| Arc::ptr_eq(pod, other))
        };
        let went = old.iter().filter(|(name, pod)| !same(name, pod, new));
        let came = new.iter().filter(|(name, pod)| !same(name, pod, old));
        let changed = went.chain(came).map(|(_, pod)| pod.as_ref()).collect();
        Self { name, pods: new, changed, by_label: None, asked: 0 }
    }

    fn touches(&self, service: &Service) -> bool {
        self.changed.iter().any(|pod| matches(service, pod))
    }

    /// The Pods that a Service selects, in the order of their names.
    fn matching(&mut self, service: &Service) -> Vec<&'a Pod> {
        self.asked += 1;
        if self.asked <= ASKED {
            return self.pods.values().map(Arc::as_ref).filter(|pod| matches(service, pod)).collect();
        }
        let index = self.by_label.get_or_insert_with(|| {
            let mut index: HashMap<(&str, &str), Vec<&Pod>> = HashMap::new();
            for pod in self.pods.values() {
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
