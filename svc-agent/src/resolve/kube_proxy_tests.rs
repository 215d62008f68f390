//! What kube-proxy's own tests (Kubernetes 1.36) say about the choice of endpoints: the same inputs, the same answers.
//!
//! Where this is not what kube-proxy does, the row says so; docs/behaviours.md has the reasons.

use std::sync::Arc;

use super::claims::{Grants, grant};
use super::fixtures::{endpoint, ingress, node, service, slice};
use super::service::resolve;
use super::{Choice, FrontendKind, Node, Policy, ResolvedPort};
use crate::model::{Endpoint, EndpointSlice, Protocol, Service, ServiceType, SlicePort};

const NONE: &str = "REJECT";
const LOST: &str = "DROP";

/// `NUMBER[r][s][t][l] [@ZONES] [#NODES]`: ready, serving, terminating, local; hints.
fn read(text: &str) -> Endpoint {
    let mut words = text.split(' ');
    let first = words.next().unwrap();
    let number = first.trim_end_matches(char::is_alphabetic);
    let flags = &first[number.len()..];
    let mut read = Endpoint {
        ready: flags.contains('r'),
        serving: flags.contains('s') || flags.contains('r'),
        terminating: flags.contains('t'),
        ..endpoint(&format!("10.0.1.{number}"), Some(if flags.contains('l') { "a" } else { "b" }))
    };
    for hints in words {
        let (kind, list) = hints.split_at(1);
        let list = list.split(',').map(str::to_owned).collect();
        if kind == "@" { read.for_zones = list } else { read.for_nodes = list }
    }
    read
}

fn ports(service: &Service, slices: Vec<EndpointSlice>, node: &Node) -> Vec<ResolvedPort> {
    let slices: Vec<Arc<EndpointSlice>> = slices.into_iter().map(Arc::new).collect();
    let shared = Arc::new(service.clone());
    let grants = grant([&shared], &Policy::anything(), node, &Grants::default());
    resolve(service, &slices, &grants.services[&service.name], node, &mut Vec::new())
}

/// A Service with every kind of address and these policies: `e`xternal Local, `i`nternal Local.
fn balanced(policy: &str) -> Service {
    let mut web = service("web", &["10.96.0.1"]);
    web.service_type = ServiceType::LoadBalancer;
    web.ports[0].node_port = Some(30_080);
    web.ingress = vec![ingress("192.0.2.10")];
    web.external_ips = vec!["192.0.2.20".parse().unwrap()];
    (web.external_local, web.internal_local) = (policy.contains('e'), policy.contains('i'));
    web
}

/// Whom an address leads to, from outside or from a pod or the node.
fn led(ports: &[ResolvedPort], kind: FrontendKind, outside: bool) -> String {
    let Some(port) = ports.first() else { return NONE.to_owned() };
    let frontend = port.frontends.iter().find(|frontend| frontend.kind == kind).unwrap();
    let local = if outside { frontend.external_local } else { frontend.internal_local };
    match if local { &port.local } else { &port.cluster } {
        Choice::Reject => NONE.to_owned(),
        Choice::Drop => LOST.to_owned(),
        Choice::Backends(chosen) => {
            let number =
                |index: &usize| port.backends[*index].addr.to_string().split('.').next_back().unwrap().to_owned();
            chosen.iter().map(number).collect::<Vec<_>>().join(" ")
        }
    }
}

