//! Pods that dial ClusterIPs.

use std::collections::BTreeSet;
use std::time::Duration;

use svc_tests::client::{self, TcpClient, Transport, UdpClient};
use svc_tests::manifest::{Port, Service};
use svc_tests::server::ECHO;

use crate::cluster::in_every_setting;

/// Enough requests that each of four backends answers one, but for one run in a million.
const ENOUGH: usize = 60;

#[test]
fn b10_every_backend_answers_a_pod_with_the_address_it_dialled_and_sees_the_pod_itself() {
    in_every_setting("b10_every_backend_answers_a_pod", |cluster| {
        let service = cluster.serve(Service::new("web", 1).http().echo());
        // It is a backend, too, so that some of its connections come back to itself: see `hairpin`.
        let pod = cluster.pod(0);
        for (to, own) in service.cluster(7).into_iter().zip(pod.addresses()) {
            for transport in Transport::ALL {
                let mut seen = BTreeSet::new();
                for n in 0..ENOUGH {
                    // The client itself checks where UDP answers come from.
                    let answer = transport.ask(&pod.ns, to, &format!("question {n}")).unwrap();
                    if answer.pod != pod.name {
                        assert_eq!(answer.client.ip(), own, "{} saw another source", answer.pod);
                    }
                    seen.insert(answer.pod);
                }
                assert_eq!(seen, cluster.pod_names().into_iter().collect(), "{transport:?} to {to}");
            }
        }
        for to in service.cluster(80) {
            client::http(&pod.ns, to).unwrap();
        }
    });
}

#[test]
fn b11_tcp_and_udp_at_the_same_number_are_independent() {
    in_every_setting("b11_tcp_and_udp_at_the_same_number_are_independent", |cluster| {
        let port = |transport, name, number| Port { name, transport, port: 53, target: ECHO, node_port: number };
        let mut tcp = Service::new("tcp", 1).port(port(Transport::Tcp, "dns", 30_053));
        let mut udp = Service::new("udp", 1).port(port(Transport::Udp, "dns", 30_053));
        // One ClusterIP belongs to one Service: the two protocols meet at the nodePort.
        udp.number = 2;
        tcp = tcp.node_port().endpoints(&cluster.world.pods[1..2]);
        udp = udp.node_port().endpoints(&cluster.world.pods[2..3]);
        cluster.agent.apply(&[&tcp, &udp]).unwrap();
        let ask = |transport: Transport, to| transport.ask(&cluster.client().ns, to, "who").map(|answer| answer.pod);
        for to in cluster.world.nodes[0].at(30_053) {
            assert_eq!(ask(Transport::Tcp, to).unwrap(), cluster.pod(1).name);
            assert_eq!(ask(Transport::Udp, to).unwrap(), cluster.pod(2).name);
        }
        cluster.agent.remove("tcp.yaml").unwrap();
        cluster.agent.wait("tcp to be gone", |agent| Ok(agent.services()?.len() == 1)).unwrap();
        for to in cluster.world.nodes[0].at(30_053) {
            assert!(ask(Transport::Tcp, to).is_err());
            assert_eq!(ask(Transport::Udp, to).unwrap(), cluster.pod(2).name);
        }
    });
}

#[test]
fn b12_one_source_port_towards_two_vips_of_one_backend_gets_answers_of_both() {
    in_every_setting("b12_one_source_port_towards_two_vips_of_one_backend", |cluster| {
        let services = [1, 2]
            .map(|number| Service::new(&format!("web-{number}"), number).echo().endpoints(&cluster.world.pods[2..3]));
        cluster.agent.apply(&[&services[0], &services[1]]).unwrap();
        let ns = &cluster.pod(0).ns;
        for family in 0..2 {
            let vips = [0, 1].map(|index: usize| services[index].cluster(7)[family]);
            let mut udp = UdpClient::open(ns, vips[0].is_ipv4(), 20_001).unwrap();
            for n in 0..3 {
                for vip in vips {
                    udp.ask(vip, &format!("{n} to {vip}")).unwrap();
                }
            }
            let mut tcp = vips.map(|vip| TcpClient::from(client::connect_from(ns, 20_002, vip).unwrap()));
            for n in 0..3 {
                for connection in &mut tcp {
                    connection.ask(&n.to_string()).unwrap();
                }
            }
        }
    });
}

