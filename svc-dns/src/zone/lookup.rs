//! What a name below the cluster domain stands for.

use std::net::{IpAddr, Ipv6Addr};

use hickory_proto::rr::Name;

use super::{Entry, Kind, Zone};

/// What there is at a name.
#[derive(Clone, Copy, Debug)]
pub enum Node<'a> {
    /// The cluster domain itself.
    Apex,
    /// Nothing, but there are names below it (RFC 8020).
    Empty,
    /// `dns-version`.
    Version,
    /// `ns.dns`: this server.
    Server,
    /// A Service.
    Service(&'a Entry),
    /// A port of a Service: `_http._tcp`.
    Port {
        /// The Service.
        entry: &'a Entry,
        /// The port's name.
        port: &'a str,
        /// The protocol.
        protocol: &'a str,
    },
    /// An endpoint of a headless Service; several addresses may share its label.
    Endpoint {
        /// The Service.
        entry: &'a Entry,
        /// The endpoint's label.
        label: &'a str,
    },
    /// The address that a pod's name spells.
    Pod(IpAddr),
    /// No such name.
    Missing,
}

impl Zone {
    /// The labels of `name` below the cluster domain, in lower case, last one first; `None` if it is not below it.
    pub fn labels_below(&self, name: &Name) -> Option<Vec<String>> {
        let domain = &self.settings().domain;
        if !domain.zone_of(name) {
            return None;
        }
        let own = name.iter().count().checked_sub(domain.iter().count())?;
        let labels: Vec<String> =
            name.iter().take(own).map(|label| String::from_utf8_lossy(label).to_ascii_lowercase()).collect();
        Some(labels.into_iter().rev().collect())
    }

    /// What those labels stand for.
    pub fn find<'a>(&'a self, labels: &'a [String]) -> Node<'a> {
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        match *labels.as_slice() {
            [] => Node::Apex,
            ["dns-version"] => Node::Version,
            ["dns"] | ["svc"] => Node::Empty,
            ["dns", "ns"] => Node::Server,
            ["svc", namespace] => {
                if self.services.contains_key(namespace) {
                    Node::Empty
                } else {
                    Node::Missing
                }
            }
            ["svc", namespace, service, ref below @ ..] => {
                let entry = self.services.get(namespace).and_then(|services| services.get(service));
                entry.map_or(Node::Missing, |entry| below_service(entry, below))
            }
            ["pod"] | ["pod", _] => {
                if self.settings().pod_names {
                    Node::Empty
                } else {
                    Node::Missing
                }
            }
            ["pod", _, address] => {
                let spelt = spelt(address).filter(|_| self.settings().pod_names);
                spelt.map_or(Node::Missing, Node::Pod)
            }
            _ => Node::Missing,
        }
    }
}

fn below_service<'a>(entry: &'a Entry, below: &[&'a str]) -> Node<'a> {
    // The specification wants NXDOMAIN for a headless Service without ready endpoints.
    if matches!(&entry.kind, Kind::Endpoints(endpoints) if endpoints.is_empty()) {
        return Node::Missing;
    }
    match *below {
        [] => Node::Service(entry),
        [label] => match label.strip_prefix('_') {
            Some(protocol) if entry.has_protocol(protocol) => Node::Empty,
            _ if has_endpoint(entry, label) => Node::Endpoint { entry, label },
            _ => Node::Missing,
        },
        [protocol, port] => match (protocol.strip_prefix('_'), port.strip_prefix('_')) {
            (Some(protocol), Some(port)) if entry.has_port(port, protocol) => Node::Port { entry, port, protocol },
            _ => Node::Missing,
        },
        _ => Node::Missing,
    }
}

fn has_endpoint(entry: &Entry, label: &str) -> bool {
    matches!(&entry.kind, Kind::Endpoints(endpoints) if endpoints.iter().any(|endpoint| endpoint.label == label))
}

/// The address that `10-0-0-1` or `fd00--1` spells.
fn spelt(label: &str) -> Option<IpAddr> {
    if !label.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-') {
        return None;
    }
    label.replace('-', ".").parse().ok().or_else(|| Some(IpAddr::V6(label.replace('-', ":").parse::<Ipv6Addr>().ok()?)))
}
