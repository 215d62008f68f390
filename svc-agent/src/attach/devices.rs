//! Follows the devices: fills `DEVICES`, attaches to what the patterns name, lets go of what vanished.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use anyhow::Context as _;
use aya::maps::{HashMap as BpfHashMap, MapData};
use svc_common::maps::{Device, spec};
use svc_common::net::Mac;
use tracing::{debug, info, warn};

use super::classes::{Class, Patterns};
use super::links::{Links, TcKind, TcState, XdpState};
use super::maps::Maps;
use super::netlink::{Link, Neighbour, Netlink};
use super::pins::PinDir;
use super::table::{Entry, entries, node_addresses};
use super::xdp;
use crate::apply::kernel::Epoch;
use crate::config::{Config, Forwarding, XdpMode};
use crate::sys::{ethtool, netdev};

/// The devices of this node, as far as they concern the datapath.
pub struct Devices {
    patterns: Patterns,
    xdp_mode: XdpMode,
    forwarding: Forwarding,
    links: Links,
    map: BpfHashMap<MapData, u32, Device>,
    /// What is in the map.
    written: BTreeMap<u32, Device>,
    epoch: Epoch,
    entries: BTreeMap<u32, Entry>,
    /// Why some device is not in the map.
    missing: Option<String>,
}

impl Devices {
    /// Reads back what an earlier agent wrote; attaches nothing yet.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn new(config: &Config, links: Links, maps: &Maps, epoch: Epoch) -> anyhow::Result<Self> {
        let map: BpfHashMap<_, u32, Device> = BpfHashMap::try_from(maps.map(&spec::DEVICES)?)?;
        let written = map.iter().collect::<Result<_, _>>().context("cannot read `DEVICES`")?;
        Ok(Self {
            patterns: config.devices.clone(),
            xdp_mode: config.xdp_mode,
            forwarding: config.forwarding,
            links,
            map,
            written,
            epoch,
            entries: BTreeMap::new(),
            missing: None,
        })
    }

    /// Asks the kernel for everything and brings map and programs in line with it. With `attach` false, nothing is
    /// attached or detached: right after a start, no packet shall meet maps that are not filled yet.
    ///
    /// # Errors
    /// If the kernel does not answer. A device that refuses a program, or does not fit into the map, is no error: the
    /// others are served, and [`Self::entries`] and [`Self::missing`] tell.
    pub async fn sync(&mut self, netlink: &Netlink, pins: &PinDir, attach: bool) -> anyhow::Result<()> {
        let (links, addresses) = (netlink.links().await?, netlink.addresses().await?);
        let mut entries = entries(links, &addresses, &self.patterns, self.forwarding);
        for (index, entry) in &mut entries {
            if let Some(known) = self.entries.get(index) {
                entry.xdp = known.xdp.clone();
                entry.tc = known.tc.clone();
            }
        }
        // Before the programs: they look up the device that a packet came from.
        self.write(&entries);
        if attach {
            for entry in entries.values_mut() {
                self.attach(pins, entry);
            }
            self.links.retain(pins, |index| entries.get(&index).is_some_and(Entry::managed))?;
            self.write(&entries);
        }
        self.entries = entries;
        Ok(())
    }

    /// The devices with what is attached to them.
    pub fn entries(&self) -> &BTreeMap<u32, Entry> {
        &self.entries
    }

    /// Why some device is not in the map; packets from and to it are left to the stack.
    pub fn missing(&self) -> Option<&str> {
        self.missing.as_deref()
    }

    /// The node's addresses.
    pub fn node_addresses(&self) -> Vec<IpAddr> {
        node_addresses(&self.entries)
    }

    /// The names of the managed devices that do not lead to pods of this node.
    pub fn uplinks(&self) -> Vec<&str> {
        let indices = self.entries.keys().filter(|index| self.forwards(**index));
        indices.filter_map(|index| self.entries.get(index)).map(|entry| entry.link.name.as_str()).collect()
    }

    /// Whether our programs send to neighbours on a device by addresses that they have from the kernel. Pods are reached
    /// through the stack, which asks for its neighbours itself.
    pub fn forwards(&self, ifindex: u32) -> bool {
        self.entries.get(&ifindex).is_some_and(|entry| entry.managed() && entry.class != Class::Workload)
    }

    fn attach(&mut self, pins: &PinDir, entry: &mut Entry) {
        let (before_xdp, before_tc) = (entry.xdp.clone(), entry.tc.clone());
        if entry.managed() {
            entry.tc = self.links.ensure_tc(pins, &entry.link);
            let choice = xdp::choose(self.xdp_mode, entry.class, traits(&entry.link));
            entry.xdp = self.links.ensure_xdp(pins, &entry.link, &choice);
        } else {
            let reason = entry.unfit().unwrap_or_default();
            entry.tc = TcState { kind: TcKind::Off, reason: reason.clone() };
            entry.xdp = XdpState { place: None, reason };
        }
        if entry.xdp != before_xdp || entry.tc != before_tc {
            let driver = ethtool::driver(&entry.link.name).unwrap_or_default();
            info!(
                iface = entry.link.name, class = %entry.class, driver, tc = ?entry.tc.kind, tc_reason = entry.tc.reason,
                xdp = ?entry.xdp.place, xdp_reason = entry.xdp.reason, "device"
            );
        }
    }

    /// Writes what differs, and makes the flows check themselves if anything did.
    fn write(&mut self, entries: &BTreeMap<u32, Entry>) {
        let wanted: BTreeMap<u32, Device> =
            entries.iter().filter_map(|(index, entry)| Some((*index, entry.value()?))).collect();
        self.missing = None;
        if wanted == self.written {
            return;
        }
        let gone: Vec<u32> = self.written.keys().filter(|index| !wanted.contains_key(index)).copied().collect();
        for index in gone {
            if let Err(error) = self.map.remove(&index) {
                debug!(map = "DEVICES", index, %error, "the device was not in the map");
            }
            self.written.remove(&index);
        }
        for (index, device) in wanted {
            if self.written.get(&index) == Some(&device) {
                continue;
            }
            match self.map.insert(index, device, 0) {
                Ok(()) => {
                    self.written.insert(index, device);
                }
                Err(error) => {
                    let name = entries.get(&index).map_or("", |entry| &entry.link.name);
                    let error = anyhow::Error::from(error);
                    self.missing = Some(format!("cannot write `{name}` to `DEVICES`: {error:#}"));
                }
            }
        }
        self.epoch.raise();
    }
}

