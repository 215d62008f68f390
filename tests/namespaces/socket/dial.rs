//! Processes dial: connect, datagrams, and what they cost.

use std::collections::BTreeSet;

use svc_tests::cgroup::{Kind, dial};
use svc_tests::client::TcpClient;
use svc_tests::manifest::Service;
use svc_tests::server::ECHO;

use super::{ENOUGH, ask, plain, sockets, spellings};

#[test]
fn b67_a_connected_socket_reaches_every_backend_and_is_told_the_vip() {
    let Some(sockets) = sockets("b67_a_connected_socket_reaches_every_backend", "host") else { return };
    let service = sockets.serve(Service::new("web", 1).echo().node_port());
    let pods: BTreeSet<String> = sockets.world.pods.iter().map(|pod| pod.host.name.clone()).collect();
    let node = sockets.world.node(0).unwrap();
    for to in spellings(service.cluster(7).into_iter().chain(node.at(30_007))) {
        let mut seen = [BTreeSet::new(), BTreeSet::new()];
        for n in 0..ENOUGH {
            let stream = sockets.node.connect(to).unwrap();
            assert_eq!(stream.peer_addr().unwrap(), to);
            let own = stream.local_addr().unwrap();
            let answer = TcpClient::from(stream).ask(&n.to_string()).unwrap();
            // Nothing lies between the process and the backend.
            assert_eq!(answer.client, plain(own), "to {to}");
            seen[0].insert(answer.pod);

            let socket = sockets.node.udp(to.is_ipv4()).unwrap();
            socket.connect(to).unwrap();
            assert_eq!(socket.peer_addr().unwrap(), to);
            let own = socket.local_addr().unwrap();
            socket.send(n.to_string().as_bytes()).unwrap();
            let (answer, from) = super::hear(&socket).unwrap();
            assert_eq!((answer.client, from), (plain(own), to));
            seen[1].insert(answer.pod);
        }
        assert_eq!(seen, [pods.clone(), pods.clone()], "to {to}");
    }
}

#[test]
fn b49_a_mapped_address_is_a_service_of_ipv4_and_of_no_other_family() {
    let Some(sockets) = sockets("b49_a_mapped_address_is_a_service_of_ipv4", "host") else { return };
    let mut service = sockets.serve(Service::new("web", 1).echo());
    let [v4, v6] = service.cluster(7);
    let mapped = spellings([v4])[1];
    for to in [mapped, v6] {
        let answer = TcpClient::from(sockets.node.connect(to).unwrap()).ask("tcp").unwrap();
        assert_eq!(answer.client.is_ipv4(), to == mapped);
        let socket = sockets.node.udp(false).unwrap();
        // One socket, both families.
        for to in [to, v6, mapped] {
            let (answer, from) = ask(&socket, to, "udp").unwrap();
            assert_eq!((answer.client.is_ipv4(), from), (to == mapped, to));
        }
    }
    // Without endpoints it is refused as IPv4 is.
    service.endpoints.clear();
    sockets.agent.apply(&[&service]).unwrap();
    for to in [mapped, v6] {
        let socket = sockets.node.socket(Kind::Tcp, false).unwrap();
        assert_eq!(dial(&socket, to).unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    }
}

#[test]
fn b50_processes_of_one_namespace_stay_with_one_backend_by_affinity() {
    let Some(sockets) = sockets("b50_processes_of_one_namespace_stay_with_one_backend", "host") else { return };
    let service = sockets.serve(Service::new("web", 1).echo().spec("sessionAffinity: ClientIP"));
    for to in service.cluster(7) {
        let ask = || TcpClient::from(sockets.node.connect(to).unwrap()).ask("who").unwrap().pod;
        let first = ask();
        assert!((0..ENOUGH).all(|_| ask() == first));
    }
}

#[test]
fn b67_a_connection_of_a_local_process_costs_nothing_per_packet() {
    let Some(sockets) = sockets("b67_a_connection_of_a_local_process_costs_nothing_per_packet", "all") else { return };
    let service = sockets.serve(Service::new("web", 1).echo());
    let pod = sockets.pod(0);
    let mut connections = 0;
    for to in service.cluster(7) {
        for process in [&sockets.node, &pod] {
            let mut tcp = TcpClient::from(process.connect(to).unwrap());
            let udp = process.udp(to.is_ipv4()).unwrap();
            for n in 0..20 {
                tcp.ask(&n.to_string()).unwrap();
                ask(&udp, to, &n.to_string()).unwrap();
            }
            connections += 2;
        }
    }
    assert_eq!(sockets.agent.flows().unwrap(), []);
    let shown = sockets.agent.services().unwrap().remove(0);
    let sum = |count: fn(&svc_agent::control::api::ServicePort) -> u64| shown.ports.iter().map(count).sum::<u64>();
    assert_eq!(sum(|port| port.new_flows), connections);
    assert_eq!(sum(|port| port.forward.packets + port.reverse.packets), 0);
    assert_eq!(sockets.counter("socket_translated"), connections);
    // What the hooks leave alone is what it was.
    let direct = sockets.world.pods[0].host.at(ECHO)[0];
    assert_eq!(sockets.node.connect(direct).unwrap().peer_addr().unwrap(), direct);
    assert_eq!(sockets.counter("socket_translated"), connections);
}
