//! Which addresses Services may answer on here: policy, and who owns what two claim.
//!
//! CVE-2020-8554 and GHSA-q6h5-q3q6-f87x: whoever may write a Service must not take another's traffic, nor the node's.
//! So an address that is a node's is refused, ExternalIPs are off unless allowed, and the first owner of an address
//! keeps it: one that owned it before, else the older Service, else the first by name. What was refused owns nothing,
//! so deleting it changes nothing.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::{AddressFamily, Frontend, FrontendKind, Inherited, Node, Policy};
use crate::model::{EndpointSlice, Problem, Protocol, Service, ServiceName, ServiceType, address};
use crate::sorted::Sorted;

/// A frontend that a Service may answer on, and the port of the Service it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    /// Index into [`Service::ports`].
    pub port: usize,
    /// What clients dial.
    pub frontend: Frontend,
}

/// The outcome for all Services.
#[derive(Debug, Default)]
pub struct Grants {
    /// What each Service may answer on; a Service without an entry gets nothing.
    pub services: BTreeMap<ServiceName, Vec<Granted>>,
    /// What was refused, and what to know.
    pub problems: Vec<Problem>,
    owners: HashMap<Key, ServiceName>,
}

impl Grants {
    /// The Services that were granted something else before.
    pub fn changed(&self, before: &Self) -> Vec<ServiceName> {
        let differs = |name: &&ServiceName| self.services.get(*name) != before.services.get(*name);
        self.services.keys().chain(before.services.keys()).filter(differs).cloned().collect()
    }
}

/// What can have one owner only. A nodePort is claimed on all addresses of the node at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Key {
    Address(IpAddr, u16, Protocol),
    NodePort(u16, Protocol),
}

/// One claim of a Service.
struct Claim {
    port: usize,
    kind: FrontendKind,
    key: Key,
}

/// The decision of an earlier agent, as far as it can be told from what it left.
pub fn inherit<'a>(
    services: impl IntoIterator<Item = &'a Arc<Service>>,
    slices: &Sorted<ServiceName, Vec<Arc<EndpointSlice>>>,
    policy: &Policy,
    node: &Node,
    inherited: &Inherited,
) -> Grants {
    let own: HashSet<IpAddr> = node.addresses.iter().copied().collect();
    let mut claimants: BTreeMap<Key, Vec<&ServiceName>> = BTreeMap::new();
    for service in in_order(services) {
        for claim in claims(service, policy, &own, &mut Vec::new()) {
            claimants.entry(claim.key).or_default().push(&service.name);
        }
    }
    let node_addresses = node_port_addresses(policy, node);
    let mut grants = Grants::default();
    for (key, claimants) in claimants {
        let (addresses, port, protocol) = match &key {
            Key::Address(ip, port, protocol) => (std::slice::from_ref(ip), *port, *protocol),
            Key::NodePort(port, protocol) => (node_addresses.as_slice(), *port, *protocol),
        };
        let heir = |ip: &IpAddr| inherited.heir((*ip, port, protocol.number()), &claimants, slices);
        if let Some(heir) = addresses.iter().find_map(heir) {
            grants.owners.insert(key, heir.clone());
        }
    }
    grants
}

/// The Services that claim anything: the older first, then by name.
fn in_order<'a>(services: impl IntoIterator<Item = &'a Arc<Service>>) -> Vec<&'a Service> {
    let mut services: Vec<&Service> =
        services.into_iter().map(Arc::as_ref).filter(|service| service.skipped.is_none()).collect();
    services.sort_by(|a, b| (a.created.is_none(), a.created, &a.name).cmp(&(b.created.is_none(), b.created, &b.name)));
    services
}

