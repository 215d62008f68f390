//! Resolved Services as documents, so that the agent has only numbers to add.

use svc_common::maps::ServiceCounters;

use super::api::{
    Endpoint, EndpointCounts, Family, Frontend, FrontendKind, Protocol, Service, ServiceEndpoints, ServicePort,
    ServiceRef, Traffic,
};
use crate::resolve::{self, AddressFamily, PortKey, ResolvedPort};

impl Service {
    /// All ports of one Service; `None` without any. `counters` gives what is counted for a port.
    pub fn from_resolved(ports: &[ResolvedPort], counters: impl Fn(&PortKey) -> ServiceCounters) -> Option<Self> {
        let first = ports.first()?;
        Some(Self {
            namespace: first.key.namespace.clone(),
            name: first.key.name.clone(),
            service_type: first.service_type.clone(),
            ports: ports.iter().filter_map(|port| service_port(port, counters(&port.key))).collect(),
            refused: None,
        })
    }
}

impl ServiceEndpoints {
    /// All endpoints of one Service; `None` without any port.
    pub fn from_resolved(ports: &[ResolvedPort]) -> Option<Self> {
        let first = ports.first()?;
        Some(Self {
            namespace: first.key.namespace.clone(),
            name: first.key.name.clone(),
            endpoints: ports.iter().flat_map(endpoints).collect(),
        })
    }
}

impl From<&PortKey> for ServiceRef {
    fn from(key: &PortKey) -> Self {
        Self {
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            port_name: key.port_name.clone(),
            port: key.port,
        }
    }
}

impl From<AddressFamily> for Family {
    fn from(family: AddressFamily) -> Self {
        match family {
            AddressFamily::V4 => Self::V4,
            AddressFamily::V6 => Self::V6,
        }
    }
}

impl From<resolve::FrontendKind> for FrontendKind {
    fn from(kind: resolve::FrontendKind) -> Self {
        match kind {
            resolve::FrontendKind::ClusterIp => Self::ClusterIp,
            resolve::FrontendKind::NodePort => Self::NodePort,
            resolve::FrontendKind::LoadBalancer => Self::LoadBalancer,
            resolve::FrontendKind::ExternalIp => Self::ExternalIp,
        }
    }
}

/// `None` for a protocol that the socket has no word for; no such port is ever resolved.
fn service_port(port: &ResolvedPort, counters: ServiceCounters) -> Option<ServicePort> {
    let frontend = |frontend: &resolve::Frontend| Frontend {
        address: frontend.addr,
        port: frontend.port,
        kind: frontend.kind.into(),
        external_local: frontend.external_local,
        internal_local: frontend.internal_local,
    };
    let count = |wanted: fn(&resolve::Backend) -> bool| {
        u32::try_from(port.backends.iter().filter(|backend| wanted(backend)).count()).unwrap_or(u32::MAX)
    };
    Some(ServicePort {
        name: port.key.port_name.clone(),
        port: port.key.port,
        protocol: Protocol::from_number(port.key.protocol)?,
        family: port.key.family.into(),
        frontends: port.frontends.iter().map(frontend).collect(),
        endpoints: EndpointCounts {
            total: count(|_| true),
            ready: count(|backend| backend.ready),
            terminating: count(|backend| backend.terminating),
            local: count(|backend| backend.local),
        },
        affinity_seconds: port.affinity_s,
        forward: Traffic { packets: counters.packets, bytes: counters.bytes },
        reverse: Traffic { packets: counters.reply_packets, bytes: counters.reply_bytes },
        new_flows: counters.new_flows,
    })
}

fn endpoints(port: &ResolvedPort) -> Vec<Endpoint> {
    let Some(protocol) = Protocol::from_number(port.key.protocol) else { return Vec::new() };
    let endpoint = |backend: &resolve::Backend| Endpoint {
        address: backend.addr,
        port: backend.port,
        protocol,
        port_name: port.key.port_name.clone(),
        service_port: port.key.port,
        ready: backend.ready,
        serving: backend.serving,
        terminating: backend.terminating,
        local: backend.local,
        node_name: backend.node.clone(),
        target: backend.target.clone(),
    };
    port.backends.iter().map(endpoint).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::testing::resolved_web;

    #[test]
    fn a_resolved_service_keeps_its_frontends_endpoints_and_numbers() {
        let counters =
            ServiceCounters { packets: 10, bytes: 1000, reply_packets: 9, reply_bytes: 90_000, new_flows: 2 };
        let service = Service::from_resolved(&resolved_web(), |_| counters).unwrap();
        assert_eq!((service.namespace.as_str(), service.name.as_str()), ("default", "web"));
        assert_eq!(service.service_type, "NodePort");
        let [port] = service.ports.as_slice() else { panic!("{:?}", service.ports) };
        assert_eq!((port.port, port.protocol, port.family), (80, Protocol::Tcp, Family::V4));
        assert_eq!(
            port.frontends.iter().map(|f| f.kind).collect::<Vec<_>>(),
            [FrontendKind::ClusterIp, FrontendKind::NodePort]
        );
        assert_eq!(port.endpoints, EndpointCounts { total: 2, ready: 1, terminating: 1, local: 1 });
        assert_eq!((port.forward.bytes, port.reverse.packets, port.new_flows), (1000, 9, 2));
    }

    #[test]
    fn endpoints_tell_where_they_are_and_what_they_serve() {
        let endpoints = ServiceEndpoints::from_resolved(&resolved_web()).unwrap().endpoints;
        let [first, second] = endpoints.as_slice() else { panic!("{endpoints:?}") };
        assert_eq!((first.port, first.service_port, first.local), (8080, 80, true));
        assert_eq!((second.node_name.as_deref(), second.terminating), (Some("node-b"), true));
        assert_eq!(ServiceEndpoints::from_resolved(&[]), None);
    }
}
