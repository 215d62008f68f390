//! The topology, the same for every contender.
//!
//! ```text
//!  client ---- eth0 [node] veth0 ---- eth0 [asker]     10.244.0.10
//!  192.168.50.101    .50.1  \
//!                            veth1 ---- eth0 [server]  10.244.0.11, 10.244.0.12
//! ```
//!
//! The node routes to its pods as CNI plugins do: a host route for each veth. The server has two addresses, so that a
//! service has two endpoints. The uplink polls and aggregates, as the driver of a NIC does.

use std::net::Ipv4Addr;
use std::process::Command;

use anyhow::{Context, Result};

use super::load::{Client, Server};
use crate::cgroup::Cgroup;
use crate::netns::Netns;
use crate::scratch;
use crate::topology::Host;

/// The client outside.
const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 168, 50, 101);
/// The node, as clients outside know it.
pub const NODE: Ipv4Addr = Ipv4Addr::new(192, 168, 50, 1);
/// The pod that asks.
const ASKER: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 10);
/// The pod that serves: the endpoints of the service that is asked.
pub const SERVER: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 244, 0, 11), Ipv4Addr::new(10, 244, 0, 12)];
/// Of all pods.
pub const POD_CIDR: &str = "10.244.0.0/16";

/// Where a question comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum From {
    /// A pod of the node, which dials the ClusterIP.
    Pod,
    /// A machine outside, which dials the nodePort.
    Outside,
}

impl From {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Pod, Self::Outside];

    /// For titles.
    pub fn title(self) -> &'static str {
        match self {
            Self::Pod => "pod to ClusterIP",
            Self::Outside => "outside to NodePort",
        }
    }

    /// The source of its packets.
    pub fn address(self) -> Ipv4Addr {
        match self {
            Self::Pod => ASKER,
            Self::Outside => CLIENT,
        }
    }
}

/// Namespaces, the server and the clients; they go when dropped, the processes first.
#[derive(Debug)]
pub struct Stage {
    clients: [Client; 2],
    _server: Server,
    /// Of the clients and the server.
    pub cgroup: Cgroup,
    /// The machine outside.
    pub outside: Netns,
    /// The node.
    pub node: Host,
    asker: Netns,
    /// The pod that serves.
    pub pod: Netns,
}

impl Stage {
    /// Builds it. Without `offloads`, senders make the checksums and segments themselves: XDP on veth needs that.
    ///
    /// # Errors
    /// If the kernel or a tool refuses something; what was made by then is removed.
    pub fn build(offloads: bool, cpu: usize) -> Result<Self> {
        let name = scratch::name();
        let make = |role: &str| Netns::create(&format!("{name}-{role}"));
        let node = make("node")?;
        let (outside, asker, pod) = (make("client")?, make("asker")?, make("server")?);
        for (key, value) in [
            ("net/ipv4/ip_forward", "1"),
            ("net/ipv4/conf/all/rp_filter", "0"),
            ("net/ipv4/conf/default/rp_filter", "0"),
        ] {
            node.sysctl(key, value)?;
        }
        for ns in [&outside, &asker, &pod] {
            // Closed connections are forgotten at once: they are the load's business, not the contenders'.
            ns.sysctl("net/ipv4/tcp_max_tw_buckets", "0")?;
        }
        wire(&node, "eth0", &[NODE], &outside, &[CLIENT])?;
        wire(&node, "veth0", &[], &asker, &[ASKER])?;
        wire(&node, "veth1", &[], &pod, &SERVER)?;
        node.offload("eth0", &["gro", "on"])?;
        outside.ip(&format!("route add {POD_CIDR} via {NODE}"))?;
        if !offloads {
            for (ns, device) in [(&node, "eth0"), (&node, "veth0"), (&node, "veth1")] {
                ns.offload(device, &["tx", "off"])?;
            }
            for ns in [&outside, &asker, &pod] {
                ns.offload("eth0", &["tx", "off", "gro", "on"])?;
            }
        }
        let cgroup = Cgroup::create()?;
        let server = Server::start(&pod, &cgroup, cpu)?;
        let clients = [Client::start(&asker, &cgroup, cpu)?, Client::start(&outside, &cgroup, cpu)?];
        let node = Host { name: "node-0".to_owned(), ns: node, v4: NODE, v6: NODE.to_ipv6_mapped() };
        Ok(Self { clients, _server: server, cgroup, outside, node, asker, pod })
    }

    /// The client in a place.
    pub fn client(&mut self, from: From) -> &mut Client {
        let [asker, outside] = &mut self.clients;
        match from {
            From::Pod => asker,
            From::Outside => outside,
        }
    }

    /// The namespace of the device through which packets from there are sent to the node.
    pub fn sender(&self, from: From) -> &Netns {
        match from {
            From::Pod => &self.asker,
            From::Outside => &self.outside,
        }
    }

    /// CPU time that the clients and the server have used, the kernel's work for them included.
    ///
    /// # Errors
    /// If the kernel does not tell.
    pub fn cpu_us(&self) -> Result<u64> {
        let text = std::fs::read_to_string(self.cgroup.path().join("cpu.stat"))?;
        let value = text.lines().find_map(|line| line.strip_prefix("usage_usec "));
        value.context("cpu.stat has no usage_usec")?.parse().context("usage_usec")
    }
}

/// A veth from the node to a machine or pod, whose gateway the node is.
fn wire(node: &Netns, device: &str, own: &[Ipv4Addr], peer: &Netns, addresses: &[Ipv4Addr]) -> Result<()> {
    node.ip(&format!("link add {device} type veth peer name eth0 netns {}\nlink set {device} up", peer.name()))?;
    for address in addresses {
        let length = if own.is_empty() { 32 } else { 24 };
        peer.ip(&format!("addr add {address}/{length} dev eth0"))?;
    }
    peer.ip("link set eth0 up")?;
    // Neighbours stay known while the pod's device drops everything, their answers too.
    let mac = mac(peer, "eth0")?.map(|byte| format!("{byte:02x}")).join(":");
    for address in addresses {
        node.ip(&format!("neigh replace {address} lladdr {mac} dev {device} nud permanent"))?;
    }
    if own.is_empty() {
        for address in addresses {
            node.ip(&format!("route add {address}/32 dev {device}"))?;
        }
        node.ip(&format!("addr add 10.244.0.1/32 dev {device}"))?;
        return peer.ip("route add 10.244.0.1/32 dev eth0\nroute add default via 10.244.0.1");
    }
    for address in own {
        node.ip(&format!("addr add {address}/24 dev {device}"))?;
    }
    Ok(())
}

/// The Ethernet address of a device.
///
/// # Errors
/// If there is no such device.
pub fn mac(ns: &Netns, device: &str) -> Result<[u8; 6]> {
    let mut command = Command::new("ip");
    let output = ns.output(command.args(["-j", "link", "show", "dev", device]))?;
    let links: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let text = links[0]["address"].as_str().with_context(|| format!("{device} has no address"))?;
    let bytes: Vec<u8> = text.split(':').map(|byte| u8::from_str_radix(byte, 16)).collect::<Result<_, _>>()?;
    bytes.try_into().ok().with_context(|| format!("{device} has the address {text}"))
}
