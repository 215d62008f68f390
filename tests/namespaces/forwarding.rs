//! Past the stack or through it: what `--forwarding` says, on every kind of network that pods may have.

use svc_agent::control::api::{TcKind, XdpMode};
use svc_tests::agent::Agent;
use svc_tests::client::{self, TcpClient, Transport};
use svc_tests::manifest::Service;
use svc_tests::need;
use svc_tests::netns::Netns;
use svc_tests::topology::{PodNetwork, Shape, World};

use crate::cluster::{Cluster, Setting};

/// Enough that a stack that forwards it forwards hundreds of packets, aggregates or not.
const BYTES: u64 = 20_000_000;

/// Packets that the stack of a namespace has forwarded, IPv4 and IPv6.
fn forwarded(ns: &Netns) -> [u64; 2] {
    let read = |file: &'static str| ns.run(move || std::fs::read_to_string(file)).flatten().unwrap();
    let v4 = read("/proc/thread-self/net/snmp");
    let mut lines = v4.lines().filter_map(|line| line.strip_prefix("Ip: "));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let at = names.split(' ').position(|name| name == "ForwDatagrams").unwrap();
    let v6 = read("/proc/thread-self/net/snmp6");
    let v6 = v6.lines().find_map(|line| line.strip_prefix("Ip6OutForwDatagrams")).unwrap();
    [values.split(' ').nth(at).unwrap().parse().unwrap(), v6.trim().parse().unwrap()]
}

/// Downloads and uploads from a client outside and from a pod, with a backend here and elsewhere; the stack of the node
/// has forwarded many packets or next to none.
fn check_stack(setting: Setting, forwarding: &str, through_stack: bool) {
    let cluster = Cluster::start_with(setting, &["--forwarding", forwarding]);
    check_stack_of(&cluster, &format!("{setting:?} {forwarding}"), through_stack);
}

fn check_stack_of(cluster: &Cluster, name: &str, through_stack: bool) {
    let node = &cluster.world.nodes[0];
    for (index, here) in [(1, true), (2, false)] {
        let service = Service::new("web", 1).http().echo().load_balancer().endpoints([&cluster.world.pods[index]]);
        cluster.agent.apply(&[&service]).unwrap();
        for (from, outside) in [(cluster.client(), true), (cluster.pod(0), false)] {
            let [http, echo] =
                if outside { [service.lb(80), service.lb(7)] } else { [service.cluster(80), service.cluster(7)] };
            for family in 0..2 {
                let before = forwarded(&node.ns)[family];
                client::download(client::connect(&from.ns, http[family]).unwrap(), BYTES, None).unwrap();
                let mut both_ways = TcpClient::connect(&from.ns, echo[family]).unwrap();
                let line = "x".repeat(3_000_000);
                let answer = both_ways.ask(&line).unwrap();
                // Only what comes from outside and goes elsewhere has another source.
                assert_eq!(answer.client.ip() == from.addresses()[family], here || !outside);
                Transport::Udp.ask(&from.ns, echo[family], "hello").unwrap();
                let packets = forwarded(&node.ns)[family] - before;
                let what = format!("{name}, {} to {}: {packets}", from.name, http[family]);
                println!("{what}");
                if through_stack && (here || !outside) {
                    assert!(packets > 300, "{what}");
                } else {
                    // While a neighbour is unknown, and what others send.
                    assert!(packets < 30, "{what}");
                }
            }
        }
    }
}

#[test]
fn b08_fast_forwarding_leaves_the_stack_out() {
    if need::root("b08_fast_forwarding_leaves_the_stack_out") {
        check_stack(Setting::Tc, "fast", false);
        check_stack(Setting::Xdp, "fast", false);
        check_stack(Setting::Unnumbered, "fast", false);
    }
}

#[test]
fn b08_the_stack_forwards_if_told_so_or_behind_a_bridge() {
    if need::root("b08_the_stack_forwards_if_told_so_or_behind_a_bridge") {
        check_stack(Setting::Tc, "kernel", true);
        check_stack(Setting::Xdp, "kernel", true);
        check_stack(Setting::Unnumbered, "kernel", true);
        check_stack(Setting::Bridge, "fast", true);
    }
}

