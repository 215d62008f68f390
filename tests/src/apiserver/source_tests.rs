//! The agent's source against this server, fault by fault, in a time that does not pass by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use svc_agent::model::{Rules, ServiceName};
use svc_agent::sources::Snapshot;
use svc_agent::sources::kubernetes::kinds::Watched;
use svc_agent::sources::kubernetes::servers::{self, Servers};
use svc_agent::sources::kubernetes::{KubernetesSource, Nodes, Timing};
use tokio::time::{Instant, sleep, timeout};

use super::faults::Fault;
use super::{Received, Server, Store};

pub fn service(name: &str, address: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "default"},
        "spec": {"clusterIP": address, "clusterIPs": [address], "ports": [{"port": 80}]}})
}

pub fn slice(name: &str, service: &str, addresses: &[&str]) -> Value {
    let endpoints: Vec<Value> =
        addresses.iter().map(|address| json!({"addresses": [address], "conditions": {"ready": true}})).collect();
    json!({"metadata": {"name": name, "namespace": "default", "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4", "endpoints": endpoints, "ports": [{"name": "", "port": 8080, "protocol": "TCP"}]})
}

pub fn node(name: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": "zone-a"}}})
}

pub fn store() -> Store {
    let store = Store::new();
    store.put(Watched::Node, node("here"));
    store.put(Watched::Node, node("there"));
    store.put(Watched::Services, service("web", "10.96.0.7"));
    store.put(Watched::EndpointSlices, slice("web-1", "web", &["10.244.0.7"]));
    store
}

pub fn start(server: &Server, urls: &[&str]) -> KubernetesSource {
    let configured = urls.iter().map(|url| servers::Server::new(*url)).collect();
    let servers = Servers::new(configured, None).unwrap();
    KubernetesSource::start("here", Nodes::Own, &Rules::default(), servers, Arc::new(server.clone()), Timing::default())
}

/// Waits until the source says what is expected; how long that took.
async fn until(source: &mut KubernetesSource, what: &str, mut holds: impl FnMut(&Snapshot) -> bool) -> Duration {
    let begun = Instant::now();
    let mut last = source.load();
    while !holds(&last) {
        assert!(begun.elapsed() < Duration::from_secs(4000), "never: {what}; {last:#?}");
        let _quiet = timeout(Duration::from_secs(1), source.changed()).await;
        last = source.load();
    }
    begun.elapsed()
}

pub fn has(snapshot: &Snapshot, name: &str) -> bool {
    snapshot.objects.services.contains_key(&ServiceName::new("default", name))
}

fn backends(snapshot: &Snapshot, name: &str) -> Vec<String> {
    let slices = snapshot.objects.slices.get(&ServiceName::new("default", name)).into_iter().flatten();
    let mut found: Vec<_> =
        slices.flat_map(|slice| &slice.endpoints).map(|endpoint| endpoint.addr.to_string()).collect();
    found.sort();
    found
}

/// Fails requests for one kind; `watch` says whether lists or watches.
fn only(watched: Watched, watch: bool, fault: Fault, times: u32) -> impl FnMut(&Received) -> Fault + Send {
    let mut left = times;
    move |received| {
        let path = &received.request.path;
        let hit = path.split('?').next() == watched.path(None).split('?').next() && path.contains("watch=1") == watch;
        if hit && left > 0 {
            left -= 1;
            return fault;
        }
        Fault::None
    }
}

#[tokio::test(start_paused = true)]
async fn b79_nothing_is_told_before_every_kind_is_listed() {
    let store = store();
    let server = Server::new(store);
    server.fail(only(Watched::EndpointSlices, false, Fault::Hang, 1));
    let mut source = start(&server, &["a"]);
    source.first(Duration::from_secs(10)).await;
    let snapshot = source.load();
    assert!(!snapshot.complete && snapshot.objects.services.is_empty(), "{snapshot:?}");
    until(&mut source, "the first state", |snapshot| snapshot.complete).await;
    let snapshot = source.load();
    assert_eq!(backends(&snapshot, "web"), ["10.244.0.7"]);
    assert_eq!(snapshot.objects.nodes.keys().collect::<Vec<_>>(), ["here"]);
    assert_eq!(snapshot.objects.nodes["here"].zone.as_deref(), Some("zone-a"));
    assert!(snapshot.problems.is_empty(), "{:?}", snapshot.problems);
}

#[tokio::test(start_paused = true)]
async fn b79_changes_are_followed_and_what_did_not_change_stays_the_same() {
    let store = store();
    let mut source = start(&Server::new(store.clone()), &["a"]);
    source.first(Duration::from_secs(10)).await;
    let before = source.load();
    store.put(Watched::EndpointSlices, slice("web-2", "web", &["10.244.0.8"]));
    store.put(Watched::Services, service("other", "10.96.0.8"));
    let took =
        until(&mut source, "both", |snapshot| has(snapshot, "other") && backends(snapshot, "web").len() == 2).await;
    assert!(took < Duration::from_secs(1), "{took:?}");
    let after = source.load();
    let name = ServiceName::new("default", "web");
    assert!(Arc::ptr_eq(before.objects.services.get(&name).unwrap(), after.objects.services.get(&name).unwrap()));
    assert!(Arc::ptr_eq(&before.objects.slices.get(&name).unwrap()[0], &after.objects.slices.get(&name).unwrap()[0]));
    store.delete(Watched::EndpointSlices, "default", "web-1");
    store.delete(Watched::Services, "default", "other");
    until(&mut source, "both gone", |now| !has(now, "other") && backends(now, "web") == ["10.244.0.8"]).await;
}

#[tokio::test(start_paused = true)]
async fn b79_gone_means_a_new_list_and_what_is_missing_there_is_removed() {
    for fault in [Fault::Gone, Fault::GoneLater] {
        let store = store();
        store.put(Watched::Services, service("doomed", "10.96.0.9"));
        let server = Server::new(store.clone());
        let mut source = start(&server, &["a"]);
        source.first(Duration::from_secs(10)).await;
        assert!(has(&source.load(), "doomed"));
        // What happens from now on is told by no watch.
        server.fail(|received| if received.request.path.contains("watch=1") { Fault::Refuse } else { Fault::None });
        sleep(Duration::from_secs(400)).await;
        store.delete(Watched::Services, "default", "doomed");
        store.compact();
        server.fail(only(Watched::Services, true, fault, 1));
        let took = until(&mut source, "the deletion", |snapshot| !has(snapshot, "doomed")).await;
        assert!(took < Duration::from_secs(10), "{took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn b79_the_last_state_outlives_any_loss_of_the_server() {
    for fault in [Fault::Refuse, Fault::Hang, Fault::Html(500), Fault::HtmlOk, Fault::Cut(100), Fault::End(100)] {
        let store = store();
        let server = Server::new(store.clone());
        let mut source = start(&server, &["a"]);
        source.first(Duration::from_secs(10)).await;
        server.fail(move |_| fault);
        sleep(Duration::from_secs(3600)).await;
        let snapshot = source.load();
        assert!(snapshot.complete && backends(&snapshot, "web") == ["10.244.0.7"], "{fault:?}: {snapshot:?}");
        assert!(snapshot.problems.iter().any(|problem| problem.text.contains("stays in use")), "{fault:?}");
        let fresh = source.watched().freshness();
        assert!(fresh.iter().all(|kind| !kind.connected && kind.error.is_some()), "{fault:?}: {fresh:?}");
        assert!(fresh.iter().all(|kind| kind.last_list.unwrap() > Duration::from_secs(3000)), "{fault:?}: {fresh:?}");
        store.put(Watched::EndpointSlices, slice("web-1", "web", &["10.244.0.9"]));
        server.fail(|_| Fault::None);
        let took = until(&mut source, "the new state", |snapshot| backends(snapshot, "web") == ["10.244.0.9"]).await;
        // A request that hangs has its time first.
        let limit = if fault == Fault::Hang { 40 } else { 5 };
        assert!(took <= Duration::from_secs(limit), "{fault:?}: {took:?}");
        until(&mut source, "no complaint", |snapshot| snapshot.problems.is_empty()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn b79_a_silent_watch_is_not_believed_for_long() {
    let store = store();
    let server = Server::new(store.clone());
    server.fail(|received| if received.request.path.contains("watch=1") { Fault::Silent } else { Fault::None });
    let mut source = start(&server, &["a"]);
    source.first(Duration::from_secs(10)).await;
    store.delete(Watched::EndpointSlices, "default", "web-1");
    let took = until(&mut source, "the deletion", |snapshot| backends(snapshot, "web").is_empty()).await;
    assert!(took > Duration::from_secs(100) && took < Duration::from_secs(200), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn b79_a_watch_that_loses_events_is_set_right_by_the_next_full_list() {
    let store = store();
    let server = Server::new(store.clone());
    server.fail(|received| if received.request.path.contains("watch=1") { Fault::Skip(1) } else { Fault::None });
    let mut source = start(&server, &["a"]);
    source.first(Duration::from_secs(10)).await;
    store.delete(Watched::EndpointSlices, "default", "web-1");
    let took = until(&mut source, "the deletion", |snapshot| backends(snapshot, "web").is_empty()).await;
    assert!(took > Duration::from_secs(600) && took < Duration::from_secs(2200), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn b79_an_older_list_is_not_followed_unless_all_servers_insist() {
    let store = store();
    let old = store.version();
    (10..30).for_each(|n| {
        store.put(Watched::Services, service("new", &format!("10.96.0.{n}")));
    });
    let server = Server::new(store.clone());
    let mut source = start(&server, &["a", "b"]);
    source.first(Duration::from_secs(10)).await;
    assert!(has(&source.load(), "new"));
    // One of two servers is behind, and the watches break.
    let breaks = AtomicU32::new(0);
    server.fail(move |received| match (received.server.as_str(), received.request.path.contains("watch=1")) {
        (_, true) if breaks.fetch_add(1, Ordering::Relaxed) < 6 => Fault::Cut(0),
        ("a", _) => Fault::Behind(20),
        _ => Fault::None,
    });
    for _ in 0..600 {
        sleep(Duration::from_secs(1)).await;
        assert!(has(&source.load(), "new"));
    }
    // The cluster is restored from a backup.
    store.go_back_to(old);
    server.fail(|_| Fault::None);
    store.put(Watched::Services, service("restored", "10.96.0.11"));
    let took = until(&mut source, "the backup", |now| has(now, "restored") && !has(now, "new")).await;
    assert!(took < Duration::from_secs(600), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn b79_a_list_that_lacks_almost_everything_is_asked_for_again() {
    let store = store();
    for n in 0..40 {
        store.put(Watched::Services, service(&format!("s{n}"), &format!("10.96.1.{n}")));
    }
    let server = Server::new(store.clone());
    let mut source = start(&server, &["a"]);
    source.first(Duration::from_secs(10)).await;
    // The watches break once, and one list is empty.
    let mut watches = 3;
    let mut lists = 1;
    server.fail(move |received| {
        let path = &received.request.path;
        if path.contains("watch=1") && watches > 0 {
            watches -= 1;
            return Fault::Cut(0);
        }
        if path.starts_with("/api/v1/services") && !path.contains("watch=1") && lists > 0 {
            lists -= 1;
            return Fault::Empty;
        }
        Fault::None
    });
    for _ in 0..2000 {
        sleep(Duration::from_secs(1)).await;
        let snapshot = source.load();
        assert_eq!(snapshot.objects.services.len(), 42);
    }
    // This time it is true.
    for n in 0..40 {
        store.delete(Watched::Services, "default", &format!("s{n}"));
    }
    until(&mut source, "the end of most", |snapshot| snapshot.objects.services.len() == 2).await;
}

#[tokio::test(start_paused = true)]
async fn b79_the_way_to_the_api_server_is_never_lost() {
    let store = store();
    let endpoints = |addresses: &[&str]| {
        let mut slice = slice("kubernetes", "kubernetes", addresses);
        slice["ports"] = json!([{"name": "https", "port": 6443, "protocol": "TCP"}]);
        slice
    };
    store.put(Watched::EndpointSlices, endpoints(&["192.0.2.1", "192.0.2.2"]));
    let server = Server::new(store.clone());
    let mut source = start(&server, &["https://10.96.0.1"]);
    source.first(Duration::from_secs(10)).await;
    assert_eq!(backends(&source.load(), "kubernetes"), ["192.0.2.1", "192.0.2.2"]);
    // They take their endpoints along when they end.
    store.put(Watched::EndpointSlices, endpoints(&[]));
    sleep(Duration::from_secs(5)).await;
    assert_eq!(backends(&source.load(), "kubernetes"), ["192.0.2.1", "192.0.2.2"]);
    store.delete(Watched::EndpointSlices, "default", "kubernetes");
    store.delete(Watched::Services, "default", "kubernetes");
    sleep(Duration::from_secs(5)).await;
    let snapshot = source.load();
    assert!(has(&snapshot, "kubernetes") && backends(&snapshot, "kubernetes").len() == 2, "{snapshot:?}");
    assert!(snapshot.problems.iter().any(|problem| problem.text.contains("default/kubernetes")));
    // The Service's address leads nowhere: its endpoints are asked themselves.
    server.fail(|received| if received.server.contains("10.96.0.1") { Fault::Refuse } else { Fault::None });
    store.put(Watched::EndpointSlices, slice("web-1", "web", &["10.244.0.99"]));
    sleep(Duration::from_secs(700)).await;
    assert_eq!(backends(&source.load(), "web"), ["10.244.0.99"]);
    assert!(server.received().iter().any(|received| received.server == "https://192.0.2.1:6443"));
    // Somebody answers again.
    store.put(Watched::EndpointSlices, endpoints(&["192.0.2.3"]));
    until(&mut source, "the new one", |snapshot| backends(snapshot, "kubernetes") == ["192.0.2.3"]).await;
}

#[tokio::test(start_paused = true)]
async fn lists_come_in_pages_and_failures_are_not_repeated_all_the_time() {
    let store = store();
    for n in 0..1200 {
        store.put(Watched::Services, service(&format!("s{n}"), &format!("10.97.{}.{}", n / 200, n % 200 + 1)));
    }
    let server = Server::new(store);
    let mut source = start(&server, &["a"]);
    source.first(Duration::from_secs(10)).await;
    assert_eq!(source.load().objects.services.len(), 1202);
    let pages = |received: &[Received]| {
        received.iter().filter(|one| one.request.path.starts_with("/api/v1/services?&limit=500")).count()
    };
    assert_eq!(pages(&server.received()), 3);
    server.fail(|_| Fault::Refuse);
    let before = server.received().len();
    sleep(Duration::from_secs(600)).await;
    let asked = server.received().len() - before;
    assert!((200..1000).contains(&asked), "{asked} requests of three kinds within 10 minutes");
}

#[tokio::test(start_paused = true)]
async fn an_object_that_is_refused_keeps_its_last_good_version_and_harms_no_other() {
    let store = store();
    let mut source = start(&Server::new(store.clone()), &["a"]);
    source.first(Duration::from_secs(10)).await;
    store.put(Watched::Services, service("web", "127.0.0.1"));
    store.put(Watched::Services, json!({"metadata": {"name": "odd", "namespace": "default"}, "spec": {"ports": 7}}));
    store.put(Watched::Services, service("fine", "10.96.0.12"));
    until(&mut source, "the good one", |snapshot| has(snapshot, "fine")).await;
    let snapshot = source.load();
    let web = snapshot.objects.services.get(&ServiceName::new("default", "web")).unwrap();
    assert_eq!(web.cluster_ips, ["10.96.0.7".parse::<std::net::IpAddr>().unwrap()]);
    assert!(!has(&snapshot, "odd") && snapshot.complete);
    let texts: Vec<_> = snapshot.problems.iter().map(|problem| problem.text.as_str()).collect();
    assert!(texts.iter().any(|text| text.contains("`default/web`") && text.contains("last good version")), "{texts:?}");
    assert!(texts.iter().any(|text| text.contains("`default/odd`")), "{texts:?}");
}

#[tokio::test(start_paused = true)]
async fn b62_a_node_that_was_there_and_is_deleted_is_leaving() {
    let store = store();
    let mut source = start(&Server::new(store.clone()), &["a"]);
    source.first(Duration::from_secs(10)).await;
    assert!(!source.watched().leaving());
    let mut tainted = node("here");
    tainted["spec"] = json!({"taints": [{"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}]});
    store.put(Watched::Node, tainted);
    sleep(Duration::from_secs(1)).await;
    assert!(source.watched().leaving());
    store.put(Watched::Node, node("here"));
    sleep(Duration::from_secs(1)).await;
    assert!(!source.watched().leaving());
    store.delete(Watched::Node, "", "here");
    sleep(Duration::from_secs(1)).await;
    assert!(source.watched().leaving());
}

#[tokio::test(start_paused = true)]
async fn health_checks_that_nobody_makes_are_told() {
    let store = store();
    let mut checked = service("checked", "10.96.0.9");
    checked["metadata"]["annotations"] = json!({"svc-agent/health-check": "tcp"});
    store.put(Watched::Services, checked);
    let mut source = start(&Server::new(store), &["a"]);
    source.first(Duration::from_secs(10)).await;
    let problems = source.load().problems;
    assert!(problems.iter().any(|problem| problem.text.contains("health-check]: has no effect")), "{problems:?}");
}

#[tokio::test(start_paused = true)]
async fn b80_what_a_change_leaves_alone_is_shared_with_the_state_before() {
    let store = store();
    for number in 0..500 {
        store.put(
            Watched::Services,
            service(&format!("s{number}"), &format!("10.97.{}.{}", number / 200, number % 200)),
        );
        store.put(Watched::EndpointSlices, slice(&format!("s{number}-1"), &format!("s{number}"), &["10.244.1.1"]));
    }
    let mut source = start(&Server::new(store.clone()), &["a"]);
    source.first(Duration::from_secs(10)).await;
    let before = source.load();
    store.put(Watched::EndpointSlices, slice("s7-1", "s7", &["10.244.1.2"]));
    until(&mut source, "the change", |snapshot| backends(snapshot, "s7") == ["10.244.1.2"]).await;
    let after = source.load();
    let looked = std::cell::Cell::new(0);
    let slices = after.objects.slices.changes(&before.objects.slices, |old, new| {
        looked.set(looked.get() + 1);
        Arc::ptr_eq(&old[0], &new[0])
    });
    let names: Vec<_> = slices.iter().map(|change| change.key.name.as_str()).collect();
    assert_eq!(names, ["s7"]);
    assert!(looked.get() < 100, "looked at {} of 500", looked.get());
    assert!(after.objects.services.changes(&before.objects.services, Arc::ptr_eq).is_empty());
}
