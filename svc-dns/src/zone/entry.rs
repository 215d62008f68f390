//! A Service as the zone keeps it: labels in lower case, ready to be compared.

use std::net::IpAddr;
use std::str::FromStr as _;

use hickory_proto::rr::Name;

use crate::source::lines;

/// One Service.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Where its names lead.
    pub kind: Kind,
    /// The ports of the Service itself.
    pub ports: Vec<Port>,
}

/// Where the names of a Service lead.
#[derive(Clone, Debug)]
pub enum Kind {
    /// To its own addresses; none if nobody assigned any.
    Addresses(Vec<IpAddr>),
    /// To its ready endpoints.
    Endpoints(Vec<Endpoint>),
    /// To another name.
    Alias(Name),
}

/// A port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its name; empty if it has none, and then no name leads to it.
    pub name: String,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    /// The number.
    pub port: u16,
}

/// A ready endpoint.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Its label below the Service's name.
    pub label: String,
    /// Its address.
    pub address: IpAddr,
    /// Its ports.
    pub ports: Vec<Port>,
}

impl Entry {
    /// From what the agent told; `None` if it cannot be named.
    pub fn new(told: lines::Service) -> Option<Self> {
        let kind = if told.headless {
            Kind::Endpoints(told.endpoints.into_iter().map(Endpoint::new).collect())
        } else if told.external_name.is_empty() {
            Kind::Addresses(told.cluster_ips)
        } else {
            let mut target = Name::from_str(&told.external_name).ok()?;
            target.set_fqdn(true);
            Kind::Alias(target)
        };
        Some(Self { kind, ports: told.ports.into_iter().map(Port::new).collect() })
    }

    /// The Service has a named port of this protocol.
    pub fn has_protocol(&self, protocol: &str) -> bool {
        self.all_ports().any(|port| port.protocol == protocol && !port.name.is_empty())
    }

    /// The Service has a port of this name.
    pub fn has_port(&self, name: &str, protocol: &str) -> bool {
        self.all_ports().any(|port| port.is(name, protocol))
    }

    /// Those that names lead to: an alias has none, whatever it says.
    fn all_ports(&self) -> Box<dyn Iterator<Item = &Port> + '_> {
        match &self.kind {
            Kind::Addresses(_) => Box::new(self.ports.iter()),
            Kind::Endpoints(endpoints) => Box::new(endpoints.iter().flat_map(|endpoint| &endpoint.ports)),
            Kind::Alias(_) => Box::new(std::iter::empty()),
        }
    }
}

impl Port {
    fn new(told: lines::Port) -> Self {
        Self { name: told.name.to_ascii_lowercase(), protocol: told.protocol.to_ascii_lowercase(), port: told.port }
    }

    /// It has this name. One without a name never has.
    pub fn is(&self, name: &str, protocol: &str) -> bool {
        !self.name.is_empty() && self.name == name && self.protocol == protocol
    }
}

impl Endpoint {
    fn new(told: lines::Endpoint) -> Self {
        let hostname = told.hostname.filter(|name| is_label(name)).map(|name| name.to_ascii_lowercase());
        Self {
            label: hostname.unwrap_or_else(|| dashed(told.address)),
            address: told.address,
            ports: told.ports.into_iter().map(Port::new).collect(),
        }
    }
}

/// The name of an endpoint that has none: `10-0-0-1`, `fd00--1`.
pub fn dashed(address: IpAddr) -> String {
    address.to_string().replace(['.', ':'], "-")
}

/// Could be a label of a name, without anything that needs an escape.
pub fn is_label(text: &str) -> bool {
    (1..=63).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}
