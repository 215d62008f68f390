//! Addresses of load balancers on a segment that nodes and clients share: who answers, who takes over, and who is told.

mod hostile;
pub mod site;

use std::collections::BTreeSet;
use std::net::IpAddr;

use svc_tests::client::{TcpClient, Transport};
use svc_tests::manifest::Service;

use self::site::{Site, node, ready, segment, until};

const LEAVING: &str = "  labels: {node.kubernetes.io/exclude-from-external-load-balancers: \"\"}\n";

fn services(site: &Site) -> Vec<Service> {
    (1..=3)
        .map(|number| Service::new(&format!("web-{number}"), number).echo().load_balancer().endpoints(&site.world.pods))
        .collect()
}

fn addresses(services: &[Service]) -> Vec<IpAddr> {
    services.iter().flat_map(Service::lb_ips).collect()
}

/// Connections through each address, and the pods behind them.
fn connect(site: &Site, services: &[Service]) -> Vec<(TcpClient, String)> {
    let client = &site.world.clients[0].ns;
    let connect = |to| {
        let mut connection = TcpClient::connect(client, to).unwrap();
        let pod = connection.ask("before").unwrap().pod;
        (connection, pod)
    };
    services.iter().flat_map(|service| service.lb(7)).map(connect).collect()
}

/// Every connection still leads where it led.
fn go_on(open: &mut [(TcpClient, String)]) {
    for (connection, pod) in open {
        assert_eq!(connection.ask("and on").unwrap().pod, *pod);
    }
}

#[test]
fn one_node_answers_for_each_address_and_hands_over_when_it_leaves() {
    if !ready("one_node_answers_for_each_address_and_hands_over_when_it_leaves") {
        return;
    }
    let site = Site::start(&["--forwarding-mode", "dsr"]);
    let services = services(&site);
    site.apply(&services);
    let all = addresses(&services);
    let holders = site.elected(&all);
    site.wait_until_held(&holders);
    assert_eq!(holders.values().collect::<BTreeSet<_>>().len(), 2, "both have their share: {holders:?}");
    for (addr, node) in &holders {
        assert_eq!(site.ask(0, *addr), [site.mac(*node)].into(), "{addr}");
    }
    let mut open = connect(&site, &services);
    for (addr, node) in &holders {
        assert_eq!(site.neighbour(0, *addr), Some(site.mac(*node)), "{addr}");
    }

    // Clients are told, and no connection is lost meanwhile.
    let host = &site.world.nodes[0];
    site.agents[0].write("node-0.yaml", &node(host, LEAVING)).unwrap();
    let moved = |open: &mut [(TcpClient, String)], whose: &dyn Fn(IpAddr) -> usize| {
        until("everybody to be told", || {
            go_on(open);
            let wrong = all.iter().find(|addr| site.neighbour(0, **addr) != Some(site.mac(whose(**addr))));
            wrong.map_or(Ok(()), |addr| Err(format!("{addr} is {:?}", site.neighbour(0, *addr))))
        });
    };
    moved(&mut open, &|_| 1);
    assert!(segment(&site.agents[0]).leaving && segment(&site.agents[0]).held.is_empty());
    for addr in &all {
        assert_eq!(site.ask(1, *addr), [site.mac(1)].into(), "{addr}");
    }
    // It comes back, and has its share again.
    site.agents[0].write("node-0.yaml", &node(host, "")).unwrap();
    site.wait_until_held(&holders);
    moved(&mut open, &|addr| holders[&addr]);
    go_on(&mut open);
}

#[test]
fn another_node_answers_when_an_agent_dies_and_connections_go_on() {
    if !ready("another_node_answers_when_an_agent_dies_and_connections_go_on") {
        return;
    }
    let mut site = Site::start(&["--forwarding-mode", "dsr"]);
    let services = services(&site);
    site.apply(&services);
    let all = addresses(&services);
    let holders = site.elected(&all);
    site.wait_until_held(&holders);
    let mut open = connect(&site, &services);
    site.agents[0].kill().unwrap();
    until("node 1 to take over", || {
        go_on(&mut open);
        let mac = site.mac(1);
        let wrong = all.iter().find(|addr| site.neighbour(0, **addr).as_ref() != Some(&mac));
        wrong.map_or(Ok(()), |addr| Err(format!("{addr} is {:?}", site.neighbour(0, *addr))))
    });
    site.wait_for_holders(&all, &[1]);
    let peer = segment(&site.agents[1]).peers.remove(0);
    assert_eq!((peer.name.as_str(), peer.addresses), ("node-0", None));
    // Somebody who never asked before.
    for service in &services {
        for to in service.lb(7) {
            Transport::Tcp.ask(&site.world.clients[1].ns, to, "new").unwrap();
        }
    }
    site.agents[0].spawn().unwrap();
    site.agents[0].wait_until_ready().unwrap();
    site.wait_until_held(&holders);
    go_on(&mut open);
}

