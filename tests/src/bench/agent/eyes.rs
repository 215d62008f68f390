//! The maps as a program sees them: from an address to the backends that its slots lead to.

use std::collections::BTreeSet;
use std::net::SocketAddrV4;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use aya::maps::{Array, HashMap, Map, MapData};
use svc_common::maps::{Backend, Frontend, FrontendKey, MapSpec, Selection, SlotRow, spec};
use svc_common::net::{Be16, proto};

use super::PATIENCE;

/// Slots of a row.
const SLOTS_PER_ROW: u32 = 16;
/// How long to wait between two looks.
const LOOK: Duration = Duration::from_micros(50);

/// The pinned maps of an agent.
pub struct Eyes {
    frontends: HashMap<MapData, FrontendKey<[u8; 4]>, Frontend>,
    selections: Array<MapData, Selection>,
    slots: Array<MapData, SlotRow>,
    backends: Array<MapData, Backend<[u8; 4]>>,
}

impl Eyes {
    /// Opens the maps.
    ///
    /// # Errors
    /// If one is missing.
    pub fn open(pins: &Path) -> Result<Self> {
        let open = |map: &MapSpec| {
            let path = pins.join("v1/maps").join(format!("{}-{}", map.name, map.layout));
            MapData::from_pin(&path).with_context(|| format!("cannot open {}", path.display()))
        };
        Ok(Self {
            frontends: Map::HashMap(open(&spec::FRONTENDS_V4)?).try_into()?,
            selections: Map::Array(open(&spec::SELECTIONS)?).try_into()?,
            slots: Map::Array(open(&spec::SLOTS)?).try_into()?,
            backends: Map::Array(open(&spec::BACKENDS_V4)?).try_into()?,
        })
    }

    /// Waits until new connections to a Service may reach an endpoint.
    ///
    /// # Errors
    /// If they never do.
    pub fn wait(&self, service: SocketAddrV4, endpoint: SocketAddrV4) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = None;
        loop {
            let selection = self.selection(service);
            // The tables are long: they are read only if the word that leads there is another one.
            if selection != seen {
                seen = selection;
                if selection.is_some_and(|selection| self.reached(selection).contains(&endpoint)) {
                    return Ok(());
                }
            }
            if Instant::now() > deadline {
                bail!("waited in vain for {service} to lead to {endpoint}");
            }
            std::thread::sleep(LOOK);
        }
    }

    fn selection(&self, service: SocketAddrV4) -> Option<Selection> {
        let key = FrontendKey {
            addr: service.ip().octets(),
            port: Be16::from_host(service.port()),
            proto: proto::TCP,
            pad: 0,
        };
        let frontend = self.frontends.get(&key, 0).ok()?;
        self.selections.get(&frontend.internal, 0).ok()
    }

    fn reached(&self, selection: Selection) -> BTreeSet<SocketAddrV4> {
        let mut ids = BTreeSet::new();
        let end = selection.offset() + selection.len();
        for row in selection.offset() / SLOTS_PER_ROW..end.div_ceil(SLOTS_PER_ROW) {
            let Ok(slots) = self.slots.get(&row, 0) else { continue };
            let own = (row * SLOTS_PER_ROW..).zip(slots.0).filter(|(slot, _)| (selection.offset()..end).contains(slot));
            ids.extend(own.map(|(_, id)| id));
        }
        let backends = ids.iter().filter_map(|id| self.backends.get(id, 0).ok());
        backends.map(|backend| SocketAddrV4::new(backend.addr.into(), backend.port.to_host())).collect()
    }
}
