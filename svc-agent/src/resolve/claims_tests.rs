//! Who may answer on which address.

use std::sync::Arc;

use super::claims::{Grants, grant};
use super::fixtures::{ingress, ip, node, port, service};
use super::{FrontendKind, Policy};
use crate::model::{Ingress, Protocol, Service, ServiceName, ServiceType, Severity, Skipped};

fn policy() -> Policy {
    Policy { external_ips: vec!["203.0.113.0/24".parse().unwrap()], ..Policy::default() }
}

fn decide(services: Vec<Service>, before: &Grants) -> Grants {
    let services: Vec<Arc<Service>> = services.into_iter().map(Arc::new).collect();
    grant(&services, &policy(), &node(), before)
}

/// `address:port` of what a Service got.
fn frontends(grants: &Grants, name: &str) -> Vec<String> {
    let granted = grants.services.get(&ServiceName::new("default", name));
    granted
        .into_iter()
        .flatten()
        .map(|granted| format!("{} {}", granted.frontend.addr, granted.frontend.port))
        .collect()
}

fn errors(grants: &Grants) -> Vec<&str> {
    let errors = grants.problems.iter().filter(|problem| problem.severity == Severity::Error);
    // Whoever wrote the Service is told, by an Event.
    assert!(errors.clone().all(|problem| problem.about.is_some()), "{:?}", grants.problems);
    errors.map(|problem| problem.text.as_str()).collect()
}

#[test]
fn b36_a_node_port_answers_on_every_address_of_the_node() {
    let mut web = service("web", &["10.96.0.1"]);
    web.service_type = ServiceType::NodePort;
    web.ports[0].node_port = Some(30080);
    let mut node = node();
    node.addresses.extend([ip("127.0.0.1"), ip("fe80::1"), ip("192.168.1.1"), ip("192.168.0.1")]);
    let services = [Arc::new(web)];
    let all = grant(&services, &policy(), &node, &Grants::default());
    let expected = ["10.96.0.1 80", "192.168.0.1 30080", "192.168.1.1 30080", "2001:db8::1 30080"];
    assert_eq!(frontends(&all, "web"), expected);

    for (ranges, expected) in [
        (vec!["192.168.0.0/24"], vec!["10.96.0.1 80", "192.168.0.1 30080"]),
        (vec!["2001:db8::/32", "192.168.1.0/24"], vec!["10.96.0.1 80", "192.168.1.1 30080", "2001:db8::1 30080"]),
        (vec![], vec!["10.96.0.1 80"]),
    ] {
        let ranges = ranges.into_iter().map(|range| range.parse().unwrap()).collect();
        let policy = Policy { node_port_addresses: Some(ranges), ..policy() };
        assert_eq!(frontends(&grant(&services, &policy, &node, &Grants::default()), "web"), expected);
    }
}

#[test]
fn b56_each_kind_of_address_follows_its_policy() {
    let mut web = service("web", &["10.96.0.1"]);
    web.service_type = ServiceType::LoadBalancer;
    web.ports[0].node_port = Some(30080);
    web.ingress = vec![ingress("198.51.100.1")];
    web.external_ips = vec![ip("203.0.113.1")];
    for (external, internal) in [(false, false), (true, false), (false, true), (true, true)] {
        (web.external_local, web.internal_local) = (external, internal);
        let grants = decide(vec![web.clone()], &Grants::default());
        assert_eq!(errors(&grants), [""; 0]);
        for granted in &grants.services[&web.name] {
            let frontend = granted.frontend;
            let expected = match frontend.kind {
                FrontendKind::ClusterIp => (internal, internal),
                FrontendKind::NodePort => (external, external),
                FrontendKind::LoadBalancer | FrontendKind::ExternalIp => (external, false),
            };
            assert_eq!((frontend.external_local, frontend.internal_local), expected, "{frontend:?}");
        }
    }
}

#[test]
fn b58_what_a_balancer_terminates_is_left_alone() {
    let mut web = service("web", &[]);
    web.service_type = ServiceType::LoadBalancer;
    web.ingress = vec![Ingress { proxy: true, ..ingress("198.51.100.1") }, ingress("198.51.100.2")];
    assert_eq!(frontends(&decide(vec![web], &Grants::default()), "web"), ["198.51.100.2 80"]);
}

