//! Which backends a port has, and which of them new connections may use.

use std::sync::Arc;

use super::claims::{Grants, grant};
use super::fixtures::{endpoint, ip, node, port, service, slice};
use super::service::resolve;
use super::{AddressFamily, Choice, Node, Policy, ResolvedPort};
use crate::model::{
    Endpoint, EndpointSlice, ForwardingMode, Problem, Protocol, Service, ServiceType, SliceOrigin, SlicePort, Target,
};

fn resolved(service: &Service, slices: Vec<EndpointSlice>, node: &Node) -> (Vec<ResolvedPort>, Vec<Problem>) {
    let slices: Vec<Arc<EndpointSlice>> = slices.into_iter().map(Arc::new).collect();
    let shared = Arc::new(service.clone());
    let grants = grant([&shared], &Policy::default(), node, &Grants::default());
    let granted = grants.services.get(&service.name).map(Vec::as_slice).unwrap_or_default();
    let mut problems = Vec::new();
    (resolve(service, &slices, granted, node, &mut problems), problems)
}

/// The port of a Service with one ClusterIP, whose policy is Local if `local`.
fn one(local: bool, endpoints: Vec<Endpoint>) -> ResolvedPort {
    let mut web = service("web", &["10.96.0.1"]);
    web.internal_local = local;
    resolved(&web, vec![slice("web", "web-1", endpoints)], &node()).0.remove(0)
}

/// The last octets of a choice.
fn chosen(port: &ResolvedPort, choice: &Choice) -> Vec<u8> {
    match choice {
        Choice::Backends(indices) => indices.iter().map(|index| last(port.backends[*index].addr)).collect(),
        Choice::Reject | Choice::Drop => Vec::new(),
    }
}

fn last(addr: std::net::IpAddr) -> u8 {
    match addr {
        std::net::IpAddr::V4(v4) => v4.octets()[3],
        std::net::IpAddr::V6(v6) => v6.octets()[15],
    }
}

/// Flags of an endpoint: `r`eady, `s`erving, `t`erminating, `l`ocal.
fn with(last: u8, flags: &str) -> Endpoint {
    Endpoint {
        ready: flags.contains('r'),
        serving: flags.contains('s'),
        terminating: flags.contains('t'),
        ..endpoint(&format!("10.0.0.{last}"), Some(if flags.contains('l') { "a" } else { "b" }))
    }
}

#[test]
fn b54_b55_b60_the_sets_follow_readiness_and_place() {
    /// Endpoints, cluster set, local set, and the local choice without one.
    type Row = (&'static [&'static str], &'static [u8], &'static [u8], Option<Choice>);
    let rows: &[Row] = &[
        (&["rsl", "rs"], &[1, 2], &[1], None),
        (&["rs", "rs"], &[1, 2], &[], Some(Choice::Drop)),
        (&[], &[], &[], Some(Choice::Reject)),
        (&["l", ""], &[], &[], Some(Choice::Reject)),
        // Terminating ones serve only where nothing is ready.
        (&["rsl", "stl"], &[1], &[1], None),
        (&["rs", "stl"], &[1], &[2], None),
        (&["stl", "st"], &[1, 2], &[1], None),
        (&["st", "t", ""], &[1], &[], Some(Choice::Drop)),
        (&["tl", "t"], &[], &[], Some(Choice::Reject)),
        // Serving but neither ready nor terminating: not for new connections.
        (&["sl"], &[], &[], Some(Choice::Reject)),
        (&["rsl", "l", "stl"], &[1], &[1], None),
        (&["rs", "l", "stl", "tl"], &[1], &[3], None),
    ];
    for (flags, cluster, local, without) in rows {
        let endpoints = || (1..).zip(*flags).map(|(last, flags)| with(last, flags)).collect::<Vec<_>>();
        let port = one(true, endpoints());
        assert_eq!(chosen(&port, &port.cluster), *cluster, "{flags:?}");
        assert_eq!(chosen(&port, &port.local), *local, "{flags:?}");
        if let Some(without) = without {
            assert_eq!(port.local, *without, "{flags:?}");
        }
        assert_eq!(port.backends.len(), flags.len(), "every endpoint may have connections");
        let port = one(false, endpoints());
        assert_eq!(port.local, port.cluster, "nobody uses the local set");
    }
}

