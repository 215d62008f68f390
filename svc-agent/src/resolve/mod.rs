//! Policy and topology: which frontends a Service has on this node, and which backends each may use. Pure.

mod backends;
mod choice;
mod claims;
mod inherited;
mod policy;
mod resolver;
mod service;

#[cfg(test)]
mod claims_tests;
#[cfg(test)]
pub(crate) mod fixtures;
#[cfg(test)]
mod kube_proxy_tests;
#[cfg(test)]
mod resolver_tests;
#[cfg(test)]
mod service_tests;

use std::net::IpAddr;
use std::sync::Arc;

use crate::model::ForwardingMode;
use ipnet::IpNet;

use crate::sorted::Sorted;

pub(crate) use self::backends::counted;
pub use self::claims::at;
pub use self::inherited::Inherited;
pub use self::policy::Policy;
pub use self::resolver::Resolver;
pub use crate::model::{AddressFamily, Problem, ServiceName, Severity};

/// What the datapath shall do.
#[derive(Clone, Debug, Default)]
pub struct Desired {
    /// The ports of every Service that has anything to program. An unchanged Service keeps its `Arc`.
    pub services: Sorted<ServiceName, Arc<Vec<ResolvedPort>>>,
    /// False while some input is unknown: nothing may be removed then.
    pub complete: bool,
    /// What is wrong or refused, the sources' problems first.
    pub problems: Vec<Problem>,
}

/// What of the node decides how Services resolve here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// The node's name, as in `nodeName` of endpoints.
    pub name: String,
    /// The node's topology zone, if known.
    pub zone: Option<String>,
    /// Every address of the node that answers nodePorts: no loopback, no link-local.
    pub addresses: Vec<IpAddr>,
    /// How packets of clients outside reach other nodes, unless a Service says otherwise.
    pub forwarding_mode: ForwardingMode,
}

/// Identity of what is programmed together: one port of one Service in one family.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortKey {
    /// Namespace of the Service.
    pub namespace: String,
    /// Name of the Service.
    pub name: String,
    /// `spec.ports[].name`, empty if it has none.
    pub port_name: String,
    /// `spec.ports[].port`.
    pub port: u16,
    /// IANA protocol number.
    pub protocol: u8,
    /// The family of its frontends and backends.
    pub family: AddressFamily,
}

/// What kind of address a frontend is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FrontendKind {
    /// `spec.clusterIPs`.
    ClusterIp,
    /// A node address with `spec.ports[].nodePort`.
    NodePort,
    /// `status.loadBalancer.ingress[].ip`.
    LoadBalancer,
    /// `spec.externalIPs`.
    ExternalIp,
}

/// One address and port that clients dial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Frontend {
    /// The VIP.
    pub addr: IpAddr,
    /// The port.
    pub port: u16,
    /// The kind of address.
    pub kind: FrontendKind,
    /// Whether packets from uplinks use the local set (`externalTrafficPolicy: Local`, or for a ClusterIP
    /// `internalTrafficPolicy: Local`); the cluster set otherwise.
    pub external_local: bool,
    /// Whether packets from pods and from the node use the local set; the cluster set otherwise.
    pub internal_local: bool,
}

/// One endpoint that a service port may use.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Backend {
    /// Address of the endpoint.
    pub addr: IpAddr,
    /// Port of the endpoint.
    pub port: u16,
    /// Ready for new connections.
    pub ready: bool,
    /// Serves, ready or not.
    pub serving: bool,
    /// Going away.
    pub terminating: bool,
    /// On this node.
    pub local: bool,
    /// Name of the node it runs on, if known.
    pub node: Option<String>,
    /// Name of its object (`targetRef`), if known.
    pub target: Option<String>,
}

/// The backends that new connections may use, or what to do without one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Indices into [`ResolvedPort::backends`]; never empty.
    Backends(Vec<usize>),
    /// There is no endpoint anywhere (B64).
    Reject,
    /// There are endpoints, but none here, and the policy is Local (B55).
    Drop,
}

/// One service port in one family, with all that the map image needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedPort {
    /// Identity.
    pub key: PortKey,
    /// `spec.type`, for display: `ClusterIP`, `NodePort`, `LoadBalancer`.
    pub service_type: String,
    /// What clients dial; sorted, without duplicates.
    pub frontends: Vec<Frontend>,
    /// Every endpoint that may have or get connections, terminating ones included; sorted by address and port.
    pub backends: Vec<Backend>,
    /// The cluster set (B54).
    pub cluster: Choice,
    /// The local set (B54); equal to `cluster` unless some frontend uses it.
    pub local: Choice,
    /// Session affinity in seconds, if the Service asks for it.
    pub affinity_s: Option<u32>,
    /// Whom the load balancer's addresses serve, of its family; empty means everybody.
    pub source_ranges: Vec<IpNet>,
    /// Clients outside are answered by the backend's node itself, where their addresses are known there.
    pub dsr: bool,
}