#[test]
fn b54_b57_endpoints_are_put_into_the_sets_of_kube_proxys_topology_test() {
    use FrontendKind::{ClusterIp, LoadBalancer};
    /// Its policies, the node's name and zone, endpoints, to the ClusterIP from inside, to the balancer from outside.
    type Row = (&'static str, &'static str, Option<&'static str>, &'static [&'static str], &'static str, &'static str);
    let hinted: &[&str] = &["3r @a", "4r @b", "5r @c", "6r @a"];
    let hinted_here: &[&str] = &["3rl @a", "4rl @b", "5r @c", "6r @a"];
    let of_nodes: &[&str] = &["3r @a #node-1", "4r @b #node-2", "5r @c #node-3", "6r @a #node-4"];
    let rows: &[Row] = &[
        ("", "n", Some("a"), hinted, "3 6", "3 6"),
        // Topology does not matter to the local set.
        ("e", "n", Some("a"), hinted_here, "3 6", "3 4"),
        ("i", "n", Some("a"), hinted_here, "3 4", "3 6"),
        ("", "n", None, &["3r @a"], "3", "3"),
        ("", "n", Some(""), &["3r @a"], "3", "3"),
        ("", "n", Some("b"), &["3r @a"], "3", "3"),
        ("", "n", Some("a"), &["3r @a", "4r @b", "5r @c", "6 @a"], "3", "3"),
        ("", "n", Some("a"), &["3 @a", "4r @b", "5r @c", "6 @a"], "4 5", "4 5"),
        ("", "n", Some("a"), &["3r @a", "4r @b", "5r", "6r @a"], "3 4 5 6", "3 4 5 6"),
        ("", "n", Some("c"), &["3r @a,b,c", "4r @b,c", "5r @b,d", "6r @c"], "3 4 6", "3 4 6"),
        ("", "node-1", Some("a"), of_nodes, "3", "3"),
        ("", "node-0", Some("a"), of_nodes, "3 6", "3 6"),
        ("", "node-1", Some("a"), &["3r @a #node-1", "4r", "5r @c #node-3", "6r @a #node-4"], "3 4 5 6", "3 4 5 6"),
        ("e", "n", Some("a"), &["0rl @a", "1rl @b", "2r @a", "3r @b"], "0 2", "0 1"),
        ("i", "n", None, &[], NONE, NONE),
        ("i", "n", None, &["0r", "1r"], LOST, "0 1"),
        ("i", "n", None, &["0rl", "1rl"], "0 1", "0 1"),
        ("i", "n", None, &["0rl", "1r"], "0", "0 1"),
        ("", "n", None, &["0", "1"], NONE, NONE),
        ("", "n", None, &["0", "1r"], "1", "1"),
        ("", "n", None, &["0stl", "1st"], "0 1", "0 1"),
        ("e", "n", None, &["0rl", "1r"], "0 1", "0"),
        ("ie", "n", None, &["0rl", "1r"], "0", "0"),
        ("ie", "n", None, &["0r", "1r"], LOST, LOST),
        ("ie", "n", None, &["0st", "1st"], LOST, LOST),
        ("e", "n", None, &["0r", "1l", "2stl", "3st"], "0", "2"),
        ("", "n", Some("a"), &["0"], NONE, NONE),
    ];
    for (policy, name, zone, endpoints, inside, outside) in rows {
        // Local endpoints are those on the node `a`, whatever the hints call it.
        let endpoints = endpoints.iter().map(|text| {
            let mut endpoint = read(text);
            if endpoint.node.as_deref() == Some("a") {
                endpoint.node = Some((*name).to_owned());
            }
            endpoint
        });
        let endpoints: Vec<_> = endpoints.collect();
        let node = Node { name: (*name).to_owned(), zone: zone.map(str::to_owned), ..node() };
        let ports = ports(&balanced(policy), vec![slice("web", "w", endpoints.clone())], &node);
        let found = (led(&ports, ClusterIp, false), led(&ports, LoadBalancer, true));
        assert_eq!(found, ((*inside).to_owned(), (*outside).to_owned()), "{policy:?} {name} {zone:?} {endpoints:?}");
    }
    // A policy for outside means nothing to a Service that is not reached from there.
    let mut inner = service("web", &["10.96.0.1"]);
    inner.external_local = true;
    let ports = ports(&inner, vec![slice("web", "w", vec![read("0r"), read("1rl")])], &node());
    assert_eq!(led(&ports, ClusterIp, false), "0 1");
}

#[test]
fn b56_every_kind_of_address_leads_where_kube_proxys_masquerade_test_says() {
    use FrontendKind::{ClusterIp, ExternalIp, LoadBalancer, NodePort};
    let rows: &[(&str, FrontendKind, bool, &str)] = &[
        ("", ClusterIp, false, "1 2"),
        ("", ClusterIp, true, "1 2"),
        ("", NodePort, false, "1 2"),
        ("", NodePort, true, "1 2"),
        ("", LoadBalancer, false, "1 2"),
        ("", LoadBalancer, true, "1 2"),
        ("", ExternalIp, true, "1 2"),
        // The policy for outside is none for the ClusterIP.
        ("e", ClusterIp, false, "1 2"),
        ("e", ClusterIp, true, "1 2"),
        ("e", NodePort, true, "1"),
        ("e", LoadBalancer, true, "1"),
        ("e", LoadBalancer, false, "1 2"),
        ("e", ExternalIp, true, "1"),
        ("e", ExternalIp, false, "1 2"),
        // kube-proxy says "1 2", and that this makes no sense: the same port from outside leads to 1 (B33).
        ("e", NodePort, false, "1"),
        ("i", ClusterIp, false, "1"),
        ("i", ClusterIp, true, "1"),
        ("i", NodePort, false, "1 2"),
        ("i", NodePort, true, "1 2"),
        ("i", LoadBalancer, false, "1 2"),
        ("i", LoadBalancer, true, "1 2"),
    ];
    for (policy, kind, outside, expected) in rows {
        let slices = vec![slice("web", "w", vec![read("1rl"), read("2r")])];
        let ports = ports(&balanced(policy), slices, &node());
        assert_eq!(led(&ports, *kind, *outside), *expected, "{policy:?} {kind:?} outside={outside}");
    }
}

#[test]
fn b60_b64_terminating_endpoints_serve_as_in_kube_proxys_tests() {
    use FrontendKind::{ClusterIp, LoadBalancer};
    let rows: &[(&str, &[&str], &str, &str)] = &[
        ("e", &["1rl", "2rl", "3stl", "4tl", "5r"], "1 2 5", "1 2"),
        ("e", &["2stl", "3stl", "4tl", "5r"], "5", "2 3"),
        ("e", &["5st"], "5", LOST),
        ("e", &["4tl", "5t"], NONE, NONE),
        ("e", &[], NONE, NONE),
        ("", &["1rl", "2rl", "3st", "4t", "5r"], "1 2 5", "1 2 5"),
        ("", &["2stl", "3stl", "4t", "5st"], "2 3 5", "2 3 5"),
        ("", &["5st"], "5", "5"),
        ("", &["4tl", "5t"], NONE, NONE),
        ("", &[], NONE, NONE),
        // internalTrafficPolicy, ready alone.
        ("i", &["1rl", "2r", "3r"], "1", "1 2 3"),
        ("i", &["1rl", "2rl", "3r"], "1 2", "1 2 3"),
        ("i", &["1r", "2r", "3r"], LOST, "1 2 3"),
    ];
    for (policy, endpoints, inside, outside) in rows {
        let slices = vec![slice("web", "w", endpoints.iter().map(|text| read(text)).collect())];
        let ports = ports(&balanced(policy), slices, &node());
        let found = (led(&ports, ClusterIp, false), led(&ports, LoadBalancer, true));
        assert_eq!(found, ((*inside).to_owned(), (*outside).to_owned()), "{policy:?} {endpoints:?}");
    }
}

#[test]
fn b74_b75_slices_become_the_endpoints_of_kube_proxys_cache_test() {
    let with_ports = |name: &str, endpoints: &[&str], ports: &[(&str, u16)]| {
        let mut slice = slice("web", name, endpoints.iter().map(|text| read(text)).collect());
        let port =
            |(name, port): &(&str, u16)| SlicePort { name: (*name).into(), port: *port, protocol: Protocol::Tcp };
        slice.ports = ports.iter().map(port).collect();
        slice
    };
    let found = |names: &[&str], slices: Vec<EndpointSlice>| -> Vec<String> {
        let mut web = service("web", &["10.96.0.1"]);
        web.ports = (80..).zip(names).map(|(number, name)| super::fixtures::port(name, number)).collect();
        let backends = |port: &ResolvedPort| {
            let one = |backend: &super::Backend| {
                let last = backend.addr.to_string().split('.').next_back().unwrap().to_owned();
                let flags = [(backend.local, "l"), (!backend.ready, "-")].map(|(is, flag)| if is { flag } else { "" });
                format!("{last}:{}{}", backend.port, flags.concat())
            };
            port.backends.iter().map(one).collect::<Vec<_>>().join(" ")
        };
        ports(&web, slices, &node()).iter().map(backends).collect()
    };
    let both = [("p0", 80), ("p1", 443)];
    let several = with_ports("1", &["1r", "2rl", "3r"], &both);
    assert_eq!(found(&["p0", "p1"], vec![several]), ["1:80 2:80l 3:80", "1:443 2:443l 3:443"]);
    let of = |name: &str, endpoints: &[&str]| with_ports(name, endpoints, &[("p0", 80)]);
    assert_eq!(found(&["p0"], vec![of("1", &["1r", "2r"]), of("2", &["11r", "12r"])]), ["1:80 2:80 11:80 12:80"]);
    assert_eq!(found(&["p0"], vec![of("1", &["1r", "2r"]), of("2", &["1r", "2r", "3r"])]), ["1:80 2:80 3:80"]);
    // Ready in one of both.
    assert_eq!(found(&["p0"], vec![of("1", &["1", "2r", "3"]), of("2", &["1r", "2", "3"])]), ["1:80 2:80 3:80-"]);
    // An address with two ports is two endpoints.
    let other = with_ports("2", &["1r", "2rl"], &[("p0", 8080)]);
    assert_eq!(found(&["p0"], vec![of("1", &["1r", "2rl"]), other]), ["1:80 1:8080 2:80l 2:8080l"]);
}
