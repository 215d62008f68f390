//! What Services are given, by row: the manifests, what they have then, and what is told.

use std::collections::BTreeMap;

use super::{Controllers, Memory, Settings};
use crate::model::{Rules, Service};
use crate::sources::Snapshot;
use crate::sources::manifests::ManifestSource;

pub fn snapshot(text: &str) -> Snapshot {
    let snapshot = ManifestSource::read_text(text.as_bytes(), "a.yaml", &Rules::default());
    assert_eq!(snapshot.problems, [], "{text}");
    snapshot
}

fn settings() -> Settings {
    let networks = ["10.96.0.0/24", "fd00:96::/112"].map(|text| text.parse().unwrap());
    let pools = ["192.0.2.10-192.0.2.11", "2001:db8::/126"].map(|text| text.parse().unwrap());
    Settings::new(&networks, 30_000..=32_767, pools.into())
}

/// A Service with a name and the fields of its spec.
fn service(name: &str, spec: &str) -> String {
    format!("apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{port: 80}}], {spec}}}\n---\n")
}

/// What a Service has, one word for each value.
fn shown(service: &Service) -> String {
    let mut words: Vec<String> = service.cluster_ips.iter().map(ToString::to_string).collect();
    words.extend(service.ports.iter().filter_map(|port| port.node_port).map(|port| format!(":{port}")));
    words.extend(service.health_check_node_port.map(|port| format!("health:{port}")));
    words.extend(service.ingress.iter().map(|ingress| format!("lb:{}", ingress.ip)));
    words.join(" ")
}

fn complete(controllers: &mut Controllers, text: &str) -> (BTreeMap<String, String>, Vec<String>) {
    let snapshot = controllers.complete(snapshot(text));
    let services = snapshot.objects.services.values();
    let problems = snapshot.problems.iter().map(ToString::to_string);
    (services.map(|service| (service.name.name.clone(), shown(service))).collect(), problems.collect())
}

#[test]
fn b76_every_type_gets_what_is_due_to_it() {
    for (spec, expected) in [
        ("", "10.96.0.V"),
        ("clusterIP: 10.96.0.9", "10.96.0.9"),
        ("clusterIP: 10.200.0.9", "10.200.0.9"),
        ("clusterIP: None", ""),
        ("type: ExternalName, externalName: a.example.com", ""),
        ("ipFamilies: [IPv6]", "fd00:96::V"),
        ("ipFamilyPolicy: PreferDualStack", "10.96.0.V fd00:96::V"),
        ("ipFamilyPolicy: RequireDualStack, ipFamilies: [IPv6]", "fd00:96::V 10.96.0.V"),
        ("ipFamilyPolicy: RequireDualStack, clusterIP: 10.96.0.9", "10.96.0.9 fd00:96::V"),
        ("ipFamilyPolicy: RequireDualStack, clusterIP: \"fd00:96::9\"", "fd00:96::9 10.96.0.V"),
        ("type: NodePort", "10.96.0.V :V"),
        ("type: NodePort, clusterIP: 10.96.0.9, externalTrafficPolicy: Local", "10.96.0.9 :V"),
        ("type: LoadBalancer", "10.96.0.V :V lb:192.0.2.V"),
        ("type: LoadBalancer, allocateLoadBalancerNodePorts: false", "10.96.0.V lb:192.0.2.V"),
        ("type: LoadBalancer, externalTrafficPolicy: Local", "10.96.0.V :V health:V lb:192.0.2.V"),
        (
            "type: LoadBalancer, externalTrafficPolicy: Local, healthCheckNodePort: 32000",
            "10.96.0.V :V health:32000 lb:192.0.2.V",
        ),
        ("type: LoadBalancer, loadBalancerIP: 192.0.2.11", "10.96.0.V :V lb:192.0.2.11"),
        ("type: LoadBalancer, loadBalancerIP: \"2001:db8::2\"", "10.96.0.V :V lb:192.0.2.V lb:2001:db8::2"),
        ("type: LoadBalancer, loadBalancerClass: example.com/lb", "10.96.0.V :V"),
        ("type: LoadBalancer, ipFamilyPolicy: RequireDualStack", "10.96.0.V fd00:96::V :V lb:192.0.2.V lb:2001:db8::V"),
    ] {
        let (services, problems) =
            complete(&mut Controllers::new(settings(), Memory::default()), &service("web", spec));
        let words: Vec<String> = services["web"].split(' ').map(str::to_owned).collect();
        let expected: Vec<&str> = expected.split(' ').collect();
        let alike = words.len() == expected.len()
            && words.iter().zip(&expected).all(|(word, expected)| match expected.strip_suffix('V') {
                Some(start) => word.len() > start.len() && word.starts_with(start),
                None => word == expected,
            });
        assert!(alike && problems.is_empty(), "{spec}: {words:?}, expected {expected:?}; {problems:?}");
    }
}

