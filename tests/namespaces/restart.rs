//! The agent dies and comes back; the datapath does not notice.

use svc_tests::client::{self, TcpClient, Transport, UdpClient};
use svc_tests::load::{Kind, Load};
use svc_tests::manifest::Service;

use crate::cluster::in_every_setting;

#[test]
fn b78_a_killed_and_restarted_agent_costs_no_request_and_no_connection() {
    in_every_setting("b78_a_killed_and_restarted_agent_costs_nothing", |mut cluster| {
        let service = cluster.serve(Service::new("web", 1).http().echo().load_balancer());
        let (client, pod) = (cluster.world.client().unwrap(), &cluster.world.pods[0].host);
        let mut connections = Vec::new();
        for (from, targets) in [(client, service.lb(7)), (pod, service.cluster(7))] {
            for to in targets {
                for _ in 0..3 {
                    let mut tcp = TcpClient::connect(&from.ns, to).unwrap();
                    let mut udp = UdpClient::open(&from.ns, to.is_ipv4(), 0).unwrap();
                    let pods = (tcp.ask("first").unwrap().pod, udp.ask(to, "first").unwrap().pod);
                    udp.ask(to, "second").unwrap();
                    connections.push((tcp, udp, to, pods));
                }
            }
        }
        let download = client::connect(&client.ns, service.lb(80)[0]).unwrap();
        let download = std::thread::spawn(move || client::download(download, 6_000_000, Some(2_000_000)));
        let loads = [
            Load::start(&client.ns, Kind::Http, &service.lb(80)).unwrap(),
            Load::start(&pod.ns, Kind::Echo(Transport::Udp), &service.cluster(7)).unwrap(),
        ];
        for _ in 0..3 {
            cluster.agent.kill().unwrap();
            for load in &loads {
                load.pass(20).unwrap();
            }
            cluster.agent.spawn().unwrap();
            cluster.agent.wait_until_ready().unwrap();
            for load in &loads {
                load.pass(20).unwrap();
            }
            for (tcp, udp, to, pods) in &mut connections {
                let answers = (tcp.ask("again").unwrap().pod, udp.ask(*to, "again").unwrap().pod);
                assert_eq!(answers, *pods);
            }
        }
        assert_eq!(download.join().unwrap().unwrap(), 6_000_000);
        for load in loads {
            load.stop().expect_all_good(100).unwrap();
        }
    });
}

#[test]
fn b78_what_changed_while_the_agent_was_away_is_caught_up_with() {
    in_every_setting("b78_what_changed_while_the_agent_was_away", |mut cluster| {
        let service = cluster.serve(Service::new("web", 1).echo());
        let gone = cluster.serve(Service::new("gone", 2).echo());
        let old = cluster.world.pods[0].host.name.clone();
        cluster.agent.kill().unwrap();
        let service = service.endpoints(&cluster.world.pods[1..2]);
        cluster.agent.write("web.yaml", &service.yaml()).unwrap();
        cluster.agent.remove("gone.yaml").unwrap();
        cluster.agent.spawn().unwrap();
        cluster.agent.wait_until_ready().unwrap();
        cluster.agent.wait_for_service(&service).unwrap();
        let pod = &cluster.world.pods[0].host;
        for to in service.cluster(7) {
            for _ in 0..10 {
                assert_ne!(Transport::Tcp.ask(&pod.ns, to, "who").unwrap().pod, old);
            }
        }
        assert!(Transport::Tcp.ask(&pod.ns, gone.cluster(7)[0], "who").is_err());
    });
}

#[test]
fn a_service_works_again_after_cleanup() {
    in_every_setting("a_service_works_again_after_cleanup", |mut cluster| {
        let service = cluster.serve(Service::new("web", 1).http().load_balancer());
        cluster.agent.kill().unwrap();
        cluster.agent.cleanup().unwrap();
        assert!(!cluster.agent.pin_dir().exists());
        let (client, pod) = (cluster.world.client().unwrap(), &cluster.world.pods[0].host);
        // The kernel takes unpinned programs away a moment later.
        cluster
            .agent
            .wait("the programs to go", |_| Ok(client::http(&pod.ns, service.cluster(80)[0]).is_err()))
            .unwrap();
        cluster.agent.spawn().unwrap();
        cluster.agent.wait_until_ready().unwrap();
        cluster.agent.wait_for_service(&service).unwrap();
        for (from, targets) in [(pod, service.cluster(80)), (client, service.lb(80))] {
            for to in targets {
                client::http(&from.ns, to).unwrap();
            }
        }
    });
}
