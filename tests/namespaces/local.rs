//! What an agent does without Kubernetes: selectors, addresses and ports that no manifest names.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::SocketAddr;

use svc_agent::control::api::FrontendKind;
use svc_tests::agent::Agent;
use svc_tests::client::{self, Transport};
use svc_tests::need;
use svc_tests::server::{ECHO, HTTP, Server};
use svc_tests::topology::{Pod, Shape, World};

use crate::cluster::{Cluster, Setting};

/// Enough requests that each of four backends answers one, but for one run in a million.
const ENOUGH: usize = 60;

/// The network routes these pools to node 0.
const RANGES: [&str; 6] = [
    "--cluster-ip-range",
    "10.96.0.0/16,fd00:96::/112",
    "--load-balancer-pools",
    "192.168.60.10-192.168.60.19,fd00:60::10-fd00:60::19",
    "--node-port-range",
    "31000-31999",
];

/// A Service that says nothing but whom it selects.
const SERVICE: &str = "\
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: LoadBalancer
  ipFamilyPolicy: PreferDualStack
  selector: {app: web}
  ports:
    - {name: http, port: 80, targetPort: http}
    - {name: echo, port: 7, targetPort: echo}
    - {name: echo-udp, port: 7, protocol: UDP, targetPort: echo}
";

