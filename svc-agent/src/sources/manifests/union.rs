//! The objects of all files as one, kept up to date file by file: what a file that did not change holds is not looked at.
//!
//! Of an object that several files define, the first counts, in the order of keepers and file names. What is refused hides
//! no good one, wherever that stands.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::memory::{Good, Memory, Refused, Shared};
use crate::model::{EndpointSlice, ObjectKey, Problem, ServiceName};
use crate::sorted::Sorted;
use crate::sources::{Keeper, Objects, Raw, Snapshot};

/// A file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// Who keeps it.
    pub keeper: Keeper,
    /// Its name in messages.
    pub file: Arc<str>,
}

/// Where in a file something stands; what is said of the whole file comes first.
type Place = (Name, usize);

/// All objects.
#[derive(Debug, Default)]
pub struct Union {
    objects: Objects,
    given: HashMap<ObjectKey, Given>,
    /// What is wrong, in the order of files and documents; most files have nothing here.
    problems: BTreeMap<Place, Vec<Problem>>,
    /// Files, and keepers (as a file without a name), of which not everything is known.
    unknown: BTreeSet<Name>,
    /// Kinds whose presence was logged.
    logged: HashSet<String>,
}

/// What is given of one object.
#[derive(Debug, Default)]
struct Given {
    /// Sorted by place; nearly always one.
    versions: Vec<(Place, Version)>,
    /// The one that is used.
    used: Option<Arc<Good>>,
}

#[derive(Debug)]
enum Version {
    Good(Arc<Good>),
    Refused(Arc<Refused>),
}

impl Union {
    /// A keeper's directory was looked at: what is wrong with it, and whether all of it is known.
    pub fn looked(&mut self, keeper: Keeper, problems: Vec<Problem>, complete: bool) {
        let name = Name { keeper, file: "".into() };
        self.note(name, problems, complete);
    }

    /// A file changed, came or went: what it held, and what it holds.
    pub fn exchange(&mut self, name: &Name, before: Option<&Held>, now: Option<&Memory>) {
        let mut due: BTreeSet<ObjectKey> = BTreeSet::new();
        if let Some(before) = before {
            for key in &before.keys {
                if let Some(given) = self.given.get_mut(key) {
                    given.versions.retain(|((file, _), _)| file != name);
                }
                due.insert(key.clone());
            }
            for (kind, count) in &before.ignored {
                let left = self.objects.ignored.get(kind).map_or(0, |all| all.saturating_sub(*count));
                if left == 0 {
                    self.objects.ignored.remove(kind);
                } else {
                    self.objects.ignored.insert(kind.clone(), left);
                }
            }
        }
        let mut problems = Vec::new();
        if let Some(now) = now {
            problems.clone_from(&now.problems);
            let good = now.good.iter().map(|good| (&good.key, Version::Good(good.clone())));
            let refused = now.refused.iter().map(|refused| (&refused.key, Version::Refused(refused.clone())));
            for (index, (key, version)) in good.chain(refused).enumerate() {
                let versions = &mut self.given.entry(key.clone()).or_default().versions;
                let place = (name.clone(), index + 1);
                let at = versions.partition_point(|(other, _)| *other < place);
                versions.insert(at, (place, version));
                due.insert(key.clone());
            }
            for (kind, count) in &now.ignored {
                *self.objects.ignored.entry(kind.clone()).or_default() += count;
                if self.logged.insert(kind.clone()) {
                    tracing::debug!(kind, "manifests hold objects of a kind that is not used");
                }
            }
        }
        // Those of the file's objects, too.
        let first = (name.clone(), 0);
        let own: Vec<Place> = self
            .problems
            .range(first..)
            .map(|(place, _)| place)
            .take_while(|(file, _)| file == name)
            .cloned()
            .collect();
        own.iter().for_each(|place| drop(self.problems.remove(place)));
        self.note(name.clone(), problems, now.is_none_or(|now| !now.unknown));
        due.into_iter().for_each(|key| self.decide(key));
    }

