//! nftables: one look-up in a verdict map leads to a chain for each service, a random number to one for each endpoint.

use std::fmt::Write as _;

use super::MASQUERADE;
use crate::bench::sockets::load::PORT;
use crate::bench::sockets::services::{SERVICE_PORT, ServicePort, Services};
use crate::bench::sockets::stage::{NODE, POD_CIDR};

/// The whole table.
pub fn rules(services: Services) -> String {
    let ports: Vec<ServicePort> = services.ports().collect();
    let mut text = String::from("table ip kube-proxy {\n");
    let list = |items: Vec<String>| items.join(", ");
    let mut vips: Vec<String> = ports.iter().map(|port| port.vip.to_string()).collect();
    vips.dedup();
    let verdicts = ports
        .iter()
        .map(|port| format!("{} . {} . {SERVICE_PORT} : goto service-{}", port.vip, port.protocol(), chain(port)));
    let node_ports = ports
        .iter()
        .filter_map(|port| Some(format!("{} . {} : goto external-{}", port.protocol(), port.node_port?, chain(port))));
    let _ = write!(
        text,
        "set cluster-ips {{ type ipv4_addr; elements = {{ {} }} }}\n\
         set nodeport-ips {{ type ipv4_addr; elements = {{ {NODE} }} }}\n\
         map no-endpoint-services {{ type ipv4_addr . inet_proto . inet_service : verdict; }}\n\
         map no-endpoint-nodeports {{ type inet_proto . inet_service : verdict; }}\n\
         map firewall-ips {{ type ipv4_addr . inet_proto . inet_service : verdict; }}\n",
        list(vips),
    );
    for port in &ports {
        text.push_str(&chains(port));
    }
    let _ = write!(
        text,
        "map service-ips {{ type ipv4_addr . inet_proto . inet_service : verdict; elements = {{ {} }} }}\n\
         map service-nodeports {{ type inet_proto . inet_service : verdict; elements = {{ {} }} }}\n",
        list(verdicts.collect()),
        list(node_ports.collect()),
    );
    text.push_str(&base_chains());
    text.push_str("}\n");
    text
}

fn chain(port: &ServicePort) -> String {
    format!("{}-{}", port.number, port.protocol())
}

/// What leads from a service to its endpoints.
fn chains(port: &ServicePort) -> String {
    let (name, protocol) = (chain(port), port.protocol());
    let mut text = String::new();
    for (index, endpoint) in port.endpoints.iter().enumerate() {
        let _ = write!(
            text,
            "chain endpoint-{name}-{index} {{\n ip saddr {endpoint} jump mark-for-masquerade\n \
             meta l4proto {protocol} dnat to {endpoint}:{PORT}\n}}\n"
        );
    }
    let _ = write!(
        text,
        "chain service-{name} {{\n ip daddr {} {protocol} dport {SERVICE_PORT} ip saddr != {POD_CIDR} jump mark-for-masquerade\n \
         numgen random mod 2 vmap {{ 0 : goto endpoint-{name}-0, 1 : goto endpoint-{name}-1 }}\n}}\n",
        port.vip
    );
    if port.node_port.is_some() {
        let _ = write!(text, "chain external-{name} {{\n jump mark-for-masquerade\n goto service-{name}\n}}\n");
    }
    // Defined before they are used.
    if port.number == 0 && !port.udp {
        text.insert_str(0, &format!("chain mark-for-masquerade {{ meta mark set meta mark or {MASQUERADE}; }}\n"));
    }
    text
}

/// What every packet meets.
fn base_chains() -> String {
    format!(
        "chain services {{\n ip daddr . meta l4proto . th dport vmap @service-ips\n \
          ip daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports\n}}\n\
         chain service-endpoints-check {{ ip daddr . meta l4proto . th dport vmap @no-endpoint-services; }}\n\
         chain nodeport-endpoints-check {{ ip daddr @nodeport-ips meta l4proto . th dport vmap @no-endpoint-nodeports; }}\n\
         chain firewall-check {{ ip daddr . meta l4proto . th dport vmap @firewall-ips; }}\n\
         chain cluster-ips-check {{ ip daddr @cluster-ips reject; }}\n\
         chain masquerading {{\n meta mark and {MASQUERADE} == 0 return\n meta mark set meta mark xor {MASQUERADE}\n \
          masquerade fully-random\n}}\n\
         chain filter-prerouting-pre-dnat {{ type filter hook prerouting priority -110;\n ct state new jump firewall-check\n}}\n\
         chain filter-output-pre-dnat {{ type filter hook output priority -110;\n ct state new jump firewall-check\n}}\n\
         chain filter-input {{ type filter hook input priority 0;\n ct state new jump nodeport-endpoints-check\n \
          ct state new jump service-endpoints-check\n}}\n\
         chain filter-forward {{ type filter hook forward priority 0;\n ct state new jump service-endpoints-check\n \
          ct state new jump cluster-ips-check\n}}\n\
         chain filter-output {{ type filter hook output priority 0;\n ct state new jump service-endpoints-check\n \
          ct state new jump cluster-ips-check\n}}\n\
         chain nat-prerouting {{ type nat hook prerouting priority -100;\n jump services\n}}\n\
         chain nat-output {{ type nat hook output priority -100;\n jump services\n}}\n\
         chain nat-postrouting {{ type nat hook postrouting priority 100;\n jump masquerading\n}}\n"
    )
}
