//! Flows, for the datapath and for the limit programs, and services.

use std::net::{IpAddr, SocketAddr};

use anyhow::Result;
use svc_common::{
    family::{Family, V4, V6},
    flow,
    maps::{Flow, Selection, Tuple, flow_flags, flow_state, spec},
    net::{Be16, Mac, proto},
};

use super::{
    driver::Driver,
    traffic::{BACKEND, BACKEND_PORT, Traffic, VIP, VIP_PORT, Version, limit_rewrite},
};
use crate::oracle::{NODE, Oracle, ROUTER_MAC, UPLINK, UPLINK_MAC};

/// What a flow does to its packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// A new destination; sent by our programs.
    Plain,
    /// A new source, too.
    SourceNat,
    /// The source is the VIP again; sent by our programs.
    Answer,
    /// A new destination; left to the stack.
    Stack,
    /// The source is the VIP again, as the packet leaves.
    Leaving,
}

impl Way {
    const fn flags(self) -> u8 {
        const SENT: u8 = flow_flags::FORWARD | flow_flags::HOP_RESOLVED | flow_flags::HOP_XDP;
        match self {
            Self::Plain | Self::SourceNat => SENT,
            Self::Answer => SENT | flow_flags::REVERSE,
            Self::Stack => 0,
            Self::Leaving => flow_flags::REVERSE | flow_flags::EGRESS,
        }
    }

    fn new_ends(self, version: Version, (src, dst): (SocketAddr, SocketAddr), flow: u32) -> (SocketAddr, SocketAddr) {
        let node: IpAddr = if version == Version::V4 { NODE.0 } else { NODE.1 }.parse().expect("an address");
        let backend = SocketAddr::new(version.addr(BACKEND + flow % BACKENDS), BACKEND_PORT);
        match self {
            Self::Plain | Self::Stack => (src, backend),
            Self::SourceNat => (SocketAddr::new(node, src.port() ^ 1), backend),
            Self::Answer | Self::Leaving => (SocketAddr::new(version.addr(VIP), VIP_PORT), dst),
        }
    }
}

/// Backends of the first service; the others have `FEW`.
pub const BACKENDS: u32 = 1000;
const FEW: u32 = 10;

/// A family with its maps.
trait Wide: Family {
    const FLOWS: &'static str;
    const LIMIT: &'static str;
    const PLAIN: &'static str;

    fn of(addr: IpAddr) -> Self::Addr;
    fn record(oracle: &mut Oracle, key: &Tuple<Self::Addr>, flow: &Flow<Self::Addr>);
    fn limit(driver: &mut Driver, table: &str, key: &Tuple<Self::Addr>) -> Result<()>;
}

macro_rules! wide {
    ($family:ty, $variant:ident, $flows:ident, $limit:literal, $plain:literal, $rewrite:tt) => {
        impl Wide for $family {
            const FLOWS: &'static str = spec::$flows.name;
            const LIMIT: &'static str = $limit;
            const PLAIN: &'static str = $plain;

            fn of(addr: IpAddr) -> Self::Addr {
                match addr {
                    IpAddr::$variant(addr) => addr.octets(),
                    _ => unreachable!("traffic has one family"),
                }
            }

            fn record(oracle: &mut Oracle, key: &Tuple<Self::Addr>, flow: &Flow<Self::Addr>) {
                oracle.put(Self::FLOWS, key, flow);
            }

            fn limit(driver: &mut Driver, table: &str, key: &Tuple<Self::Addr>) -> Result<()> {
                driver.put(table, key, &limit_rewrite().$rewrite)
            }
        }
    };
}

wide!(V4, V4, FLOWS_V4, "LIMIT_V4", "PLAIN_V4", 0);
wide!(V6, V6, FLOWS_V6, "LIMIT_V6", "PLAIN_V6", 1);

/// Connections of one kind.
pub struct Kind<'a> {
    /// Whose.
    pub traffic: &'a Traffic,
    /// What becomes of their packets.
    pub way: Way,
    /// How many.
    pub count: u32,
}

