//! What makes a Service valid, by the API server's rules.

use k8s_openapi::api::core::v1 as core;
use serde_json::{Value, json};

use super::findings::Findings;
use super::{
    FamilyPolicy, ForwardingMode, Protocol, Rules, Service, ServiceName, ServiceType, Skipped, TargetPort,
    TrafficDistribution, read_service,
};

fn read(value: Value) -> (Service, Findings) {
    let mut whole = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}});
    for (key, field) in value.as_object().unwrap() {
        whole[key] = field.clone();
    }
    let object: core::Service = serde_json::from_value(whole).unwrap();
    let mut findings = Findings::default();
    let name = ServiceName::new("default", "web");
    let service = read_service::service(&object, name, "web.yaml document 1", &Rules::default(), &mut findings);
    (service, findings)
}

fn good(value: Value) -> Service {
    let (service, findings) = read(value.clone());
    assert_eq!(findings, Findings::default(), "{value}");
    service
}

fn check_refused(rows: &[(Value, &str, &str)]) {
    for (spec, path, text) in rows {
        let (_, findings) = read(json!({"spec": spec}));
        assert!(findings.refused(), "{spec}");
        let told = findings.all().iter().any(|finding| finding.path == *path && finding.text.contains(text));
        assert!(told, "{spec} should tell {path}: {text}; told {findings:?}");
    }
}

#[test]
fn b73_a_port_needs_a_number_and_has_defaults() {
    let service = good(json!({"spec": {"clusterIP": "10.96.0.10", "ports": [{"port": 80}]}}));
    assert_eq!(service.service_type, ServiceType::ClusterIp);
    assert_eq!((service.ports[0].port, service.ports[0].protocol), (80, Protocol::Tcp));
    assert_eq!((service.ports[0].name.as_str(), service.ports[0].node_port), ("", None));
    assert_eq!((service.affinity_s, service.external_local, service.internal_local), (None, false, false));
}

#[test]
fn b73_wrong_ports_refuse_the_service() {
    check_refused(&[
        (json!({}), "spec.ports", "missing"),
        (json!({"ports": null}), "spec.ports", "missing"),
        (json!({"ports": []}), "spec.ports", "at least one"),
        (json!({"ports": [{}]}), "spec.ports[0].port", "missing or 0, expected 1 to 65535"),
        (json!({"ports": [{"port": 0}]}), "spec.ports[0].port", "missing or 0"),
        (json!({"ports": [{"port": 65536}]}), "spec.ports[0].port", "found 65536"),
        (json!({"ports": [{"port": -1}]}), "spec.ports[0].port", "found -1"),
        (
            json!({"ports": [{"port": 80, "protocol": "tcp"}]}),
            "spec.ports[0].protocol",
            "found `tcp`, expected TCP, UDP",
        ),
        (json!({"ports": [{"port": 80}, {"port": 81}]}), "spec.ports[0].name", "several ports"),
        (json!({"ports": [{"port": 80, "name": "A_b"}]}), "spec.ports[0].name", "found `A_b`"),
        (
            json!({"ports": [{"port": 80, "name": "a"}, {"port": 81, "name": "a"}]}),
            "spec.ports[1].name",
            "the name of spec.ports[0]",
        ),
        (
            json!({"ports": [{"port": 80, "name": "a"}, {"port": 80, "name": "b"}]}),
            "spec.ports[1].port",
            "found 80 TCP, the same as spec.ports[0]",
        ),
        (json!({"ports": [{"port": 80, "targetPort": 70000}]}), "spec.ports[0].targetPort", "found 70000"),
        (json!({"ports": [{"port": 80, "targetPort": "80"}]}), "spec.ports[0].targetPort", "the string \"80\""),
        (json!({"ports": [{"port": 80, "targetPort": "Web!"}]}), "spec.ports[0].targetPort", "found `Web!`"),
        (json!({"ports": [{"port": 80, "nodePort": 30000}]}), "spec.ports[0].nodePort", "must be absent"),
        (
            json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 80}]}),
            "spec.ports[0].nodePort",
            "found 80, expected 30000 to 32767",
        ),
        (
            json!({"type": "NodePort", "ports": [
                {"port": 80, "nodePort": 30000, "name": "a"}, {"port": 81, "nodePort": 30000, "name": "b"}]}),
            "spec.ports[1].nodePort",
            "found 30000 TCP",
        ),
    ]);
}

