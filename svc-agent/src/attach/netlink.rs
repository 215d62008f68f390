//! What the kernel tells of devices, addresses, neighbours and routes, reduced to what the agent needs.
//!
//! Netlink alone: /sys/class/net shows the devices of the namespace in which /sys was mounted.

use std::net::IpAddr;

use anyhow::Context as _;
use futures::channel::mpsc::UnboundedReceiver;
use futures::{StreamExt as _, TryStreamExt as _};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{
    InfoPortKind, LinkAttribute, LinkInfo, LinkLayerType, LinkMessage, LinkXdp, XdpAttached,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::sys::SocketAddr;
use rtnetlink::{Handle, MulticastGroup, new_multicast_connection};
use svc_common::net::Mac;
use tokio::task::JoinHandle;

use super::xdp::Place;

/// An XDP program on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XdpFound {
    /// Where it runs; `None` for hardware and for several at once.
    pub place: Option<Place>,
    /// Its number.
    pub program_id: u32,
}

impl XdpFound {
    /// Whether it runs there.
    pub fn is_in(&self, place: Place) -> bool {
        self.place == Some(place)
    }
}

/// A device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// ifindex.
    pub index: u32,
    /// Name.
    pub name: String,
    /// Whether its frames are Ethernet.
    pub ethernet: bool,
    /// Hardware address; all zero if it has none.
    pub mac: Mac,
    /// MTU in bytes.
    pub mtu: u32,
    /// What made it, if it is virtual: `veth`, `bridge`, ...
    pub kind: Option<String>,
    /// What it is a port of, if that is the one that has addresses: `bond` or `team`.
    pub port_of: Option<String>,
    /// Whether it has any master: a bond, a bridge, a VRF.
    pub enslaved: bool,
    /// Whether what it is connected with is in another network namespace: the other end of a veth.
    pub peer_elsewhere: bool,
    /// The hardware behind it.
    pub parent: Option<String>,
    /// The XDP program on it.
    pub xdp: Option<XdpFound>,
}

/// An address of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    /// ifindex of the device.
    pub ifindex: u32,
    /// The address.
    pub addr: IpAddr,
    /// Whether its scope is global.
    pub global: bool,
    /// Whether connections from this node may have it as their source: neither secondary, nor temporary, nor on its way
    /// in or out.
    pub preferred: bool,
}

/// A neighbour whose hardware address changed or is known no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// ifindex of the device.
    pub ifindex: u32,
    /// Its address.
    pub addr: IpAddr,
    /// Its hardware address; `None` while it is not known.
    pub mac: Option<Mac>,
}

/// Something changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A device or an address.
    Devices,
    /// A route or a rule.
    Routes,
    /// A neighbour.
    Neighbour(Neighbour),
    /// Something: messages were lost.
    Lost,
}

/// The connection to the kernel.
#[derive(Debug)]
pub struct Netlink {
    handle: Handle,
    messages: UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>,
    task: JoinHandle<()>,
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Netlink {
    /// Connects to the network namespace of this process. Events are kept from now on.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn connect() -> anyhow::Result<Self> {
        let (connection, handle, messages) = new_multicast_connection(&[
            MulticastGroup::Link,
            MulticastGroup::Neigh,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
            MulticastGroup::Ipv4Rule,
            MulticastGroup::Ipv6Rule,
            MulticastGroup::Nexthop,
        ])
        .context("cannot open a netlink socket")?;
        Ok(Self { handle, messages, task: tokio::spawn(connection) })
    }

    /// Every device.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub async fn links(&self) -> anyhow::Result<Vec<Link>> {
        let links: Vec<LinkMessage> =
            self.handle.link().get().execute().try_collect().await.context("cannot list the devices")?;
        Ok(links.iter().map(link).collect())
    }

    /// Every address.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub async fn addresses(&self) -> anyhow::Result<Vec<Address>> {
        let addresses: Vec<AddressMessage> =
            self.handle.address().get().execute().try_collect().await.context("cannot list the addresses")?;
        Ok(addresses.iter().filter_map(address).collect())
    }

    /// Every neighbour whose hardware address is known.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub async fn neighbours(&self) -> anyhow::Result<Vec<Neighbour>> {
        let neighbours = self.neighbour_table().await?;
        Ok(neighbours.iter().filter_map(|message| neighbour(message, false)).filter(|n| n.mac.is_some()).collect())
    }

    /// The neighbours that nobody has confirmed for a while.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub async fn stale_neighbours(&self) -> anyhow::Result<Vec<Neighbour>> {
        let neighbours = self.neighbour_table().await?;
        let stale = neighbours.iter().filter(|message| message.header.state == NeighbourState::Stale);
        Ok(stale.filter_map(|message| neighbour(message, false)).collect())
    }

    /// Tells the kernel that a neighbour is in use, so that it finds out whether its hardware address still holds.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub async fn use_neighbour(&self, neighbour: &Neighbour) -> anyhow::Result<()> {
        let request = self.handle.neighbours().add(neighbour.ifindex, neighbour.addr).replace();
        let request = request.flags(NeighbourFlags::Use).state(NeighbourState::None);
        request.execute().await.with_context(|| format!("cannot ask for the neighbour {}", neighbour.addr))
    }

    async fn neighbour_table(&self) -> anyhow::Result<Vec<NeighbourMessage>> {
        self.handle.neighbours().get().execute().try_collect().await.context("cannot list the neighbours")
    }

    /// The next event; `None` once the connection is lost. May be dropped at any await.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            let (message, _) = self.messages.next().await?;
            if let Some(event) = event(&message.payload) {
                return Some(event);
            }
        }
    }
}

