//! One Service: its granted frontends and its endpoints become service ports, one for each port and family.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::backends::{counted, merge};
use super::claims::{Granted, at};
use super::{AddressFamily, Choice, Frontend, FrontendKind, Node, PortKey, ResolvedPort, choice};
use crate::model::text::quote;
use crate::model::{EndpointSlice, ForwardingMode, Problem, Service, ServicePort};

/// Resolves a Service that was granted at least one frontend.
pub fn resolve(
    service: &Service,
    slices: &[Arc<EndpointSlice>],
    granted: &[Granted],
    node: &Node,
    problems: &mut Vec<Problem>,
) -> Vec<ResolvedPort> {
    let mut resolved = Vec::new();
    for (i, port) in service.ports.iter().enumerate() {
        let own = |family: AddressFamily| {
            let own = granted.iter().filter(move |granted| granted.port == i);
            let own =
                own.map(|granted| granted.frontend).filter(move |frontend| AddressFamily::of(frontend.addr) == family);
            own.collect::<BTreeSet<Frontend>>().into_iter().collect::<Vec<Frontend>>()
        };
        let before = resolved.len();
        for family in [AddressFamily::V4, AddressFamily::V6] {
            let frontends = own(family);
            if frontends.is_empty() {
                continue;
            }
            let port = resolve_port(service, port, slices, frontends, family, node);
            if !port.backends.is_empty() || is_of(service, family) {
                resolved.push(port);
            }
        }
        if resolved.len() > before {
            problems.extend(without_endpoints(service, slices, i, port));
        }
    }
    let outside = |port: &ResolvedPort| port.frontends.iter().any(|own| own.kind != FrontendKind::ClusterIp);
    if resolved.iter().any(|port| port.dsr && outside(port)) {
        let text = "direct server return: fragments, and packets with IPv6 extension headers, of clients outside are dropped \
                    where the backend is on another node (counter not_tunnelled)";
        problems.push(Problem::notice(at(service, "spec", text)));
    }
    resolved
}

/// Whether a Service says that it is of a family: only then it refuses connections where it has no endpoints. The node
/// addresses alone do not say so.
fn is_of(service: &Service, family: AddressFamily) -> bool {
    let mut addresses = service.cluster_ips.iter().chain(&service.external_ips);
    let unsaid = service.families.is_empty() && service.cluster_ips.is_empty();
    unsaid
        || service.families.contains(&family)
        || addresses.any(|ip| AddressFamily::of(*ip) == family)
        || service.ingress.iter().any(|ingress| AddressFamily::of(ingress.ip) == family)
}

fn resolve_port(
    service: &Service,
    port: &ServicePort,
    slices: &[Arc<EndpointSlice>],
    frontends: Vec<Frontend>,
    family: AddressFamily,
    node: &Node,
) -> ResolvedPort {
    let candidates = merge(slices, port, family, node);
    let cluster = choice::cluster(&candidates, node);
    let uses_local = frontends.iter().any(|frontend| frontend.external_local || frontend.internal_local);
    let local: Choice = if uses_local { choice::local(&candidates, &cluster) } else { cluster.clone() };
    ResolvedPort {
        key: PortKey {
            namespace: service.name.namespace.clone(),
            name: service.name.name.clone(),
            port_name: port.name.clone(),
            port: port.port,
            protocol: port.protocol.number(),
            family,
        },
        service_type: service.service_type.to_string(),
        frontends,
        backends: candidates.into_iter().map(|candidate| candidate.backend).collect(),
        cluster,
        local,
        affinity_s: service.affinity_s,
        source_ranges: service
            .source_ranges
            .iter()
            .copied()
            .filter(|range| AddressFamily::of(range.addr()) == family)
            .collect(),
        dsr: service.forwarding_mode.unwrap_or(node.forwarding_mode) == ForwardingMode::Dsr,
    }
}

/// Says why a port has no endpoints, where the names are to blame or nobody wrote any.
fn without_endpoints(
    service: &Service,
    slices: &[Arc<EndpointSlice>],
    i: usize,
    port: &ServicePort,
) -> Option<Problem> {
    let named =
        |slice: &EndpointSlice| slice.ports.iter().any(|own| own.name == port.name && own.protocol == port.protocol);
    if slices.is_empty() {
        let text = "no EndpointSlice or Endpoints object: there is nobody to connect to until there is one";
        return Some(Problem::notice(at(service, &format!("spec.ports[{i}]"), text)));
    }
    if counted(slices).any(named) || counted(slices).all(|slice| slice.endpoints.is_empty()) {
        return None;
    }
    let shown = |name: &str| if name.is_empty() { "an unnamed one".to_owned() } else { quote(name) };
    let there: BTreeSet<String> = counted(slices)
        .flat_map(|slice| &slice.ports)
        .map(|own| format!("{} for {}", shown(&own.name), own.protocol))
        .take(8)
        .collect();
    let there = if there.is_empty() { "none".to_owned() } else { there.into_iter().collect::<Vec<_>>().join(", ") };
    let text = format!(
        "found {there} among the ports of its endpoints, expected {} for {}; connections are refused",
        shown(&port.name),
        port.protocol
    );
    Some(Problem::warning(at(service, &format!("spec.ports[{i}].name"), &text)))
}
