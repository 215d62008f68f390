//! Answers on the segments that the node shares with clients, for the addresses that are this node's at the moment.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use globset::GlobMatcher;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use super::published::Published;
use crate::announce::Attractive;
use crate::announce::segment::answerer::Answerer;
use crate::announce::segment::devices::{self, Device};
use crate::announce::segment::elect::{Election, Ranking};
use crate::announce::segment::peers::{Offer, Peers};
use crate::config::{AnnounceAddresses, Config};
use crate::control::api::{Peer, Segment};
use crate::controllers::pool::Pool;
use crate::model::Node;
use crate::sources::Snapshot;

/// How often devices are looked at, and what is to be announced again is.
const TICK: Duration = Duration::from_secs(1);
/// How often an address is announced: a frame may be lost.
const REPEATS: u32 = 5;

/// What the task works with.
pub struct SegmentTask {
    patterns: Vec<GlobMatcher>,
    /// Addresses that may be answered for; `None` for any of a load balancer and any ExternalIP.
    pools: Option<Vec<Pool>>,
    node_name: String,
    /// Where the agents of other nodes are asked.
    port: u16,
    attractive: Attractive,
    ranking: Ranking,
    peers: Peers,
    devices: BTreeMap<String, Kept>,
    snapshot: watch::Receiver<Arc<Snapshot>>,
    published: Arc<Published>,
}

/// A device with who answers there.
struct Kept {
    device: Device,
    answerer: Answerer,
    /// How often each address is still to be announced.
    due: BTreeMap<IpAddr, u32>,
}

impl SegmentTask {
    /// Touches nothing yet; `None` if no device is named.
    pub fn new(config: &Config, published: Arc<Published>) -> Option<Self> {
        if config.announce_devices.is_empty() {
            return None;
        }
        let pools = match config.announce_addresses {
            AnnounceAddresses::Pools => Some(config.load_balancer_pools.clone()),
            AnnounceAddresses::All => None,
        };
        Some(Self {
            patterns: config.announce_devices.clone(),
            pools,
            node_name: config.node_name.clone(),
            port: config.healthz_bind.map_or(0, |address| address.port()),
            attractive: Attractive::default(),
            ranking: Ranking::new(&config.node_name),
            peers: Peers::default(),
            devices: BTreeMap::new(),
            snapshot: published.snapshot.subscribe(),
            published,
        })
    }