#[test]
fn b73_one_number_may_serve_each_protocol() {
    let service = good(json!({"spec": {"type": "NodePort", "clusterIP": "10.96.0.10", "ports": [
        {"port": 53, "nodePort": 30053, "name": "dns", "protocol": "UDP", "targetPort": "dns"},
        {"port": 53, "nodePort": 30053, "name": "dns-tcp", "protocol": "TCP", "targetPort": 0},
        {"port": 53, "nodePort": 30053, "name": "dns-sctp", "protocol": "SCTP", "targetPort": ""},
    ]}}));
    assert_eq!(service.ports.iter().map(|port| port.protocol.number()).collect::<Vec<_>>(), [17, 6, 132]);
}

#[test]
fn b73_every_wrong_field_is_told_at_once() {
    let (_, findings) = read(json!({"spec": {
        "type": "Loadbalancer", "clusterIP": "10.96.0.300", "sessionAffinity": "client", "externalTrafficPolicy": "local",
        "internalTrafficPolicy": "Node", "trafficDistribution": "Near", "ipFamilyPolicy": "Dual", "ipFamilies": ["IPv5"],
        "externalIPs": ["127.0.0.1"], "ports": [{"port": 0}],
    }}));
    let mut paths: Vec<&str> = findings.all().iter().map(|finding| finding.path.as_str()).collect();
    paths.sort_unstable();
    assert_eq!(
        paths,
        [
            "spec.clusterIP",
            "spec.externalIPs[0]",
            "spec.externalTrafficPolicy",
            "spec.internalTrafficPolicy",
            "spec.ipFamilies[0]",
            "spec.ipFamilyPolicy",
            "spec.ports[0].port",
            "spec.sessionAffinity",
            "spec.trafficDistribution",
            "spec.type",
        ]
    );
}

#[test]
fn b76_addresses_of_both_families_are_read() {
    let service = good(json!({"spec": {
        "clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10", "fd00::a"], "ipFamilies": ["IPv4", "IPv6"],
        "ipFamilyPolicy": "PreferDualStack", "ports": [{"port": 80}],
    }}));
    assert_eq!(service.cluster_ips.len(), 2);
    for spec in [
        json!({"clusterIPs": ["fd00::a"], "ports": [{"port": 80}]}),
        json!({"clusterIP": "fd00::a", "ports": [{"port": 80}]}),
    ] {
        assert_eq!(good(json!({"spec": spec})).cluster_ips, ["fd00::a".parse::<std::net::IpAddr>().unwrap()]);
    }
    assert!(good(json!({"spec": {"clusterIP": "", "ports": [{"port": 80}]}})).cluster_ips.is_empty());
    let ports = json!([{"port": 80}]);
    check_refused(&[
        (json!({"clusterIP": "127.0.0.1", "ports": ports}), "spec.clusterIP", "loopback"),
        (
            json!({"clusterIPs": ["10.0.0.1", "10.0.0.2"], "ports": ports}),
            "spec.clusterIPs[1]",
            "a second address of one family",
        ),
        (
            json!({"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.2"], "ports": ports}),
            "spec.clusterIPs[0]",
            "the same as spec.clusterIP",
        ),
        (
            json!({"clusterIP": "10.0.0.1", "ipFamilies": ["IPv6"], "ports": ports}),
            "spec.ipFamilies[0]",
            "but the ClusterIP",
        ),
        (json!({"ipFamilies": ["IPv6", "IPv6"], "ports": ports}), "spec.ipFamilies[1]", "a second time"),
        (json!({"clusterIP": "None", "type": "NodePort", "ports": ports}), "spec.clusterIP", "may not be \"None\""),
    ]);
}

#[test]
fn b76_some_services_program_nothing() {
    let ports = json!([{"port": 80}]);
    for (value, skipped) in [
        (json!({"spec": {"clusterIP": "None"}}), Some(Skipped::Headless)),
        (json!({"spec": {"clusterIP": "None", "clusterIPs": ["None"], "ports": ports}}), Some(Skipped::Headless)),
        (json!({"spec": {"type": "ExternalName", "externalName": "db.example.com"}}), Some(Skipped::ExternalName)),
        (
            json!({"metadata": {"labels": {"service.kubernetes.io/service-proxy-name": "other"}}, "spec": {"ports": ports}}),
            Some(Skipped::OtherProxy),
        ),
        (
            json!({"metadata": {"labels": {"service.kubernetes.io/headless": ""}}, "spec": {"ports": ports}}),
            Some(Skipped::HeadlessLabel),
        ),
        (json!({"metadata": {"labels": {"app": "web"}}, "spec": {"ports": ports}}), None),
    ] {
        assert_eq!(good(value.clone()).skipped, skipped, "{value}");
    }
    check_refused(&[
        (json!({"type": "ExternalName"}), "spec.externalName", "missing"),
        (json!({"type": "ExternalName", "externalName": "a b"}), "spec.externalName", "found `a b`"),
        (json!({"type": "ExternalName", "externalName": "a", "clusterIP": "10.0.0.1"}), "spec.clusterIP", "absent"),
    ]);
}

