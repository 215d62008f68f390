//! Servers that die, come back, go back in time, and what is between them and the agent.

use std::collections::BTreeSet;

use svc_tests::agent::Agent;
use svc_tests::client;
use svc_tests::kube::Listen;
use svc_tests::load::{Kind, Load};
use svc_tests::topology::Shape;

use super::Stage;
use super::proxy::{Mode, Proxy};

const WEB: &str = "{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {type: NodePort, \
    selector: {app: web}, ports: [{port: 80, targetPort: web, nodePort: 30080}]}}";

fn bare(name: &str) -> String {
    format!("{{apiVersion: v1, kind: Service, metadata: {{name: {name}}}, spec: {{ports: [{{port: 80}}]}}}}")
}

fn knows(agent: &Agent, present: &[&str], absent: &[&str]) {
    agent
        .wait(&format!("{present:?} to be there and {absent:?} not"), |agent| {
            let names: BTreeSet<String> = agent.services()?.into_iter().map(|service| service.name).collect();
            Ok(present.iter().all(|name| names.contains(*name)) && !absent.iter().any(|name| names.contains(*name)))
        })
        .unwrap();
}

/// The agent hears of changes from this server, or from nobody.
fn hears(agent: &Agent, url: Option<&str>) {
    agent
        .wait(&format!("to hear from {url:?}"), |agent| {
            let sources = agent.status()?.sources;
            Ok(sources.iter().all(|source| match url {
                Some(url) => source.connected && source.server == url,
                None => !source.connected,
            }))
        })
        .unwrap();
}

fn load(stage: &Stage) -> Load {
    let [to, _] = stage.world.nodes[0].at(30_080);
    let client = stage.world.client().unwrap();
    client::http(&client.ns, to).unwrap();
    Load::start(&client.ns, Kind::Http, &[to]).unwrap()
}

#[test]
fn b79_servers_die_come_back_and_go_back_in_time() {
    let shape = Shape { clients: 2, ..Shape::default() };
    let Some(mut stage) = super::stage("b79_servers_die_come_back_and_go_back_in_time", shape) else { return };
    stage.deploy();
    stage.cluster.make_pods("web", &stage.world.pods).unwrap();
    stage.cluster.apply(WEB).unwrap();
    stage.cluster.apply(&bare("early")).unwrap();
    let urls = [stage.cluster.url(0).unwrap(), stage.cluster.url(1).unwrap()];
    let mut agent = stage.agent(&["--api-servers", &urls.join(",")]);
    knows(&agent, &["web", "early"], &[]);
    agent.wait("endpoints", |agent| Ok(agent.backends("web")?.len() == 4)).unwrap();
    let load = load(&stage);

    // One of two servers.
    hears(&agent, Some(&urls[0]));
    stage.cluster.kill_server(0).unwrap();
    hears(&agent, Some(&urls[1]));
    stage.cluster.apply(&bare("between")).unwrap();
    knows(&agent, &["between"], &[]);

    // Both, while things change; then etcd is compacted, so that nobody can go on where the agent was.
    stage.cluster.start_server(0).unwrap();
    stage.cluster.kill_server(1).unwrap();
    hears(&agent, Some(&urls[0]));
    stage.cluster.start_server(1).unwrap();
    stage.cluster.back_up().unwrap();
    stage.cluster.kubectl(&["delete", "service", "early", "between"]).unwrap();
    stage.cluster.apply(&bare("later")).unwrap();
    knows(&agent, &["later"], &["early", "between"]);
    stage.cluster.kill_server(0).unwrap();
    stage.cluster.kubectl(&["delete", "service", "later"]).unwrap();
    stage.cluster.apply(&bare("last")).unwrap();
    knows(&agent, &["last"], &["later"]);
    stage.cluster.kill_server(1).unwrap();
    hears(&agent, None);
    load.pass(20).unwrap();
    stage.cluster.start_server(0).unwrap();
    let version = stage.cluster.get("service", "default", "last").unwrap();
    stage.cluster.compact(version["metadata"]["resourceVersion"].as_str().unwrap()).unwrap();
    stage.cluster.start_server(1).unwrap();
    stage.cluster.kubectl(&["delete", "service", "last"]).unwrap();
    knows(&agent, &["web"], &["last"]);

    // All of it becomes what it was.
    stage.cluster.restore().unwrap();
    knows(&agent, &["early", "between", "web"], &["later", "last"]);
    stage.cluster.set_ready(&stage.world.pods[0], false).unwrap();
    agent
        .wait("changes after the restore", |agent| {
            Ok(!agent.backends("web")?.iter().any(|backend| {
                backend.address == stage.world.pods[0].host.v4 && format!("{:?}", backend.state) == "Ready"
            }))
        })
        .unwrap();
    load.pass(20).unwrap();

    // A new agent, with nobody to ask, goes on as well.
    stage.cluster.kill_server(0).unwrap();
    stage.cluster.kill_server(1).unwrap();
    agent.kill().unwrap();
    agent.spawn().unwrap();
    agent.wait("the new agent", |agent| Ok(!agent.status()?.sync.complete)).unwrap();
    load.pass(20).unwrap();
    stage.cluster.start_server(1).unwrap();
    knows(&agent, &["web", "early"], &[]);
    load.pass(20).unwrap();
    load.stop().expect_all_good(100).unwrap();
}

