//! From an object of the API to a validated one. Fields that this version does not know are passed over: the API server
//! may be newer.

use std::sync::Arc;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::answer::clip;
use super::kinds::Watched;
use crate::model::findings::Findings;
use crate::model::text::{dns_label, dns_subdomain, escape};
use crate::model::{EndpointSlice, Node, Problem, Rules, Service, ServiceName, read_node, read_service, read_slices};
use crate::sources::{Keeper, Raw};

/// Where the objects come from, for messages.
pub const ORIGIN: &str = "the API server";

/// Which object it is, and which state of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Namespace (empty for a Node) and name.
    pub name: ServiceName,
    /// Tells it from one that had its name before.
    pub uid: String,
    /// Its version. They are numbers, and rise, at every API server there is.
    pub version: Option<u64>,
}

/// A validated object.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// A Service.
    Service(Arc<Service>),
    /// An EndpointSlice; `None` if it belongs to no Service or holds no addresses of IP.
    Slice(Option<Arc<EndpointSlice>>),
    /// The Node.
    Node(Arc<Node>),
}

/// Reads who it is.
///
/// # Errors
/// If it is no object of the kind.
pub fn identity(watched: Watched, value: &Value) -> Result<Identity, String> {
    let metadata = value.get("metadata");
    let word = |field: &str| metadata.and_then(|metadata| metadata.get(field)).and_then(Value::as_str).unwrap_or("");
    let (namespace, name) = (word("namespace"), word("name"));
    let checked = match watched {
        Watched::Services => dns_label(name),
        Watched::EndpointSlices | Watched::Node => dns_subdomain(name),
    };
    checked.map_err(|error| format!("metadata.name: {error}"))?;
    if watched != Watched::Node {
        dns_label(namespace).map_err(|error| format!("metadata.namespace: {error}"))?;
    }
    Ok(Identity {
        name: ServiceName::new(namespace, name),
        uid: word("uid").to_owned(),
        version: word("resourceVersion").parse().ok(),
    })
}

/// Validates the object; `None` if it is refused.
pub fn object(watched: Watched, value: &Value, name: &ServiceName, rules: &Rules) -> (Option<Object>, Vec<Problem>) {
    let mut findings = Findings::default();
    let object = match watched {
        Watched::Services => typed::<core::Service>(value, &mut findings).map(|object| {
            let service = read_service::service(&object, name.clone(), ORIGIN, rules, &mut findings);
            if service.health_check.is_some() {
                let text = "has no effect: readiness is the kubelets' where there is an API server; remove it";
                findings.warn("metadata.annotations[svc-agent/health-check]", text);
            }
            Object::Service(Arc::new(service))
        }),
        Watched::EndpointSlices => typed::<discovery::EndpointSlice>(value, &mut findings).map(|object| {
            let slice =
                read_slices::endpoint_slice(&object, &name.namespace, &name.name, ORIGIN, &mut findings).map(Arc::new);
            Object::Slice(slice)
        }),
        Watched::Node => typed::<core::Node>(value, &mut findings).map(|object| {
            let node = read_node::node(&object, &name.name, ORIGIN, &mut findings);
            Object::Node(Arc::new(node))
        }),
    };
    let subject = match watched {
        Watched::Services => format!("Service `{}`", escape(&name.to_string())),
        Watched::EndpointSlices => format!("EndpointSlice `{}`", escape(&name.to_string())),
        Watched::Node => format!("Node `{}`", escape(&name.name)),
    };
    let problems = findings.all().iter().map(|finding| {
        let place = if finding.path.is_empty() { String::new() } else { format!("{}: ", finding.path) };
        let about = (watched == Watched::Services).then(|| name.clone());
        Problem { severity: finding.severity, text: format!("{ORIGIN}, {subject}: {place}{}", finding.text), about }
    });
    (object.filter(|_| !findings.refused()), problems.collect())
}

/// The object for those who want to see it, without what only the API server needs.
pub fn raw(watched: Watched, mut value: Value) -> Raw {
    if let Some(object) = value.as_object_mut() {
        // Items of lists leave it out.
        object.insert("apiVersion".to_owned(), watched.api_version().into());
        object.insert("kind".to_owned(), watched.object_kind().as_str().into());
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
        }
    }
    Raw::new(&value, Keeper::ApiServer, ORIGIN)
}

fn typed<T: DeserializeOwned>(value: &Value, findings: &mut Findings) -> Option<T> {
    match T::deserialize(value) {
        Ok(object) => Some(object),
        Err(error) => {
            findings.refuse("", format!("cannot be read: {}", clip(&error.to_string())));
            None
        }
    }
}
