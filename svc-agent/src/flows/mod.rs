//! The flow tables as the agent reads them: each connection once, with both of its directions.
//!
//! Two flows name each other: a flow's partner has the reverse of its rewritten tuple as its key.

mod connection;

use std::net::IpAddr;
use std::ops::ControlFlow;

use anyhow::Context as _;
use aya::Pod;
use aya::maps::{HashMap, MapData};
use svc_common::flow::partner_key;
use svc_common::maps::{Flow, MapSpec, MapType, Tuple, flow_flags, spec};

pub use self::connection::{Connection, Traffic};
use crate::attach::maps::Maps;
use crate::sys::batch;

/// One flow table.
pub struct Table<A: Copy + 'static>
where
    Tuple<A>: MapType + Pod,
    Flow<A>: MapType + Pod,
{
    name: &'static str,
    capacity: u32,
    data: MapData,
    map: HashMap<MapData, Tuple<A>, Flow<A>>,
}

impl<A: Copy + 'static> Table<A>
where
    Tuple<A>: MapType + Pod,
    Flow<A>: MapType + Pod,
{
    fn open(maps: &Maps, map: &MapSpec) -> anyhow::Result<Self> {
        let typed =
            HashMap::try_from(maps.map(map)?).with_context(|| format!("`{}` has unexpected sizes", map.name))?;
        Ok(Self { name: map.name, capacity: maps.capacity(map)?, data: maps.data(map)?, map: typed })
    }

    /// The flow with this key.
    pub fn get(&self, key: &Tuple<A>) -> Option<Flow<A>> {
        self.map.get(key, 0).ok()
    }

    /// Calls `visit` for every flow until it breaks. Flows that come or go meanwhile may be missed.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn for_each(&self, mut visit: impl FnMut(Tuple<A>, Flow<A>) -> ControlFlow<()>) -> anyhow::Result<()> {
        let mut started = false;
        let mut visit_batched = |key, flow| {
            started = true;
            visit(key, flow)
        };
        match batch::for_each(self.data.fd(), &mut visit_batched) {
            // A kernel without batches (before 5.6) says so at the first call.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) && !started => {}
            result => return result.with_context(|| format!("cannot read `{}`", self.name)),
        }
        // One that is removed under the iterator starts it over: never more steps than there can be flows.
        for entry in self.map.iter().take(self.capacity as usize) {
            let (key, flow) = entry.with_context(|| format!("cannot read `{}`", self.name))?;
            if visit(key, flow).is_break() {
                break;
            }
        }
        Ok(())
    }
}

/// Both tables of one family.
pub struct Family<A: Copy + 'static>
where
    Tuple<A>: MapType + Pod,
    Flow<A>: MapType + Pod,
{
    /// Established connections.
    pub established: Table<A>,
    /// Connections that the client has not confirmed.
    pub embryos: Table<A>,
}

impl<A: Copy + 'static> Family<A>
where
    Tuple<A>: MapType + Pod,
    Flow<A>: MapType + Pod,
{
    /// The flow with this key, wherever it is.
    pub fn get(&self, key: &Tuple<A>) -> Option<Flow<A>> {
        self.established.get(key).or_else(|| self.embryos.get(key))
    }
}

/// All four tables.
pub struct Tables {
    /// IPv4.
    pub v4: Family<[u8; 4]>,
    /// IPv6.
    pub v6: Family<[u8; 16]>,
}

impl Tables {
    /// Opens the tables.
    ///
    /// # Errors
    /// If a map is missing or of another shape.
    pub fn open(maps: &Maps) -> anyhow::Result<Self> {
        Ok(Self {
            v4: Family {
                established: Table::open(maps, &spec::FLOWS_V4)?,
                embryos: Table::open(maps, &spec::EMBRYOS_V4)?,
            },
            v6: Family {
                established: Table::open(maps, &spec::FLOWS_V6)?,
                embryos: Table::open(maps, &spec::EMBRYOS_V6)?,
            },
        })
    }

    /// Calls `visit` for every connection until it breaks; `now_s` is the datapath's clock.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn connections(&self, now_s: u32, mut visit: impl FnMut(Connection) -> ControlFlow<()>) -> anyhow::Result<()> {
        if connections_of(&self.v4, now_s, &mut visit)?.is_continue() {
            let _all = connections_of(&self.v6, now_s, &mut visit)?;
        }
        Ok(())
    }
}

fn connections_of<A: Copy + Into<IpAddr> + 'static>(
    family: &Family<A>,
    now_s: u32,
    visit: &mut impl FnMut(Connection) -> ControlFlow<()>,
) -> anyhow::Result<ControlFlow<()>>
where
    Tuple<A>: MapType + Pod,
    Flow<A>: MapType + Pod,
{
    let mut last = ControlFlow::Continue(());
    for table in [&family.established, &family.embryos] {
        table.for_each(|key, flow| {
            if flow.flags & flow_flags::REVERSE == 0 {
                let partner = family.get(&partner_key(&flow, key.proto));
                last = visit(Connection::new(&key, &flow, partner.as_ref(), now_s));
            }
            last
        })?;
        if last.is_break() {
            break;
        }
    }
    Ok(last)
}
