//! Small clusters of network namespaces: clients, nodes and pods, in both families.
//!
//! ```text
//!   client-0    client-1             192.168.50.101, .102     fd00:50::101, ::102
//!       \         /
//!        \       /   one segment     192.168.50.0/24          fd00:50::/64
//!         [fabric]   (a bridge)
//!        /       \
//!    node-0     node-1   uplink eth0 192.168.50.1, .2         fd00:50::1, ::2
//!    |    |     |    |
//!  pods 0-0 0-1 1-0 1-1  eth0        10.244.<node>.<10+n>     fd00:244:<node>::<10+n>
//! ```
//!
//! A node is the gateway to its pods: a pod's veth ends at the node as `veth<n>`. Clients reach the addresses of
//! [`LB_V4`] and [`LB_V6`] through node 0. Worlds have namespaces of their own, so tests with the same addresses run side
//! by side.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context, Result};

use crate::netns::Netns;
use crate::scratch;

/// ClusterIPs: `10.96.0.<n>`.
pub const CLUSTER_V4: &str = "10.96.0.0/16";
/// The same for IPv6: `fd00:96::<n>`.
pub const CLUSTER_V6: &str = "fd00:96::/112";
/// Load balancer addresses, which the network routes to node 0.
pub const LB_V4: &str = "192.168.60.0/24";
/// The same for IPv6.
pub const LB_V6: &str = "fd00:60::/64";

/// How a world looks.
#[derive(Clone, Debug)]
pub struct Shape {
    /// What the names of its namespaces begin with; a fresh one by default.
    pub name: Option<String>,
    /// Clients outside.
    pub clients: usize,
    /// Nodes.
    pub nodes: usize,
    /// Pods of each node.
    pub pods_per_node: usize,
    /// How pods are attached to their node.
    pub pod_network: PodNetwork,
    /// Whether devices leave checksums and segmentation to "hardware". XDP on veth cannot work with what they leave (B05).
    pub offloads: bool,
}

/// How pods are attached to their node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodNetwork {
    /// Each by its veth, which the node routes to.
    Routed,
    /// By a bridge `cni0` that has the node's address.
    Bridge,
    /// Each by its veth, which has no address of the node: the pod's gateway is link-local.
    Unnumbered,
}

impl Default for Shape {
    fn default() -> Self {
        Self { name: None, clients: 1, nodes: 2, pods_per_node: 2, pod_network: PodNetwork::Routed, offloads: true }
    }
}

/// A machine or a pod.
#[derive(Debug)]
pub struct Host {
    /// Short name, e.g. `node-0`, `pod-1-0`.
    pub name: String,
    /// Its namespace.
    pub ns: Netns,
    /// Its first IPv4 address.
    pub v4: Ipv4Addr,
    /// Its first IPv6 address.
    pub v6: Ipv6Addr,
}

impl Host {
    /// Its addresses, for what is to be tried in both families.
    pub fn addresses(&self) -> [IpAddr; 2] {
        [self.v4.into(), self.v6.into()]
    }

    /// Its sockets' addresses at a port, in both families.
    pub fn at(&self, port: u16) -> [SocketAddr; 2] {
        self.addresses().map(|addr| SocketAddr::new(addr, port))
    }
}

/// A pod and the index of its node.
#[derive(Debug)]
pub struct Pod {
    /// The pod itself.
    pub host: Host,
    /// Index into [`World::nodes`].
    pub node: usize,
    /// The name of its device on the node, `veth<n>`.
    pub device: String,
}

/// A running world; it ends when dropped.
#[derive(Debug)]
pub struct World {
    /// What the names of its namespaces begin with.
    pub name: String,
    /// Outside.
    pub clients: Vec<Host>,
    /// Nodes; the first is the one that the agent of most tests runs on.
    pub nodes: Vec<Host>,
    /// Pods, those of node 0 first.
    pub pods: Vec<Pod>,
    /// The segment between clients and nodes.
    pub fabric: Netns,
    shape: Shape,
}

