//! What nobody serves is refused: at once, by an answer that the client's own stack believes.

use std::io;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use svc_tests::client::Transport;
use svc_tests::manifest::Service;
use svc_tests::netns::Netns;
use svc_tests::topology::Host;
use svc_tests::{client, need};

use crate::cluster::{Cluster, Setting, in_every_setting};

/// "Well under a second".
const AT_ONCE: Duration = Duration::from_millis(100);

/// How an attempt ended, and after how long.
fn attempt(ns: &Netns, transport: Transport, to: SocketAddr) -> (io::Result<()>, Duration) {
    let started = Instant::now();
    let result = ns.run(|| match transport {
        Transport::Tcp => TcpStream::connect_timeout(&to, client::PATIENCE).map(drop),
        Transport::Udp => {
            let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = UdpSocket::bind(any)?;
            socket.set_read_timeout(Some(client::PATIENCE))?;
            socket.connect(to)?;
            socket.send(b"anybody there?")?;
            socket.recv(&mut [0; 64]).map(drop)
        }
    });
    (result.flatten(), started.elapsed())
}

/// Asserts that a service refuses; of a few attempts the quickest counts, as the machine may be busy.
#[track_caller]
fn assert_refused(from: &Host, transport: Transport, to: SocketAddr) {
    let mut quickest = Duration::MAX;
    for _ in 0..5 {
        let (result, took) = attempt(&from.ns, transport, to);
        let kind = result.as_ref().err().map(io::Error::kind);
        assert_eq!(
            kind,
            Some(io::ErrorKind::ConnectionRefused),
            "{} -> {to} over {transport:?}: {result:?}",
            from.name
        );
        quickest = quickest.min(took);
    }
    assert!(quickest < AT_ONCE, "{} -> {to} over {transport:?}: refused after {quickest:?}", from.name);
}

#[test]
fn b64_clients_of_a_service_without_endpoints_are_refused_at_once_until_there_are_some() {
    in_every_setting("b64_clients_of_a_service_without_endpoints_are_refused", |cluster| {
        let empty = Service::new("web", 1).echo().load_balancer();
        let full = empty.clone().endpoints(&cluster.world.pods);
        let node = &cluster.world.nodes[0];
        let from_pod: Vec<_> = [empty.cluster(7), empty.lb(7), node.at(30_007)].concat();
        let from_outside: Vec<_> = [empty.lb(7), node.at(30_007)].concat();
        let dials = || {
            let pod = from_pod.iter().map(|to| (cluster.pod(0), *to));
            pod.chain(from_outside.iter().map(|to| (cluster.client(), *to)))
        };
        for _ in 0..2 {
            cluster.agent.apply(&[&empty]).unwrap();
            for (from, to) in dials() {
                Transport::ALL.iter().for_each(|transport| assert_refused(from, *transport, to));
            }
            cluster.agent.apply(&[&full]).unwrap();
            for (from, to) in dials() {
                for transport in Transport::ALL {
                    transport.ask(&from.ns, to, "at once").unwrap();
                }
            }
        }
    });
}

/// Frames that leave a node for an address, as `tcpdump` sees them.
struct Capture {
    child: Child,
    file: tempfile::NamedTempFile,
}

impl Capture {
    fn start(node: &Host, filter: &str) -> Self {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut command = Command::new("tcpdump");
        command.args(["-nli", "eth0", "--immediate-mode", "-Q", "out", filter]);
        command.stdout(file.reopen().unwrap()).stderr(Stdio::null());
        let child = node.ns.spawn(&mut command).unwrap();
        // It has no way to say that it listens.
        std::thread::sleep(Duration::from_millis(700));
        Self { child, file }
    }

    /// What was seen.
    fn end(mut self) -> String {
        std::thread::sleep(Duration::from_millis(300));
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        std::fs::read_to_string(self.file.path()).unwrap()
    }
}

#[test]
fn b66_unknown_ports_are_refused_and_unassigned_addresses_go_nowhere() {
    let test = "b66_unknown_ports_are_refused_and_unassigned_addresses_go_nowhere";
    if !need::root(test) || Command::new("tcpdump").arg("--version").output().is_err() {
        return;
    }
    for networks in [&[][..], &["--service-cidrs", "10.96.0.0/16,fd00:96::/112"]] {
        let cluster = Cluster::start_with(Setting::Tc, networks);
        let service = cluster.serve(Service::new("web", 1).echo());
        let node = &cluster.world.nodes[0];
        // What a default gateway would get.
        let gateway = &cluster.world.nodes[1];
        let routes = format!("route add 10.96.0.0/16 via {}\nroute add fd00:96::/64 via {}", gateway.v4, gateway.v6);
        node.ns.ip(&routes).unwrap();
        let capture = Capture::start(node, "net 10.96.0.0/16 or net fd00:96::/112");
        let pod = cluster.pod(0);
        for to in service.cluster(8) {
            Transport::ALL.iter().for_each(|transport| assert_refused(pod, *transport, to));
        }
        let unassigned = [SocketAddr::from(([10, 96, 0, 99], 7)), "[fd00:96::99]:7".parse().unwrap()];
        for to in unassigned {
            for from in [pod, node] {
                let send = || {
                    let socket = UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
                    socket.send_to(b"anybody there?", to)?;
                    // In fragments, too.
                    socket.send_to(&[b'?'; 4000], to)
                };
                drop(from.ns.run(send).flatten());
                let mut ping = Command::new("ping");
                ping.args(["-n", "-c", "1", "-W", "1", &to.ip().to_string()]);
                assert!(!from.ns.output(&mut ping).unwrap().status.success(), "{to} from {from:?}");
            }
        }
        let seen = capture.end();
        assert!(!seen.contains("10.96.0.1.") && !seen.contains("fd00:96::1."), "{seen}");
        let strays = seen.contains("10.96.0.99") && seen.contains("fd00:96::99");
        assert_eq!(strays, networks.is_empty(), "{networks:?}: {seen}");
    }
}
