//! What was applied over the control socket, kept in files of the agent's own.
//!
//! `<state-dir>/objects/<kind>/<namespace>_<name>.json`, one object each, read like manifests. Only this module writes
//! there: a request is validated as a whole before anything is written, and is then done as a whole or not at all.

mod change;
mod commit;
mod directory;
mod request;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

pub use self::change::{Action, with_allocated};
use self::change::{Server, update};
use self::commit::FileChange;
pub use self::request::Options;
use super::{Keeper, Snapshot};
use crate::model::{ObjectKey, ObjectKind, Rules, SliceOrigin};

/// Endpoints that `svcctl expose` makes carry this value of [`MANAGED_BY`]; they go with their Service.
pub const MANAGER: &str = "svcctl";
/// Says who keeps an EndpointSlice.
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// Says whose endpoints a slice has.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// What a request did to one object.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The object.
    pub key: ObjectKey,
    /// What was done, or would be.
    pub action: Action,
    /// What is doubtful about it.
    pub warnings: Vec<String>,
    /// The object as it is kept; `None` if it is not.
    pub kept: Option<Value>,
}

/// Why a request was refused; nothing was changed then.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// What was sent is wrong; one line for each fault.
    #[error("{}", .0.join("\n"))]
    Invalid(Vec<String>),
    /// Somebody else keeps the object, or it exists already.
    #[error("{0}")]
    Conflict(String),
    /// There is no such object.
    #[error("{0}")]
    NotFound(String),
    /// The files cannot be read or written.
    #[error("{0:#}")]
    Failed(#[from] anyhow::Error),
}

/// The files. One agent at a time has them.
#[derive(Debug)]
pub struct Applied {
    objects: PathBuf,
    rules: Rules,
    /// Held while a request is worked on.
    server: Mutex<Server>,
    _lock: File,
}

impl Applied {
    /// Takes possession of the state directory, makes what is missing, and finishes what an earlier agent had begun.
    ///
    /// # Errors
    /// If another agent has it, or others than the agent's user could change it.
    pub fn open(state_dir: &Path, rules: Rules) -> anyhow::Result<Self> {
        directory::prepare(state_dir)?;
        let lock = directory::lock(state_dir)?;
        let objects = state_dir.join("objects");
        directory::prepare(&objects)?;
        for kind in ObjectKind::ALL {
            directory::prepare(&objects.join(directory::folder(kind)))?;
        }
        commit::recover(&objects)?;
        Ok(Self { objects, rules, server: Mutex::default(), _lock: lock })
    }

    /// Where the objects are, for a source to read.
    pub fn objects(&self) -> &Path {
        &self.objects
    }

    /// Applies the objects of a text in YAML or JSON, all of them or none.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn apply(&self, text: &[u8], options: &Options, seen: &Snapshot) -> Result<Vec<Outcome>, Refusal> {
        let wanted = request::objects(text, options, &self.rules)?;
        let mut server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut outcomes, mut files) = (Vec::new(), Vec::new());
        for object in wanted {
            let key = object.key;
            if let Some(conflict) = kept_elsewhere(&key, seen) {
                return Err(Refusal::Conflict(conflict));
            }
            let before = directory::read(&self.objects, &key)?;
            if options.create && (before.is_some() || seen.objects.raw.contains_key(&key)) {
                return Err(Refusal::Conflict(format!("{key} exists already; delete it first, or apply a manifest")));
            }
            let served = before.as_ref().map(|before| with_allocated(before.clone(), &key, seen));
            let (action, value) = update(object.value, before.as_ref(), served.as_ref(), &mut server)?;
            if action != Action::Unchanged {
                files.push(FileChange::write(&key, &value)?);
            }
            outcomes.push(Outcome { key, action, warnings: object.warnings, kept: Some(value) });
        }
        if !options.dry_run {
            commit::commit(&self.objects, &files)?;
        }
        Ok(outcomes)
    }

    /// Deletes the objects that a text names, all of them or none.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn delete_named(&self, text: &[u8], options: &Options, seen: &Snapshot) -> Result<Vec<Outcome>, Refusal> {
        self.delete(request::names(text, options)?, options, seen)
    }

    /// Deletes objects, all of them or none; endpoints that `svcctl expose` made go with their Service.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn delete(&self, keys: Vec<ObjectKey>, options: &Options, seen: &Snapshot) -> Result<Vec<Outcome>, Refusal> {
        let _server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut outcomes, mut files) = (Vec::new(), Vec::new());
        let mut done = BTreeSet::new();
        let companions: Vec<ObjectKey> = keys.iter().flat_map(|key| companions(key, seen)).collect();
        let named = keys.len();
        for (index, key) in keys.into_iter().chain(companions).enumerate() {
            if !done.insert(key.clone()) {
                continue;
            }
            let elsewhere = kept_elsewhere(&key, seen);
            if directory::exists(&self.objects, &key)? {
                files.push(FileChange::remove(&key)?);
                // It was hidden by the other one.
                let warnings = elsewhere.into_iter().collect();
                outcomes.push(Outcome { key, action: Action::Deleted, warnings, kept: None });
            } else if let Some(conflict) = elsewhere {
                return Err(Refusal::Conflict(conflict));
            } else if index < named && !options.ignore_missing {
                return Err(Refusal::NotFound(format!("{key} not found")));
            }
        }
        if !options.dry_run {
            commit::commit(&self.objects, &files)?;
        }
        Ok(outcomes)
    }
}

/// Says who else keeps an object.
fn kept_elsewhere(key: &ObjectKey, seen: &Snapshot) -> Option<String> {
    let Some(raw) = seen.objects.raw.get(key) else { return made_by_agent(key, seen) };
    match raw.keeper {
        Keeper::Applied => None,
        Keeper::Manifests => {
            Some(format!("{key} is defined in {} of the manifests directory; change it there", raw.origin))
        }
        Keeper::ApiServer => Some(format!("{key} is kept by the API server; change it there")),
    }
}

/// Says of which Service's Pods the agent makes an EndpointSlice.
fn made_by_agent(key: &ObjectKey, seen: &Snapshot) -> Option<String> {
    if key.kind != ObjectKind::EndpointSlice {
        return None;
    }
    let mut slices = seen.objects.slices.values().flatten().filter(|slice| slice.source == SliceOrigin::Slice);
    let slice = slices.find(|slice| slice.name == key.name && slice.service.namespace == key.namespace)?;
    let text = "is made by the agent of the Pods that this Service selects; change those";
    Some(format!("{key}: found the name of one that {text}: Service `{}`", slice.service))
}

/// The endpoints that were made for a Service and have no other purpose.
fn companions(key: &ObjectKey, seen: &Snapshot) -> Vec<ObjectKey> {
    if key.kind != ObjectKind::Service {
        return Vec::new();
    }
    let slices = seen.objects.raw.iter().filter(|(slice, raw)| {
        slice.kind == ObjectKind::EndpointSlice && slice.namespace == key.namespace && raw.keeper == Keeper::Applied
    });
    let made_for = |value: Value| {
        let label = |name: &str| value.get("metadata")?.get("labels")?.get(name)?.as_str();
        label(MANAGED_BY) == Some(MANAGER) && label(SERVICE_NAME) == Some(key.name.as_str())
    };
    slices.filter(|(_, raw)| made_for(raw.value())).map(|(slice, _)| slice.clone()).collect()
}
