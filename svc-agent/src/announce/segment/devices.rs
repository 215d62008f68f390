//! The devices that addresses are answered for on, with the networks that are on their segments.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

use globset::GlobMatcher;
use ipnet::IpNet;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use svc_common::net::Mac;

/// A device that is up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// ifindex.
    pub index: u32,
    /// Hardware address.
    pub mac: Mac,
    /// The networks of its addresses.
    pub networks: Vec<IpNet>,
}

impl Device {
    /// Whether hosts of its segment take an address for a neighbour's.
    pub fn has_on_link(&self, addr: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(&addr))
    }
}

/// The Ethernet devices of this network namespace that are named by a pattern and are up, by name.
///
/// # Errors
/// If the kernel does not tell.
pub fn find(patterns: &[GlobMatcher]) -> io::Result<BTreeMap<String, Device>> {
    let mut devices: BTreeMap<String, Device> = BTreeMap::new();
    for found in getifaddrs()? {
        let is_up = found.flags.contains(InterfaceFlags::IFF_UP | InterfaceFlags::IFF_RUNNING);
        let speaks = !found.flags.intersects(InterfaceFlags::IFF_LOOPBACK | InterfaceFlags::IFF_NOARP);
        if !is_up || !speaks || !patterns.iter().any(|pattern| pattern.is_match(&found.interface_name)) {
            continue;
        }
        let Some(address) = found.address else { continue };
        let device = devices.entry(found.interface_name).or_default();
        if let Some(link) = address.as_link_addr() {
            device.index = u32::try_from(link.ifindex()).unwrap_or_default();
            device.mac = Mac(link.addr().unwrap_or_default());
        }
        let ip = |address: Option<nix::sys::socket::SockaddrStorage>| {
            let address = address?;
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
        };
        if let (Some(addr), Some(mask)) = (ip(Some(address)), ip(found.netmask))
            && let Ok(network) = IpNet::with_netmask(addr, mask)
        {
            device.networks.push(network.trunc());
        }
    }
    devices.retain(|_, device| device.index != 0 && device.mac != Mac::default());
    Ok(devices)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_on_a_segment_if_one_of_its_networks_has_it() {
        let networks = ["192.0.2.0/24", "2001:db8::/64", "198.51.100.7/32"].map(|text| text.parse().unwrap());
        let device = Device { networks: networks.into(), ..Device::default() };
        for (addr, expected) in [
            ("192.0.2.80", true),
            ("192.0.3.80", false),
            ("2001:db8::80", true),
            ("2001:db8:0:1::80", false),
            ("198.51.100.8", false),
        ] {
            assert_eq!(device.has_on_link(addr.parse().unwrap()), expected, "{addr}");
        }
    }
}
