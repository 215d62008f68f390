//! From devices and addresses to the table of devices and the node's addresses. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use svc_common::maps::{Device, device_flags};

use super::classes::{Class, Patterns};
use super::links::{TcState, XdpState};
use super::netlink::{Address, Link};
use super::xdp::Place;
use crate::config::Forwarding;

/// A device with its class and addresses.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What the kernel says of it.
    pub link: Link,
    /// What it faces.
    pub class: Class,
    /// How packets are to be forwarded.
    pub forwarding: Forwarding,
    /// Its addresses, in the kernel's order.
    pub addresses: Vec<Address>,
    /// What stands in for an address that it does not have itself: the node's first of each family.
    pub stand_in: Vec<Address>,
    /// How XDP is attached.
    pub xdp: XdpState,
    /// How tc is attached.
    pub tc: TcState,
}

impl Entry {
    /// Whether programs belong on it.
    pub fn managed(&self) -> bool {
        self.class.managed() && self.unfit().is_none()
    }

    /// Why no program belongs on it although its name says so.
    pub fn unfit(&self) -> Option<String> {
        match &self.link.port_of {
            _ if !self.class.managed() => None,
            _ if !self.link.ethernet => Some("its frames are not Ethernet".into()),
            Some(kind) => Some(format!("it is a port of a {kind}, which does the work")),
            None => None,
        }
    }

    /// Its value in `DEVICES`; `None` if the programs never need it.
    pub fn value(&self) -> Option<Device> {
        let v4 = self.source(IpAddr::is_ipv4);
        let v6 = self.source(IpAddr::is_ipv6);
        if !self.link.ethernet || (!self.managed() && v4.is_none() && v6.is_none()) {
            return None;
        }
        let target = self.class == Class::Uplink && self.xdp.place == Some(Place::Native);
        let flags = [(target, device_flags::XDP_TARGET), (self.fast(), device_flags::FAST)];
        Some(Device {
            class: self.class.number(),
            flags: flags.iter().filter(|(holds, _)| *holds).fold(0, |flags, (_, flag)| flags | flag),
            mtu: u16::try_from(self.link.mtu).unwrap_or(u16::MAX),
            mac: self.link.mac,
            pad: [0; 2],
            v4: v4.map_or([0; 4], |addr| if let IpAddr::V4(addr) = addr { addr.octets() } else { [0; 4] }),
            v6: v6.map_or([0; 16], |addr| if let IpAddr::V6(addr) = addr { addr.octets() } else { [0; 16] }),
        })
    }

    /// Whether the programs forward connections from and to it past the stack.
    fn fast(&self) -> bool {
        self.forwarding == Forwarding::Fast
            && self.managed()
            && match self.class {
                Class::Uplink | Class::Overlay => true,
                // Behind a bridge is more than one pod, and only the bridge knows which is where.
                Class::Workload => {
                    let has_peer = matches!(self.link.kind.as_deref(), Some("veth" | "netkit"));
                    has_peer && self.link.peer_elsewhere && !self.link.enslaved
                }
                Class::Other => false,
            }
    }

    /// The address from which connections leave here, where the kernel does not tell (before 6.7).
    fn source(&self, family: impl Fn(&IpAddr) -> bool) -> Option<IpAddr> {
        self.addresses
            .iter()
            .chain(&self.stand_in)
            .find(|address| fit(address) && family(&address.addr))
            .map(|a| a.addr)
    }
}

/// Whether connections may have an address as their source.
const fn fit(address: &Address) -> bool {
    address.global && address.preferred
}

