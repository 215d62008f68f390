//! The ground moves under connections that run: their Service gets another name, kind or target, goes and comes back; devices
//! get another MTU, the wire is pulled out, the agent dies while somebody listens to its events.

use std::net::SocketAddr;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use svc_tests::client::{self, TcpClient, Transport, UdpClient};
use svc_tests::manifest::Service;
use svc_tests::need;
use svc_tests::netns::Netns;
use svc_tests::server;

use crate::cluster::{Cluster, Setting, in_every_setting};

/// How long a reader of events may take to notice that the agent has gone.
const PATIENCE: Duration = Duration::from_secs(20);

/// Connections that are open, each with the name of the pod that answers.
struct Running {
    tcp: Vec<(SocketAddr, TcpClient, String)>,
    udp: Vec<(SocketAddr, UdpClient)>,
}

impl Running {
    /// From a pod to the ClusterIPs and from outside to the load balancer's addresses of a Service with port 7.
    fn open(cluster: &Cluster, service: &Service) -> Self {
        let (mut tcp, mut udp) = (Vec::new(), Vec::new());
        for (from, to) in ways(cluster, service) {
            let mut stream = TcpClient::connect(from, to).unwrap();
            let pod = stream.ask("begin").unwrap().pod;
            tcp.push((to, stream, pod));
            let mut socket = UdpClient::open(from, to.is_ipv4(), 0).unwrap();
            socket.ask(to, "begin").unwrap();
            udp.push((to, socket));
        }
        Self { tcp, udp }
    }

    /// TCP goes on with the pod that it has.
    #[track_caller]
    fn assert_tcp_goes_on(&mut self, when: &str) {
        for (to, stream, pod) in &mut self.tcp {
            let answer = stream.ask(when).unwrap_or_else(|error| panic!("{to} {when}: {error:#}"));
            assert_eq!(answer.pod, *pod, "{to} {when}");
        }
    }

    /// Sockets of UDP get answers, whoever gives them.
    #[track_caller]
    fn assert_udp_goes_on(&mut self, when: &str) {
        for (to, socket) in &mut self.udp {
            socket.ask(*to, when).unwrap_or_else(|error| panic!("{to} {when}: {error:#}"));
        }
    }
}

fn ways<'a>(cluster: &'a Cluster, service: &Service) -> Vec<(&'a Netns, SocketAddr)> {
    let inside = service.cluster(7).map(|to| (&cluster.pod(0).ns, to));
    let outside = service.lb(7).map(|to| (&cluster.client().ns, to));
    inside.into_iter().chain(outside).collect()
}

/// New connections work, over both protocols.
#[track_caller]
fn assert_served(cluster: &Cluster, service: &Service, when: &str) {
    for (from, to) in ways(cluster, service) {
        for transport in Transport::ALL {
            transport.ask(from, to, when).unwrap_or_else(|error| panic!("{to} {when} over {transport:?}: {error:#}"));
        }
    }
}

#[test]
fn connections_outlive_the_name_and_the_very_absence_of_their_service() {
    in_every_setting("connections_outlive_the_name_and_the_very_absence_of_their_service", |cluster| {
        let service = cluster.serve(Service::new("web", 1).echo().load_balancer());
        let mut running = Running::open(&cluster, &service);

        let renamed = Service { name: "renamed".to_owned(), ..service.clone() };
        cluster.agent.remove("web.yaml").unwrap();
        cluster.agent.apply(&[&renamed]).unwrap();
        running.assert_tcp_goes_on("renamed");
        running.assert_udp_goes_on("renamed");
        assert_served(&cluster, &renamed, "renamed");

        // It is deleted, and made again with other backends.
        let witness = Service::new("witness", 9).echo().endpoints(&cluster.world.pods);
        cluster.agent.remove("renamed.yaml").unwrap();
        cluster.agent.apply(&[&witness]).unwrap();
        running.assert_tcp_goes_on("deleted");
        let again = service.clone().endpoints([&cluster.world.pods[1], &cluster.world.pods[3]]);
        cluster.agent.apply(&[&again]).unwrap();
        running.assert_tcp_goes_on("there again");
        running.assert_udp_goes_on("there again");
        assert_served(&cluster, &again, "there again");
    });
}

