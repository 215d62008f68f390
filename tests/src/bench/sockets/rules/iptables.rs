//! iptables: every new connection goes through one rule after the other until one matches its service.

use std::fmt::Write as _;

use super::MASQUERADE;
use crate::bench::sockets::load::PORT;
use crate::bench::sockets::services::{SERVICE_PORT, ServicePort, Services};
use crate::bench::sockets::stage::POD_CIDR;

/// For `iptables-restore`.
pub fn rules(services: Services) -> String {
    let ports: Vec<ServicePort> = services.ports().collect();
    let mut chains = String::from("*nat\n");
    for name in ["KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-POSTROUTING", "KUBE-MARK-MASQ"] {
        let _ = writeln!(chains, ":{name} - [0:0]");
    }
    let mut rules = format!(
        "-A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
         -A OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
         -A POSTROUTING -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING\n\
         -A KUBE-MARK-MASQ -j MARK --or-mark {MASQUERADE}\n\
         -A KUBE-POSTROUTING -m mark ! --mark {MASQUERADE}/{MASQUERADE} -j RETURN\n\
         -A KUBE-POSTROUTING -j MARK --xor-mark {MASQUERADE}\n\
         -A KUBE-POSTROUTING -j MASQUERADE --random-fully\n"
    );
    for port in &ports {
        add(port, &mut chains, &mut rules);
    }
    rules.push_str("-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS\nCOMMIT\n");
    chains + &rules + &filter()
}

/// The chains and rules of one port.
fn add(port: &ServicePort, chains: &mut String, rules: &mut String) {
    let (vip, protocol, name) = (port.vip, port.protocol(), port.name());
    let id = format!("{:014}{}", port.number, if port.udp { "UD" } else { "TC" });
    let _ = writeln!(chains, ":KUBE-SVC-{id} - [0:0]\n:KUBE-SEP-{id}0 - [0:0]\n:KUBE-SEP-{id}1 - [0:0]");
    let _ = write!(
        rules,
        "-A KUBE-SERVICES -d {vip}/32 -p {protocol} -m comment --comment \"{name} cluster IP\" -m {protocol} \
          --dport {SERVICE_PORT} -j KUBE-SVC-{id}\n\
         -A KUBE-SVC-{id} ! -s {POD_CIDR} -d {vip}/32 -p {protocol} -m comment --comment \"{name} cluster IP\" \
          -m {protocol} --dport {SERVICE_PORT} -j KUBE-MARK-MASQ\n\
         -A KUBE-SVC-{id} -m comment --comment \"{name} -> {}:{PORT}\" -m statistic --mode random --probability 0.5 \
          -j KUBE-SEP-{id}0\n\
         -A KUBE-SVC-{id} -m comment --comment \"{name} -> {}:{PORT}\" -j KUBE-SEP-{id}1\n",
        port.endpoints[0], port.endpoints[1]
    );
    for (index, endpoint) in port.endpoints.iter().enumerate() {
        let _ = write!(
            rules,
            "-A KUBE-SEP-{id}{index} -s {endpoint}/32 -m comment --comment \"{name}\" -j KUBE-MARK-MASQ\n\
             -A KUBE-SEP-{id}{index} -p {protocol} -m comment --comment \"{name}\" -m {protocol} \
              -j DNAT --to-destination {endpoint}:{PORT}\n"
        );
    }
    if let Some(node_port) = port.node_port {
        let _ = writeln!(chains, ":KUBE-EXT-{id} - [0:0]");
        let _ = write!(
            rules,
            "-A KUBE-NODEPORTS -p {protocol} -m comment --comment \"{name}\" -m {protocol} --dport {node_port} \
              -j KUBE-EXT-{id}\n\
             -A KUBE-EXT-{id} -m comment --comment \"masquerade traffic for {name} external destinations\" \
              -j KUBE-MARK-MASQ\n\
             -A KUBE-EXT-{id} -j KUBE-SVC-{id}\n"
        );
    }
}

/// The table of filters: what is there even if nothing is to be refused.
fn filter() -> String {
    let mut text = String::from("*filter\n");
    for name in ["KUBE-EXTERNAL-SERVICES", "KUBE-FORWARD", "KUBE-NODEPORTS", "KUBE-PROXY-FIREWALL", "KUBE-SERVICES"] {
        let _ = writeln!(text, ":{name} - [0:0]");
    }
    for (chain, target) in [
        ("INPUT", "KUBE-PROXY-FIREWALL"),
        ("INPUT", "KUBE-EXTERNAL-SERVICES"),
        ("FORWARD", "KUBE-PROXY-FIREWALL"),
        ("FORWARD", "KUBE-SERVICES"),
        ("FORWARD", "KUBE-EXTERNAL-SERVICES"),
        ("OUTPUT", "KUBE-PROXY-FIREWALL"),
        ("OUTPUT", "KUBE-SERVICES"),
    ] {
        let _ = writeln!(text, "-A {chain} -m conntrack --ctstate NEW -j {target}");
    }
    let _ = write!(
        text,
        "-A INPUT -j KUBE-NODEPORTS\n-A FORWARD -j KUBE-FORWARD\n\
         -A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP\n\
         -A KUBE-FORWARD -m mark --mark {MASQUERADE}/{MASQUERADE} -j ACCEPT\n\
         -A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\nCOMMIT\n"
    );
    text
}
