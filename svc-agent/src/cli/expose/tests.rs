//! From command lines to objects, and which command lines make no sense.

use serde_json::{Value, json};

use super::*;
use crate::cli::args::{Args, Command};
use clap::Parser;

fn expose(args: &str) -> Result<Vec<Value>, String> {
    let words = ["svcctl", "expose"].into_iter().chain(args.split(' '));
    let args = Args::try_parse_from(words).map_err(|error| error.to_string())?;
    let Command::Expose(args) = args.command else { panic!("{args:?}") };
    objects(&args).map_err(|error| error.to_string())
}

#[test]
fn a_service_over_endpoints_brings_its_slices() {
    let made =
        expose("web --port 80 --endpoint 10.0.0.1:8080 --endpoint 10.0.0.2:8080@node-b --type NodePort -n prod -l a=b")
            .unwrap();
    assert_eq!(
        made[0],
        json!({"apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "web", "namespace": "prod", "labels": {"a": "b"}},
            "spec": {"type": "NodePort", "ipFamilies": ["IPv4"], "ports": [{"port": 80, "targetPort": 8080, "protocol": "TCP"}]}})
    );
    assert_eq!(
        made[1],
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": "web-ipv4", "namespace": "prod", "labels": {
                "kubernetes.io/service-name": "web", "endpointslice.kubernetes.io/managed-by": "svcctl"}},
            "ports": [{"port": 8080, "protocol": "TCP"}],
            "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": true}},
                {"addresses": ["10.0.0.2"], "conditions": {"ready": true}, "nodeName": "node-b"}]})
    );
    assert_eq!(made.len(), 2);
}

#[test]
fn endpoints_are_grouped_by_family_and_port() {
    let made = expose("web --port 80 --endpoint 10.0.0.1:1 --endpoint 10.0.0.2:2 --endpoint [fd00::1]:3").unwrap();
    let names: Vec<_> = made.iter().map(|object| object["metadata"]["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["web", "web-ipv4-1", "web-ipv4-2", "web-ipv6"]);
    assert_eq!(made[0]["spec"]["ipFamilyPolicy"], "PreferDualStack");
    assert_eq!(made[3]["ports"][0]["port"], 3);
    let made = expose("web --port http=80:8080 --port dns=53/udp --port 90 --endpoint fd00::1").unwrap();
    assert_eq!(
        made[1]["ports"],
        json!([{"name": "http", "port": 8080, "protocol": "TCP"}, {"name": "dns", "port": 53, "protocol": "UDP"},
            {"name": "port-3", "port": 90, "protocol": "TCP"}])
    );
    assert_eq!(made[0]["spec"]["ports"][2], json!({"name": "port-3", "port": 90, "protocol": "TCP"}));
}

#[test]
fn a_service_over_a_selector_or_a_name_has_no_slices() {
    let made = expose("web --port 80 --target-port http --selector app=web,tier=front --type LoadBalancer --load-balancer-ip 192.0.2.1").unwrap();
    let spec = json!({"type": "LoadBalancer", "loadBalancerIP": "192.0.2.1", "selector": {"app": "web", "tier": "front"},
        "ports": [{"port": 80, "protocol": "TCP", "targetPort": "http"}]});
    assert_eq!((made.len(), &made[0]["spec"]), (1, &spec));
    let made = expose("db --external-name db.example.org").unwrap();
    assert_eq!(made[0]["spec"], json!({"type": "ExternalName", "externalName": "db.example.org"}));
    let made =
        expose("db --port 80 --selector a=b --cluster-ip None --external-ip 192.0.2.1 --node-port 30001").unwrap();
    assert_eq!(made[0]["spec"]["clusterIP"], "None");
    assert_eq!(made[0]["spec"]["externalIPs"], json!(["192.0.2.1"]));
    assert_eq!(made[0]["spec"]["ports"][0]["nodePort"], 30_001);
}

#[test]
fn nonsense_is_answered_with_what_was_expected() {
    for (args, text) in [
        ("web --port 80", "say who serves"),
        ("web --port 80 --selector a=b --endpoint 10.0.0.1", "say who serves"),
        ("web --endpoint 10.0.0.1", "--port 80"),
        ("web --port 0 --endpoint 10.0.0.1", "found `0`, expected [NAME=]PORT"),
        ("web --port 80:70000 --endpoint 10.0.0.1", "found the target port `70000`"),
        ("web --port 80/icmp --endpoint 10.0.0.1", "expected TCP, UDP or SCTP"),
        ("web --port 80 --endpoint web", "found `web`, expected ADDRESS[:PORT]"),
        ("web --port 80 --port 81 --endpoint 10.0.0.1:8080", "is for a single --port"),
        ("web --port 80 --port 81 --target-port 1 --endpoint 10.0.0.1", "for a single --port"),
        ("web --port 80 --target-port http --endpoint 10.0.0.1", "endpoints need its number"),
        ("web --port 80 --selector a!=b", "expected labels such as"),
        ("web --port 80 --selector a=b --type ExternalName", "'ExternalName'"),
    ] {
        let error = expose(args).unwrap_err();
        assert!(error.contains(text), "{args}: {error}");
    }
}
