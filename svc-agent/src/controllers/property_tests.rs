//! Whatever Services there are, and in whatever order they come: nobody gets what another has.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use proptest::prelude::*;

use super::allocate_tests::snapshot;
use super::{Controllers, Memory, Settings};
use crate::model::Protocol;
use crate::sources::Snapshot;

/// Small ranges, so that Services meet.
fn settings() -> Settings {
    let networks = ["10.96.0.0/27", "fd00:96::/123"].map(|text| text.parse().unwrap());
    Settings::new(&networks, 30_000..=30_039, vec!["192.0.2.0/29".parse().unwrap(), "2001:db8::/125".parse().unwrap()])
}

#[derive(Clone, Debug)]
struct Wish {
    name: u8,
    kind: u8,
    policy: u8,
    local: bool,
    cluster_ip: Option<u8>,
    node_port: Option<u8>,
    two: bool,
}

fn wish() -> impl Strategy<Value = Wish> {
    let given = || proptest::option::weighted(0.3, 1_u8..30);
    (0_u8..24, 0_u8..4, 0_u8..3, any::<bool>(), given(), given(), any::<bool>()).prop_map(
        |(name, kind, policy, local, cluster_ip, node_port, two)| Wish {
            name,
            kind,
            policy,
            local,
            cluster_ip,
            node_port,
            two,
        },
    )
}

impl Wish {
    fn yaml(&self) -> String {
        let kind = ["ClusterIP", "NodePort", "LoadBalancer", "ClusterIP"][usize::from(self.kind)];
        let policy = ["SingleStack", "PreferDualStack", "RequireDualStack"][usize::from(self.policy)];
        let mut spec = format!("type: {kind}, ipFamilyPolicy: {policy}");
        if self.kind == 3 {
            spec += ", clusterIP: None";
        } else if let Some(ip) = self.cluster_ip {
            spec += &format!(", clusterIP: 10.96.0.{ip}");
        }
        let exposed = matches!(self.kind, 1 | 2);
        if self.local && exposed {
            spec += ", externalTrafficPolicy: Local";
        }
        let node_port =
            self.node_port.filter(|_| exposed).map(|port| format!(", nodePort: {}", 30_000 + u16::from(port)));
        let second = if self.two { ", {name: b, port: 81}" } else { "" };
        format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: s{}}}\nspec: {{{spec}, ports: [{{name: a, port: 80{}}}{second}]}}\n",
            self.name,
            node_port.unwrap_or_default()
        )
    }
}

fn unique(wishes: &[Wish]) -> Vec<Wish> {
    let by_name: BTreeMap<u8, Wish> = wishes.iter().map(|wish| (wish.name, wish.clone())).collect();
    by_name.into_values().collect()
}

fn text(wishes: &[Wish]) -> String {
    wishes.iter().map(Wish::yaml).collect()
}

/// Nothing that was given belongs to two, nor to somebody who names it.
fn check(given: &Snapshot, snapshot: &Snapshot) {
    let mut ips: HashMap<IpAddr, (String, bool)> = HashMap::new();
    let mut ports: HashMap<(u16, Protocol), (String, bool)> = HashMap::new();
    for (name, service) in &snapshot.objects.services {
        let own = &given.objects.services[name];
        let all = service.cluster_ips.iter().chain(service.ingress.iter().map(|ingress| &ingress.ip));
        for ip in all {
            let named = own.cluster_ips.contains(ip) || own.ingress.iter().any(|ingress| ingress.ip == *ip);
            if let Some((other, other_named)) = ips.insert(*ip, (name.to_string(), named)) {
                assert!(named && other_named, "{ip} belongs to {other} and {name}");
            }
        }
        let node_ports = service
            .ports
            .iter()
            .zip(&own.ports)
            .filter_map(|(port, own)| Some((port.node_port?, port.protocol, own.node_port.is_some())));
        let health =
            service.health_check_node_port.map(|port| (port, Protocol::Tcp, own.health_check_node_port.is_some()));
        for (port, protocol, named) in node_ports.chain(health) {
            assert!((30_000..=30_039).contains(&port));
            if let Some((other, other_named)) = ports.insert((port, protocol), (name.to_string(), named)) {
                assert!(named && other_named, "{port} {protocol} belongs to {other} and {name}");
            }
        }
    }
}

fn services(snapshot: &Snapshot) -> Vec<String> {
    snapshot
        .objects
        .services
        .values()
        .map(|service| {
            format!(
                "{:?}",
                (
                    &service.name,
                    &service.cluster_ips,
                    &service.ingress,
                    service.health_check_node_port,
                    service.ports.iter().map(|port| port.node_port).collect::<Vec<_>>()
                )
            )
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nodes_that_read_the_same_give_the_same_in_any_order_and_nothing_twice(
        wishes in proptest::collection::vec(wish(), 0..24),
        order in any::<prop::sample::Index>(),
    ) {
        let mut wishes = unique(&wishes);
        let given = snapshot(&text(&wishes));
        let here = Controllers::new(settings(), Memory::default()).complete(given.clone());
        check(&given, &here);
        if !wishes.is_empty() {
            let middle = order.index(wishes.len());
            wishes.rotate_left(middle);
            wishes.reverse();
        }
        let there = Controllers::new(settings(), Memory::default()).complete(snapshot(&text(&wishes)));
        prop_assert_eq!(services(&here), services(&there));
    }

    #[test]
    fn in_any_history_nothing_is_given_twice_and_what_stays_keeps_what_it_has(
        steps in proptest::collection::vec((proptest::collection::vec(wish(), 0..16), any::<bool>(), any::<bool>()), 1..6),
    ) {
        let mut controllers = Controllers::new(settings(), Memory::default());
        let mut before: Option<(BTreeMap<String, String>, Snapshot)> = None;
        for (wishes, complete, restart) in steps {
            if restart {
                let memory = Memory::parse(&controllers.memory().to_text()).unwrap();
                prop_assert_eq!(&memory, controllers.memory().as_ref());
                controllers = Controllers::new(settings(), memory);
            }
            let wishes = unique(&wishes);
            let mut given = snapshot(&text(&wishes));
            given.complete = complete;
            let now = controllers.complete(given.clone());
            check(&given, &now);
            let texts: BTreeMap<String, String> = wishes.iter().map(|wish| (format!("default/s{}", wish.name), wish.yaml())).collect();
            if let Some((old, snapshot)) = &before {
                for (name, service) in &now.objects.services {
                    let name = name.to_string();
                    let old_service = snapshot.objects.services.iter().find(|(old, _)| old.to_string() == name);
                    // The same Service as before, without a value of its own that may be refused by now.
                    if old.get(&name) == texts.get(&name) && !texts[&name].contains("10.96") && !texts[&name].contains("nodePort:") {
                        let (_, old_service) = old_service.unwrap();
                        for ip in &old_service.cluster_ips {
                            prop_assert!(service.cluster_ips.contains(ip), "{} lost {}", name, ip);
                        }
                        for (port, old_port) in service.ports.iter().zip(&old_service.ports) {
                            prop_assert!(old_port.node_port.is_none() || old_port.node_port == port.node_port);
                        }
                    }
                }
            }
            before = Some((texts, now));
        }
    }
}
