//! Services and their EndpointSlices as manifests, for a world of [`crate::topology`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::client::Transport;
use crate::server;
use crate::topology::Pod;

/// A Service of both families with its endpoints.
#[derive(Clone, Debug)]
pub struct Service {
    /// `metadata.name`; the namespace is always `default`.
    pub name: String,
    /// The number that its addresses end in, of its own among the Services of a world.
    pub number: u8,
    /// `spec.type`.
    pub kind: &'static str,
    /// `spec.ports`.
    pub ports: Vec<Port>,
    /// `spec.externalIPs`.
    pub external_ips: Vec<IpAddr>,
    /// `metadata.annotations`.
    pub annotations: Vec<(String, String)>,
    /// Further lines of the spec, e.g. `externalTrafficPolicy: Local`.
    pub spec: Vec<String>,
    /// Endpoints, the same for all ports.
    pub endpoints: Vec<Endpoint>,
}

/// A port of a Service.
#[derive(Clone, Debug)]
pub struct Port {
    /// Its name.
    pub name: &'static str,
    /// Its protocol.
    pub transport: Transport,
    /// What clients dial.
    pub port: u16,
    /// What pods listen on.
    pub target: u16,
    /// What clients dial at nodes, if the Service is of a type that has it.
    pub node_port: u16,
}

/// An endpoint of a Service.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// The pod's name.
    pub name: String,
    /// The node's name.
    pub node: String,
    /// Its IPv4 address.
    pub v4: Ipv4Addr,
    /// Its IPv6 address.
    pub v6: Ipv6Addr,
    /// `conditions.ready`.
    pub ready: bool,
    /// `conditions.serving`.
    pub serving: bool,
    /// `conditions.terminating`.
    pub terminating: bool,
}

impl From<&Pod> for Endpoint {
    fn from(pod: &Pod) -> Self {
        Self {
            name: pod.host.name.clone(),
            node: format!("node-{}", pod.node),
            v4: pod.host.v4,
            v6: pod.host.v6,
            ready: true,
            serving: true,
            terminating: false,
        }
    }
}

impl Service {
    /// A ClusterIP Service without ports and endpoints.
    pub fn new(name: &str, number: u8) -> Self {
        Self {
            name: name.to_owned(),
            number,
            kind: "ClusterIP",
            ports: Vec::new(),
            external_ips: Vec::new(),
            annotations: Vec::new(),
            spec: Vec::new(),
            endpoints: Vec::new(),
        }
    }

    /// Adds port 80 to the pods' HTTP servers, nodePort 30080.
    pub fn http(self) -> Self {
        self.port(Port { name: "http", transport: Transport::Tcp, port: 80, target: server::HTTP, node_port: 30_080 })
    }

    /// Adds port 7 of both protocols, nodePort 30007 of both.
    pub fn echo(self) -> Self {
        let port = |name, transport| Port { name, transport, port: 7, target: server::ECHO, node_port: 30_007 };
        self.port(port("tcp", Transport::Tcp)).port(port("udp", Transport::Udp))
    }

    /// Adds a port.
    pub fn port(mut self, port: Port) -> Self {
        self.ports.push(port);
        self
    }

    /// Makes it `type: NodePort`.
    pub fn node_port(mut self) -> Self {
        self.kind = "NodePort";
        self
    }

    /// Makes it `type: LoadBalancer`, with addresses that the network routes to node 0.
    pub fn load_balancer(mut self) -> Self {
        self.kind = "LoadBalancer";
        self
    }

    /// Adds an annotation.
    pub fn annotation(mut self, name: &str, value: &str) -> Self {
        self.annotations.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds a line to the spec.
    pub fn spec(mut self, line: &str) -> Self {
        self.spec.push(line.to_owned());
        self
    }

    /// Replaces its endpoints by ready ones in these pods.
    pub fn endpoints<'a>(mut self, pods: impl IntoIterator<Item = &'a Pod>) -> Self {
        self.endpoints = pods.into_iter().map(Endpoint::from).collect();
        self
    }

