//! Services of all types as kubectl makes them, with endpoints that the controllers make of Pods.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use svc_tests::agent::Agent;
use svc_tests::client::{self, Transport};
use svc_tests::kube::Cluster;
use svc_tests::server;
use svc_tests::topology::{Host, Shape};

fn addresses(cluster: &Cluster, service: &str) -> Vec<IpAddr> {
    let object = cluster.get("service", "default", service).unwrap();
    object["spec"]["clusterIPs"].as_array().unwrap().iter().map(|ip| ip.as_str().unwrap().parse().unwrap()).collect()
}

fn port(cluster: &Cluster, service: &str, path: &str) -> u16 {
    let object = cluster.get("service", "default", service).unwrap();
    u16::try_from(object.pointer(path).unwrap().as_u64().unwrap()).unwrap()
}

/// Who answers, after enough questions that everybody has had a turn.
fn answering(from: &Host, to: SocketAddr) -> BTreeSet<String> {
    (0..40).filter_map(|_| client::http(&from.ns, to).ok()).map(|answer| answer.pod).collect()
}

fn until(agent: &Agent, what: &str, from: &Host, to: SocketAddr, expected: &[&str]) {
    let expected: BTreeSet<String> = expected.iter().map(|&name| name.to_owned()).collect();
    agent
        .wait(&format!("{what}: {to} to lead to {expected:?}"), |_| {
            let found = answering(from, to);
            if found == expected { Ok(true) } else { anyhow::bail!("found {found:?}") }
        })
        .unwrap();
}

const ALL: [&str; 4] = ["pod-0-0", "pod-0-1", "pod-1-0", "pod-1-1"];