    /// Follows until it is dropped.
    pub async fn run(mut self) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let ticked = tokio::select! {
                changed = self.snapshot.changed() => match changed {
                    Ok(()) => false,
                    // The other end is gone with the agent.
                    Err(_) => return,
                },
                () = self.peers.changed() => false,
                _ = tick.tick() => true,
            };
            let mut reason = Vec::new();
            if ticked && let Err(error) = self.find_devices(&mut reason) {
                reason.push(format!("cannot list the devices: {error}"));
            }
            self.look(reason);
            if ticked {
                self.announce();
            }
        }
    }

    /// Opens what has come, and forgets what is gone or not the same any more.
    fn find_devices(&mut self, reason: &mut Vec<String>) -> std::io::Result<()> {
        let mut found = devices::find(&self.patterns)?;
        self.devices.retain(|name, kept| {
            let is_same = |now: &Device| (now.index, now.mac) == (kept.device.index, kept.device.mac);
            match found.remove(name).filter(is_same) {
                Some(now) => {
                    kept.device = now;
                    true
                }
                None => {
                    info!(iface = name, "no answers for addresses on this device any more");
                    false
                }
            }
        });
        // One that changed comes with the next look.
        for (name, device) in found {
            match Answerer::open(device.index, device.mac) {
                Ok(answerer) => {
                    info!(iface = name, "answering for addresses on this device");
                    self.devices.insert(name, Kept { device, answerer, due: BTreeMap::new() });
                }
                Err(error) => {
                    let remedy = match error.raw_os_error() {
                        Some(libc::EPERM) => ": it takes the capability CAP_NET_RAW",
                        _ => "",
                    };
                    reason.push(format!("cannot answer on `{name}`: {error}{remedy}"));
                }
            }
        }
        Ok(())
    }

    /// Decides, and has the devices answer accordingly.
    fn look(&mut self, mut reason: Vec<String>) {
        let snapshot = self.snapshot.borrow_and_update().clone();
        let nodes = &snapshot.objects.nodes;
        let own = nodes.get(&self.node_name);
        let leaving = own.is_some_and(|node| node.leaving() || node.excluded());
        if own.is_none() && !nodes.is_empty() {
            reason
                .push(format!("there is no Node object `{}`, so the other nodes do not know this one", self.node_name));
        }
        let willing = if leaving { BTreeSet::new() } else { self.willing() };
        self.published.offer.set(Some(Offer { node: self.node_name.clone(), addresses: willing.clone() }));
        self.ranking.set(nodes.keys().cloned().collect());
        let Election { held, watched } = self.ranking.elect(&willing, |name, addr| self.peers.about(name, addr));
        let wanted = watched.into_iter().filter_map(|name| {
            let addresses = nodes.get(&name).map(|node| reachable(node, self.port))?;
            Some((name, addresses))
        });
        self.peers.follow(wanted.collect());
        let mut conflicts = Vec::new();
        for (name, kept) in &mut self.devices {
            let here = held.iter().filter(|addr| kept.device.has_on_link(**addr)).copied().collect();
            let (new, joined) = kept.answerer.hold(&here);
            if let Err(error) = joined {
                reason.push(format!("`{name}` may miss neighbour solicitations: {error}"));
            }
            kept.due.retain(|addr, _| here.contains(addr));
            for addr in new {
                info!(iface = name, %addr, "answering for this address");
                kept.due.insert(addr, REPEATS);
                kept.announce(name, addr);
            }
            let others = kept.answerer.conflicts();
            conflicts.extend(others.iter().map(|(addr, mac)| format!("{mac} on `{name}` says to have {addr}, too")));
        }
        let peer = |(name, told): (String, Result<usize, String>)| match told {
            Ok(addresses) => Peer { name, addresses: Some(addresses as u64), reason: String::new() },
            Err(reason) => Peer { name, addresses: None, reason },
        };
        let segment = Segment {
            devices: self.devices.keys().cloned().collect(),
            possible: willing.len() as u64,
            held: held.into_iter().collect(),
            peers: self.peers.told().into_iter().map(peer).collect(),
            leaving,
            reason: reason.into_iter().chain(conflicts).collect::<Vec<_>>().join("; "),
        };
        let before = self.published.segment.get();
        if !segment.reason.is_empty() && before.is_none_or(|before| before.reason != segment.reason) {
            warn!("{}", segment.reason);
        }
        self.published.segment.set(Some(segment));
    }

    /// The addresses that this node would answer for, were it alone.
    fn willing(&mut self) -> BTreeSet<IpAddr> {
        let attractive = &mut self.attractive;
        let served = self.published.sync.look(|sync| attractive.update(&sync.desired));
        let allowed = |addr: &IpAddr| match &self.pools {
            Some(pools) => pools.iter().any(|pool| pool.contains(*addr)),
            None => true,
        };
        let on_link = |addr: &IpAddr| self.devices.values().any(|kept| kept.device.has_on_link(*addr));
        served.into_iter().filter(|addr| allowed(addr) && on_link(addr)).collect()
    }

    /// Announces again what was not announced often enough.
    fn announce(&mut self) {
        for (name, kept) in &mut self.devices {
            let due: Vec<IpAddr> = kept.due.keys().copied().collect();
            due.into_iter().for_each(|addr| kept.announce(name, addr));
        }
    }
}

impl Kept {
    fn announce(&mut self, name: &str, addr: IpAddr) {
        if let Err(error) = self.answerer.announce(addr) {
            warn!(iface = name, %addr, %error, "cannot announce this address");
        }
        if let Some(left) = self.due.get_mut(&addr) {
            *left = left.saturating_sub(1);
            if *left == 0 {
                self.due.remove(&addr);
            }
        }
    }
}

/// Where a node's agent is asked: by its internal addresses, if it has any.
fn reachable(node: &Node, port: u16) -> Vec<SocketAddr> {
    let of = |kind: &str| {
        let addresses = node.addresses.iter().filter(|address| address.kind == kind);
        addresses.map(|address| SocketAddr::new(address.addr, port)).collect::<Vec<_>>()
    };
    let internal = of("InternalIP");
    if internal.is_empty() { of("ExternalIP") } else { internal }
}
