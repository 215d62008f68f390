//! What the maps hold: written to both compilations, and compared.

use std::{collections::HashMap as StdHashMap, hash::Hash, net::SocketAddr};

use aya::maps::{Array, HashMap, MapData, PerCpuArray, PerCpuValues};
use svc_common::{
    maps::{
        Backend, Config, Device, Flow, Frontend, FrontendKey, SLOTS_PER_ROW, Selection, ServiceCounters, SlotRow,
        Tuple, backend_flags, spec,
    },
    net::Be16,
    reason::Reason,
};

use super::Oracle;

impl Oracle {
    /// Writes an established flow.
    pub fn set_flow_v4(&mut self, key: &Tuple<[u8; 4]>, flow: &Flow<[u8; 4]>) {
        self.memory.v4.flows.insert(*key, *flow);
        self.hash(spec::FLOWS_V4.name).insert(*key, *flow, 0).expect("FLOWS_V4");
    }

    /// The same for IPv6.
    pub fn set_flow_v6(&mut self, key: &Tuple<[u8; 16]>, flow: &Flow<[u8; 16]>) {
        self.memory.v6.flows.insert(*key, *flow);
        self.hash(spec::FLOWS_V6.name).insert(*key, *flow, 0).expect("FLOWS_V6");
    }

    /// Empties the half-open tables of the kernel.
    pub fn forget_embryos(&mut self) -> anyhow::Result<()> {
        forget::<Tuple<[u8; 4]>, Flow<[u8; 4]>>(self.hash(spec::EMBRYOS_V4.name))?;
        forget::<Tuple<[u8; 16]>, Flow<[u8; 16]>>(self.hash(spec::EMBRYOS_V6.name))
    }

    fn array<T: aya::Pod>(&mut self, name: &str) -> Array<&mut MapData, T> {
        Array::try_from(self.kernel.map_mut(name).expect(name)).expect(name)
    }

    fn hash<K: aya::Pod, V: aya::Pod>(&mut self, name: &str) -> HashMap<&mut MapData, K, V> {
        HashMap::try_from(self.kernel.map_mut(name).expect(name)).expect(name)
    }

    /// Writes `CONFIG`.
    pub fn set_config(&mut self, config: Config) {
        self.memory.config = config;
        self.array(spec::CONFIG.name).set(0, config, 0).expect("CONFIG");
    }

    /// Raises the epoch, as the agent does after a change.
    pub fn raise_epoch(&mut self) {
        let mut config = self.memory.config;
        config.epoch += 1;
        self.set_config(config);
    }

    /// Writes a device.
    pub fn set_device(&mut self, ifindex: u32, device: Device) {
        self.memory.devices.insert(ifindex, device);
        self.hash(spec::DEVICES.name).insert(ifindex, device, 0).expect("DEVICES");
    }

    /// Writes a frontend whose two scopes have these selections.
    pub fn set_frontend(&mut self, vip: &str, proto: u8, service: u32, external: u32, internal: u32) {
        let frontend = Frontend { service, external, internal, flags: 0, affinity_s: 0 };
        match vip.parse().expect("an address and port") {
            SocketAddr::V4(vip) => {
                let key = FrontendKey { addr: vip.ip().octets(), port: Be16::from_host(vip.port()), proto, pad: 0 };
                self.memory.v4.frontends.insert(key, frontend);
                self.hash(spec::FRONTENDS_V4.name).insert(key, frontend, 0).expect("FRONTENDS_V4");
            }
            SocketAddr::V6(vip) => {
                let key = FrontendKey { addr: vip.ip().octets(), port: Be16::from_host(vip.port()), proto, pad: 0 };
                self.memory.v6.frontends.insert(key, frontend);
                self.hash(spec::FRONTENDS_V6.name).insert(key, frontend, 0).expect("FRONTENDS_V6");
            }
        }
    }

    /// Removes a frontend.
    pub fn remove_frontend(&mut self, vip: &str, proto: u8) {
        match vip.parse().expect("an address and port") {
            SocketAddr::V4(vip) => {
                let key = FrontendKey { addr: vip.ip().octets(), port: Be16::from_host(vip.port()), proto, pad: 0 };
                self.memory.v4.frontends.remove(&key);
                self.hash::<_, Frontend>(spec::FRONTENDS_V4.name).remove(&key).expect("FRONTENDS_V4");
            }
            SocketAddr::V6(vip) => {
                let key = FrontendKey { addr: vip.ip().octets(), port: Be16::from_host(vip.port()), proto, pad: 0 };
                self.memory.v6.frontends.remove(&key);
                self.hash::<_, Frontend>(spec::FRONTENDS_V6.name).remove(&key).expect("FRONTENDS_V6");
            }
        }
    }