#[test]
fn b76_other_proxies_services_get_what_the_api_server_gives_but_no_pool_address() {
    let text = "apiVersion: v1\nkind: Service\nmetadata: {name: web, labels: {service.kubernetes.io/service-proxy-name: x}}\n\
                spec: {type: LoadBalancer, ports: [{port: 80}]}\n";
    let (services, _) = complete(&mut Controllers::new(settings(), Memory::default()), text);
    assert!(services["web"].starts_with("10.96.0.") && services["web"].contains(" :3"), "{services:?}");
    assert!(!services["web"].contains("lb:"), "{services:?}");
}

#[test]
fn without_ranges_a_service_keeps_what_it_says_and_a_balancer_is_pending() {
    let mut controllers = Controllers::new(Settings::default(), Memory::default());
    let text = service("a", "")
        + &service("b", "type: LoadBalancer")
        + &service("c", "clusterIP: 10.1.2.3, ipFamilyPolicy: RequireDualStack");
    let (services, problems) = complete(&mut controllers, &text);
    assert_eq!((services["a"].as_str(), services["c"].as_str()), ("", "10.1.2.3"));
    assert!(services["b"].starts_with(":3"), "{services:?}");
    assert_eq!(problems, Vec::<String>::new());
}

#[test]
fn protocols_of_one_port_share_a_node_port() {
    let mut controllers = Controllers::new(settings(), Memory::default());
    let text = "apiVersion: v1\nkind: Service\nmetadata: {name: dns}\nspec:\n  type: NodePort\n  ports:\n  \
                - {name: a, port: 53}\n  - {name: b, port: 53, protocol: UDP}\n  \
                - {name: c, port: 54, nodePort: 30054}\n  - {name: d, port: 54, protocol: UDP}\n  - {name: e, port: 55}\n";
    let snapshot = controllers.complete(snapshot(text));
    let ports: Vec<u16> =
        snapshot.objects.services.values().next().unwrap().ports.iter().map(|port| port.node_port.unwrap()).collect();
    assert_eq!((ports[0], ports[2], ports[3]), (ports[1], 30_054, 30_054));
    assert!(ports[0] != ports[4] && ports[4] >= 30_086, "{ports:?}: the lower ones are for who names one");
}

#[test]
fn what_was_given_stays_and_is_given_back_with_the_service() {
    let mut controllers = Controllers::new(settings(), Memory::default());
    let all = ["a", "b", "c"].map(|name| service(name, "type: LoadBalancer, allocateLoadBalancerNodePorts: true"));
    let (first, _) = complete(&mut controllers, &all[1]);
    let (more, problems) = complete(&mut controllers, &all.concat());
    assert_eq!(more["b"], first["b"]);
    assert!(
        problems.len() == 1 && problems[0].contains("every IPv4 address of `load-balancer-pools` is in use"),
        "{problems:?}"
    );
    // A restart with the memory alone.
    let mut again = Controllers::new(settings(), controllers.memory().clone());
    assert_eq!(complete(&mut again, &all.concat()).0, more);
    let (fewer, problems) = complete(&mut again, &all[1..].concat());
    assert!(problems.is_empty() && fewer["c"].contains("lb:"), "{fewer:?} {problems:?}");
    assert_eq!(again.memory().services.len(), 2);
    let (none, _) = complete(&mut again, "");
    assert!(none.is_empty() && **again.memory() == Memory::default());
}

#[test]
fn b79_what_a_service_had_whose_file_cannot_be_read_is_kept_for_it() {
    let mut controllers = Controllers::new(settings(), Memory::default());
    let (first, _) = complete(&mut controllers, &service("web", "type: NodePort"));
    let mut again = Controllers::new(settings(), controllers.memory().clone());
    let mut unreadable = snapshot("");
    unreadable.complete = false;
    again.complete(unreadable);
    assert_eq!(again.memory(), controllers.memory());
    assert_eq!(complete(&mut again, &service("web", "type: NodePort")).0, first);
}

#[test]
fn what_a_service_no_longer_wants_is_given_back() {
    let mut controllers = Controllers::new(settings(), Memory::default());
    let (first, _) = complete(&mut controllers, &service("web", "type: LoadBalancer, externalTrafficPolicy: Local"));
    let (then, _) = complete(&mut controllers, &service("web", ""));
    assert_eq!(then["web"], first["web"].split(' ').next().unwrap());
    let allocation = controllers.memory().services.values().next().unwrap();
    assert_eq!(
        (allocation.node_ports.len(), allocation.health_check_node_port, allocation.load_balancer_ips.len()),
        (0, None, 0)
    );
    complete(&mut controllers, &service("web", "clusterIP: 10.96.0.77"));
    assert_eq!(**controllers.memory(), Memory::default());
}

