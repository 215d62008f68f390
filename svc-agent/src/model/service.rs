//! A validated Service.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use k8s_openapi::jiff::Timestamp;

use super::{AddressFamily, HealthCheck, ServiceName};

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// The protocol of a manifest's `protocol`.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "TCP" => Some(Self::Tcp),
            "UDP" => Some(Self::Udp),
            "SCTP" => Some(Self::Sctp),
            _ => None,
        }
    }

    /// The IANA protocol number.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}

/// `spec.type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ServiceType {
    /// Reached by its ClusterIPs.
    ClusterIp,
    /// Also by a port of every node.
    NodePort,
    /// Also by addresses of a load balancer.
    LoadBalancer,
    /// A DNS alias: nothing for a load balancer to do.
    ExternalName,
}

impl ServiceType {
    /// As in a manifest.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClusterIp => "ClusterIP",
            Self::NodePort => "NodePort",
            Self::LoadBalancer => "LoadBalancer",
            Self::ExternalName => "ExternalName",
        }
    }
}

impl fmt::Display for ServiceType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a Service programs nothing although it is valid (B76).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Skipped {
    /// `type: ExternalName`.
    ExternalName,
    /// `clusterIP: None`.
    Headless,
    /// The label `service.kubernetes.io/headless`.
    HeadlessLabel,
    /// The label `service.kubernetes.io/service-proxy-name`: another proxy serves it.
    OtherProxy,
}

/// Where a port of a Service leads to in a Pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetPort {
    /// The same in every Pod.
    Number(u16),
    /// The port of that name among those of the Pod's containers.
    Name(String),
}

/// `spec.ipFamilyPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FamilyPolicy {
    /// One family.
    SingleStack,
    /// Both, where there are both.
    PreferDualStack,
    /// Both.
    RequireDualStack,
}

/// `spec.trafficDistribution`: which endpoints are nearest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrafficDistribution {
    /// Those of the client's zone; `PreferClose` is the older word for it.
    PreferSameZone,
    /// Those of the client's node, or else of its zone.
    PreferSameNode,
}

/// One element of `spec.ports`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Its name, empty if it has none: endpoints are matched by it (B74).
    pub name: String,
    /// The port that clients dial.
    pub port: u16,
    /// The protocol, TCP unless given.
    pub protocol: Protocol,
    /// The port of every node, if given.
    pub node_port: Option<u16>,
    /// Where it leads to; the same number unless given.
    pub target: TargetPort,
}

/// One element of `status.loadBalancer.ingress` that has an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ingress {
    /// The address.
    pub ip: IpAddr,
    /// `ipMode: Proxy`: the balancer terminates connections, so nodes leave the address alone (B58).
    pub proxy: bool,
}

/// How packets of clients outside reach backends on other nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForwardingMode {
    /// With an address of this node as their source; the answers come back here.
    #[default]
    Snat,
    /// As they are, inside of others; the backend's node answers the client itself (direct server return).
    Dsr,
}

impl FromStr for ForwardingMode {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "snat" => Ok(Self::Snat),
            "dsr" => Ok(Self::Dsr),
            _ => Err("snat or dsr"),
        }
    }
}

/// What carries packets to the nodes of their backends (direct server return).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DsrEncapsulation {
    /// A header of IP.
    #[default]
    Ipip,
    /// Geneve, for networks that let nothing but UDP pass, or that spread packets by their ports.
    Geneve,
}

impl FromStr for DsrEncapsulation {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "ipip" => Ok(Self::Ipip),
            "geneve" => Ok(Self::Geneve),
            _ => Err("ipip or geneve"),
        }
    }
}

/// A valid Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Namespace and name.
    pub name: ServiceName,
    /// Where it was read, for messages: file and document.
    pub origin: String,
    /// `metadata.creationTimestamp`, if known: decides who owns an address that two claim.
    pub created: Option<Timestamp>,
    /// `spec.type`.
    pub service_type: ServiceType,
    /// Why nothing is programmed for it, if so.
    pub skipped: Option<Skipped>,
    /// Which Pods are its endpoints; empty if somebody else says so.
    pub selector: BTreeMap<String, String>,
    /// `spec.publishNotReadyAddresses`: every endpoint counts as ready.
    pub publish_not_ready: bool,
    /// `spec.ipFamilies`; empty if it does not say.
    pub families: Vec<AddressFamily>,
    /// `spec.ipFamilyPolicy`; `None` if it does not say.
    pub family_policy: Option<FamilyPolicy>,
    /// At most one address per family; empty where no API server assigned one.
    pub cluster_ips: Vec<IpAddr>,
    /// `spec.externalIPs`.
    pub external_ips: Vec<IpAddr>,
    /// Addresses of the load balancer; empty unless the type is LoadBalancer.
    pub ingress: Vec<Ingress>,
    /// `spec.loadBalancerIP`: the address that it wishes for.
    pub load_balancer_ip: Option<IpAddr>,
    /// `spec.loadBalancerClass`: who is to give it an address, if not the default.
    pub load_balancer_class: Option<String>,
    /// `spec.allocateLoadBalancerNodePorts`.
    pub allocate_node_ports: bool,
    /// `spec.healthCheckNodePort`: where load balancers ask whether this node has endpoints, if given.
    pub health_check_node_port: Option<u16>,
    /// `spec.externalName`; empty unless the type is ExternalName.
    pub external_name: String,
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// `externalTrafficPolicy: Local`.
    pub external_local: bool,
    /// `internalTrafficPolicy: Local`.
    pub internal_local: bool,
    /// `spec.trafficDistribution`, if it says.
    pub distribution: Option<TrafficDistribution>,
    /// `loadBalancerSourceRanges`: empty allows all. Never empty because entries were invalid.
    pub source_ranges: Vec<IpNet>,
    /// Session affinity by client address, in seconds.
    pub affinity_s: Option<u32>,
    /// How packets of clients outside reach other nodes; `None` if the Service does not say.
    pub forwarding_mode: Option<ForwardingMode>,
    /// How its endpoints are checked, if it asks for that.
    pub health_check: Option<HealthCheck>,
}
