//! `/metrics` as Prometheus reads it.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use svc_tests::agent::Agent;
use svc_tests::client::{self, TcpClient};
use svc_tests::manifest::Service;
use svc_tests::need;
use svc_tests::topology::{Host, Shape, World};

/// Head and body of an answer.
fn get(from: &Host, to: &str, path: &str) -> (String, String) {
    let to: SocketAddr = to.parse().unwrap();
    let mut stream = client::connect(&from.ns, to).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

/// The value of a row that has all these labels.
fn value(page: &str, name: &str, labels: &[&str]) -> Option<f64> {
    let row = page.lines().find(|line| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with(['{', ' ']) && labels.iter().all(|label| rest.contains(label)))
    });
    row?.rsplit_once(' ')?.1.parse().ok()
}

#[test]
fn prometheus_reads_what_happened_to_packets_and_services() {
    if !need::root("prometheus_reads_what_happened_to_packets_and_services") {
        return;
    }
    let world = World::build(Shape::default()).unwrap();
    let _servers = world.start_servers().unwrap();
    let node = world.node(0).unwrap();
    let mut agent = Agent::start(node).unwrap();
    let web = Service::new("web", 1).echo().node_port().endpoints(&world.pods);
    let other = Service::new("zoo", 2).echo().endpoints([]);
    agent.apply(&[&web, &other]).unwrap();
    let [v4, _] = node.at(30_007);
    for _ in 0..5 {
        TcpClient::connect(&world.client().unwrap().ns, v4).unwrap().ask("hello").unwrap();
    }

    let page = || get(node, "127.0.0.1:10249", "/metrics");
    let (head, text) = page();
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    assert!(get(node, "127.0.0.1:10249", "/").0.starts_with("HTTP/1.1 404"));
    let of_web = ["service=\"web\"", "port=\"7\"", "protocol=\"TCP\"", "family=\"IPv4\""];
    assert_eq!(value(&text, "svc_agent_service_connections_total", &of_web), Some(5.0));
    let forward = [&of_web[..], &["direction=\"forward\""]].concat();
    let packets = value(&text, "svc_agent_service_packets_total", &forward).unwrap();
    let bytes = value(&text, "svc_agent_service_bytes_total", &forward).unwrap();
    assert!(packets >= 15.0 && bytes >= 40.0 * packets, "{packets} packets, {bytes} bytes");
    let ready = |service| {
        let service = format!("service=\"{service}\"");
        value(&text, "svc_agent_service_ready_endpoints", &[&service, "protocol=\"TCP\"", "family=\"IPv4\""])
    };
    assert_eq!((ready("web"), ready("zoo")), (Some(4.0), Some(0.0)));
    assert_eq!(value(&text, "svc_agent_sync_complete", &[]), Some(1.0));
    assert!(value(&text, "svc_agent_sync_age_seconds", &[]).is_some());
    let passes = value(&text, "svc_agent_sync_pass_duration_seconds_count", &[]).unwrap();
    assert!(passes >= 1.0, "{passes}");
    // The same as the control socket says.
    let status = agent.status().unwrap();
    for map in &status.maps {
        let label = format!("map=\"{}\"", map.name);
        assert_eq!(value(&text, "svc_agent_map_capacity", &[&label]), Some(map.capacity as f64), "{label}");
    }
    for counter in &status.counters {
        let label = format!("reason=\"{}\"", counter.reason);
        let told = value(&text, "svc_agent_packets_total", &[&label]).unwrap();
        assert!(told <= counter.count as f64, "{label}: {told}");
    }

    // No more than was allowed; of the others it is told that they are missing.
    agent.restart_with(&["--metrics-service-ports", "3"]).unwrap();
    let (_, cut) = page();
    let rows = cut.lines().filter(|line| line.starts_with("svc_agent_service_connections_total{")).count();
    assert_eq!((rows, value(&cut, "svc_agent_omitted_service_ports", &[])), (3, Some(5.0)));

    // Prometheus itself finds nothing to complain of.
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut promtool) = promtool else {
        need::skip(
            "prometheus_reads_what_happened_to_packets_and_services",
            "needs promtool (Debian's package prometheus)",
        );
        return;
    };
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let said = promtool.wait_with_output().unwrap();
    let said = (said.status.code(), String::from_utf8(said.stdout).unwrap(), String::from_utf8(said.stderr).unwrap());
    assert_eq!(said, (Some(0), String::new(), String::new()));
}
