//! Services as rows.

use super::human::{joined, number};
use super::printer::{Column, Show, column, wide};
use crate::control::api::{Frontend, FrontendKind, Service, ServicePort};

impl Show for Service {
    const COLUMNS: &'static [Column] = &[
        column("NAMESPACE"),
        column("NAME"),
        column("TYPE"),
        column("CLUSTER-IP"),
        column("EXTERNAL-IP"),
        column("PORT(S)"),
        column("ENDPOINTS"),
        wide("AFFINITY"),
        wide("NEW-FLOWS"),
        wide("PACKETS-IN"),
        wide("BYTES-IN"),
        wide("PACKETS-OUT"),
        wide("BYTES-OUT"),
        wide("REFUSED"),
    ];

    fn rows(&self) -> Vec<Vec<String>> {
        let addresses = |kinds: &[FrontendKind]| {
            let frontends = self.ports.iter().flat_map(|port| &port.frontends);
            joined(frontends.filter(|frontend| kinds.contains(&frontend.kind)).map(|frontend| frontend.address))
        };
        let sum = |field: fn(&ServicePort) -> u64| number(self.ports.iter().map(field).sum());
        vec![vec![
            self.namespace.clone(),
            self.name.clone(),
            self.service_type.clone(),
            addresses(&[FrontendKind::ClusterIp]),
            addresses(&[FrontendKind::LoadBalancer, FrontendKind::ExternalIp]),
            joined(self.ports.iter().map(port)),
            joined(self.ports.iter().map(|port| format!("{}/{}", port.endpoints.ready, port.endpoints.total))),
            joined(self.ports.iter().filter_map(|port| Some(format!("{}s", port.affinity_seconds?)))),
            sum(|port| port.new_flows),
            sum(|port| port.forward.packets),
            sum(|port| port.forward.bytes),
            sum(|port| port.reverse.packets),
            sum(|port| port.reverse.bytes),
            self.refused.clone().unwrap_or_default(),
        ]]
    }
}

/// `80:30080/TCP`; the families of a port look the same.
fn port(port: &ServicePort) -> String {
    let is_node_port = |frontend: &&Frontend| frontend.kind == FrontendKind::NodePort;
    match port.frontends.iter().find(is_node_port) {
        Some(frontend) => format!("{}:{}/{}", port.port, frontend.port, port.protocol),
        None => format!("{}/{}", port.port, port.protocol),
    }
}
