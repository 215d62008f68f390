//! The objects of the sources, for the control socket: to see, to follow, and to change.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::timeout;

use super::api::{ChangedObject, Changes, ObjectAction, ObjectEvent, ObjectEventType, ObjectList, ObjectQuery};
use super::made::{made, object};
use crate::model::{EndpointSlice, ObjectKey, ObjectKind, Service, ServiceName};
use crate::sources::applied::{Action, Applied, Options, Outcome, Refusal, with_allocated};
use crate::sources::{Keeper, Raw, Snapshot};

/// How long a change may take until it is at work; the answer does not wait longer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Who takes changes.
#[derive(Clone, Debug)]
pub enum Changer {
    /// The agent itself.
    Applied(Arc<Applied>),
    /// Somebody else: says who, and where to go.
    Elsewhere(String),
}

/// Everything that is known of objects.
#[derive(Clone, Debug)]
pub struct Catalog {
    snapshots: watch::Receiver<Arc<Snapshot>>,
    changer: Changer,
}

/// A change of objects.
#[derive(Clone, Debug)]
pub enum Change {
    /// The objects of a text are applied.
    Apply(Vec<u8>),
    /// The objects that a text names are deleted.
    DeleteNamed(Vec<u8>),
    /// An object is deleted.
    Delete(ObjectKey),
}

impl Catalog {
    /// `snapshots` has what is at work.
    pub fn new(snapshots: watch::Receiver<Arc<Snapshot>>, changer: Changer) -> Self {
        Self { snapshots, changer }
    }

    /// The objects that a client wants to see.
    ///
    /// # Errors
    /// If there is no such kind.
    pub fn list(&self, query: &ObjectQuery) -> Result<ObjectList, String> {
        let kind = kind(query)?;
        let seen = self.snapshots.borrow().clone();
        let (mut items, mut origins) = (Vec::new(), Vec::new());
        for (key, known) in wanted(&seen, kind, query) {
            if items.len() >= query.limit.unwrap_or(usize::MAX) {
                break;
            }
            let value = shown(&key, known, &seen);
            if query.labels.as_ref().is_none_or(|labels| labels.matches(&value)) {
                items.push(value);
                origins.push(known.origin().to_owned());
            }
        }
        Ok(ObjectList { api_version: "v1".into(), kind: "List".into(), items, origins })
    }

    /// Follows the objects that a client wants to see.
    ///
    /// # Errors
    /// If there is no such kind.
    pub fn follow(&self, query: ObjectQuery) -> Result<Follower, String> {
        let kind = kind(&query)?;
        let mut snapshots = self.snapshots.clone();
        snapshots.mark_changed();
        Ok(Follower { snapshots, kind, query, told: BTreeMap::new() })
    }

    /// Changes objects; where that is done, it is at work when this returns. May block.
    ///
    /// # Errors
    /// See [`Refusal`]; `Err(Err(..))` if changes are not taken here at all.
    pub fn change(&self, change: &Change, options: &Options) -> Result<Vec<Outcome>, Result<Refusal, String>> {
        let applied = match &self.changer {
            Changer::Applied(applied) => applied,
            Changer::Elsewhere(text) => return Err(Err(text.clone())),
        };
        let seen = self.snapshots.borrow().clone();
        match change {
            Change::Apply(text) => applied.apply(text, options, &seen),
            Change::DeleteNamed(text) => applied.delete_named(text, options, &seen),
            Change::Delete(key) => applied.delete(vec![key.clone()], options, &seen),
        }
        .map_err(Ok)
    }

    /// Waits until what was changed is at work, within reason.
    pub async fn settle(&self, outcomes: &[Outcome]) {
        let changed = outcomes.iter().filter(|outcome| outcome.action != Action::Unchanged);
        let wanted: Vec<(&ObjectKey, Option<String>)> =
            changed.map(|outcome| (&outcome.key, outcome.kept.as_ref().map(Value::to_string))).collect();
        let is_done = |seen: &Arc<Snapshot>| {
            wanted.iter().all(|(key, kept)| {
                let found = seen.objects.raw.get(key);
                match kept {
                    Some(kept) => found.is_some_and(|raw| **raw.json() == **kept),
                    // Another source may still have it.
                    None => found.is_none_or(|raw| raw.keeper != Keeper::Applied),
                }
            })
        };
        let mut snapshots = self.snapshots.clone();
        drop(timeout(PATIENCE, snapshots.wait_for(is_done)).await);
    }
}

/// The answer to a change.
pub fn changes(outcomes: Vec<Outcome>, dry_run: bool) -> Changes {
    let items = outcomes.into_iter().map(|outcome| ChangedObject {
        kind: outcome.key.kind.to_string(),
        namespace: outcome.key.namespace,
        name: outcome.key.name,
        action: match outcome.action {
            Action::Created => ObjectAction::Created,
            Action::Configured => ObjectAction::Configured,
            Action::Unchanged => ObjectAction::Unchanged,
            Action::Deleted => ObjectAction::Deleted,
        },
        warnings: outcome.warnings,
    });
    Changes { dry_run, items: items.collect() }
}

/// What is known of an object.
#[derive(Clone, Copy)]
enum Known<'a> {
    /// As a source gave it.
    Given(&'a Raw),
    /// As the agent made it.
    Made(&'a Arc<EndpointSlice>),
}

impl<'a> Known<'a> {
    fn origin(self) -> &'a str {
        match self {
            Self::Given(raw) => &raw.origin,
            Self::Made(slice) => &slice.origin,
        }
    }
}

