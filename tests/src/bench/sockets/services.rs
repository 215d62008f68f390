//! The services of a contender: one that is asked, in the middle of many that are not.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use super::load::PORT;
use super::stage::{From, NODE, SERVER};

/// NodePorts that there can be.
const NODE_PORTS: usize = 2_000;
/// The first one.
const FIRST_NODE_PORT: u16 = 30_000;

/// One port of one service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Its number among all.
    pub number: usize,
    /// The ClusterIP.
    pub vip: Ipv4Addr,
    /// Whether it is UDP, not TCP.
    pub udp: bool,
    /// The nodePort, if it has one.
    pub node_port: Option<u16>,
    /// The addresses of its two endpoints, which listen on [`PORT`].
    pub endpoints: [Ipv4Addr; 2],
}

impl ServicePort {
    /// As rules spell it.
    pub fn protocol(&self) -> &'static str {
        if self.udp { "udp" } else { "tcp" }
    }

    /// The namespace, name and port of the service.
    pub fn name(&self) -> String {
        format!("default/svc-{}:{}", self.number, self.protocol())
    }
}

/// Port of every service.
pub const SERVICE_PORT: u16 = 80;

/// So many services, of which the one in the middle is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Services(pub usize);

impl Services {
    fn middle(self) -> usize {
        self.0 / 2
    }

    /// What a client dials; TCP and UDP have the same port.
    pub fn dialled(self, from: From) -> SocketAddr {
        let address = match from {
            From::Pod => SocketAddrV4::new(vip(self.middle()), SERVICE_PORT),
            From::Outside => SocketAddrV4::new(NODE, self.node_port(self.middle()).unwrap_or_default()),
        };
        address.into()
    }

    /// What it dials where nothing balances.
    pub fn pod() -> SocketAddr {
        SocketAddrV4::new(SERVER[0], PORT).into()
    }

    /// Every port; the service that is asked has both protocols, the others TCP.
    pub fn ports(self) -> impl Iterator<Item = ServicePort> {
        (0..self.0).flat_map(move |number| {
            let asked = number == self.middle();
            let endpoints = if asked { SERVER } else { elsewhere(number) };
            let port =
                ServicePort { number, vip: vip(number), udp: false, node_port: self.node_port(number), endpoints };
            [Some(port), asked.then_some(ServicePort { udp: true, ..port })].into_iter().flatten()
        })
    }

    /// Some have a nodePort, as many as there are numbers; the one that is asked lies in their middle.
    fn node_port(self, number: usize) -> Option<u16> {
        let first = self.middle().saturating_sub(NODE_PORTS / 2);
        let offset = number.checked_sub(first).filter(|offset| *offset < NODE_PORTS)?;
        Some(FIRST_NODE_PORT + u16::try_from(offset).ok()?)
    }

    /// Services and EndpointSlices as files of a directory of manifests: name and text.
    pub fn manifests(self) -> Vec<(String, String)> {
        let ports: Vec<_> = self.ports().collect();
        let files = ports.chunk_by(|a, b| a.number / 500 == b.number / 500).enumerate();
        files.map(|(index, ports)| (format!("services-{index:03}.yaml"), manifest(ports))).collect()
    }
}

fn manifest(ports: &[ServicePort]) -> String {
    let mut text = String::new();
    for service in ports.chunk_by(|a, b| a.number == b.number) {
        let [first, ..] = service else { continue };
        let number = first.number;
        let kind = if first.node_port.is_some() { "NodePort" } else { "ClusterIP" };
        let _ = write!(
            text,
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: svc-{number}, namespace: default}}\nspec:\n  \
             type: {kind}\n  clusterIP: {vip}\n  clusterIPs: [{vip}]\n  ipFamilies: [IPv4]\n  ports:\n",
            vip = first.vip
        );
        for port in service {
            let protocol = port.protocol();
            let node_port = port.node_port.map(|port| format!(", nodePort: {port}")).unwrap_or_default();
            let _ = writeln!(
                text,
                "    - {{name: {protocol}, protocol: {}, port: {SERVICE_PORT}, targetPort: {PORT}{node_port}}}",
                protocol.to_uppercase()
            );
        }
        let _ = write!(
            text,
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: svc-{number}-a\n  \
             namespace: default\n  labels: {{kubernetes.io/service-name: svc-{number}}}\naddressType: IPv4\nports:\n"
        );
        for port in service {
            let protocol = port.protocol();
            let _ = writeln!(text, "  - {{name: {protocol}, protocol: {}, port: {PORT}}}", protocol.to_uppercase());
        }
        let node = if first.endpoints == SERVER { "node-0" } else { "node-1" };
        text.push_str("endpoints:\n");
        for endpoint in first.endpoints {
            let _ =
                writeln!(text, "  - {{addresses: [\"{endpoint}\"], conditions: {{ready: true}}, nodeName: {node}}}");
        }
    }
    text
}

fn vip(number: usize) -> Ipv4Addr {
    nth(Ipv4Addr::new(10, 96, 1, 0), number)
}

/// Endpoints on another node, which nobody asks.
fn elsewhere(number: usize) -> [Ipv4Addr; 2] {
    [nth(Ipv4Addr::new(10, 244, 128, 0), 2 * number), nth(Ipv4Addr::new(10, 244, 128, 0), 2 * number + 1)]
}

fn nth(first: Ipv4Addr, number: usize) -> Ipv4Addr {
    Ipv4Addr::from_bits(first.to_bits() + u32::try_from(number).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use svc_agent::check;
    use svc_agent::model::Rules;

    use super::*;

    #[test]
    fn the_asked_service_has_both_protocols_a_node_port_and_the_real_server() {
        for count in [1, 100, 1_000, 10_000] {
            let services = Services(count);
            let ports: Vec<_> = services.ports().collect();
            assert_eq!(ports.len(), count + 1);
            let asked: Vec<_> = ports.iter().filter(|port| port.endpoints == SERVER).collect();
            assert_eq!(asked.iter().map(|port| port.udp).collect::<Vec<_>>(), [false, true]);
            let dialled = (services.dialled(From::Pod), services.dialled(From::Outside));
            let expected = (SocketAddr::from((asked[0].vip, 80)), (NODE, asked[0].node_port.unwrap()).into());
            assert_eq!(dialled, expected);
            let vips: BTreeSet<_> = ports.iter().map(|port| port.vip).collect();
            assert_eq!(vips.len(), count);
            let with_node_port = ports.iter().filter(|port| !port.udp && port.node_port.is_some()).count();
            assert_eq!(with_node_port, count.min(NODE_PORTS));
        }
    }

    #[test]
    fn the_manifests_are_valid() {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in Services(600).manifests() {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let mut out = Vec::new();
        check::run(&[dir.path().to_owned()], &Rules::default(), &mut std::io::empty(), &mut out).unwrap();
        let expected =
            "objects: Service 600, Endpoints 0, EndpointSlice 600, Pod 0, Node 0; 0 errors, 0 warnings, 0 notices";
        assert_eq!(String::from_utf8(out).unwrap().trim_end(), expected);
    }
}