#[test]
fn another_node_answers_when_a_node_dies_without_a_word() {
    if !ready("another_node_answers_when_a_node_dies_without_a_word") {
        return;
    }
    let site = Site::start(&["--forwarding-mode", "dsr"]);
    let services: Vec<_> =
        services(&site).into_iter().map(|service| service.endpoints(site.world.pods_of(1))).collect();
    site.apply(&services);
    let all = addresses(&services);
    site.wait_until_held(&site.elected(&all));
    let mut open = connect(&site, &services);
    site.world.nodes[0].ns.ip("link set eth0 down").unwrap();
    until("node 1 to take over", || {
        let held = segment(&site.agents[1]).held;
        if held.len() == all.len() { Ok(()) } else { Err(format!("{held:?}")) }
    });
    for addr in &all {
        until("an answer", || if site.ask(1, *addr) == [site.mac(1)].into() { Ok(()) } else { Err(addr.to_string()) });
    }
    // Those through the dead node, too: the other one makes the same choice, and the clients were told.
    go_on(&mut open);
    assert_eq!(segment(&site.agents[0]).devices, [""; 0], "a device that is down");
}

#[test]
fn nobody_answers_without_a_ready_backend_and_only_where_it_is_asked_for() {
    if !ready("nobody_answers_without_a_ready_backend_and_only_where_it_is_asked_for") {
        return;
    }
    let mut site = Site::start(&[]);
    let service = Service::new("web", 1).echo().load_balancer().spec("externalTrafficPolicy: Local");
    // In the segment's network, and not in the pools.
    let other = Service::new("other", 150).echo().load_balancer().endpoints(&site.world.pods);
    site.apply(&[service.clone().endpoints(site.world.pods_of(1)), other.clone()]);
    let all = service.lb_ips();
    site.wait_for_holders(&all, &[1]);
    let [v4, v6] = all;
    for addr in all {
        assert_eq!(site.ask(0, addr), [site.mac(1)].into());
    }
    for addr in other.lb_ips() {
        assert!(site.ask(0, addr).is_empty(), "{addr} is not ours to answer for");
    }
    // The nodes' own addresses stay the kernel's.
    assert_eq!(site.ask(0, "192.168.60.202".parse().unwrap()), [site.mac(1)].into());

    // The last one here is on its way out: others may have better ones; there is none.
    let mut draining = service.clone().endpoints(site.world.pods_of(1));
    draining.endpoints.iter_mut().for_each(|endpoint| (endpoint.ready, endpoint.terminating) = (false, true));
    site.apply(&[draining]);
    site.wait_for_holders(&[], &[]);
    assert!(site.ask(0, v4).is_empty() && site.ask(0, v6).is_empty());
    site.apply(&[service.clone().endpoints(site.world.pods_of(0))]);
    site.wait_for_holders(&all, &[0]);
    assert_eq!(site.ask(0, v6), [site.mac(0)].into());

    // Any address of a load balancer, if that is wanted; on no other device.
    site.agents[0].restart_with(&["--announce-addresses", "all"]).unwrap();
    let [other4, other6] = other.lb_ips();
    site.wait_for_holders(&[v4, v6, other4, other6], &[0]);
    assert_eq!(site.ask(0, other6), [site.mac(0)].into());
    site.agents[0].restart_with(&["--announce-devices", "eth9"]).unwrap();
    until("the status", || site.agents[0].status().unwrap().segment.ok_or_else(String::new));
    site.wait_for_holders(&[], &[]);
    assert!(site.ask(0, v4).is_empty() && site.ask(0, v6).is_empty());
}
