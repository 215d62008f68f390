//! From EndpointSlices and Endpoints as Kubernetes writes them to [`EndpointSlice`]s (B72, B74, B75).
//!
//! A bad address or port is reported and left out; the rest of the object stays, so that one slip does not take a
//! Service down.

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;

use super::findings::Findings;
use super::read_ports::slice_port;
use super::text::{dns_label, quote};
use super::{Endpoint, EndpointSlice, ServiceName, SliceOrigin, Target, address};

const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// Validates an EndpointSlice; `None` if it belongs to no Service or holds no addresses of IP.
pub fn endpoint_slice(
    object: &discovery::EndpointSlice,
    namespace: &str,
    name: &str,
    origin: &str,
    findings: &mut Findings,
) -> Option<EndpointSlice> {
    let v4 = match object.address_type.as_str() {
        "IPv4" => Some(true),
        "IPv6" => Some(false),
        "FQDN" => None,
        "" => {
            findings.refuse("addressType", "missing, expected IPv4, IPv6 or FQDN");
            None
        }
        other => {
            findings.refuse("addressType", format!("found {}, expected IPv4, IPv6 or FQDN", quote(other)));
            None
        }
    };
    let labels = object.metadata.labels.as_ref();
    let Some(service) = labels.and_then(|labels| labels.get(SERVICE_LABEL)).filter(|name| !name.is_empty()) else {
        let text = format!("no label {SERVICE_LABEL}, so the slice belongs to no Service");
        findings.warn("metadata.labels", text);
        return None;
    };
    if let Err(error) = dns_label(service) {
        findings.refuse(format!("metadata.labels[{SERVICE_LABEL}]"), error);
    }
    let v4 = v4?;
    let ports = object.ports.iter().flatten().enumerate().filter_map(|(i, port)| {
        slice_port(port.name.as_deref(), port.port, port.protocol.as_deref(), &format!("ports[{i}]"), findings)
    });
    let ports = ports.collect();
    let endpoints = object.endpoints.iter().enumerate();
    let mut endpoints: Vec<_> =
        endpoints.filter_map(|(i, endpoint)| slice_endpoint(endpoint, i, v4, findings)).collect();
    // There may be a hundred thousand: no room for more that never come.
    endpoints.shrink_to_fit();
    Some(EndpointSlice {
        service: ServiceName::new(namespace, service),
        name: name.to_owned(),
        origin: origin.to_owned(),
        source: SliceOrigin::Slice,
        created: object.metadata.creation_timestamp.as_ref().map(|time| time.0),
        triggered: triggered(&object.metadata),
        ports,
        endpoints,
    })
}

/// What the controllers of Kubernetes write, for the time that it takes until a change is at work.
fn triggered(metadata: &ObjectMeta) -> Option<Timestamp> {
    metadata.annotations.as_ref()?.get("endpoints.kubernetes.io/last-change-trigger-time")?.parse().ok()
}

fn slice_endpoint(endpoint: &discovery::Endpoint, i: usize, v4: bool, findings: &mut Findings) -> Option<Endpoint> {
    let Some(text) = endpoint.addresses.first() else {
        findings.leave_out(format!("endpoints[{i}].addresses"), "missing, expected an address");
        return None;
    };
    let addr = match address::parse(text) {
        Ok(addr) if addr.is_ipv4() == v4 => addr,
        Ok(addr) => {
            let (found, expected) = if v4 { ("IPv6", "IPv4") } else { ("IPv4", "IPv6") };
            let text = format!("found the {found} address `{addr}`, expected {expected} as addressType says");
            findings.leave_out(format!("endpoints[{i}].addresses[0]"), text);
            return None;
        }
        Err(error) => {
            findings.leave_out(format!("endpoints[{i}].addresses[0]"), error);
            return None;
        }
    };
    let conditions = endpoint.conditions.as_ref();
    let ready = conditions.and_then(|conditions| conditions.ready).unwrap_or(true);
    let hints = endpoint.hints.as_ref();
    let zones = hints.and_then(|hints| hints.for_zones.as_ref()).into_iter().flatten();
    let nodes = hints.and_then(|hints| hints.for_nodes.as_ref()).into_iter().flatten();
    Some(Endpoint {
        addr,
        ready,
        serving: conditions.and_then(|conditions| conditions.serving).unwrap_or(ready),
        terminating: conditions.and_then(|conditions| conditions.terminating).unwrap_or(false),
        node: endpoint.node_name.clone().filter(|node| !node.is_empty()),
        zone: endpoint.zone.clone().filter(|zone| !zone.is_empty()),
        hostname: endpoint.hostname.clone().filter(|name| dns_label(name).is_ok()),
        target: endpoint.target_ref.as_ref().and_then(target),
        for_zones: zones.map(|zone| zone.name.clone()).collect(),
        for_nodes: nodes.map(|node| node.name.clone()).collect(),
    })
}

/// Validates an Endpoints object: one slice for each subset.
pub fn endpoints(
    object: &core::Endpoints,
    namespace: &str,
    name: &str,
    origin: &str,
    findings: &mut Findings,
) -> Vec<EndpointSlice> {
    let subsets = object.subsets.iter().flatten().enumerate();
    subsets
        .map(|(i, subset)| {
            let at = format!("subsets[{i}]");
            let mut ports = Vec::new();
            for (j, port) in subset.ports.iter().flatten().enumerate() {
                let at = format!("{at}.ports[{j}]");
                if port.port == 0 {
                    findings.leave_out(format!("{at}.port"), "missing or 0, expected 1 to 65535");
                }
                ports.extend(slice_port(
                    port.name.as_deref(),
                    Some(port.port),
                    port.protocol.as_deref(),
                    &at,
                    findings,
                ));
            }
            let mut found = Vec::new();
            for (field, list, ready) in
                [("addresses", &subset.addresses, true), ("notReadyAddresses", &subset.not_ready_addresses, false)]
            {
                for (j, address) in list.iter().flatten().enumerate() {
                    found.extend(subset_address(address, ready, &format!("{at}.{field}[{j}].ip"), findings));
                }
            }
            EndpointSlice {
                service: ServiceName::new(namespace, name),
                name: name.to_owned(),
                origin: origin.to_owned(),
                source: SliceOrigin::Endpoints,
                created: object.metadata.creation_timestamp.as_ref().map(|time| time.0),
                triggered: triggered(&object.metadata),
                ports,
                endpoints: found,
            }
        })
        .collect()
}

fn subset_address(found: &core::EndpointAddress, ready: bool, at: &str, findings: &mut Findings) -> Option<Endpoint> {
    if found.ip.is_empty() {
        findings.leave_out(at, "missing, expected an address");
        return None;
    }
    let addr = match address::parse(&found.ip) {
        Ok(addr) => addr,
        Err(error) => {
            findings.leave_out(at, error);
            return None;
        }
    };
    Some(Endpoint {
        addr,
        ready,
        serving: ready,
        terminating: false,
        node: found.node_name.clone().filter(|node| !node.is_empty()),
        zone: None,
        hostname: found.hostname.clone().filter(|name| dns_label(name).is_ok()),
        target: found.target_ref.as_ref().and_then(target),
        for_zones: Vec::new(),
        for_nodes: Vec::new(),
    })
}

fn target(found: &core::ObjectReference) -> Option<Target> {
    Some(Target {
        kind: found.kind.clone().unwrap_or_default(),
        namespace: found.namespace.clone().unwrap_or_default(),
        name: found.name.clone().filter(|name| !name.is_empty())?,
        uid: found.uid.clone().unwrap_or_default(),
    })
}
