//! What is known of all kinds, whether it is whole, and how fresh.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::answer::Event;
use super::kinds::Watched;
use super::memory::{Applied, Memory, Swap, Told};
use super::read::{ORIGIN, Object};
use crate::model::{EndpointSlice, Node, ObjectKey, ObjectKind, Problem, Protocol, Rules, Service, ServiceName};
use crate::sorted::Sorted;
use crate::sources::{Freshness, Objects, Snapshot};

/// A list that lacks this many objects and more than half of them is asked for again.
const MANY: usize = 10;

/// A whole list.
#[derive(Debug)]
pub struct List {
    /// Its version.
    pub version: String,
    /// The objects.
    pub items: Vec<Told>,
}

/// What became of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is what is known now.
    Taken,
    /// Not taken, and why: it is older than what is known, or lacks too much to be believed at once.
    Doubted(String),
}

/// One kind.
#[derive(Debug)]
struct Kind {
    memory: Memory,
    /// Everything up to here was told.
    version: Option<String>,
    complete: bool,
    last_list: Option<Instant>,
    last_event: Option<Instant>,
    connected: bool,
    server: String,
    error: Option<String>,
    /// Lists in a row that were older than what is known.
    older: u32,
    /// Since when lists lack too much.
    doubted: Option<Instant>,
}

impl Kind {
    fn new(watched: Watched, rules: &Rules) -> Self {
        Self {
            memory: Memory::new(watched, rules.clone()),
            version: None,
            complete: false,
            last_list: None,
            last_event: None,
            connected: false,
            server: String::new(),
            error: None,
            older: 0,
            doubted: None,
        }
    }

    fn number(&self) -> Option<u64> {
        self.version.as_deref().and_then(|version| version.parse().ok())
    }
}

/// All kinds.
#[derive(Debug)]
pub struct State {
    node_name: String,
    services: Kind,
    slices: Kind,
    node: Kind,
    /// What all kinds have together; whoever gets a copy can tell later what changed.
    objects: Objects,
    /// What is wrong with objects.
    problems: BTreeMap<(Watched, ServiceName), Vec<Problem>>,
    /// How long a list that lacks much has to be confirmed before it is believed.
    confirm: Duration,
    /// The last state of `default/kubernetes` in which somebody answered.
    api: Option<(Arc<Service>, Vec<Arc<EndpointSlice>>)>,
    /// The Node was there once.
    node_seen: bool,
}

impl State {
    /// Knows nothing yet.
    pub fn new(node_name: &str, rules: &Rules, confirm: Duration) -> Self {
        Self {
            node_name: node_name.to_owned(),
            services: Kind::new(Watched::Services, rules),
            slices: Kind::new(Watched::EndpointSlices, rules),
            node: Kind::new(Watched::Node, rules),
            objects: Objects::default(),
            problems: BTreeMap::new(),
            confirm,
            api: None,
            node_seen: false,
        }
    }

    fn kind(&self, watched: Watched) -> &Kind {
        match watched {
            Watched::Services => &self.services,
            Watched::EndpointSlices => &self.slices,
            Watched::Node => &self.node,
        }
    }

    fn kind_mut(&mut self, watched: Watched) -> &mut Kind {
        match watched {
            Watched::Services => &mut self.services,
            Watched::EndpointSlices => &mut self.slices,
            Watched::Node => &mut self.node,
        }
    }

    /// Where a watch goes on, or how fresh the next list has to be.
    pub fn version(&self, watched: Watched) -> Option<String> {
        self.kind(watched).version.clone()
    }

    /// How many lists in a row were older than what is known.
    pub fn older(&self, watched: Watched) -> u32 {
        self.kind(watched).older
    }

    /// The server said that it does not know anything as new as what is known here.
    pub fn is_behind(&mut self, watched: Watched) {
        self.kind_mut(watched).older += 1;
    }

    /// Every kind has delivered a full list.
    pub fn complete(&self) -> bool {
        Watched::ALL.into_iter().all(|watched| self.kind(watched).complete)
    }

    /// Reads an object of a list.
    ///
    /// # Errors
    /// If it is no object of this kind. The list cannot be taken then: it may be any of those that are known.
    pub fn read(&self, watched: Watched, value: Value) -> Result<Told, String> {
        let told = self.kind(watched).memory.read(value);
        told.map_err(|error| format!("an object of the list cannot be used: {error}"))
    }

    /// Takes a full list. `believe`: also one that is older than what is known.
    pub fn replace(&mut self, watched: Watched, list: List, believe: bool, now: Instant) -> Verdict {
        let confirm = self.confirm;
        let kind = self.kind_mut(watched);
        let (known, found) = (kind.number(), list.version.parse::<u64>().ok());
        if found.is_some() && found < known && !believe {
            kind.older += 1;
            let (found, known) = (found.unwrap_or_default(), known.unwrap_or_default());
            return Verdict::Doubted(format!("found a list of version {found}, older than {known}, which is known"));
        }
        let had = kind.memory.entries().len();
        let missing = kind.memory.missing(&list.items);
        if missing >= MANY && missing * 2 > had {
            let since = *kind.doubted.get_or_insert(now);
            if now.duration_since(since) < confirm {
                let text = format!("found a list without {missing} of {had} objects; asking once more before they go");
                return Verdict::Doubted(text);
            }
        }
        kind.memory.replace(list.items);
        kind.doubted = None;
        kind.older = 0;
        kind.complete = true;
        kind.version = Some(list.version);
        kind.last_list = Some(now);
        kind.last_event = Some(now);
        self.absorb(watched);
        Verdict::Taken
    }

