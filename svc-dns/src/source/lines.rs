//! What the agent tells, as far as it is needed here: see `/v1/names` in docs/control-socket.md.

use std::net::IpAddr;

use serde::Deserialize;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Line {
    /// A Service that is there, or is different.
    Service(Service),
    /// A Service that is gone.
    Removed(Key),
    /// Everything up to here belongs together.
    Synced(Synced),
}

/// A Service by name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
pub struct Key {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// The end of a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Synced {
    /// False while a Service that is missing may be there all the same.
    pub complete: bool,
}

/// A Service.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Service {
    /// Its name.
    #[serde(flatten)]
    pub key: Key,
    /// Its addresses.
    #[serde(default)]
    pub cluster_ips: Vec<IpAddr>,
    /// Its endpoints are its addresses.
    #[serde(default)]
    pub headless: bool,
    /// Another name for it; empty if it has none.
    #[serde(default)]
    pub external_name: String,
    /// Its ports.
    #[serde(default)]
    pub ports: Vec<Port>,
    /// Its ready endpoints, if it is headless.
    #[serde(default)]
    pub endpoints: Vec<Endpoint>,
}

/// A port.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Port {
    /// Its name; empty if it has none.
    #[serde(default)]
    pub name: String,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// The port.
    pub port: u16,
}

/// An endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Endpoint {
    /// Its address.
    pub address: IpAddr,
    /// Its name below the Service's, if it has one of its own.
    #[serde(default)]
    pub hostname: Option<String>,
    /// Its ports.
    #[serde(default)]
    pub ports: Vec<Port>,
}