impl World {
    /// Makes a world of this shape.
    ///
    /// # Errors
    /// If the kernel or `ip` refuses something; what was made by then is removed.
    pub fn build(shape: Shape) -> Result<Self> {
        let name = shape.name.clone().unwrap_or_else(scratch::name);
        let fabric = Netns::create(&format!("{name}-fabric"))?;
        fabric.ip("link add br0 type bridge mcast_snooping 0\nlink set br0 up")?;
        let mut world = Self { name, clients: Vec::new(), nodes: Vec::new(), pods: Vec::new(), fabric, shape };
        for n in 0..world.shape.nodes {
            world.add_node(n).with_context(|| format!("node {n}"))?;
        }
        for n in 0..world.shape.clients {
            world.add_client(n).with_context(|| format!("client {n}"))?;
        }
        for node in 0..world.shape.nodes {
            for _ in 0..world.shape.pods_per_node {
                world.add_pod(node)?;
            }
        }
        Ok(world)
    }

    /// The first client.
    ///
    /// # Errors
    /// If the world has none.
    pub fn client(&self) -> Result<&Host> {
        self.clients.first().context("this world has no client")
    }

    /// A node.
    ///
    /// # Errors
    /// If the world has no such node.
    pub fn node(&self, index: usize) -> Result<&Host> {
        self.nodes.get(index).with_context(|| format!("this world has no node {index}"))
    }

    /// Pods of one node.
    pub fn pods_of(&self, node: usize) -> impl Iterator<Item = &Pod> {
        self.pods.iter().filter(move |pod| pod.node == node)
    }

    /// Adds a pod to a node, also later.
    ///
    /// # Errors
    /// If there is no such node or the kernel refuses.
    pub fn add_pod(&mut self, node: usize) -> Result<&Pod> {
        let number = self.pods_of(node).count();
        let (v4, v6) = (pod_v4(node, host_number(number)), pod_v6(node, host_number(number)));
        let (gw4, gw6) = (pod_v4(node, 1), pod_v6(node, 1));
        let host = self.make_host(&format!("pod-{node}-{number}"), v4, v6)?;
        let device = format!("veth{number}");
        let ns = host.ns.name();
        let owner = &self.node(node)?.ns;
        owner.ip(&format!("link add {device} type veth peer name eth0 netns {ns}"))?;
        self.set_offloads(&host.ns, "eth0")?;
        self.set_offloads(owner, &device)?;
        match self.shape.pod_network {
            PodNetwork::Routed => {
                owner.ip(&format!(
                    "addr add {gw4}/32 dev {device}\naddr add {gw6}/128 dev {device} nodad\nlink set {device} up\n\
                     route add {v4}/32 dev {device}\nroute add {v6}/128 dev {device}"
                ))?;
                host.ns.ip(&format!(
                    "addr add {v4}/32 dev eth0\naddr add {v6}/128 dev eth0 nodad\nlink set eth0 up\n\
                     route add {gw4}/32 dev eth0\nroute add {gw6}/128 dev eth0\n\
                     route add default via {gw4}\nroute add default via {gw6}"
                ))?;
            }
            PodNetwork::Unnumbered => {
                owner.ip(&format!(
                    "link set {device} address ee:ee:ee:ee:ee:ee up\nroute add {v4}/32 dev {device}\n\
                     route add {v6}/128 dev {device}"
                ))?;
                // Who answers for the gateway is no matter here.
                host.ns.ip(&format!(
                    "addr add {v4}/32 dev eth0\naddr add {v6}/128 dev eth0 nodad\nlink set eth0 up\n\
                     neigh add 169.254.1.1 lladdr ee:ee:ee:ee:ee:ee dev eth0 nud permanent\n\
                     neigh add fe80::1 lladdr ee:ee:ee:ee:ee:ee dev eth0 nud permanent\n\
                     route add 169.254.1.1/32 dev eth0\nroute add default via 169.254.1.1\n\
                     route add default via fe80::1 dev eth0"
                ))?;
            }
            PodNetwork::Bridge => {
                if number == 0 {
                    owner.ip(&format!(
                        "link add cni0 type bridge mcast_snooping 0\nlink set cni0 up\n\
                         addr add {gw4}/24 dev cni0\naddr add {gw6}/64 dev cni0 nodad"
                    ))?;
                }
                owner.ip(&format!("link set {device} master cni0 up"))?;
                host.ns.ip(&format!(
                    "addr add {v4}/24 dev eth0\naddr add {v6}/64 dev eth0 nodad\nlink set eth0 up\n\
                     route add default via {gw4}\nroute add default via {gw6}"
                ))?;
            }
        }
        self.pods.push(Pod { host, node, device });
        self.pods.last().context("the pod was just added")
    }

