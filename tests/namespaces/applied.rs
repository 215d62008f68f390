//! Objects that `svcctl` gives to the agent, without a file in the manifests directory.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::mpsc::channel;
use std::time::Duration;

use svc_tests::agent::Agent;
use svc_tests::client::{self, Transport};
use svc_tests::manifest::Service;
use svc_tests::need;
use svc_tests::server::{ECHO, HTTP};

use crate::cluster::{Cluster, Setting};

/// Runs `svcctl` and returns what it prints; it must succeed and warn of nothing.
fn ctl(agent: &Agent, args: &[&str]) -> String {
    let output = agent.svcctl().unwrap().args(args).output().unwrap();
    let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success() && err.is_empty(), "svcctl {args:?}: {out}{err}");
    out
}

/// Writes a manifest where the agent does not look.
fn file(dir: &tempfile::TempDir, name: &str, text: &str) -> String {
    let path = dir.path().join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn an_applied_service_works_at_once_outlives_a_restart_and_is_gone_when_deleted() {
    if !need::root("an_applied_service_works_at_once") {
        return;
    }
    let mut cluster = Cluster::start(Setting::Tc);
    let dir = tempfile::tempdir().unwrap();
    let service = Service::new("web", 1).http().echo().load_balancer().endpoints(&cluster.world.pods);
    let manifest = file(&dir, "web.yaml", &service.yaml());
    let mut watch = cluster.agent.svcctl().unwrap();
    let mut watch = watch.args(["get", "svc", "-w", "-o", "name"]).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let (sender, told) = channel();
    std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));

    let created = "service/web created\nendpointslice.discovery.k8s.io/web-ipv4 created\n\
                   endpointslice.discovery.k8s.io/web-ipv6 created\n";
    assert_eq!(ctl(&cluster.agent, &["apply", "-f", &manifest]), created);
    // The answer came when the maps were as wanted: nothing is waited for.
    let works = |cluster: &Cluster| {
        for to in service.lb(7) {
            for transport in Transport::ALL {
                transport.ask(&cluster.client().ns, to, "hello").unwrap();
            }
        }
        for to in service.cluster(80) {
            client::http(&cluster.pod(0).ns, to).unwrap();
        }
    };
    works(&cluster);
    assert_eq!(told.recv_timeout(Duration::from_secs(15)).unwrap(), "service/web");
    let table = ctl(&cluster.agent, &["get", "services"]);
    assert!(
        table.contains("web    LoadBalancer   10.96.0.1    192.168.60.1,...   80:30080/TCP,7:30007/TCP,7:30007/UDP"),
        "{table}"
    );

    let text = ctl(&cluster.agent, &["describe", "service", "web"]);
    for part in
        ["192.168.60.1:80 (LoadBalancer)", "Defined in:                applied/service/default_web.json", "Problems:"]
    {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    assert!(ctl(&cluster.agent, &["env"]).contains("WEB_SERVICE_HOST=10.96.0.1\nWEB_SERVICE_PORT=80\n"));
    let endpoints = ctl(&cluster.agent, &["get", "endpoints", "web"]);
    assert!(endpoints.contains("8080,") && endpoints.contains(" more..."), "{endpoints}");

    // What is got can be applied.
    let got = ctl(&cluster.agent, &["get", "svc", "web", "-o", "yaml"]);
    assert_eq!(ctl(&cluster.agent, &["apply", "-f", &file(&dir, "got.yaml", &got)]), "service/web unchanged\n");

    cluster.agent.restart().unwrap();
    works(&cluster);
    assert_eq!(ctl(&cluster.agent, &["get", "svc", "web", "-o", "yaml"]), got);

    // No endpoint: refused at once; no Service: nobody answers in its name.
    assert_eq!(ctl(&cluster.agent, &["delete", "eps", "web-ipv4", "web-ipv6"]).lines().count(), 2);
    for to in service.cluster(80) {
        let error = format!("{:#}", client::http(&cluster.pod(0).ns, to).unwrap_err());
        assert!(error.contains("refused"), "{error}");
    }
    assert_eq!(ctl(&cluster.agent, &["delete", "svc", "web"]), "service \"web\" deleted\n");
    assert!(cluster.agent.services().unwrap().is_empty());
    let _ = watch.kill();
    let _ = watch.wait();
}

#[test]
fn an_exposed_service_gets_its_address_and_goes_with_its_endpoints() {
    if !need::root("an_exposed_service_gets_its_address_and_goes_with_its_endpoints") {
        return;
    }
    let cluster = Cluster::start_with(Setting::Tc, &["--cluster-ip-range", "10.96.0.0/16,fd00:96::/112"]);
    let endpoints: Vec<String> = [0, 2]
        .into_iter()
        .flat_map(|index| cluster.pod(index).addresses())
        .map(|address| format!("--endpoint={}", SocketAddr::new(address, HTTP)))
        .collect();
    let mut args = vec!["expose", "web", "--port", "80", "--type", "NodePort"];
    args.extend(endpoints.iter().map(String::as_str));
    let made = ctl(&cluster.agent, &args);
    assert_eq!(
        made,
        "service/web created\nendpointslice.discovery.k8s.io/web-ipv4 created\nendpointslice.discovery.k8s.io/web-ipv6 created\n"
    );
    let shown: serde_json::Value =
        serde_json::from_str(&ctl(&cluster.agent, &["get", "svc", "web", "-o", "json"])).unwrap();
    let number = shown["spec"]["ports"][0]["nodePort"].as_u64().unwrap();
    let addresses = shown["spec"]["clusterIPs"].as_array().unwrap();
    assert_eq!(addresses.len(), 2, "{shown}");
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..30 {
        for address in addresses {
            let to = SocketAddr::new(address.as_str().unwrap().parse().unwrap(), 80);
            seen.insert(client::http(&cluster.pod(1).ns, to).unwrap().pod);
        }
    }
    assert_eq!(seen, [0, 2].map(|index| cluster.pod(index).name.clone()).into());
    for to in cluster.world.nodes[0].at(u16::try_from(number).unwrap()) {
        client::http(&cluster.client().ns, to).unwrap();
    }
    // It is there already.
    let again = cluster.agent.svcctl().unwrap().args(&args).output().unwrap();
    assert!(String::from_utf8(again.stderr).unwrap().contains("Service `default/web` exists already"));
    assert_eq!(ctl(&cluster.agent, &["delete", "svc", "web"]).lines().count(), 3);
    assert!(cluster.agent.services().unwrap().is_empty());

    // By the labels of Pods that were applied, too.
    let pod = cluster.pod(3);
    let text = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: echo}}}}\nspec: {{nodeName: node-1, containers: []}}\n\
         status: {{phase: Running, podIP: {ip}, podIPs: [{{ip: {ip}}}], conditions: [{{type: Ready, status: 'True'}}]}}\n",
        name = pod.name,
        ip = pod.addresses()[0],
    );
    let dir = tempfile::tempdir().unwrap();
    ctl(&cluster.agent, &["apply", "-f", &file(&dir, "pod.yaml", &text)]);
    let target = ECHO.to_string();
    ctl(&cluster.agent, &["expose", "echo", "--port", "7", "--target-port", &target, "--selector", "app=echo"]);
    let shown: serde_json::Value =
        serde_json::from_str(&ctl(&cluster.agent, &["get", "svc", "echo", "-o", "json"])).unwrap();
    let to = SocketAddr::new(shown["spec"]["clusterIP"].as_str().unwrap().parse().unwrap(), 7);
    assert_eq!(Transport::Tcp.ask(&cluster.pod(0).ns, to, "who").unwrap().pod, pod.name);
}
