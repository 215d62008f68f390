//! The harness itself: worlds connect what they say they connect, before any service is involved.

use svc_tests::client::{self, Transport};
use svc_tests::need;
use svc_tests::netns;
use svc_tests::server::{ECHO, HTTP};
use svc_tests::topology::{PodNetwork, Shape, World};

fn check(shape: Shape) {
    let world = World::build(shape).unwrap();
    let _servers = world.start_servers().unwrap();
    let clients = world.clients.iter().chain(world.pods.iter().map(|pod| &pod.host)).chain(&world.nodes);
    for from in clients {
        for pod in world.pods.iter().map(|pod| &pod.host).filter(|pod| pod.name != from.name) {
            for (to, seen_as) in pod.at(ECHO).into_iter().zip(from.addresses()) {
                for transport in Transport::ALL {
                    let answer = transport.ask(&from.ns, to, "hello").unwrap();
                    assert_eq!(answer.pod, pod.name);
                    // A node may choose any of its addresses.
                    if !from.name.starts_with("node") {
                        assert_eq!(answer.client.ip(), seen_as, "{} to {to}", from.name);
                    }
                }
            }
            for to in pod.at(HTTP) {
                assert_eq!(client::http(&from.ns, to).unwrap().pod, pod.name);
            }
        }
    }
}

#[test]
fn everybody_reaches_every_pod_directly() {
    if need::root("everybody_reaches_every_pod_directly") {
        check(Shape { clients: 2, ..Shape::default() });
    }
}

#[test]
fn everybody_reaches_every_pod_over_bridges_and_without_offloads() {
    if need::root("everybody_reaches_every_pod_over_bridges_and_without_offloads") {
        check(Shape { pod_network: PodNetwork::Bridge, ..Shape::default() });
        check(Shape { offloads: false, ..Shape::default() });
    }
}

#[test]
fn a_download_arrives_whole() {
    if !need::root("a_download_arrives_whole") {
        return;
    }
    let world = World::build(Shape { nodes: 1, pods_per_node: 1, ..Shape::default() }).unwrap();
    let _servers = world.start_servers().unwrap();
    for to in world.pods[0].host.at(HTTP) {
        let stream = client::connect(&world.client().unwrap().ns, to).unwrap();
        assert_eq!(client::download(stream, 3_000_001, None).unwrap(), 3_000_001);
    }
}

#[test]
fn a_world_that_is_dropped_leaves_nothing() {
    if !need::root("a_world_that_is_dropped_leaves_nothing") {
        return;
    }
    let world = World::build(Shape { nodes: 1, pods_per_node: 1, ..Shape::default() }).unwrap();
    let name = world.name.clone();
    let _server = svc_tests::server::Server::start(&world.pods[0].host).unwrap();
    assert_eq!(netns::list(&format!("{name}-")).len(), 4);
    drop(world);
    assert_eq!(netns::list(&format!("{name}-")), [""; 0]);
}