    /// Everything.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            objects: self.objects.clone(),
            problems: self.problems.values().flatten().cloned().collect(),
            complete: self.unknown.is_empty(),
        }
    }

    fn note(&mut self, name: Name, problems: Vec<Problem>, complete: bool) {
        if complete {
            self.unknown.remove(&name);
        } else {
            self.unknown.insert(name.clone());
        }
        if problems.is_empty() {
            self.problems.remove(&(name, 0));
        } else {
            self.problems.insert((name, 0), problems);
        }
    }

    /// Decides which version of an object counts, and puts it in the place of the one that counted before.
    fn decide(&mut self, key: ObjectKey) {
        let Some(given) = self.given.get_mut(&key) else { return };
        let mut first: Option<Arc<Good>> = None;
        let mut shown: Option<&Raw> = None;
        for (place, version) in &given.versions {
            self.problems.remove(place);
            match version {
                Version::Good(good) => match &first {
                    Some(first) => {
                        let (origin, key, first) = (&good.origin, &good.key, &first.origin);
                        let text = format!(
                            "{origin}, {key}: defined already in {first}, which counts because it comes first; remove one of them"
                        );
                        self.problems.insert(place.clone(), vec![Problem::error(text)]);
                    }
                    None => first = Some(good.clone()),
                },
                Version::Refused(refused) => drop(shown.get_or_insert(&refused.raw)),
            }
        }
        match first.as_ref().map(|good| &good.raw).or(shown) {
            Some(raw) if self.objects.raw.get(&key) == Some(raw) => {}
            Some(raw) => drop(self.objects.raw.insert(key.clone(), raw.clone())),
            None => drop(self.objects.raw.remove(&key)),
        }
        let before = std::mem::replace(&mut given.used, first.clone());
        if given.versions.is_empty() {
            self.given.remove(&key);
        }
        let count = self.objects.counts.entry(key.kind).or_default();
        *count = *count + usize::from(first.is_some()) - usize::from(before.is_some());
        if *count == 0 {
            self.objects.counts.remove(&key.kind);
        }
        let (before, now) = (before.as_ref().map(|good| &good.object), first.as_ref().map(|good| &good.object));
        if !before.zip(now).is_some_and(|(before, now)| before.is(now)) {
            before.iter().for_each(|before| exchange(&mut self.objects, before, false));
            now.iter().for_each(|now| exchange(&mut self.objects, now, true));
        }
    }
}

/// Puts an object among the others, or takes it out.
fn exchange(objects: &mut Objects, object: &Shared, comes: bool) {
    match object {
        Shared::Service(service) if comes => drop(objects.services.insert(service.name.clone(), service.clone())),
        Shared::Service(service) => drop(objects.services.remove(&service.name)),
        Shared::Node(node) if comes => drop(objects.nodes.insert(node.name.clone(), node.clone())),
        Shared::Node(node) => drop(objects.nodes.remove(&node.name)),
        Shared::Pod(pod) => {
            let mut pods = objects.pods.get(&pod.namespace).cloned().unwrap_or_default();
            let _before = if comes { pods.insert(pod.name.clone(), pod.clone()) } else { pods.remove(&pod.name) };
            if pods.is_empty() {
                objects.pods.remove(&pod.namespace);
            } else {
                objects.pods.insert(pod.namespace.clone(), pods);
            }
        }
        Shared::Slices(slices) => slices.iter().for_each(|slice| exchange_slice(&mut objects.slices, slice, comes)),
    }
}

fn exchange_slice(all: &mut Sorted<ServiceName, Vec<Arc<EndpointSlice>>>, slice: &Arc<EndpointSlice>, comes: bool) {
    let mut slices = all.get(&slice.service).cloned().unwrap_or_default();
    if comes {
        let rank = |slice: &EndpointSlice| (slice.name.clone(), slice.source);
        let place = slices.partition_point(|other| rank(other) <= rank(slice));
        slices.insert(place, slice.clone());
    } else {
        slices.retain(|other| !Arc::ptr_eq(other, slice));
    }
    if slices.is_empty() {
        all.remove(&slice.service);
    } else {
        all.insert(slice.service.clone(), slices);
    }
}

/// What a file held, for [`Union::exchange`].
#[derive(Debug)]
pub struct Held {
    keys: Vec<ObjectKey>,
    ignored: BTreeMap<String, usize>,
}

impl Held {
    /// By a file as it is.
    pub fn by(file: &Memory) -> Self {
        let good = file.good.iter().map(|good| good.key.clone());
        let refused = file.refused.iter().map(|refused| refused.key.clone());
        Self { keys: good.chain(refused).collect(), ignored: file.ignored.clone() }
    }
}

impl Shared {
    /// Whether both are the very same.
    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Service(a), Self::Service(b)) => Arc::ptr_eq(a, b),
            (Self::Pod(a), Self::Pod(b)) => Arc::ptr_eq(a, b),
            (Self::Node(a), Self::Node(b)) => Arc::ptr_eq(a, b),
            (Self::Slices(a), Self::Slices(b)) => crate::sorted::shares_all(a, b),
            (Self::Service(_) | Self::Pod(_) | Self::Node(_) | Self::Slices(_), _) => false,
        }
    }
}
