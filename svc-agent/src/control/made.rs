//! EndpointSlices that the agent made itself of Pods, as objects: nobody gave them to it.

use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::model::{Endpoint, EndpointSlice, ObjectKey, ObjectKind, SliceOrigin};
use crate::sources::Snapshot;
use crate::sources::applied::{MANAGED_BY, SERVICE_NAME};

/// Those of a snapshot with the name of each.
pub fn made(seen: &Snapshot) -> impl Iterator<Item = (ObjectKey, &std::sync::Arc<EndpointSlice>)> {
    let slices = seen.objects.slices.values().flatten().filter(|slice| slice.source == SliceOrigin::Slice);
    let named = slices.map(|slice| (key(slice), slice));
    named.filter(|(key, _)| !seen.objects.raw.contains_key(key))
}

fn key(slice: &EndpointSlice) -> ObjectKey {
    ObjectKey { kind: ObjectKind::EndpointSlice, namespace: slice.service.namespace.clone(), name: slice.name.clone() }
}

/// As Kubernetes would write it. It is as old as its Service.
pub fn object(slice: &EndpointSlice, created: Option<Timestamp>) -> Value {
    let kind = ObjectKind::EndpointSlice;
    let is_v6 = slice.endpoints.first().is_some_and(|endpoint| endpoint.addr.is_ipv6());
    let ports = slice.ports.iter().map(|port| {
        let mut value = json!({"port": port.port, "protocol": port.protocol.to_string()});
        if let Some(fields) = value.as_object_mut().filter(|_| !port.name.is_empty()) {
            fields.insert("name".into(), port.name.as_str().into());
        }
        value
    });
    let mut value = json!({
        "apiVersion": kind.api_version(),
        "kind": kind.as_str(),
        "metadata": {
            "name": slice.name,
            "namespace": slice.service.namespace,
            "labels": {SERVICE_NAME: slice.service.name, MANAGED_BY: "svc-agent"},
        },
        "addressType": if is_v6 { "IPv6" } else { "IPv4" },
        "ports": ports.collect::<Vec<_>>(),
        "endpoints": slice.endpoints.iter().map(endpoint).collect::<Vec<_>>(),
    });
    if let (Some(created), Some(metadata)) = (created, value.get_mut("metadata").and_then(Value::as_object_mut)) {
        metadata.insert("creationTimestamp".into(), created.to_string().into());
    }
    value
}

fn endpoint(endpoint: &Endpoint) -> Value {
    let mut fields = Map::new();
    let mut set = |field: &str, value: Value| drop(fields.insert(field.to_owned(), value));
    set("addresses", json!([endpoint.addr]));
    let Endpoint { ready, serving, terminating, .. } = endpoint;
    set("conditions", json!({"ready": ready, "serving": serving, "terminating": terminating}));
    for (field, value) in [("nodeName", &endpoint.node), ("zone", &endpoint.zone), ("hostname", &endpoint.hostname)] {
        if let Some(value) = value {
            set(field, value.as_str().into());
        }
    }
    if let Some(target) = &endpoint.target {
        let mut reference = json!({"kind": target.kind, "namespace": target.namespace, "name": target.name});
        if let Some(reference) = reference.as_object_mut().filter(|_| !target.uid.is_empty()) {
            reference.insert("uid".into(), target.uid.as_str().into());
        }
        set("targetRef", reference);
    }
    let named = |names: &[String]| names.iter().map(|name| json!({"name": name})).collect::<Vec<_>>();
    let mut hints = Map::new();
    for (field, names) in [("forZones", &endpoint.for_zones), ("forNodes", &endpoint.for_nodes)] {
        if !names.is_empty() {
            hints.insert(field.to_owned(), named(names).into());
        }
    }
    if !hints.is_empty() {
        set("hints", hints.into());
    }
    fields.into()
}
