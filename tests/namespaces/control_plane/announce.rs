//! Three nodes of a real cluster that answer for a load balancer's address on a segment that they share with a client.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use svc_tests::agent::Agent;
use svc_tests::client;
use svc_tests::topology::{LB_V4, LB_V6, Shape};

use super::Stage;
use crate::segment::site::{segment, until};

const NODES: usize = 3;
const WEB: &str = "{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {type: LoadBalancer, \
    ipFamilyPolicy: RequireDualStack, selector: {app: web}, ports: [{port: 80, targetPort: web}]}}";

/// Puts nodes and the client on one network, and has the Node objects say so, as kubelets would.
fn share_a_segment(stage: &Stage) {
    let client = stage.world.client().unwrap();
    client.ns.ip(&format!("route del {LB_V4}\nroute del {LB_V6}")).unwrap();
    for (number, host) in (201..).zip(stage.world.nodes.iter().chain([client])) {
        host.ns
            .ip(&format!("addr add 192.168.60.{number}/24 dev eth0\naddr add fd00:60::{number}/64 dev eth0 nodad"))
            .unwrap();
    }
    for host in &stage.world.nodes {
        let [v4, v6] = host.addresses();
        let status = format!(
            "{{\"status\":{{\"addresses\":[{{\"type\":\"InternalIP\",\"address\":\"{v4}\"}},\
             {{\"type\":\"InternalIP\",\"address\":\"{v6}\"}}]}}}}"
        );
        let patch = ["patch", "node", &host.name, "--subresource=status", "--type=merge", "-p", &status];
        stage.cluster.kubectl(&patch).unwrap();
    }
}

/// The node that answers for these addresses: one for each, and nobody else.
fn holders(agents: &[Agent], addresses: &[IpAddr]) -> Result<Vec<usize>, String> {
    let held: Vec<(IpAddr, usize)> = agents
        .iter()
        .enumerate()
        .filter(|(_, agent)| agent.pid().is_some())
        .flat_map(|(node, agent)| segment(agent).held.into_iter().map(move |addr| (addr, node)))
        .collect();
    let of = |addr: &IpAddr| {
        let nodes: Vec<usize> = held.iter().filter(|(own, _)| own == addr).map(|(_, node)| *node).collect();
        if let [node] = nodes[..] { Ok(node) } else { Err(format!("{held:?}")) }
    };
    if held.len() == addresses.len() { addresses.iter().map(of).collect() } else { Err(format!("{held:?}")) }
}

#[test]
fn nodes_of_a_cluster_answer_for_an_address_and_hand_it_over() {
    let shape = Shape { nodes: NODES, ..Shape::default() };
    let Some(stage) = super::stage("nodes_of_a_cluster_answer_for_an_address_and_hand_it_over", shape) else { return };
    share_a_segment(&stage);
    stage.deploy();
    stage.cluster.make_pods("web", &stage.world.pods).unwrap();
    let pools = "192.168.60.1-192.168.60.99,fd00:60::1-fd00:60::50";
    let args = ["--announce-devices", "eth0", "--load-balancer-pools", pools];
    let mut agents: Vec<Agent> = (0..NODES).map(|node| stage.agent_on(node, &args)).collect();
    stage.cluster.apply(WEB).unwrap();

    // All agents may give it its addresses; it has one of each family in the end, and they agree.
    let addresses = until("the addresses of the load balancer", || {
        let object = stage.cluster.get("service", "default", "web").map_err(|error| error.to_string())?;
        let ingress = object.pointer("/status/loadBalancer/ingress").and_then(|list| list.as_array()).cloned();
        let ips = ingress.unwrap_or_default().into_iter().map(|one| one["ip"].as_str().unwrap().parse().unwrap());
        let ips: Vec<IpAddr> = ips.collect();
        if ips.len() == 2 { Ok(ips) } else { Err(object.to_string()) }
    });
    let answers = |what: &str| {
        for addr in &addresses {
            until(what, || {
                let to = SocketAddr::new(*addr, 80);
                client::http(&stage.world.client().unwrap().ns, to).map_err(|error| format!("{to}: {error:#}"))
            });
        }
    };
    let first = until("one holder each", || holders(&agents, &addresses));
    answers("an answer of the first");

    // One node is taken out of load balancing, as kubectl does that.
    let out = first[0];
    let name = stage.world.nodes[out].name.clone();
    let label = "node.kubernetes.io/exclude-from-external-load-balancers";
    stage.cluster.kubectl(&["label", "node", &name, &format!("{label}=")]).unwrap();
    let second = until("others to take over", || {
        let found = holders(&agents, &addresses)?;
        if found.contains(&out) { Err(format!("{found:?}, node {out} among them")) } else { Ok(found) }
    });
    answers("an answer after a node was excluded");

    // The agent of another one dies: of three there is one left.
    let dead = second[0];
    agents[dead].kill().unwrap();
    let left: BTreeSet<usize> = (0..NODES).filter(|node| *node != out && *node != dead).collect();
    until("the last one to take over", || {
        let found = holders(&agents, &addresses)?;
        if found.iter().all(|node| left.contains(node)) { Ok(()) } else { Err(format!("{found:?}")) }
    });
    answers("an answer of the last");

    // The excluded one comes back.
    stage.cluster.kubectl(&["label", "node", &name, &format!("{label}-")]).unwrap();
    for agent in agents.iter().filter(|agent| agent.pid().is_some()) {
        until("nobody to leave", || if segment(agent).leaving { Err("it leaves".to_owned()) } else { Ok(()) });
    }
    until("one holder each again", || holders(&agents, &addresses));
    answers("an answer in the end");
}
