//! Answers on one device, and announces.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv6Addr, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use svc_common::net::Mac;
use tokio::task::JoinSet;
use tokio::time::sleep;
use zerocopy::IntoBytes as _;

use super::{arp, ndp};
use crate::sys::packet::PacketSocket;

/// Answers in a second and protocol; questions beyond are not read before the next one begins.
const MAX_PER_S: u32 = 1000;
/// Groups that one socket may join: the kernel bounds the memory of each.
const GROUPS_PER_SOCKET: usize = 64;
/// What is read of a frame.
const MAX_BYTES: usize = 512;

/// Answers for addresses until it is dropped.
#[derive(Debug)]
pub struct Answerer {
    ifindex: u32,
    shared: Arc<Shared>,
    arp: Arc<PacketSocket>,
    ndp: Arc<PacketSocket>,
    groups: Vec<(UdpSocket, BTreeSet<Ipv6Addr>)>,
    _tasks: JoinSet<()>,
}

#[derive(Debug)]
struct Shared {
    own: Mac,
    told: Mutex<Told>,
}

#[derive(Debug, Default)]
struct Told {
    held: BTreeSet<IpAddr>,
    /// Who else says to have an address that is held.
    conflicts: BTreeMap<IpAddr, Mac>,
}

impl Shared {
    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn holds(&self, addr: impl Into<IpAddr>) -> bool {
        self.told().held.contains(&addr.into())
    }

    fn claimed(&self, addr: impl Into<IpAddr>, by: Mac) {
        let (addr, mut told) = (addr.into(), self.told());
        if by != self.own && told.held.contains(&addr) {
            told.conflicts.insert(addr, by);
        }
    }

    /// The answer to an ARP request, and whom it is for.
    fn arp(&self, frame: &[u8]) -> Option<(Mac, Vec<u8>)> {
        let message = arp::Arp::parse(frame)?;
        match message.heard()? {
            arp::Heard::Asked { target } if self.holds(target) => {
                let (to, answer) = message.answer(self.own);
                // Nobody asks himself.
                (to != self.own).then(|| (to, answer.as_bytes().to_vec()))
            }
            arp::Heard::Asked { .. } => None,
            arp::Heard::Claimed { addr, by } => {
                self.claimed(addr, by);
                None
            }
        }
    }

    /// The same for a neighbour solicitation.
    fn ndp(&self, packet: &[u8], source: Mac) -> Option<(Mac, Vec<u8>)> {
        match ndp::heard(packet, source)? {
            ndp::Heard::Asked { target, by } if self.holds(target) => Some(ndp::answer(target, by, self.own)),
            ndp::Heard::Asked { .. } => None,
            ndp::Heard::Claimed { addr, by } => {
                self.claimed(addr, by);
                None
            }
        }
    }
}

impl Answerer {
    /// Listens on a device whose hardware address is `own`; answers for nothing yet. To be called within a runtime.
    ///
    /// # Errors
    /// `EPERM` without CAP_NET_RAW.
    pub fn open(ifindex: u32, own: Mac) -> io::Result<Self> {
        let arp = Arc::new(PacketSocket::open(ifindex, arp::ETHER_TYPE, &[])?);
        let ndp = Arc::new(PacketSocket::open(ifindex, ndp::ETHER_TYPE, ndp::FILTER)?);
        let shared = Arc::new(Shared { own, told: Mutex::default() });
        let mut tasks = JoinSet::new();
        let for_arp = shared.clone();
        tasks.spawn(serve(arp.clone(), move |frame, _| for_arp.arp(frame)));
        let for_ndp = shared.clone();
        tasks.spawn(serve(ndp.clone(), move |packet, source| for_ndp.ndp(packet, source)));
        Ok(Self { ifindex, shared, arp, ndp, groups: Vec::new(), _tasks: tasks })
    }

    /// Answers for these addresses from now on, and no others. Those that are new, and whether solicitations for all of them
    /// can be received; where not, those of neighbours that know the address already still are.
    pub fn hold(&mut self, addresses: &BTreeSet<IpAddr>) -> (BTreeSet<IpAddr>, io::Result<()>) {
        let joined = self.join(addresses);
        let mut told = self.shared.told();
        let new = addresses.difference(&told.held).copied().collect();
        told.held.clone_from(addresses);
        told.conflicts.retain(|addr, _| addresses.contains(addr));
        (new, joined)
    }

    /// Tells everybody on the segment who has the address.
    ///
    /// # Errors
    /// If the device is down.
    pub fn announce(&self, addr: IpAddr) -> io::Result<()> {
        match addr {
            IpAddr::V4(addr) => arp::Arp::announcements(addr, self.shared.own)
                .iter()
                .try_for_each(|message| self.arp.send(arp::BROADCAST, message.as_bytes())),
            IpAddr::V6(addr) => {
                let (to, message) = ndp::announcement(addr, self.shared.own);
                self.ndp.send(to, &message)
            }
        }
    }

    /// Who else says to have an address that this one answers for.
    pub fn conflicts(&self) -> BTreeMap<IpAddr, Mac> {
        self.shared.told().conflicts.clone()
    }

    /// Joins the groups that solicitations for the addresses are sent to, and leaves others: by sockets of the kernel's own
    /// IPv6, which tells switches and the device's filter.
    fn join(&mut self, addresses: &BTreeSet<IpAddr>) -> io::Result<()> {
        let v6 = addresses.iter().filter_map(|addr| if let IpAddr::V6(addr) = addr { Some(*addr) } else { None });
        let wanted: BTreeSet<Ipv6Addr> = v6.map(ndp::group).collect();
        for (socket, groups) in &mut self.groups {
            groups.retain(|group| wanted.contains(group) || socket.leave_multicast_v6(group, self.ifindex).is_err());
        }
        let joined: BTreeSet<Ipv6Addr> = self.groups.iter().flat_map(|(_, groups)| groups).copied().collect();
        let mut failed = Ok(());
        for group in wanted.difference(&joined) {
            if let Err(error) = self.join_one(*group) {
                failed = Err(error);
            }
        }
        failed
    }

    fn join_one(&mut self, group: Ipv6Addr) -> io::Result<()> {
        if self.groups.last().is_none_or(|(_, groups)| groups.len() >= GROUPS_PER_SOCKET) {
            self.groups.push((UdpSocket::bind("[::]:0")?, BTreeSet::new()));
        }
        if let Some((socket, groups)) = self.groups.last_mut() {
            socket.join_multicast_v6(&group, self.ifindex)?;
            groups.insert(group);
        }
        Ok(())
    }
}

/// Answers what comes.
async fn serve(socket: Arc<PacketSocket>, answer: impl Fn(&[u8], Mac) -> Option<(Mac, Vec<u8>)> + Send + 'static) {
    let mut buffer = [0; MAX_BYTES];
    let (mut since, mut answers) = (Instant::now(), 0);
    loop {
        let Ok(received) = socket.receive(&mut buffer).await else {
            // The device is down, or gone: whoever keeps this finds out.
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        let frame = buffer.get(..received.len).unwrap_or_default();
        if !received.for_us {
            continue;
        }
        let Some((to, bytes)) = answer(frame, received.source) else { continue };
        // What does not get out is asked for again.
        let _sent = socket.send(to, &bytes);
        answers += 1;
        if answers >= MAX_PER_S {
            sleep(Duration::from_secs(1).saturating_sub(since.elapsed())).await;
        }
        if since.elapsed() >= Duration::from_secs(1) {
            (since, answers) = (Instant::now(), 0);
        }
    }
}
