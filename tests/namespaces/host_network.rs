//! Backends in the network of a node itself.

use svc_tests::client::{self, Transport};
use svc_tests::manifest::{Endpoint, Service};
use svc_tests::server::Server;

use crate::cluster::in_every_setting;

#[test]
fn backends_in_the_host_network_answer_pods_and_clients_outside() {
    in_every_setting("backends_in_the_host_network_answer", |cluster| {
        for node in &cluster.world.nodes {
            let _servers = node.addresses().map(|addr| Server::listen(&node.ns, &node.name, Some(addr)).unwrap());
            let mut service = Service::new("host", 1).http().echo().load_balancer();
            service.endpoints = vec![Endpoint {
                name: node.name.clone(),
                node: node.name.clone(),
                v4: node.v4,
                v6: node.v6,
                ready: true,
                serving: true,
                terminating: false,
            }];
            cluster.agent.apply(&[&service]).unwrap();
            let first = &cluster.world.nodes[0];
            let dialled = [
                (cluster.client(), first.at(30_007)),
                (cluster.client(), service.lb(7)),
                (cluster.pod(0), service.cluster(7)),
            ];
            for (from, targets) in dialled {
                for to in targets {
                    for transport in Transport::ALL {
                        let answer = transport.ask(&from.ns, to, "hello").unwrap();
                        assert_eq!(answer.pod, node.name, "{transport:?} from {} to {to}", from.name);
                    }
                }
            }
            for to in first.at(30_080) {
                client::download(client::connect(&cluster.client().ns, to).unwrap(), 2_000_000, None).unwrap();
            }
        }
    });
}
