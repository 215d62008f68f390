//! What programs that look at a host think of it: tcpdump of the checksums on its wire, ss of its connections.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use svc_tests::client::{TcpClient, UdpClient};
use svc_tests::manifest::Service;
use svc_tests::netns::Netns;
use svc_tests::topology::Host;

use super::{output, pods, ways, with_counters};
use crate::cluster::Cluster;

/// The last word to a tcpdump goes to this port.
const LAST: u16 = 4_243;

/// tcpdump on a host's `eth0`, which prints what it thinks of checksums.
struct Dump {
    child: Child,
    file: tempfile::NamedTempFile,
}

impl Dump {
    fn start(host: &Host) -> Self {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut command = Command::new("tcpdump");
        command.args(["-nvvli", "eth0", "--immediate-mode", "tcp or udp"]);
        let mut child = host.ns.spawn(command.stdout(file.reopen().unwrap()).stderr(Stdio::piped())).unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
        assert!(said.any(|line| line.unwrap().contains("listening on")), "tcpdump does not start");
        thread::spawn(move || said.map_while(Result::ok).for_each(drop));
        Self { child, file }
    }

    /// How many checksums it found, once these words are in what it printed; none of them is wrong.
    fn correct(&self, last: &str) -> usize {
        let text = (0..100).find_map(|_| {
            let text = std::fs::read_to_string(self.file.path()).unwrap();
            if text.contains(last) {
                return Some(text);
            }
            thread::sleep(Duration::from_millis(50));
            None
        });
        let text = text.unwrap_or_else(|| panic!("tcpdump has not seen {last}"));
        for wrong in ["incorrect", "bad udp cksum", "bad cksum"] {
            let line = text.lines().find(|line| line.contains(wrong));
            assert_eq!(line, None);
        }
        text.matches("(correct)").count() + text.matches("udp sum ok").count()
    }
}

impl Drop for Dump {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Checksums are worked out by who sends, and packets shown as they come: an aggregate has no checksum of its own.
fn without_offloads(cluster: &Cluster) {
    let ends = cluster.world.pods.iter().map(|pod| (&cluster.world.nodes[pod.node], pod.device.as_str()));
    let uplinks = cluster.world.nodes.iter().chain(judged(cluster)).map(|host| (host, "eth0"));
    for (host, device) in ends.chain(uplinks) {
        host.ns.offload(device, &["tx", "off", "gro", "off"]).unwrap();
    }
}

fn judged(cluster: &Cluster) -> Vec<&Host> {
    [cluster.client()].into_iter().chain(pods(cluster)).collect()
}

/// The established connections of a host that match.
fn connections(ns: &Netns, filter: String) -> String {
    output(ns, Command::new("ss").args(["-Htn", "state", "established", &filter]))
}

#[test]
fn b03_tcpdump_finds_all_checksums_right_and_ss_shows_what_was_dialled() {
    let test = "b03_tcpdump_finds_all_checksums_right_and_ss_shows_what_was_dialled";
    with_counters(test, &["tcpdump", "ss"], |cluster| {
        without_offloads(cluster);
        let service = cluster.serve(Service::new("web", 1).echo().node_port());
        let dumps: Vec<_> = judged(cluster).into_iter().map(|host| (host, Dump::start(host))).collect();
        for (ns, to) in ways(cluster, &service, 7, 30_007) {
            let mut stream = TcpClient::connect(ns, to).unwrap();
            // Odd lengths, too.
            let answer = (1..20).map(|len| stream.ask(&"x".repeat(len * 77)).unwrap()).last().unwrap();
            let local = stream.local().unwrap();
            let seen = connections(ns, format!("sport = :{}", local.port()));
            assert!(seen.contains(&format!("{local} ")) && seen.trim_end().ends_with(&to.to_string()), "{seen}");
            let pod = pods(cluster).find(|pod| pod.name == answer.pod).unwrap();
            let seen = connections(&pod.ns, format!("dport = :{}", answer.client.port()));
            // An IPv4 address may be shown mapped.
            let (client, port) = (answer.client.ip().to_string(), format!(":{}", answer.client.port()));
            assert!(seen.contains(&client) && seen.trim_end().ends_with(&port), "{seen}");
            let mut socket = UdpClient::open(ns, to.is_ipv4(), 0).unwrap();
            (1..20).for_each(|len| drop(socket.ask(to, &"y".repeat(len * 61)).unwrap()));
        }
        let mut correct = 0;
        for (host, dump) in &dumps {
            // A last word, so that all before it was printed.
            let to = SocketAddr::new(cluster.world.nodes[0].v4.into(), LAST);
            host.ns.run(|| UdpSocket::bind("0.0.0.0:0")?.send_to(b"end", to)).flatten().unwrap();
            let found = dump.correct(&format!(".{LAST}: "));
            assert!(host.name != "client-0" || found > 100, "{}: {found}", host.name);
            correct += found;
        }
        // At the client's end and the pod's, there and back.
        assert!(correct > 4 * 2 * 2 * 2 * 19, "{correct}");
    });
}
