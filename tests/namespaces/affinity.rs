//! Session affinity of real clients.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use svc_tests::agent::Agent;
use svc_tests::client::Transport;
use svc_tests::manifest::Service;
use svc_tests::topology::Host;

use crate::cluster::in_every_setting;

/// Enough that several backends would answer, but for one run in a million.
const ENOUGH: usize = 20;

/// The pods that answer a client.
fn answering(from: &Host, transport: Transport, to: SocketAddr) -> BTreeSet<String> {
    (0..ENOUGH).map(|n| transport.ask(&from.ns, to, &n.to_string()).unwrap().pod).collect()
}

#[test]
fn b50_a_client_stays_with_its_backend_also_over_a_restart_of_the_agent() {
    in_every_setting("b50_a_client_stays_with_its_backend", |mut cluster| {
        let service = cluster.serve(Service::new("web", 1).echo().node_port().spec("sessionAffinity: ClientIP"));
        let dials: Vec<_> = [0, 1]
            .into_iter()
            .flat_map(|family| [(0, service.cluster(7)[family]), (1, cluster.world.nodes[0].at(30_007)[family])])
            .collect();
        let ask = |cluster: &crate::cluster::Cluster| -> Vec<BTreeSet<String>> {
            let from = [cluster.pod(0), cluster.client()];
            let dials = dials.iter().flat_map(|(from, to)| Transport::ALL.map(|transport| (*from, transport, *to)));
            dials.map(|(index, transport, to)| answering(from[index], transport, to)).collect()
        };
        let before = ask(&cluster);
        assert!(before.iter().all(|pods| pods.len() == 1), "{before:?}");
        cluster.agent.restart().unwrap();
        assert_eq!(ask(&cluster), before);
        // Off: the next connections spread.
        cluster.serve(Service::new("web", 1).echo().node_port());
        let spread = |agent: &Agent| {
            let ports = agent.services()?.into_iter().flat_map(|service| service.ports);
            Ok(ports.into_iter().all(|port| port.affinity_seconds.is_none()))
        };
        cluster.agent.wait("affinity to be off", spread).unwrap();
        let deadline = Instant::now() + Duration::from_secs(3);
        let (pod, vip) = (cluster.pod(0), service.cluster(7)[0]);
        while answering(pod, Transport::Tcp, vip).len() == 1 {
            assert!(Instant::now() < deadline, "one backend still");
        }
        let after = ask(&cluster);
        assert!(after.iter().all(|pods| pods.len() > 1), "{after:?}");
    });
}