#[test]
fn a_name_for_what_another_was_given_is_refused_with_both_names() {
    let mut controllers = Controllers::new(settings(), Memory::default());
    let spec = "type: LoadBalancer, externalTrafficPolicy: Local";
    let (first, _) = complete(&mut controllers, &service("web", spec));
    let given: Vec<&str> = first["web"].split(' ').collect();
    let (ip, port) = (given[0], given[1].trim_start_matches(':'));
    let (health, lb) = (given[2].trim_start_matches("health:"), given[3].trim_start_matches("lb:"));
    let mut rows = vec![
        (format!("clusterIP: {ip}"), "spec.clusterIPs", ip),
        (
            format!("type: LoadBalancer, externalTrafficPolicy: Local, healthCheckNodePort: {health}"),
            "spec.healthCheckNodePort",
            health,
        ),
        (format!("type: LoadBalancer, loadBalancerIP: {lb}"), "spec.loadBalancerIP", lb),
    ];
    for taken in [port, health] {
        rows.push((
            format!("type: NodePort, ports: [{{port: 81, nodePort: {taken}}}]"),
            "spec.ports[0].nodePort",
            taken,
        ));
    }
    for (spec, field, what) in rows {
        let spec = if spec.contains("ports: ") { spec } else { format!("ports: [{{port: 80}}], {spec}") };
        let text = format!("apiVersion: v1\nkind: Service\nmetadata: {{name: a}}\nspec: {{{spec}}}\n---\n");
        let mut again = Controllers::new(settings(), controllers.memory().clone());
        let (services, problems) =
            complete(&mut again, &(text + &service("web", "type: LoadBalancer, externalTrafficPolicy: Local")));
        assert_eq!(services["web"], first["web"], "{spec}");
        assert!(
            !services["a"].is_empty() && !services["a"].split(' ').any(|word| word.ends_with(what)),
            "{spec}: {services:?}"
        );
        let expected = ["Service `default/a`", field, what, "belongs to Service `default/web`", "choose another"];
        assert!(problems.len() == 1 && expected.iter().all(|part| problems[0].contains(part)), "{spec}: {problems:?}");
    }
}

#[test]
fn what_cannot_be_had_is_told_and_the_rest_works() {
    let small = Settings::new(&["10.96.0.8/31".parse().unwrap()], 30_000..=30_001, vec!["192.0.2.1".parse().unwrap()]);
    for (text, lacking, expected) in [
        (service("c", ""), "", "spec.clusterIP: every IPv4 address of `cluster-ip-range` is in use"),
        (
            service("a", "ipFamilyPolicy: RequireDualStack"),
            "10.96.0.",
            "spec.ipFamilyPolicy: found RequireDualStack, but",
        ),
        (service("a", "ipFamilies: [IPv6]"), "", "spec.clusterIP: `cluster-ip-range` has no network of IPv6"),
        (
            service("a", "type: LoadBalancer, loadBalancerIP: 192.0.2.9"),
            "10.96.0.",
            "spec.loadBalancerIP: found `192.0.2.9`, expected an address of",
        ),
        (
            service("a", "type: LoadBalancer, ipFamilies: [IPv6], clusterIP: \"fd00::1\""),
            "fd00::1 :",
            "status.loadBalancer.ingress: `load-balancer-pools` has no address of IPv6",
        ),
    ] {
        let mut controllers = Controllers::new(small.clone(), Memory::default());
        let others = if expected.contains("in use") { service("a", "") + &service("b", "") } else { String::new() };
        let (services, problems) = complete(&mut controllers, &(others + &text));
        let last = services.values().last().unwrap();
        assert!(last.starts_with(lacking) && last.is_empty() == lacking.is_empty(), "{services:?}");
        assert!(problems.len() == 1 && problems[0].contains(expected), "{expected}: {problems:?}");
    }
    let mut controllers = Controllers::new(small, Memory::default());
    let ports = "type: NodePort, clusterIP: None".replace("clusterIP: None", "clusterIP: 10.1.1.1");
    let text = ["a", "b", "c"]
        .map(|name| service(name, &ports.replace("10.1.1.1", &format!("10.1.1.{}", name.len()))))
        .concat();
    let (services, problems) = complete(&mut controllers, &text);
    assert_eq!(services["c"], "10.1.1.1");
    assert!(
        problems.len() == 1
            && problems[0]
                .contains("Service `default/c`: spec.ports[0].nodePort: every port of `node-port-range` is in use"),
        "{problems:?}"
    );
}

#[test]
fn b80_what_did_not_change_is_the_same_in_memory() {
    let mut controllers = Controllers::new(settings(), Memory::default());
    let mut source = snapshot(&(service("a", "") + &service("b", "type: NodePort")));
    let first = controllers.complete(source.clone());
    let same = |other: &Snapshot| {
        first
            .objects
            .services
            .iter()
            .all(|(name, service)| std::sync::Arc::ptr_eq(service, &other.objects.services[name]))
    };
    assert!(same(&controllers.complete(source.clone())));
    let more = snapshot(&service("c", "")).objects.services;
    source.objects.services.extend(more.iter().map(|(name, service)| (name.clone(), service.clone())));
    assert!(same(&controllers.complete(source)));
}
