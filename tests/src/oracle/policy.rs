//! What decides about new connections besides frontends and selections: networks, source ranges, affinity.

use std::net::IpAddr;

use aya::maps::{LpmTrie, lpm_trie::Key};
use svc_common::maps::{Cidr, Cidrs, RangeKey, backend_flags, spec};

use super::Oracle;

impl Oracle {
    /// Sets where ClusterIPs are taken from: one network of each family, by address and mask.
    pub fn set_service_networks(&mut self, v4: ([u8; 4], [u8; 4]), v6: ([u8; 16], [u8; 16])) {
        let mut cidrs = Cidrs::default();
        cidrs.0[2] = Cidr { addr: v4.0, mask: v4.1 };
        self.memory.v4.service_cidrs = cidrs;
        self.put_at(spec::SVC_CIDRS_V4.name, 0, cidrs);
        let mut cidrs = Cidrs::default();
        cidrs.0[3] = Cidr { addr: v6.0, mask: v6.1 };
        self.memory.v6.service_cidrs = cidrs;
        self.put_at(spec::SVC_CIDRS_V6.name, 0, cidrs);
    }

    /// Forgets them.
    pub(super) fn forget_service_networks(&mut self) {
        self.memory.v4.service_cidrs = Cidrs::default();
        self.put_at(spec::SVC_CIDRS_V4.name, 0, Cidrs::<[u8; 4]>::default());
        self.memory.v6.service_cidrs = Cidrs::default();
        self.put_at(spec::SVC_CIDRS_V6.name, 0, Cidrs::<[u8; 16]>::default());
    }

    /// Adds a source range of a service.
    pub fn add_range(&mut self, service: u32, addr: &str, bits: u8) {
        self.set_range(service, addr.parse().expect("an address"), bits, true);
    }

    /// Adds or removes a source range of a service.
    pub fn set_range(&mut self, service: u32, addr: IpAddr, bits: u8, present: bool) {
        match addr {
            IpAddr::V4(addr) => {
                let (addr, ranges) = (addr.octets(), &mut self.memory.v4.ranges);
                let range = (service, addr, bits);
                if if present { ranges.insert(range) } else { ranges.remove(&range) } {
                    self.put_range(spec::RANGES_V4.name, RangeKey::new(service, addr), bits, present);
                }
            }
            IpAddr::V6(addr) => {
                let (addr, ranges) = (addr.octets(), &mut self.memory.v6.ranges);
                let range = (service, addr, bits);
                if if present { ranges.insert(range) } else { ranges.remove(&range) } {
                    self.put_range(spec::RANGES_V6.name, RangeKey::new(service, addr), bits, present);
                }
            }
        }
    }

    /// Removes every source range.
    pub(super) fn forget_ranges(&mut self) {
        for (service, addr, bits) in self.memory.v4.ranges.clone() {
            self.set_range(service, addr.into(), bits, false);
        }
        for (service, addr, bits) in self.memory.v6.ranges.clone() {
            self.set_range(service, addr.into(), bits, false);
        }
    }

    fn put_range<A>(&mut self, name: &str, range: RangeKey<A>, bits: u8, present: bool)
    where
        RangeKey<A>: aya::Pod,
    {
        let Some(kernel) = &mut self.kernel else { return };
        let map: Result<LpmTrie<_, RangeKey<A>, u32>, _> = LpmTrie::try_from(kernel.map_mut(name).expect(name));
        let (mut map, key) = (map.expect(name), Key::new(RangeKey::<A>::SERVICE_BITS + u32::from(bits), range));
        if present { map.insert(&key, 1, 0) } else { map.remove(&key) }.expect(name);
    }

    /// Says which sets a backend is in.
    pub fn set_membership(&mut self, id: u32, cluster: bool, local: bool) {
        let sets = backend_flags::CLUSTER_SET | backend_flags::LOCAL_SET;
        let set = |flags: u16| {
            let flags = flags & !sets;
            let flags = if cluster { flags | backend_flags::CLUSTER_SET } else { flags };
            if local { flags | backend_flags::LOCAL_SET } else { flags }
        };
        if let Some(backend) = self.memory.v4.backends.get_mut(&id) {
            backend.flags = set(backend.flags);
            let backend = *backend;
            self.put_at(spec::BACKENDS_V4.name, id, backend);
        }
        if let Some(backend) = self.memory.v6.backends.get_mut(&id) {
            backend.flags = set(backend.flags);
            let backend = *backend;
            self.put_at(spec::BACKENDS_V6.name, id, backend);
        }
    }
}
