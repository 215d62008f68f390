//! Pods that reach themselves through their own Service.

use svc_tests::client::{Transport, UdpClient};
use svc_tests::manifest::Service;
use svc_tests::need;

use crate::cluster::{Cluster, Setting, in_every_setting};

#[test]
fn b32_a_pod_reaches_itself_and_sees_another_source() {
    in_every_setting("b32_a_pod_reaches_itself_and_sees_another_source", |cluster| reaches_itself(&cluster));
}

#[test]
fn b32_a_pod_reaches_itself_though_its_device_has_no_address() {
    if need::root("b32_a_pod_reaches_itself_though_its_device_has_no_address") {
        reaches_itself(&Cluster::start(Setting::Unnumbered));
    }
}

fn reaches_itself(cluster: &Cluster) {
    let pod = &cluster.world.pods[0];
    let service = Service::new("web", 1).http().echo().load_balancer().endpoints([pod]);
    cluster.agent.apply(&[&service]).unwrap();
    let node = &cluster.world.nodes[0];
    for targets in [service.cluster(7), service.lb(7), node.at(30_007)] {
        for (to, own) in targets.into_iter().zip(pod.host.addresses()) {
            for transport in Transport::ALL {
                let answer = transport.ask(&pod.host.ns, to, "me").unwrap();
                assert_eq!(answer.pod, pod.host.name);
                assert_ne!(answer.client.ip(), own, "{transport:?} to {to}");
            }
            let mut udp = UdpClient::open(&pod.host.ns, to.is_ipv4(), 0).unwrap();
            for n in 0..3 {
                udp.ask(to, &n.to_string()).unwrap();
            }
        }
    }
}
