//! Datagrams that are longer than the MTU, in both directions, in order and not.

use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::thread::sleep;
use std::time::Duration;

use nix::sys::socket::{self, AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage};
use svc_tests::client::{Transport, UdpClient};
use svc_tests::manifest::Service;
use svc_tests::need;
use svc_tests::netns::Netns;
use svc_tests::packet::Frame;
use svc_tests::pieces::pieces;

use crate::cluster::{Cluster, Setting, in_every_setting};

/// Port of the servers that answer datagrams.
const ECHO: u16 = 7000;
/// Bytes of Ethernet header, which raw sockets make themselves.
const ETH_LEN: usize = 14;

/// A text of so many bytes that no two parts of are alike.
fn text(len: usize) -> String {
    (0..).flat_map(|n| format!("{n}.").into_bytes()).take(len).map(char::from).collect()
}

/// Sends a datagram in pieces, the last one first, with a pause in between.
fn send_backwards(ns: &Netns, from: SocketAddr, to: SocketAddr, payload: &str, id: u32) {
    let frame = Frame::udp(&from.to_string(), &to.to_string()).payload(payload.as_bytes()).build();
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket =
        ns.run(|| socket::socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw)).unwrap().unwrap();
    let dst = SockaddrStorage::from(SocketAddr::new(to.ip(), 0));
    for piece in pieces(&frame, 1400, id).iter().rev() {
        socket::sendto(socket.as_raw_fd(), &piece[ETH_LEN..], &dst, MsgFlags::empty()).unwrap();
        sleep(Duration::from_millis(5));
    }
}

/// Clients and what they dial: ClusterIP, nodePort and load balancer, with and without source translation.
fn journeys<'a>(cluster: &'a Cluster, service: &Service) -> Vec<(&'a Netns, SocketAddr, SocketAddr)> {
    let (inside, outside) = (cluster.pod(1), cluster.client());
    let dialled =
        [(inside, service.cluster(7)), (outside, cluster.world.nodes[0].at(30_007)), (outside, service.lb(7))];
    let both = |(host, targets): (&'a svc_tests::topology::Host, [SocketAddr; 2])| {
        host.at(0).into_iter().zip(targets).map(|(own, to)| (&host.ns, own, to))
    };
    dialled.into_iter().flat_map(both).collect()
}

/// Datagrams of many lengths go there and back from and to every backend.
fn lengths(cluster: &Cluster) {
    for index in 0..cluster.world.pods.len() {
        let service = Service::new("web", 1).echo().load_balancer().endpoints(&cluster.world.pods[index..=index]);
        cluster.agent.apply(&[&service]).unwrap();
        for (ns, _, to) in journeys(cluster, &service) {
            // The last piece of some has a few bytes only (B45).
            for len in (1444..=1480).step_by(4).chain(1471..=1476).chain([3000, 8192, 40_000]) {
                Transport::Udp.ask(ns, to, &text(len)).unwrap_or_else(|error| panic!("{len} to {to}: {error:#}"));
            }
        }
    }
}

#[test]
fn b44_datagrams_longer_than_the_mtu_go_there_and_back() {
    in_every_setting("b44_datagrams_longer_than_the_mtu_go_there_and_back", |cluster| lengths(&cluster));
    if need::root("b44_datagrams_longer_than_the_mtu_go_there_and_back") {
        lengths(&Cluster::start_with(Setting::Tc, &["--forwarding", "kernel"]));
    }
}

/// Datagrams whose pieces come in the wrong order arrive whole, there and back.
fn backwards(cluster: &Cluster) {
    for index in 0..cluster.world.pods.len() {
        let pod = &cluster.world.pods[index].host;
        let service = Service::new("web", 1).echo().load_balancer().endpoints(&cluster.world.pods[index..=index]);
        cluster.agent.apply(&[&service]).unwrap();
        for (id, (ns, own, to)) in (1..).zip(journeys(cluster, &service)) {
            let mut udp = UdpClient::open(ns, to.is_ipv4(), 0).unwrap();
            let own = SocketAddr::new(own.ip(), udp.port().unwrap());
            let long = text(8000);
            send_backwards(ns, own, to, &long, id + 100 * index as u32);
            let answer = udp.hear(to).unwrap_or_else(|error| panic!("{to} by {}: {error:#}", pod.name));
            assert!(answer.ends_with(&format!("{long}\n")), "the text is another");
            let seen = udp.ask(to, "who am I").unwrap().client;
            let server = pod.at(ECHO)[usize::from(!to.is_ipv4())];
            send_backwards(&pod.ns, server, seen, &long, id + 100 * index as u32);
            assert_eq!(udp.hear(to).unwrap(), long, "{to} by {}", pod.name);
        }
    }
}

#[test]
fn b46_pieces_in_the_wrong_order_arrive_whole() {
    in_every_setting("b46_pieces_in_the_wrong_order_arrive_whole", |cluster| backwards(&cluster));
    if need::root("b46_pieces_in_the_wrong_order_arrive_whole") {
        backwards(&Cluster::start_with(Setting::Tc, &["--forwarding", "kernel"]));
    }
}
