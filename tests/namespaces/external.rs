//! Load balancer addresses and external addresses.

use std::collections::BTreeSet;

use svc_tests::client::{self, Transport};
use svc_tests::manifest::Service;
use svc_tests::need;

use crate::cluster::{Cluster, Setting, in_every_setting};

#[test]
fn load_balancer_addresses_answer_outside_and_inside() {
    in_every_setting("load_balancer_addresses_answer_outside_and_inside", |cluster| {
        let service = cluster.serve(Service::new("web", 1).http().echo().load_balancer());
        for from in [cluster.client(), cluster.pod(0)] {
            for to in service.lb(7) {
                for transport in Transport::ALL {
                    let seen: BTreeSet<String> =
                        (0..60).map(|_| transport.ask(&from.ns, to, "hello").unwrap().pod).collect();
                    assert_eq!(
                        seen,
                        cluster.pod_names().into_iter().collect(),
                        "{transport:?} from {} to {to}",
                        from.name
                    );
                }
            }
            for to in service.lb(80) {
                client::http(&from.ns, to).unwrap();
            }
        }
    });
}

#[test]
fn external_addresses_answer_only_where_the_operator_allows_them() {
    if !need::root("external_addresses_answer_only_where_the_operator_allows_them") {
        return;
    }
    for (args, allowed) in [(&["--external-ips", "192.168.60.0/24,fd00:60::/64"][..], true), (&[], false)] {
        let cluster = Cluster::start_with(Setting::Tc, args);
        let mut service = Service::new("web", 1).http().endpoints(&cluster.world.pods);
        service.external_ips = service.lb_ips().to_vec();
        cluster.agent.write("web.yaml", &service.yaml()).unwrap();
        // The Service that serves as a sign that the first one has been read.
        cluster.serve(Service::new("zzz", 2).http());
        for to in service.lb(80) {
            assert_eq!(client::http(&cluster.client().ns, to).is_ok(), allowed, "{to} with {args:?}");
        }
    }
}
