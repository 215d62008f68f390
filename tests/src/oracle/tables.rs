//! What the maps hold: written to both compilations.

use std::{
    collections::HashMap as StdHashMap,
    hash::Hash,
    net::{IpAddr, SocketAddr},
    ops::ControlFlow,
};

use aya::maps::{Array, HashMap, Map, PerCpuArray, PerCpuValues};
use svc_agent::{datapath::program, sys::batch};
use svc_common::{
    env::Table,
    family::{V4, V6},
    known,
    maps::{
        Affinity, AffinityKey, Backend, Clock, Config, Datagram, DatagramKey, Device, Flow, Frontend, FrontendKey,
        Held, HeldKey, MapType, SLOTS_PER_ROW, Selection, ServiceCounters, SlotRow, Tuple, backend_flags, device_flags,
        frontend_flags, spec,
    },
    net::Be16,
    reason::Reason,
};

use super::{NODE, Oracle};

impl Oracle {
    /// Writes an established flow.
    pub fn set_flow_v4(&mut self, key: &Tuple<[u8; 4]>, flow: &Flow<[u8; 4]>) {
        self.memory.v4.flows.insert(*key, *flow);
        self.put(spec::FLOWS_V4.name, key, flow);
    }

    /// Writes a half-open flow.
    pub fn set_embryo_v4(&mut self, key: &Tuple<[u8; 4]>, flow: &Flow<[u8; 4]>) {
        self.memory.v4.embryos.insert(*key, *flow);
        self.know(SocketAddr::from((key.src, key.sport.to_host())));
        self.know(SocketAddr::from((key.dst, key.dport.to_host())));
        self.put(spec::EMBRYOS_V4.name, key, flow);
    }

    /// The same for IPv6.
    pub fn set_flow_v6(&mut self, key: &Tuple<[u8; 16]>, flow: &Flow<[u8; 16]>) {
        self.memory.v6.flows.insert(*key, *flow);
        self.put(spec::FLOWS_V6.name, key, flow);
    }

    /// Removes a flow from one table, as an eviction or the agent does.
    pub fn remove_flow_v4(&mut self, table: Table, key: &Tuple<[u8; 4]>) {
        let tables = &mut self.memory.v4;
        let (flows, name) = match table {
            Table::Established => (&mut tables.flows, spec::FLOWS_V4.name),
            Table::Embryo => (&mut tables.embryos, spec::EMBRYOS_V4.name),
        };
        if flows.remove(key).is_some() {
            self.take::<_, Flow<[u8; 4]>>(name, key);
        }
    }

    /// The same for IPv6.
    pub fn remove_flow_v6(&mut self, table: Table, key: &Tuple<[u8; 16]>) {
        let tables = &mut self.memory.v6;
        let (flows, name) = match table {
            Table::Established => (&mut tables.flows, spec::FLOWS_V6.name),
            Table::Embryo => (&mut tables.embryos, spec::EMBRYOS_V6.name),
        };
        if flows.remove(key).is_some() {
            self.take::<_, Flow<[u8; 16]>>(name, key);
        }
    }

    /// Empties the half-open tables.
    pub fn forget_embryos(&mut self) {
        self.memory.v4.embryos.clear();
        self.memory.v6.embryos.clear();
        self.forget::<Tuple<[u8; 4]>, Flow<[u8; 4]>>(spec::EMBRYOS_V4.name);
        self.forget::<Tuple<[u8; 16]>, Flow<[u8; 16]>>(spec::EMBRYOS_V6.name);
    }

    /// Sets the clock of both; it stands still otherwise.
    pub fn set_clock(&mut self, now: Clock) {
        self.memory.now = now;
        self.put_at(program::CLOCK_BASE, 0, u64::from(now));
    }

    /// Lets time pass for both.
    pub fn advance(&mut self, seconds: u32) {
        self.set_clock(self.memory.now.wrapping_add(seconds));
    }

    /// Writes `CONFIG`.
    pub fn set_config(&mut self, config: Config) {
        self.memory.config = config;
        self.put_at(spec::CONFIG.name, 0, config);
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
        self.put(spec::DEVICES.name, &ifindex, &device);
    }

    /// Has connections from and to these devices forwarded past the stack.
    pub fn set_fast(&mut self, devices: &[&str]) {
        for device in devices {
            let ifindex = self.ifindex(device);
            let mut value = self.memory.devices[&ifindex];
            value.flags |= device_flags::FAST;
            self.set_device(ifindex, value);
        }
    }

    /// The reverse of [`Oracle::set_fast`].
    pub fn set_slow(&mut self, devices: &[&str]) {
        for device in devices {
            let ifindex = self.ifindex(device);
            let mut value = self.memory.devices[&ifindex];
            value.flags &= !device_flags::FAST;
            self.set_device(ifindex, value);
        }
    }

