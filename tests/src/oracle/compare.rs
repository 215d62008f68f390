//! What the maps hold, compared: those of the kernel with those of the host.

use std::{collections::HashMap as StdHashMap, fmt::Debug, hash::Hash};

use aya::maps::{HashMap, MapData, PerCpuArray};
use svc_common::{
    env::Table,
    maps::{Held, MapType, ServiceCounters, spec},
    reason::Reason,
};

use super::{Oracle, tables::dump};

impl Oracle {
    /// Compares flow tables and counters as a whole.
    #[track_caller]
    pub fn assert_equal_worlds(&self) {
        if let Some(difference) = self.difference() {
            panic!("{difference}");
        }
    }

    /// The first difference between the tables of the kernel and of the host.
    pub fn difference(&self) -> Option<String> {
        let (v4, v6) = (&self.memory.v4, &self.memory.v6);
        self.differs(spec::FLOWS_V4.name, &v4.flows)
            .or_else(|| self.differs(spec::FLOWS_V6.name, &v6.flows))
            .or_else(|| self.differs(spec::EMBRYOS_V4.name, &v4.embryos))
            .or_else(|| self.differs(spec::EMBRYOS_V6.name, &v6.embryos))
            .or_else(|| self.differs(spec::AFFINITY_V4.name, &v4.affinity))
            .or_else(|| self.differs(spec::AFFINITY_V6.name, &v6.affinity))
            .or_else(|| self.differs(spec::FRAGMENTS_V4.name, &v4.datagrams))
            .or_else(|| self.differs(spec::FRAGMENTS_V6.name, &v6.datagrams))
            .or_else(|| self.held_differ(spec::HELD_V4.name, &v4.held))
            .or_else(|| self.held_differ(spec::HELD_V6.name, &v6.held))
            .or_else(|| self.counters_differ(Reason::ALL))
            .or_else(|| self.services_differ(self.memory.services.keys()))
    }

    /// The first difference in what the host has touched since `memory.touched` was cleared. What the kernel alone has
    /// touched, [`Oracle::difference`] finds.
    pub fn difference_in_touched(&self) -> Option<String> {
        let touched = &self.memory.touched;
        let (v4, v6) = (&self.memory.v4, &self.memory.v6);
        let mut v4_keys = touched.v4.iter().enumerate().filter(|(at, entry)| !touched.v4[..*at].contains(entry));
        let mut v6_keys = touched.v6.iter().enumerate().filter(|(at, entry)| !touched.v6[..*at].contains(entry));
        v4_keys
            .find_map(|(_, (table, key))| match table {
                Table::Established => self.entry_differs(spec::FLOWS_V4.name, key, v4.flows.get(key)),
                Table::Embryo => self.entry_differs(spec::EMBRYOS_V4.name, key, v4.embryos.get(key)),
            })
            .or_else(|| {
                v6_keys.find_map(|(_, (table, key))| match table {
                    Table::Established => self.entry_differs(spec::FLOWS_V6.name, key, v6.flows.get(key)),
                    Table::Embryo => self.entry_differs(spec::EMBRYOS_V6.name, key, v6.embryos.get(key)),
                })
            })
            .or_else(|| self.counters_differ(&touched.reasons))
            .or_else(|| self.services_differ(&touched.services))
    }

    fn entry_differs<K, V>(&self, name: &str, key: &K, host: Option<&V>) -> Option<String>
    where
        K: aya::Pod + Debug,
        V: aya::Pod + Debug + PartialEq,
    {
        let map: HashMap<&MapData, K, V> = HashMap::try_from(self.kernel.as_ref()?.map(name)?).expect(name);
        let kernel = map.get(key, 0).ok();
        (kernel.as_ref() != host).then(|| format!("{name}[{key:?}]\n kernel: {kernel:?}\n   host: {host:?}"))
    }

    fn differs<K, V>(&self, name: &str, host: &StdHashMap<K, V>) -> Option<String>
    where
        K: MapType + Debug + Eq + Hash,
        V: MapType + Debug + PartialEq,
    {
        let kernel: StdHashMap<K, V> = dump(self.kernel.as_ref()?.map(name).expect(name));
        let keys = host.keys().chain(kernel.keys().filter(|key| !host.contains_key(key)));
        let mut lines = keys
            .filter(|key| host.get(key) != kernel.get(key))
            .map(|key| format!("{name}[{key:?}]\n kernel: {:?}\n   host: {:?}", kernel.get(key), host.get(key)));
        lines.next()
    }

    /// Behind a frame there are bytes without meaning.
    fn held_differ<K>(&self, name: &str, host: &StdHashMap<K, Held>) -> Option<String>
    where
        K: MapType + Debug + Eq + Hash,
    {
        let mut kernel: StdHashMap<K, Held> = dump(self.kernel.as_ref()?.map(name).expect(name));
        kernel.values_mut().for_each(|held| held.bytes[held.len as usize..].fill(0));
        let keys = host.keys().chain(kernel.keys().filter(|key| !host.contains_key(key)));
        let mut lines = keys
            .filter(|key| host.get(key) != kernel.get(key))
            .map(|key| format!("{name}[{key:?}]\n kernel: {:?}\n   host: {:?}", kernel.get(key), host.get(key)));
        lines.next()
    }

    fn counters_differ<'a>(&self, reasons: impl IntoIterator<Item = &'a Reason>) -> Option<String> {
        let map = self.kernel.as_ref()?.map(spec::COUNTERS.name).expect("COUNTERS");
        let counters: PerCpuArray<_, u64> = PerCpuArray::try_from(map).expect("COUNTERS");
        reasons.into_iter().find_map(|reason| {
            let kernel: u64 = counters.get(&(*reason as u32), 0).expect("COUNTERS").iter().sum();
            let host = self.memory.counters.get(reason).copied().unwrap_or(0);
            (kernel != host).then(|| format!("counter of {reason:?}: kernel {kernel}, host {host}"))
        })
    }

    fn services_differ<'a>(&self, services: impl IntoIterator<Item = &'a u32>) -> Option<String> {
        let map = self.kernel.as_ref()?.map(spec::SVC_COUNTERS.name).expect("SVC_COUNTERS");
        let counters: PerCpuArray<_, ServiceCounters> = PerCpuArray::try_from(map).expect("SVC_COUNTERS");
        services.into_iter().find_map(|service| {
            let mut kernel = ServiceCounters::default();
            for counters in counters.get(service, 0).expect("SVC_COUNTERS").iter() {
                kernel.packets += counters.packets;
                kernel.bytes += counters.bytes;
                kernel.reply_packets += counters.reply_packets;
                kernel.reply_bytes += counters.reply_bytes;
                kernel.new_flows += counters.new_flows;
            }
            let host = self.memory.services.get(service).copied().unwrap_or_default();
            (kernel != host).then(|| format!("counters of service {service}\n kernel: {kernel:?}\n   host: {host:?}"))
        })
    }
}
