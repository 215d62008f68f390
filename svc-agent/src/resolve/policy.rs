//! Which addresses Services may claim, as the operator configured it.

use ipnet::IpNet;

/// The operator's rules for addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Node addresses that answer nodePorts; empty means all but loopback and link-local.
    pub node_port_addresses: Vec<IpNet>,
    /// Where `spec.externalIPs` may be; empty means nowhere.
    pub external_ips: Vec<IpNet>,
    /// Where addresses of load balancers may be; empty means anywhere.
    pub load_balancer_ips: Vec<IpNet>,
}
