//! Direct server return: a client behind a router, two nodes that balance, one with the pods, and an agent on each.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use svc_tests::agent::Agent;
use svc_tests::client::{self, TcpClient, Transport, UdpClient};
use svc_tests::manifest::Service;
use svc_tests::need;
use svc_tests::netns::Netns;
use svc_tests::server::Server;
use svc_tests::topology::{Host, LB_V4, LB_V6, PodNetwork, Shape, World};

/// The nodes that balance, and the one with the pods.
const BALANCERS: [usize; 2] = [0, 1];
const BACKENDS: usize = 2;

struct Site {
    agents: Vec<Agent>,
    _servers: Vec<Server>,
    world: World,
    service: Service,
}

impl Site {
    fn start(pod_network: PodNetwork, args: &[&str]) -> Self {
        let world = World::build(Shape { clients: 2, nodes: 3, pod_network, ..Shape::default() }).unwrap();
        let [client, router] = [&world.clients[0], &world.clients[1]];
        for (key, value) in [
            ("net/ipv4/ip_forward", "1"),
            ("net/ipv6/conf/all/forwarding", "1"),
            // The client is to know nothing of the nodes.
            ("net/ipv4/conf/all/send_redirects", "0"),
            ("net/ipv4/conf/eth0/send_redirects", "0"),
        ] {
            router.ns.sysctl(key, value).unwrap();
        }
        client.ns.sysctl("net/ipv6/conf/eth0/accept_redirects", "0").unwrap();
        client
            .ns
            .ip(&format!("route replace {LB_V4} via {}\nroute replace {LB_V6} via {}", router.v4, router.v6))
            .unwrap();
        let servers = world.start_servers().unwrap();
        let service = Service::new("web", 1).http().echo().load_balancer().endpoints(world.pods_of(BACKENDS));
        let agents = world.nodes.iter().map(|node| Agent::start_with(node, args).unwrap()).collect();
        let site = Self { agents, _servers: servers, world, service };
        for agent in &site.agents {
            agent.apply(&[&site.service]).unwrap();
        }
        site.switch_to(BALANCERS[0]);
        site
    }

    fn client(&self) -> &Host {
        &self.world.clients[0]
    }

    /// Has the router send what is for the Service to one of the nodes.
    fn switch_to(&self, node: usize) {
        let node = &self.world.nodes[node];
        self.world.clients[1]
            .ns
            .ip(&format!("route replace {LB_V4} via {}\nroute replace {LB_V6} via {}", node.v4, node.v6))
            .unwrap();
    }
}

/// Bytes that have left a namespace through its `eth0`.
fn sent(ns: &Netns) -> u64 {
    let text = ns.run(|| std::fs::read_to_string("/proc/thread-self/net/dev")).flatten().unwrap();
    let values = text.lines().find_map(|line| line.trim_start().strip_prefix("eth0:")).unwrap();
    values.split_whitespace().nth(8).unwrap().parse().unwrap()
}

#[test]
fn b28_with_direct_server_return_pods_see_the_client_and_answer_past_the_balancing_node() {
    if !need::root("b28_with_direct_server_return_pods_see_the_client_and_answer_past_the_balancing_node") {
        return;
    }
    for (network, forwarding, encapsulation) in [
        (PodNetwork::Routed, "fast", "ipip"),
        (PodNetwork::Routed, "kernel", "ipip"),
        (PodNetwork::Bridge, "fast", "ipip"),
        (PodNetwork::Routed, "fast", "geneve"),
        (PodNetwork::Bridge, "kernel", "geneve"),
    ] {
        println!("{network:?} {forwarding} {encapsulation}");
        let args = ["--forwarding-mode", "dsr", "--forwarding", forwarding, "--dsr-encapsulation", encapsulation];
        let site = Site::start(network, &args);
        for family in 0..2 {
            let (http, echo) = (site.service.lb(80)[family], site.service.lb(7)[family]);
            let node_port = SocketAddr::new(site.world.nodes[BALANCERS[1]].addresses()[family], 30_007);
            for to in [echo, node_port] {
                for transport in Transport::ALL {
                    for n in 0..10 {
                        let answer = transport.ask(&site.client().ns, to, &n.to_string()).unwrap();
                        assert!(answer.pod.starts_with("pod-2"), "{answer}");
                        assert_eq!(answer.client.ip(), site.client().addresses()[family], "{transport:?} to {to}");
                    }
                }
            }
            let before = BALANCERS.map(|node| sent(&site.world.nodes[node].ns));
            client::download(client::connect(&site.client().ns, http).unwrap(), 20_000_000, None).unwrap();
            for (node, before) in BALANCERS.into_iter().zip(before) {
                let sent = sent(&site.world.nodes[node].ns) - before;
                assert!(sent < 4_000_000, "node {node} has sent {sent} bytes");
            }
        }
    }
}

