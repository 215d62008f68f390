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

    /// Adds a source range of a service.
    pub fn add_range(&mut self, service: u32, addr: &str, bits: u8) {
        match addr.parse().expect("an address") {
            IpAddr::V4(addr) => {
                self.memory.v4.ranges.insert((service, addr.octets(), bits));
                let key = Key::new(32 + u32::from(bits), RangeKey::new(service, addr.octets()));
                if let Some(kernel) = &mut self.kernel {
                    let map = kernel.map_mut(spec::RANGES_V4.name).expect("RANGES_V4");
                    LpmTrie::try_from(map).expect("a trie").insert(&key, 1u32, 0).expect("RANGES_V4");
                }
            }
            IpAddr::V6(addr) => {
                self.memory.v6.ranges.insert((service, addr.octets(), bits));
                let key = Key::new(32 + u32::from(bits), RangeKey::new(service, addr.octets()));
                if let Some(kernel) = &mut self.kernel {
                    let map = kernel.map_mut(spec::RANGES_V6.name).expect("RANGES_V6");
                    LpmTrie::try_from(map).expect("a trie").insert(&key, 1u32, 0).expect("RANGES_V6");
                }
            }
        }
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
