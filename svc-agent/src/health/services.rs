//! Which Services have a health-check port, and how many endpoints each has here. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, PoisonError, RwLock};

use crate::model::{Service, ServiceName, ServiceType};
use crate::resolve::{AddressFamily, Desired, Policy};
use crate::sources::Snapshot;

/// Endpoints here, by Service.
#[derive(Debug, Default)]
pub struct Counts(RwLock<BTreeMap<ServiceName, usize>>);

impl Counts {
    /// Those of one Service.
    pub fn of(&self, service: &ServiceName) -> usize {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(service).copied().unwrap_or(0)
    }

    pub(super) fn replace(&self, counts: BTreeMap<ServiceName, usize>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = counts;
    }
}

/// Where to listen, and for whom. Of two Services with one port the first by name has it.
pub fn wanted(checked: &[Checked], addresses: &[IpAddr], policy: &Policy) -> BTreeMap<SocketAddr, ServiceName> {
    let mut wanted = BTreeMap::new();
    for (port, service) in checked {
        for addr in addresses.iter().filter(|addr| policy.allows_node_port(**addr)) {
            wanted.entry(SocketAddr::new(*addr, *port)).or_insert_with(|| service.name.clone());
        }
    }
    wanted
}

/// How many endpoints each of them has here that are ready and stay: pods, so an address in each family counts once.
pub fn local_endpoints(checked: &[Checked], desired: &Desired) -> BTreeMap<ServiceName, usize> {
    let count = |service: &Service| {
        let ports = desired.services.get(&service.name).map(|ports| ports.as_slice()).unwrap_or_default();
        let of = |family: AddressFamily| {
            let backends = ports.iter().filter(|port| port.key.family == family).flat_map(|port| &port.backends);
            let good = backends.filter(|backend| backend.local && backend.ready && !backend.terminating);
            good.map(|backend| backend.addr).collect::<BTreeSet<_>>().len()
        };
        of(AddressFamily::V4).max(of(AddressFamily::V6))
    };
    checked.iter().map(|(_, service)| (service.name.clone(), count(service))).collect()
}

/// A health-check port, and whose it is.
pub type Checked = (u16, Arc<Service>);

/// The Services that have one.
pub fn checked(snapshot: &Snapshot) -> Vec<Checked> {
    let checked = snapshot.objects.services.values().filter_map(|service| {
        let asks = service.service_type == ServiceType::LoadBalancer && service.external_local;
        let port = service.health_check_node_port.filter(|_| asks && service.skipped.is_none())?;
        Some((port, service.clone()))
    });
    checked.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resolve::{Backend, Choice, PortKey, ResolvedPort};
    use crate::sources::manifests::ManifestSource;

    fn snapshot(text: &str) -> Snapshot {
        ManifestSource::read_text(text.as_bytes(), "test", &crate::model::Rules::default())
    }

    const WEB: &str = "{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {type: LoadBalancer, \
        externalTrafficPolicy: Local, healthCheckNodePort: 32000, clusterIP: 10.96.0.1, ports: [{port: 80, nodePort: 30080}]}}";

    #[test]
    fn a_port_for_each_address_that_answers_node_ports() {
        let addresses: Vec<IpAddr> =
            ["192.0.2.1", "2001:db8::1", "198.51.100.1"].map(|addr| addr.parse().unwrap()).into();
        let policy = Policy { node_port_addresses: Some(vec!["192.0.2.0/24".parse().unwrap()]), ..Policy::anything() };
        let everywhere = wanted(&checked(&snapshot(WEB)), &addresses, &Policy::anything());
        assert_eq!(everywhere.len(), 3);
        let filtered = wanted(&checked(&snapshot(WEB)), &addresses, &policy);
        let name = ServiceName::new("default", "web");
        assert_eq!(filtered.into_iter().collect::<Vec<_>>(), [("192.0.2.1:32000".parse().unwrap(), name)]);
        let cluster = WEB.replace("Local, healthCheckNodePort: 32000", "Cluster");
        assert!(wanted(&checked(&snapshot(&cluster)), &addresses, &Policy::anything()).is_empty());
    }

    #[test]
    fn b62_endpoints_count_by_pod_and_only_ready_ones_here() {
        let name = ServiceName::new("default", "web");
        let backend = |addr: &str, local, ready, terminating| Backend {
            addr: addr.parse().unwrap(),
            port: 80,
            ready,
            serving: true,
            terminating,
            local,
            node: None,
            target: None,
        };
        let port = |family, port_name: &str, backends| ResolvedPort {
            key: PortKey {
                namespace: "default".into(),
                name: "web".into(),
                port_name: port_name.into(),
                port: 80,
                protocol: 6,
                family,
            },
            service_type: "LoadBalancer".into(),
            frontends: Vec::new(),
            backends,
            cluster: Choice::Reject,
            local: Choice::Reject,
            affinity_s: None,
            source_ranges: Vec::new(),
            dsr: false,
        };
        let v4 = vec![
            backend("10.0.0.1", true, true, false),
            backend("10.0.0.2", true, true, false),
            backend("10.0.0.3", true, false, false),
            backend("10.0.0.4", true, true, true),
            backend("10.0.1.5", false, true, false),
        ];
        let v6 = vec![backend("fd00::1", true, true, false)];
        let ports = vec![
            port(AddressFamily::V4, "a", v4.clone()),
            port(AddressFamily::V4, "b", v4),
            port(AddressFamily::V6, "a", v6),
        ];
        let desired = Desired { services: [(name.clone(), Arc::new(ports))].into(), ..Desired::default() };
        assert_eq!(local_endpoints(&checked(&snapshot(WEB)), &desired)[&name], 2);
        assert_eq!(local_endpoints(&checked(&snapshot(WEB)), &Desired::default())[&name], 0);
    }
}