#[test]
fn b51_affinity_lasts_three_hours_unless_told_otherwise() {
    let ports = json!([{"port": 80}]);
    for (spec, expected) in [
        (json!({"sessionAffinity": "None", "ports": ports}), None),
        (json!({"sessionAffinity": "ClientIP", "ports": ports}), Some(10_800)),
        (
            json!({"sessionAffinity": "ClientIP", "ports": ports,
                "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 86_400}}}),
            Some(86_400),
        ),
        (
            json!({"sessionAffinity": "ClientIP", "ports": ports, "sessionAffinityConfig": {"clientIP": {}}}),
            Some(10_800),
        ),
    ] {
        assert_eq!(good(json!({"spec": spec})).affinity_s, expected);
    }
    let timeout = |s: i32| {
        json!({"sessionAffinity": "ClientIP", "ports": [{"port": 80}],
        "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": s}}})
    };
    let path = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
    check_refused(&[
        (timeout(0), path, "expected 1 to 86400"),
        (timeout(-5), path, "found -5"),
        (timeout(86_401), path, "found 86401"),
        (
            json!({"ports": ports, "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 5}}}),
            "spec.sessionAffinityConfig",
            "must be absent",
        ),
    ]);
}

#[test]
fn b59_an_invalid_source_range_never_becomes_open() {
    let spec =
        |ranges: Value| json!({"type": "LoadBalancer", "ports": [{"port": 80}], "loadBalancerSourceRanges": ranges});
    let service = good(json!({"spec": spec(json!([" 10.1.2.3/8 ", "fd00::/8"]))}));
    assert_eq!(service.source_ranges.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.0.0.0/8", "fd00::/8"]);
    assert!(good(json!({"spec": spec(json!([]))})).source_ranges.is_empty());
    check_refused(&[
        (spec(json!(["10.0.0.0"])), "spec.loadBalancerSourceRanges[0]", "found `10.0.0.0`"),
        (spec(json!(["10.0.0.0/8", ""])), "spec.loadBalancerSourceRanges[1]", "found ``"),
        (
            json!({"ports": [{"port": 80}], "loadBalancerSourceRanges": ["10.0.0.0/8"]}),
            "spec.loadBalancerSourceRanges",
            "must be absent",
        ),
    ]);
}

#[test]
fn b58_load_balancer_addresses_are_read_with_their_mode() {
    let value = |kind: &str, ingress: Value| json!({"spec": {"type": kind, "ports": [{"port": 80}]}, "status": {"loadBalancer": {"ingress": ingress}}});
    let ingress = json!([
        {"ip": "192.0.2.127"}, {"ip": "192.0.2.128", "ipMode": "Proxy"}, {"ip": "2001:db8::1", "ipMode": "VIP"},
        {"hostname": "lb.example.com"}, {"ip": "192.0.2.127", "ports": []},
    ]);
    let service = good(value("LoadBalancer", ingress.clone()));
    let modes: Vec<(String, bool)> = service.ingress.iter().map(|entry| (entry.ip.to_string(), entry.proxy)).collect();
    let expected = [("192.0.2.127", false), ("192.0.2.128", true), ("2001:db8::1", false)];
    assert_eq!(modes, expected.map(|(ip, proxy)| (ip.to_owned(), proxy)));
    // Left over from a former type.
    assert!(good(value("NodePort", ingress)).ingress.is_empty());

    let (service, findings) = read(value(
        "LoadBalancer",
        json!([{"ip": "127.0.0.1"}, {"ip": "192.0.2.1"}, {"ip": "192.0.2.2", "ipMode": "X"}]),
    ));
    assert!(!findings.refused());
    assert_eq!((service.ingress.len(), findings.all().len()), (1, 2));
}

#[test]
fn b56_policies_are_read_where_they_apply() {
    let spec = json!({"type": "NodePort", "externalTrafficPolicy": "Local", "internalTrafficPolicy": "Local", "ports": [{"port": 80}]});
    let service = good(json!({"spec": spec}));
    assert!(service.external_local && service.internal_local);
    let spec = json!({"externalIPs": ["192.0.2.1"], "externalTrafficPolicy": "Local", "ports": [{"port": 80}]});
    assert!(good(json!({"spec": spec})).external_local);
    check_refused(&[(
        json!({"externalTrafficPolicy": "Local", "ports": [{"port": 80}]}),
        "spec.externalTrafficPolicy",
        "must be absent where the type is ClusterIP",
    )]);
}

#[test]
fn b72_external_ips_pass_the_one_check() {
    let spec = json!({"externalIPs": ["169.254.1.1", "010.0.0.1", "::ffff:10.0.0.1"], "ports": [{"port": 80}]});
    let (_, findings) = read(json!({"spec": spec}));
    assert!(findings.refused());
    assert_eq!(findings.all().len(), 3);
}

#[test]
fn a_service_may_say_how_its_packets_reach_other_nodes() {
    let with = |mode: &str| json!({"metadata": {"annotations": {"svc-agent/forwarding-mode": mode}}, "spec": {"ports": [{"port": 80}]}});
    assert_eq!(good(with("dsr")).forwarding_mode, Some(ForwardingMode::Dsr));
    assert_eq!(good(with("snat")).forwarding_mode, Some(ForwardingMode::Snat));
    assert_eq!(good(json!({"spec": {"ports": [{"port": 80}]}})).forwarding_mode, None);
    let (service, findings) = read(with("DSR"));
    assert_eq!((service.forwarding_mode, findings.refused()), (None, false));
    assert!(findings.all()[0].text.contains("found `DSR`, expected snat or dsr"), "{findings:?}");
}

#[test]
fn what_controllers_need_is_kept() {
    let service = good(json!({"spec": {
        "type": "LoadBalancer", "clusterIP": "10.96.0.10", "selector": {"app": "web"}, "publishNotReadyAddresses": true,
        "ipFamilyPolicy": "PreferDualStack", "loadBalancerIP": "192.0.2.1", "loadBalancerClass": "example.com/lb",
        "allocateLoadBalancerNodePorts": false, "externalTrafficPolicy": "Local", "healthCheckNodePort": 32000,
        "trafficDistribution": "PreferClose",
        "ports": [{"name": "a", "port": 80, "targetPort": "http"}, {"name": "b", "port": 81, "targetPort": 8081}, {"name": "c", "port": 82}],
    }}));
    assert_eq!(service.selector.get("app").map(String::as_str), Some("web"));
    assert_eq!(service.family_policy, Some(FamilyPolicy::PreferDualStack));
    assert_eq!(service.load_balancer_ip, Some("192.0.2.1".parse().unwrap()));
    assert_eq!(service.load_balancer_class.as_deref(), Some("example.com/lb"));
    assert_eq!((service.publish_not_ready, service.allocate_node_ports), (true, false));
    assert_eq!(service.health_check_node_port, Some(32_000));
    assert_eq!(service.distribution, Some(TrafficDistribution::PreferSameZone));
    let targets: Vec<TargetPort> = service.ports.into_iter().map(|port| port.target).collect();
    assert_eq!(targets, [TargetPort::Name("http".to_owned()), TargetPort::Number(8081), TargetPort::Number(82)]);
    let service = good(json!({"spec": {"type": "ExternalName", "externalName": "db.example.com."}}));
    assert_eq!((service.external_name.as_str(), service.allocate_node_ports), ("db.example.com", true));
}

#[test]
fn what_controllers_need_is_checked() {
    let port = json!([{"port": 80}]);
    check_refused(&[
        (json!({"ports": port, "selector": {"app": "a b"}}), "spec.selector[app]", "expected at most 63"),
        (
            json!({"ports": port, "ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4", "IPv6"]}),
            "spec.ipFamilyPolicy",
            "two families",
        ),
        (
            json!({"ports": port, "ipFamilyPolicy": "SingleStack", "clusterIPs": ["10.96.0.1", "fd00::1"]}),
            "spec.ipFamilyPolicy",
            "two families",
        ),
        (json!({"ports": port, "loadBalancerClass": "example.com/lb"}), "spec.loadBalancerClass", "must be absent"),
        (json!({"ports": port, "type": "LoadBalancer", "loadBalancerClass": ""}), "spec.loadBalancerClass", "empty"),
        (
            json!({"ports": port, "type": "LoadBalancer", "healthCheckNodePort": 32000}),
            "spec.healthCheckNodePort",
            "must be absent",
        ),
        (
            json!({"ports": port, "type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 70000}),
            "spec.healthCheckNodePort",
            "expected 1 to 65535",
        ),
    ]);
    let (service, findings) =
        read(json!({"spec": {"type": "LoadBalancer", "ports": port, "loadBalancerIP": "127.0.0.1"}}));
    assert_eq!((service.load_balancer_ip, findings.refused(), findings.all().len()), (None, false, 1));
}