/// Puts devices and addresses together.
pub fn entries(
    links: Vec<Link>,
    addresses: &[Address],
    patterns: &Patterns,
    forwarding: Forwarding,
) -> BTreeMap<u32, Entry> {
    let mut by_device: BTreeMap<u32, Vec<Address>> = BTreeMap::new();
    for address in addresses {
        by_device.entry(address.ifindex).or_default().push(*address);
    }
    let mut entries: BTreeMap<u32, Entry> = links
        .into_iter()
        .map(|link| {
            let entry = Entry {
                class: patterns.class(&link.name),
                forwarding,
                addresses: by_device.remove(&link.index).unwrap_or_default(),
                stand_in: Vec::new(),
                xdp: XdpState::default(),
                tc: TcState::default(),
                link,
            };
            (entry.link.index, entry)
        })
        .collect();
    let stand_in: Vec<Address> =
        [IpAddr::is_ipv4, IpAddr::is_ipv6].iter().filter_map(|family| stand_in(&entries, family)).collect();
    for entry in entries.values_mut().filter(|entry| entry.managed()) {
        entry.stand_in.clone_from(&stand_in);
    }
    entries
}

/// The first address of the uplinks that connections may have as their source; else of what is not managed, as where
/// routers have theirs on the loopback device.
fn stand_in(entries: &BTreeMap<u32, Entry>, family: impl Fn(&IpAddr) -> bool) -> Option<Address> {
    let of = |class: Class| {
        let mut addresses = entries.values().filter(|entry| entry.class == class).flat_map(|entry| &entry.addresses);
        addresses.find(|address| fit(address) && family(&address.addr)).copied()
    };
    of(Class::Uplink).or_else(|| of(Class::Other))
}

/// The node's addresses: those of its devices without loopback and link-local ones.
///
/// Addresses of workload devices face pods, so they count only where there are no others.
pub fn node_addresses(entries: &BTreeMap<u32, Entry>) -> Vec<IpAddr> {
    let of = |workload: bool| {
        let mut addresses: Vec<_> = entries
            .values()
            .filter(|entry| (entry.class == Class::Workload) == workload)
            .flat_map(|entry| &entry.addresses)
            .map(|address| address.addr)
            .filter(is_node_address)
            .collect();
        addresses.sort_unstable();
        addresses.dedup();
        addresses
    };
    let others = of(false);
    if others.is_empty() { of(true) } else { others }
}

fn is_node_address(addr: &IpAddr) -> bool {
    let special = match addr {
        IpAddr::V4(addr) => addr.is_link_local(),
        IpAddr::V6(addr) => addr.is_unicast_link_local(),
    };
    !special && !addr.is_loopback() && !addr.is_unspecified() && !addr.is_multicast()
}

#[cfg(test)]
mod tests {
    use svc_common::maps::device_class;
    use svc_common::net::Mac;

    use super::super::classes::tests::patterns;
    use super::*;

    fn link(index: u32, name: &str) -> Link {
        Link {
            index,
            name: name.into(),
            ethernet: name != "lo",
            mac: Mac([2, 0, 0, 0, 0, 1]),
            mtu: 1500,
            ..Link::default()
        }
    }

    fn address(ifindex: u32, addr: &str) -> Address {
        let addr: IpAddr = addr.parse().unwrap();
        let local = addr.is_loopback() || matches!(addr, IpAddr::V6(v6) if v6.is_unicast_link_local());
        Address { ifindex, addr, global: !local, preferred: true }
    }

    fn build(links: &[Link], addresses: &[Address]) -> BTreeMap<u32, Entry> {
        entries(links.to_vec(), addresses, &patterns("eth*", "veth*", "vxlan*"), Forwarding::Kernel)
    }