    /// Writes a backend.
    pub fn set_backend(&mut self, id: u32, service: u32, addr: &str) {
        let flags = backend_flags::PRESENT | backend_flags::READY | backend_flags::SERVING;
        match addr.parse().expect("an address and port") {
            SocketAddr::V4(addr) => {
                let port = Be16::from_host(addr.port());
                let backend = Backend { addr: addr.ip().octets(), port, flags, service };
                self.memory.v4.backends.insert(id, backend);
                self.array(spec::BACKENDS_V4.name).set(id, backend, 0).expect("BACKENDS_V4");
            }
            SocketAddr::V6(addr) => {
                let port = Be16::from_host(addr.port());
                let backend = Backend { addr: addr.ip().octets(), port, flags, service };
                self.memory.v6.backends.insert(id, backend);
                self.array(spec::BACKENDS_V6.name).set(id, backend, 0).expect("BACKENDS_V6");
            }
        }
    }

    /// Frees a backend's id in both families.
    pub fn remove_backend(&mut self, id: u32) {
        self.memory.v4.backends.remove(&id);
        self.memory.v6.backends.remove(&id);
        self.array(spec::BACKENDS_V4.name).set(id, Backend::<[u8; 4]>::default(), 0).expect("BACKENDS_V4");
        self.array(spec::BACKENDS_V6.name).set(id, Backend::<[u8; 16]>::default(), 0).expect("BACKENDS_V6");
    }

    /// Writes a table of these backend ids at a new place and points a selection to it.
    pub fn set_selection(&mut self, index: u32, slots: &[u32]) {
        let first = self.next_row;
        for chunk in slots.chunks(SLOTS_PER_ROW as usize) {
            let mut row = SlotRow::default();
            row.0[..chunk.len()].copy_from_slice(chunk);
            let at = self.next_row;
            self.memory.rows.insert(at, row);
            self.array(spec::SLOTS.name).set(at, row, 0).expect("SLOTS");
            self.next_row += 1;
        }
        self.set_empty_selection(index, Selection::new(first * SLOTS_PER_ROW, slots.len() as u32));
    }

    /// Writes a selection word.
    pub fn set_empty_selection(&mut self, index: u32, selection: Selection) {
        self.memory.selections.insert(index, selection);
        self.array(spec::SELECTIONS.name).set(index, selection, 0).expect("SELECTIONS");
    }

    /// One service with one frontend per VIP and one table per call; service id, selection index and the first
    /// backend id are the same number.
    pub fn serve(&mut self, id: u32, proto: u8, vips: &[&str], backends: &[&str]) {
        for (offset, backend) in backends.iter().enumerate() {
            self.set_backend(id + offset as u32, id, backend);
        }
        let slots: Vec<_> = (0..backends.len() as u32).map(|offset| id + offset).collect();
        self.set_selection(id, &slots);
        for vip in vips {
            self.set_frontend(vip, proto, id, id, id);
        }
    }

    /// Empties every table that a history fills, counters included, in both.
    pub fn reset(&mut self) {
        self.forget_embryos().expect("EMBRYOS");
        forget::<Tuple<[u8; 4]>, Flow<[u8; 4]>>(self.hash(spec::FLOWS_V4.name)).expect("FLOWS_V4");
        forget::<Tuple<[u8; 16]>, Flow<[u8; 16]>>(self.hash(spec::FLOWS_V6.name)).expect("FLOWS_V6");
        forget::<FrontendKey<[u8; 4]>, Frontend>(self.hash(spec::FRONTENDS_V4.name)).expect("FRONTENDS_V4");
        forget::<FrontendKey<[u8; 16]>, Frontend>(self.hash(spec::FRONTENDS_V6.name)).expect("FRONTENDS_V6");
        for tables in [&mut self.memory.v4.flows, &mut self.memory.v4.embryos] {
            tables.clear();
        }
        for tables in [&mut self.memory.v6.flows, &mut self.memory.v6.embryos] {
            tables.clear();
        }
        self.memory.v4.frontends.clear();
        self.memory.v6.frontends.clear();
        let ids: Vec<_> = self.memory.v4.backends.keys().chain(self.memory.v6.backends.keys()).copied().collect();
        for id in ids {
            self.remove_backend(id);
        }
        self.next_row = 0;
        let cpus = aya::util::nr_cpus().map_err(|(_, error)| error).expect("the number of CPUs");
        let mut counters: PerCpuArray<_, u64> =
            PerCpuArray::try_from(self.kernel.map_mut(spec::COUNTERS.name).expect("COUNTERS")).expect("COUNTERS");
        for reason in Reason::ALL {
            let zero = PerCpuValues::try_from(vec![0; cpus]).expect("one value per CPU");
            counters.set(*reason as u32, zero, 0).expect("COUNTERS");
        }
        let map = self.kernel.map_mut(spec::SVC_COUNTERS.name).expect("SVC_COUNTERS");
        let mut counters: PerCpuArray<_, ServiceCounters> = PerCpuArray::try_from(map).expect("SVC_COUNTERS");
        for service in self.memory.services.keys() {
            let zero = PerCpuValues::try_from(vec![ServiceCounters::default(); cpus]).expect("one value per CPU");
            counters.set(*service, zero, 0).expect("SVC_COUNTERS");
        }
        self.memory.counters.clear();
        self.memory.services.clear();
    }

