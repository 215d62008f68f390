//! The query parameters: which elements a client wants to see.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Flow, Protocol};

/// Which Services, endpoints or backends. Absent means any.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ObjectFilter {
    /// The Service's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The Service's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// At most so many elements.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

impl ObjectFilter {
    /// Whether it wants what belongs to this Service.
    pub fn matches(&self, namespace: &str, service: &str) -> bool {
        self.namespace.as_deref().is_none_or(|wanted| wanted == namespace)
            && self.service.as_deref().is_none_or(|wanted| wanted == service)
    }
}

/// Which connections. Absent means any.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FlowFilter {
    /// The Service's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The Service's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<AddressMatch>,
    /// What was dialled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vip: Option<AddressMatch>,
    /// Who answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<AddressMatch>,
    /// The protocol.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "any_case")]
    pub protocol: Option<Protocol>,
    /// At most so many elements.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

impl FlowFilter {
    /// Whether it wants this connection.
    pub fn matches(&self, flow: &Flow) -> bool {
        let named = self.namespace.is_none() && self.service.is_none()
            || flow.service.as_ref().is_some_and(|service| {
                self.namespace.as_ref().is_none_or(|wanted| *wanted == service.namespace)
                    && self.service.as_ref().is_none_or(|wanted| *wanted == service.name)
            });
        named
            && self.protocol.is_none_or(|wanted| wanted == flow.protocol)
            && self.client.is_none_or(|wanted| wanted.contains(flow.client))
            && self.vip.is_none_or(|wanted| wanted.contains(flow.vip))
            && self.backend.is_none_or(|wanted| wanted.contains(flow.backend))
    }
}

fn any_case<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Protocol>, D::Error> {
    String::deserialize(deserializer)?.parse().map(Some).map_err(serde::de::Error::custom)
}

/// An address, a network, or an address and a port: `10.0.0.1`, `10.0.0.0/8`, `10.0.0.1:80`, `[fd00::1]:80`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AddressMatch {
    net: IpNet,
    port: Option<u16>,
}

impl AddressMatch {
    /// Whether the address lies in the network and has the port, if one is wanted.
    pub fn contains(self, addr: SocketAddr) -> bool {
        self.net.contains(&addr.ip()) && self.port.is_none_or(|wanted| wanted == addr.port())
    }
}

impl FromStr for AddressMatch {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(addr) = text.parse::<SocketAddr>() {
            return Ok(Self { net: addr.ip().into(), port: Some(addr.port()) });
        }
        if let Ok(addr) = text.parse::<IpAddr>() {
            return Ok(Self { net: addr.into(), port: None });
        }
        let net = text.parse::<IpNet>().map_err(|_| {
            format!("found `{text}`, expected an address, a network (10.0.0.0/8) or an address and port")
        })?;
        Ok(Self { net, port: None })
    }
}

impl fmt::Display for AddressMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => SocketAddr::new(self.net.addr(), port).fmt(f),
            None => self.net.fmt(f),
        }
    }
}

impl Serialize for AddressMatch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for AddressMatch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_matched_alone_by_network_or_with_its_port() {
        let check = |pattern: &str, addr: &str, wanted: bool| {
            let pattern: AddressMatch = pattern.parse().unwrap();
            assert_eq!(pattern.contains(addr.parse().unwrap()), wanted, "{pattern} against {addr}");
            assert_eq!(pattern.to_string().parse(), Ok(pattern));
        };
        check("10.0.0.1", "10.0.0.1:80", true);
        check("10.0.0.1", "10.0.0.2:80", false);
        check("10.0.0.0/8", "10.9.9.9:1", true);
        check("10.0.0.0/8", "11.0.0.1:1", false);
        check("10.0.0.1:80", "10.0.0.1:80", true);
        check("10.0.0.1:80", "10.0.0.1:81", false);
        check("fd00::1", "[fd00::1]:80", true);
        check("fd00::/16", "[fd01::1]:80", false);
        check("[fd00::1]:80", "[fd00::1]:80", true);
        check("0.0.0.0/0", "[::1]:80", false);
    }

    #[test]
    fn nonsense_is_answered_with_what_was_expected() {
        for text in ["", "web", "10.0.0", "10.0.0.1:http", "10.0.0.0/33"] {
            let error = text.parse::<AddressMatch>().unwrap_err();
            assert!(error.contains(&format!("`{text}`")) && error.contains("expected an address"), "{error}");
        }
    }
}
