//! What a restart keeps, and what cleanup removes.

use super::world::{Agent, World, able, until};

const HOOKS: [&str; 2] = ["tc_ingress", "tc_egress"];

const WEB: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec: {clusterIP: 10.96.0.10, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: default, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: '', port: 8080}]
endpoints: [{addresses: [10.1.0.5]}, {addresses: [10.1.0.6]}]
";

#[test]
fn b78_a_successor_adopts_the_links_and_maps_of_a_killed_agent() {
    if !able("b78_a_successor_adopts_the_links_and_maps_of_a_killed_agent") {
        return;
    }
    let world = World::new();
    world.manifest("web.yaml", WEB);
    let log = world.start(&[]).kill();
    assert!(log.contains("services=1"), "{log}");
    let links = HOOKS.map(|hook| world.link("eth0", hook));
    let maps = ["FLOWS_V4", "FRONTENDS_V6", "CONFIG", "SELECTIONS"].map(|map| world.map_id(map));
    let successor = world.start(&[]);
    for (before, hook) in links.iter().zip(HOOKS) {
        let now = world.link("eth0", hook);
        assert_eq!(now.id, before.id, "{hook}: another link");
        assert_ne!(now.program_id, before.program_id, "{hook}: the old program");
    }
    assert_eq!(maps, ["FLOWS_V4", "FRONTENDS_V6", "CONFIG", "SELECTIONS"].map(|map| world.map_id(map)));
    assert!(successor.log().contains("services=1 writes=0"), "{}", successor.log());
    assert!(successor.stop(), "SIGTERM is a good end");
    assert_eq!(world.link("eth0", "tc_ingress").id, links[0].id, "nothing is detached at the end");
}

#[test]
fn b78_xdp_is_updated_in_place_too() {
    if !able("b78_xdp_is_updated_in_place_too") {
        return;
    }
    let world = World::new();
    for mode in ["native", "generic"] {
        let agent = world.start(&["--xdp-mode", mode]);
        assert_eq!(agent.device("eth0").unwrap()["xdp"]["mode"], mode, "{}", agent.log());
        agent.kill();
        let before = world.link("eth0", "xdp");
        let agent = world.start(&["--xdp-mode", mode]);
        assert_eq!(world.link("eth0", "xdp").id, before.id, "{mode}: another link");
        assert_eq!(agent.device("eth0").unwrap()["xdp"]["mode"], mode);
    }
    let off = world.start(&["--xdp-mode", "off"]);
    assert_eq!(off.device("eth0").unwrap()["xdp"]["mode"], "off");
    assert!(!world.link_pin("eth0", "xdp").exists(), "switched off, so detached");
}

#[test]
fn cleanup_leaves_nothing_and_may_be_repeated() {
    if !able("cleanup_leaves_nothing_and_may_be_repeated") {
        return;
    }
    let world = World::new();
    let agent = world.start(&["--xdp-mode", "native"]);
    let refused = world.cleanup();
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && text.contains("another svc-agent"), "while an agent runs: {text}");
    agent.kill();
    let first = world.cleanup();
    let text = String::from_utf8_lossy(&first.stdout).into_owned();
    assert!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));
    for part in ["-tc_ingress", "-tc_egress", "-xdp", "FLOWS_V4-1", &world.name] {
        assert!(text.contains(part), "{part} is not named: {text}");
    }
    assert!(!world.pin_dir().exists());
    let second = world.cleanup();
    assert!(second.status.success() && String::from_utf8_lossy(&second.stdout).contains("nothing to remove"));
}

#[test]
fn of_two_services_that_claim_one_address_the_owner_keeps_it_over_a_restart() {
    if !able("of_two_services_that_claim_one_address_the_owner_keeps_it_over_a_restart") {
        return;
    }
    let world = World::new();
    world.manifest("web.yaml", WEB);
    let first = world.start(&[]);
    world.manifest("a-thief.yaml", &WEB.replace("web", "a-thief").replace("10.1.0.", "10.2.0."));
    let services = |agent: &Agent| {
        let services = agent.json(&["get", "frontends"])["items"].as_array().unwrap().clone();
        services.into_iter().map(|service| service["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    until("the claim is refused", || first.log().contains("belongs to Service `default/web`"));
    assert_eq!(services(&first), ["web"]);
    first.kill();
    let second = world.start(&[]);
    assert_eq!(services(&second), ["web"], "{}", second.log());
}

#[test]
fn a_log_that_cannot_be_written_does_not_end_the_agent() {
    if !able("a_log_that_cannot_be_written_does_not_end_the_agent") {
        return;
    }
    let world = World::new();
    let net = format!("--net=/run/netns/{}", world.name);
    let agent = world.start_by(&["sh", "-c", "exec \"$@\" 2>/dev/full", "sh", "nsenter", &net], &[]);
    world.manifest("bad.yaml", "kind: [");
    until("the problem is told elsewhere", || agent.json(&["status"]).to_string().contains("bad.yaml document 1"));
    assert!(agent.stop());
}
