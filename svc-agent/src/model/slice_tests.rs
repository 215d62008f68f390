//! What becomes of EndpointSlices and Endpoints.

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use serde_json::{Value, json};

use super::findings::Findings;
use super::{EndpointSlice, Protocol, Severity, SliceOrigin, read_slices};

fn slice(fields: Value) -> (Option<EndpointSlice>, Findings) {
    let mut whole = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}}});
    for (key, field) in fields.as_object().unwrap() {
        whole[key] = field.clone();
    }
    let object: discovery::EndpointSlice = serde_json::from_value(whole).unwrap();
    let mut findings = Findings::default();
    (read_slices::endpoint_slice(&object, "default", "web-1", "a.yaml document 1", &mut findings), findings)
}

fn endpoints(subsets: Value) -> (Vec<EndpointSlice>, Findings) {
    let object = json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "web"}, "subsets": subsets});
    let object: core::Endpoints = serde_json::from_value(object).unwrap();
    let mut findings = Findings::default();
    (read_slices::endpoints(&object, "default", "web", "a.yaml document 1", &mut findings), findings)
}

#[test]
fn slices_of_headless_services_are_read_for_their_names() {
    let labels = json!({"kubernetes.io/service-name": "db", "service.kubernetes.io/headless": ""});
    let metadata = json!({"name": "db-1", "labels": labels});
    let (read, _) = slice(json!({"metadata": metadata, "endpoints": [{"addresses": ["10.0.0.1"]}]}));
    assert_eq!(read.unwrap().endpoints.len(), 1);
}

#[test]
fn b75_missing_conditions_have_their_meaning() {
    for (conditions, ready, serving, terminating) in [
        (json!(null), true, true, false),
        (json!({}), true, true, false),
        (json!({"ready": null, "serving": null, "terminating": null}), true, true, false),
        (json!({"ready": true}), true, true, false),
        (json!({"ready": false}), false, false, false),
        (json!({"ready": false, "serving": true, "terminating": true}), false, true, true),
        (json!({"ready": true, "serving": false}), true, false, false),
    ] {
        let (slice, findings) = slice(json!({"endpoints": [{"addresses": ["10.0.0.1"], "conditions": conditions}]}));
        let endpoint = &slice.unwrap().endpoints[0];
        assert_eq!(
            (endpoint.ready, endpoint.serving, endpoint.terminating),
            (ready, serving, terminating),
            "{conditions}"
        );
        assert_eq!(findings, Findings::default());
    }
}

#[test]
fn b75_only_the_first_address_counts_and_families_are_kept_apart() {
    let (read, findings) = slice(json!({"endpoints": [
        {"addresses": ["10.0.0.1", "10.0.0.2"]}, {"addresses": ["fd00::1"]}, {"addresses": []}]}));
    assert_eq!(read.unwrap().endpoints.len(), 1);
    let paths: Vec<&str> = findings.all().iter().map(|finding| finding.path.as_str()).collect();
    assert_eq!(paths, ["endpoints[1].addresses[0]", "endpoints[2].addresses"]);
    assert!(!findings.refused());
    let (read, findings) = slice(json!({"addressType": "FQDN", "endpoints": [{"addresses": ["a.example.com"]}]}));
    assert!(read.is_none() && findings == Findings::default());
}

#[test]
fn b75_a_slice_without_a_service_or_a_type_is_told() {
    let (read, findings) = slice(json!({"metadata": {"name": "web-1"}}));
    assert!(read.is_none() && findings.all()[0].severity == Severity::Warning);
    for address_type in ["", "ipv4", "IPv5"] {
        assert!(slice(json!({"addressType": address_type})).1.refused(), "{address_type}");
    }
    let (read, findings) = slice(json!({"endpoints": null, "ports": null}));
    assert!(read.unwrap().endpoints.is_empty() && findings == Findings::default());
}