    /// The kind does not exist for this agent: it has no right to it. The rest works without.
    pub fn forbidden(&mut self, watched: Watched) {
        if watched == Watched::Node {
            self.node.complete = true;
        }
    }

    /// Takes what a watch told; whether anything is different.
    ///
    /// # Errors
    /// If it contradicts what was told before, or is garbage: only a new list tells what is true then.
    pub fn apply(&mut self, watched: Watched, event: Event, now: Instant) -> Result<bool, String> {
        let kind = self.kind_mut(watched);
        kind.last_event = Some(now);
        let newest = kind.number();
        let is_bookmark = matches!(event, Event::Bookmark(_));
        let version_of = |value: &Value| super::answer::version(value).map(str::to_owned);
        let (version, applied) = match event {
            Event::Changed(value) => (version_of(&value), kind.memory.change(value, newest)?),
            Event::Deleted(value) => (version_of(&value), kind.memory.delete(&value, newest)?),
            Event::Bookmark(version) => (Some(version), Applied::Known),
            Event::Gone => return Err("the version to go on from is gone".to_owned()),
            Event::Failed(text) => return Err(text),
        };
        if applied == Applied::OutOfOrder {
            return Err("found events out of order".to_owned());
        }
        let version = version.ok_or("found an object without resourceVersion")?;
        match (version.parse::<u64>().ok(), newest) {
            (Some(version), Some(newest)) if version < newest && is_bookmark => {
                return Err(format!("found a bookmark of version {version}, older than {newest}, which is known"));
            }
            (Some(version), Some(newest)) if version < newest => {}
            _ => kind.version = Some(version),
        }
        self.absorb(watched);
        Ok(applied == Applied::Changed)
    }

    /// A watch is under way.
    pub fn connected(&mut self, watched: Watched, server: &str) {
        let kind = self.kind_mut(watched);
        kind.connected = true;
        kind.error = None;
        server.clone_into(&mut kind.server);
    }

    /// The connection is lost, or there was none; whether that is news.
    pub fn lost(&mut self, watched: Watched, server: &str, error: String) -> bool {
        let kind = self.kind_mut(watched);
        let news = kind.connected || kind.error.is_none();
        kind.connected = false;
        kind.error = Some(error);
        server.clone_into(&mut kind.server);
        news
    }

    /// How fresh each kind is.
    pub fn freshness(&self) -> Vec<Freshness> {
        let one = |watched: Watched| {
            let kind = self.kind(watched);
            Freshness {
                name: watched.resource(),
                server: kind.server.clone(),
                connected: kind.connected,
                complete: kind.complete,
                objects: kind.memory.entries().len(),
                last_list: kind.last_list.map(|at| at.elapsed()),
                last_event: kind.last_event.map(|at| at.elapsed()),
                error: kind.error.clone(),
            }
        };
        Watched::ALL.into_iter().map(one).collect()
    }

    /// Where `default/kubernetes` leads to.
    pub fn api_endpoints(&self) -> Vec<SocketAddr> {
        let Some((_, slices)) = &self.api else { return Vec::new() };
        let mut found = Vec::new();
        for slice in slices {
            let ports = slice.ports.iter().filter(|port| port.protocol == Protocol::Tcp);
            for port in ports.filter(|port| port.name == "https" || slice.ports.len() == 1) {
                let ready = slice.endpoints.iter().filter(|endpoint| endpoint.ready);
                found.extend(ready.map(|endpoint| SocketAddr::new(endpoint.addr, port.port)));
            }
        }
        found
    }

    /// The Node that the agent runs on, if it is there.
    pub fn this_node(&self) -> Option<Arc<Node>> {
        self.nodes().find(|node| node.name == self.node_name).cloned()
    }

    fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.node.memory.entries().values().filter_map(|entry| match &entry.object {
            Some(Object::Node(node)) => Some(node),
            Some(Object::Service(_) | Object::Slice(_)) | None => None,
        })
    }

    /// Whether it is there, whatever is made of it.
    fn has_this_node(&self) -> bool {
        self.node.memory.entries().contains_key(&ServiceName::new("", self.node_name.as_str()))
    }

    /// Whether this node is going away. One that was there and is deleted is: its machine soon follows.
    pub fn leaving(&self) -> bool {
        self.this_node().map_or(self.node_seen, |node| node.leaving())
    }

    /// Everything for the rest of the agent. Nothing at all before every kind is known: half of it would look like loss.
    pub fn snapshot(&self) -> Snapshot {
        let mut problems = self.troubles();
        if !self.complete() {
            return Snapshot { objects: Objects::default(), problems, complete: false };
        }
        problems.extend(self.problems.values().flatten().cloned());
        let mut objects = self.objects.clone();
        objects.counts.insert(ObjectKind::Node, objects.nodes.len());
        objects.counts.insert(ObjectKind::Service, objects.services.len());
        self.restore_api(&mut objects, &mut problems);
        Snapshot { objects, problems, complete: true }
    }

    /// Connections that are lost, and a Node that is not there.
    fn troubles(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        for watched in Watched::ALL {
            if let Some(error) = &self.kind(watched).error {
                let kept = if self.kind(watched).complete { "; the last state known stays in use" } else { "" };
                problems.push(Problem::warning(format!("{ORIGIN} tells nothing of {watched}: {error}{kept}")));
            }
        }
        if self.node.complete && !self.has_this_node() && self.node.error.is_none() {
            problems.push(Problem::warning(format!(
                "{ORIGIN} has no Node `{}`: endpoints here are not known as local; set --node-name",
                self.node_name
            )));
        }
        problems
    }

    /// Brings what all kinds have together in line with what changed in one.
    fn absorb(&mut self, watched: Watched) {
        let (mut of_api, api) = (false, api_name());
        for Swap { name, before } in self.kind_mut(watched).memory.take_changed() {
            let entry = match watched {
                Watched::Services => &self.services,
                Watched::EndpointSlices => &self.slices,
                Watched::Node => &self.node,
            }
            .memory
            .entries()
            .get(&name);
            let objects = &mut self.objects;
            let now = entry.and_then(|entry| entry.object.as_ref());
            for (object, comes) in [(before.as_ref(), false), (now, true)] {
                match object {
                    Some(Object::Service(service)) => {
                        of_api |= service.name == api;
                        if comes {
                            objects.services.insert(name.clone(), service.clone());
                        } else if now.is_none() {
                            objects.services.remove(&name);
                        }
                    }
                    Some(Object::Slice(Some(slice))) => {
                        of_api |= slice.service == api;
                        let count = objects.counts.entry(ObjectKind::EndpointSlice).or_default();
                        *count = if comes { *count + 1 } else { count.saturating_sub(1) };
                        exchange(&mut objects.slices, slice, comes);
                    }
                    Some(Object::Node(node)) => {
                        if comes {
                            objects.nodes.insert(node.name.clone(), node.clone());
                        } else {
                            objects.nodes.remove(&node.name);
                        }
                    }
                    Some(Object::Slice(None)) | None => {}
                }
            }
            let key =
                ObjectKey { kind: watched.object_kind(), namespace: name.namespace.clone(), name: name.name.clone() };
            match entry {
                Some(entry) => drop(objects.raw.insert(key, entry.raw.clone())),
                None => drop(objects.raw.remove(&key)),
            }
            match entry.filter(|entry| !entry.problems.is_empty()) {
                Some(entry) => drop(self.problems.insert((watched, name), entry.problems.clone())),
                None => drop(self.problems.remove(&(watched, name))),
            }
        }
        self.node_seen |= self.has_this_node();
        if of_api {
            self.keep_api();
        }
    }

    /// Remembers `default/kubernetes` while somebody answers there.
    fn keep_api(&mut self) {
        let name = api_name();
        let Some(service) = self.objects.services.get(&name) else { return };
        let slices = self.objects.slices.get(&name).cloned().unwrap_or_default();
        if slices.iter().any(|slice| slice.endpoints.iter().any(|endpoint| endpoint.ready)) {
            self.api = Some((service.clone(), slices));
        }
    }

    /// API servers that end take their endpoints along; without the last one nobody here would find the next one.
    fn restore_api(&self, objects: &mut Objects, problems: &mut Vec<Problem>) {
        let Some((service, slices)) = &self.api else { return };
        let now = objects.slices.get(&service.name).into_iter().flatten();
        let answers = now.flat_map(|slice| &slice.endpoints).any(|endpoint| endpoint.ready);
        if answers && objects.services.contains_key(&service.name) {
            return;
        }
        if !objects.services.contains_key(&service.name) {
            objects.services.insert(service.name.clone(), service.clone());
        }
        if !answers {
            objects.slices.insert(service.name.clone(), slices.clone());
        }
        problems.push(Problem::warning(format!(
            "{ORIGIN}, Service `{}`: has no ready endpoint; its last ones stay in use",
            service.name
        )));
    }
}

/// Puts a slice among those of its Service, or takes it out.
fn exchange(all: &mut Sorted<ServiceName, Vec<Arc<EndpointSlice>>>, slice: &Arc<EndpointSlice>, comes: bool) {
    let mut slices = all.get(&slice.service).cloned().unwrap_or_default();
    slices.retain(|other| other.name != slice.name);
    if comes {
        let place = slices.partition_point(|other| other.name < slice.name);
        slices.insert(place, slice.clone());
    }
    if slices.is_empty() {
        all.remove(&slice.service);
    } else {
        all.insert(slice.service.clone(), slices);
    }
}

fn api_name() -> ServiceName {
    ServiceName::new("default", "kubernetes")
}