    /// Changes the flags of a backend of either family.
    pub fn change_backend_flags(&mut self, id: u32, change: impl Fn(u16) -> u16) {
        if let Some(mut backend) = self.memory.v4.backends.get(&id).copied() {
            backend.flags = change(backend.flags);
            self.memory.v4.backends.insert(id, backend);
            self.put_at(spec::BACKENDS_V4.name, id, backend);
        }
        if let Some(mut backend) = self.memory.v6.backends.get(&id).copied() {
            backend.flags = change(backend.flags);
            self.memory.v6.backends.insert(id, backend);
            self.put_at(spec::BACKENDS_V6.name, id, backend);
        }
    }

    /// Writes a frontend whose two scopes have these selections.
    pub fn set_frontend(&mut self, vip: &str, proto: u8, service: u32, external: u32, internal: u32) {
        let frontend = Frontend { service, external, internal, flags: 0, affinity_s: 0 };
        self.put_frontend(vip, proto, frontend);
    }

    /// Writes a frontend and the row of its address; the addresses of the node are no VIPs.
    pub fn put_frontend(&mut self, vip: &str, proto: u8, frontend: Frontend) {
        let ip = vip.parse::<SocketAddr>().expect("an address and port").ip();
        let node = [NODE.0, NODE.1].contains(&ip.to_string().as_str());
        let flags =
            if node { frontend_flags::NODE_PORT } else { frontend.flags & frontend_flags::KIND | frontend_flags::VIP };
        self.put_row(&SocketAddr::from((ip, 0)).to_string(), 0, Frontend { flags, ..Frontend::default() });
        self.put_row(vip, proto, frontend);
    }

    /// Writes a row of the frontend tables; port and protocol zero are the address itself.
    pub fn put_row(&mut self, vip: &str, proto: u8, frontend: Frontend) {
        let vip: SocketAddr = vip.parse().expect("an address and port");
        match (vip.port(), proto) {
            (0, 0) if frontend.flags & frontend_flags::VIP != 0 => self.know_vip(vip.ip()),
            _ => self.know(vip),
        }
        match vip {
            SocketAddr::V4(vip) => {
                let key = FrontendKey { addr: vip.ip().octets(), port: Be16::from_host(vip.port()), proto, pad: 0 };
                self.memory.v4.frontends.insert(key, frontend);
                self.put(spec::FRONTENDS_V4.name, &key, &frontend);
            }
            SocketAddr::V6(vip) => {
                let key = FrontendKey { addr: vip.ip().octets(), port: Be16::from_host(vip.port()), proto, pad: 0 };
                self.memory.v6.frontends.insert(key, frontend);
                self.put(spec::FRONTENDS_V6.name, &key, &frontend);
            }
        }
    }

    /// Has the programs know an endpoint that is dialled or answers.
    pub(super) fn know(&mut self, endpoint: SocketAddr) {
        let bit = known::bit(Be16::from_host(endpoint.port()));
        match endpoint.ip() {
            IpAddr::V4(addr) => self.know_bits(known::place::<V4>(&addr.octets()), bit),
            IpAddr::V6(addr) => self.know_bits(known::place::<V6>(&addr.octets()), bit),
        }
    }

    /// Has the programs know an address of which every port is answered for.
    fn know_vip(&mut self, addr: IpAddr) {
        match addr {
            IpAddr::V4(addr) => {
                let addr = addr.octets();
                self.know_bits(known::place::<V4>(&addr), known::any_port::<V4>(&addr));
            }
            IpAddr::V6(addr) => {
                let addr = addr.octets();
                self.know_bits(known::place::<V6>(&addr), known::any_port::<V6>(&addr));
            }
        }
    }

    /// Sets bits of the filter. The host asks the tables instead.
    fn know_bits(&mut self, place: u32, bits: u64) {
        let word = self.known.entry(place).or_default();
        *word |= bits;
        let word = *word;
        self.put_at(spec::KNOWN.name, place, word);
    }

    /// Has the programs know nothing.
    pub fn forget_known(&mut self) {
        for place in std::mem::take(&mut self.known).into_keys() {
            self.put_at(spec::KNOWN.name, place, 0_u64);
        }
    }

