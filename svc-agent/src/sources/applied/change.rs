//! What applying makes of an object: the fields that a server keeps, and what counts as a change.

use std::fs;

use anyhow::Context;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::model::{ObjectKey, ObjectKind, Service, ServiceName};
use crate::sources::{Snapshot, raw};

/// What was done to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is new.
    Created,
    /// It was there and is different.
    Configured,
    /// It was there and is the same.
    Unchanged,
    /// It is gone.
    Deleted,
}

/// Fields of the metadata that are the server's: what a client sends of them is not looked at.
const SERVERS: [&str; 7] =
    ["uid", "creationTimestamp", "resourceVersion", "generation", "managedFields", "selfLink", "deletionTimestamp"];
/// An annotation that `kubectl apply` leaves and nobody reads here.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Numbers the versions.
#[derive(Debug, Default)]
pub struct Server {
    version: u64,
}

impl Server {
    /// Microseconds, so that versions rise over restarts without being remembered.
    fn next_version(&mut self) -> u64 {
        let now = u64::try_from(raw::now().as_microsecond()).unwrap_or_default();
        self.version = now.max(self.version + 1);
        self.version
    }
}

/// What becomes of the object `before` when `wanted` is applied; `served` is `before` as clients saw it.
pub fn update(
    wanted: Value,
    before: Option<&Value>,
    served: Option<&Value>,
    server: &mut Server,
) -> anyhow::Result<(Action, Value)> {
    let mut wanted = own_part(wanted);
    let Some(before) = before else {
        let metadata = json!({
            "uid": uuid()?,
            "creationTimestamp": now(),
            "resourceVersion": server.next_version().to_string(),
            "generation": 1,
        });
        return Ok((Action::Created, with_metadata(wanted, &metadata)));
    };
    let own = own_part(before.clone());
    if let Some(served) = served {
        give_back(&mut wanted, &own, &own_part(served.clone()));
    }
    if wanted == own {
        return Ok((Action::Unchanged, before.clone()));
    }
    let metadata = before.get("metadata");
    let kept = |field: &str| metadata.and_then(|metadata| metadata.get(field)).filter(|value| !value.is_null());
    let generation = kept("generation").and_then(Value::as_u64).unwrap_or(1);
    let metadata = json!({
        "uid": kept("uid").cloned().map_or_else(|| uuid().map(Value::from), Ok)?,
        "creationTimestamp": kept("creationTimestamp").cloned().unwrap_or_else(|| now().into()),
        "resourceVersion": server.next_version().to_string(),
        "generation": generation + u64::from(body(&wanted) != body(&own)),
    });
    Ok((Action::Configured, with_metadata(wanted, &metadata)))
}

/// An object with what the agent found for it and its author left open: addresses and nodePorts.
pub fn with_allocated(mut value: Value, key: &ObjectKey, seen: &Snapshot) -> Value {
    let name = ServiceName::new(&*key.namespace, &*key.name);
    if key.kind == ObjectKind::Service
        && let Some(service) = seen.objects.services.get(&name)
    {
        add_allocated(&mut value, service);
    }
    value
}

fn add_allocated(value: &mut Value, service: &Service) {
    let Some(object) = value.as_object_mut() else { return };
    if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
        if let Some(first) = service.cluster_ips.first() {
            add(spec, "clusterIP", || first.to_string().into());
            add(spec, "clusterIPs", || service.cluster_ips.iter().map(ToString::to_string).collect());
        }
        if let Some(port) = service.health_check_node_port {
            add(spec, "healthCheckNodePort", || port.into());
        }
        let ports = spec.get_mut("ports").and_then(Value::as_array_mut);
        for (port, found) in ports.into_iter().flatten().zip(&service.ports) {
            if let (Some(port), Some(number)) = (port.as_object_mut(), found.node_port) {
                add(port, "nodePort", || number.into());
            }
        }
    }
    if !service.ingress.is_empty() {
        let ingress = || service.ingress.iter().map(|ingress| json!({"ip": ingress.ip})).collect();
        let status = object.entry("status").or_insert_with(|| json!({}));
        let balancer = status.as_object_mut().map(|status| status.entry("loadBalancer").or_insert_with(|| json!({})));
        if let Some(balancer) = balancer.and_then(Value::as_object_mut) {
            add(balancer, "ingress", ingress);
        }
    }
}

/// Sets a field that says nothing.
fn add(map: &mut Map<String, Value>, field: &str, value: impl FnOnce() -> Value) {
    let says_nothing = |found: &Value| match found {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Number(number) => number.as_u64() == Some(0),
        Value::Bool(_) | Value::Object(_) => false,
    };
    if map.get(field).is_none_or(says_nothing) {
        map.insert(field.to_owned(), value());
    }
}

/// The part of an object that its author writes.
fn own_part(mut value: Value) -> Value {
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.retain(|field, _| !SERVERS.contains(&field.as_str()));
        if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.remove(LAST_APPLIED);
        }
        metadata.retain(|_, value| !is_empty(value));
    }
    if let Some(object) = value.as_object_mut()
        && let Some(status) = object.get_mut("status")
    {
        if let Some(status) = status.as_object_mut() {
            status.retain(|_, value| !is_empty(value));
        }
        if is_empty(status) {
            object.remove("status");
        }
    }
    value
}

fn is_empty(value: &Value) -> bool {
    value.is_null() || value.as_object().is_some_and(Map::is_empty)
}

/// Takes out of `wanted` what only the answer had: whoever sends back what they got has not asked for it.
fn give_back(wanted: &mut Value, own: &Value, served: &Value) {
    match (wanted, own, served) {
        (Value::Object(wanted), Value::Object(own), Value::Object(served)) => {
            wanted.retain(|field, value| own.contains_key(field) || served.get(field) != Some(value));
            for (field, value) in wanted {
                if let (Some(own), Some(served)) = (own.get(field), served.get(field)) {
                    give_back(value, own, served);
                }
            }
        }
        (Value::Array(wanted), Value::Array(own), Value::Array(served)) => {
            for (value, (own, served)) in wanted.iter_mut().zip(own.iter().zip(served)) {
                give_back(value, own, served);
            }
        }
        _ => {}
    }
}

/// What counts for the generation.
fn body(value: &Value) -> Map<String, Value> {
    let mut body = value.as_object().cloned().unwrap_or_default();
    body.retain(|field, _| field != "metadata" && field != "status");
    body
}

fn with_metadata(mut value: Value, more: &Value) -> Value {
    if let (Some(metadata), Some(more)) = (value.get_mut("metadata").and_then(Value::as_object_mut), more.as_object()) {
        metadata.extend(more.clone());
    }
    value
}

/// To the second, as an API server tells it.
fn now() -> String {
    let now = raw::now();
    Timestamp::from_second(now.as_second()).unwrap_or(now).to_string()
}

fn uuid() -> anyhow::Result<String> {
    let uuid = fs::read_to_string("/proc/sys/kernel/random/uuid").context("cannot make a uid")?;
    Ok(uuid.trim().to_owned())
}
