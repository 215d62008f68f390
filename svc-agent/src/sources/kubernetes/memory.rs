//! The objects of one kind as the API server told them last. What did not change keeps its `Arc`.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Place;

use serde_json::Value;

use super::kinds::Watched;
use super::read::{self, Identity, Object};
use crate::model::{Problem, Rules, ServiceName};
use crate::sources::Raw;

/// One object.
#[derive(Clone, Debug)]
pub struct Entry {
    identity: Identity,
    /// The object, or its last good state; `None` if it never had one.
    pub object: Option<Object>,
    /// What is wrong with it.
    pub problems: Vec<Problem>,
    /// As the API server told it.
    pub raw: Raw,
}

/// An object as the API server tells it now, read before anything is decided about it: as JSON a whole list would need many
/// times the memory.
#[derive(Debug)]
pub struct Told {
    identity: Identity,
    /// `None` if it is known already, in this very state.
    state: Option<ToldState>,
}

#[derive(Debug)]
struct ToldState {
    object: Option<Object>,
    problems: Vec<Problem>,
    raw: Raw,
}

/// What an event did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// Something is different.
    Changed,
    /// It was known already.
    Known,
    /// It is older than what was told before, and not known: something is missing or came too late.
    OutOfOrder,
}

/// All objects of a kind.
#[derive(Debug)]
pub struct Memory {
    watched: Watched,
    rules: Rules,
    entries: BTreeMap<ServiceName, Entry>,
    /// What changed since it was taken last.
    changed: Vec<Swap>,
}

/// An object that came, went or changed.
#[derive(Debug)]
pub struct Swap {
    /// Its name.
    pub name: ServiceName,
    /// What it was.
    pub before: Option<Object>,
}

impl Memory {
    /// Knows nothing yet.
    pub fn new(watched: Watched, rules: Rules) -> Self {
        Self { watched, rules, entries: BTreeMap::new(), changed: Vec::new() }
    }

    /// The objects by name.
    pub fn entries(&self) -> &BTreeMap<ServiceName, Entry> {
        &self.entries
    }

    /// What changed since the last call, in order.
    pub fn take_changed(&mut self) -> Vec<Swap> {
        std::mem::take(&mut self.changed)
    }

    /// Reads an object. Relisting a large cluster costs no validation of what is known.
    ///
    /// # Errors
    /// If it is none of this kind.
    pub fn read(&self, value: Value) -> Result<Told, String> {
        let identity = read::identity(self.watched, &value)?;
        let is_known = |known: &Entry| known.identity == identity && identity.version.is_some();
        if self.entries.get(&identity.name).is_some_and(is_known) {
            return Ok(Told { identity, state: None });
        }
        let (object, problems) = read::object(self.watched, &value, &identity.name, &self.rules);
        let raw = read::raw(self.watched, value);
        Ok(Told { identity, state: Some(ToldState { object, problems, raw }) })
    }

    /// How many objects are not in a list that would replace these.
    pub fn missing(&self, list: &[Told]) -> usize {
        let listed: std::collections::HashSet<&ServiceName> = list.iter().map(|told| &told.identity.name).collect();
        self.entries.keys().filter(|name| !listed.contains(name)).count()
    }

    /// Takes a full list. What is not in it is gone.
    pub fn replace(&mut self, list: Vec<Told>) {
        let mut before = std::mem::take(&mut self.entries);
        for told in list {
            let old = before.remove(&told.identity.name);
            self.put(told, old);
        }
        self.changed.extend(before.into_iter().map(|(name, entry)| Swap { name, before: entry.object }));
    }

    /// Takes an object of a watch; `newest` is the newest version of the kind that was told.
    ///
    /// # Errors
    /// If it is none of this kind.
    pub fn change(&mut self, value: Value, newest: Option<u64>) -> Result<Applied, String> {
        let identity = read::identity(self.watched, &value)?;
        let old = self.entries.get(&identity.name);
        if let Some(known) = old.and_then(|old| old.identity.version)
            && identity.version.is_some_and(|version| version <= known)
        {
            return Ok(Applied::Known);
        }
        if identity.version < newest {
            return Ok(Applied::OutOfOrder);
        }
        let told = self.read(value)?;
        let old = self.entries.remove(&identity.name);
        Ok(if self.put(told, old) { Applied::Changed } else { Applied::Known })
    }

    /// An object is gone.
    pub fn delete(&mut self, value: &Value, newest: Option<u64>) -> Result<Applied, String> {
        let identity = read::identity(self.watched, value)?;
        let Place::Occupied(place) = self.entries.entry(identity.name.clone()) else { return Ok(Applied::Known) };
        if identity.version < newest || identity.version < place.get().identity.version {
            // Perhaps of an object that had the name before.
            return Ok(Applied::OutOfOrder);
        }
        let (name, entry) = place.remove_entry();
        self.changed.push(Swap { name, before: entry.object });
        Ok(Applied::Changed)
    }

    fn put(&mut self, told: Told, old: Option<Entry>) -> bool {
        let Told { identity, state } = told;
        let Some(ToldState { object, mut problems, raw }) = state else {
            if let Some(old) = old {
                self.entries.insert(identity.name, old);
            }
            return false;
        };
        self.changed
            .push(Swap { name: identity.name.clone(), before: old.as_ref().and_then(|old| old.object.clone()) });
        let old = old.filter(|old| old.identity.uid == identity.uid);
        let mut raw = raw.following(old.as_ref().map(|old| &old.raw));
        let (kept, changed) = match (object, old) {
            (Some(object), Some(Entry { object: Some(old), problems: before, .. })) if old == object => {
                (Some(old), before != problems)
            }
            (Some(object), _) => (Some(object), true),
            (None, Some(Entry { object, problems: before, .. })) => {
                if let Some(last) = problems.last_mut().filter(|_| object.is_some()) {
                    last.text.push_str("; its last good version stays in use");
                }
                (object, before != problems)
            }
            (None, None) => (None, true),
        };
        raw.refused = kept.is_none();
        self.entries.insert(identity.name.clone(), Entry { identity, object: kept, problems, raw });
        changed
    }
}
