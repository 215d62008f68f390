//! Which addresses Services may claim, as the operator configured it.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::model::address::special;

/// The operator's rules for addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Node addresses that answer nodePorts; `None` means all but loopback and link-local.
    pub node_port_addresses: Option<Vec<IpNet>>,
    /// Where `spec.externalIPs` may be; empty means nowhere.
    pub external_ips: Vec<IpNet>,
    /// Where addresses of load balancers may be; `None` means anywhere.
    pub load_balancer_ips: Option<Vec<IpNet>>,
}

impl Policy {
    /// For where no operator's ranges are known: everything is allowed.
    pub fn anything() -> Self {
        let anywhere = vec![IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())];
        Self { external_ips: anywhere, ..Self::default() }
    }

    /// Whether an address of the node answers nodePorts.
    pub fn allows_node_port(&self, addr: IpAddr) -> bool {
        special(addr).is_none() && self.node_port_addresses.as_deref().is_none_or(|ranges| within(ranges, addr))
    }

    /// Whether an address may be an ExternalIP.
    pub fn allows_external_ip(&self, addr: IpAddr) -> bool {
        within(&self.external_ips, addr)
    }

    /// Whether an address may be a load balancer's.
    pub fn allows_load_balancer_ip(&self, addr: IpAddr) -> bool {
        self.load_balancer_ips.as_deref().is_none_or(|ranges| within(ranges, addr))
    }
}

fn within(ranges: &[IpNet], addr: IpAddr) -> bool {
    ranges.iter().any(|range| range.contains(&addr))
}