#[test]
fn b59_an_address_of_a_family_without_ranges_is_open_and_that_is_said() {
    let mut web = service("web", &["10.96.0.1"]);
    web.service_type = ServiceType::LoadBalancer;
    web.ingress = vec![ingress("198.51.100.1"), ingress("2001:db8:5::1")];
    web.source_ranges = vec!["10.0.0.0/8".parse().unwrap()];
    let grants = decide(vec![web.clone()], &Grants::default());
    assert_eq!(frontends(&grants, "web"), ["10.96.0.1 80", "198.51.100.1 80", "2001:db8:5::1 80"]);
    let about = |grants: &Grants| {
        grants.problems.iter().filter(|problem| problem.text.contains("spec.loadBalancerSourceRanges")).count()
    };
    assert_eq!(about(&grants), 1, "{:?}", grants.problems);
    web.source_ranges.push("2001:db8::/32".parse().unwrap());
    assert_eq!(about(&decide(vec![web.clone()], &Grants::default())), 0);
    web.source_ranges.clear();
    assert_eq!(about(&decide(vec![web], &Grants::default())), 0);
}

#[test]
fn b76_skipped_services_claim_nothing() {
    let mut other = service("a", &["10.96.0.1"]);
    other.skipped = Some(Skipped::OtherProxy);
    let grants = decide(vec![other, service("b", &["10.96.0.1"])], &Grants::default());
    assert_eq!((frontends(&grants, "a").len(), frontends(&grants, "b").len(), errors(&grants).len()), (0, 1, 0));
}

#[test]
fn addresses_outside_the_operators_ranges_are_refused_and_named() {
    let mut web = service("web", &["10.96.0.1", "2001:db8::1"]);
    web.service_type = ServiceType::LoadBalancer;
    web.external_ips = vec![ip("203.0.113.1"), ip("8.8.8.8"), ip("192.168.0.1")];
    web.ingress = vec![ingress("198.51.100.1"), ingress("192.168.0.1")];
    let web = [Arc::new(web)];
    let policy = Policy { load_balancer_ips: Some(vec!["198.18.0.0/15".parse().unwrap()]), ..policy() };
    let grants = grant(&web, &policy, &node(), &Grants::default());
    assert_eq!(frontends(&grants, "web"), ["10.96.0.1 80", "203.0.113.1 80"]);
    let at = "web.yaml document 1, Service `default/web`";
    let own = "is an address of this node; choose another, or use a nodePort; the address is refused";
    assert_eq!(
        errors(&grants),
        [
            format!("{at}: spec.clusterIPs: `2001:db8::1` {own}"),
            format!(
                "{at}: status.loadBalancer.ingress: `198.51.100.1` is not in a range of load balancers; add one with \
                 --load-balancer-ips; the address is refused"
            ),
            format!("{at}: status.loadBalancer.ingress: `192.168.0.1` {own}"),
            format!(
                "{at}: spec.externalIPs: `8.8.8.8` is not in a range where externalIPs are allowed; add one with \
                 --external-ips; the address is refused"
            ),
            format!("{at}: spec.externalIPs: `192.168.0.1` {own}"),
        ]
    );
}

#[test]
fn the_older_service_owns_what_two_claim_else_the_first_by_name() {
    let mut old = service("z", &["10.96.0.1"]);
    old.created = Some("2024-01-01T00:00:00Z".parse().unwrap());
    let mut young = service("a", &["10.96.0.1"]);
    young.created = Some("2025-01-01T00:00:00Z".parse().unwrap());
    let ageless = service("m", &["10.96.0.1"]);
    let grants = decide(vec![young.clone(), ageless.clone(), old], &Grants::default());
    assert_eq!(frontends(&grants, "z"), ["10.96.0.1 80"]);
    let text =
        "spec.clusterIPs: `10.96.0.1` port 80 TCP belongs to Service `default/z`, which comes first; choose another";
    assert_eq!(
        errors(&grants),
        [
            format!("a.yaml document 1, Service `default/a`: {text}"),
            format!("m.yaml document 1, Service `default/m`: {text}")
        ]
    );
    let grants = decide(vec![ageless, service("b", &["10.96.0.1"])], &Grants::default());
    assert_eq!(frontends(&grants, "b"), ["10.96.0.1 80"]);
}

