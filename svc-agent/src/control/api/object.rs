//! `/v1/objects`: the objects of the sources as they were given, and what becomes of those that are applied.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Selector;

/// Which objects. Absent means any.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ObjectQuery {
    /// Their kind, as in a manifest, in the plural or in short: `Service`, `services`, `svc`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Their namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Their name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What their labels must be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Selector>,
    /// Tell every change from now on, one document per line; first what there is.
    #[serde(default)]
    pub watch: bool,
    /// At most so many elements.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// How objects are applied or deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ChangeQuery {
    /// The namespace of objects that name none, and the only one allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// What the body is called in messages, such as the name of a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Change nothing, and say what would be changed.
    #[serde(default)]
    pub dry_run: bool,
    /// Refuse objects that exist already.
    #[serde(default)]
    pub create: bool,
    /// What is not there need not be deleted.
    #[serde(default)]
    pub ignore_not_found: bool,
}

/// Objects, in the form in which Kubernetes lists them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectList {
    /// `v1`
    pub api_version: String,
    /// `List`
    pub kind: String,
    /// The objects.
    pub items: Vec<Value>,
    /// Where each of them is defined, in the same order.
    #[serde(default)]
    pub origins: Vec<String>,
}

/// What a watch tells.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ObjectEvent {
    /// What happened.
    #[serde(rename = "type")]
    pub event: ObjectEventType,
    /// The object: as it is, or as it was at last.
    pub object: Value,
}

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ObjectEventType {
    /// It is there, and was not told before.
    Added,
    /// It is different.
    Modified,
    /// It is gone, or is none of those that were asked for any more.
    Deleted,
}

/// The answer to a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Changes {
    /// Nothing was changed, as was asked for.
    #[serde(default)]
    pub dry_run: bool,
    /// What became of each object, in the order of the request.
    pub items: Vec<ChangedObject>,
}

/// What became of one object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChangedObject {
    /// Its kind.
    pub kind: String,
    /// Its namespace; empty for kinds that have none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What was done.
    pub action: ObjectAction,
    /// What is doubtful about it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// What was done to an object, in kubectl's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ObjectAction {
    /// It is new.
    Created,
    /// It was there and is different.
    Configured,
    /// It was there and is the same.
    Unchanged,
    /// It is gone.
    Deleted,
}

impl fmt::Display for ObjectAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Created => "created",
            Self::Configured => "configured",
            Self::Unchanged => "unchanged",
            Self::Deleted => "deleted",
        })
    }
}