fn event(payload: &NetlinkPayload<RouteNetlinkMessage>) -> Option<Event> {
    use RouteNetlinkMessage as Message;
    match payload {
        NetlinkPayload::Overrun(_) => Some(Event::Lost),
        NetlinkPayload::InnerMessage(message) => match message {
            Message::NewLink(_) | Message::DelLink(_) | Message::NewAddress(_) | Message::DelAddress(_) => {
                Some(Event::Devices)
            }
            Message::NewRoute(_) | Message::DelRoute(_) | Message::NewRule(_) | Message::DelRule(_) => {
                Some(Event::Routes)
            }
            Message::NewNeighbour(message) => neighbour(message, false).map(Event::Neighbour),
            Message::DelNeighbour(message) => neighbour(message, true).map(Event::Neighbour),
            _ => None,
        },
        _ => None,
    }
}

fn link(message: &LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        ethernet: message.header.link_layer_type == LinkLayerType::Ether,
        ..Link::default()
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Controller(master) => link.enslaved = *master != 0,
            LinkAttribute::LinkNetNsId(_) => link.peer_elsewhere = true,
            LinkAttribute::Address(bytes) => link.mac = mac(bytes).unwrap_or_default(),
            LinkAttribute::ParentDevName(name) => link.parent = Some(name.clone()),
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    match info {
                        LinkInfo::Kind(kind) => link.kind = Some(kind.to_string()),
                        LinkInfo::PortKind(kind @ (InfoPortKind::Bond | InfoPortKind::Team)) => {
                            link.port_of = Some(kind.to_string());
                        }
                        _ => {}
                    }
                }
            }
            LinkAttribute::Xdp(xdp) => link.xdp = xdp_found(xdp),
            _ => {}
        }
    }
    link
}

fn xdp_found(attributes: &[LinkXdp]) -> Option<XdpFound> {
    let mut place = None;
    let mut program_id = None;
    for attribute in attributes {
        match attribute {
            LinkXdp::Attached(XdpAttached::Driver) => place = Some(Place::Native),
            LinkXdp::Attached(XdpAttached::SocketBuffer) => place = Some(Place::Generic),
            LinkXdp::ProgId(id) => program_id = Some(*id),
            _ => {}
        }
    }
    program_id.filter(|id| *id != 0).map(|program_id| XdpFound { place, program_id })
}

fn address(message: &AddressMessage) -> Option<Address> {
    let mut own = None;
    let mut peer = None;
    let mut flags = AddressFlags::from_bits_retain(message.header.flags.bits().into());
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(addr) => own = Some(*addr),
            AddressAttribute::Address(addr) => peer = Some(*addr),
            AddressAttribute::Flags(all) => flags |= *all,
            _ => {}
        }
    }
    // On a point-to-point device the "address" is the other end's.
    let addr = own.or(peer)?;
    // For IPv6 the bit of `Secondary` means temporary (RFC 8981).
    let unfit = AddressFlags::Secondary
        | AddressFlags::Tentative
        | AddressFlags::Optimistic
        | AddressFlags::Dadfailed
        | AddressFlags::Deprecated;
    Some(Address {
        ifindex: message.header.index,
        addr,
        global: message.header.scope == AddressScope::Universe,
        preferred: !flags.intersects(unfit),
    })
}

fn neighbour(message: &NeighbourMessage, gone: bool) -> Option<Neighbour> {
    // Entries of bridges have no address; proxies are not neighbours.
    if !matches!(message.header.family, AddressFamily::Inet | AddressFamily::Inet6) {
        return None;
    }
    let mut addr = None;
    let mut hardware = None;
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => addr = Some(IpAddr::V4(*v4)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => addr = Some(IpAddr::V6(*v6)),
            NeighbourAttribute::LinkLayerAddress(bytes) => hardware = mac(bytes),
            _ => {}
        }
    }
    let unknown = gone
        || matches!(message.header.state, NeighbourState::Failed | NeighbourState::Incomplete | NeighbourState::None);
    Some(Neighbour { ifindex: message.header.ifindex, addr: addr?, mac: hardware.filter(|_| !unknown) })
}

fn mac(bytes: &[u8]) -> Option<Mac> {
    bytes.try_into().ok().map(Mac)
}
