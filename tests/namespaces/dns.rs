//! Names, asked by dig and by glibc.

mod server;

use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::Duration;

use server::{Dns, GROUP, Upstream, until};
use svc_tests::agent::Agent;
use svc_tests::manifest::Service;
use svc_tests::need;
use svc_tests::topology::{Host, Shape, World};

/// A headless Service with a named and a nameless endpoint, a large one, and an alias.
const MORE: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {clusterIP: None, ports: [{name: sql, port: 5432}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: db-1, labels: {kubernetes.io/service-name: db}}
addressType: IPv4
ports: [{name: sql, port: 15432}]
endpoints:
- {addresses: ["10.244.0.10"], hostname: db-0, conditions: {ready: true}}
- {addresses: ["10.244.0.11"], conditions: {ready: true}}
- {addresses: ["10.244.0.12"], hostname: db-2, conditions: {ready: false}}
---
apiVersion: v1
kind: Service
metadata: {name: out}
spec: {type: ExternalName, externalName: www.example.com}
"#;

/// The name server itself as a Service: its backend is the node.
fn dns_service(node: &Host) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: kube-dns, namespace: kube-system}}\n\
         spec: {{clusterIP: 10.96.0.53, ports: [{{name: dns, protocol: UDP, port: 53}}, {{name: dns-tcp, port: 53}}]}}\n\
         ---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{name: kube-dns-1, namespace: kube-system, labels: {{kubernetes.io/service-name: kube-dns}}}}\n\
         addressType: IPv4\nports: [{{name: dns, protocol: UDP, port: 53}}, {{name: dns-tcp, protocol: TCP, port: 53}}]\n\
         endpoints: [{{addresses: [\"{}\"], nodeName: node-0}}]\n",
        node.v4
    )
}

fn large() -> String {
    let mut text = "apiVersion: v1\nkind: Service\nmetadata: {name: large}\nspec: {clusterIP: None, ports: [{port: 1}]}\n---\n\
        apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: large-1, labels: {kubernetes.io/service-name: large}}\n\
        addressType: IPv4\nports: [{port: 1}]\nendpoints:\n"
        .to_owned();
    for index in 1..=200 {
        text.push_str(&format!("- {{addresses: [\"10.245.0.{index}\"]}}\n"));
    }
    text
}

/// What dig says in short, one answer a line, sorted.
fn dig(from: &Host, server: IpAddr, arguments: &[&str]) -> Vec<String> {
    let mut lines: Vec<String> =
        long_dig(from, server, &[&["+short"], arguments].concat()).lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

fn long_dig(from: &Host, server: IpAddr, arguments: &[&str]) -> String {
    let server = format!("@{server}");
    let output = from.ns.output(Command::new("dig").args([&server, "+time=2", "+tries=1"]).args(arguments)).unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// Asks glibc, with a resolv.conf as a pod of the namespace `default` has it.
fn getent(from: &Host, server: IpAddr, database: &str, name: &str) -> String {
    let file = tempfile::Builder::new().prefix("svct-").tempfile().unwrap();
    let search = "search default.svc.cluster.local svc.cluster.local cluster.local";
    std::fs::write(file.path(), format!("nameserver {server}\n{search}\noptions ndots:5 timeout:2 attempts:1\n"))
        .unwrap();
    let script = format!("mount --bind {} /etc/resolv.conf && getent {database} {name}", file.path().display());
    let mut command = Command::new("unshare");
    let output = from.ns.output(command.args(["--mount", "sh", "-c", &script])).unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// Everything that runs; it ends in the order of the fields.
struct Names {
    dns: Dns,
    agent: Agent,
    upstream: Upstream,
    world: World,
}

impl Names {
    fn start() -> Self {
        let world = World::build(Shape { nodes: 1, ..Shape::default() }).unwrap();
        let node = world.node(0).unwrap();
        let client = world.client().unwrap();
        let upstream_at = SocketAddr::new(client.v4.into(), 5353);
        let upstream = Upstream::start(client, upstream_at);
        let mut agent = Agent::prepare(node, &["--socket-group", GROUP.0]).unwrap();
        // It waits for the agent.
        let dns = Dns::start(node, &agent, upstream_at);
        until("svc-dns answers before the agent is there", Duration::from_secs(10), || {
            dig(client, node.v4.into(), &["www.example.org"]) == ["192.0.2.80"]
        });
        assert!(long_dig(client, node.v4.into(), &["web.default.svc.cluster.local"]).contains("SERVFAIL"));
        for (file, text) in [("more.yaml", MORE), ("large.yaml", &large()), ("dns.yaml", &dns_service(node))] {
            agent.write(file, text).unwrap();
        }
        agent.write("web.yaml", &Service::new("web", 1).http().endpoints(&world.pods).yaml()).unwrap();
        agent.spawn().unwrap();
        agent.wait_until_ready().unwrap();
        let names = Self { dns, agent, upstream, world };
        until("svc-dns follows the agent", Duration::from_secs(10), || !names.web("A").is_empty());
        names
    }

    fn ask(&self, arguments: &[&str]) -> Vec<String> {
        let node = self.world.node(0).unwrap();
        let v4 = dig(self.world.client().unwrap(), node.v4.into(), arguments);
        assert_eq!(v4, dig(self.world.client().unwrap(), node.v6.into(), arguments), "over IPv6: {arguments:?}");
        v4
    }

    /// Over one family: it may change between two questions.
    fn web(&self, query_type: &str) -> Vec<String> {
        let node = self.world.node(0).unwrap();
        dig(self.world.client().unwrap(), node.v4.into(), &["web.default.svc.cluster.local", query_type])
    }
}

#[test]
fn dig_and_glibc_find_services_by_name() {
    if !need::root("dig_and_glibc_find_services_by_name") {
        return;
    }
    let names = Names::start();
    let below = |name: &str| format!("{name}.cluster.local");
    for (name, query_type, wanted) in [
        ("web.default.svc", "A", &["10.96.0.1"][..]),
        ("WEB.default.svc", "AAAA", &["fd00:96::1"]),
        ("_http._tcp.web.default.svc", "SRV", &["0 100 80 web.default.svc.cluster.local."]),
        ("db.default.svc", "A", &["10.244.0.10", "10.244.0.11"]),
        ("db-0.db.default.svc", "A", &["10.244.0.10"]),
        ("db-2.db.default.svc", "A", &[]),
        ("10-244-0-11.db.default.svc", "A", &["10.244.0.11"]),
        (
            "_sql._tcp.db.default.svc",
            "SRV",
            &["0 50 15432 10-244-0-11.db.default.svc.cluster.local.", "0 50 15432 db-0.db.default.svc.cluster.local."],
        ),
        ("out.default.svc", "A", &["192.0.2.80", "www.example.com."]),
        ("dns-version", "TXT", &["\"1.1.0\""]),
    ] {
        assert_eq!(names.ask(&[&below(name), query_type]), wanted, "{name} {query_type}");
        assert_eq!(names.ask(&["+tcp", &below(name), query_type]), wanted, "{name} {query_type} over TCP");
    }
    assert_eq!(names.ask(&["-x", "10.96.0.1"]), ["web.default.svc.cluster.local."]);
    assert_eq!(names.ask(&["-x", "fd00:96::1"]), ["web.default.svc.cluster.local."]);
    assert_eq!(names.ask(&["-x", "10.244.0.10"]), ["db-0.db.default.svc.cluster.local."]);

    let (client, node) = (names.world.client().unwrap(), names.world.node(0).unwrap());
    let cut = long_dig(client, node.v4.into(), &["+ignore", "+noedns", "large.default.svc.cluster.local"]);
    assert!(cut.contains("flags: qr aa tc rd ra"), "{cut}");
    assert_eq!(names.ask(&["large.default.svc.cluster.local"]).len(), 200);
    let none = long_dig(client, node.v4.into(), &["nobody.default.svc.cluster.local"]);
    assert!(none.contains("NXDOMAIN") && none.contains("SOA"), "{none}");
    let nothing = long_dig(client, node.v4.into(), &["default.svc.cluster.local"]);
    assert!(nothing.contains("NOERROR") && nothing.contains("ANSWER: 0"), "{nothing}");
    assert!(long_dig(client, node.v4.into(), &["cluster.local", "AXFR"]).contains("Transfer failed"));

    for name in ["web", "web.default", "web.default.svc", "web.default.svc.cluster.local."] {
        let found = getent(client, node.v4.into(), "ahosts", name);
        assert!(found.contains("10.96.0.1 ") && found.contains("fd00:96::1 "), "{name}: {found}");
    }
    assert!(getent(client, node.v6.into(), "hosts", "10.96.0.1").contains("web.default.svc.cluster.local"));
    assert!(getent(client, node.v4.into(), "ahostsv4", "out").contains("192.0.2.80"));
    assert_eq!(getent(client, node.v4.into(), "hosts", "nobody.default"), "192.0.2.80      nobody.default\n");
}

#[test]
fn names_are_found_through_a_service_of_the_name_server() {
    if !need::root("names_are_found_through_a_service_of_the_name_server") {
        return;
    }
    let names = Names::start();
    let pod = &names.world.pods[0].host;
    let server = "10.96.0.53".parse().unwrap();
    until("the Service is programmed", Duration::from_secs(10), || {
        dig(pod, server, &["web.default.svc.cluster.local"]) == ["10.96.0.1"]
    });
    assert_eq!(dig(pod, server, &["+tcp", "web.default.svc.cluster.local"]), ["10.96.0.1"]);
    assert!(getent(pod, server, "ahosts", "web").contains("10.96.0.1 "));
}

#[test]
fn what_upstream_servers_say_is_remembered() {
    if !need::root("what_upstream_servers_say_is_remembered") {
        return;
    }
    let names = Names::start();
    let before = names.upstream.asked.load(Ordering::Relaxed);
    for _ in 0..5 {
        assert_eq!(names.ask(&["www.example.net"]), ["192.0.2.80"]);
    }
    assert_eq!(names.upstream.asked.load(Ordering::Relaxed), before + 1);
    assert_eq!(names.ask(&["nobody.default.svc.cluster.local"]), [""; 0]);
    assert_eq!(names.upstream.asked.load(Ordering::Relaxed), before + 1);
}

#[test]
fn names_follow_manifests_at_once_and_outlive_the_agent() {
    if !need::root("names_follow_manifests_at_once_and_outlive_the_agent") {
        return;
    }
    let mut names = Names::start();
    names.agent.write("web.yaml", &Service::new("web", 9).http().endpoints(&names.world.pods).yaml()).unwrap();
    until("a change", Duration::from_secs(1), || names.web("A") == ["10.96.0.9"]);
    names.agent.remove("web.yaml").unwrap();
    until("a removal", Duration::from_secs(1), || names.web("A").is_empty());
    names.agent.write("web.yaml", &Service::new("web", 1).http().endpoints(&names.world.pods).yaml()).unwrap();
    until("an addition", Duration::from_secs(1), || names.web("A") == ["10.96.0.1"]);

    names.agent.kill().unwrap();
    assert_eq!(names.web("A"), ["10.96.0.1"]);
    names.agent.write("web.yaml", &Service::new("web", 8).http().endpoints(&names.world.pods).yaml()).unwrap();
    names.agent.spawn().unwrap();
    until("what changed meanwhile", Duration::from_secs(20), || {
        let found = names.web("A");
        assert!(found == ["10.96.0.1"] || found == ["10.96.0.8"], "{found:?}");
        found == ["10.96.0.8"]
    });
    assert!(names.dns.stop());
}