/// Records connections, for the datapath and for the limit programs: the same in all tables, as what is visited must be
/// equally deep in each. New elements come first in a bucket, so the kinds are mixed, and what is visited most comes last.
/// `now` is the datapath's time.
///
/// # Errors
/// As the kernel says.
pub fn flows(oracle: &mut Oracle, driver: &mut Driver, version: Version, kinds: &[Kind<'_>], now: u32) -> Result<()> {
    let most = kinds.iter().map(|kind| kind.count).max().unwrap_or(0);
    for number in (0..most).rev() {
        for Kind { traffic, way, .. } in kinds.iter().filter(|kind| number < kind.count) {
            match version {
                Version::V4 => record::<V4>(oracle, driver, traffic, *way, number, now)?,
                Version::V6 => record::<V6>(oracle, driver, traffic, *way, number, now)?,
            }
        }
    }
    Ok(())
}

fn record<F: Wide>(
    oracle: &mut Oracle,
    driver: &mut Driver,
    traffic: &Traffic,
    way: Way,
    number: u32,
    now: u32,
) -> Result<()> {
    let key = tuple::<F>(traffic, number);
    let (src, dst) = way.new_ends(traffic.version, traffic.tuple(number), number);
    let (sport, dport) = (Be16::from_host(src.port()), Be16::from_host(dst.port()));
    let mut flow = Flow::default();
    flow::init::<F>(&mut flow, &key, (&F::of(src.ip()), sport), (&F::of(dst.ip()), dport), way.flags());
    flow.flags = way.flags();
    flow.state = flow_state::ESTABLISHED | flow_state::REPLIED;
    (flow.mtu, flow.epoch, flow.seen_s, flow.backend) = (1500, 1, now, 1 + number % BACKENDS);
    if flow.flags & flow_flags::FORWARD != 0 {
        (flow.ifindex, flow.dst_mac, flow.src_mac) = (oracle.ifindex(UPLINK), Mac(ROUTER_MAC), Mac(UPLINK_MAC));
    }
    flow.service = service_of(traffic, number);
    F::record(oracle, &key, &flow);
    F::limit(driver, F::LIMIT, &key)?;
    F::limit(driver, F::PLAIN, &key)
}

/// The service that a connection is counted for.
fn service_of(traffic: &Traffic, number: u32) -> u32 {
    let (_, vip) = traffic.ends(number);
    let low = match vip.ip() {
        IpAddr::V4(vip) => vip.to_bits(),
        IpAddr::V6(vip) => vip.to_bits() as u32,
    };
    1 + low.wrapping_sub(VIP) % traffic.other.1
}

fn tuple<F: Wide>(traffic: &Traffic, number: u32) -> Tuple<F::Addr> {
    let (src, dst) = traffic.tuple(number);
    Tuple {
        src: F::of(src.ip()),
        dst: F::of(dst.ip()),
        sport: Be16::from_host(src.port()),
        dport: Be16::from_host(dst.port()),
        proto: traffic.proto,
        pad: [0; 3],
    }
}

/// Configures `count` services of TCP in a family; ids from 1 for IPv4, behind those for IPv6. The first has many
/// backends on other nodes. One more, which is returned, has none.
pub fn services(oracle: &mut Oracle, version: Version, count: u32) -> u32 {
    let first = if version == Version::V4 { 1 } else { count + 2 };
    let mut next_backend = 1;
    for number in 0..count {
        let (service, backends) = (first + number, if number == 0 { BACKENDS } else { FEW });
        let ids: Vec<u32> = (next_backend..next_backend + backends).collect();
        next_backend += backends;
        for id in &ids {
            let addr = SocketAddr::new(version.addr(BACKEND + id - 1), BACKEND_PORT);
            oracle.set_backend(*id, service, &addr.to_string());
        }
        oracle.set_selection(service, &ids);
        oracle.set_frontend(&vip(version, number), proto::TCP, service, service, service);
    }
    let empty = first + count;
    oracle.set_empty_selection(empty, Selection::REJECT);
    oracle.set_frontend(&vip(version, count), proto::TCP, empty, empty, empty);
    VIP + count
}

fn vip(version: Version, number: u32) -> String {
    SocketAddr::new(version.addr(VIP + number), VIP_PORT).to_string()
}
