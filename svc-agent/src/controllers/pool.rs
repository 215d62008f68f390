//! Pools of addresses for load balancers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;

use super::numbers::{Numbers, seed};
use crate::model::{AddressFamily, ServiceName, address};

/// Addresses of one family that follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    family: AddressFamily,
    numbers: Numbers,
    first: IpAddr,
    last: IpAddr,
}

impl Pool {
    /// From `first` to `last`, both included.
    pub fn range(first: IpAddr, last: IpAddr) -> Option<Self> {
        Self::banded(first, last, 0)
    }

    /// The addresses of a network that hosts may have: not its own and not that of its broadcasts.
    pub fn network(network: IpNet) -> Option<Self> {
        let (first, last) = hosts(network);
        Self::range(first, last)
    }

    /// The same for ClusterIPs: the lower ones are used last, as in Kubernetes (KEP-3070).
    pub fn cluster_ips(network: IpNet) -> Option<Self> {
        let (first, last) = hosts(network);
        let size = (number(last) - number(first)).saturating_add(1);
        Self::banded(first, last, if size < 16 { 0 } else { (size / 16).clamp(16, 256) })
    }

    fn banded(first: IpAddr, last: IpAddr, band: u128) -> Option<Self> {
        let family = AddressFamily::of(first);
        if family != AddressFamily::of(last) || number(first) > number(last) {
            return None;
        }
        Some(Self { family, numbers: Numbers::new(number(first), number(last), band), first, last })
    }

    /// Whether an address is one of the pool's.
    pub fn contains(&self, ip: IpAddr) -> bool {
        AddressFamily::of(ip) == self.family && self.numbers.contains(number(ip))
    }

    /// IPv4 or IPv6.
    pub fn family(&self) -> AddressFamily {
        self.family
    }

    /// Whether two pools share an address.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.contains(other.first) || other.contains(self.first)
    }
}

impl FromStr for Pool {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const SHAPE: &str =
            "a network without host bits such as 192.0.2.0/24, or a range such as 192.0.2.10-192.0.2.99";
        // Addresses are parsed by std, which knows no leading zeros (CVE-2021-29923).
        let ip = |text: &str| text.trim().parse::<IpAddr>().map_err(|_| SHAPE);
        let pool = match (text.split_once('/'), text.split_once('-')) {
            (Some((addr, prefix)), None) => {
                let network = IpNet::new(ip(addr)?, prefix.trim().parse().map_err(|_| SHAPE)?).map_err(|_| SHAPE)?;
                if network != network.trunc() || network.prefix_len() == 0 {
                    return Err(SHAPE);
                }
                Self::network(network)
            }
            (None, Some((first, last))) => Self::range(ip(first)?, ip(last)?),
            (None, None) => Self::range(ip(text)?, ip(text)?),
            (Some(_), Some(_)) => None,
        };
        let pool = pool.ok_or(SHAPE)?;
        if address::special(pool.first).or_else(|| address::special(pool.last)).is_some() {
            return Err("addresses that every node can reach: no loopback, link-local, multicast or unspecified ones");
        }
        Ok(pool)
    }
}

/// The first and the last address of a network that a host may have.
fn hosts(network: IpNet) -> (IpAddr, IpAddr) {
    let (first, last) = (network.network(), network.broadcast());
    let size = (number(last) - number(first)).saturating_add(1);
    if size <= 2 {
        return (first, last);
    }
    let family = AddressFamily::of(first);
    // The first address of an IPv6 network is that of all its routers; there are no broadcasts.
    let end = if family == AddressFamily::V4 { number(last) - 1 } else { number(last) };
    (addr(family, number(first) + 1), addr(family, end))
}

/// Chooses a free address of a family from the first pool that has one; the same for the same name, pools and taken
/// addresses on every node. `purpose` keeps the choices for one name apart.
pub fn choose(
    pools: &[Pool],
    family: AddressFamily,
    purpose: &str,
    name: &ServiceName,
    taken: usize,
    is_taken: impl Fn(IpAddr) -> bool,
) -> Option<IpAddr> {
    let seed = seed(&format!("{purpose} {name}"));
    let of_family = pools.iter().filter(|pool| pool.family == family);
    of_family
        .filter_map(|pool| pool.numbers.choose(seed, taken, |number| is_taken(addr(family, number))))
        .map(|number| addr(family, number))
        .next()
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(u32::from(ip)),
        IpAddr::V6(ip) => u128::from(ip),
    }
}

fn addr(family: AddressFamily, number: u128) -> IpAddr {
    match family {
        AddressFamily::V4 => Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX)).into(),
        AddressFamily::V6 => Ipv6Addr::from(number).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_is_a_network_or_a_range() {
        for (text, first, last) in [
            ("192.0.2.0/24", "192.0.2.1", "192.0.2.254"),
            ("192.0.2.0/31", "192.0.2.0", "192.0.2.1"),
            ("192.0.2.7/32", "192.0.2.7", "192.0.2.7"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.7"),
            ("192.0.2.10-192.0.2.19", "192.0.2.10", "192.0.2.19"),
            ("2001:db8::/120", "2001:db8::1", "2001:db8::ff"),
            ("2001:db8::5 - 2001:db8::6", "2001:db8::5", "2001:db8::6"),
        ] {
            let pool: Pool = text.parse().unwrap();
            assert_eq!((pool.first.to_string(), pool.last.to_string()), (first.to_owned(), last.to_owned()), "{text}");
        }
        for text in [
            "",
            "192.0.2.1/24",
            "0.0.0.0/0",
            "192.0.2.9-192.0.2.1",
            "192.0.2.1-2001:db8::1",
            "010.0.0.0/8",
            "a-b",
            "127.0.0.0/8",
            "fe80::/64",
            "224.0.0.1-224.0.0.9",
            "192.0.2.0/24-192.0.3.0/24",
        ] {
            assert!(text.parse::<Pool>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_first_pool_with_room_of_the_family_is_used() {
        let pools: Vec<Pool> =
            ["192.0.2.1-192.0.2.2", "2001:db8::1-2001:db8::2", "198.51.100.9"].map(|text| text.parse().unwrap()).into();
        let mut taken: Vec<IpAddr> = Vec::new();
        for name in ["a", "b", "c"] {
            let name = ServiceName::new("default", name);
            let ip = choose(&pools, AddressFamily::V4, "x", &name, taken.len(), |ip| taken.contains(&ip)).unwrap();
            assert!(!taken.contains(&ip));
            taken.push(ip);
        }
        assert_eq!(taken[2].to_string(), "198.51.100.9");
        let name = ServiceName::new("default", "d");
        assert_eq!(choose(&pools, AddressFamily::V4, "x", &name, taken.len(), |ip| taken.contains(&ip)), None);
        assert!(choose(&pools, AddressFamily::V6, "x", &name, taken.len(), |ip| taken.contains(&ip)).is_some());
    }
}
