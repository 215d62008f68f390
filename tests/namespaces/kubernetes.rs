//! An agent that follows an API server, with real traffic.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::json;
use svc_agent::sources::kubernetes::kinds::Watched;
use svc_tests::agent::Agent;
use svc_tests::apiserver::http::Listening;
use svc_tests::apiserver::{Server, Store};
use svc_tests::client::Transport;
use svc_tests::load::{Kind, Load};
use svc_tests::manifest::Service;
use svc_tests::need;
use svc_tests::topology::{Shape, World};

/// An API server outside of the node, reached by HTTP.
pub struct Api {
    pub store: Store,
    pub server: Server,
    listening: Option<Listening>,
    address: SocketAddr,
    dir: tempfile::TempDir,
}

impl Api {
    /// Starts it on the client, with the Node that the agent runs on.
    pub fn start(world: &World) -> Self {
        let store = Store::new();
        let labels = json!({"topology.kubernetes.io/zone": "zone-a"});
        store.put(Watched::Node, json!({"metadata": {"name": "node-0", "labels": labels}}));
        let server = Server::new(store.clone());
        let dir = tempfile::Builder::new().prefix("svct-api-").tempdir().unwrap();
        let address = SocketAddr::new(world.client().unwrap().v4.into(), 6443);
        let mut api = Self { store, server, listening: None, address, dir };
        api.come_back(world);
        api
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.listening.as_ref().unwrap().kubeconfig(self.dir.path()).unwrap()
    }

    pub fn die(&mut self) {
        self.listening = None;
    }

    pub fn come_back(&mut self, world: &World) {
        let (server, address) = (self.server.clone(), self.address);
        let start = move || Listening::start(server, address);
        self.listening = Some(world.client().unwrap().ns.run(start).unwrap().unwrap());
    }
}

fn connected(agent: &Agent, expected: bool) {
    agent
        .wait("the connections to be told", |agent| {
            let sources = agent.status()?.sources;
            Ok(sources.len() == 3 && sources.iter().all(|source| source.connected == expected))
        })
        .unwrap();
}

#[test]
fn b79_traffic_goes_on_without_the_api_server_and_follows_it_when_it_comes_back() {
    if !need::root("b79_traffic_goes_on_without_the_api_server_and_follows_it_when_it_comes_back") {
        return;
    }
    let world = World::build(Shape::default()).unwrap();
    let _servers = world.start_servers().unwrap();
    let mut api = Api::start(&world);
    let web = Service::new("web", 1).http().echo().load_balancer().endpoints(&world.pods);
    let doomed = Service::new("doomed", 2).echo().load_balancer().endpoints(&world.pods);
    // The two do not share nodePorts.
    let doomed = Service {
        ports: doomed
            .ports
            .into_iter()
            .map(|port| svc_tests::manifest::Port { node_port: port.node_port + 1, ..port })
            .collect(),
        ..doomed
    };
    api.store.put_manifest(&web.yaml());
    api.store.put_manifest(&doomed.yaml());
    let mut agent = Agent::prepare(world.node(0).unwrap(), &[]).unwrap();
    agent.follow(&api.kubeconfig());
    agent.spawn().unwrap();
    agent.wait_until_ready().unwrap();
    agent.wait_for_service(&web).unwrap();
    agent.wait_for_service(&doomed).unwrap();
    connected(&agent, true);
    assert_eq!(agent.status().unwrap().zone.as_deref(), Some("zone-a"));
    let output = agent.svcctl().unwrap().arg("status").output().unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(shown.contains("\nendpointslices ") && shown.contains(" connected "), "{shown}");

    let output = agent.svcctl().unwrap().args(["get", "services", "-A"]).output().unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(shown.contains("doomed") && shown.contains("LoadBalancer"), "{shown}");
    let output = agent.svcctl().unwrap().args(["delete", "service", "doomed"]).output().unwrap();
    assert!(!output.status.success() && String::from_utf8(output.stderr).unwrap().contains("API server"));

    let client = world.client().unwrap();
    let ask = |service: &Service| Transport::Tcp.ask(&client.ns, service.lb(7)[0], "hello");
    ask(&web).unwrap();
    ask(&doomed).unwrap();
    let load = Load::start(&client.ns, Kind::Http, &web.lb(80)).unwrap();
    api.die();
    connected(&agent, false);
    load.pass(20).unwrap();
    agent.wait_for_service(&web).unwrap();

    // Without anybody to ask, a new agent keeps what it finds, and says so.
    agent.kill().unwrap();
    agent.spawn().unwrap();
    agent.wait("the new agent", |agent| Ok(!agent.status()?.sync.complete)).unwrap();
    load.pass(20).unwrap();
    ask(&doomed).unwrap();

    let web = web.endpoints(&world.pods[1..]);
    api.store.put_manifest(&web.yaml());
    api.store.delete(Watched::Services, "default", "doomed");
    api.come_back(&world);
    agent.wait_for_service(&web).unwrap();
    agent.wait("the deletion", |agent| Ok(agent.services()?.iter().all(|service| service.name != "doomed"))).unwrap();
    connected(&agent, true);
    assert!(agent.status().unwrap().sync.complete);
    ask(&doomed).unwrap_err();
    load.pass(20).unwrap();
    load.stop().expect_all_good(60).unwrap();
    // Nobody's business.
    let log = agent.log_text();
    assert!(!log.contains("hush-hush"), "{log}");
}

#[test]
fn refusals_become_events_and_load_balancers_get_addresses_from_the_pool() {
    if !need::root("refusals_become_events_and_load_balancers_get_addresses_from_the_pool") {
        return;
    }
    let world = World::build(Shape::default()).unwrap();
    let _servers = world.start_servers().unwrap();
    let api = Api::start(&world);
    let web = Service::new("web", 1).echo().load_balancer().endpoints(&world.pods);
    // As it is made: without a status.
    let text = web.yaml();
    let lines = text
        .lines()
        .filter(|line| !line.starts_with("status:") && !line.contains("loadBalancer:") && !line.contains("ingress:"));
    api.store.put_manifest(&lines.collect::<Vec<_>>().join("\n"));
    // It claims what the other one has.
    let thief = json!({"metadata": {"name": "thief", "namespace": "default"},
        "spec": {"clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1"], "ports": [{"port": 7}]}});
    let [pool, _] = web.lb_ips();
    let mut agent = Agent::prepare(world.node(0).unwrap(), &["--load-balancer-pools", &pool.to_string()]).unwrap();
    agent.follow(&api.kubeconfig());
    agent.spawn().unwrap();
    agent.wait_until_ready().unwrap();
    api.store.put(Watched::Services, thief);

    agent
        .wait("the address in the status", |_| {
            let service = api.store.get(Watched::Services, "default", "web").unwrap();
            Ok(service["status"]["loadBalancer"]["ingress"][0]["ip"] == pool.to_string())
        })
        .unwrap();
    let to = SocketAddr::new(pool, 7);
    agent
        .wait("the address to work", |_| Ok(Transport::Tcp.ask(&world.client().unwrap().ns, to, "hello").is_ok()))
        .unwrap();
    agent.wait("the Event", |_| Ok(!api.server.made().is_empty())).unwrap();
    let event = api.server.made().remove(0);
    assert_eq!(
        (event["regarding"]["name"].as_str(), event["type"].as_str()),
        (Some("thief"), Some("Warning")),
        "{event}"
    );
    assert!(event["note"].as_str().unwrap().contains("10.96.0.1"), "{event}");
}