#[test]
fn an_owner_keeps_its_address_and_a_refused_claim_leaves_no_trace() {
    let web = service("web", &["10.96.0.1"]);
    let mut thief = service("a-thief", &["10.96.0.1"]);
    thief.created = Some("2001-01-01T00:00:00Z".parse().unwrap());
    let first = decide(vec![web.clone()], &Grants::default());
    let both = decide(vec![thief.clone(), web.clone()], &first);
    assert_eq!(frontends(&both, "web"), ["10.96.0.1 80"]);
    assert!(frontends(&both, "a-thief").is_empty());
    let again = decide(vec![web], &both);
    assert_eq!((frontends(&again, "web"), errors(&again).len()), (vec!["10.96.0.1 80".to_owned()], 0));
    // Gone is gone: then the other may have it.
    assert_eq!(frontends(&decide(vec![thief], &again), "a-thief"), ["10.96.0.1 80"]);
}

#[test]
fn a_cluster_ip_is_one_services_alone_and_other_addresses_are_shared_by_port() {
    let mut external = service("b", &[]);
    external.external_ips = vec![ip("203.0.113.1")];
    external.ports = vec![port("", 443)];
    // On another port of a ClusterIP.
    let grants = decide(vec![service("a", &["203.0.113.1"]), external.clone()], &Grants::default());
    assert_eq!((frontends(&grants, "b").len(), errors(&grants).len()), (0, 1));
    // The other way round.
    let mut first = external.clone();
    first.name.name = "0".to_owned();
    let grants = decide(vec![service("a", &["203.0.113.1"]), first], &Grants::default());
    assert_eq!((frontends(&grants, "a").len(), errors(&grants).len()), (0, 1));
    // Two share an ExternalIP on different ports and protocols, not on the same.
    let mut other = external.clone();
    other.name.name = "c".to_owned();
    other.ports = vec![port("a", 80), port("b", 443)];
    let grants = decide(vec![external.clone(), other.clone()], &Grants::default());
    assert_eq!((frontends(&grants, "c"), errors(&grants).len()), (vec!["203.0.113.1 80".to_owned()], 1));
    other.ports[1].protocol = Protocol::Udp;
    assert_eq!(errors(&decide(vec![external, other], &Grants::default())), [""; 0]);
}

#[test]
fn one_address_as_two_kinds_of_one_service_counts_once() {
    let mut web = service("web", &["10.96.0.1"]);
    web.service_type = ServiceType::LoadBalancer;
    web.ingress = vec![ingress("203.0.113.1")];
    web.external_ips = vec![ip("203.0.113.1")];
    let first = decide(vec![web.clone()], &Grants::default());
    assert_eq!(frontends(&first, "web"), ["10.96.0.1 80", "203.0.113.1 80"]);
    assert_eq!(first.services, decide(vec![web], &first).services);
    assert_eq!(errors(&first), [""; 0]);
}

#[test]
fn b73_a_node_port_number_is_one_services_for_each_protocol() {
    let with = |name: &str, protocol: Protocol| {
        let mut service = service(name, &[]);
        service.service_type = ServiceType::NodePort;
        service.ports[0].node_port = Some(30053);
        service.ports[0].protocol = protocol;
        service
    };
    let grants =
        decide(vec![with("a", Protocol::Udp), with("b", Protocol::Tcp), with("c", Protocol::Tcp)], &Grants::default());
    assert_eq!(
        (frontends(&grants, "a").len(), frontends(&grants, "b").len(), frontends(&grants, "c").len()),
        (2, 2, 0)
    );
    assert_eq!(
        errors(&grants),
        ["c.yaml document 1, Service `default/c`: spec.ports[0].nodePort: 30053 TCP belongs to Service `default/b`, \
          which comes first; choose another"]
    );
}

#[test]
fn what_needs_an_api_server_is_noted() {
    let mut web = service("web", &[]);
    web.service_type = ServiceType::NodePort;
    web.ports = vec![port("a", 80), port("b", 81)];
    let grants = decide(vec![web], &Grants::default());
    assert!(grants.services.is_empty());
    assert!(grants.problems.iter().all(|problem| problem.severity == Severity::Notice));
    for place in ["spec.clusterIP: none", "spec.ports[0].nodePort: none", "spec.ports[1].nodePort: none"] {
        assert!(grants.problems.iter().any(|problem| problem.text.contains(place)), "{place}: {:?}", grants.problems);
    }
}
