//! What the socket hooks keep and are told, as the agent sees it; and sockets whose backend is gone.

mod lost;
mod namespaces;
mod sweep;

use std::ops::ControlFlow;

use anyhow::Context as _;
use aya::Pod;
use aya::maps::{Array, HashMap, MapData};
use svc_common::maps::{MapSpec, MapType, Socket, SocketConfig, SocketKey, SocketNat, spec};

pub use self::lost::{Lost, end};
pub use self::namespaces::{own_cookie, skipped};
pub use self::sweep::Sweep;
use crate::attach::maps::Maps;
use crate::sys::batch;

/// A map that the programs write, or that may hold much.
pub struct Table<K: MapType + Pod, V: MapType + Pod> {
    name: &'static str,
    data: MapData,
    map: HashMap<MapData, K, V>,
}

impl<K: MapType + Pod, V: MapType + Pod> Table<K, V> {
    fn open(maps: &Maps, map: &MapSpec) -> anyhow::Result<Self> {
        let typed =
            HashMap::try_from(maps.map(map)?).with_context(|| format!("`{}` has unexpected sizes", map.name))?;
        Ok(Self { name: map.name, data: maps.data(map)?, map: typed })
    }

    /// Calls `visit` for every element. Those that come or go meanwhile may be missed.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn for_each(&self, mut visit: impl FnMut(K, V)) -> anyhow::Result<()> {
        let visit = |key, value| {
            visit(key, value);
            ControlFlow::Continue(())
        };
        batch::for_each(self.data.fd(), visit).with_context(|| format!("cannot read `{}`", self.name))
    }

    /// How many elements there are.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn count(&self) -> anyhow::Result<u64> {
        let mut count = 0;
        self.for_each(|_, _| count += 1)?;
        Ok(count)
    }

    /// Removes an element if it is there.
    pub fn remove(&mut self, key: &K) {
        // An absent key is what is wanted, and nothing else can be wrong with it.
        let _absent = self.map.remove(key);
    }

    /// Writes an element.
    ///
    /// # Errors
    /// As the kernel says, if there is no room among others.
    pub fn set(&mut self, key: &K, value: &V) -> anyhow::Result<()> {
        self.map.insert(key, value, 0).with_context(|| format!("cannot write to `{}`", self.name))
    }
}

/// The maps.
pub struct Tables {
    /// `SOCKET_NAT`.
    pub nat: Table<SocketKey, SocketNat>,
    /// `SOCKETS`.
    pub sockets: Table<u64, Socket>,
    /// `SOCKET_SKIP`.
    pub skip: Table<u64, u8>,
    config: Array<MapData, SocketConfig>,
}

impl Tables {
    /// Opens the maps.
    ///
    /// # Errors
    /// If one is missing or of another shape.
    pub fn open(maps: &Maps) -> anyhow::Result<Self> {
        Ok(Self {
            nat: Table::open(maps, &spec::SOCKET_NAT)?,
            sockets: Table::open(maps, &spec::SOCKETS)?,
            skip: Table::open(maps, &spec::SOCKET_SKIP)?,
            config: Array::try_from(maps.map(&spec::SOCKET_CONFIG)?)?,
        })
    }

    /// Tells the programs whose sockets are served.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn configure(&mut self, config: SocketConfig) -> anyhow::Result<()> {
        self.config.set(0, config, 0).context("cannot write to `SOCKET_CONFIG`")
    }

    /// Forgets every socket: right when no hook is attached any more, as then nobody sees them end.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn clear(&mut self) -> anyhow::Result<()> {
        let (mut keys, mut cookies) = (Vec::new(), Vec::new());
        self.nat.for_each(|key, _| keys.push(key))?;
        self.sockets.for_each(|cookie, _| cookies.push(cookie))?;
        keys.iter().for_each(|key| self.nat.remove(key));
        cookies.iter().for_each(|cookie| self.sockets.remove(cookie));
        Ok(())
    }
}
