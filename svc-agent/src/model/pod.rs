//! A validated Pod: what makes it an endpoint of Services, and no more.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::jiff::Timestamp;

use super::Protocol;

/// A port that a container lists; only its name matters to Services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerPort {
    /// Its name, empty if it has none.
    pub name: String,
    /// `containerPort`.
    pub port: u16,
    /// The protocol, TCP unless given.
    pub protocol: Protocol,
    /// The port of the node that leads to it, if given.
    pub host_port: Option<u16>,
}

/// A valid Pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid, empty if unknown.
    pub uid: String,
    /// Where it was read, for messages: file and document.
    pub origin: String,
    /// `metadata.creationTimestamp`, if known.
    pub created: Option<Timestamp>,
    /// What selectors match.
    pub labels: BTreeMap<String, String>,
    /// `spec.nodeName`.
    pub node: Option<String>,
    /// `spec.hostname`.
    pub hostname: Option<String>,
    /// `spec.subdomain`.
    pub subdomain: Option<String>,
    /// Shares the node's network namespace.
    pub host_network: bool,
    /// At most one address of each family, the primary one first; none as long as it has none.
    pub ips: Vec<IpAddr>,
    /// The condition `Ready`; `None` if nobody ever set it.
    pub ready: Option<bool>,
    /// `metadata.deletionTimestamp` is set: going away.
    pub terminating: bool,
    /// Its phase is `Succeeded` or `Failed`: no endpoint any more.
    pub finished: bool,
    /// The ports of its containers, then those of sidecars among its init containers.
    pub ports: Vec<ContainerPort>,
}
