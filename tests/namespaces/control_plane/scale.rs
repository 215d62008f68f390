//! Thousands of Services.

use std::net::SocketAddr;

use serde_json::json;
use svc_tests::client;
use svc_tests::server;
use svc_tests::topology::Shape;

/// How many.
const SERVICES: usize = 2_000;

#[test]
fn thousands_of_services_of_a_real_cluster() {
    let Some(stage) = super::stage("thousands_of_services_of_a_real_cluster", Shape::default()) else { return };
    let (cluster, world) = (&stage.cluster, &stage.world);
    stage.deploy();
    cluster.make_pods("web", &world.pods).unwrap();
    let mut agent = stage.agent(&[]);
    let service = |number: usize| {
        json!({"apiVersion": "v1", "kind": "Service",
            "metadata": {"name": format!("s-{number}"), "namespace": "default"},
            "spec": {"clusterIP": format!("10.96.{}.{}", 16 + number / 250, 1 + number % 250),
                "selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": server::HTTP}]}})
    };
    let all: Vec<_> = (0..SERVICES).map(service).collect();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": all});
    cluster.kubectl_with(&["create", "-f", "-"], &list.to_string()).unwrap();
    // With `default/kubernetes`.
    agent
        .wait("all Services with all endpoints", |agent| {
            let found = agent.services()?.len();
            anyhow::ensure!(found == SERVICES + 1, "{found} services");
            anyhow::ensure!(agent.backends("s-1999")?.len() == 4, "the last one has no endpoints");
            Ok(true)
        })
        .unwrap();
    let from = &world.pods[0].host.ns;
    for number in [0, 999, SERVICES - 1] {
        let to = SocketAddr::from(([10, 96, (16 + number / 250) as u8, (1 + number % 250) as u8], 80));
        agent.wait("an answer", |_| Ok(client::http(from, to).is_ok())).unwrap();
    }
    // One Pod concerns them all.
    cluster.set_ready(&world.pods[0], false).unwrap();
    agent
        .wait("one endpoint less everywhere", |agent| {
            let ready = |name: &str| -> anyhow::Result<usize> {
                Ok(agent.backends(name)?.iter().filter(|backend| format!("{:?}", backend.state) == "Ready").count())
            };
            Ok(ready("s-0")? == 3 && ready("s-1999")? == 3)
        })
        .unwrap();
    agent.restart().unwrap();
    let denied: Vec<_> = cluster.asked().unwrap().into_iter().filter(|asked| asked.status >= 400).collect();
    assert!(denied.is_empty(), "{denied:?}");
}
