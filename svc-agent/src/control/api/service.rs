//! `/v1/services` and `/v1/endpoints`: Services as resolved on this node.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{Family, Protocol, Traffic};

/// A Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Service {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// `spec.type`.
    #[serde(rename = "type")]
    pub service_type: String,
    /// Its ports, one element per port and family.
    pub ports: Vec<ServicePort>,
    /// Why it is not programmed as asked; absent if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// One port of a Service in one family.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServicePort {
    /// `spec.ports[].name`; empty if it has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// `spec.ports[].port`.
    pub port: u16,
    /// The protocol.
    pub protocol: Protocol,
    /// The family.
    pub family: Family,
    /// What clients dial.
    pub frontends: Vec<Frontend>,
    /// How many endpoints there are.
    pub endpoints: EndpointCounts,
    /// Session affinity in seconds; absent if none is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity_seconds: Option<u32>,
    /// From clients.
    pub forward: Traffic,
    /// From backends.
    pub reverse: Traffic,
    /// Connections recorded.
    pub new_flows: u64,
}

/// What clients dial.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Frontend {
    /// The VIP.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
    /// The kind of address.
    pub kind: FrontendKind,
    /// Clients outside the node are served by endpoints of this node alone.
    pub external_local: bool,
    /// Clients on the node are served by endpoints of this node alone.
    pub internal_local: bool,
}

/// The kind of a VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum FrontendKind {
    /// `spec.clusterIPs`.
    #[serde(rename = "ClusterIP")]
    ClusterIp,
    /// A node's address with `spec.ports[].nodePort`.
    NodePort,
    /// `status.loadBalancer.ingress[].ip`.
    LoadBalancer,
    /// `spec.externalIPs`.
    #[serde(rename = "ExternalIP")]
    ExternalIp,
}

impl fmt::Display for FrontendKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::ClusterIp => "ClusterIP",
            Self::NodePort => "NodePort",
            Self::LoadBalancer => "LoadBalancer",
            Self::ExternalIp => "ExternalIP",
        })
    }
}

/// How many endpoints a port has, by state; one endpoint may count in several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointCounts {
    /// All.
    pub total: u32,
    /// Ready for new connections.
    pub ready: u32,
    /// Going away.
    pub terminating: u32,
    /// On this node.
    pub local: u32,
}

/// The endpoints of a Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceEndpoints {
    /// The Service's namespace.
    pub namespace: String,
    /// The Service's name.
    pub name: String,
    /// Its endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// One endpoint of one port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// Its address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// The protocol.
    pub protocol: Protocol,
    /// `spec.ports[].name` of the Service's port; empty if it has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub port_name: String,
    /// `spec.ports[].port`.
    pub service_port: u16,
    /// Ready for new connections.
    pub ready: bool,
    /// Serves, ready or not.
    pub serving: bool,
    /// Going away.
    pub terminating: bool,
    /// On this node.
    pub local: bool,
    /// The node it runs on, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    /// Its object, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}
