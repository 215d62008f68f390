//! What is kept between updates.

use std::sync::Arc;

use super::fixtures::{endpoint, ip, node, service, slice, snapshot};
use super::{Desired, Inherited, Policy, Resolver, ServiceName};
use crate::model::{Problem, ServiceType, Skipped};
use crate::sources::Snapshot;

fn kept(before: &Desired, after: &Desired, name: &str) -> bool {
    let name = ServiceName::new("default", name);
    Arc::ptr_eq(&before.services[&name], &after.services[&name])
}

fn names(desired: &Desired) -> Vec<&str> {
    desired.services.keys().map(|name| name.name.as_str()).collect()
}

fn world() -> Snapshot {
    let services = ["a", "b", "c"].iter().zip(1..).map(|(name, i)| service(name, &[&format!("10.96.0.{i}")]));
    let slices = ["a", "b", "c"].map(|name| slice(name, name, vec![endpoint("10.0.0.1", Some("a"))]));
    snapshot(services.collect(), slices.to_vec())
}

#[test]
fn b80_a_change_of_one_endpoint_resolves_one_service() {
    let mut resolver = Resolver::new(Policy::default());
    let mut snapshot = world();
    let first = resolver.update(&snapshot, &node());
    assert_eq!(first.services.len(), 3);
    let again = resolver.update(&snapshot, &node());
    assert!(["a", "b", "c"].iter().all(|name| kept(&first, &again, name)));

    let name = ServiceName::new("default", "b");
    let changed = slice("b", "b", vec![endpoint("10.0.0.2", Some("a"))]);
    snapshot.objects.slices.insert(name.clone(), vec![Arc::new(changed)]);
    let second = resolver.update(&snapshot, &node());
    assert!(kept(&first, &second, "a") && !kept(&first, &second, "b") && kept(&first, &second, "c"));
    assert_eq!(resolver.looked(), 1);

    // Changed, but not in what counts here.
    let mut moved = service("a", &["10.96.0.1"]);
    moved.origin = "other.yaml document 7".to_owned();
    snapshot.objects.services.insert(moved.name.clone(), Arc::new(moved));
    assert!(kept(&second, &resolver.update(&snapshot, &node()), "a"));
}

#[test]
fn a_change_of_the_node_resolves_all() {
    let mut resolver = Resolver::new(Policy::default());
    // The very same objects: the node alone has changed.
    let world = world();
    let first = resolver.update(&world, &node());
    let mut other = node();
    other.name = "b".to_owned();
    let second = resolver.update(&world, &other);
    for name in ["a", "b", "c"] {
        let name = ServiceName::new("default", name);
        assert!(first.services[&name][0].backends[0].local && !second.services[&name][0].backends[0].local);
    }
    // The frontends of a Service go with the addresses that are the node's.
    other.addresses.push("10.96.0.2".parse().unwrap());
    let third = resolver.update(&world, &other);
    assert!(!third.services.contains_key(&ServiceName::new("default", "b")));
    assert_eq!(third.problems.len(), 1);
}

#[test]
fn b76_a_service_that_is_removed_or_skipped_leaves_nothing() {
    let mut resolver = Resolver::new(Policy::default());
    resolver.update(&world(), &node());
    let mut less = world();
    less.objects.services.remove(&ServiceName::new("default", "a"));
    let mut skipped = service("b", &["10.96.0.2"]);
    skipped.skipped = Some(Skipped::Headless);
    less.objects.services.insert(skipped.name.clone(), Arc::new(skipped));
    let desired = resolver.update(&less, &node());
    assert_eq!(desired.services.keys().map(|name| name.name.as_str()).collect::<Vec<_>>(), ["c"]);
    assert!(desired.problems[0].text.contains("Service `default/a`, which is not there"));
    assert_eq!(resolver.update(&world(), &node()).services.len(), 3);
}

#[test]
fn problems_and_completeness_of_the_source_are_handed_on() {
    let mut snapshot = world();
    snapshot.complete = false;
    snapshot.problems.push(Problem::error("x"));
    let desired = Resolver::new(Policy::default()).update(&snapshot, &node());
    assert_eq!((desired.complete, desired.problems), (false, vec![Problem::error("x")]));
}

