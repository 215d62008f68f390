//! Gives Services what an API server and a load balancer's controller would: ClusterIPs, nodePorts, health-check ports,
//! addresses of load balancers. Pure.
//!
//! What was given before stays; then comes what the Services themselves name; then the rest chooses, in the order of
//! names. So the order of files does not matter, and equal input gives equal output on every node, as long as the nodes
//! remember the same.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::families::families;
use super::memory::{Allocation, Memory};
use super::numbers::seed;
use super::pool;
use super::settings::Settings;
use super::table::{Holder, Table};
use crate::model::{AddressFamily, Ingress, Problem, Protocol, Service, ServiceName, ServiceType, Skipped};
use crate::resolve::at;
use crate::sorted::Sorted;

/// The outcome for all Services.
#[derive(Debug, Default)]
pub struct Allocated {
    /// Every Service with what it has now.
    pub services: BTreeMap<ServiceName, Service>,
    /// What to remember.
    pub memory: Memory,
    /// What could not be given, or was taken away.
    pub problems: Vec<Problem>,
}

/// Completes all Services. `complete`: Services that are not there are gone, and give back what they had.
pub fn allocate(
    services: &Sorted<ServiceName, Arc<Service>>,
    settings: &Settings,
    before: &Memory,
    complete: bool,
) -> Allocated {
    let mut pass = Pass { settings, table: Table::default(), allocated: Allocated::default(), full: Vec::new() };
    let mut kept = BTreeMap::new();
    for (name, allocation) in &before.services {
        match services.get(name) {
            Some(service) => drop(kept.insert(name, pass.keep(service, allocation))),
            None if !complete => pass.reserve(name, allocation),
            None => {}
        }
    }
    let mut all: Vec<(Service, Allocation)> = Vec::new();
    for (name, service) in services {
        let mut service = Service::clone(service);
        pass.name_their_own(&mut service);
        all.push((service, kept.remove(name).unwrap_or_default()));
    }
    for (service, kept) in all {
        pass.complete(service, kept);
    }
    pass.allocated
}

struct Pass<'a> {
    settings: &'a Settings,
    table: Table,
    allocated: Allocated,
    /// Ranges that were found full.
    full: Vec<(AddressFamily, &'static str)>,
}

/// Whether the API server would give it a ClusterIP.
fn has_cluster_ip(service: &Service) -> bool {
    !matches!(service.skipped, Some(Skipped::ExternalName | Skipped::Headless))
}

/// Whether it has nodePorts without saying so.
fn has_node_ports(service: &Service) -> bool {
    match service.service_type {
        ServiceType::NodePort => true,
        ServiceType::LoadBalancer => service.allocate_node_ports,
        ServiceType::ClusterIp | ServiceType::ExternalName => false,
    }
}

fn has_health_check(service: &Service) -> bool {
    service.service_type == ServiceType::LoadBalancer && service.external_local
}

/// Whether its load balancer's address comes from our pools: not if it names another load balancer, or another proxy,
/// which would not answer on it.
fn has_pool_address(service: &Service) -> bool {
    service.service_type == ServiceType::LoadBalancer
        && service.load_balancer_class.is_none()
        && service.skipped.is_none()
        && service.ingress.is_empty()
}

