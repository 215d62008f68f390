//! Follows the network: devices, addresses, neighbours, routes.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout_at};
use tracing::{info, warn};

use super::host;
use super::published::Published;
use crate::apply::kernel::Epoch;
use crate::attach::devices::{Devices, Neighbours, confirm_neighbours, refresh_neighbours};
use crate::attach::links::TcKind;
use crate::attach::maps::Maps;
use crate::attach::netlink::{Event, Netlink};
use crate::attach::pins::PinDir;
use crate::config::PortRange;
use crate::control::api::Device;
use crate::reserve::Reserved;
use crate::resolve::FrontendKind;

/// How long events are gathered before they are acted upon.
const GATHER: Duration = Duration::from_millis(50);
/// How often everything is looked at without having been told to: somebody may have detached a program.
const LOOK: Duration = Duration::from_secs(5);
/// How long to wait after the kernel did not answer.
const AGAIN: Duration = Duration::from_secs(1);

/// What the task works with.
pub struct Follower {
    /// The devices.
    pub devices: Devices,
    /// The connection to the kernel.
    pub netlink: Netlink,
    /// The pins.
    pub pins: Arc<PinDir>,
    /// The maps, to pin them again.
    pub maps: Arc<Maps>,
    /// Raised when next hops may have changed.
    pub epoch: Epoch,
    /// Where the node's addresses go.
    pub addresses: watch::Sender<Vec<IpAddr>>,
    /// Where devices and warnings go.
    pub published: Arc<Published>,
    /// For the warnings.
    pub snat_ports: PortRange,
    /// The nodePorts that local sockets are kept off.
    pub reserved: Reserved,
    /// Why maps and links cannot be pinned, if they cannot.
    pub unpinned: Option<String>,
}

/// What events gathered so far ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Todo {
    devices: bool,
    neighbours: bool,
    epoch: bool,
}

impl Todo {
    fn take(&mut self, event: Event, neighbours: &mut Neighbours) {
        match event {
            Event::Devices => self.devices = true,
            Event::Routes => self.epoch = true,
            Event::Neighbour(neighbour) => self.epoch |= neighbours.observe(neighbour),
            Event::Lost => *self = Self { devices: true, neighbours: true, epoch: true },
        }
    }
}

impl Follower {
    /// Looks at the network once and tells what it found.
    ///
    /// # Errors
    /// If the kernel does not answer, or a map cannot be written.
    pub async fn look(&mut self, attach: bool) -> anyhow::Result<()> {
        self.devices.sync(&self.netlink, &self.pins, attach).await?;
        let addresses = self.devices.node_addresses();
        self.publish(&addresses);
        self.addresses.send_if_modified(|known| {
            let changed = *known != addresses;
            if changed {
                info!(?addresses, "the node's addresses");
                *known = addresses;
            }
            changed
        });
        Ok(())
    }

