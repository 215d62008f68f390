//! The role that deploy/kustomize grants: nothing is denied, and nothing is granted that is not used.

use std::collections::BTreeSet;

use svc_agent::sources::kubernetes::kinds::RIGHTS;
use svc_tests::topology::Shape;

#[test]
fn the_role_is_what_the_agent_asks_for_and_no_more() {
    let Some(stage) = super::stage("the_role_is_what_the_agent_asks_for_and_no_more", Shape::default()) else { return };
    let cluster = &stage.cluster;
    stage.deploy();
    cluster.make_pods("web", &stage.world.pods).unwrap();
    let agent = stage.agent(&["--load-balancer-pools", "192.168.60.0/24,fd00:60::/64"]);
    // An address of the pool, and something to complain about.
    let balanced = "{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {type: LoadBalancer, \
        ipFamilyPolicy: RequireDualStack, selector: {app: web}, ports: [{port: 80, targetPort: web}]}}";
    let refused = "{apiVersion: v1, kind: Service, metadata: {name: greedy}, spec: {externalIPs: [192.168.50.1], \
        selector: {app: web}, ports: [{port: 80}]}}";
    cluster.apply(&format!("{balanced}\n---\n{refused}\n")).unwrap();
    agent
        .wait("the addresses of the load balancer", |_| {
            let service = cluster.get("service", "default", "web")?;
            Ok(service["status"]["loadBalancer"]["ingress"].as_array().is_some_and(|list| list.len() == 2))
        })
        .unwrap();
    agent
        .wait("the Event", |_| {
            let events = cluster.kubectl(&["get", "events", "--field-selector", "involvedObject.name=greedy"])?;
            Ok(events.contains("Refused") && events.contains("192.168.50.1"))
        })
        .unwrap();
    let described = cluster.kubectl(&["describe", "service", "greedy"]).unwrap();
    assert!(described.contains("svc-agent") && described.contains("Refused"), "{described}");

    let granted: BTreeSet<_> = RIGHTS
        .iter()
        .flat_map(|right| right.verbs.iter().map(|verb| (right.group, right.resource, *verb)))
        .map(|(group, resource, verb)| (group.to_owned(), resource.to_owned(), verb.to_owned()))
        .collect();
    let used = || -> anyhow::Result<BTreeSet<_>> {
        Ok(cluster.asked()?.into_iter().map(|asked| (asked.group, asked.resource, asked.verb)).collect())
    };
    // The log of the watches is written when they end.
    agent.wait("the audit log", |_| Ok(used()?.len() >= granted.len())).unwrap();
    assert_eq!(used().unwrap(), granted);
    let denied: Vec<_> = cluster.asked().unwrap().into_iter().filter(|asked| asked.status >= 400).collect();
    assert!(denied.is_empty(), "{denied:?}");
}
