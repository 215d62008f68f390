//! Who tells the agent what to do. A source delivers snapshots of validated objects and knows nothing of their meaning.

pub mod applied;
pub mod kubernetes;
mod local;
pub mod manifests;
mod merge;
mod raw;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub use self::local::LocalSources;
pub use self::merge::merge;
pub use self::raw::{Keeper, Raw};
use crate::model::{EndpointSlice, Node, ObjectKey, ObjectKind, Pod, Service, ServiceName};
pub use crate::model::{Problem, Severity};
use crate::sorted::Sorted;

/// Everything that a source knows at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The valid objects.
    pub objects: Objects,
    /// What is wrong with the others, in the order of files and documents.
    pub problems: Vec<Problem>,
    /// False while something could not be read and no good state of it is remembered, as may be right after a start:
    /// nothing that is in the maps may be removed then.
    pub complete: bool,
}

/// Valid objects. An object that did not change keeps its `Arc`, and maps of sources that follow single changes share what is
/// the same, so that later stages find what changed without looking at the rest.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    /// Services by name.
    pub services: Sorted<ServiceName, Arc<Service>>,
    /// Endpoints by the Service they belong to, sorted by name.
    pub slices: Sorted<ServiceName, Vec<Arc<EndpointSlice>>>,
    /// Pods by namespace and name.
    pub pods: Sorted<String, Sorted<String, Arc<Pod>>>,
    /// Nodes by name.
    pub nodes: BTreeMap<String, Arc<Node>>,
    /// All of these objects as they were given, and those that were refused.
    pub raw: Sorted<ObjectKey, Raw>,
    /// How many objects of each kind are used, duplicates not counted.
    pub counts: BTreeMap<ObjectKind, usize>,
    /// What else was there, counted by kind: accepted and not used.
    pub ignored: BTreeMap<String, usize>,
}

/// How fresh one kind of objects is that comes over a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Freshness {
    /// The kind, as Kubernetes calls the resource.
    pub name: &'static str,
    /// Who was asked last.
    pub server: String,
    /// Whether changes are told as they happen.
    pub connected: bool,
    /// A full list was taken once.
    pub complete: bool,
    /// How many objects are known.
    pub objects: usize,
    /// How long ago a full list was taken.
    pub last_list: Option<Duration>,
    /// How long ago anything was heard.
    pub last_event: Option<Duration>,
    /// What is wrong with the connection.
    pub error: Option<String>,
}

impl Objects {
    /// How many objects of a kind there are.
    pub fn count(&self, kind: ObjectKind) -> usize {
        self.counts.get(&kind).copied().unwrap_or(0)
    }
}