impl Pass<'_> {
    /// Takes again what a Service had, as far as it may still have it and does not name its own.
    fn keep(&mut self, service: &Service, before: &Allocation) -> Allocation {
        let name = &service.name;
        let mut kept = Allocation::default();
        let families = families(service, self.settings, &mut Vec::new());
        let table = &mut self.table;
        let ours = |pools: &[pool::Pool], ip: IpAddr| pools.iter().any(|pool| pool.contains(ip));
        for ip in &before.cluster_ips {
            let family = AddressFamily::of(*ip);
            let wanted = has_cluster_ip(service) && families.contains(&family) && ours(&self.settings.cluster_ips, *ip);
            let given =
                service.cluster_ips.iter().chain(&kept.cluster_ips).any(|own| AddressFamily::of(*own) == family);
            if wanted && !given && table.take_ip(*ip, name, Holder::Remembered).is_ok() {
                kept.cluster_ips.push(*ip);
            }
        }
        if has_node_ports(service) {
            for (port, node_port) in &before.node_ports {
                let mut unsaid = service.ports.iter().filter(|own| own.port == *port && own.node_port.is_none());
                let given = service.ports.iter().any(|own| own.port == *port && own.node_port.is_some());
                let wanted = unsaid.next().is_some() && !given && self.settings.node_ports.contains(node_port);
                if wanted && table.take_number(*node_port, name) {
                    kept.node_ports.insert(*port, *node_port);
                }
            }
        }
        if let Some(port) = before.health_check_node_port {
            let wanted = has_health_check(service) && service.health_check_node_port.is_none();
            if wanted && self.settings.node_ports.contains(&port) && table.take_number(port, name) {
                kept.health_check_node_port = Some(port);
            }
        }
        for ip in &before.load_balancer_ips {
            let family = AddressFamily::of(*ip);
            let wished = service.load_balancer_ip.filter(|wish| AddressFamily::of(*wish) == family);
            let wanted = has_pool_address(service)
                && ours(&self.settings.pools, *ip)
                && (families.is_empty() || families.contains(&family))
                && wished.is_none_or(|wish| wish == *ip)
                && !kept.load_balancer_ips.iter().any(|own| AddressFamily::of(*own) == family);
            if wanted && table.take_ip(*ip, name, Holder::Remembered).is_ok() {
                kept.load_balancer_ips.push(*ip);
            }
        }
        kept
    }

    /// Holds what a Service had that is in a file that cannot be read.
    fn reserve(&mut self, name: &ServiceName, before: &Allocation) {
        for ip in before.cluster_ips.iter().chain(&before.load_balancer_ips) {
            let _held = self.table.take_ip(*ip, name, Holder::Remembered);
        }
        for port in before.node_ports.values().chain(&before.health_check_node_port) {
            let _held = self.table.take_number(*port, name);
        }
        self.allocated.memory.services.insert(name.clone(), before.clone());
    }

    /// Takes what a Service names itself; what another was given before is taken away from it.
    ///
    /// Of two Services that both name a value, policy decides later: it knows who came first.
    fn name_their_own(&mut self, service: &mut Service) {
        let name = service.name.clone();
        let mut refused = Vec::new();
        let table = &mut self.table;
        let mut takes = |field: &str, ip: IpAddr| match table.take_ip(ip, &name, Holder::Named) {
            Err((owner, Holder::Remembered)) => {
                refused.push((field.to_owned(), format!("`{ip}`"), owner));
                false
            }
            Ok(()) | Err((_, Holder::Named | Holder::HealthCheck)) => true,
        };
        service.cluster_ips.retain(|ip| takes("spec.clusterIPs", *ip));
        service.ingress.retain(|ingress| ingress.proxy || takes("status.loadBalancer.ingress", ingress.ip));
        for (i, port) in service.ports.iter_mut().enumerate() {
            let Some(number) = port.node_port else { continue };
            match self.table.take_port(number, port.protocol, &name, Holder::Named) {
                Err((owner, Holder::Remembered | Holder::HealthCheck)) => {
                    refused.push((format!("spec.ports[{i}].nodePort"), number.to_string(), owner));
                    port.node_port = None;
                }
                Ok(()) | Err((_, Holder::Named)) => {}
            }
        }
        if let Some(number) = service.health_check_node_port
            && let Err((owner, _)) = self.table.take_port(number, Protocol::Tcp, &name, Holder::HealthCheck)
        {
            refused.push(("spec.healthCheckNodePort".to_owned(), number.to_string(), owner));
            service.health_check_node_port = None;
        }
        for (field, what, owner) in refused {
            let text = if owner == name {
                format!("{what} is a port of the Service itself; choose another")
            } else {
                format!("{what} belongs to Service `{owner}`, which has it already; choose another")
            };
            self.allocated.problems.push(Problem::error(at(service, &field, &text)));
        }
    }

    /// Gives a Service what it lacks.
    fn complete(&mut self, mut service: Service, mut own: Allocation) {
        if has_cluster_ip(&service) {
            self.cluster_ips(&mut service, &mut own);
        } else if service.skipped == Some(Skipped::Headless) {
            service.families = families(&service, self.settings, &mut self.allocated.problems);
        }
        if has_node_ports(&service) {
            self.node_ports(&mut service, &mut own);
        }
        if has_health_check(&service) && service.health_check_node_port.is_none() {
            self.health_check(&mut service, &mut own);
        }
        if has_pool_address(&service) && !self.settings.pools.is_empty() {
            self.load_balancer_ips(&mut service, &mut own);
        }
        if own != Allocation::default() {
            self.allocated.memory.services.insert(service.name.clone(), own);
        }
        self.allocated.services.insert(service.name.clone(), service);
    }

    fn cluster_ips(&mut self, service: &mut Service, own: &mut Allocation) {
        let families = families(service, self.settings, &mut self.allocated.problems);
        if self.settings.cluster_ips.is_empty() {
            return;
        }
        let mut ips = Vec::new();
        for family in &families {
            let of_family = |ip: &&IpAddr| AddressFamily::of(**ip) == *family;
            let given = service.cluster_ips.iter().find(of_family).or_else(|| own.cluster_ips.iter().find(of_family));
            if let Some(ip) = given {
                ips.push(*ip);
                continue;
            }
            match self.choose_ip(service, *family, "cluster-ip-range") {
                Ok(ip) => {
                    own.cluster_ips.push(ip);
                    ips.push(ip);
                }
                Err(why) => self.refuse(service, "spec.clusterIP", &format!("{why}; it has no ClusterIP of {family}")),
            }
        }
        service.cluster_ips = ips;
        service.families = families;
    }

    fn load_balancer_ips(&mut self, service: &mut Service, own: &mut Allocation) {
        let mut families = service.families.clone();
        let wish = service.load_balancer_ip;
        if let Some(wish) = wish.filter(|wish| !families.contains(&AddressFamily::of(*wish))) {
            families.push(AddressFamily::of(wish));
        }
        if families.is_empty() {
            families.extend(self.settings.pools.first().map(pool::Pool::family));
        }
        let served = |family: &AddressFamily| self.settings.pools.iter().any(|pool| pool.family() == *family);
        let (families, without): (Vec<_>, Vec<_>) = families.into_iter().partition(served);
        if families.is_empty() {
            let names = without.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ");
            let text = format!("`load-balancer-pools` has no address of {names}; the Service has no such address");
            self.refuse(service, "status.loadBalancer.ingress", &text);
        }
        let mut ips: Vec<IpAddr> = Vec::new();
        for family in families {
            if let Some(ip) = own.load_balancer_ips.iter().find(|ip| AddressFamily::of(**ip) == family) {
                ips.push(*ip);
                continue;
            }
            let chosen = match wish.filter(|wish| AddressFamily::of(*wish) == family) {
                Some(wish) => self.wished(service, wish).map_err(|why| ("spec.loadBalancerIP", why)),
                None => self
                    .choose_ip(service, family, "load-balancer-pools")
                    .map_err(|why| ("status.loadBalancer.ingress", why)),
            };
            match chosen {
                Ok(ip) => {
                    own.load_balancer_ips.push(ip);
                    ips.push(ip);
                }
                Err((field, why)) => {
                    self.refuse(service, field, &format!("{why}; it has no load balancer address of {family}"));
                }
            }
        }
        service.ingress = ips.into_iter().map(|ip| Ingress { ip, proxy: false }).collect();
    }

    /// The address that a Service wishes for.
    fn wished(&mut self, service: &Service, wish: IpAddr) -> Result<IpAddr, String> {
        if !self.settings.pools.iter().any(|pool| pool.contains(wish)) {
            return Err(format!("found `{wish}`, expected an address of `load-balancer-pools`"));
        }
        match self.table.take_ip(wish, &service.name, Holder::Remembered) {
            Ok(()) => Ok(wish),
            Err((owner, _)) => {
                Err(format!("`{wish}` belongs to Service `{owner}`, which has it already; choose another"))
            }
        }
    }

    fn choose_ip(&mut self, service: &Service, family: AddressFamily, range: &'static str) -> Result<IpAddr, String> {
        let cluster = range == "cluster-ip-range";
        let pools = if cluster { &self.settings.cluster_ips } else { &self.settings.pools };
        if !pools.iter().any(|pool| pool.family() == family) {
            return Err(format!("`{range}` has no network of {family}"));
        }
        let full = || format!("every {family} address of `{range}` is in use: enlarge it, or remove Services");
        if self.full.contains(&(family, range)) {
            return Err(full());
        }
        let table = &self.table;
        let ip = pool::choose(pools, family, range, &service.name, table.ips(), |ip| table.has_ip(ip));
        match ip {
            Some(ip) => {
                let _free = self.table.take_ip(ip, &service.name, Holder::Remembered);
                Ok(ip)
            }
            None => {
                self.full.push((family, range));
                Err(full())
            }
        }
    }

    fn node_ports(&mut self, service: &mut Service, own: &mut Allocation) {
        // Protocols of one port share its nodePort, as the API server has it.
        let named: BTreeMap<u16, u16> =
            service.ports.iter().filter_map(|port| Some((port.port, port.node_port?))).collect();
        for i in 0..service.ports.len() {
            let Some(port) = service.ports.get(i).filter(|port| port.node_port.is_none()) else { continue };
            let (number, protocol) = (port.port, port.protocol);
            let shared = named
                .get(&number)
                .copied()
                .filter(|named| self.table.take_port(*named, protocol, &service.name, Holder::Named).is_ok());
            let chosen = shared.or_else(|| own.node_ports.get(&number).copied());
            let chosen = chosen.or_else(|| {
                let chosen = self.choose_port(&service.name, &number.to_string())?;
                own.node_ports.insert(number, chosen);
                Some(chosen)
            });
            match (chosen, service.ports.get_mut(i)) {
                (Some(chosen), Some(port)) => port.node_port = Some(chosen),
                _ => self.refuse(
                    service,
                    &format!("spec.ports[{i}].nodePort"),
                    "every port of `node-port-range` is in use: enlarge it, or remove Services; the port is not open on \
                     nodes",
                ),
            }
        }
    }

    fn health_check(&mut self, service: &mut Service, own: &mut Allocation) {
        if own.health_check_node_port.is_none() {
            own.health_check_node_port = self.choose_port(&service.name, "health-check");
        }
        service.health_check_node_port = own.health_check_node_port;
        if service.health_check_node_port.is_none() {
            let text = "every port of `node-port-range` is in use: enlarge it, or remove Services; load balancers cannot \
                        ask for its health";
            self.refuse(service, "spec.healthCheckNodePort", text);
        }
    }

    fn choose_port(&mut self, name: &ServiceName, purpose: &str) -> Option<u16> {
        let seed = seed(&format!("node-port-range {name} {purpose}"));
        let table = &self.table;
        let is_taken = |number: u128| u16::try_from(number).is_ok_and(|number| table.has_number(number));
        let chosen = self.settings.port_numbers().choose(seed, table.numbers(), is_taken)?;
        let chosen = u16::try_from(chosen).ok()?;
        let _free = self.table.take_number(chosen, name);
        Some(chosen)
    }

    fn refuse(&mut self, service: &Service, field: &str, text: &str) {
        self.allocated.problems.push(Problem::error(at(service, field, text)));
    }
}
