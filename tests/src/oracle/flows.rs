//! Flows of both families alike, for tests that mean either.

use std::{collections::HashMap, net::IpAddr};

use svc_common::maps::{Flow, Tuple, spec};

use super::Oracle;

/// What tests look at of one direction of a connection, and may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Direction {
    /// The key: addresses, ports, protocol.
    pub key: (IpAddr, u16, IpAddr, u16, u8),
    /// New source and destination.
    pub becomes: (IpAddr, u16, IpAddr, u16),
    /// What that adds to checksums: addresses, ports.
    pub deltas: (u16, u16),
    /// Bits of `flow_flags`.
    pub flags: u8,
    /// Bits of `flow_state`. May be changed.
    pub state: u8,
    /// Time of the last packet. May be changed.
    pub seen_s: u32,
    /// Packets.
    pub packets: u32,
    /// Their bytes.
    pub bytes: u64,
}

impl Direction {
    fn of<A: Copy + Into<IpAddr>>(key: &Tuple<A>, flow: &Flow<A>) -> Self {
        Self {
            key: (key.src.into(), key.sport.to_host(), key.dst.into(), key.dport.to_host(), key.proto),
            becomes: (flow.src.into(), flow.sport.to_host(), flow.dst.into(), flow.dport.to_host()),
            deltas: (flow.addr_delta, flow.port_delta),
            flags: flow.flags,
            state: flow.state,
            seen_s: flow.seen_s,
            packets: flow.packets,
            bytes: flow.bytes,
        }
    }
}

impl Oracle {
    /// Established flows, by key.
    pub fn established(&self) -> Vec<Direction> {
        let v4 = self.memory.v4.flows.iter().map(|(key, flow)| Direction::of(key, flow));
        let v6 = self.memory.v6.flows.iter().map(|(key, flow)| Direction::of(key, flow));
        sorted(v4.chain(v6))
    }

    /// Half-open flows, by key.
    pub fn half_open(&self) -> Vec<Direction> {
        let v4 = self.memory.v4.embryos.iter().map(|(key, flow)| Direction::of(key, flow));
        let v6 = self.memory.v6.embryos.iter().map(|(key, flow)| Direction::of(key, flow));
        sorted(v4.chain(v6))
    }

    /// Changes both copies of every flow, to make time pass or to break a table on purpose; those for which `edit` says no go.
    pub fn edit_flows(&mut self, edit: impl Fn(&mut Direction) -> bool) {
        let (v4, v6) = (&mut self.memory.v4, &mut self.memory.v6);
        let flows_v4 = edited(&mut v4.flows, &edit);
        let embryos_v4 = edited(&mut v4.embryos, &edit);
        let flows_v6 = edited(&mut v6.flows, &edit);
        let embryos_v6 = edited(&mut v6.embryos, &edit);
        self.put_edited(spec::FLOWS_V4.name, flows_v4);
        self.put_edited(spec::EMBRYOS_V4.name, embryos_v4);
        self.put_edited(spec::FLOWS_V6.name, flows_v6);
        self.put_edited(spec::EMBRYOS_V6.name, embryos_v6);
    }

    fn put_edited<A>(&mut self, name: &str, edited: Edited<A>)
    where
        Tuple<A>: aya::Pod,
        Flow<A>: aya::Pod,
    {
        for (key, flow) in edited {
            match flow {
                Some(flow) => self.put(name, &key, &flow),
                None => self.take::<_, Flow<A>>(name, &key),
            }
        }
    }
}

/// What became of each flow of a table.
type Edited<A> = Vec<(Tuple<A>, Option<Flow<A>>)>;

fn edited<A: Copy + Into<IpAddr>>(
    table: &mut HashMap<Tuple<A>, Flow<A>>,
    edit: impl Fn(&mut Direction) -> bool,
) -> Edited<A> {
    let mut edited = Vec::new();
    table.retain(|key, flow| {
        let mut direction = Direction::of(key, flow);
        let keep = edit(&mut direction);
        (flow.state, flow.seen_s) = (direction.state, direction.seen_s);
        edited.push((*key, keep.then_some(*flow)));
        keep
    });
    edited
}

fn sorted(flows: impl Iterator<Item = Direction>) -> Vec<Direction> {
    let mut flows: Vec<_> = flows.collect();
    flows.sort_by_key(|flow| flow.key);
    flows
}
