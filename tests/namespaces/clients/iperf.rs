//! iperf3, which opens one connection to agree and others for the data.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use svc_tests::client::Transport;
use svc_tests::manifest::{Port, Service};
use svc_tests::statistics::Statistics;
use svc_tests::topology::Host;

use super::{output, ways, with_counters};

const IPERF: u16 = 5_201;

/// iperf3's server in a pod; it ends with this guard.
struct IperfServer(Child);

impl IperfServer {
    fn start(pod: &Host) -> Self {
        let mut server = Command::new("iperf3");
        server.args(["--server", "--forceflush", "--port", &IPERF.to_string()]);
        let mut child = pod.ns.spawn(server.stdin(Stdio::null()).stdout(Stdio::piped())).unwrap();
        // A connection that only asks whether it listens would count as its one client.
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains("listening")), "iperf3 does not listen");
        // It ends if nobody reads what it prints.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        Self(child)
    }
}

impl Drop for IperfServer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A test opens one connection to agree and others for the data, which have to reach the same server: so there is one.
#[test]
fn b09_iperf3_loses_nothing_over_tcp_and_udp_in_both_directions() {
    with_counters("b09_iperf3_loses_nothing_over_tcp_and_udp_in_both_directions", &["iperf3"], |cluster| {
        let port = |name, transport| Port { name, transport, port: IPERF, target: IPERF, node_port: 30_201 };
        let service = Service::new("iperf", 3).port(port("tcp", Transport::Tcp)).port(port("udp", Transport::Udp));
        let pod = &cluster.world.pods[2];
        let service = service.node_port().endpoints([pod]);
        cluster.agent.apply(&[&service]).unwrap();
        let overflown = || {
            let counted = Statistics::of(&pod.host.ns).unwrap();
            counted.get("Udp:RcvbufErrors") + counted.get("Udp6RcvbufErrors")
        };
        let _server = IperfServer::start(&pod.host);
        for (ns, to) in ways(cluster, &service, IPERF, 30_201) {
            // Not as fast as it goes: queues of the machine would overflow.
            for (how, megabytes) in [
                (&["--bitrate", "200M", "--parallel", "2"][..], 10),
                (&["--bitrate", "200M", "--reverse"], 10),
                (&["--udp", "--bitrate", "40M", "--length", "1200"], 1),
                (&["--udp", "--bitrate", "40M", "--length", "1200", "--reverse"], 1),
            ] {
                let mut client = Command::new("timeout");
                client.args(["30", "iperf3", "--json", "--client", &to.ip().to_string()]);
                client.args(["--port", &to.port().to_string(), "--bytes", &format!("{megabytes}M")]).args(how);
                let before = overflown();
                // The server says for a moment after a test that it is busy; the program succeeds all the same.
                let mut reports = (0..100).map(|_| serde_json::from_str::<Value>(&output(ns, &mut client)).unwrap());
                let is_busy = |report: &Value| report["error"].as_str().is_some_and(|error| error.contains("is busy"));
                let report = reports.find(|report| !is_busy(report)).expect("a server that is not busy");
                let sum = |name: &str, field: &str| report["end"][name][field].as_u64().unwrap_or_default();
                let (seen, bytes) = (format!("{to} {how:?}: {:#} {}", report["end"], report["error"]), megabytes << 20);
                if how.contains(&"--reverse") {
                    // What the server sends after the last byte that was asked for counts as lost.
                    assert!(sum("sum_received", "bytes") >= bytes, "{seen}");
                } else if how.contains(&"--udp") {
                    assert!(sum("sum", "packets") >= bytes / 1_200, "{seen}");
                    // A socket's buffer may overflow while the machine is busy; nothing else may lose any.
                    let full = overflown() - before;
                    assert!(sum("sum", "lost_packets") <= full, "{full} did not fit, {seen}");
                } else {
                    assert!(sum("sum_sent", "bytes") >= bytes, "{seen}");
                    // It ends when all is sent, whatever still lies in the buffers.
                    assert!(sum("sum_received", "bytes") * 2 >= bytes, "{seen}");
                }
            }
        }
    });
}
