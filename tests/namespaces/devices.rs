//! Devices, addresses and neighbours that change while the agent runs.

use svc_agent::control::api::XdpMode;
use svc_tests::client::{TcpClient, Transport};
use svc_tests::manifest::Service;
use svc_tests::need;
use svc_tests::server::Server;

use crate::cluster::{Cluster, Setting, in_every_setting};

#[test]
fn a_pod_that_appears_later_is_a_client_and_a_backend_like_the_others() {
    in_every_setting("a_pod_that_appears_later_is_like_the_others", |mut cluster| {
        let service = cluster.serve(Service::new("web", 1).echo().load_balancer());
        let device = cluster.world.add_pod(0).unwrap().device.clone();
        let pod = cluster.world.pods.last().unwrap();
        let _server = Server::start(&pod.host).unwrap();
        cluster
            .agent
            .wait("the new device", |agent| {
                let devices = agent.devices()?;
                Ok(devices
                    .iter()
                    .any(|found| found.name == device && found.tc.kind != svc_agent::control::api::TcKind::Off))
            })
            .unwrap();
        for to in service.cluster(7) {
            for transport in Transport::ALL {
                transport.ask(&pod.host.ns, to, "hello").unwrap();
            }
        }
        let service = service.endpoints([pod]);
        cluster.agent.apply(&[&service]).unwrap();
        for (from, targets) in [(cluster.client(), service.lb(7)), (cluster.pod(0), service.cluster(7))] {
            for to in targets {
                for transport in Transport::ALL {
                    assert_eq!(transport.ask(&from.ns, to, "hello").unwrap().pod, pod.host.name);
                }
            }
        }
    });
}

#[test]
fn b37_connections_follow_a_neighbour_that_gets_another_hardware_address() {
    in_every_setting("b37_connections_follow_a_neighbour", |cluster| {
        let service = Service::new("web", 1).echo().load_balancer().endpoints(&cluster.world.pods[2..]);
        cluster.agent.apply(&[&service]).unwrap();
        let mut connections: Vec<TcpClient> = [(cluster.client(), service.lb(7)), (cluster.pod(0), service.cluster(7))]
            .into_iter()
            .flat_map(|(from, targets)| targets.map(|to| TcpClient::connect(&from.ns, to).unwrap()))
            .collect();
        for connection in &mut connections {
            for n in 0..4 {
                connection.ask(&n.to_string()).unwrap();
            }
        }
        let [near, far] = [&cluster.world.nodes[0], &cluster.world.nodes[1]];
        let mac = "02:00:00:00:00:77";
        far.ns.ip(&format!("link set eth0 address {mac}")).unwrap();
        // What an announcement of the neighbour would do.
        near.ns
            .ip(&format!(
                "neigh replace {} lladdr {mac} dev eth0 nud reachable\nneigh replace {} lladdr {mac} dev eth0 nud reachable",
                far.v4, far.v6
            ))
            .unwrap();
        for connection in &mut connections {
            connection.ask("after the change").unwrap();
        }
        for to in service.lb(7) {
            Transport::Udp.ask(&cluster.client().ns, to, "new").unwrap();
        }
    });
}

#[test]
fn b37_a_neighbour_that_changes_silently_is_found_again() {
    in_every_setting("b37_a_neighbour_that_changes_silently", |cluster| {
        let service = Service::new("web", 1).echo().load_balancer().endpoints(&cluster.world.pods[2..]);
        cluster.agent.apply(&[&service]).unwrap();
        let [near, far] = [&cluster.world.nodes[0], &cluster.world.nodes[1]];
        for (to, (family, far)) in service.lb(7).into_iter().zip(["ipv4", "ipv6"].into_iter().zip(far.addresses())) {
            near.ns.sysctl(&format!("net/{family}/neigh/eth0/delay_first_probe_time"), "1").unwrap();
            let ask = |text: &str| Transport::Udp.ask(&cluster.client().ns, to, text);
            ask("while it is known").unwrap();
            let wrong = "lladdr 02:00:00:00:00:99";
            near.ns.ip(&format!("neigh replace {far} {wrong} dev eth0 nud stale")).unwrap();
            let healed = (0..20).any(|n| ask(&format!("question {n}")).is_ok());
            assert!(healed, "{far} is still looked for at a stale address");
        }
    });
}

#[test]
fn b09_native_xdp_stays_on_a_veth_while_its_other_end_takes_what_is_sent() {
    if !need::root("b09_native_xdp_stays_on_a_veth_while_its_other_end_takes_what_is_sent") {
        return;
    }
    let cluster = Cluster::start(Setting::Xdp);
    // What XDP sends back out: to backends elsewhere, from another address.
    let service = Service::new("web", 1).echo().load_balancer().endpoints(&cluster.world.pods[2..]);
    cluster.agent.apply(&[&service]).unwrap();
    for (gro, mode, reason) in [
        ("on", XdpMode::Native, "the other end of the veth takes what XDP sends"),
        ("off", XdpMode::Off, "the other end of the veth does not take what XDP sends: tc alone does the work"),
        ("on", XdpMode::Native, "the other end of the veth takes what XDP sends"),
    ] {
        cluster.world.fabric.offload("node0", &["gro", gro]).unwrap();
        cluster
            .agent
            .wait("XDP to follow the other end of the veth", |agent| {
                Ok(agent.devices()?.iter().any(|device| device.name == "eth0" && device.xdp.mode == mode))
            })
            .unwrap();
        let status = cluster.agent.svcctl().unwrap().arg("status").output().unwrap();
        let status = String::from_utf8_lossy(&status.stdout).into_owned();
        assert!(status.contains(reason), "{status}");
        for to in service.lb(7) {
            for transport in Transport::ALL {
                for n in 0..3 {
                    transport.ask(&cluster.client().ns, to, &n.to_string()).unwrap();
                }
            }
        }
    }
}
