//! Writes to the maps, behind one trait: [`kernel`] for the real ones, [`fake`] in memory.

pub mod fake;
pub mod kernel;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use ipnet::IpNet;
use svc_common::maps::{Backend, Frontend, FrontendKey, Selection, SlotRow};
use svc_common::net::Be16;

use crate::resolve::AddressFamily;

/// A frontend's key in either family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AnyFrontendKey {
    /// `FRONTENDS_V4`.
    V4(FrontendKey<[u8; 4]>),
    /// `FRONTENDS_V6`.
    V6(FrontendKey<[u8; 16]>),
}

impl AnyFrontendKey {
    /// The key of an address, a port and an IANA protocol number.
    pub fn new(addr: IpAddr, port: u16, proto: u8) -> Self {
        let port = Be16::from_host(port);
        match addr {
            IpAddr::V4(addr) => Self::V4(FrontendKey { addr: addr.octets(), port, proto, pad: 0 }),
            IpAddr::V6(addr) => Self::V6(FrontendKey { addr: addr.octets(), port, proto, pad: 0 }),
        }
    }

    /// What it was made of: address, port and IANA protocol number.
    pub fn name(&self) -> (IpAddr, u16, u8) {
        match self {
            Self::V4(key) => (key.addr.into(), key.port.to_host(), key.proto),
            Self::V6(key) => (key.addr.into(), key.port.to_host(), key.proto),
        }
    }

    /// The key of an address itself.
    pub fn of_address(addr: IpAddr) -> Self {
        Self::new(addr, 0, 0)
    }

    /// The address, if this is the key of an address itself.
    pub fn as_address(&self) -> Option<IpAddr> {
        let (addr, port, proto) = self.name();
        (port == 0 && proto == 0).then_some(addr)
    }

    /// Which of the two maps it belongs into.
    pub const fn family(&self) -> AddressFamily {
        match self {
            Self::V4(_) => AddressFamily::V4,
            Self::V6(_) => AddressFamily::V6,
        }
    }
}

/// A backend in either family; the ids of the families are separate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AnyBackend {
    /// `BACKENDS_V4`.
    V4(Backend<[u8; 4]>),
    /// `BACKENDS_V6`.
    V6(Backend<[u8; 16]>),
}

impl AnyBackend {
    /// The backend of an address and a port, with its flags and its service id.
    pub fn new(addr: IpAddr, port: u16, flags: u16, service: u32) -> Self {
        let port = Be16::from_host(port);
        match addr {
            IpAddr::V4(addr) => Self::V4(Backend { addr: addr.octets(), port, flags, service }),
            IpAddr::V6(addr) => Self::V6(Backend { addr: addr.octets(), port, flags, service }),
        }
    }

    /// The value of an id that is free.
    pub fn free(family: AddressFamily) -> Self {
        match family {
            AddressFamily::V4 => Self::V4(Backend::default()),
            AddressFamily::V6 => Self::V6(Backend::default()),
        }
    }

    /// Which of the two maps it belongs into.
    pub const fn family(&self) -> AddressFamily {
        match self {
            Self::V4(_) => AddressFamily::V4,
            Self::V6(_) => AddressFamily::V6,
        }
    }

    /// Its address and port: what a service knows it by.
    pub fn name(&self) -> (IpAddr, u16) {
        match self {
            Self::V4(backend) => (backend.addr.into(), backend.port.to_host()),
            Self::V6(backend) => (backend.addr.into(), backend.port.to_host()),
        }
    }

    /// The service id that it belongs to.
    pub const fn service(&self) -> u32 {
        match self {
            Self::V4(backend) => backend.service,
            Self::V6(backend) => backend.service,
        }
    }

    /// Whether it says that its id is free.
    pub const fn is_free(&self) -> bool {
        match self {
            Self::V4(backend) => backend.flags == 0,
            Self::V6(backend) => backend.flags == 0,
        }
    }
}

