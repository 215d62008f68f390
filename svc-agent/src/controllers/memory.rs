//! What was given to whom.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::model::text::{dns_label, quote};
use crate::model::{ServiceName, address};

/// The version of the file.
const VERSION: u32 = 1;

/// What one Service was given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Allocation {
    /// ClusterIPs, at most one of each family.
    #[serde(rename = "clusterIPs", with = "texts", skip_serializing_if = "Vec::is_empty")]
    pub cluster_ips: Vec<IpAddr>,
    /// nodePorts by the port of the Service: its protocols share one.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub node_ports: BTreeMap<u16, u16>,
    /// The port where load balancers ask for its health.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_check_node_port: Option<u16>,
    /// Addresses of the load balancer, at most one of each family.
    #[serde(rename = "loadBalancerIPs", with = "texts", skip_serializing_if = "Vec::is_empty")]
    pub load_balancer_ips: Vec<IpAddr>,
}

/// What every Service was given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// By Service; none of them is empty.
    pub services: BTreeMap<ServiceName, Allocation>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    services: BTreeMap<String, Allocation>,
}

#[derive(Deserialize)]
struct Version {
    version: u32,
}

impl Memory {
    /// Reads the text of a file.
    ///
    /// # Errors
    /// What was found and expected, with the Service.
    pub fn parse(text: &str) -> Result<Self, String> {
        // The version first: what else a later one has is not to be judged here.
        let Version { version } = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if version != VERSION {
            return Err(format!("version: found {version}, expected {VERSION}"));
        }
        let file: File = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let mut services = BTreeMap::new();
        for (key, allocation) in file.services {
            let wrong = |text: String| format!("services[{}]: {text}", crate::model::text::escape(&key));
            let (namespace, name) =
                key.split_once('/').ok_or_else(|| wrong(format!("found {}, expected NAMESPACE/NAME", quote(&key))))?;
            dns_label(namespace).and_then(|()| dns_label(name)).map_err(wrong)?;
            let wrong = |text: String| format!("services[{key}]: {text}");
            for ips in [&allocation.cluster_ips, &allocation.load_balancer_ips] {
                if let Some(what) = ips.iter().find_map(|ip| address::special(*ip)) {
                    return Err(wrong(format!("found {what}, expected an address that every node can reach")));
                }
            }
            let ports = allocation.node_ports.iter().flat_map(|(port, node_port)| [port, node_port]);
            if ports.chain(&allocation.health_check_node_port).any(|port| *port == 0) {
                return Err(wrong("found the port 0, expected 1 to 65535".to_owned()));
            }
            services.insert(ServiceName::new(namespace, name), allocation);
        }
        Ok(Self { services })
    }

    /// The text of a file.
    pub fn to_text(&self) -> String {
        let services = self.services.iter().map(|(name, allocation)| (name.to_string(), allocation.clone())).collect();
        // Nothing in it can fail: there are no maps with keys that are not text.
        serde_json::to_string_pretty(&File { version: VERSION, services }).unwrap_or_default() + "\n"
    }
}

/// Addresses as texts that are read as strictly as everywhere else.
mod texts {
    use std::net::IpAddr;

    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::model::text::quote;

    pub fn serialize<S: Serializer>(ips: &[IpAddr], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(ips.iter().map(ToString::to_string))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpAddr>, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        let ip = |text: &String| {
            text.parse()
                .map_err(|_| D::Error::custom(format!("found {}, expected an IPv4 or IPv6 address", quote(text))))
        };
        texts.iter().map(ip).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let allocation = Allocation {
            cluster_ips: vec!["10.96.0.10".parse().unwrap(), "fd00::10".parse().unwrap()],
            node_ports: [(80, 31_000)].into(),
            health_check_node_port: Some(32_000),
            load_balancer_ips: vec!["192.0.2.1".parse().unwrap()],
        };
        let bare = Allocation { node_ports: [(53, 30_053)].into(), ..Allocation::default() };
        let services = [(ServiceName::new("default", "web"), allocation), (ServiceName::new("a", "dns"), bare)];
        let memory = Memory { services: services.into() };
        assert_eq!(Memory::parse(&memory.to_text()), Ok(memory));
    }

    #[test]
    fn a_file_of_others_is_refused_with_the_place() {
        for (text, expected) in [
            ("", "EOF"),
            ("{\"version\": 1}", "missing field `services`"),
            ("{\"version\": 2, \"services\": {}, \"more\": 1}", "version: found 2, expected 1"),
            ("{\"version\": 1, \"services\": {}, \"more\": 1}", "unknown field `more`"),
            ("{\"version\": 1, \"services\": {\"web\": {}}}", "expected NAMESPACE/NAME"),
            ("{\"version\": 1, \"services\": {\"a/../b\": {}}}", "services[a/../b]: found `../b`"),
            ("{\"version\": 1, \"services\": {\"a/b\": {\"clusterIPs\": [\"010.0.0.1\"]}}}", "found `010.0.0.1`"),
            ("{\"version\": 1, \"services\": {\"a/b\": {\"clusterIPs\": [\"127.0.0.1\"]}}}", "a loopback address"),
            ("{\"version\": 1, \"services\": {\"a/b\": {\"nodePorts\": {\"80\": 0}}}}", "the port 0"),
            ("{\"version\": 1, \"services\": {\"a/b\": {\"nodePorts\": {\"80\": 70000}}}}", "expected u16"),
            ("{\"version\": 1, \"services\": {\"a/b\": {\"nodePort\": 1}}}", "unknown field `nodePort`"),
        ] {
            let error = Memory::parse(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