#[test]
fn b78_an_owner_keeps_its_address_over_a_restart() {
    let services = || {
        let mut web = service("web", &["10.96.0.1"]);
        (web.service_type, web.ports[0].node_port) = (ServiceType::NodePort, Some(30080));
        let mut thief = web.clone();
        thief.name.name = "a-thief".to_owned();
        vec![thief, web]
    };
    let slices = || {
        let both = ["10.0.0.1", "10.0.0.2"].map(|addr| endpoint(addr, None));
        let more = ["10.0.0.1", "10.0.0.2", "10.0.0.9"].map(|addr| endpoint(addr, None));
        vec![slice("web", "web", both.to_vec()), slice("a-thief", "a-thief", more.to_vec())]
    };
    let owner = |inherited: Option<Inherited>, complete: bool| {
        let mut resolver = Resolver::new(Policy::default());
        if let Some(inherited) = inherited {
            resolver.inherit(inherited);
        }
        let mut snapshot = snapshot(services(), slices());
        if !complete {
            // The owner's file cannot be read at first.
            snapshot.objects.services.remove(&ServiceName::new("default", "web"));
            snapshot.complete = false;
            resolver.update(&snapshot, &node());
            snapshot = self::snapshot(services(), slices());
        }
        let desired = resolver.update(&snapshot, &node());
        desired.services.keys().map(|name| name.name.clone()).collect::<Vec<_>>()
    };
    let left = |frontend: (&str, u16)| Inherited {
        frontends: [((ip(frontend.0), frontend.1, 6), 7)].into(),
        backends: [(7, [(ip("10.0.0.1"), 8080), (ip("10.0.0.2"), 8080)].into())].into(),
    };
    assert_eq!(owner(None, true), ["a-thief"], "the first by name");
    assert_eq!(owner(Some(Inherited::default()), true), ["a-thief"]);
    for complete in [true, false] {
        let ports = [("10.96.0.1", 80), ("192.168.0.1", 30080)];
        let both = Inherited {
            frontends: ports.into_iter().flat_map(|port| left(port).frontends).collect(),
            ..left(ports[0])
        };
        assert_eq!(owner(Some(both), complete), ["web"]);
    }
    // Each address goes by itself.
    assert_eq!(owner(Some(left(("192.168.0.1", 30080))), true), ["a-thief", "web"]);
}

#[test]
fn b78_who_has_most_of_the_backends_of_before_inherits() {
    let of = |name: &str, last: &[u8]| {
        slice(name, name, last.iter().map(|last| endpoint(&format!("10.0.0.{last}"), None)).collect())
    };
    let services = ["a-thief", "web"].map(|name| service(name, &["10.96.0.1"]));
    let mut resolver = Resolver::new(Policy::default());
    resolver.inherit(Inherited {
        frontends: [((ip("10.96.0.1"), 80, 6), 7)].into(),
        backends: [(7, [(ip("10.0.0.1"), 8080), (ip("10.0.0.2"), 8080)].into())].into(),
    });
    // Also if it has others besides, and the thief has none.
    let slices = vec![of("a-thief", &[1]), of("web", &[1, 2, 9])];
    assert_eq!(names(&resolver.update(&snapshot(services.to_vec(), slices), &node())), ["web"]);
}

#[test]
fn who_waits_for_an_address_gets_it_when_its_owner_goes() {
    let both = ["a", "b"].map(|name| service(name, &["10.96.0.1"]));
    let slices = ["a", "b"].map(|name| slice(name, name, vec![endpoint("10.0.0.1", Some("a"))]));
    let mut snapshot = snapshot(both.to_vec(), slices.to_vec());
    let mut resolver = Resolver::new(Policy::default());
    assert_eq!(names(&resolver.update(&snapshot, &node())), ["a"]);
    // Nothing of the other one's own has changed.
    snapshot.objects.services.remove(&ServiceName::new("default", "a"));
    assert_eq!(names(&resolver.update(&snapshot, &node())), ["b"]);
}