#[test]
fn connections_keep_their_target_port_and_new_ones_get_the_new_one() {
    in_every_setting("connections_keep_their_target_port_and_new_ones_get_the_new_one", |cluster| {
        let service = cluster.serve(Service::new("web", 1).echo().load_balancer());
        let mut running = Running::open(&cluster, &service);
        for target in [server::HTTP, server::ECHO] {
            let mut other = service.clone();
            other.ports.iter_mut().for_each(|port| port.target = target);
            cluster.agent.apply(&[&other]).unwrap();
            running.assert_tcp_goes_on("another target");
            for (from, to) in ways(&cluster, &other) {
                let is_http = client::http(from, to).is_ok();
                assert_eq!(is_http, target == server::HTTP, "{to}");
            }
        }
        running.assert_udp_goes_on("the target of before");
    });
}

#[test]
fn a_download_goes_on_when_the_mtu_of_the_node_shrinks_and_the_wire_is_pulled() {
    in_every_setting("a_download_goes_on_when_the_mtu_of_the_node_shrinks_and_the_wire_is_pulled", |cluster| {
        const BYTES: u64 = 3_000_000;
        let node = &cluster.world.nodes[0];
        // Of this node and of the other one.
        for pod in [0, 2] {
            let service = Service::new("web", 1).http().load_balancer().endpoints([&cluster.world.pods[pod]]);
            cluster.agent.apply(&[&service]).unwrap();
            let from = &cluster.client().ns;
            let streams = service.lb(80).map(|to| (to, client::connect(from, to).unwrap()));
            // Two seconds, in which a lot happens.
            let downloads = streams.map(|(to, stream)| {
                thread::spawn(move || {
                    client::download(stream, BYTES, Some(1_500_000)).map_err(|error| format!("{to}: {error:#}"))
                })
            });
            for mtu in [1400, 1300, 1500] {
                node.ns.ip(&format!("link set eth0 mtu {mtu}")).unwrap();
                thread::sleep(Duration::from_millis(150));
            }
            // The other end of the node's wire.
            cluster.world.fabric.ip("link set node0 down").unwrap();
            thread::sleep(Duration::from_millis(200));
            cluster.world.fabric.ip("link set node0 up").unwrap();
            for download in downloads {
                assert_eq!(download.join().unwrap(), Ok(BYTES), "pod {pod}");
            }
        }
    });
}

/// `svcctl events`, which ends with the agent.
struct Listener(Child);

impl Listener {
    fn start(cluster: &Cluster) -> Self {
        let mut events = cluster.agent.svcctl().unwrap();
        events.arg("events").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(events.spawn().unwrap())
    }

    /// Waits for its end.
    fn end(mut self) {
        let deadline = Instant::now() + PATIENCE;
        while self.0.try_wait().unwrap().is_none() {
            let read =
                |file: &str| std::fs::read_to_string(format!("/proc/{}/{file}", self.0.id())).unwrap_or_default();
            assert!(Instant::now() < deadline, "svcctl hangs: {} {} {}", read("wchan"), read("stack"), read("status"));
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_agent_dies_while_its_events_are_read_and_nobody_else_notices() {
    if !need::root("the_agent_dies_while_its_events_are_read_and_nobody_else_notices") {
        return;
    }
    let mut cluster = Cluster::start(Setting::Tc);
    let service = cluster.serve(Service::new("web", 1).echo().load_balancer());
    let mut running = Running::open(&cluster, &service);
    for _ in 0..3 {
        let mut listeners: Vec<_> = (0..3).map(|_| Listener::start(&cluster)).collect();
        assert_served(&cluster, &service, "while events are read");
        // One of them goes away by itself.
        drop(listeners.remove(0));
        assert_served(&cluster, &service, "when a listener has gone");
        cluster.agent.kill().unwrap();
        running.assert_tcp_goes_on("without an agent");
        assert_served(&cluster, &service, "without an agent");
        // The others are told by the end of their connection.
        listeners.into_iter().for_each(Listener::end);
        cluster.agent.spawn().unwrap();
        cluster.agent.wait_until_ready().unwrap();
        running.assert_tcp_goes_on("with its successor");
        assert_served(&cluster, &service, "with its successor");
    }
}
