//! The last good state of each file (B79).
//!
//! A file that cannot be parsed keeps the objects of its last good version; an object that became invalid keeps its
//! own. A file that is gone takes its objects along.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::documents::{self, Document};
use super::object::{Contents, Object};
use super::scan::Stamp;
use crate::model::{EndpointSlice, Node, ObjectKey, Pod, Problem, Rules, Service};
use crate::sources::{Keeper, Raw};

/// An object that is shared with snapshots.
#[derive(Clone, Debug)]
pub enum Shared {
    /// A Service.
    Service(Arc<Service>),
    /// An EndpointSlice, or the subsets of an Endpoints object.
    Slices(Vec<Arc<EndpointSlice>>),
    /// A Pod.
    Pod(Arc<Pod>),
    /// A Node.
    Node(Arc<Node>),
}

impl Shared {
    /// Shares an object; what equals the version before stays the same `Arc`.
    fn new(object: Object, before: Option<&Self>) -> Self {
        match (object, before) {
            (Object::Service(service), Some(Self::Service(old))) if **old == *service => Self::Service(old.clone()),
            (Object::Service(service), _) => Self::Service(Arc::from(service)),
            (Object::Pod(pod), Some(Self::Pod(old))) if **old == *pod => Self::Pod(old.clone()),
            (Object::Pod(pod), _) => Self::Pod(Arc::from(pod)),
            (Object::Node(node), Some(Self::Node(old))) if **old == *node => Self::Node(old.clone()),
            (Object::Node(node), _) => Self::Node(Arc::from(node)),
            (Object::Slices(slices), before) => {
                let old = match before {
                    Some(Self::Slices(old)) => old.as_slice(),
                    Some(Self::Service(_) | Self::Pod(_) | Self::Node(_)) | None => &[],
                };
                let share = |(i, slice): (usize, EndpointSlice)| match old.get(i) {
                    Some(old) if **old == slice => old.clone(),
                    _ => Arc::new(slice),
                };
                Self::Slices(slices.into_iter().enumerate().map(share).collect())
            }
        }
    }
}

/// A valid object and where it stands.
#[derive(Clone, Debug)]
pub struct Good {
    /// Its identity.
    pub key: ObjectKey,
    /// File and document, for messages.
    pub origin: String,
    /// The object.
    pub object: Shared,
    /// As it was given.
    pub raw: Raw,
}

/// An object that has no good version.
#[derive(Clone, Debug)]
pub struct Refused {
    /// Its identity.
    pub key: ObjectKey,
    /// As it was given.
    pub raw: Raw,
}

/// What is remembered of one file.
#[derive(Debug, Default)]
pub struct Memory {
    stamp: Option<Stamp>,
    /// Who keeps the file.
    keeper: Keeper,
    /// The objects to use, in the order of the file.
    pub good: Vec<Arc<Good>>,
    /// The objects that have no good version.
    pub refused: Vec<Arc<Refused>>,
    /// What is wrong with the version that was read last.
    pub problems: Vec<Problem>,
    /// Objects of kinds that are not used.
    pub ignored: BTreeMap<String, usize>,
    /// Whether it holds something that was bad when the agent started and has not been good since: nobody knows what
    /// of it is in the maps.
    pub unknown: bool,
}

impl Memory {
    /// Of a file that was not read yet.
    pub fn new(keeper: Keeper) -> Self {
        Self { keeper, ..Self::default() }
    }

    /// Whether this version was read already.
    pub fn is_current(&self, stamp: Stamp) -> bool {
        self.stamp == Some(stamp)
    }

    /// Has the same version read once more: it may change without looking changed.
    pub fn look_again(&mut self) {
        self.stamp = None;
    }

    /// A version could not be read at all.
    pub fn unreadable(&mut self, name: &str, error: impl fmt::Display, starting: bool) {
        // Without a stamp it is tried again at the next look: a permission may change and leave the file as it is.
        self.stamp = None;
        self.unknown |= starting;
        self.problems = vec![Problem::error(format!("{name}: {error}{}", self.kept()))];
    }

    /// A version was read.
    pub fn update(&mut self, name: &str, stamp: Stamp, bytes: &[u8], json: bool, rules: &Rules, starting: bool) {
        self.stamp = Some(stamp);
        let (documents, errors) = documents::read(bytes, json);
        let emptied = documents.is_empty() && errors.is_empty() && bytes.trim_ascii().is_empty();
        if emptied && !self.good.is_empty() {
            // Most likely the moment between truncating and writing. A file emptied on purpose is rare, and can be deleted.
            let text = format!("{name}: the file is empty{}; delete it to remove them", self.kept());
            self.problems = vec![Problem::warning(text)];
            return;
        }
        if errors.is_empty() {
            self.take(name, &documents, rules, starting);
            return;
        }
        let kept = self.kept();
        if self.good.is_empty() {
            let unknown = self.unknown || starting;
            self.take(name, &documents, rules, starting);
            self.unknown = unknown;
        } else {
            self.problems.clear();
        }
        let errors = errors.into_iter();
        let errors = errors.map(|(number, text)| Problem::error(format!("{name} document {number}: {text}{kept}")));
        self.problems.splice(0..0, errors);
    }

    fn take(&mut self, name: &str, documents: &[Document], rules: &Rules, starting: bool) {
        let mut contents = Contents::default();
        for document in documents {
            contents.add(name, document, rules);
        }
        let before: BTreeMap<ObjectKey, Arc<Good>> = self.good.drain(..).map(|good| (good.key.clone(), good)).collect();
        let refused: BTreeMap<ObjectKey, Arc<Refused>> =
            self.refused.drain(..).map(|refused| (refused.key.clone(), refused)).collect();
        self.problems.clear();
        self.ignored = contents.ignored;
        let mut lost = false;
        for read in contents.objects {
            let old = read.key.as_ref().and_then(|key| before.get(key));
            let kept = match (read.key, read.object, old) {
                (Some(key), Some(object), old) => {
                    let earlier = old.map(|old| &old.raw).or_else(|| refused.get(&key).map(|refused| &refused.raw));
                    let raw = Raw::new(&read.raw, self.keeper, &read.origin).following(earlier);
                    let object = Shared::new(object, old.map(|old| &old.object));
                    self.good.push(Arc::new(Good { key, origin: read.origin, object, raw }));
                    false
                }
                (_, _, Some(old)) => {
                    self.good.push(old.clone());
                    true
                }
                (key, _, None) => {
                    lost = true;
                    if let Some(key) = key {
                        let earlier = refused.get(&key).map(|refused| &refused.raw);
                        let mut raw = Raw::new(&read.raw, self.keeper, &read.origin).following(earlier);
                        raw.refused = true;
                        self.refused.push(Arc::new(Refused { key, raw }));
                    }
                    false
                }
            };
            let mut problems = read.problems;
            if let Some(last) = problems.last_mut().filter(|_| kept) {
                last.text.push_str("; its last good version stays in use");
            }
            self.problems.append(&mut problems);
        }
        self.unknown = lost && (self.unknown || starting);
    }

    fn kept(&self) -> &'static str {
        if self.good.is_empty() { "" } else { "; the objects of its last good version stay in use" }
    }
}