    #[test]
    fn the_source_is_the_first_preferred_global_address() {
        let mut temporary = address(2, "2001:db8::7");
        temporary.preferred = false;
        let table = build(
            &[link(2, "eth0")],
            &[
                address(2, "fe80::1"),
                temporary,
                address(2, "2001:db8::1"),
                address(2, "192.0.2.1"),
                address(2, "192.0.2.2"),
            ],
        );
        let device = table[&2].value().unwrap();
        assert_eq!((device.class, device.mtu, device.v4), (device_class::UPLINK, 1500, [192, 0, 2, 1]));
        assert_eq!(IpAddr::from(device.v6), "2001:db8::1".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn a_device_without_an_address_borrows_one_of_the_uplinks() {
        let links = [link(1, "lo"), link(2, "eth0"), link(3, "veth1")];
        let on_uplink = [address(1, "198.51.100.9"), address(2, "fe80::1"), address(2, "192.0.2.1")];
        let v4 = |addresses: &[Address], index: u32| build(&links, addresses)[&index].value().unwrap().v4;
        assert_eq!(v4(&on_uplink, 3), [192, 0, 2, 1]);
        assert_eq!(v4(&on_uplink[..2], 3), [198, 51, 100, 9], "of the loopback device");
        assert_eq!(v4(&on_uplink[..2], 2), [198, 51, 100, 9]);
        assert_eq!(build(&links, &on_uplink)[&3].value().unwrap().v6, [0; 16]);
    }

    #[test]
    fn unmanaged_devices_count_only_with_an_address_and_loopback_never() {
        let table = build(
            &[link(1, "lo"), link(2, "veth1"), link(3, "dummy0"), link(4, "dummy1")],
            &[address(1, "127.0.0.1"), address(3, "10.0.0.1")],
        );
        let classes: Vec<_> = table.values().map(|entry| entry.value().map(|device| device.class)).collect();
        assert_eq!(classes, [None, Some(device_class::WORKLOAD), Some(device_class::OTHER), None]);
    }

    #[test]
    fn a_port_of_a_bond_is_left_to_the_bond() {
        let port = Link { port_of: Some("bond".into()), ..link(2, "eth0") };
        let table = build(&[port, link(3, "eth1")], &[]);
        assert!(!table[&2].managed() && table[&2].value().is_none());
        assert!(table[&2].unfit().unwrap().contains("bond"));
        assert!(table[&3].managed() && table[&3].unfit().is_none());
    }

    #[test]
    fn only_native_xdp_on_an_uplink_makes_a_target() {
        let mut table = build(&[link(2, "eth0")], &[]);
        let entry = table.get_mut(&2).unwrap();
        assert_eq!(entry.value().unwrap().flags, 0);
        entry.xdp.place = Some(Place::Generic);
        assert_eq!(entry.value().unwrap().flags, 0);
        entry.xdp.place = Some(Place::Native);
        assert_eq!(entry.value().unwrap().flags, device_flags::XDP_TARGET);
    }

    #[test]
    fn packets_go_past_the_stack_only_where_both_ends_of_a_device_are_known() {
        let veth = Link { kind: Some("veth".into()), peer_elsewhere: true, ..link(3, "veth1") };
        let links = [
            link(2, "eth0"),
            link(7, "vxlan0"),
            veth.clone(),
            Link { index: 4, peer_elsewhere: false, ..veth.clone() },
            Link { index: 5, enslaved: true, ..veth.clone() },
            Link { index: 6, kind: Some("bridge".into()), ..veth },
        ];
        for (forwarding, expected) in [(Forwarding::Fast, vec![2, 3, 7]), (Forwarding::Kernel, vec![])] {
            let table = entries(links.to_vec(), &[], &patterns("eth*", "veth*", "vxlan*"), forwarding);
            let fast = table.iter().filter(|(_, entry)| entry.value().unwrap().flags & device_flags::FAST != 0);
            assert_eq!(fast.map(|(index, _)| *index).collect::<Vec<_>>(), expected, "{forwarding:?}");
        }
    }

    #[test]
    fn node_addresses_leave_out_loopback_link_local_and_workload_devices() {
        let links = [link(1, "lo"), link(2, "eth0"), link(3, "veth1")];
        let addresses = [
            address(1, "127.0.0.1"),
            address(1, "198.51.100.9"),
            address(2, "fe80::1"),
            address(2, "169.254.1.1"),
            address(2, "192.0.2.1"),
            address(2, "2001:db8::1"),
            address(3, "10.0.0.1"),
        ];
        let texts = |table: &BTreeMap<u32, Entry>| -> Vec<String> {
            node_addresses(table).iter().map(ToString::to_string).collect()
        };
        assert_eq!(texts(&build(&links, &addresses)), ["192.0.2.1", "198.51.100.9", "2001:db8::1"]);
        assert_eq!(texts(&build(&links, &addresses[6..])), ["10.0.0.1"]);
    }
}
