//! Clients outside that dial a node's addresses.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use svc_tests::agent::Agent;
use svc_tests::client::{self, Transport};
use svc_tests::manifest::Service;
use svc_tests::need;

use crate::cluster::{Cluster, Setting, in_every_setting};

#[test]
fn b28_remote_backends_see_the_node_and_local_ones_the_client() {
    in_every_setting("b28_remote_backends_see_the_node_and_local_ones_the_client", |cluster| {
        cluster.serve(Service::new("web", 1).echo().node_port());
        let (client, node) = (cluster.client(), &cluster.world.nodes[0]);
        for (family, to) in node.at(30_007).into_iter().enumerate() {
            for transport in Transport::ALL {
                let mut seen = BTreeSet::new();
                for n in 0..60 {
                    let answer = transport.ask(&client.ns, to, &format!("question {n}")).unwrap();
                    let remote = answer.pod.starts_with("pod-1");
                    let expected = if remote { node } else { client }.addresses()[family];
                    assert_eq!(answer.client.ip(), expected, "{transport:?} to {to}, {}", answer.pod);
                    if remote {
                        // B30: apart from nodePorts and from what sockets of the node use.
                        assert!((1024..30_000).contains(&answer.client.port()), "{answer}");
                    }
                    seen.insert(answer.pod);
                }
                assert_eq!(seen, cluster.pod_names().into_iter().collect(), "{transport:?} to {to}");
            }
        }
    });
}

#[test]
fn b28_the_source_is_one_that_the_next_hop_can_answer() {
    in_every_setting("b28_the_source_is_one_that_the_next_hop_can_answer", |cluster| {
        let [node, far] = [&cluster.world.nodes[0], &cluster.world.nodes[1]];
        let pods = &cluster.world.pods[2..];
        // The other node knows no way to the networks of the addresses that now come first. Where the kernel goes by the
        // next hop itself (IPv4), it is left to; otherwise the route says.
        node.ns
            .ip(&format!(
                "addr del {near}/24 dev eth0\naddr add 10.50.1.1/24 dev eth0\naddr add {near}/24 dev eth0\n\
                 route add 10.244.1.0/24 via {far}\naddr add fd00:51::1/64 dev eth0 nodad\n\
                 route replace fd00:244:1::/64 via {far6} src {near6}",
                near = node.v4,
                far = far.v4,
                near6 = node.v6,
                far6 = far.v6
            ))
            .unwrap();
        let service = Service::new("web", 1).echo().load_balancer().endpoints(pods);
        cluster.agent.apply(&[&service]).unwrap();
        for (to, own) in service.lb(7).into_iter().zip(node.addresses()) {
            for transport in Transport::ALL {
                assert_eq!(transport.ask(&cluster.client().ns, to, "hello").unwrap().client.ip(), own);
            }
        }
    });
}

#[test]
fn b28_large_downloads_arrive_whole_from_every_backend() {
    in_every_setting("b28_large_downloads_arrive_whole_from_every_backend", |cluster| {
        for index in 0..cluster.world.pods.len() {
            let service = Service::new("web", 1).http().node_port().endpoints(&cluster.world.pods[index..=index]);
            cluster.agent.apply(&[&service]).unwrap();
            for to in cluster.world.nodes[0].at(30_080) {
                let stream = client::connect(&cluster.client().ns, to).unwrap();
                client::download(stream, 5_000_000, None).unwrap();
            }
        }
    });
}

#[test]
fn b36_node_ports_answer_on_every_address_that_the_node_has_at_the_moment() {
    in_every_setting("b36_node_ports_answer_on_every_address", |cluster| {
        let service = cluster.serve(Service::new("web", 1).http().echo().node_port());
        let node = &cluster.world.nodes[0];
        let later: [IpAddr; 2] = ["192.168.50.77".parse().unwrap(), "fd00:50::77".parse().unwrap()];
        let ask = |addr: IpAddr| client::http(&cluster.client().ns, SocketAddr::new(addr, 30_080));
        for addr in node.addresses() {
            ask(addr).unwrap();
        }
        // A VIP does not answer at the nodePort, and a node address not at the Service's own port.
        assert!(client::http(&cluster.pod(0).ns, service.cluster(30_080)[0]).is_err());
        assert!(client::http(&cluster.client().ns, node.at(80)[0]).is_err());

        node.ns.ip(&format!("addr add {}/24 dev eth0\naddr add {}/64 dev eth0 nodad", later[0], later[1])).unwrap();
        let answers = |expected: bool| {
            cluster.agent.wait("the addresses to change", |agent| {
                let shown = agent.services()?;
                let has = |addr: &IpAddr| {
                    shown.iter().any(|service| {
                        service.ports.iter().any(|port| port.frontends.iter().any(|frontend| frontend.address == *addr))
                    })
                };
                Ok(later.iter().all(|addr| has(addr) == expected))
            })
        };
        answers(true).unwrap();
        for addr in later {
            ask(addr).unwrap();
            Transport::Udp.ask(&cluster.client().ns, SocketAddr::new(addr, 30_007), "hello").unwrap();
        }
        node.ns.ip(&format!("addr del {}/24 dev eth0\naddr del {}/64 dev eth0", later[0], later[1])).unwrap();
        answers(false).unwrap();
        for addr in node.addresses() {
            ask(addr).unwrap();
        }
    });
}

#[test]
fn b36_a_filter_limits_the_addresses_that_answer() {
    if !need::root("b36_a_filter_limits_the_addresses_that_answer") {
        return;
    }
    let cluster = Cluster::start_with(Setting::Tc, &["--node-port-addresses", "192.168.50.0/24"]);
    cluster.serve(Service::new("web", 1).http().node_port());
    let [v4, v6] = cluster.world.nodes[0].at(30_080);
    client::http(&cluster.client().ns, v4).unwrap();
    assert!(client::http(&cluster.client().ns, v6).is_err());
}

#[test]
fn b31_local_sockets_are_kept_off_node_ports_and_the_administrators_entries_stay() {
    if !need::root("b31_local_sockets_are_kept_off_node_ports_and_the_administrators_entries_stay") {
        return;
    }
    let mut cluster = Cluster::start(Setting::Tc);
    let ns = &cluster.world.nodes[0].ns;
    let reserved = || {
        let read = || std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_reserved_ports");
        ns.run(read).flatten().unwrap().trim().to_owned()
    };
    let until = |agent: &Agent, expected: &str| agent.wait(expected, |_| Ok(reserved() == expected)).unwrap();
    ns.sysctl("net/ipv4/ip_local_reserved_ports", "20000-20010,30080").unwrap();
    let service = Service::new("web", 1).http().echo().node_port().endpoints(&cluster.world.pods);
    cluster.agent.apply(&[&service]).unwrap();
    until(&cluster.agent, "20000-20010,30007,30080");
    // Its successor still knows which are its own.
    cluster.agent.restart().unwrap();
    until(&cluster.agent, "20000-20010,30007,30080");
    ns.sysctl("net/ipv4/ip_local_reserved_ports", "20000-20020,30080").unwrap();
    until(&cluster.agent, "20000-20020,30007,30080");
    cluster.agent.remove("web.yaml").unwrap();
    until(&cluster.agent, "20000-20020,30080");
}