    /// Removes a frontend if it is there, and the row of its address if that was its last one.
    pub fn remove_frontend(&mut self, vip: &str, proto: u8) {
        self.remove_row(vip, proto);
        let ip = vip.parse::<SocketAddr>().expect("an address and port").ip();
        let rest = match ip {
            IpAddr::V4(ip) => self.memory.v4.frontends.keys().filter(|key| key.addr == ip.octets()).count(),
            IpAddr::V6(ip) => self.memory.v6.frontends.keys().filter(|key| key.addr == ip.octets()).count(),
        };
        if rest == 1 {
            self.remove_row(&SocketAddr::from((ip, 0)).to_string(), 0);
        }
    }

    fn remove_row(&mut self, vip: &str, proto: u8) {
        match vip.parse().expect("an address and port") {
            SocketAddr::V4(vip) => {
                let key = FrontendKey { addr: vip.ip().octets(), port: Be16::from_host(vip.port()), proto, pad: 0 };
                if self.memory.v4.frontends.remove(&key).is_some() {
                    self.take::<_, Frontend>(spec::FRONTENDS_V4.name, &key);
                }
            }
            SocketAddr::V6(vip) => {
                let key = FrontendKey { addr: vip.ip().octets(), port: Be16::from_host(vip.port()), proto, pad: 0 };
                if self.memory.v6.frontends.remove(&key).is_some() {
                    self.take::<_, Frontend>(spec::FRONTENDS_V6.name, &key);
                }
            }
        }
    }

    /// Writes a backend that new connections may get.
    pub fn set_backend(&mut self, id: u32, service: u32, addr: &str) {
        let sets = backend_flags::CLUSTER_SET | backend_flags::LOCAL_SET;
        let ready = backend_flags::PRESENT | backend_flags::READY | backend_flags::SERVING;
        let flags = ready | backend_flags::IN_CLUSTER | sets;
        let addr = addr.parse().expect("an address and port");
        self.know(addr);
        match addr {
            SocketAddr::V4(addr) => {
                let port = Be16::from_host(addr.port());
                let backend = Backend { addr: addr.ip().octets(), port, flags, service };
                self.memory.v4.backends.insert(id, backend);
                self.put_at(spec::BACKENDS_V4.name, id, backend);
            }
            SocketAddr::V6(addr) => {
                let port = Be16::from_host(addr.port());
                let backend = Backend { addr: addr.ip().octets(), port, flags, service };
                self.memory.v6.backends.insert(id, backend);
                self.put_at(spec::BACKENDS_V6.name, id, backend);
            }
        }
    }

    /// Frees a backend's id in both families.
    pub fn remove_backend(&mut self, id: u32) {
        self.memory.v4.backends.remove(&id);
        self.memory.v6.backends.remove(&id);
        self.put_at(spec::BACKENDS_V4.name, id, Backend::<[u8; 4]>::default());
        self.put_at(spec::BACKENDS_V6.name, id, Backend::<[u8; 16]>::default());
    }

    /// Writes a table of these backend ids at a new place and points a selection to it.
    pub fn set_selection(&mut self, index: u32, slots: &[u32]) {
        let first = self.next_row;
        for chunk in slots.chunks(SLOTS_PER_ROW as usize) {
            let mut row = SlotRow::default();
            row.0[..chunk.len()].copy_from_slice(chunk);
            let at = self.next_row;
            self.memory.rows.insert(at, row);
            self.put_at(spec::SLOTS.name, at, row);
            self.next_row += 1;
        }
        self.set_empty_selection(index, Selection::new(first * SLOTS_PER_ROW, slots.len() as u32));
    }

    /// Writes a selection word.
    pub fn set_empty_selection(&mut self, index: u32, selection: Selection) {
        self.memory.selections.insert(index, selection);
        self.put_at(spec::SELECTIONS.name, index, selection);
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
        self.forget::<Tuple<[u8; 4]>, Flow<[u8; 4]>>(spec::EMBRYOS_V4.name);
        self.forget::<Tuple<[u8; 16]>, Flow<[u8; 16]>>(spec::EMBRYOS_V6.name);
        self.forget::<Tuple<[u8; 4]>, Flow<[u8; 4]>>(spec::FLOWS_V4.name);
        self.forget::<Tuple<[u8; 16]>, Flow<[u8; 16]>>(spec::FLOWS_V6.name);
        self.forget::<AffinityKey<[u8; 4]>, Affinity>(spec::AFFINITY_V4.name);
        self.forget::<AffinityKey<[u8; 16]>, Affinity>(spec::AFFINITY_V6.name);
        self.memory.v4.affinity.clear();
        self.memory.v6.affinity.clear();
        self.forget::<FrontendKey<[u8; 4]>, Frontend>(spec::FRONTENDS_V4.name);
        self.forget::<FrontendKey<[u8; 16]>, Frontend>(spec::FRONTENDS_V6.name);
        self.forget::<DatagramKey<[u8; 4]>, Datagram>(spec::FRAGMENTS_V4.name);
        self.forget::<DatagramKey<[u8; 16]>, Datagram>(spec::FRAGMENTS_V6.name);
        self.forget::<HeldKey<[u8; 4]>, Held>(spec::HELD_V4.name);
        self.forget::<HeldKey<[u8; 16]>, Held>(spec::HELD_V6.name);
        self.memory.v4.datagrams.clear();
        self.memory.v6.datagrams.clear();
        self.memory.v4.held.clear();
        self.memory.v6.held.clear();
        self.memory.again.clear();
        for flows in [&mut self.memory.v4.flows, &mut self.memory.v4.embryos] {
            flows.clear();
        }
        for flows in [&mut self.memory.v6.flows, &mut self.memory.v6.embryos] {
            flows.clear();
        }
        self.memory.v4.frontends.clear();
        self.memory.v6.frontends.clear();
        let ids: Vec<_> = self.memory.v4.backends.keys().chain(self.memory.v6.backends.keys()).copied().collect();
        for id in ids {
            self.remove_backend(id);
        }
        self.forget_known();
        self.forget_ranges();
        self.forget_service_networks();
        self.next_row = 0;
        self.set_clock(0);
        self.reset_counters();
        self.memory.touched.clear();
    }

