//! Backends that are not there, or not any more.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use svc_tests::cgroup::{Kind, dial};
use svc_tests::client::TcpClient;
use svc_tests::manifest::Service;

use super::{ask, hear, sockets, spellings};

#[test]
fn b71_a_service_without_endpoints_refuses_at_once() {
    let Some(sockets) = sockets("b71_a_service_without_endpoints_refuses_at_once", "host") else { return };
    let mut service = sockets.serve(Service::new("web", 1).echo().node_port());
    let all = std::mem::take(&mut service.endpoints);
    sockets.agent.apply(&[&service]).unwrap();
    let node = sockets.world.node(0).unwrap();
    let dialled = spellings(service.cluster(7).into_iter().chain(node.at(30_007)));
    let begun = Instant::now();
    for &to in &dialled {
        for kind in [Kind::Tcp, Kind::Udp] {
            let socket = sockets.node.socket(kind, to.is_ipv4()).unwrap();
            assert_eq!(dial(&socket, to).unwrap_err().kind(), ErrorKind::ConnectionRefused, "{kind:?} to {to}");
        }
        let socket = sockets.node.udp(to.is_ipv4()).unwrap();
        assert_eq!(socket.send_to(b"hello", to).unwrap_err().kind(), ErrorKind::ConnectionRefused, "to {to}");
    }
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(1), "{} refusals took {took:?}", 3 * dialled.len());
    assert_eq!(sockets.counter("no_endpoint"), 3 * dialled.len() as u64);
    service.endpoints = all;
    sockets.agent.apply(&[&service]).unwrap();
    for to in dialled {
        TcpClient::from(sockets.node.connect(to).unwrap()).ask("tcp").unwrap();
        ask(&sockets.node.udp(to.is_ipv4()).unwrap(), to, "udp").unwrap();
    }
}

#[test]
fn b66_an_unknown_port_of_a_vip_refuses_at_once() {
    let Some(sockets) = sockets("b66_an_unknown_port_of_a_vip_refuses_at_once", "host") else { return };
    let service = sockets.serve(Service::new("web", 1).echo().node_port());
    for to in spellings(service.cluster(8)) {
        let socket = sockets.node.socket(Kind::Tcp, to.is_ipv4()).unwrap();
        assert_eq!(dial(&socket, to).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        let socket = sockets.node.udp(to.is_ipv4()).unwrap();
        assert_eq!(socket.send_to(b"hello", to).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    }
    assert_eq!(sockets.counter("unknown_port"), 6);
}

#[test]
fn b55_b71_a_local_policy_without_a_local_endpoint_refuses_and_says_why() {
    let Some(sockets) = sockets("b55_b71_a_local_policy_without_a_local_endpoint", "host") else { return };
    let mut service = sockets.serve(Service::new("web", 1).echo().spec("internalTrafficPolicy: Local"));
    for endpoint in &mut service.endpoints {
        "elsewhere".clone_into(&mut endpoint.node);
    }
    sockets.agent.apply(&[&service]).unwrap();
    sockets.agent.wait("the local set to be empty", |agent| Ok(agent.status()?.epoch > 0)).unwrap();
    for to in service.cluster(7) {
        sockets
            .agent
            .wait("the refusal", |_| {
                let socket = sockets.node.socket(Kind::Tcp, to.is_ipv4())?;
                Ok(dial(&socket, to).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused))
            })
            .unwrap();
    }
    assert!(sockets.counter("no_local_endpoint") >= 2);
    assert_eq!(sockets.counter("no_endpoint"), 0);
}

#[test]
fn b69_sockets_whose_backend_is_removed_are_told_or_go_elsewhere() {
    let Some(sockets) = sockets("b69_sockets_whose_backend_is_removed", "all") else { return };
    let mut service = sockets.serve(Service::new("web", 1).echo());
    let all = service.endpoints.clone();
    let pod = sockets.pod(1);
    for process in [&sockets.node, &pod] {
        for to in spellings(service.cluster(7)) {
            let connected = process.udp(to.is_ipv4()).unwrap();
            connected.connect(to).unwrap();
            connected.send(b"first").unwrap();
            let lost = hear(&connected).unwrap().0.pod;
            // What stays must not be disturbed.
            let kept = loop {
                let socket = process.udp(to.is_ipv4()).unwrap();
                socket.connect(to).unwrap();
                socket.send(b"first").unwrap();
                if hear(&socket).unwrap().0.pod != lost {
                    break socket;
                }
            };
            let mut tcp = loop {
                let mut tcp = TcpClient::from(process.connect(to).unwrap());
                if tcp.ask("first").unwrap().pod == lost {
                    break tcp;
                }
            };
            let free = loop {
                let socket = process.udp(to.is_ipv4()).unwrap();
                if ask(&socket, to, "first").unwrap().0.pod == lost {
                    break socket;
                }
            };
            // A connection of the process's own to the same backend is none of ours.
            let direct = process.udp(to.is_ipv4()).unwrap();
            let backend = sockets.world.pods.iter().find(|pod| pod.host.name == lost).unwrap();
            let address = spellings(backend.host.at(7000)).into_iter().find(|a| {
                (a.is_ipv4(), a.ip().to_canonical().is_ipv4()) == (to.is_ipv4(), to.ip().to_canonical().is_ipv4())
            });
            direct.connect(address.unwrap()).unwrap();

            service.endpoints = all.iter().filter(|endpoint| endpoint.name != lost).cloned().collect();
            sockets.agent.apply(&[&service]).unwrap();
            // Blocked in a read, as a client that waits for an answer.
            let error = hear(&connected).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionAborted, "{error} from {to}");
            let (answer, from) = ask(&free, to, "again").unwrap();
            assert_ne!(answer.pod, lost);
            assert_eq!(from, to);
            assert_eq!(tcp.ask("again").unwrap().pod, lost);
            for (socket, same) in [(&kept, false), (&direct, true)] {
                socket.send(b"again").unwrap();
                assert_eq!(hear(socket).unwrap().0.pod == lost, same);
            }
            service.endpoints = all.clone();
            sockets.agent.apply(&[&service]).unwrap();
        }
    }
    assert_eq!(sockets.counter("socket_resteered"), 6);
}