#[test]
fn b57_hints_count_only_if_every_ready_endpoint_has_one_and_one_is_ours() {
    let hinted = |last: u8, flags: &str, zones: &[&str], nodes: &[&str]| {
        let mut endpoint = with(last, flags);
        endpoint.for_zones = zones.iter().map(|zone| (*zone).to_owned()).collect();
        endpoint.for_nodes = nodes.iter().map(|node| (*node).to_owned()).collect();
        endpoint
    };
    let rows = [
        (vec![hinted(1, "rs", &["z1"], &[]), hinted(2, "rs", &["z2"], &[])], vec![1]),
        (vec![hinted(1, "rs", &["z1", "z2"], &[]), hinted(2, "rs", &["z2", "z1"], &[])], vec![1, 2]),
        (vec![hinted(1, "rs", &["z3"], &[]), hinted(2, "rs", &["z2"], &[])], vec![1, 2]),
        (vec![hinted(1, "rs", &["z1"], &[]), hinted(2, "rs", &[], &[])], vec![1, 2]),
        // Terminating and unready ones need no hint.
        (vec![hinted(1, "rs", &["z1"], &[]), hinted(2, "st", &[], &[]), hinted(3, "", &[], &[])], vec![1]),
        // Nodes come before zones, by the same rule.
        (vec![hinted(1, "rs", &["z1"], &["b"]), hinted(2, "rs", &["z2"], &["a"])], vec![2]),
        (vec![hinted(1, "rs", &["z1"], &["b"]), hinted(2, "rs", &["z2"], &["c"])], vec![1]),
        (vec![hinted(1, "rs", &["z1"], &["a"]), hinted(2, "rs", &["z2"], &[])], vec![1]),
        // Only terminating ones are left: topology does not matter.
        (vec![hinted(1, "st", &["z2"], &[]), hinted(2, "st", &["z1"], &[])], vec![1, 2]),
    ];
    for (endpoints, expected) in rows {
        let port = one(false, endpoints.clone());
        assert_eq!(chosen(&port, &port.cluster), expected, "{endpoints:?}");
    }
    // Local policy ignores hints; a node without a zone ignores those of zones.
    let elsewhere = vec![hinted(1, "rsl", &["z2"], &[]), hinted(2, "rs", &["z1"], &[])];
    let port = one(true, elsewhere.clone());
    assert_eq!((chosen(&port, &port.cluster), chosen(&port, &port.local)), (vec![2], vec![1]));
    let nowhere = Node { zone: None, ..node() };
    let port = resolved(&service("web", &["10.96.0.1"]), vec![slice("web", "w", elsewhere)], &nowhere).0.remove(0);
    assert_eq!(chosen(&port, &port.cluster), [1, 2]);
}

#[test]
fn b74_each_slice_brings_its_own_number_for_a_name() {
    let mut web = service("web", &["10.96.0.1"]);
    web.ports = vec![port("http", 80), port("metrics", 9090)];
    let named = |name: &str, ports: &[(&str, u16, Protocol)], address: &str| {
        let mut slice = slice("web", name, vec![endpoint(address, None)]);
        slice.ports = ports
            .iter()
            .map(|(name, port, protocol)| SlicePort { name: (*name).to_owned(), port: *port, protocol: *protocol })
            .collect();
        slice
    };
    let tcp = Protocol::Tcp;
    let slices = vec![
        named("1", &[("http", 8080, tcp), ("metrics", 9100, tcp)], "10.0.0.1"),
        named("2", &[("http", 8081, tcp), ("other", 1, tcp), ("metrics", 9101, Protocol::Udp)], "10.0.0.2"),
    ];
    let (ports, problems) = resolved(&web, slices, &node());
    let backends = |port: &ResolvedPort| port.backends.iter().map(|backend| backend.port).collect::<Vec<_>>();
    assert_eq!(ports.iter().map(backends).collect::<Vec<_>>(), [vec![8080, 8081], vec![9100]]);
    assert!(problems.is_empty());
}

