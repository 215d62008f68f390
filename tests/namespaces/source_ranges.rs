//! Source ranges of load balancers' addresses.

use std::time::{Duration, Instant};

use svc_tests::client::Transport;
use svc_tests::manifest::Service;

use crate::cluster::in_every_setting;

#[test]
fn b59_only_clients_in_the_ranges_reach_the_load_balancers_address() {
    in_every_setting("b59_only_clients_in_the_ranges", |cluster| {
        let client = cluster.client();
        let open = Service::new("web", 1).echo().load_balancer();
        let ranges = |v4: &str, v6: &str| format!("loadBalancerSourceRanges: [' {v4} ', '{v6}']");
        let ours = open.clone().spec(&ranges(&format!("{}/32", client.v4), &format!("{}/128", client.v6)));
        let others = open.clone().spec(&ranges("203.0.113.0/24", "2001:db8:ffff::/48"));
        for (service, served) in [(open, true), (others, false), (ours, true)] {
            let service = cluster.serve(service);
            // The endpoints do not show when the ranges are in force.
            let deadline = Instant::now() + Duration::from_secs(10);
            while Transport::Tcp.ask(&client.ns, service.lb(7)[1], "yet?").is_ok() != served {
                assert!(Instant::now() < deadline, "not {served} in time");
            }
            for transport in Transport::ALL {
                for to in service.lb(7) {
                    assert_eq!(transport.ask(&client.ns, to, "may I?").is_ok(), served, "{to} over {transport:?}");
                }
                for to in service.cluster(7) {
                    transport.ask(&cluster.pod(0).ns, to, "inside").unwrap();
                }
                for to in cluster.world.nodes[0].at(30_007) {
                    transport.ask(&client.ns, to, "at the node").unwrap();
                }
            }
        }
    });
}