#[test]
fn b13_what_is_not_service_traffic_is_left_alone() {
    in_every_setting("b13_what_is_not_service_traffic_is_left_alone", |cluster| {
        cluster.serve(Service::new("web", 1).http().echo().node_port());
        let direct = Port { name: "other", transport: Transport::Tcp, port: 90, target: 9000, node_port: 30_090 };
        cluster.serve(Service::new("other", 2).port(direct.clone()).port(Port {
            name: "udp",
            transport: Transport::Udp,
            ..direct
        }));
        for (from, pod) in
            [(cluster.client(), cluster.pod(0)), (cluster.pod(0), cluster.pod(3)), (cluster.pod(2), cluster.pod(1))]
        {
            for (to, own) in pod.at(ECHO).into_iter().zip(from.addresses()) {
                // To a backend's own address, and from a port that backends of another Service listen on.
                let mut tcp = TcpClient::from(client::connect_from(&from.ns, 9000, to).unwrap());
                let mut udp = UdpClient::open(&from.ns, to.is_ipv4(), 9000).unwrap();
                for answer in [tcp.ask("tcp").unwrap(), udp.ask(to, "udp").unwrap()] {
                    assert_eq!((answer.client.ip(), answer.client.port()), (own, 9000), "{} to {to}", from.name);
                }
            }
        }
        assert_eq!(cluster.agent.flows().unwrap(), []);
    });
}

#[test]
fn b14_connections_stay_where_they_are_while_backends_change() {
    in_every_setting("b14_connections_stay_where_they_are_while_backends_change", |cluster| {
        let mut service = cluster.serve(Service::new("web", 1).echo().node_port());
        let inside = cluster.pod(1);
        let node = &cluster.world.nodes[0];
        let mut connections = Vec::new();
        for n in 0..12 {
            let (from, to) =
                if n % 2 == 0 { (inside, service.cluster(7)) } else { (cluster.client(), node.at(30_007)) };
            let mut connection = TcpClient::connect(&from.ns, to[n / 2 % 2]).unwrap();
            let pod = connection.ask("first").unwrap().pod;
            connections.push((connection, pod));
        }
        let all = service.endpoints.clone();
        for keep in [&[3, 2, 1, 0][..], &[0, 2], &[1], &[0, 1, 2, 3]] {
            service.endpoints = keep.iter().map(|&index| all[index].clone()).collect();
            cluster.agent.apply(&[&service]).unwrap();
            for (connection, pod) in &mut connections {
                assert_eq!(connection.ask("again").unwrap().pod, *pod, "with the backends {keep:?}");
            }
        }
    });
}

#[test]
fn b26_udp_from_the_same_port_moves_on_when_its_backend_is_removed() {
    in_every_setting("b26_udp_from_the_same_port_moves_on", |cluster| {
        let mut service = cluster.serve(Service::new("web", 1).echo().node_port());
        let all = service.endpoints.clone();
        let node = &cluster.world.nodes[0];
        for (from, targets) in [(cluster.pod(1), service.cluster(7)), (cluster.client(), node.at(30_007))] {
            for to in targets {
                let mut udp = UdpClient::open(&from.ns, to.is_ipv4(), 0).unwrap();
                let first = udp.ask(to, "first").unwrap().pod;
                assert_eq!(udp.ask(to, "second").unwrap().pod, first);
                service.endpoints = all.iter().filter(|endpoint| endpoint.name != first).cloned().collect();
                cluster.agent.apply(&[&service]).unwrap();
                assert_ne!(udp.ask(to, "third").unwrap().pod, first, "{} to {to}", from.name);
                service.endpoints = all.clone();
                cluster.agent.apply(&[&service]).unwrap();
            }
        }
        // With nobody left, nobody answers.
        service.endpoints.clear();
        let to = service.cluster(7)[0];
        let mut udp = UdpClient::open(&cluster.pod(1).ns, true, 0).unwrap();
        udp.ask(to, "still there").unwrap();
        cluster.agent.apply(&[&service]).unwrap();
        assert!(udp.ask(to, "nobody there").is_err());
        udp.expect_silence(Duration::from_millis(50)).unwrap();
    });
}
