//! From a document to the objects in it: lists are taken apart, kinds told apart, each object validated.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use serde_json::Value;

use super::documents::Document;
use super::typed::{self, found};
use crate::model::findings::Findings;
use crate::model::text::{dns_label, dns_subdomain, escape, nearest, quote};
use crate::model::{
    EndpointSlice, Node, ObjectKey, ObjectKind, Pod, Problem, Rules, Service, ServiceName, read_node, read_pod,
    read_service, read_slices,
};

/// Lists inside lists; `kubectl` writes one level.
const MAX_LIST_DEPTH: usize = 4;

/// What is read of a Pod. Of the rest it does not matter here whether this or that version of Kubernetes would take it.
const POD_PARTS: &[&str] = &[
    "apiVersion",
    "kind",
    "metadata",
    "spec.containers.name",
    "spec.containers.ports",
    "spec.hostNetwork",
    "spec.hostname",
    "spec.initContainers.name",
    "spec.initContainers.ports",
    "spec.initContainers.restartPolicy",
    "spec.nodeName",
    "spec.subdomain",
    "status.conditions.status",
    "status.conditions.type",
    "status.phase",
    "status.podIP",
    "status.podIPs",
];
/// What is read of a Node.
const NODE_PARTS: &[&str] =
    &["apiVersion", "kind", "metadata", "spec.taints", "spec.unschedulable", "status.addresses"];

/// A valid object.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// A Service.
    Service(Box<Service>),
    /// An EndpointSlice, or the subsets of an Endpoints object; none if it belongs to no Service.
    Slices(Vec<EndpointSlice>),
    /// A Pod.
    Pod(Box<Pod>),
    /// A Node.
    Node(Box<Node>),
}

/// What came of one object that is used.
#[derive(Clone, Debug)]
pub struct Read {
    /// Its identity, if it has one.
    pub key: Option<ObjectKey>,
    /// File and document, for messages.
    pub origin: String,
    /// The object, unless it is refused.
    pub object: Option<Object>,
    /// As it was given, with its version and kind; null if it is none.
    pub raw: Value,
    /// What is wrong with it.
    pub problems: Vec<Problem>,
}

/// What a document held.
#[derive(Debug, Default)]
pub struct Contents {
    /// The objects that are used, in order.
    pub objects: Vec<Read>,
    /// Objects of other kinds, counted.
    pub ignored: BTreeMap<String, usize>,
}

impl Contents {
    /// Adds the objects of a document.
    pub fn add(&mut self, file: &str, document: &Document, rules: &Rules) {
        self.value(&document.value, &format!("{file} document {}", document.number), rules, None, 0);
    }

    fn value(&mut self, value: &Value, origin: &str, rules: &Rules, listed: Option<ObjectKind>, depth: usize) {
        let mut refuse = |path: &str, text: String| {
            let at = if path.is_empty() { origin.to_owned() } else { format!("{origin}: {path}") };
            let problems = vec![Problem::error(format!("{at}: {text}"))];
            self.objects.push(Read { key: None, origin: origin.to_owned(), object: None, raw: Value::Null, problems });
        };
        let Some(map) = value.as_object() else {
            return refuse(
                "",
                format!("found {}, expected a Kubernetes object with apiVersion and kind", found(value)),
            );
        };
        let word = |field: &str| map.get(field).and_then(Value::as_str).filter(|word| !word.is_empty());
        if let Some(kind) = listed
            && map.get("kind").is_none_or(Value::is_null)
        {
            // Items of a typed list may leave their kind out: the list says it.
            return self.object(kind, value, origin, rules);
        }
        let absent = |field: &str| match map.get(field) {
            None | Some(Value::Null) => "missing".to_owned(),
            Some(value) => format!("found {}", found(value)),
        };
        let Some(kind) = word("kind") else {
            return refuse("kind", format!("{}, expected the kind of the object, such as Service", absent("kind")));
        };
        let Some(version) = word("apiVersion") else {
            return refuse(
                "apiVersion",
                format!("{}, expected the version of the API, such as v1", absent("apiVersion")),
            );
        };
        let items_kind = ObjectKind::ALL.into_iter().find(|used| kind.strip_suffix("List") == Some(used.as_str()));
        let is_list = match items_kind {
            Some(used) => version == used.api_version(),
            None => kind == "List" && version == "v1",
        };
        if is_list {
            if depth == MAX_LIST_DEPTH {
                return refuse("items", format!("found lists more than {MAX_LIST_DEPTH} deep"));
            }
            match map.get("items") {
                None | Some(Value::Null) => {}
                Some(Value::Array(items)) => {
                    for (i, item) in items.iter().enumerate() {
                        self.value(item, &format!("{origin} items[{i}]"), rules, items_kind, depth + 1);
                    }
                }
                Some(other) => refuse("items", format!("found {}, expected a list of objects", found(other))),
            }
            return;
        }
        // Not in the API groups of others: Knative, say, has a kind Service of its own.
        if let Some(used) = ObjectKind::ALL.into_iter().find(|used| used.as_str() == kind) {
            if version == used.api_version() {
                return self.object(used, value, origin, rules);
            }
            if is_of_kubernetes(group(version)) {
                let text = format!("found {} for kind {used}, expected {}", quote(version), used.api_version());
                return refuse("apiVersion", text);
            }
        }
        if let Some(expected) = items_kind.map(ObjectKind::api_version).or_else(|| (kind == "List").then_some("v1"))
            && is_of_kubernetes(group(version))
        {
            let text = format!("found {} for kind {kind}, expected {expected}", quote(version));
            return refuse("apiVersion", text);
        }
        if let Some(near) = misspelt(kind, version) {
            return refuse("kind", format!("unknown kind {}; did you mean `{near}`?", quote(kind)));
        }
        *self.ignored.entry(escape(kind)).or_default() += 1;
    }

