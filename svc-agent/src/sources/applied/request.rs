//! From the text of a request to its objects, validated as manifests are.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Refusal, directory};
use crate::model::text::quote;
use crate::model::{ObjectKey, ObjectKind, Rules, Severity};
use crate::sources::manifests::{Contents, Document, documents};

/// How a request is meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The namespace of objects that name none, and the only one allowed.
    pub namespace: Option<String>,
    /// What the text is called in messages.
    pub source: Option<String>,
    /// Nothing is changed; the answer is the same.
    pub dry_run: bool,
    /// An object that exists already is refused.
    pub create: bool,
    /// What is not there need not be deleted.
    pub ignore_missing: bool,
}

/// A valid object of a request.
#[derive(Debug)]
pub struct Wanted {
    /// Its identity.
    pub key: ObjectKey,
    /// As it was sent, with version, kind and namespace.
    pub value: Value,
    /// What is doubtful about it.
    pub warnings: Vec<String>,
}

/// The objects to apply.
pub fn objects(text: &[u8], options: &Options, rules: &Rules) -> Result<Vec<Wanted>, Refusal> {
    let (contents, mut faults) = contents(text, options, rules)?;
    let (mut wanted, mut keys) = (Vec::new(), BTreeSet::new());
    for read in contents.objects {
        let is_fault = |severity| read.object.is_none() && severity == Severity::Error;
        let (errors, warnings): (Vec<_>, Vec<_>) =
            read.problems.into_iter().partition(|problem| is_fault(problem.severity));
        faults.extend(errors.into_iter().map(|problem| problem.text));
        let (Some(key), Some(_)) = (read.key, read.object) else { continue };
        if let Err(error) = directory::file(&key) {
            faults.push(format!("{}, {error}", read.origin));
        }
        faults.extend(elsewhere(&key, &read.origin, options));
        if !keys.insert(key.clone()) {
            faults.push(format!("{}, {key}: it is there twice", read.origin));
        }
        let warnings = warnings.into_iter().map(|problem| problem.to_string()).collect();
        wanted.push(Wanted { key, value: read.raw, warnings });
    }
    if faults.is_empty() { Ok(wanted) } else { Err(Refusal::Invalid(faults)) }
}

/// The objects to delete: they need not be valid, but for their names.
pub fn names(text: &[u8], options: &Options) -> Result<Vec<ObjectKey>, Refusal> {
    let (contents, mut faults) = contents(text, options, &Rules::default())?;
    let mut keys = Vec::new();
    for read in contents.objects {
        match read.key {
            Some(key) => {
                faults.extend(directory::file(&key).err().map(|error| format!("{}, {error}", read.origin)));
                faults.extend(elsewhere(&key, &read.origin, options));
                keys.push(key);
            }
            None => faults.extend(read.problems.into_iter().map(|problem| problem.text)),
        }
    }
    if faults.is_empty() { Ok(keys) } else { Err(Refusal::Invalid(faults)) }
}

/// What the text holds, and what is wrong with it as a whole.
fn contents(text: &[u8], options: &Options, rules: &Rules) -> Result<(Contents, Vec<String>), Refusal> {
    let name = options.source.as_deref().map_or_else(|| "request".to_owned(), crate::model::text::escape);
    let namespace = options.namespace.as_deref().unwrap_or("default");
    let (documents, errors) = documents::read(text, false);
    let mut faults: Vec<String> =
        errors.into_iter().map(|(number, text)| format!("{name} document {number}: {text}")).collect();
    let mut contents = Contents::default();
    for Document { number, mut value } in documents {
        place(&mut value, namespace);
        contents.add(&name, &Document { number, value }, rules);
    }
    for kind in contents.ignored.keys() {
        let expected = ObjectKind::ALL.map(ObjectKind::as_str).join(", ");
        faults.push(format!("{name}: found the kind {}, expected one of {expected}", quote(kind)));
    }
    if contents.objects.is_empty() && faults.is_empty() {
        faults.push(format!("{name}: found no object"));
    }
    Ok((contents, faults))
}

/// Gives objects without a namespace this one.
fn place(value: &mut Value, namespace: &str) {
    if let Some(Value::Array(items)) = value.get_mut("items") {
        items.iter_mut().for_each(|item| place(item, namespace));
        return;
    }
    let kind = value.get("kind").and_then(Value::as_str);
    if ObjectKind::ALL.into_iter().any(|known| Some(known.as_str()) == kind && !known.is_namespaced()) {
        return;
    }
    let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    if metadata.get("namespace").is_none_or(|found| found.is_null() || found.as_str() == Some("")) {
        metadata.insert("namespace".to_owned(), namespace.into());
    }
}

/// The fault of an object in another namespace than the request's.
fn elsewhere(key: &ObjectKey, origin: &str, options: &Options) -> Option<String> {
    let expected = options.namespace.as_deref().filter(|expected| **expected != key.namespace)?;
    if !key.kind.is_namespaced() {
        return None;
    }
    let text =
        format!("metadata.namespace: found {}, expected {} as asked for", quote(&key.namespace), quote(expected));
    Some(format!("{origin}, {key}: {text}"))
}
