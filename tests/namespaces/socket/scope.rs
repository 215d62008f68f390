//! Whose sockets are served.

use std::io::ErrorKind;
use std::net::SocketAddr;

use svc_tests::cgroup::{Kind, Process, dial};
use svc_tests::client::TcpClient;
use svc_tests::manifest::Service;
use svc_tests::netns::path_of;
use svc_tests::server::Server;

use super::{Sockets, ask, sockets, sockets_with, spellings};

/// Whether a process's connection is made by the hooks; it works in any case.
fn is_hooked(sockets: &Sockets, process: &Process, to: SocketAddr) -> bool {
    let before = sockets.counter("socket_translated");
    let stream = process.connect(to).unwrap();
    assert_eq!(stream.peer_addr().unwrap(), to);
    TcpClient::from(stream).ask("who").unwrap();
    assert_eq!(ask(&process.udp(to.is_ipv4()).unwrap(), to, "who").unwrap().1, to);
    match sockets.counter("socket_translated") - before {
        0 => false,
        2 => true,
        other => panic!("{other} of two connections were made by the hooks"),
    }
}

#[test]
fn b71_the_scope_host_leaves_pods_to_the_packet_path_and_all_does_not() {
    for (scope, pods) in [("host", false), ("all", true)] {
        let Some(sockets) = sockets("b71_the_scope_host_leaves_pods_to_the_packet_path", scope) else { return };
        let service = sockets.serve(Service::new("web", 1).echo());
        let pod = sockets.pod(0);
        for to in service.cluster(7) {
            assert!(is_hooked(&sockets, &sockets.node, to), "{scope}");
            assert_eq!(is_hooked(&sockets, &pod, to), pods, "{scope}");
        }
        assert_eq!(sockets.agent.flows().unwrap().is_empty(), pods);
        let status = sockets.agent.status().unwrap().sockets;
        assert_eq!((status.scope.as_str(), status.attached.len(), status.reason.as_str()), (scope, 9, ""));
        // A process outside of the group is nobody's.
        let outside = Process::start(&sockets.world.pods[0].host.ns, None).unwrap();
        assert!(!is_hooked(&sockets, &outside, service.cluster(7)[0]));
    }
}

#[test]
fn b71_a_namespace_that_opts_out_is_served_by_the_packet_path_alone() {
    let args = |world: &svc_tests::topology::World| {
        let pattern = path_of(world.pods[1].host.ns.name()).display().to_string();
        // Names end in the pod's number: a pattern that fits one of them.
        vec!["--socket-lb-skip-netns".to_owned(), format!("{}*", &pattern[..pattern.len()])]
    };
    let test = "b71_a_namespace_that_opts_out_is_served_by_the_packet_path_alone";
    let Some(sockets) = sockets_with(test, "all", &args) else { return };
    let service = sockets.serve(Service::new("web", 1).echo());
    let pods = [sockets.pod(0), sockets.pod(1)];
    for to in service.cluster(7) {
        assert!(is_hooked(&sockets, &pods[0], to));
        assert!(!is_hooked(&sockets, &pods[1], to));
    }
    assert!(!sockets.agent.flows().unwrap().is_empty());
    assert_eq!(sockets.agent.status().unwrap().sockets.skipped_namespaces, 1);
}

#[test]
fn b35_loopback_node_ports_answer_processes_of_the_node_alone() {
    let Some(sockets) = sockets("b35_loopback_node_ports_answer_processes_of_the_node_alone", "all") else { return };
    let service = sockets.serve(Service::new("web", 1).echo().node_port());
    let node = sockets.world.node(0).unwrap();
    let loopback = |port| ["127.0.0.1", "127.9.8.7", "::1"].map(|ip| SocketAddr::new(ip.parse().unwrap(), port));
    for to in spellings(loopback(30_007)).into_iter().chain(node.at(30_007)) {
        assert!(is_hooked(&sockets, &sockets.node, to), "{to}");
    }
    // The ClusterIP's port is not a nodePort, and a pod's loopback is its own.
    let pod = sockets.pod(0);
    let before = sockets.counter("socket_translated");
    for (process, port) in [(&sockets.node, 7), (&pod, 30_007)] {
        for to in loopback(port) {
            let socket = process.socket(Kind::Tcp, to.is_ipv4()).unwrap();
            assert_eq!(dial(&socket, to).unwrap_err().kind(), ErrorKind::ConnectionRefused, "{to}");
        }
    }
    // What listens on loopback behind other ports is reached as ever.
    let _local = Server::listen(&node.ns, "local", Some("127.0.0.1".parse().unwrap())).unwrap();
    let to = "127.0.0.1:7000".parse().unwrap();
    assert_eq!(TcpClient::from(sockets.node.connect(to).unwrap()).ask("who").unwrap().pod, "local");
    assert_eq!(sockets.counter("socket_translated"), before);
    drop(service);
}