    fn object(&mut self, kind: ObjectKind, value: &Value, origin: &str, rules: &Rules) {
        let mut findings = Findings::default();
        let metadata = value.get("metadata");
        let word = |field: &str| metadata.and_then(|metadata| metadata.get(field)).and_then(Value::as_str);
        let name = word("name").filter(|name| !name.is_empty());
        let named = word("namespace").filter(|namespace| !namespace.is_empty());
        let namespace = if kind.is_namespaced() { named.unwrap_or("default") } else { "" };
        if let Some(named) = named.filter(|_| !kind.is_namespaced()) {
            let text = format!("found {}, expected none: a {kind} is in no namespace; it is ignored", quote(named));
            findings.warn("metadata.namespace", text);
        }
        check_name(kind, metadata, name, namespace, &mut findings);
        let key = name.map(|name| ObjectKey { kind, namespace: namespace.to_owned(), name: name.to_owned() });
        let object = read(kind, value, namespace, name.unwrap_or_default(), origin, rules, &mut findings);
        let subject = match &key {
            Some(key) => {
                let (namespace, name) = (escape(&key.namespace), escape(&key.name));
                ObjectKey { kind, namespace, name }.to_string()
            }
            None => format!("{kind} without a name"),
        };
        let problems = findings.all().iter().map(|finding| {
            let place = if finding.path.is_empty() { String::new() } else { format!("{}: ", finding.path) };
            let text = format!("{origin}, {subject}: {place}{}", finding.text);
            Problem { severity: finding.severity, text, about: None }
        });
        let problems = problems.collect();
        let object = object.filter(|_| !findings.refused() && key.is_some());
        self.objects.push(Read { key, origin: origin.to_owned(), object, raw: complete(kind, value), problems });
    }
}

/// Items of a typed list may leave out what the list says.
fn complete(kind: ObjectKind, value: &Value) -> Value {
    let mut value = value.clone();
    if let Some(map) = value.as_object_mut() {
        map.insert("apiVersion".to_owned(), kind.api_version().into());
        map.insert("kind".to_owned(), kind.as_str().into());
    }
    value
}

fn read(
    kind: ObjectKind,
    value: &Value,
    namespace: &str,
    name: &str,
    origin: &str,
    rules: &Rules,
    findings: &mut Findings,
) -> Option<Object> {
    // Validation goes on after wrong types, to tell everything at once; but not after list elements were skipped,
    // because it would count the others wrongly.
    let mut later = Findings::default();
    let object = match kind {
        ObjectKind::Service => {
            let object = typed::read::<core::Service>(value, findings)?;
            let name = ServiceName::new(namespace, name);
            Object::Service(Box::new(read_service::service(&object, name, origin, rules, &mut later)))
        }
        ObjectKind::Endpoints => {
            let object = typed::read::<core::Endpoints>(value, findings)?;
            Object::Slices(read_slices::endpoints(&object, namespace, name, origin, &mut later))
        }
        ObjectKind::EndpointSlice => {
            let object = typed::read::<discovery::EndpointSlice>(value, findings)?;
            Object::Slices(
                read_slices::endpoint_slice(&object, namespace, name, origin, &mut later).into_iter().collect(),
            )
        }
        ObjectKind::Pod => {
            let object = typed::read_part::<core::Pod>(value, POD_PARTS, findings)?;
            Object::Pod(Box::new(read_pod::pod(&object, namespace, name, origin, &mut later)))
        }
        ObjectKind::Node => {
            let object = typed::read_part::<core::Node>(value, NODE_PARTS, findings)?;
            Object::Node(Box::new(read_node::node(&object, name, origin, &mut later)))
        }
    };
    if !findings.all().iter().any(|finding| finding.path.ends_with(']')) {
        findings.extend_beyond(later);
    }
    Some(object)
}

fn check_name(
    kind: ObjectKind,
    metadata: Option<&Value>,
    name: Option<&str>,
    namespace: &str,
    findings: &mut Findings,
) {
    // A name of another type is told with the types.
    let absent = |field: &str| {
        let value = metadata.and_then(|metadata| metadata.get(field));
        value.is_none_or(|value| value.is_null() || value.as_str() == Some(""))
    };
    match name {
        Some(name) => {
            let check = if kind == ObjectKind::Service { dns_label(name) } else { dns_subdomain(name) };
            if let Err(error) = check {
                findings.refuse("metadata.name", error);
            }
        }
        None if absent("name") => findings.refuse("metadata.name", "missing, expected the name of the object"),
        None => {}
    }
    if kind.is_namespaced()
        && let Err(error) = dns_label(namespace)
    {
        findings.refuse("metadata.namespace", error);
    }
}

fn group(version: &str) -> &str {
    version.split_once('/').map_or("", |(group, _)| group)
}

/// Whether an API group is one of Kubernetes itself, such as `apps` or `networking.k8s.io`.
fn is_of_kubernetes(group: &str) -> bool {
    !group.contains('.') || group.ends_with(".k8s.io") && !group.ends_with(".x-k8s.io")
}

/// The kind that was probably meant, where the API group has no kind so close to it.
fn misspelt(kind: &str, version: &str) -> Option<&'static str> {
    let of_group = ObjectKind::ALL.into_iter().filter(|used| used.api_version() == version);
    nearest(kind, of_group.map(ObjectKind::as_str))
}