    /// Leaves the world in place when it is dropped.
    pub fn keep(&mut self) {
        self.fabric.keep();
        let hosts = self.clients.iter_mut().chain(&mut self.nodes).chain(self.pods.iter_mut().map(|pod| &mut pod.host));
        for host in hosts {
            host.ns.keep();
        }
    }

    fn add_node(&mut self, n: usize) -> Result<()> {
        let (v4, v6) = (underlay_v4(n + 1), underlay_v6(n + 1));
        let host = self.make_host(&format!("node-{n}"), v4, v6)?;
        for (key, value) in [
            ("net/ipv4/ip_forward", "1"),
            ("net/ipv6/conf/all/forwarding", "1"),
            // Distributions differ; a test that wants the strict filter sets it.
            ("net/ipv4/conf/all/rp_filter", "0"),
            ("net/ipv4/conf/default/rp_filter", "0"),
        ] {
            host.ns.sysctl(key, value)?;
        }
        self.plug(&host, &format!("node{n}"))?;
        let mut routes = String::new();
        for peer in (0..self.shape.nodes).filter(|&peer| peer != n) {
            let _ = writeln!(routes, "route add {}/24 via {}", pod_v4(peer, 0), underlay_v4(peer + 1));
            let _ = writeln!(routes, "route add {}/64 via {}", pod_v6(peer, 0), underlay_v6(peer + 1));
        }
        host.ns.ip(&routes)?;
        self.nodes.push(host);
        Ok(())
    }

    fn add_client(&mut self, n: usize) -> Result<()> {
        let host = self.make_host(&format!("client-{n}"), underlay_v4(n + 101), underlay_v6(n + 101))?;
        self.plug(&host, &format!("client{n}"))?;
        let mut routes =
            format!("route add {LB_V4} via {}\nroute add {LB_V6} via {}\n", underlay_v4(1), underlay_v6(1));
        for node in 0..self.shape.nodes {
            // To pods themselves: what does not go to a service must stay untouched.
            let _ = writeln!(routes, "route add {}/24 via {}", pod_v4(node, 0), underlay_v4(node + 1));
            let _ = writeln!(routes, "route add {}/64 via {}", pod_v6(node, 0), underlay_v6(node + 1));
        }
        host.ns.ip(&routes)?;
        self.clients.push(host);
        Ok(())
    }

    fn make_host(&self, name: &str, v4: Ipv4Addr, v6: Ipv6Addr) -> Result<Host> {
        Ok(Host { name: name.to_owned(), ns: Netns::create(&format!("{}-{name}", self.name))?, v4, v6 })
    }

    /// Connects a host's `eth0` with the segment and gives it its addresses.
    fn plug(&self, host: &Host, port: &str) -> Result<()> {
        let Host { ns, v4, v6, .. } = host;
        self.fabric.ip(&format!(
            "link add {port} type veth peer name eth0 netns {}\nlink set {port} master br0 up",
            ns.name()
        ))?;
        self.set_offloads(ns, "eth0")?;
        self.set_offloads(&self.fabric, port)?;
        ns.ip(&format!("addr add {v4}/24 dev eth0\naddr add {v6}/64 dev eth0 nodad\nlink set eth0 up"))
    }

    fn set_offloads(&self, ns: &Netns, device: &str) -> Result<()> {
        if self.shape.offloads {
            return Ok(());
        }
        // GRO makes the veth driver poll, without which it drops frames that XDP sends to it.
        ns.offload(device, &["tx", "off", "gro", "on"])
    }
}

/// Address of a machine on the segment.
fn underlay_v4(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 50, byte(number))
}

fn underlay_v6(number: usize) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0x50, 0, 0, 0, 0, 0, as_written(number))
}

fn pod_v4(node: usize, number: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 244, byte(node), byte(number))
}

fn pod_v6(node: usize, number: usize) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0x244, as_written(node), 0, 0, 0, 0, as_written(number))
}

fn host_number(pod: usize) -> usize {
    pod + 10
}

/// Worlds are small: a number that does not fit wraps, and the kernel refuses the duplicate address.
fn byte(number: usize) -> u8 {
    number.to_le_bytes()[0]
}

/// The group of an IPv6 address that reads like the decimal number.
fn as_written(number: usize) -> u16 {
    u16::from_str_radix(&number.to_string(), 16).unwrap_or(u16::MAX)
}
