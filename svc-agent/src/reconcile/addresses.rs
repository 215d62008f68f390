//! The rows of addresses: one for each address that has a frontend, whoever's it is.
//!
//! The datapath looks an address up before its ports. So the row is written after the frontends and removed after them,
//! and tells of which kind the address is.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use svc_common::maps::frontend_flags::{CLUSTER_IP, EXTERNAL_IP, KIND, LOAD_BALANCER, NODE_PORT, VIP};

use crate::apply::MapOp;
use crate::resolve::AddressFamily;

/// Every address that has a frontend or a row.
#[derive(Debug, Default)]
pub struct Addresses {
    known: BTreeMap<IpAddr, Address>,
    /// Those whose row may not be as it should be.
    due: BTreeSet<IpAddr>,
    /// How many of each family have a row or will get one.
    rows: PerFamily,
}

/// A count for each family.
#[derive(Debug, Default)]
pub struct PerFamily {
    v4: usize,
    v6: usize,
}

impl PerFamily {
    /// The count.
    pub const fn of(&self, family: AddressFamily) -> usize {
        match family {
            AddressFamily::V4 => self.v4,
            AddressFamily::V6 => self.v6,
        }
    }

    /// The count, to change it.
    pub const fn of_mut(&mut self, family: AddressFamily) -> &mut usize {
        match family {
            AddressFamily::V4 => &mut self.v4,
            AddressFamily::V6 => &mut self.v6,
        }
    }
}

/// One address.
#[derive(Debug, Default)]
struct Address {
    /// How many frontends it has of each kind.
    frontends: [u32; 4],
    /// The flags in its row, if it has one.
    row: Option<u32>,
}

impl Address {
    /// The flags that its row should have; `None` if it should have none.
    fn wanted(&self) -> Option<u32> {
        let has = |kind: &u32| self.frontends.get(*kind as usize).is_some_and(|count| *count > 0);
        // An address of the node stays the stack's, whoever else claims it.
        if has(&NODE_PORT) {
            return Some(NODE_PORT);
        }
        [CLUSTER_IP, LOAD_BALANCER, EXTERNAL_IP].into_iter().find(has).map(|kind| kind | VIP)
    }

    /// Whether it has a row or will get one.
    fn has_row(&self) -> bool {
        self.row.is_some() || self.frontends.iter().any(|count| *count > 0)
    }

    fn count(&mut self, flags: u32) -> &mut u32 {
        let [cluster_ip, node_port, load_balancer, external_ip] = &mut self.frontends;
        match flags & KIND {
            CLUSTER_IP => cluster_ip,
            NODE_PORT => node_port,
            LOAD_BALANCER => load_balancer,
            _ => external_ip,
        }
    }
}

impl Addresses {
    /// Records a row that was found in the maps.
    pub fn found(&mut self, addr: IpAddr, flags: u32) {
        self.change(addr, |address| address.row = Some(flags));
    }

    /// Records a frontend with these flags.
    pub fn insert(&mut self, addr: IpAddr, flags: u32) {
        self.change(addr, |address| *address.count(flags) += 1);
    }

    /// Records that a frontend with these flags is gone.
    pub fn remove(&mut self, addr: IpAddr, flags: u32) {
        self.change(addr, |address| *address.count(flags) = address.count(flags).saturating_sub(1));
    }

    /// Whether an address has a row or will get one.
    pub fn has_row(&self, addr: IpAddr) -> bool {
        self.known.get(&addr).is_some_and(Address::has_row)
    }

    /// How many addresses of a family have a row or will get one.
    pub const fn rows(&self, family: AddressFamily) -> usize {
        self.rows.of(family)
    }

    fn change(&mut self, addr: IpAddr, change: impl FnOnce(&mut Address)) {
        let address = self.known.entry(addr).or_default();
        let before = address.has_row();
        change(address);
        let rows = self.rows.of_mut(AddressFamily::of(addr));
        *rows = *rows + usize::from(address.has_row()) - usize::from(before);
        self.due.insert(addr);
    }

    /// The writes that bring the rows to what they should be; without removals if `install`.
    pub fn plan(&self, install: bool) -> Vec<MapOp> {
        let op = |addr: &IpAddr| {
            let address = self.known.get(addr)?;
            match address.wanted() {
                Some(flags) if address.row != Some(flags) => Some(MapOp::SetAddress { addr: *addr, flags }),
                None if address.row.is_some() && !install => Some(MapOp::DeleteAddress { addr: *addr }),
                _ => None,
            }
        };
        self.due.iter().filter_map(op).collect()
    }

    /// Records a write that was carried out.
    pub fn record(&mut self, op: &MapOp) {
        match *op {
            MapOp::SetAddress { addr, flags } => self.change(addr, |address| address.row = Some(flags)),
            MapOp::DeleteAddress { addr } => self.change(addr, |address| address.row = None),
            _ => {}
        }
    }

    /// Forgets what is as it should be.
    pub fn settle(&mut self) {
        let Self { known, due, .. } = self;
        due.retain(|addr| {
            let Some(address) = known.get(addr) else { return false };
            let done = address.row == address.wanted();
            if done && address.row.is_none() {
                known.remove(addr);
            }
            !done
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDR: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 96, 0, 1));

    /// Carries out what is due.
    fn write(addresses: &mut Addresses, install: bool) -> Vec<MapOp> {
        let plan = addresses.plan(install);
        plan.iter().for_each(|op| addresses.record(op));
        addresses.settle();
        plan
    }

    #[test]
    fn b66_an_address_has_a_row_while_any_frontend_is_on_it() {
        let mut addresses = Addresses::default();
        addresses.insert(ADDR, LOAD_BALANCER);
        addresses.insert(ADDR, LOAD_BALANCER);
        assert_eq!(write(&mut addresses, true), [MapOp::SetAddress { addr: ADDR, flags: LOAD_BALANCER | VIP }]);
        addresses.remove(ADDR, LOAD_BALANCER);
        assert_eq!(write(&mut addresses, false), []);
        addresses.remove(ADDR, LOAD_BALANCER);
        assert_eq!(write(&mut addresses, true), [], "what goes, goes at the end of a pass");
        assert_eq!(write(&mut addresses, false), [MapOp::DeleteAddress { addr: ADDR }]);
        assert_eq!((addresses.rows(AddressFamily::V4), addresses.due.len()), (0, 0));
    }

    #[test]
    fn b66_an_address_of_the_node_is_never_a_vip() {
        let mut addresses = Addresses::default();
        addresses.insert(ADDR, EXTERNAL_IP);
        addresses.insert(ADDR, NODE_PORT);
        assert_eq!(write(&mut addresses, true), [MapOp::SetAddress { addr: ADDR, flags: NODE_PORT }]);
        addresses.remove(ADDR, NODE_PORT);
        assert_eq!(write(&mut addresses, true), [MapOp::SetAddress { addr: ADDR, flags: EXTERNAL_IP | VIP }]);
    }

    #[test]
    fn b78_rows_found_in_the_maps_are_adopted_or_put_right() {
        for (row, writes) in [(CLUSTER_IP | VIP, 0), (NODE_PORT, 1), (u32::MAX, 1)] {
            let mut addresses = Addresses::default();
            addresses.found(ADDR, row);
            addresses.insert(ADDR, CLUSTER_IP);
            assert_eq!(write(&mut addresses, true).len(), writes, "{row:#x}");
        }
        let mut addresses = Addresses::default();
        addresses.found(ADDR, CLUSTER_IP | VIP);
        assert_eq!(write(&mut addresses, false), [MapOp::DeleteAddress { addr: ADDR }]);
    }
}
