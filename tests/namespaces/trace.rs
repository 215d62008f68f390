//! `svcctl trace`: the loaded programs are asked what they would do, and nothing that is at work changes.

use std::net::SocketAddr;

use serde_json::{Value, json};
use svc_tests::client::Transport;
use svc_tests::manifest::Service;

use crate::cluster::{Cluster, in_every_setting};

/// What `svcctl trace -o json` answers.
fn trace(cluster: &Cluster, protocol: &str, from: SocketAddr, to: SocketAddr, device: Option<&str>) -> Value {
    let mut command = cluster.agent.svcctl().unwrap();
    command.args(["trace", protocol, &from.to_string(), &to.to_string(), "-o", "json"]);
    if let Some(device) = device {
        command.args(["--device", device]);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Everything that a packet could have changed: flows and counters.
fn live(cluster: &Cluster) -> Value {
    let flows: Vec<_> = cluster
        .agent
        .flows()
        .unwrap()
        .into_iter()
        .map(|flow| json!([flow.client, flow.vip, flow.backend, flow.forward.packets, flow.reverse.packets]))
        .collect();
    // Neighbours talk to each other at any time: only what services count is still.
    let services: Vec<_> = cluster.agent.services().unwrap().into_iter().map(|service| json!(service)).collect();
    json!({ "flows": flows, "services": services })
}

#[test]
fn a_trace_tells_what_would_happen_and_changes_nothing() {
    in_every_setting("a_trace_tells_what_would_happen_and_changes_nothing", |cluster| {
        let service = cluster.serve(Service::new("web", 1).echo().node_port());
        let empty = Service::new("empty", 2).echo();
        cluster.agent.apply(&[&service, &empty]).unwrap();
        let before = live(&cluster);
        let (pod, client) = (&cluster.world.pods[0], cluster.client());
        let backends: Vec<SocketAddr> = service.ready_backends().into_iter().collect();
        // The bridge is the pods' device, if there is one.
        let devices = cluster.agent.devices().unwrap();
        let bridge = devices.iter().find(|device| device.class.to_string() == "workload" && device.name != pod.device);
        let behind_bridge = !devices.iter().any(|device| device.name == pod.device);
        let pods = if behind_bridge { &bridge.unwrap().name } else { &pod.device };

        for (family, to) in service.cluster(7).into_iter().enumerate() {
            let from = SocketAddr::new(pod.host.addresses()[family], 40_000);
            for protocol in ["tcp", "udp"] {
                let trace = trace(&cluster, protocol, from, to, Some(pods));
                assert_eq!(trace["frontend"]["service"]["name"], "web", "{trace:#}");
                assert_eq!(trace["frontend"]["external"], false, "{trace:#}");
                assert_eq!(trace["frontend"]["kind"], "ClusterIP", "{trace:#}");
                let chosen: SocketAddr = trace["backend"]["address"].as_str().unwrap().parse().unwrap();
                assert!(backends.contains(&chosen), "{trace:#}");
                assert_eq!(trace["translation"]["destination"], chosen.to_string(), "{trace:#}");
                assert!(trace["verdict"].as_str().unwrap().starts_with("translated"), "{trace:#}");
            }
        }
        for (family, to) in cluster.world.nodes[0].at(30_007).into_iter().enumerate() {
            let from = SocketAddr::new(client.addresses()[family], 20_000);
            let trace = trace(&cluster, "tcp", from, to, None);
            assert_eq!((&trace["device"], &trace["packet"]), (&json!("eth0"), &json!("SYN")), "{trace:#}");
            assert_eq!(trace["frontend"]["kind"], "NodePort", "{trace:#}");
            assert_eq!(trace["frontend"]["external"], true, "{trace:#}");
            let elsewhere = trace["backend"]["local"] == false;
            let source: SocketAddr = trace["translation"]["source"].as_str().unwrap().parse().unwrap();
            assert_eq!(source.ip() != from.ip(), elsewhere, "B28: {trace:#}");
        }
        for (family, address) in client.addresses().into_iter().enumerate() {
            let from = SocketAddr::new(pod.host.addresses()[family], 40_000);
            let unknown = trace(&cluster, "udp", from, SocketAddr::new(address, 53), Some(pods));
            assert_eq!(unknown["frontend"], Value::Null, "{unknown:#}");
            assert_eq!(unknown["verdict"], "passed untouched: nothing of ours", "{unknown:#}");
            let nobody = trace(&cluster, "tcp", from, empty.cluster(7)[family], Some(pods));
            assert_eq!(nobody["frontend"]["backends"], 0, "{nobody:#}");
            assert_eq!(nobody["backend"], Value::Null, "{nobody:#}");
            assert!(nobody["counted"].as_array().unwrap().contains(&json!("no_endpoint")), "{nobody:#}");
        }
        assert_eq!(live(&cluster), before);
    });
}

#[test]
fn a_trace_follows_the_connection_that_there_is() {
    in_every_setting("a_trace_follows_the_connection_that_there_is", |cluster| {
        cluster.serve(Service::new("web", 1).echo().node_port());
        let (client, node) = (cluster.client(), &cluster.world.nodes[0]);
        for to in node.at(30_007) {
            let answer = Transport::Udp.ask(&client.ns, to, "hello").unwrap();
            let flow = cluster.agent.flows().unwrap().into_iter().find(|flow| flow.vip == to).unwrap();
            let trace = trace(&cluster, "udp", flow.client, to, None);
            assert!(trace["flow"].is_string(), "{trace:#}");
            assert_eq!(trace["backend"]["address"], flow.backend.to_string(), "{} {trace:#}", answer.pod);
        }
    });
}

#[test]
fn a_question_that_makes_no_sense_is_refused_with_its_remedy() {
    in_every_setting("a_question_that_makes_no_sense_is_refused_with_its_remedy", |cluster| {
        for (args, word) in [
            (["udp", "10.0.0.1:1", "[fd00::1]:2", "--device", "eth0"], "different families"),
            (["tcp", "10.0.0.1:1", "10.0.0.2:2", "--device", "eth7"], "no device `eth7`; name one with --device: "),
            (["sctp", "10.0.0.1:1", "10.0.0.2:2", "--device", "eth0"], "TCP and UDP"),
        ] {
            let output = cluster.agent.svcctl().unwrap().arg("trace").args(args).output().unwrap();
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(!output.status.success() && text.contains(word), "{text}");
        }
    });
}
