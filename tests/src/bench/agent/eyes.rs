//! The maps as a program sees them: from an address to the backends that its slots lead to.

use std::collections::BTreeSet;
use std::net::SocketAddrV4;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use aya::maps::{HashMap, Map, MapData};
use svc_agent::sys::mmap::MappedArray;
use svc_common::maps::{Backend, Frontend, FrontendKey, MapSpec, MapType as _, Selection, SlotRow, spec};
use svc_common::net::{Be16, proto};

use super::PATIENCE;

/// Slots of a row.
const SLOTS_PER_ROW: u32 = 16;
/// How long to wait between two looks.
const LOOK: Duration = Duration::from_micros(50);

/// The pinned maps of an agent; arrays in shared memory, as programs see them: a large table has 16,384 rows.
pub struct Eyes {
    frontends: HashMap<MapData, FrontendKey<[u8; 4]>, Frontend>,
    selections: MappedArray,
    slots: MappedArray,
    backends: MappedArray,
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
            selections: mapped::<Selection>(open(&spec::SELECTIONS)?)?,
            slots: mapped::<SlotRow>(open(&spec::SLOTS)?)?,
            backends: mapped::<Backend<[u8; 4]>>(open(&spec::BACKENDS_V4)?)?,
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
        Some(Selection(self.selections.double(frontend.internal)?.load(Ordering::Acquire)))
    }

    fn reached(&self, selection: Selection) -> BTreeSet<SocketAddrV4> {
        let slots = selection.offset()..selection.offset() + selection.len();
        let ids = slots.filter_map(|slot| value(&self.slots, slot / SLOTS_PER_ROW, slot % SLOTS_PER_ROW));
        let ids: BTreeSet<u32> = ids.collect();
        ids.into_iter().filter_map(|id| self.backend(id)).collect()
    }

    fn backend(&self, id: u32) -> Option<SocketAddrV4> {
        let words = (0..size_of::<Backend<[u8; 4]>>() as u32 / 4).map(|word| value(&self.backends, id, word));
        let bytes: Vec<u8> = words.collect::<Option<Vec<u32>>>()?.into_iter().flat_map(u32::to_ne_bytes).collect();
        let backend = Backend::<[u8; 4]>::from_bytes(&bytes)?;
        Some(SocketAddrV4::new(backend.addr.into(), backend.port.to_host()))
    }
}

fn mapped<V>(map: MapData) -> Result<MappedArray> {
    let len = map.info()?.max_entries();
    Ok(MappedArray::new(map.fd(), size_of::<V>(), len)?)
}

fn value(array: &MappedArray, index: u32, word: u32) -> Option<u32> {
    Some(array.word(index, word as usize)?.load(Ordering::Relaxed))
}
