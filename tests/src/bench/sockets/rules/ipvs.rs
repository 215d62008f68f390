//! IPVS as kube-proxy sets it up: every address of a service belongs to a device of the node, the kernel's own balancer takes
//! what comes to them, and packet filters replace the source of what comes to a nodePort.
//!
//! kube-proxy finds those by sets of iptables; here it is one rule of nftables, which is less work for the packet.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Result, bail};

use super::{MASQUERADE, feed};
use crate::bench::sockets::load::PORT;
use crate::bench::sockets::services::{SERVICE_PORT, ServicePort, Services};
use crate::bench::sockets::stage::{NODE, Stage};

/// Makes all of it.
///
/// # Errors
/// If the kernel or a tool refuses something.
pub fn load(stage: &Stage, services: Services) -> Result<()> {
    let ports: Vec<ServicePort> = services.ports().collect();
    let node = &stage.node.ns;
    let mut device = String::from("link add kube-ipvs0 type dummy\n");
    // The service that is asked has two ports.
    for port in ports.iter().filter(|port| !port.udp) {
        let _ = writeln!(device, "addr add {}/32 dev kube-ipvs0", port.vip);
    }
    node.ip(&device)?;
    // Connections are known to the packet filter, too, which replaces sources.
    for (key, value) in [("conntrack", "1"), ("expire_nodest_conn", "1"), ("conn_reuse_mode", "0")] {
        node.sysctl(&format!("net/ipv4/vs/{key}"), value)?;
    }
    feed(stage, &["nft", "-f", "-"], &sources())?;
    feed(stage, &["ipvsadm", "-R"], &balancers(&ports))
}

/// Whether there is all that it needs.
///
/// # Errors
/// What there is not.
pub fn probe(stage: &Stage) -> Result<()> {
    if !Path::new("/proc/net/ip_vs").exists() {
        bail!("this kernel has no ip_vs, or not loaded; Debian's has it in a guest (`cargo xtask vm`)");
    }
    feed(stage, &["ipvsadm", "-L", "-n"], "")
}

/// For `ipvsadm -R`.
fn balancers(ports: &[ServicePort]) -> String {
    let mut text = String::new();
    for port in ports {
        let kind = if port.udp { "-u" } else { "-t" };
        let places = [Some((port.vip, SERVICE_PORT)), port.node_port.map(|node_port| (NODE, node_port))];
        for (address, number) in places.into_iter().flatten() {
            let _ = writeln!(text, "-A {kind} {address}:{number} -s rr");
            for endpoint in port.endpoints {
                let _ = writeln!(text, "-a {kind} {address}:{number} -r {endpoint}:{PORT} -m -w 1");
            }
        }
    }
    text
}

/// What comes to a nodePort gets the node's source.
fn sources() -> String {
    format!(
        "table ip kube-proxy {{\n\
         chain nat-prerouting {{ type nat hook prerouting priority -100;\n \
          ip daddr {NODE} meta l4proto {{ tcp, udp }} th dport 30000-32767 meta mark set meta mark or {MASQUERADE}\n}}\n\
         chain nat-postrouting {{ type nat hook postrouting priority 100;\n meta mark and {MASQUERADE} == 0 return\n \
          meta mark set meta mark xor {MASQUERADE}\n masquerade fully-random\n}}\n}}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_port_has_both_endpoints_at_its_address_and_at_its_node_port() {
        let ports: Vec<ServicePort> = Services(3).ports().collect();
        let text = balancers(&ports);
        assert_eq!(text.lines().filter(|line| line.starts_with("-A ")).count(), 2 * ports.len());
        assert_eq!(text.lines().filter(|line| line.starts_with("-a ")).count(), 4 * ports.len());
        assert!(text.contains("-A -u 10.96.1.1:80 -s rr\n-a -u 10.96.1.1:80 -r 10.244.0.11:8080 -m"), "{text}");
    }
}
