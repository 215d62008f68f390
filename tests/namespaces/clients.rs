//! Clients that nobody here wrote: curl, dig and iperf3; programs that behave like others: a shell's keystrokes, one datagram
//! socket that talks to many; tcpdump and ss as judges. Afterwards no stack has seen a wrong checksum, and hardly any segment was sent twice.

mod iperf;
mod judges;

use std::net::SocketAddr;
use std::process::{Command, Stdio};

use svc_tests::answer::pattern;
use svc_tests::client::{TcpClient, Transport, UdpClient};
use svc_tests::dns;
use svc_tests::manifest::{Port, Service};
use svc_tests::need;
use svc_tests::netns::Netns;
use svc_tests::statistics::Statistics;
use svc_tests::topology::Host;

use crate::cluster::{Cluster, Setting};

/// Errors that a translation could cause: wrong checksums and headers.
const ERRORS: [&str; 4] = ["InCsumErrors", "CsumErrors", "InHdrErrors", "InErrs"];
const DNS: u16 = 53;

/// Runs what `clients` does in every setting, and looks at the counters of every stack before and after.
fn with_counters(test: &str, programs: &[&str], clients: impl Fn(&Cluster)) {
    if !need::root(test) {
        return;
    }
    for program in programs {
        if Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
            need::skip(test, &format!("needs `{program}`: run `cargo xtask setup`"));
            return;
        }
    }
    for setting in [Setting::Tc, Setting::Xdp, Setting::Bridge] {
        println!("setting: {setting:?}");
        let cluster = Cluster::start(setting);
        let hosts = || cluster.world.clients.iter().chain(&cluster.world.nodes).chain(pods(&cluster));
        let before: Vec<_> = hosts().map(|host| Statistics::of(&host.ns).unwrap()).collect();
        clients(&cluster);
        for (host, before) in hosts().zip(before) {
            let after = Statistics::of(&host.ns).unwrap();
            let errors = after.grown(&before, &ERRORS);
            assert!(errors.is_empty(), "{}: {errors:?}", host.name);
            expect_hardly_any_twice(host, &before, &after);
        }
    }
}

/// Nothing is lost here. What a stack sent twice all the same, because its timer was up on a busy machine, the receiver has told it
/// (DSACK), or it was the probe that a silent tail is asked by.
fn expect_hardly_any_twice(host: &Host, before: &Statistics, after: &Statistics) {
    let more = |name: &str| after.get(name) - before.get(name);
    let (sent, twice) = (more("Tcp:OutSegs"), more("Tcp:RetransSegs"));
    let explained = more("TcpExt:TCPDSACKRecv") + more("TcpExt:TCPLossProbes") + more("TcpExt:TCPBacklogDrop");
    assert!(
        twice <= explained + sent / 500,
        "{}: of {sent} segments {twice} were sent twice, {explained} explained",
        host.name
    );
}

fn pods(cluster: &Cluster) -> impl Iterator<Item = &Host> {
    cluster.world.pods.iter().map(|pod| &pod.host)
}

/// From where a Service is dialled, and by which address: a pod by its ClusterIPs, the client outside by the node's.
fn ways<'a>(cluster: &'a Cluster, service: &Service, port: u16, node_port: u16) -> Vec<(&'a Netns, SocketAddr)> {
    let inside = service.cluster(port).map(|to| (&cluster.pod(0).ns, to));
    let outside = cluster.world.nodes[0].at(node_port).map(|to| (&cluster.client().ns, to));
    inside.into_iter().chain(outside).collect()
}

fn output(ns: &Netns, command: &mut Command) -> String {
    let output = ns.output(command.stdin(Stdio::null())).unwrap();
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{text}{errors}", output.status);
    text.into_owned()
}