/// Decides for all Services at once; `before` is the last decision.
pub fn grant<'a>(
    services: impl IntoIterator<Item = &'a Arc<Service>>,
    policy: &Policy,
    node: &Node,
    before: &Grants,
) -> Grants {
    let services = in_order(services);
    let mut grants = Grants::default();
    let own: HashSet<IpAddr> = node.addresses.iter().copied().collect();
    let all: Vec<Vec<Claim>> =
        services.iter().map(|service| claims(service, policy, &own, &mut grants.problems)).collect();

    let mut table = Table::default();
    for (id, (service, claims)) in services.iter().zip(&all).enumerate() {
        for claim in claims.iter().filter(|claim| before.owners.get(&claim.key) == Some(&service.name)) {
            // Owners of before are in each other's way only if one changed a kind of address: then the order counts,
            // and the second pass reports it.
            if let Err(_owner) = table.take(id, claim) {
                continue;
            }
        }
    }
    let node_addresses = node_port_addresses(policy, node);
    for (id, (service, claims)) in services.iter().zip(&all).enumerate() {
        let mut granted = Vec::new();
        let mut own = HashSet::new();
        for claim in claims {
            match table.take(id, claim) {
                // One address as two kinds: the first counts.
                Ok(()) if !own.insert(claim.key) => {}
                Ok(()) => {
                    grants.owners.insert(claim.key, service.name.clone());
                    granted.extend(frontends(service, claim, &node_addresses));
                }
                Err(owner) => {
                    let owner = services.get(owner).map_or(&service.name, |owner| &owner.name);
                    grants.problems.push(refused(service, claim, owner));
                }
            }
        }
        if !granted.is_empty() {
            grants.services.insert(service.name.clone(), granted);
        }
    }
    grants
}

/// Everything that a Service asks for and policy allows; the rest is reported.
fn claims(service: &Service, policy: &Policy, own: &HashSet<IpAddr>, problems: &mut Vec<Problem>) -> Vec<Claim> {
    let mut addresses: Vec<(FrontendKind, IpAddr)> = Vec::new();
    let mut ask = |kind: FrontendKind, field: &str, ip: IpAddr| {
        let refusal = if let Some(what) = address::special(ip) {
            Some(format!("`{ip}` is {what}"))
        } else if own.contains(&ip) {
            Some(format!("`{ip}` is an address of this node; choose another, or use a nodePort"))
        } else if kind == FrontendKind::ExternalIp && !policy.allows_external_ip(ip) {
            Some(format!("`{ip}` is not in a range where externalIPs are allowed; add one with --external-ips"))
        } else if kind == FrontendKind::LoadBalancer && !policy.allows_load_balancer_ip(ip) {
            Some(format!("`{ip}` is not in a range of load balancers; add one with --load-balancer-ips"))
        } else {
            None
        };
        match refusal {
            None => addresses.push((kind, ip)),
            Some(text) => {
                let text = at(service, field, &format!("{text}; the address is refused"));
                problems.push(Problem::error(text).about(&service.name));
            }
        }
    };
    for ip in &service.cluster_ips {
        ask(FrontendKind::ClusterIp, "spec.clusterIPs", *ip);
    }
    for ingress in service.ingress.iter().filter(|ingress| !ingress.proxy) {
        ask(FrontendKind::LoadBalancer, "status.loadBalancer.ingress", ingress.ip);
    }
    for ip in &service.external_ips {
        ask(FrontendKind::ExternalIp, "spec.externalIPs", *ip);
    }
    for family in [AddressFamily::V4, AddressFamily::V6] {
        let of = |ip: IpAddr| AddressFamily::of(ip) == family;
        let served = service.ingress.iter().any(|ingress| !ingress.proxy && of(ingress.ip));
        let listed = service.source_ranges.iter().any(|range| of(range.addr()));
        if served && !listed && !service.source_ranges.is_empty() {
            let text = format!("no range of {family}: the load balancer's {family} addresses serve everybody");
            problems.push(Problem::warning(at(service, "spec.loadBalancerSourceRanges", &text)));
        }
    }
    if service.cluster_ips.is_empty() {
        let text = "none: write one, or set `cluster-ip-range` to have one allocated";
        problems.push(Problem::notice(at(service, "spec.clusterIP", text)));
    }
    let mut claims = Vec::new();
    for (i, port) in service.ports.iter().enumerate() {
        claims.extend(addresses.iter().map(|(kind, ip)| Claim {
            port: i,
            kind: *kind,
            key: Key::Address(*ip, port.port, port.protocol),
        }));
        if let Some(node_port) = port.node_port {
            let key = Key::NodePort(node_port, port.protocol);
            claims.push(Claim { port: i, kind: FrontendKind::NodePort, key });
        } else if service.service_type == ServiceType::NodePort {
            let text = "none: the port is not open on nodes";
            problems.push(Problem::notice(at(service, &format!("spec.ports[{i}].nodePort"), text)));
        }
    }
    claims
}