#[test]
fn b74_ports_without_a_number_are_skipped_and_bad_ones_left_out() {
    let (read, findings) = slice(json!({"ports": [
        {"name": "http", "port": 8080}, {"name": "none", "port": null}, {"name": "zero", "port": 0}, {"port": 53, "protocol": "UDP"},
        {"name": "big", "port": 70000}, {"name": "other", "port": 1, "protocol": "ICMP"}, {"name": "B A D", "port": 2}]}));
    let ports: Vec<(String, u16, Protocol)> =
        read.unwrap().ports.into_iter().map(|port| (port.name, port.port, port.protocol)).collect();
    assert_eq!(ports, [("http".to_owned(), 8080, Protocol::Tcp), (String::new(), 53, Protocol::Udp)]);
    assert_eq!(findings.all().len(), 3);
    assert!(!findings.refused());
}

#[test]
fn b57_hints_nodes_and_targets_are_kept() {
    let (read, _) = slice(json!({"endpoints": [{
        "addresses": ["10.0.0.1"], "nodeName": "node-a", "zone": "z1",
        "hints": {"forZones": [{"name": "z1"}, {"name": "z2"}], "forNodes": [{"name": "node-a"}]},
        "targetRef": {"kind": "Pod", "name": "web-abc", "namespace": "default", "uid": "u1"},
    }]}));
    let endpoint = &read.unwrap().endpoints[0];
    assert_eq!(endpoint.for_zones, ["z1", "z2"]);
    assert_eq!(endpoint.for_nodes, ["node-a"]);
    assert_eq!(endpoint.node.as_deref(), Some("node-a"));
    assert_eq!(endpoint.target.as_ref().map(|target| target.name.as_str()), Some("web-abc"));
}

#[test]
fn b72_loopback_endpoint_is_refused_by_name() {
    let (slices, findings) = endpoints(json!([{
        "addresses": [{"ip": "127.0.0.1"}, {"ip": "10.0.0.1"}, {"ip": "169.254.10.1"}, {"ip": "224.0.0.5"}, {"ip": ""}],
        "ports": [{"port": 9376}],
    }]));
    let told: Vec<String> =
        findings.all().iter().map(|finding| format!("{}: {}", finding.path, finding.text)).collect();
    let expected = "expected an address that every node can reach; it is left out";
    assert_eq!(
        told,
        [
            format!("subsets[0].addresses[0].ip: found `127.0.0.1`, a loopback address, {expected}"),
            format!("subsets[0].addresses[2].ip: found `169.254.10.1`, a link-local address, {expected}"),
            format!("subsets[0].addresses[3].ip: found `224.0.0.5`, a link-local multicast address, {expected}"),
            "subsets[0].addresses[4].ip: missing, expected an address; it is left out".to_owned(),
        ]
    );
    assert!(!findings.refused());
    assert_eq!(slices[0].endpoints.len(), 1);
}

#[test]
fn b72_slices_are_checked_like_endpoints() {
    for address in ["127.0.0.1", "0.0.0.0", "010.0.0.1", "255.255.255.255"] {
        let (read, findings) = slice(json!({"endpoints": [{"addresses": [address]}, {"addresses": ["10.0.0.1"]}]}));
        assert_eq!((read.unwrap().endpoints.len(), findings.all().len()), (1, 1), "{address}");
    }
}

#[test]
fn b75_subsets_become_slices() {
    let (slices, findings) = endpoints(json!([
        {"addresses": [{"ip": "10.0.0.1", "nodeName": "a"}, {"ip": "fd00::1"}],
         "notReadyAddresses": [{"ip": "10.0.0.2"}], "ports": [{"name": "http", "port": 80}]},
        {"addresses": null, "notReadyAddresses": null, "ports": null},
    ]));
    assert_eq!(findings, Findings::default());
    assert_eq!(slices.len(), 2);
    let ready: Vec<bool> = slices[0].endpoints.iter().map(|endpoint| endpoint.ready).collect();
    assert_eq!(ready, [true, true, false]);
    assert!(slices.iter().all(|slice| slice.source == SliceOrigin::Endpoints && slice.service.name == "web"));
    assert!(endpoints(json!(null)).0.is_empty());
}