/// What decides about XDP on a device; its other end may have changed since the last look.
fn traits(link: &Link) -> xdp::Traits<'_> {
    let is_veth = link.kind.as_deref() == Some("veth");
    let taken = is_veth.then(|| netdev::xdp_sends(link.index)).transpose().unwrap_or_else(|error| {
        debug!(iface = link.name, %error, "the device does not tell what XDP can do on it");
        None
    });
    xdp::Traits { kind: link.kind.as_deref(), parent: link.parent.as_deref(), taken: taken.flatten() }
}

/// Remembers the hardware addresses of neighbours, to tell a change from a mere confirmation.
#[derive(Debug, Default)]
pub struct Neighbours(HashMap<(u32, IpAddr), Mac>);

impl Neighbours {
    /// Takes in what the kernel says; true if a next hop that was worked out before may be wrong or can be worked out
    /// now.
    pub fn observe(&mut self, neighbour: Neighbour) -> bool {
        let key = (neighbour.ifindex, neighbour.addr);
        match neighbour.mac {
            Some(mac) => self.0.insert(key, mac) != Some(mac),
            None => self.0.remove(&key).is_some(),
        }
    }

    /// Starts over from a complete list.
    pub fn replace(&mut self, neighbours: Vec<Neighbour>) {
        self.0.clear();
        for neighbour in neighbours {
            self.observe(neighbour);
        }
    }
}

/// Asks for the neighbours; an answer that does not come is no reason to stop.
pub async fn refresh_neighbours(neighbours: &mut Neighbours, netlink: &Netlink) {
    match netlink.neighbours().await {
        Ok(list) => neighbours.replace(list),
        Err(error) => warn!(error = format!("{error:#}"), "cannot list the neighbours; flows will check themselves"),
    }
}

/// Has the kernel confirm the neighbours that our programs may be sending to: what they send does not pass the stack,
/// which would notice otherwise that a neighbour is in use and not confirmed (B37).
pub async fn confirm_neighbours(devices: &Devices, netlink: &Netlink) {
    let stale = match netlink.stale_neighbours().await {
        Ok(stale) => stale,
        Err(error) => {
            warn!(error = format!("{error:#}"), "cannot list the neighbours; trying again");
            return;
        }
    };
    for neighbour in stale.iter().filter(|neighbour| devices.forwards(neighbour.ifindex)) {
        // It may be gone since; the next look tries again.
        if let Err(error) = netlink.use_neighbour(neighbour).await {
            debug!(error = format!("{error:#}"), ifindex = neighbour.ifindex, "the neighbour stays unconfirmed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_neighbour_counts_when_its_hardware_address_changes_or_vanishes() {
        let mut neighbours = Neighbours::default();
        let mac = |last| Some(Mac([2, 0, 0, 0, 0, last]));
        let mut observe = |mac| neighbours.observe(Neighbour { ifindex: 2, addr: "192.0.2.9".parse().unwrap(), mac });
        assert!(!observe(None), "never known");
        assert!(observe(mac(1)), "appeared");
        assert!(!observe(mac(1)), "confirmed");
        assert!(observe(mac(2)), "moved");
        assert!(observe(None), "vanished");
        assert!(!observe(None), "still gone");
    }
}
