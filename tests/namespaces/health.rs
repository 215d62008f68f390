//! Health checks as load balancers make them.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use svc_agent::sources::kubernetes::kinds::Watched;
use svc_tests::agent::Agent;
use svc_tests::client;
use svc_tests::manifest::Service;
use svc_tests::need;
use svc_tests::topology::{Host, Shape, World};

use crate::kubernetes::Api;

/// Asks; status, weight and body.
fn ask(from: &Host, to: SocketAddr, path: &str) -> anyhow::Result<(u16, Option<String>, Value)> {
    let mut stream = client::connect(&from.ns, to)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let weight = head.lines().find_map(|line| line.strip_prefix("x-load-balancing-endpoint-weight: "));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Ok((status, weight.map(str::to_owned), serde_json::from_str(body)?))
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(20), "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn b62_load_balancers_are_told_whether_an_endpoint_is_here() {
    if !need::root("b62_load_balancers_are_told_whether_an_endpoint_is_here") {
        return;
    }
    let world = World::build(Shape::default()).unwrap();
    let _servers = world.start_servers().unwrap();
    let api = Api::start(&world);
    let web = Service::new("web", 1)
        .http()
        .load_balancer()
        .spec("externalTrafficPolicy: Local")
        .spec("healthCheckNodePort: 32001")
        .endpoints(&world.pods);
    api.store.put_manifest(&web.yaml());
    let mut agent = Agent::prepare(world.node(0).unwrap(), &[]).unwrap();
    agent.follow(&api.kubeconfig());
    agent.spawn().unwrap();
    agent.wait_until_ready().unwrap();
    agent.wait_for_service(&web).unwrap();

    let (client, node) = (world.client().unwrap(), &world.nodes[0]);
    let here = world.pods_of(0).count();
    // Both families at once.
    for to in node.at(32_001) {
        until("the first answer", || ask(client, to, "/").is_ok());
        let (status, weight, body) = ask(client, to, "/").unwrap();
        assert_eq!((status, weight), (200, Some(here.to_string())), "{to}");
        let expected = json!({"service": {"namespace": "default", "name": "web"}, "localEndpoints": here,
            "serviceProxyHealthy": true});
        assert_eq!(body, expected);
    }
    // None is left here; then one that terminates, which does not count.
    let [to, _] = node.at(32_001);
    api.store.put_manifest(&web.clone().endpoints(world.pods_of(1)).yaml());
    until("no endpoint here", || ask(client, to, "/").unwrap().0 == 503);
    let mut ending = web.clone();
    ending.endpoints.iter_mut().for_each(|endpoint| (endpoint.ready, endpoint.terminating) = (false, true));
    api.store.put_manifest(&ending.yaml());
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(ask(client, to, "/").unwrap().0, 503);
    api.store.put_manifest(&web.yaml());
    until("endpoints again", || ask(client, to, "/").unwrap().0 == 200);

    // The agent's own: a node that leaves is alive.
    let own = |path: &str| node.at(10_256).map(|to| ask(client, to, path).unwrap().0);
    assert_eq!(["/healthz", "/livez", "/readyz"].map(own), [[200, 200]; 3]);
    let taint = json!({"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"});
    api.store.put(Watched::Node, json!({"metadata": {"name": "node-0"}, "spec": {"taints": [taint]}}));
    until("the taint", || own("/healthz") == [503, 503]);
    assert_eq!(["/livez", "/readyz"].map(own), [[200, 200]; 2]);
    assert_eq!(ask(client, to, "/").unwrap().0, 200);

    // It goes with the Service.
    api.store.delete(Watched::Services, "default", "web");
    until("the end", || ask(client, to, "/").is_err());
}