#[test]
fn b74_a_name_that_no_slice_has_is_told() {
    let mut web = service("web", &["10.96.0.1"]);
    web.ports = vec![port("http", 80)];
    let (ports, problems) = resolved(&web, vec![slice("web", "1", vec![endpoint("10.0.0.1", None)])], &node());
    assert_eq!(ports[0].cluster, Choice::Reject);
    assert_eq!(
        problems[0].text,
        "web.yaml document 1, Service `default/web`: spec.ports[0].name: found an unnamed one for TCP among the ports of \
         its endpoints, expected `http` for TCP; connections are refused"
    );
    let (_, problems) = resolved(&web, vec![], &node());
    assert!(problems[0].text.contains("spec.ports[0]: no EndpointSlice or Endpoints object"));
    assert!(resolved(&web, vec![slice("web", "1", vec![])], &node()).1.is_empty());
}

#[test]
fn b75_slices_merge_and_an_endpoint_counts_once() {
    let target = |name: &str| {
        Some(Target { kind: "Pod".into(), namespace: "default".into(), name: name.into(), uid: String::new() })
    };
    let mut not_ready = with(1, "");
    not_ready.target = target("old");
    let mut ready = with(1, "rs");
    ready.target = target("new");
    // Different objects behind one address: the ready one. Equal in that: the local one.
    for endpoints in [[not_ready.clone(), ready.clone()], [ready.clone(), not_ready.clone()]] {
        let [first, second] = endpoints;
        let slices = vec![slice("web", "1", vec![first]), slice("web", "2", vec![second, with(2, "rs")])];
        let port = resolved(&service("web", &["10.96.0.1"]), slices, &node()).0.remove(0);
        assert_eq!((port.backends.len(), port.backends[0].target.as_deref()), (2, Some("new")));
    }
    for flags in [["rs", "rsl"], ["rsl", "rs"]] {
        let slices = flags.map(|flags| slice("web", flags, vec![with(1, flags)])).to_vec();
        let port = resolved(&service("web", &["10.96.0.1"]), slices, &node()).0.remove(0);
        assert!(port.backends.len() == 1 && port.backends[0].local, "{flags:?}");
    }
    // Of no object, as written by hand: the ready one, whatever is newer.
    for created in [["2024-01-01T00:00:00Z", "2024-01-02T00:00:00Z"], ["2024-01-02T00:00:00Z", "2024-01-01T00:00:00Z"]]
    {
        let mut slices = ["", "rs"].map(|flags| slice("web", flags, vec![with(1, flags)])).to_vec();
        slices.iter_mut().zip(created).for_each(|(slice, at)| slice.created = Some(at.parse().unwrap()));
        let port = resolved(&service("web", &["10.96.0.1"]), slices, &node()).0.remove(0);
        assert!(port.backends.len() == 1 && port.backends[0].ready, "{created:?}");
    }
    // Ready counts more than here.
    for flags in [["rs", "sl"], ["sl", "rs"]] {
        let slices = flags.map(|flags| slice("web", flags, vec![with(1, flags)])).to_vec();
        let port = resolved(&service("web", &["10.96.0.1"]), slices, &node()).0.remove(0);
        assert!(port.backends.len() == 1 && port.backends[0].ready, "{flags:?}");
    }
    // The same object: what the newest slice says.
    not_ready.target = target("new");
    let mut old = slice("web", "1", vec![ready]);
    old.created = Some("2024-01-01T00:00:00Z".parse().unwrap());
    let mut new = slice("web", "2", vec![not_ready]);
    new.created = Some("2024-01-02T00:00:00Z".parse().unwrap());
    let port = resolved(&service("web", &["10.96.0.1"]), vec![old, new], &node()).0.remove(0);
    assert!(port.backends.len() == 1 && !port.backends[0].ready);
}