#[test]
fn b41_an_upload_finds_out_how_much_fits_into_the_tunnel() {
    if !need::root("b41_an_upload_finds_out_how_much_fits_into_the_tunnel") {
        return;
    }
    for encapsulation in ["ipip", "geneve"] {
        let args = ["--forwarding-mode", "dsr", "--dsr-encapsulation", encapsulation];
        let site = Site::start(PodNetwork::Routed, &args);
        let node = &site.world.nodes[BALANCERS[0]];
        let node_ports = node.addresses().map(|addr| SocketAddr::new(addr, 30_007));
        for to in site.service.lb(7).into_iter().chain(node_ports) {
            let mut client = TcpClient::connect(&site.client().ns, to).unwrap();
            let line = "x".repeat(5_000_000);
            client.ask(&line).unwrap_or_else(|error| panic!("{encapsulation} to {to}: {error:#}"));
        }
    }
}

#[test]
fn b22_established_connections_survive_the_loss_of_the_balancing_node() {
    if !need::root("b22_established_connections_survive_the_loss_of_the_balancing_node") {
        return;
    }
    let mut site = Site::start(PodNetwork::Routed, &["--forwarding-mode", "dsr"]);
    let (http, echo) = (site.service.lb(80), site.service.lb(7));
    let downloads: Vec<_> = http
        .into_iter()
        .map(|to| {
            let stream = client::connect(&site.client().ns, to).unwrap();
            let started = Instant::now();
            thread::spawn(move || (client::download(stream, 12_000_000, Some(3_000_000)), started.elapsed()))
        })
        .collect();
    let mut open = Vec::new();
    for to in echo {
        for _ in 0..10 {
            let mut tcp = TcpClient::connect(&site.client().ns, to).unwrap();
            let mut udp = UdpClient::open(&site.client().ns, to.is_ipv4(), 0).unwrap();
            let pods = [tcp.ask("before").unwrap().pod, udp.ask(to, "before").unwrap().pod];
            open.push((to, tcp, udp, pods));
        }
    }
    thread::sleep(Duration::from_millis(500));
    // Gone with all that it knew.
    let lost = Instant::now();
    site.agents[BALANCERS[0]].kill().unwrap();
    site.world.nodes[BALANCERS[0]].ns.ip("link set eth0 down").unwrap();
    site.switch_to(BALANCERS[1]);
    for round in 0..3 {
        for (to, tcp, udp, pods) in &mut open {
            let answers = [tcp.ask(&round.to_string()).unwrap().pod, udp.ask(*to, &round.to_string()).unwrap().pod];
            assert_eq!(answers, *pods);
        }
    }
    for to in echo {
        Transport::Tcp.ask(&site.client().ns, to, "a new one").unwrap();
    }
    for download in downloads {
        let (result, took) = download.join().unwrap();
        result.unwrap();
        assert!(took > Duration::from_secs(2), "{took:?}: over before the node was lost, {:?} ago", lost.elapsed());
    }
}

#[test]
fn b28_each_service_may_say_how_its_packets_reach_other_nodes() {
    if !need::root("b28_each_service_may_say_how_its_packets_reach_other_nodes") {
        return;
    }
    for (node, annotation, kept) in [("snat", "dsr", true), ("dsr", "snat", false)] {
        let site = Site::start(PodNetwork::Routed, &["--forwarding-mode", node]);
        let ask = |to| Transport::Tcp.ask(&site.client().ns, to, "who am I?").unwrap().client.ip();
        for (family, to) in site.service.lb(7).into_iter().enumerate() {
            assert_eq!(ask(to) == site.client().addresses()[family], !kept);
        }
        let service = site.service.clone().annotation("svc-agent/forwarding-mode", annotation);
        for agent in &site.agents {
            agent.write("web.yaml", &service.yaml()).unwrap();
        }
        for (family, to) in site.service.lb(7).into_iter().enumerate() {
            // While some nodes know of the change and others do not yet, a connection may fail.
            let seen = |to| Transport::Tcp.ask(&site.client().ns, to, "who am I?").map(|answer| answer.client.ip());
            let deadline = Instant::now() + Duration::from_secs(10);
            while !seen(to).is_ok_and(|seen| (seen == site.client().addresses()[family]) == kept) {
                assert!(Instant::now() < deadline, "{annotation} on nodes with {node}");
            }
        }
    }
}