    fn reset_counters(&mut self) {
        let services: Vec<_> = self.memory.services.keys().copied().collect();
        self.memory.counters.clear();
        self.memory.services.clear();
        let Some(kernel) = &mut self.kernel else { return };
        let cpus = aya::util::nr_cpus().map_err(|(_, error)| error).expect("the number of CPUs");
        let map = kernel.map_mut(spec::COUNTERS.name).expect("COUNTERS");
        let mut counters: PerCpuArray<_, u64> = PerCpuArray::try_from(map).expect("COUNTERS");
        for reason in Reason::ALL {
            let zero = PerCpuValues::try_from(vec![0; cpus]).expect("one value per CPU");
            counters.set(*reason as u32, zero, 0).expect("COUNTERS");
        }
        let map = kernel.map_mut(spec::SVC_COUNTERS.name).expect("SVC_COUNTERS");
        let mut counters: PerCpuArray<_, ServiceCounters> = PerCpuArray::try_from(map).expect("SVC_COUNTERS");
        for service in services {
            let zero = PerCpuValues::try_from(vec![ServiceCounters::default(); cpus]).expect("one value per CPU");
            counters.set(service, zero, 0).expect("SVC_COUNTERS");
        }
    }

    /// Writes an element of a hash map of the kernel.
    pub(crate) fn put<K: aya::Pod, V: aya::Pod>(&mut self, name: &str, key: &K, value: &V) {
        if let Some(kernel) = &mut self.kernel {
            let map: Result<HashMap<_, K, V>, _> = HashMap::try_from(kernel.map_mut(name).expect(name));
            map.expect(name).insert(key, value, 0).expect(name);
        }
    }

    /// Removes an element of a hash map of the kernel.
    pub(super) fn take<K: aya::Pod, V: aya::Pod>(&mut self, name: &str, key: &K) {
        if let Some(kernel) = &mut self.kernel {
            let map: Result<HashMap<_, K, V>, _> = HashMap::try_from(kernel.map_mut(name).expect(name));
            map.expect(name).remove(key).expect(name);
        }
    }

    /// Writes an element of an array of the kernel.
    pub(crate) fn put_at<V: aya::Pod>(&mut self, name: &str, index: u32, value: V) {
        if let Some(kernel) = &mut self.kernel {
            let map: Result<Array<_, V>, _> = Array::try_from(kernel.map_mut(name).expect(name));
            map.expect(name).set(index, value, 0).expect(name);
        }
    }

    /// Empties a hash map of the kernel.
    pub(super) fn forget<K: MapType + aya::Pod + Eq + Hash, V: MapType + aya::Pod>(&mut self, name: &str) {
        let Some(kernel) = &self.kernel else { return };
        let keys: Vec<K> = dump::<K, V>(kernel.map(name).expect(name)).into_keys().collect();
        for key in keys {
            self.take::<K, V>(name, &key);
        }
    }
}

/// The contents of a hash map.
pub(super) fn dump<K: MapType + Eq + Hash, V: MapType>(map: &Map) -> StdHashMap<K, V> {
    let (Map::HashMap(map) | Map::LruHashMap(map)) = map else { panic!("no hash map") };
    let mut entries = StdHashMap::new();
    batch::for_each(map.fd(), |key, value| {
        entries.insert(key, value);
        ControlFlow::Continue(())
    })
    .expect("a map that nobody else changes");
    entries
}