#[test]
fn b75_endpoints_and_their_mirrored_slices_are_not_counted_twice() {
    let mut endpoints = slice("web", "web", vec![with(1, "rs"), with(9, "rs")]);
    endpoints.source = SliceOrigin::Endpoints;
    let mirror = slice("web", "web-abc", vec![with(1, "rs")]);
    let lasts = |slices: Vec<EndpointSlice>| {
        let port = resolved(&service("web", &["10.96.0.1"]), slices, &node()).0.remove(0);
        chosen(&port, &port.cluster)
    };
    assert_eq!(lasts(vec![endpoints.clone(), mirror]), [1]);
    assert_eq!(lasts(vec![endpoints]), [1, 9]);
}

#[test]
fn b76_each_family_has_its_own_endpoints() {
    let web = service("web", &["10.96.0.1", "fd00::1"]);
    let endpoints = vec![endpoint("10.0.0.1", None), endpoint("fd00:1::7", None), endpoint("10.0.0.2", None)];
    let (ports, _) = resolved(&web, vec![slice("web", "1", endpoints)], &node());
    let families: Vec<(AddressFamily, usize)> =
        ports.iter().map(|port| (port.key.family, port.backends.len())).collect();
    assert_eq!(families, [(AddressFamily::V4, 2), (AddressFamily::V6, 1)]);
    assert!(
        ports
            .iter()
            .all(|port| port.frontends.iter().all(|frontend| AddressFamily::of(frontend.addr) == port.key.family))
    );
}

#[test]
fn b76_a_node_port_opens_the_families_that_the_service_has() {
    let families = |cluster_ips: &[&str], families: &[AddressFamily], endpoints: &[&str]| {
        let mut web = service("web", cluster_ips);
        web.service_type = ServiceType::NodePort;
        web.ports[0].node_port = Some(30080);
        web.families = families.to_vec();
        let endpoints = endpoints.iter().map(|text| endpoint(text, None)).collect();
        let (ports, _) = resolved(&web, vec![slice("web", "1", endpoints)], &node());
        ports.iter().map(|port| port.key.family).collect::<Vec<_>>()
    };
    let (v4, v6) = (AddressFamily::V4, AddressFamily::V6);
    assert_eq!(families(&["10.96.0.1"], &[], &["10.0.0.1"]), [v4]);
    assert_eq!(families(&["10.96.0.1"], &[], &["10.0.0.1", "fd00::1"]), [v4, v6]);
    assert_eq!(families(&["10.96.0.1"], &[v4], &["10.0.0.1", "fd00::1"]), [v4]);
    assert_eq!(families(&["10.96.0.1"], &[v4, v6], &["10.0.0.1"]), [v4, v6]);
    assert_eq!(families(&[], &[], &[]), [v4, v6]);
}

#[test]
fn an_endpoint_is_local_by_its_node_or_by_an_address_of_this_node() {
    let endpoints = vec![
        endpoint("10.0.0.1", Some("a")),
        endpoint("10.0.0.2", Some("b")),
        endpoint("10.0.0.3", None),
        endpoint("192.168.0.1", None),
        endpoint("192.168.0.2", None),
    ];
    let port = one(true, endpoints);
    assert_eq!(chosen(&port, &port.local), [1, 1]);
    let local: Vec<bool> = port.backends.iter().map(|backend| backend.local).collect();
    assert_eq!(local, [true, false, false, true, false]);
    assert_eq!(port.backends[3].addr, ip("192.168.0.1"));
}

#[test]
fn b28_a_service_says_for_itself_how_its_packets_reach_other_nodes() {
    use ForwardingMode::{Dsr, Snat};
    for (own, of_node, dsr) in
        [(None, Snat, false), (None, Dsr, true), (Some(Snat), Dsr, false), (Some(Dsr), Snat, true)]
    {
        let mut web = service("web", &["10.96.0.1"]);
        web.forwarding_mode = own;
        let node = Node { forwarding_mode: of_node, ..node() };
        let port = resolved(&web, vec![slice("web", "1", vec![with(1, "rs")])], &node).0.remove(0);
        assert_eq!(port.dsr, dsr, "{own:?} on a node with {of_node:?}");
    }
}