fn pod(pod: &Pod, ready: bool) -> String {
    let host = &pod.host;
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: web}}}}\nspec:\n  nodeName: node-{node}\n  containers:\n    \
         - name: server\n      ports: [{{name: http, containerPort: {HTTP}}}, {{name: echo, containerPort: {ECHO}}}, \
         {{name: echo, containerPort: {ECHO}, protocol: UDP}}]\nstatus:\n  podIPs: [{{ip: {v4}}}, {{ip: \"{v6}\"}}]\n  \
         conditions: [{{type: Ready, status: \"{ready}\"}}]\n---\n",
        name = host.name,
        node = pod.node,
        v4 = host.v4,
        v6 = host.v6,
        ready = if ready { "True" } else { "False" },
    )
}

/// Every pod of the world, ready if its name is not in `not_ready`.
fn pods(cluster: &Cluster, not_ready: &[&str]) -> String {
    cluster.world.pods.iter().fold(String::new(), |mut text, one| {
        let _ = write!(text, "{}", pod(one, !not_ready.contains(&one.host.name.as_str())));
        text
    })
}

/// What the Service is dialled at, by kind, for one port number.
fn frontends(agent: &Agent, kind: FrontendKind, port: u16) -> BTreeSet<SocketAddr> {
    let services = agent.services().unwrap();
    let ports = services.iter().flat_map(|service| &service.ports).filter(|own| own.port == port);
    let frontends = ports.flat_map(|port| &port.frontends).filter(|frontend| frontend.kind == kind);
    frontends.map(|frontend| SocketAddr::new(frontend.address, frontend.port)).collect()
}

/// All frontends that follow from what was allocated.
fn allocated(agent: &Agent) -> BTreeSet<SocketAddr> {
    let of = |kind| [80, 7].into_iter().flat_map(move |port| frontends(agent, kind, port));
    let node_ports = of(FrontendKind::NodePort).map(|addr| SocketAddr::new([0, 0, 0, 0].into(), addr.port()));
    of(FrontendKind::ClusterIp).chain(of(FrontendKind::LoadBalancer)).chain(node_ports).collect()
}

fn wait_for_ready(agent: &Agent, endpoints: u32) {
    let all = |agent: &Agent| {
        let services = agent.services()?;
        let ports: Vec<_> = services.iter().flat_map(|service| &service.ports).collect();
        Ok(ports.len() == 6 && ports.iter().all(|port| port.endpoints.ready == endpoints))
    };
    agent.wait(&format!("{endpoints} ready endpoints of each port"), all).unwrap();
}

fn answers(cluster: &Cluster, inside: bool, to: SocketAddr) -> BTreeSet<String> {
    let from = if inside { cluster.pod(0) } else { cluster.client() };
    let transports = Transport::ALL.into_iter().cycle().take(ENOUGH);
    transports.map(|transport| transport.ask(&from.ns, to, "who").unwrap().pod).collect()
}

#[test]
fn a_selector_and_pods_make_a_service_that_works_from_everywhere() {
    let test = "a_selector_and_pods_make_a_service_that_works_from_everywhere";
    if !need::root(test) {
        return;
    }
    let cluster = Cluster::start_with(Setting::Tc, &RANGES);
    let agent = &cluster.agent;
    agent.write("pods.yaml", &pods(&cluster, &[])).unwrap();
    agent.write("web.yaml", SERVICE).unwrap();
    wait_for_ready(agent, 4);

    let everybody: BTreeSet<String> = cluster.pod_names().into_iter().collect();
    let inside = frontends(agent, FrontendKind::ClusterIp, 7);
    let outside = frontends(agent, FrontendKind::LoadBalancer, 7);
    let node_ports: BTreeSet<SocketAddr> = frontends(agent, FrontendKind::NodePort, 7);
    assert_eq!((inside.len(), outside.len()), (2, 2), "one address of each family");
    assert!(inside.iter().all(|addr| addr.ip().to_string().starts_with(if addr.is_ipv4() {
        "10.96."
    } else {
        "fd00:96::"
    })));
    assert!(outside.iter().all(|addr| addr.ip().to_string().starts_with(if addr.is_ipv4() {
        "192.168.60.1"
    } else {
        "fd00:60::1"
    })));
    assert!(
        !node_ports.is_empty() && node_ports.iter().all(|addr| (31_000..32_000).contains(&addr.port())),
        "{node_ports:?}"
    );
    for to in &inside {
        assert_eq!(answers(&cluster, true, *to), everybody, "a pod to {to}");
    }
    for to in outside.iter().chain(&node_ports) {
        assert_eq!(answers(&cluster, false, *to), everybody, "a client outside to {to}");
    }
    for to in frontends(agent, FrontendKind::LoadBalancer, 80) {
        client::http(&cluster.client().ns, to).unwrap();
    }

    // A pod that is not ready gets nothing new, one that is gone leaves nothing.
    let out = cluster.pod(2).name.clone();
    agent.write("pods.yaml", &pods(&cluster, &[&out])).unwrap();
    wait_for_ready(agent, 3);
    let others: BTreeSet<String> = everybody.iter().filter(|name| **name != out).cloned().collect();
    for (from_inside, targets) in [(true, &inside), (false, &outside)] {
        for to in targets {
            assert_eq!(answers(&cluster, from_inside, *to), others, "to {to}");
        }
    }
    agent.write("pods.yaml", &pod(&cluster.world.pods[3], true)).unwrap();
    wait_for_ready(agent, 1);
    for to in &inside {
        assert_eq!(answers(&cluster, true, *to), [cluster.pod(3).name.clone()].into());
    }
}

#[test]
fn b78_what_was_allocated_stays_across_restarts_and_is_the_same_on_every_node() {
    let test = "b78_what_was_allocated_stays_across_restarts_and_is_the_same_on_every_node";
    if !need::root(test) {
        return;
    }
    let mut cluster = Cluster::start_with(Setting::Tc, &RANGES);
    let pods = pods(&cluster, &[]);
    cluster.agent.write("pods.yaml", &pods).unwrap();
    cluster.agent.write("web.yaml", SERVICE).unwrap();
    wait_for_ready(&cluster.agent, 4);
    let first = allocated(&cluster.agent);
    assert!(first.len() > 6, "{first:?}");

    // An agent that has never heard of the first one, on another node.
    let other = Agent::start_with(cluster.world.node(1).unwrap(), &RANGES).unwrap();
    other.write("web.yaml", SERVICE).unwrap();
    other.write("pods.yaml", &pods).unwrap();
    wait_for_ready(&other, 4);
    assert_eq!(allocated(&other), first);

    // Ranges that would lead to other values: what is remembered counts, as long as it is in them.
    cluster.agent.kill().unwrap();
    for to in first.iter().filter(|addr| addr.ip().to_string().starts_with("10.96.") && addr.port() == 7) {
        assert!(!answers(&cluster, true, *to).is_empty(), "without an agent");
    }
    let wider = [
        "--node-port-range",
        "30500-32700",
        "--load-balancer-pools",
        "192.168.60.5-192.168.60.99,fd00:60::5-fd00:60::99",
    ];
    cluster.agent.set_args(&[&RANGES[..2], &wider].concat());
    cluster.agent.spawn().unwrap();
    cluster.agent.wait_until_ready().unwrap();
    wait_for_ready(&cluster.agent, 4);
    assert_eq!(allocated(&cluster.agent), first);

    // With the Service goes what it had.
    cluster.agent.remove("web.yaml").unwrap();
    cluster.agent.wait("the Service to be gone", |agent| Ok(agent.services()?.is_empty())).unwrap();
}

#[test]
fn a_health_check_takes_a_dead_backend_out_and_brings_it_back() {
    let test = "a_health_check_takes_a_dead_backend_out_and_brings_it_back";
    if !need::root(test) {
        return;
    }
    let world = World::build(Shape::default()).unwrap();
    let mut servers = world.start_servers().unwrap();
    let agent = Agent::start_with(world.node(0).unwrap(), &RANGES).unwrap();
    // Nobody says that these pods are ready: the check does.
    let pods: String = world
        .pods
        .iter()
        .map(|one| pod(one, true).replace("conditions: [{type: Ready, status: \"True\"}]", "phase: Running"))
        .collect();
    assert!(!pods.contains("Ready"));
    for check in ["tcp", "http:/"] {
        let annotations = format!(
            "annotations: {{svc-agent/health-check: \"{check}\", svc-agent/health-check-interval: \"1\", \
             svc-agent/health-check-timeout: \"1\", svc-agent/health-check-unhealthy-threshold: \"2\"}}}}"
        );
        agent.write("pods.yaml", &pods).unwrap();
        agent.write("web.yaml", &SERVICE.replace("name: web}", &format!("name: web, {annotations}"))).unwrap();
        wait_for_ready(&agent, 4);
        let to = *frontends(&agent, FrontendKind::ClusterIp, 7).first().unwrap();
        let ask = || Transport::Tcp.ask(&world.pods[0].host.ns, to, "who").map(|answer| answer.pod);
        drop(servers.pop());
        wait_for_ready(&agent, 3);
        for _ in 0..ENOUGH {
            assert_ne!(ask().unwrap(), world.pods[3].host.name, "{check}");
        }
        let problems = agent.status().unwrap().sync.problems;
        assert!(problems.iter().any(|problem| problem.contains("fails: connection refused")), "{problems:?}");
        servers.push(Server::start(&world.pods[3].host).unwrap());
        wait_for_ready(&agent, 4);
        let everybody: BTreeSet<String> = (0..ENOUGH).map(|_| ask().unwrap()).collect();
        assert_eq!(everybody.len(), 4);
    }
}