/// One write. The order of a plan's writes is what B77 asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MapOp {
    /// Writes one backend; `flags` zero frees the id.
    SetBackend {
        /// Backend id.
        id: u32,
        /// Its new value.
        value: AnyBackend,
    },
    /// Writes whole rows of slots.
    WriteRows {
        /// Index of the first row.
        first: u32,
        /// The rows.
        rows: Vec<SlotRow>,
    },
    /// Swaps one selection, by one 8-byte store.
    SetSelection {
        /// Selection index.
        index: u32,
        /// Its new value.
        value: Selection,
    },
    /// Inserts or replaces one frontend.
    SetFrontend {
        /// What clients dial.
        key: AnyFrontendKey,
        /// What it means.
        value: Frontend,
    },
    /// Removes one frontend.
    DeleteFrontend {
        /// What clients dialled.
        key: AnyFrontendKey,
    },
    /// Adds a source range of a service.
    SetRange {
        /// Service id.
        service: u32,
        /// The range.
        range: IpNet,
    },
    /// Removes a source range of a service.
    DeleteRange {
        /// Service id.
        service: u32,
        /// The range.
        range: IpNet,
    },
    /// Inserts or replaces the row of an address that has frontends.
    SetAddress {
        /// The address.
        addr: IpAddr,
        /// Bits of [`svc_common::maps::frontend_flags`].
        flags: u32,
    },
    /// Removes the row of an address.
    DeleteAddress {
        /// The address.
        addr: IpAddr,
    },
    /// Zeroes one service's counters, before its id is used again.
    ClearCounters {
        /// Service id.
        service: u32,
    },
    /// Makes every flow check itself with its next packet.
    RaiseEpoch,
}

/// What the maps hold, as far as the agent plans it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MapContents {
    /// Both frontend maps, without the rows of addresses.
    pub frontends: HashMap<AnyFrontendKey, Frontend>,
    /// The flags in the rows of addresses.
    pub addresses: HashMap<IpAddr, u32>,
    /// The source ranges of both families, with the service id.
    pub ranges: HashSet<(u32, IpNet)>,
    /// Every non-empty backend of `BACKENDS_V4`, by id.
    pub backends_v4: HashMap<u32, Backend<[u8; 4]>>,
    /// The same for `BACKENDS_V6`.
    pub backends_v6: HashMap<u32, Backend<[u8; 16]>>,
    /// Every non-zero selection, by index.
    pub selections: HashMap<u32, Selection>,
}

impl MapContents {
    /// Adds an element of the frontend maps.
    pub fn add(&mut self, key: AnyFrontendKey, value: Frontend) {
        match key.as_address() {
            Some(addr) => drop(self.addresses.insert(addr, value.flags)),
            None => drop(self.frontends.insert(key, value)),
        }
    }
}

/// How many elements each planned map can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacities {
    /// Of `FRONTENDS_V4` and `FRONTENDS_V6`, each.
    pub frontends: u32,
    /// Of `BACKENDS_V4` and `BACKENDS_V6`, each.
    pub backends: u32,
    /// Of `SELECTIONS`.
    pub selections: u32,
    /// Of `SLOTS`, in rows of 16.
    pub slot_rows: u32,
    /// Of `SVC_COUNTERS`: the number of service ids.
    pub services: u32,
    /// Of `RANGES_V4` and `RANGES_V6`, each.
    pub ranges: u32,
}

/// The maps that the agent plans.
pub trait Store: Send {
    /// How much fits.
    fn capacities(&self) -> Capacities;

    /// Reads back what is there.
    ///
    /// # Errors
    /// If a map cannot be read.
    fn read(&mut self) -> anyhow::Result<MapContents>;

    /// Reads back rows of slots, to see whether a table found in the maps is the one wanted.
    ///
    /// # Errors
    /// If the rows cannot be read; rows outside of the map are an error too.
    fn read_rows(&mut self, first: u32, count: u32) -> anyhow::Result<Vec<SlotRow>>;

    /// Carries out the writes in order; idempotent.
    ///
    /// # Errors
    /// At the first write that fails; those before it are done, those after it are not.
    fn apply(&mut self, ops: &[MapOp]) -> Result<(), ApplyError>;

    /// Waits until every packet has passed that may still see what the writes so far replaced.
    fn settle(&mut self) {}
}

/// A write that failed.
#[derive(Debug, thiserror::Error)]
#[error("write {index} of the plan failed: {source}")]
pub struct ApplyError {
    /// How many writes were done before it.
    pub index: usize,
    /// What the map said.
    pub source: anyhow::Error,
}