    /// Compares flow tables and counters.
    #[track_caller]
    pub fn assert_equal_worlds(&mut self) {
        let flows = dump::<Tuple<[u8; 4]>, Flow<[u8; 4]>>(self.hash(spec::FLOWS_V4.name));
        assert_eq!(flows, self.memory.v4.flows, "FLOWS_V4: kernel, then host");
        let flows = dump::<Tuple<[u8; 16]>, Flow<[u8; 16]>>(self.hash(spec::FLOWS_V6.name));
        assert_eq!(flows, self.memory.v6.flows, "FLOWS_V6: kernel, then host");
        let flows = dump::<Tuple<[u8; 4]>, Flow<[u8; 4]>>(self.hash(spec::EMBRYOS_V4.name));
        assert_eq!(flows, self.memory.v4.embryos, "EMBRYOS_V4: kernel, then host");
        let flows = dump::<Tuple<[u8; 16]>, Flow<[u8; 16]>>(self.hash(spec::EMBRYOS_V6.name));
        assert_eq!(flows, self.memory.v6.embryos, "EMBRYOS_V6: kernel, then host");

        let counters: PerCpuArray<_, u64> =
            PerCpuArray::try_from(self.kernel.map(spec::COUNTERS.name).expect("COUNTERS")).expect("COUNTERS");
        for reason in Reason::ALL {
            let sum: u64 = counters.get(&(*reason as u32), 0).expect("COUNTERS").iter().sum();
            assert_eq!(sum, self.memory.counters.get(reason).copied().unwrap_or(0), "counter of {reason:?}");
        }
        let map = self.kernel.map(spec::SVC_COUNTERS.name).expect("SVC_COUNTERS");
        let counters: PerCpuArray<_, ServiceCounters> = PerCpuArray::try_from(map).expect("SVC_COUNTERS");
        for (service, expected) in &self.memory.services {
            let mut sum = ServiceCounters::default();
            for counters in counters.get(service, 0).expect("SVC_COUNTERS").iter() {
                sum.packets += counters.packets;
                sum.bytes += counters.bytes;
                sum.reply_packets += counters.reply_packets;
                sum.reply_bytes += counters.reply_bytes;
                sum.new_flows += counters.new_flows;
            }
            assert_eq!(sum, *expected, "counters of service {service}");
        }
    }

    /// Changes both copies of every flow and embryo of IPv4, to make time pass or to break a table on purpose.
    pub fn edit_flows_v4(&mut self, edit: impl Fn(&Tuple<[u8; 4]>, &mut Flow<[u8; 4]>) -> bool) {
        for (name, established) in [(spec::FLOWS_V4.name, true), (spec::EMBRYOS_V4.name, false)] {
            let tables = &mut self.memory.v4;
            let table = if established { &mut tables.flows } else { &mut tables.embryos };
            let mut changed = Vec::new();
            table.retain(|key, flow| {
                let keep = edit(key, flow);
                changed.push((*key, keep.then_some(*flow)));
                keep
            });
            let mut map = self.hash::<Tuple<[u8; 4]>, Flow<[u8; 4]>>(name);
            for (key, flow) in changed {
                match flow {
                    Some(flow) => map.insert(key, flow, 0).expect(name),
                    None => map.remove(&key).expect(name),
                }
            }
        }
    }
}

fn dump<K: aya::Pod + Eq + Hash, V: aya::Pod>(map: HashMap<&mut MapData, K, V>) -> StdHashMap<K, V> {
    map.iter().map(|entry| entry.expect("a map that nobody else changes")).collect()
}

fn forget<K: aya::Pod, V: aya::Pod>(mut map: HashMap<&mut MapData, K, V>) -> anyhow::Result<()> {
    let keys = map.keys().collect::<Result<Vec<_>, _>>()?;
    for key in keys {
        map.remove(&key)?;
    }
    Ok(())
}