    /// Follows until it is dropped.
    pub async fn run(mut self) {
        let mut neighbours = Neighbours::default();
        refresh_neighbours(&mut neighbours, &self.netlink).await;
        // Routes and neighbours may have changed while no agent was there to see it.
        self.epoch.raise();
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let mut todo = Todo::default();
            tokio::select! {
                event = self.netlink.next() => match event {
                    Some(event) => todo.take(event, &mut neighbours),
                    None => {
                        self.reconnect().await;
                        todo.take(Event::Lost, &mut neighbours);
                    }
                },
                _ = look.tick() => {
                    self.restore_pins();
                    confirm_neighbours(&self.devices, &self.netlink).await;
                    todo.devices = true;
                }
            }
            let until = Instant::now() + GATHER;
            while let Ok(Some(event)) = timeout_at(until, self.netlink.next()).await {
                todo.take(event, &mut neighbours);
            }
            if todo.neighbours {
                refresh_neighbours(&mut neighbours, &self.netlink).await;
            }
            if todo.devices
                && let Err(error) = self.look(true).await
            {
                warn!(error = format!("{error:#}"), "cannot bring the devices up to date; trying again");
            }
            if todo.epoch {
                self.epoch.raise();
            }
        }
    }

    /// Sees to it that what must outlive the agent is pinned.
    fn restore_pins(&mut self) {
        self.unpinned = match self.pins.restore() {
            Ok(restored) => {
                if restored {
                    warn!(pin_dir = %self.pins.given().display(), "somebody removed the pin directory; made it again");
                }
                self.maps.repin(&self.pins);
                None
            }
            Err(error) => Some(format!("{error}; what is at work now ends with the agent")),
        };
    }

    /// Keeps local sockets off the nodePorts that there are at the moment. Before every input was read, those of an earlier
    /// agent are left as they are.
    fn reserve(&mut self) -> anyhow::Result<()> {
        let wanted = self.published.sync.look(|sync| {
            let ports = sync.desired.services.values().flat_map(|ports| ports.iter());
            let frontends = ports.flat_map(|port| &port.frontends);
            let wanted =
                frontends.filter(|frontend| frontend.kind == FrontendKind::NodePort).map(|frontend| frontend.port);
            sync.desired.complete.then(|| wanted.collect())
        });
        wanted.map_or(Ok(()), |wanted| self.reserved.set(&wanted))
    }

    async fn reconnect(&mut self) {
        warn!("lost the connection to the kernel's network events; connecting again");
        loop {
            match Netlink::connect() {
                Ok(netlink) => {
                    self.netlink = netlink;
                    info!("connected to the kernel's network events again");
                    return;
                }
                Err(_same_reason) => sleep(AGAIN).await,
            }
        }
    }

    fn publish(&mut self, addresses: &[IpAddr]) {
        let unreserved = self.reserve().err();
        let entries = self.devices.entries();
        let mut warnings = host::warnings(addresses, self.snat_ports, &self.devices.uplinks());
        warnings.extend(unreserved.map(|error| {
            format!("nodePorts are not reserved against local sockets: {error:#}; allow the agent to write it")
        }));
        warnings.extend(self.unpinned.clone());
        warnings.extend(self.devices.missing().map(str::to_owned));
        for entry in entries.values() {
            if entry.managed() && entry.tc.kind == TcKind::Off && !entry.tc.reason.is_empty() {
                warnings.push(format!("nothing is attached to `{}`: {}", entry.link.name, entry.tc.reason));
            }
        }
        let known = self.published.warnings.get();
        for warning in warnings.iter().filter(|warning| !known.contains(warning)) {
            warn!("{warning}");
        }
        self.published.warnings.set(warnings);
        // What is neither managed nor has an address concerns nobody.
        let shown = entries.values().filter(|entry| entry.class.managed() || entry.value().is_some());
        self.published.devices.set(shown.map(Device::from).collect());
    }
}

#[cfg(test)]
mod tests {
    use svc_common::net::Mac;

    use super::*;
    use crate::attach::netlink::Neighbour;

    #[test]
    fn events_ask_for_no_more_than_they_must() {
        let mut neighbours = Neighbours::default();
        let neighbour = Neighbour { ifindex: 2, addr: "192.0.2.9".parse().unwrap(), mac: Some(Mac([2; 6])) };
        let mut todo = |event| {
            let mut todo = Todo::default();
            todo.take(event, &mut neighbours);
            todo
        };
        let nothing = Todo::default();
        assert_eq!(todo(Event::Devices), Todo { devices: true, ..nothing });
        assert_eq!(todo(Event::Routes), Todo { epoch: true, ..nothing });
        assert_eq!(todo(Event::Neighbour(neighbour)), Todo { epoch: true, ..nothing });
        assert_eq!(todo(Event::Neighbour(neighbour)), nothing, "confirmed only");
        assert_eq!(todo(Event::Lost), Todo { devices: true, neighbours: true, epoch: true });
    }
}