#[test]
fn b09_curl_downloads_every_byte() {
    const BYTES: u64 = 8_000_000;
    with_counters("b09_curl_downloads_every_byte", &["curl"], |cluster| {
        let service = cluster.serve(Service::new("web", 1).http().node_port());
        for (ns, to) in ways(cluster, &service, 80, 30_080) {
            let mut curl = Command::new("curl");
            curl.args(["--silent", "--show-error", "--fail", "--noproxy", "*", "--globoff", "--max-time", "60"]);
            let url = format!("http://{to}/download?bytes={BYTES}");
            let got = ns.output(curl.arg(url)).unwrap();
            assert!(got.status.success(), "{to}: {}", String::from_utf8_lossy(&got.stderr));
            assert_eq!(got.stdout.len() as u64, BYTES, "{to}");
            let wrong = (0..).zip(&got.stdout).find(|(offset, byte)| pattern(*offset) != **byte);
            assert_eq!(wrong, None, "{to}");
        }
    });
}

#[test]
fn b10_dig_is_answered_over_udp_and_tcp_and_asks_again_for_what_was_cut_off() {
    with_counters("b10_dig_is_answered_over_udp_and_tcp_and_asks_again_for_what_was_cut_off", &["dig"], |cluster| {
        for pod in pods(cluster) {
            dns::serve(&pod.ns, DNS).unwrap();
        }
        let port = |name, transport| Port { name, transport, port: DNS, target: DNS, node_port: 30_053 };
        let ports = Service::new("dns", 4).port(port("tcp", Transport::Tcp)).port(port("udp", Transport::Udp));
        let service = cluster.serve(ports.node_port());
        for (ns, to) in ways(cluster, &service, DNS, 30_053) {
            for (name, how, records) in [
                ("small.test", "+notcp", 1),
                ("small.test", "+tcp", 1),
                ("large.test", "+tcp", dns::RECORDS),
                // The first answer says that it was cut off.
                ("large.test", "+notcp", dns::RECORDS),
            ] {
                let mut dig = Command::new("dig");
                dig.args([&format!("@{}", to.ip()), "-p", &to.port().to_string(), name, "TXT", how]);
                let text = output(ns, dig.args(["+short", "+noedns", "+tries=1", "+time=10"]));
                let found = text.lines().filter(|line| line.trim_matches('"') == dns::TEXT).count();
                assert_eq!(found, records, "{to} {name} {how}: {text}");
            }
        }
    });
}

#[test]
fn b10_keystrokes_of_one_long_connection_come_back_one_by_one() {
    with_counters("b10_keystrokes_of_one_long_connection_come_back_one_by_one", &[], |cluster| {
        let service = cluster.serve(Service::new("shell", 5).echo().node_port());
        for (ns, to) in ways(cluster, &service, 7, 30_007) {
            let mut shell = TcpClient::connect(ns, to).unwrap();
            let pod = shell.ask("a").unwrap().pod;
            for stroke in 0..300 {
                // Now and then a screen, else a key.
                let text = if stroke % 50 == 0 { "x".repeat(4_000) } else { format!("{stroke}") };
                assert_eq!(shell.ask(&text).unwrap().pod, pod);
            }
        }
    });
}

#[test]
fn b10_one_datagram_socket_talks_to_many_services_at_once() {
    with_counters("b10_one_datagram_socket_talks_to_many_services_at_once", &[], |cluster| {
        let services: Vec<_> = (10..18).map(|n| Service::new(&format!("quic-{n}"), n).echo()).collect();
        let services: Vec<_> = services.into_iter().map(|service| cluster.serve(service)).collect();
        let ns = &cluster.pod(0).ns;
        for family in 0..2 {
            let mut socket = UdpClient::open(ns, family == 0, 0).unwrap();
            let mut pods = vec![None; services.len()];
            for round in 0..40 {
                for (service, pod) in services.iter().zip(&mut pods) {
                    // As long as QUIC's first datagrams.
                    let text = format!("{round:01200}");
                    let answer = socket.ask(service.cluster(7)[family], &text).unwrap();
                    assert_eq!(*pod.get_or_insert(answer.pod.clone()), answer.pod, "a connection stays with its pod");
                }
            }
        }
    });
}