#[test]
fn services_of_every_type_work_as_kubectl_makes_them() {
    let Some(stage) = super::stage("services_of_every_type_work_as_kubectl_makes_them", Shape::default()) else {
        return;
    };
    let (cluster, world) = (&stage.cluster, &stage.world);
    stage.deploy();
    cluster.make_pods("web", &world.pods).unwrap();
    let mut agent = stage.agent(&["--load-balancer-pools", "192.168.60.0/24,fd00:60::/64"]);
    let (client, node, pod) = (world.client().unwrap(), &world.nodes[0], &world.pods[0].host);

    // kubectl's own generators.
    let target = format!("--target-port={}", server::HTTP);
    cluster
        .kubectl(&["expose", "pod", "pod-0-0", "--name=exposed", "--port=80", &target, "--selector=app=web"])
        .unwrap();
    cluster.kubectl(&["create", "service", "nodeport", "web", &format!("--tcp=80:{}", server::HTTP)]).unwrap();
    cluster.kubectl(&["set", "selector", "service", "web", "app=web"]).unwrap();
    cluster.kubectl(&["create", "service", "externalname", "elsewhere", "--external-name=example.org"]).unwrap();
    cluster.kubectl(&["create", "service", "clusterip", "headless", "--clusterip=None"]).unwrap();
    let exposed = SocketAddr::new(addresses(cluster, "exposed")[0], 80);
    until(&agent, "kubectl expose", pod, exposed, &ALL);
    let node_port = port(cluster, "web", "/spec/ports/0/nodePort");
    until(&agent, "a nodePort", client, node.at(node_port)[0], &ALL);

    // Dual stack, a name as the target, an address of the pool, a health-check port.
    cluster
        .apply(
            "{apiVersion: v1, kind: Service, metadata: {name: local}, spec: {type: LoadBalancer, \
             externalTrafficPolicy: Local, ipFamilyPolicy: RequireDualStack, selector: {app: web}, \
             ports: [{name: http, port: 80, targetPort: web}]}}",
        )
        .unwrap();
    agent
        .wait("addresses of the pool", |_| {
            Ok(cluster.get("service", "default", "local")?["status"]["loadBalancer"]["ingress"][1].is_object())
        })
        .unwrap();
    let object = cluster.get("service", "default", "local").unwrap();
    for ingress in object["status"]["loadBalancer"]["ingress"].as_array().unwrap() {
        let to = SocketAddr::new(ingress["ip"].as_str().unwrap().parse().unwrap(), 80);
        until(&agent, "Local, from outside", client, to, &ALL[..2]);
        until(&agent, "Local, from a pod", pod, to, &ALL);
    }
    let health = node.at(port(cluster, "local", "/spec/healthCheckNodePort"))[0];
    let checked = |expected: &str| {
        let ask = format!("curl -s -o /dev/null -w %{{http_code}} --max-time 2 http://{health}/healthz");
        agent
            .wait(&format!("{expected} at the health-check port"), |_| {
                let output = client.ns.output(std::process::Command::new("sh").args(["-c", &ask]))?;
                Ok(String::from_utf8_lossy(&output.stdout) == expected)
            })
            .unwrap();
    };
    checked("200");

    // Readiness as the kubelets write it; then Pods that end.
    for pod in world.pods_of(0) {
        cluster.set_ready(pod, false).unwrap();
    }
    until(&agent, "those that are ready", pod, exposed, &ALL[2..]);
    checked("503");
    cluster.set_ready(&world.pods[0], true).unwrap();
    until(&agent, "one is back", pod, exposed, &["pod-0-0", "pod-1-0", "pod-1-1"]);
    checked("200");
    cluster.kubectl(&["delete", "pod", "pod-1-0", "pod-1-1", "--wait=false", "--grace-period=600"]).unwrap();
    until(&agent, "those that do not end", pod, exposed, &["pod-0-0"]);
    cluster.kubectl(&["delete", "pod", "pod-0-0", "--force", "--grace-period=0"]).unwrap();
    until(&agent, "those that end, for want of others", pod, exposed, &ALL[2..]);
    cluster.kubectl(&["delete", "pod", "--all", "--force", "--grace-period=0"]).unwrap();
    agent
        .wait("nobody is left", |_| {
            let error = client::http(&pod.ns, exposed).err().map(|error| format!("{error:#}"));
            Ok(error.is_some_and(|error| error.contains("refused")))
        })
        .unwrap();

    // Endpoints by hand, which the controllers mirror.
    let [v4, _] = world.pods[3].host.addresses();
    cluster
        .apply(&format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: manual}}, spec: {{ports: [{{port: 7, targetPort: {echo}}}]}}}}\n---\n\
             {{apiVersion: v1, kind: Endpoints, metadata: {{name: manual}}, subsets: [{{addresses: [{{ip: {v4}}}], \
             ports: [{{port: {echo}}}]}}]}}\n",
            echo = server::ECHO
        ))
        .unwrap();
    let manual = SocketAddr::new(addresses(cluster, "manual")[0], 7);
    agent.wait("endpoints by hand", |_| Ok(Transport::Tcp.ask(&pod.ns, manual, "hello").is_ok())).unwrap();

    // What changes its kind, and what goes.
    cluster
        .kubectl(&[
            "patch",
            "service",
            "web",
            "-p",
            "{\"spec\": {\"type\": \"ClusterIP\", \"ports\": [{\"port\": 80, \"nodePort\": null}]}}",
        ])
        .ok();
    cluster.kubectl(&["delete", "service", "exposed", "local", "manual"]).unwrap();
    agent
        .wait("what was deleted to go", |agent| {
            let names: BTreeSet<String> = agent.services()?.into_iter().map(|service| service.name).collect();
            Ok(!["exposed", "local", "manual"].iter().any(|name| names.contains(*name)))
        })
        .unwrap();
    // Everything is known as kubectl knows it.
    let output = agent.svcctl().unwrap().args(["get", "services", "-A"]).output().unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    for name in ["kubernetes", "web", "elsewhere", "headless"] {
        assert!(shown.contains(name), "{shown}");
    }
    agent.restart().unwrap();
    let denied: Vec<_> = cluster.asked().unwrap().into_iter().filter(|asked| asked.status >= 400).collect();
    assert!(denied.iter().all(|asked| asked.status == 409), "{denied:?}");
}
