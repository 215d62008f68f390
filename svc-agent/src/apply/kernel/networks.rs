//! Where ClusterIPs are taken from: written once, when the agent starts.

use anyhow::Context as _;
use aya::maps::Array;
use ipnet::IpNet;
use svc_common::maps::{Cidr, Cidrs, MapSpec, spec};

use crate::attach::maps::Maps;

/// Writes the networks of both families. They fit ([`crate::config::Config::service_cidrs`]).
///
/// # Errors
/// If a map cannot be read or written.
pub fn set_service_networks(maps: &Maps, networks: &[IpNet]) -> anyhow::Result<()> {
    let v4 = networks.iter().filter_map(|network| match network {
        IpNet::V4(network) => Some(Cidr { addr: network.network().octets(), mask: network.netmask().octets() }),
        IpNet::V6(_) => None,
    });
    let v6 = networks.iter().filter_map(|network| match network {
        IpNet::V4(_) => None,
        IpNet::V6(network) => Some(Cidr { addr: network.network().octets(), mask: network.netmask().octets() }),
    });
    write(maps, &spec::SVC_CIDRS_V4, all(v4))?;
    write(maps, &spec::SVC_CIDRS_V6, all(v6))
}

fn all<A: Copy + Default>(networks: impl Iterator<Item = Cidr<A>>) -> Cidrs<A> {
    let mut cidrs = Cidrs::default();
    cidrs.0.iter_mut().zip(networks).for_each(|(cidr, network)| *cidr = network);
    cidrs
}

/// Writes what has changed: a packet could see a value half written.
fn write<A: PartialEq>(maps: &Maps, map: &MapSpec, cidrs: Cidrs<A>) -> anyhow::Result<()>
where
    Cidrs<A>: aya::Pod,
{
    let mut array: Array<_, Cidrs<A>> = Array::try_from(maps.map(map)?)?;
    if array.get(&0, 0).with_context(|| format!("cannot read `{}`", map.name))? != cidrs {
        array.set(0, cidrs, 0).with_context(|| format!("cannot write to `{}`", map.name))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use svc_common::family::{Family, V4, V6};

    use super::*;

    #[test]
    fn b66_networks_are_where_their_addresses_are() {
        let cidr = |text: &str| match text.parse().unwrap() {
            IpNet::V4(net) => all([Cidr { addr: net.network().octets(), mask: net.netmask().octets() }].into_iter()),
            IpNet::V6(_) => panic!("IPv4"),
        };
        let cidrs = cidr("10.96.0.0/12");
        let within = |addr: [u8; 4]| cidrs.0.iter().any(|cidr| V4::contains(cidr, &addr));
        assert!(within([10, 96, 0, 0]) && within([10, 111, 255, 255]) && !within([10, 112, 0, 0]));
        assert!(!within([0, 0, 0, 0]), "the empty places are no networks");
        assert!(!Cidrs::<[u8; 16]>::default().0.iter().any(|cidr| V6::contains(cidr, &[0; 16])));
    }
}
