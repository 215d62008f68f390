//! What is read of Pods and Nodes.

use k8s_openapi::api::core::v1 as core;
use serde_json::{Value, json};

use super::findings::Findings;
use super::{Node, Pod, Protocol, read_node, read_pod};

fn pod(value: Value) -> (Pod, Findings) {
    let mut whole = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web-1", "labels": {"app": "web"}}});
    for (key, field) in value.as_object().unwrap() {
        whole[key] = field.clone();
    }
    let object: core::Pod = serde_json::from_value(whole).unwrap();
    let mut findings = Findings::default();
    (read_pod::pod(&object, "default", "web-1", "a.yaml document 1", &mut findings), findings)
}

fn node(value: Value) -> (Node, Findings) {
    let object: core::Node = serde_json::from_value(value).unwrap();
    let mut findings = Findings::default();
    (read_node::node(&object, "node-a", "a.yaml document 1", &mut findings), findings)
}

fn paths(findings: &Findings) -> Vec<&str> {
    findings.all().iter().map(|finding| finding.path.as_str()).collect()
}

#[test]
fn readiness_is_the_condition_and_nothing_else() {
    for (status, ready, finished) in [
        (json!({}), None, false),
        (json!({"phase": "Running", "conditions": []}), None, false),
        (json!({"conditions": [{"type": "ContainersReady", "status": "True"}]}), None, false),
        (json!({"conditions": [{"type": "Ready", "status": "True"}]}), Some(true), false),
        (json!({"conditions": [{"type": "Ready", "status": "False"}]}), Some(false), false),
        (json!({"conditions": [{"type": "Ready", "status": "Unknown"}]}), Some(false), false),
        (json!({"phase": "Succeeded"}), None, true),
        (json!({"phase": "Failed"}), None, true),
        (json!({"phase": "Pending"}), None, false),
    ] {
        let (pod, findings) = pod(json!({"status": status}));
        assert_eq!((pod.ready, pod.finished, findings), (ready, finished, Findings::default()), "{status}");
    }
    let (read, findings) =
        pod(json!({"status": {"phase": "running", "conditions": [{"type": "Ready", "status": "true"}]}}));
    assert_eq!((read.ready, read.finished), (Some(false), false));
    assert_eq!(paths(&findings), ["status.conditions[0].status", "status.phase"]);
}

#[test]
fn b72_addresses_of_pods_are_checked_like_those_of_endpoints() {
    for (status, ips, told) in [
        (json!({"podIP": "10.0.0.1"}), vec!["10.0.0.1"], vec![]),
        (json!({"podIP": ""}), vec![], vec![]),
        (
            json!({"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]}),
            vec!["10.0.0.1", "fd00::1"],
            vec![],
        ),
        (json!({"podIPs": [{"ip": "fd00::1"}, {"ip": "10.0.0.1"}]}), vec!["fd00::1", "10.0.0.1"], vec![]),
        (json!({"podIP": "10.0.0.2", "podIPs": [{"ip": "10.0.0.1"}]}), vec!["10.0.0.1"], vec!["status.podIP"]),
        (json!({"podIPs": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}]}), vec!["10.0.0.1"], vec!["status.podIPs[1].ip"]),
        (json!({"podIP": "127.0.0.1"}), vec![], vec!["status.podIP"]),
        (
            json!({"podIPs": [{"ip": "::ffff:10.0.0.1"}, {"ip": "010.0.0.1"}]}),
            vec![],
            vec!["status.podIPs[0].ip", "status.podIPs[1].ip"],
        ),
    ] {
        let (pod, findings) = pod(json!({"status": status}));
        assert_eq!(pod.ips.iter().map(ToString::to_string).collect::<Vec<_>>(), ips, "{status}");
        assert_eq!(paths(&findings), told, "{status}");
        assert!(!findings.refused());
    }
}

#[test]
fn ports_of_containers_and_sidecars_are_kept() {
    let (pod, findings) = pod(json!({"spec": {
        "nodeName": "node-a", "hostname": "web-1", "subdomain": "web", "hostNetwork": true,
        "containers": [
            {"name": "a", "ports": [{"name": "http", "containerPort": 8080}, {"containerPort": 53, "protocol": "UDP", "hostPort": 5353}]},
            {"name": "b"},
        ],
        "initContainers": [
            {"name": "once", "ports": [{"name": "once", "containerPort": 1}]},
            {"name": "sidecar", "restartPolicy": "Always", "ports": [{"name": "metrics", "containerPort": 9090}]},
        ],
    }}));
    assert_eq!(findings, Findings::default());
    let ports: Vec<(&str, u16, Protocol, Option<u16>)> =
        pod.ports.iter().map(|port| (port.name.as_str(), port.port, port.protocol, port.host_port)).collect();
    let expected = [
        ("http", 8080, Protocol::Tcp, None),
        ("", 53, Protocol::Udp, Some(5353)),
        ("metrics", 9090, Protocol::Tcp, None),
    ];
    assert_eq!(ports, expected);
    assert_eq!(
        (pod.node.as_deref(), pod.hostname.as_deref(), pod.subdomain.as_deref()),
        (Some("node-a"), Some("web-1"), Some("web"))
    );
    assert!(pod.host_network && !pod.terminating);
}

#[test]
fn bad_ports_are_left_out_and_bad_names_refuse_the_pod() {
    let (read, findings) = pod(json!({"spec": {"containers": [{"name": "a", "ports": [
        {"containerPort": 0}, {"containerPort": 70000}, {"containerPort": 1, "protocol": "tcp"},
        {"containerPort": 1, "name": "BAD"}, {"containerPort": 80, "hostPort": -1}, {"containerPort": 81},
    ]}]}}));
    assert_eq!(read.ports.iter().map(|port| port.port).collect::<Vec<_>>(), [80, 81]);
    assert_eq!((findings.all().len(), findings.refused()), (5, false));
    for (value, path) in [
        (json!({"spec": {"nodeName": "a b"}}), "spec.nodeName"),
        (json!({"spec": {"hostname": "a.b"}}), "spec.hostname"),
        (json!({"spec": {"subdomain": "A"}}), "spec.subdomain"),
        (json!({"metadata": {"labels": {"app": "a b"}}}), "metadata.labels[app]"),
    ] {
        let (_, findings) = pod(value);
        assert!(findings.refused() && paths(&findings) == [path], "{findings:?}");
    }
}

#[test]
fn a_time_of_deletion_means_terminating() {
    assert!(pod(json!({"metadata": {"name": "web-1", "deletionTimestamp": "2026-01-01T00:00:00Z"}})).0.terminating);
}

#[test]
fn a_node_has_a_zone_addresses_and_taints() {
    let (read, findings) = node(json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": "node-a", "labels": {"topology.kubernetes.io/zone": "z1"}},
        "spec": {"unschedulable": true, "taints": [{"key": "k", "effect": "NoSchedule"}]},
        "status": {"addresses": [{"type": "Hostname", "address": "node-a"}, {"type": "InternalIP", "address": "192.168.0.1"},
            {"type": "ExternalIP", "address": "127.0.0.1"}]},
    }));
    assert_eq!(
        (read.zone.as_deref(), read.unschedulable, read.taints.len(), read.addresses.len()),
        (Some("z1"), true, 1, 1)
    );
    assert_eq!(paths(&findings), ["status.addresses[2].address"]);
    let (read, findings) =
        node(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"labels": {"topology.kubernetes.io/zone": ""}}}));
    assert_eq!((read.zone, findings), (None, Findings::default()));
}
