//! Routes in a table of their own.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Context as _;
use futures::TryStreamExt as _;
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType};
use rtnetlink::sys::AsyncSocket as _;
use rtnetlink::{Handle, RouteMessageBuilder, new_connection};
use tokio::task::JoinHandle;

/// Who made the routes, as `ip route show proto 177` shows it: a number that nobody else has. Others in the table are left
/// alone.
pub const PROTOCOL: RouteProtocol = RouteProtocol::Other(177);

/// The routes of this agent in one table: to each address by the loopback device. No rule leads to the table, so they change
/// nothing for packets of this node.
#[derive(Debug)]
pub struct Routes {
    table: u32,
    handle: Handle,
    connection: JoinHandle<()>,
}

impl Drop for Routes {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Routes {
    /// Connects to the network namespace of this process.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn connect(table: u32) -> anyhow::Result<Self> {
        let (mut connection, handle, _) = new_connection().context("cannot open a netlink socket")?;
        // The kernel then lists one table's routes: a router may have a million others.
        connection.socket_mut().socket_ref().set_netlink_get_strict_chk(true).context("cannot list one table alone")?;
        Ok(Self { table, handle, connection: tokio::spawn(connection) })
    }

    /// Makes the routes those to `wanted`; without `complete` none is removed. Returns how many were added and removed.
    ///
    /// # Errors
    /// If the kernel refuses; what was done before stays done.
    pub async fn set(&self, wanted: &BTreeSet<IpAddr>, complete: bool) -> anyhow::Result<(usize, usize)> {
        let present: BTreeSet<IpAddr> = self.list().await?.into_iter().map(|(_, addr)| addr).collect();
        let loopback = self.loopback().await?;
        let (mut added, mut removed) = (0, 0);
        for addr in wanted.difference(&present) {
            let request = self.handle.route().add(route(self.table, *addr, Some(loopback)));
            request.execute().await.with_context(|| format!("cannot add a route to {addr} to table {}", self.table))?;
            added += 1;
        }
        for addr in present.difference(wanted).filter(|_| complete) {
            self.remove(self.table, *addr).await?;
            removed += 1;
        }
        Ok((added, removed))
    }

    /// Removes the routes of every agent in this network namespace, from whatever table; returns how many.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub async fn remove_all() -> anyhow::Result<usize> {
        let any = Self::connect(0)?;
        let routes = any.list().await?;
        for (table, addr) in &routes {
            any.remove(*table, *addr).await?;
        }
        Ok(routes.len())
    }

    async fn remove(&self, table: u32, addr: IpAddr) -> anyhow::Result<()> {
        let gone = self.handle.route().del(route(table, addr, None)).execute().await;
        gone.with_context(|| format!("cannot remove the route to {addr} from table {table}"))
    }

    /// Table and address of each route of ours.
    async fn list(&self) -> anyhow::Result<BTreeSet<(u32, IpAddr)>> {
        let mut found = BTreeSet::new();
        let families = [
            RouteMessageBuilder::<Ipv4Addr>::new().table_id(self.table).protocol(PROTOCOL).build(),
            RouteMessageBuilder::<Ipv6Addr>::new().table_id(self.table).protocol(PROTOCOL).build(),
        ];
        for mut filter in families {
            // A filter by type or scope is refused.
            (filter.header.kind, filter.header.scope) = (RouteType::Unspec, RouteScope::Universe);
            let listed: Result<Vec<RouteMessage>, _> = self.handle.route().get(filter).execute().try_collect().await;
            match listed {
                Ok(routes) => found.extend(routes.iter().filter_map(|route| self.own(route))),
                // A table that never had a route is not there.
                Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -libc::ENOENT => {}
                Err(error) => return Err(error).with_context(|| format!("cannot list table {}", self.table)),
            }
        }
        Ok(found)
    }

    /// Table and address of a route, if it is one of ours; of every table for the table zero.
    fn own(&self, route: &RouteMessage) -> Option<(u32, IpAddr)> {
        let mut table = u32::from(route.header.table);
        let mut destination = None;
        for attribute in &route.attributes {
            match attribute {
                RouteAttribute::Table(number) => table = *number,
                RouteAttribute::Destination(RouteAddress::Inet(addr)) => destination = Some(IpAddr::V4(*addr)),
                RouteAttribute::Destination(RouteAddress::Inet6(addr)) => destination = Some(IpAddr::V6(*addr)),
                _ => {}
            }
        }
        let ours = route.header.protocol == PROTOCOL && (self.table == 0 || table == self.table);
        destination.filter(|_| ours).map(|addr| (table, addr))
    }

    /// The index of the loopback device.
    async fn loopback(&self) -> anyhow::Result<u32> {
        let found = self.handle.link().get().match_name("lo".to_owned()).execute().try_next().await;
        let link = found.context("cannot look at the device `lo`")?.context("there is no device `lo`")?;
        Ok(link.header.index)
    }
}

/// The route to an address in a table, by a device.
fn route(table: u32, addr: IpAddr, device: Option<u32>) -> RouteMessage {
    let mut route = match addr {
        // The loopback device reaches nothing beyond itself.
        IpAddr::V4(addr) => {
            RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(addr, 32).scope(RouteScope::Link).build()
        }
        IpAddr::V6(addr) => RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(addr, 128).build(),
    };
    route.header.protocol = PROTOCOL;
    route.header.table = 0;
    route.attributes.push(RouteAttribute::Table(table));
    route.attributes.extend(device.map(RouteAttribute::Oif));
    route
}