#[test]
fn b08_an_overlay_is_a_way_out_like_any_other() {
    if !need::root("b08_an_overlay_is_a_way_out_like_any_other") {
        return;
    }
    for (forwarding, through_stack) in [("fast", false), ("kernel", true)] {
        let cluster = Cluster::start_with(Setting::Tc, &["--forwarding", forwarding]);
        for (n, node) in cluster.world.nodes.iter().enumerate() {
            let (own, far) = (n + 1, 2 - n);
            let (peer, pods) = (cluster.world.nodes[1 - n].v4, 1 - n);
            node.ns
                .ip(&format!(
                    "link add vxlan0 type vxlan id 42 remote {peer} dstport 8472 dev eth0\n\
                     addr add 10.245.0.{own}/24 dev vxlan0\naddr add fd00:245::{own}/64 dev vxlan0 nodad\n\
                     link set vxlan0 up\nroute replace 10.244.{pods}.0/24 via 10.245.0.{far}\n\
                     route replace fd00:244:{pods}::/64 via fd00:245::{far}"
                ))
                .unwrap();
        }
        // Room for the tunnel's headers, as pods have it there.
        for pod in &cluster.world.pods {
            pod.host.ns.ip("link set eth0 mtu 1450").unwrap();
        }
        cluster
            .agent
            .wait("the tunnel to be served", |agent| {
                Ok(agent.devices()?.iter().any(|device| device.name == "vxlan0" && device.tc.kind != TcKind::Off))
            })
            .unwrap();
        check_stack_of(&cluster, &format!("overlay {forwarding}"), through_stack);
    }
}

#[test]
fn b78_open_connections_survive_another_way_of_forwarding() {
    if !need::root("b78_open_connections_survive_another_way_of_forwarding") {
        return;
    }
    for [before, after] in [["fast", "kernel"], ["kernel", "fast"]] {
        let mut cluster = Cluster::start_with(Setting::Tc, &["--forwarding", before]);
        let service = cluster.serve(Service::new("web", 1).echo().load_balancer());
        let mut open = Vec::new();
        for (from, targets) in [(cluster.client(), service.lb(7)), (cluster.pod(0), service.cluster(7))] {
            for to in targets {
                for _ in 0..8 {
                    let mut client = TcpClient::connect(&from.ns, to).unwrap();
                    let first = client.ask("before").unwrap();
                    open.push((client, first));
                }
            }
        }
        cluster.agent.set_args(&["--forwarding", after]);
        cluster.agent.restart().unwrap();
        for round in 0..3 {
            for (client, first) in &mut open {
                let answer = client.ask(&round.to_string()).unwrap();
                assert_eq!((&answer.pod, answer.client), (&first.pod, first.client), "{before} to {after}");
            }
        }
        for to in service.lb(7) {
            Transport::Tcp.ask(&cluster.client().ns, to, "after").unwrap();
        }
    }
}

#[test]
fn b34_a_pod_of_another_node_is_answered_by_the_node_that_it_dialled() {
    if !need::root("b34_a_pod_of_another_node_is_answered_by_the_node_that_it_dialled") {
        return;
    }
    for policy in ["Local", "Cluster"] {
        for setting in [Setting::Tc, Setting::Xdp, Setting::Bridge] {
            let cluster = Cluster::start(setting);
            cluster.serve(Service::new("web", 1).echo().node_port().spec(&format!("externalTrafficPolicy: {policy}")));
            let mut local = 0;
            for to in cluster.world.nodes[0].at(30_007) {
                for transport in Transport::ALL {
                    for n in 0..20 {
                        // The clients refuse an answer that comes from elsewhere than they asked.
                        let answer = transport.ask(&cluster.pod(2).ns, to, &n.to_string()).unwrap();
                        local += u32::from(answer.pod.starts_with("pod-0"));
                    }
                }
            }
            assert!(
                if policy == "Local" { local == 80 } else { (1..80).contains(&local) },
                "{policy} {setting:?}: {local}"
            );
        }
    }
}

#[test]
fn b09_xdp_declines_a_device_whose_frames_do_not_fit_a_page_and_tc_serves_it() {
    if !need::root("b09_xdp_declines_a_device_whose_frames_do_not_fit_a_page_and_tc_serves_it") {
        return;
    }
    let shape = Shape { offloads: false, pod_network: PodNetwork::Routed, ..Shape::default() };
    let world = World::build(shape).unwrap();
    world.fabric.ip("link set node0 mtu 9000\nlink set node1 mtu 9000\nlink set client0 mtu 9000").unwrap();
    for host in world.nodes.iter().chain(&world.clients) {
        host.ns.ip("link set eth0 mtu 9000").unwrap();
    }
    let _servers = world.start_servers().unwrap();
    let agent = Agent::start_with(world.node(0).unwrap(), &["--xdp-mode", "native"]).unwrap();
    let devices = agent.devices().unwrap();
    let uplink = devices.iter().find(|device| device.name == "eth0").unwrap();
    assert_eq!(uplink.xdp.mode, XdpMode::Off, "{uplink:?}");
    assert!(!uplink.xdp.reason.is_empty(), "{uplink:?}");
    println!("{}", uplink.xdp.reason);
    let service = Service::new("web", 1).http().load_balancer().endpoints(&world.pods[3..]);
    agent.apply(&[&service]).unwrap();
    for to in service.lb(80) {
        client::download(client::connect(&world.client().unwrap().ns, to).unwrap(), BYTES, None).unwrap();
    }
}