    /// Its ClusterIPs.
    pub fn cluster_ips(&self) -> [IpAddr; 2] {
        let number = self.number;
        [Ipv4Addr::new(10, 96, 0, number).into(), Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, number.into()).into()]
    }

    /// Its load balancer addresses.
    pub fn lb_ips(&self) -> [IpAddr; 2] {
        let number = self.number;
        [Ipv4Addr::new(192, 168, 60, number).into(), Ipv6Addr::new(0xfd00, 0x60, 0, 0, 0, 0, 0, number.into()).into()]
    }

    /// What clients dial inside, in both families.
    pub fn cluster(&self, port: u16) -> [SocketAddr; 2] {
        self.cluster_ips().map(|addr| SocketAddr::new(addr, port))
    }

    /// What clients dial outside, in both families.
    pub fn lb(&self, port: u16) -> [SocketAddr; 2] {
        self.lb_ips().map(|addr| SocketAddr::new(addr, port))
    }

    /// Addresses and ports of the endpoints that get new connections while any is ready.
    pub fn ready_backends(&self) -> BTreeSet<SocketAddr> {
        let ready = self.endpoints.iter().filter(|endpoint| endpoint.ready);
        let targets = |endpoint: &Endpoint| {
            let addrs: [IpAddr; 2] = [endpoint.v4.into(), endpoint.v6.into()];
            self.ports
                .iter()
                .flat_map(move |port| addrs.map(|addr| SocketAddr::new(addr, port.target)))
                .collect::<Vec<_>>()
        };
        ready.flat_map(targets).collect()
    }

    /// The Service and one slice for each family, as one manifest.
    pub fn yaml(&self) -> String {
        let [v4, v6] = self.cluster_ips();
        let mut text = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: default, annotations: {annotations}}}\nspec:\n  type: {kind}\n  \
             ipFamilyPolicy: RequireDualStack\n  ipFamilies: [IPv4, IPv6]\n  clusterIP: {v4}\n  \
             clusterIPs: [\"{v4}\", \"{v6}\"]\n",
            name = self.name,
            kind = self.kind,
            annotations = serde_json::json!(self.annotations.iter().cloned().collect::<BTreeMap<_, _>>()),
        );
        for line in &self.spec {
            let _ = writeln!(text, "  {line}");
        }
        if !self.external_ips.is_empty() {
            let _ = writeln!(
                text,
                "  externalIPs: {:?}",
                self.external_ips.iter().map(IpAddr::to_string).collect::<Vec<_>>()
            );
        }
        text.push_str("  ports:\n");
        for port in &self.ports {
            let node_port =
                if self.kind == "ClusterIP" { String::new() } else { format!(", nodePort: {}", port.node_port) };
            let _ = writeln!(
                text,
                "    - {{name: {}, protocol: {}, port: {}, targetPort: {}{node_port}}}",
                port.name,
                protocol(port.transport),
                port.port,
                port.target
            );
        }
        if self.kind == "LoadBalancer" {
            let [v4, v6] = self.lb_ips();
            let _ = writeln!(text, "status:\n  loadBalancer:\n    ingress: [{{ip: \"{v4}\"}}, {{ip: \"{v6}\"}}]");
        }
        text.push_str(&self.slice("IPv4", |endpoint| endpoint.v4.into()));
        text.push_str(&self.slice("IPv6", |endpoint| endpoint.v6.into()));
        text
    }

    fn slice(&self, family: &str, address: impl Fn(&Endpoint) -> IpAddr) -> String {
        let mut text = format!(
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: {name}-{slice}\n  namespace: default\n  \
             labels: {{kubernetes.io/service-name: {name}}}\naddressType: {family}\nports:\n",
            name = self.name,
            slice = family.to_ascii_lowercase(),
        );
        for port in &self.ports {
            let _ = writeln!(
                text,
                "  - {{name: {}, protocol: {}, port: {}}}",
                port.name,
                protocol(port.transport),
                port.target
            );
        }
        text.push_str(if self.endpoints.is_empty() { "endpoints: []\n" } else { "endpoints:\n" });
        for endpoint in &self.endpoints {
            let _ = writeln!(
                text,
                "  - addresses: [\"{}\"]\n    conditions: {{ready: {}, serving: {}, terminating: {}}}\n    nodeName: {}\n    \
                 targetRef: {{kind: Pod, name: {}, namespace: default}}",
                address(endpoint),
                endpoint.ready,
                endpoint.serving,
                endpoint.terminating,
                endpoint.node,
                endpoint.name
            );
        }
        text
    }
}

fn protocol(transport: Transport) -> &'static str {
    match transport {
        Transport::Tcp => "TCP",
        Transport::Udp => "UDP",
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use svc_agent::check;
    use svc_agent::model::Rules;

    use super::*;

    fn check(paths: &[PathBuf], expected: &str) {
        let mut out = Vec::new();
        check::run(paths, &Rules::default(), &mut std::io::empty(), &mut out).unwrap();
        let out = String::from_utf8(out).unwrap();
        assert_eq!(out.trim_end(), expected);
    }

    #[test]
    fn the_manifests_of_tests_and_examples_are_valid() {
        let endpoint = |ready| Endpoint {
            name: "pod".to_owned(),
            node: "node-0".to_owned(),
            v4: Ipv4Addr::new(10, 244, 0, 10),
            v6: Ipv6Addr::new(0xfd00, 0x244, 0, 0, 0, 0, 0, 0x10),
            ready,
            serving: true,
            terminating: !ready,
        };
        let dir = tempfile::tempdir().unwrap();
        let services = [
            Service::new("bare", 1).http(),
            Service::new("node-port", 2).echo().node_port().spec("externalTrafficPolicy: Local"),
            Service { endpoints: vec![endpoint(true)], ..Service::new("full", 3).http().echo().load_balancer() },
            Service {
                endpoints: vec![endpoint(false)],
                external_ips: vec![Ipv4Addr::new(192, 168, 60, 9).into()],
                ..Service::new("external", 4).http()
            },
        ];
        for (number, mut service) in services.into_iter().enumerate() {
            // One nodePort belongs to one Service.
            for port in &mut service.ports {
                port.node_port += u16::try_from(number).unwrap();
            }
            std::fs::write(dir.path().join(format!("{}.yaml", service.name)), service.yaml()).unwrap();
        }
        check(
            &[dir.path().to_owned()],
            "objects: Service 4, Endpoints 0, EndpointSlice 8, Pod 0, Node 0; 0 errors, 0 warnings, 0 notices",
        );
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
        check(
            &[examples.clone(), examples.join("web-4.yaml.later")],
            "objects: Service 2, Endpoints 0, EndpointSlice 8, Pod 0, Node 0; 0 errors, 0 warnings, 0 notices",
        );
    }
}