/// Who has what. A ClusterIP is one Service's alone; other addresses may be shared port by port.
#[derive(Default)]
struct Table {
    keys: HashMap<Key, usize>,
    addresses: HashMap<IpAddr, Owners>,
}

struct Owners {
    /// A Service with anything on the address.
    first: usize,
    /// Another one.
    second: Option<usize>,
    cluster_ip: bool,
}

impl Table {
    /// Gives a Service what it claims, unless another has it: then that one is returned.
    fn take(&mut self, id: usize, claim: &Claim) -> Result<(), usize> {
        if let Some(owner) = self.keys.get(&claim.key).copied() {
            return if owner == id { Ok(()) } else { Err(owner) };
        }
        if let Key::Address(ip, ..) = claim.key {
            let cluster_ip = claim.kind == FrontendKind::ClusterIp;
            let owners = self.addresses.entry(ip).or_insert(Owners { first: id, second: None, cluster_ip });
            let other = if owners.first == id { owners.second } else { Some(owners.first) };
            if let Some(other) = other {
                if cluster_ip || owners.cluster_ip {
                    return Err(other);
                }
                owners.second.get_or_insert(id);
            }
            owners.cluster_ip |= cluster_ip;
        }
        self.keys.insert(claim.key, id);
        Ok(())
    }
}

fn frontends<'a>(
    service: &'a Service,
    claim: &'a Claim,
    node_addresses: &'a [IpAddr],
) -> impl Iterator<Item = Granted> + 'a {
    let (addresses, port) = match &claim.key {
        Key::Address(ip, port, _) => (std::slice::from_ref(ip), *port),
        Key::NodePort(port, _) => (node_addresses, *port),
    };
    // From inside, the address of a load balancer leads straight to any endpoint, as the way through a good node
    // would (B58); a nodePort means this very node (B33).
    let (external_local, internal_local) = match claim.kind {
        FrontendKind::ClusterIp => (service.internal_local, service.internal_local),
        FrontendKind::NodePort => (service.external_local, service.external_local),
        FrontendKind::LoadBalancer | FrontendKind::ExternalIp => (service.external_local, false),
    };
    // Other kinds of address bring their family themselves.
    let every = claim.kind != FrontendKind::NodePort || service.families.is_empty();
    let addresses = addresses.iter().filter(move |addr| every || service.families.contains(&AddressFamily::of(**addr)));
    addresses.map(move |addr| Granted {
        port: claim.port,
        frontend: Frontend { addr: *addr, port, kind: claim.kind, external_local, internal_local },
    })
}

fn node_port_addresses(policy: &Policy, node: &Node) -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> =
        node.addresses.iter().filter(|ip| policy.allows_node_port(**ip)).copied().collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

fn refused(service: &Service, claim: &Claim, owner: &ServiceName) -> Problem {
    let (field, what) = match (claim.kind, &claim.key) {
        (FrontendKind::NodePort, Key::NodePort(port, protocol) | Key::Address(_, port, protocol)) => {
            (format!("spec.ports[{}].nodePort", claim.port), format!("{port} {protocol}"))
        }
        (kind, Key::Address(ip, port, protocol)) => (field(kind).to_owned(), format!("`{ip}` port {port} {protocol}")),
        (kind, Key::NodePort(port, protocol)) => (field(kind).to_owned(), format!("{port} {protocol}")),
    };
    let text = format!("{what} belongs to Service `{owner}`, which comes first; choose another");
    Problem::error(at(service, &field, &text)).about(&service.name)
}

const fn field(kind: FrontendKind) -> &'static str {
    match kind {
        FrontendKind::ClusterIp => "spec.clusterIPs",
        FrontendKind::NodePort => "spec.ports",
        FrontendKind::LoadBalancer => "status.loadBalancer.ingress",
        FrontendKind::ExternalIp => "spec.externalIPs",
    }
}

/// A line about a field of a Service.
pub fn at(service: &Service, field: &str, text: &str) -> String {
    format!("{}, Service `{}`: {field}: {text}", service.origin, service.name)
}