#[test]
fn b79_what_is_in_between_may_lie_and_tokens_change() {
    // The proxy is where `default/kubernetes` leads: the agent goes there whatever it was told first.
    let test = "b79_what_is_in_between_may_lie_and_tokens_change";
    let Some(stage) = super::stage_with(test, Shape::default(), Listen::Behind) else { return };
    let cluster = &stage.cluster;
    let (told, server) = (cluster.address(0).unwrap(), cluster.listener(0).unwrap());
    let proxy = Proxy::start(stage.world.client().unwrap(), told, server).unwrap();
    stage.deploy();
    cluster.make_pods("web", &stage.world.pods).unwrap();
    cluster.apply(WEB).unwrap();
    let agent = stage.agent(&[]);
    agent.wait("endpoints", |agent| Ok(agent.backends("web")?.len() == 4)).unwrap();
    let load = load(&stage);
    for (number, mode) in [Mode::Html, Mode::Noise, Mode::Cut(2_000), Mode::Close].into_iter().enumerate() {
        proxy.set(mode);
        agent
            .wait(&format!("{mode:?} to be noticed"), |agent| {
                Ok(agent.status()?.sources.iter().any(|source| !source.connected))
            })
            .unwrap();
        let (new, old) = (format!("made-{number}"), format!("made-{}", number.wrapping_sub(1)));
        cluster.apply(&bare(&new)).unwrap();
        if number > 0 {
            cluster.kubectl(&["delete", "service", &old]).unwrap();
        }
        load.pass(10).unwrap();
        proxy.set(Mode::Honest);
        let gone = [old.as_str()];
        knows(&agent, &["web", &new], if number > 0 { &gone } else { &[] });
    }

    // The account is made anew: its old tokens are void. The kubelet would write a new one.
    cluster.kubectl(&["delete", "serviceaccount", "svc-agent", "-n", "kube-system"]).unwrap();
    stage.deploy();
    stage.account();
    proxy.set(Mode::Close);
    proxy.set(Mode::Honest);
    cluster.apply(&bare("rotated")).unwrap();
    knows(&agent, &["rotated"], &[]);
    load.pass(10).unwrap();
    load.stop().expect_all_good(50).unwrap();
    let log = agent.log_text();
    let token = std::fs::read_to_string(cluster.dir().join("account/token")).unwrap();
    assert!(!log.contains(token.trim()), "the token is in the log");
}
