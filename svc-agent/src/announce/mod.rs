//! Which addresses of load balancers this node should attract traffic for, and the routes that tell a routing daemon so.
//!
//! The node serves every address of a Service anyway. A route says that it is worth sending traffic here; whether and how
//! that is told to others is the business of FRR or BIRD, which export the table. On a shared segment, `segment` does it.

mod routes;
pub mod segment;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

pub use self::routes::{PROTOCOL, Routes};
use crate::resolve::{Choice, Desired, FrontendKind, ResolvedPort, ServiceName};

/// A Service as it was looked at, and the addresses that it made worth attracting.
type Looked = (Arc<Vec<ResolvedPort>>, BTreeSet<IpAddr>);

/// The addresses that Services make worth attracting. Looks only at Services that changed.
#[derive(Debug, Default)]
pub struct Attractive {
    services: BTreeMap<ServiceName, Looked>,
}

impl Attractive {
    /// Every address of a load balancer, and every ExternalIP, behind which at least one port is served from here.
    pub fn update(&mut self, desired: &Desired) -> BTreeSet<IpAddr> {
        self.services.retain(|name, _| desired.services.contains_key(name));
        for (name, ports) in &desired.services {
            if self.services.get(name).is_none_or(|(looked, _)| !Arc::ptr_eq(looked, ports)) {
                let addresses = ports.iter().flat_map(served).collect();
                self.services.insert(name.clone(), (ports.clone(), addresses));
            }
        }
        self.services.values().flat_map(|(_, addresses)| addresses).copied().collect()
    }
}

/// The addresses of one port that clients outside are served at.
fn served(port: &ResolvedPort) -> impl Iterator<Item = IpAddr> + '_ {
    let outside = |kind| matches!(kind, FrontendKind::LoadBalancer | FrontendKind::ExternalIp);
    let frontends = port.frontends.iter().filter(move |frontend| outside(frontend.kind));
    frontends.filter(|frontend| is_served(port, frontend.external_local)).map(|frontend| frontend.addr)
}

/// Whether new connections from outside find a backend. With policy Local one that is only on its way out does not count, as
/// with the health-check port (KEP-1669): other nodes may have better ones.
fn is_served(port: &ResolvedPort, local: bool) -> bool {
    match (local, &port.local, &port.cluster) {
        (true, Choice::Backends(chosen), _) => {
            chosen.iter().filter_map(|index| port.backends.get(*index)).any(|backend| backend.ready)
        }
        (false, _, Choice::Backends(_)) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resolve::{AddressFamily, Backend, Frontend, PortKey};

    const VIP: &str = "192.0.2.80";

    fn backend(ready: bool) -> Backend {
        Backend {
            addr: "10.0.0.1".parse().unwrap(),
            port: 8080,
            ready,
            serving: true,
            terminating: !ready,
            local: true,
            node: None,
            target: None,
        }
    }

    fn port(
        kind: FrontendKind,
        external_local: bool,
        backends: Vec<Backend>,
        local: Choice,
        cluster: Choice,
    ) -> ResolvedPort {
        let frontend = Frontend { addr: VIP.parse().unwrap(), port: 80, kind, external_local, internal_local: false };
        ResolvedPort {
            key: PortKey {
                namespace: "default".into(),
                name: "web".into(),
                port_name: String::new(),
                port: 80,
                protocol: 6,
                family: AddressFamily::V4,
            },
            service_type: "LoadBalancer".into(),
            frontends: vec![frontend],
            backends,
            cluster,
            local,
            affinity_s: None,
            source_ranges: Vec::new(),
            dsr: false,
        }
    }

    fn attracts(port: ResolvedPort) -> bool {
        let services = [(ServiceName::new("default", "web"), Arc::new(vec![port]))].into();
        let desired = Desired { services, complete: true, problems: Vec::new() };
        let addresses = Attractive::default().update(&desired);
        assert!(addresses.iter().all(|addr| addr.to_string() == VIP));
        !addresses.is_empty()
    }

    #[test]
    fn an_address_is_attractive_while_a_backend_serves_it_from_here() {
        use Choice::{Backends, Drop, Reject};
        use FrontendKind::{ClusterIp, ExternalIp, LoadBalancer, NodePort};
        let one = || Backends(vec![0]);
        let ready = || vec![backend(true)];
        for kind in [LoadBalancer, ExternalIp] {
            assert!(attracts(port(kind, false, ready(), Drop, one())), "policy Cluster, backend anywhere");
            assert!(!attracts(port(kind, false, vec![], Reject, Reject)), "no backend anywhere");
            assert!(attracts(port(kind, true, ready(), one(), one())), "policy Local, backend here");
            assert!(!attracts(port(kind, true, ready(), Drop, one())), "policy Local, backend elsewhere");
            assert!(
                !attracts(port(kind, true, vec![backend(false)], one(), one())),
                "policy Local, backend on its way out"
            );
            assert!(
                attracts(port(kind, false, vec![backend(false)], one(), one())),
                "the only ones are on their way out"
            );
        }
        for kind in [ClusterIp, NodePort] {
            assert!(!attracts(port(kind, false, ready(), one(), one())), "{kind:?} is no address to attract");
        }
    }

    #[test]
    fn a_service_is_looked_at_again_when_it_changes_and_forgotten_when_it_goes() {
        let name = ServiceName::new("default", "web");
        let with = |choice: Choice| {
            let port = port(FrontendKind::LoadBalancer, false, vec![backend(true)], Choice::Drop, choice);
            Desired { services: [(name.clone(), Arc::new(vec![port]))].into(), ..Desired::default() }
        };
        let mut attractive = Attractive::default();
        assert_eq!(attractive.update(&with(Choice::Backends(vec![0]))).len(), 1);
        assert_eq!(attractive.update(&with(Choice::Reject)).len(), 0);
        assert_eq!(attractive.update(&with(Choice::Backends(vec![0]))).len(), 1);
        assert_eq!(attractive.update(&Desired::default()).len(), 0);
    }
}
