//! What the controllers may give away.

use std::ops::RangeInclusive;

use ipnet::IpNet;

use super::numbers::Numbers;
use super::pool::Pool;
use crate::model::{AddressFamily, Rules};

/// The ranges that values are taken from.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where ClusterIPs are taken from, the primary family first; without any, none are given.
    pub cluster_ips: Vec<Pool>,
    /// Where nodePorts and health-check ports are taken from.
    pub node_ports: RangeInclusive<u16>,
    /// Where addresses of load balancers are taken from; without any, such a Service stays pending.
    pub pools: Vec<Pool>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { cluster_ips: Vec::new(), node_ports: Rules::default().node_ports, pools: Vec::new() }
    }
}

impl Settings {
    /// From what the operator configured.
    pub fn new(cluster_ips: &[IpNet], node_ports: RangeInclusive<u16>, pools: Vec<Pool>) -> Self {
        let cluster_ips = cluster_ips.iter().filter_map(|network| Pool::cluster_ips(*network)).collect();
        Self { cluster_ips, node_ports, pools }
    }

    /// The families that ClusterIPs are given in, the primary one first.
    pub fn families(&self) -> Vec<AddressFamily> {
        let mut families: Vec<AddressFamily> = Vec::new();
        for pool in &self.cluster_ips {
            if !families.contains(&pool.family()) {
                families.push(pool.family());
            }
        }
        families
    }

    /// The ports as numbers: the lower ones are used last, as in Kubernetes (KEP-3668).
    pub(super) fn port_numbers(&self) -> Numbers {
        let (first, last) = (u128::from(*self.node_ports.start()), u128::from(*self.node_ports.end()));
        let size = last.saturating_sub(first) + 1;
        Numbers::new(first, last, if size < 16 { 0 } else { (size / 32).clamp(16, 128) })
    }
}
