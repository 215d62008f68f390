//! What is needed to answer for names: Services, with endpoints where those have names of their own.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::Protocol;

/// One line of `/v1/names`: the whole state first, then changes, for as long as the client stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum NamesLine {
    /// A Service that is there, or is different.
    Service(NamedService),
    /// A Service that is gone.
    Removed(NamedObject),
    /// Everything up to here belongs together. Also sent when nothing happens, every few seconds.
    Synced(NamesSynced),
}

/// A Service by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NamedObject {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// What was told is the state of the sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NamesSynced {
    /// False while something could not be read: a Service that is missing may be there all the same.
    pub complete: bool,
}

/// A Service, as far as names go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NamedService {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its addresses, at most one of each family; none if it is headless or an alias.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cluster_ips: Vec<IpAddr>,
    /// `clusterIP: None`: its endpoints are its addresses.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub headless: bool,
    /// `spec.externalName`: another name for it; empty if it has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub external_name: String,
    /// Its ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<NamedPort>,
    /// Those that are ready, or count as such; empty unless it is headless.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<NamedEndpoint>,
}

/// A port by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NamedPort {
    /// Its name; empty if it has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The protocol.
    pub protocol: Protocol,
    /// The port.
    pub port: u16,
}

/// A ready endpoint of a headless Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NamedEndpoint {
    /// Its address.
    pub address: IpAddr,
    /// Its name below the Service's, if it has one of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Its ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<NamedPort>,
}
