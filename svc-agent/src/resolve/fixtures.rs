//! Short ways to write Services and endpoints in the tests of this folder.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::Node;
use crate::model::{
    Endpoint, EndpointSlice, ForwardingMode, Ingress, Protocol, Service, ServiceName, ServicePort, ServiceType,
    SliceOrigin, SlicePort, TargetPort,
};
use crate::sources::{Objects, Snapshot};

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The node `a` in zone `z1` with one address of each family.
pub fn node() -> Node {
    Node {
        name: "a".to_owned(),
        zone: Some("z1".to_owned()),
        addresses: vec![ip("192.168.0.1"), ip("2001:db8::1")],
        forwarding_mode: ForwardingMode::Snat,
    }
}

/// A Service of type ClusterIP with one unnamed TCP port 80.
pub fn service(name: &str, cluster_ips: &[&str]) -> Service {
    Service {
        name: ServiceName::new("default", name),
        origin: format!("{name}.yaml document 1"),
        created: None,
        service_type: ServiceType::ClusterIp,
        skipped: None,
        selector: BTreeMap::new(),
        publish_not_ready: false,
        families: Vec::new(),
        family_policy: None,
        cluster_ips: cluster_ips.iter().map(|text| ip(text)).collect(),
        external_ips: Vec::new(),
        ingress: Vec::new(),
        load_balancer_ip: None,
        load_balancer_class: None,
        allocate_node_ports: true,
        health_check_node_port: None,
        external_name: String::new(),
        ports: vec![port("", 80)],
        external_local: false,
        internal_local: false,
        distribution: None,
        source_ranges: Vec::new(),
        affinity_s: None,
        forwarding_mode: None,
        health_check: None,
    }
}

pub fn port(name: &str, port: u16) -> ServicePort {
    ServicePort {
        name: name.to_owned(),
        port,
        protocol: Protocol::Tcp,
        node_port: None,
        target: TargetPort::Number(port),
    }
}

pub fn ingress(text: &str) -> Ingress {
    Ingress { ip: ip(text), proxy: false }
}

/// A ready endpoint on a node.
pub fn endpoint(text: &str, node: Option<&str>) -> Endpoint {
    Endpoint {
        addr: ip(text),
        ready: true,
        serving: true,
        terminating: false,
        node: node.map(str::to_owned),
        zone: None,
        hostname: None,
        target: None,
        for_zones: Vec::new(),
        for_nodes: Vec::new(),
    }
}

/// A slice with one unnamed TCP port 8080.
pub fn slice(service: &str, name: &str, endpoints: Vec<Endpoint>) -> EndpointSlice {
    EndpointSlice {
        service: ServiceName::new("default", service),
        name: name.to_owned(),
        origin: format!("{name}.yaml document 1"),
        source: SliceOrigin::Slice,
        created: None,
        triggered: None,
        ports: vec![SlicePort { name: String::new(), port: 8080, protocol: Protocol::Tcp }],
        endpoints,
    }
}

pub fn snapshot(services: Vec<Service>, slices: Vec<EndpointSlice>) -> Snapshot {
    let mut objects = Objects::default();
    for service in services {
        objects.services.insert(service.name.clone(), Arc::new(service));
    }
    for slice in slices {
        let name = slice.service.clone();
        let mut all = objects.slices.get(&name).cloned().unwrap_or_default();
        all.push(Arc::new(slice));
        objects.slices.insert(name, all);
    }
    Snapshot { objects, problems: Vec::new(), complete: true }
}