/// What tells one version of an object from another.
#[derive(Clone, Debug)]
enum Version {
    /// The text, and what was allocated for it.
    Given(Arc<str>, Option<Arc<Service>>),
    /// What was made.
    Made(Arc<EndpointSlice>),
}

/// Tells what changes, from the beginning on.
#[derive(Debug)]
pub struct Follower {
    snapshots: watch::Receiver<Arc<Snapshot>>,
    kind: Option<ObjectKind>,
    query: ObjectQuery,
    /// What was told at last, with how it was shown.
    told: BTreeMap<ObjectKey, (Version, Arc<str>)>,
}

impl Follower {
    /// Waits until something is different and tells it; `None` when the agent ends. However late a client is, it is told
    /// the difference to what it knows.
    pub async fn next(&mut self) -> Option<Vec<ObjectEvent>> {
        loop {
            self.snapshots.changed().await.ok()?;
            let seen = self.snapshots.borrow_and_update().clone();
            let events = self.events(&seen);
            if !events.is_empty() {
                return Some(events);
            }
        }
    }

    fn events(&mut self, seen: &Snapshot) -> Vec<ObjectEvent> {
        let mut before = std::mem::take(&mut self.told);
        let mut events = Vec::new();
        for (key, known) in wanted(seen, self.kind, &self.query) {
            let version = version(&key, known, seen);
            let old = before.remove(&key);
            if let Some(old) = old.as_ref().filter(|(old, _)| same(old, &version)) {
                self.told.insert(key, old.clone());
                continue;
            }
            let value = shown(&key, known, seen);
            if self.query.labels.as_ref().is_some_and(|labels| !labels.matches(&value)) {
                // It may have been one of those before.
                before.extend(old.map(|old| (key, old)));
                continue;
            }
            let text: Arc<str> = value.to_string().into();
            self.told.insert(key, (version, text.clone()));
            match old {
                Some((_, old)) if old == text => {}
                Some(_) => events.push(ObjectEvent { event: ObjectEventType::Modified, object: value }),
                None => events.push(ObjectEvent { event: ObjectEventType::Added, object: value }),
            }
        }
        for (_, (_, text)) in before {
            let object = serde_json::from_str(&text).unwrap_or_default();
            events.push(ObjectEvent { event: ObjectEventType::Deleted, object });
        }
        events
    }
}

fn kind(query: &ObjectQuery) -> Result<Option<ObjectKind>, String> {
    query.kind.as_deref().map(ObjectKind::named).transpose()
}

fn wanted<'a>(
    seen: &'a Snapshot,
    kind: Option<ObjectKind>,
    query: &'a ObjectQuery,
) -> impl Iterator<Item = (ObjectKey, Known<'a>)> {
    let is_wanted = move |key: &ObjectKey| {
        kind.is_none_or(|wanted| wanted == key.kind)
            && query.namespace.as_ref().is_none_or(|wanted| *wanted == key.namespace || !key.kind.is_namespaced())
            && query.name.as_ref().is_none_or(|wanted| *wanted == key.name)
    };
    let given = seen.objects.raw.iter().filter(move |(key, _)| is_wanted(key));
    let given = given.map(|(key, raw)| (key.clone(), Known::Given(raw)));
    let slices = kind.is_none_or(|kind| kind == ObjectKind::EndpointSlice).then(|| made(seen));
    let made = slices.into_iter().flatten().filter(move |(key, _)| is_wanted(key));
    given.chain(made.map(|(key, slice)| (key, Known::Made(slice))))
}

fn version(key: &ObjectKey, known: Known<'_>, seen: &Snapshot) -> Version {
    match known {
        Known::Given(raw) => {
            let name = ServiceName::new(&*key.namespace, &*key.name);
            let is_service = key.kind == ObjectKind::Service;
            let service = seen.objects.services.get(&name).filter(|_| is_service).cloned();
            Version::Given(raw.json().clone(), service)
        }
        Known::Made(slice) => Version::Made(slice.clone()),
    }
}

fn same(old: &Version, new: &Version) -> bool {
    match (old, new) {
        (Version::Given(old_text, old), Version::Given(text, service)) => {
            let same_service = match (old, service) {
                (Some(old), Some(service)) => Arc::ptr_eq(old, service),
                (None, None) => true,
                (Some(_), None) | (None, Some(_)) => false,
            };
            Arc::ptr_eq(old_text, text) && same_service
        }
        (Version::Made(old), Version::Made(slice)) => Arc::ptr_eq(old, slice),
        (Version::Given(..), Version::Made(_)) | (Version::Made(_), Version::Given(..)) => false,
    }
}

/// An object as clients see it: with its namespace, with the time when it was seen first, and with what was allocated.
fn shown(key: &ObjectKey, known: Known<'_>, seen: &Snapshot) -> Value {
    let raw = match known {
        Known::Given(raw) => raw,
        Known::Made(slice) => {
            let ServiceName { namespace, name } = slice.service.clone();
            let service = ObjectKey { kind: ObjectKind::Service, namespace, name };
            return object(slice, seen.objects.raw.get(&service).map(to_the_second));
        }
    };
    let mut value = raw.value();
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        if !key.namespace.is_empty() {
            metadata.insert("namespace".into(), key.namespace.as_str().into());
        }
        let time = metadata.entry("creationTimestamp").or_insert(Value::Null);
        if time.is_null() {
            *time = to_the_second(raw).to_string().into();
        }
    }
    with_allocated(value, key, seen)
}

fn to_the_second(raw: &Raw) -> Timestamp {
    Timestamp::from_second(raw.seen.as_second()).unwrap_or(raw.seen)
}
