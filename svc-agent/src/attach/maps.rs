//! The pinned maps: adopted if they are what this agent expects, made anew if not.
//!
//! aya opens whatever lies at a pin's path without a look at it, so everything is compared here first.

use std::collections::BTreeMap;
use std::os::fd::AsFd as _;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use aya::maps::{Map, MapData, MapInfo};
use aya_obj::Object;
use svc_common::maps::{MapSpec, spec};
use tracing::{info, warn};

use super::pins::PinDir;
use crate::sys::mmap::MappedArray;

/// Per-CPU lists of an LRU map (`BPF_F_NO_COMMON_LRU`): the kernel rounds the capacity to the number of CPUs.
const NO_COMMON_LRU: u32 = 1 << 1;

/// Maps whose contents name each other by id: if one of them is lost, all start afresh.
const PLANNED: &[&str] = &[
    spec::FRONTENDS_V4.name,
    spec::FRONTENDS_V6.name,
    spec::RANGES_V4.name,
    spec::RANGES_V6.name,
    spec::SELECTIONS.name,
    spec::SLOTS.name,
    spec::BACKENDS_V4.name,
    spec::BACKENDS_V6.name,
    spec::SVC_COUNTERS.name,
];

/// How many elements the maps get.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Each table of established flows.
    pub max_flows: u32,
}

impl Sizes {
    /// The capacity of one map.
    pub fn capacity(self, map: &MapSpec) -> u32 {
        if [spec::FLOWS_V4.name, spec::FLOWS_V6.name].contains(&map.name) {
            self.max_flows
        } else if [spec::EMBRYOS_V4.name, spec::EMBRYOS_V6.name].contains(&map.name) {
            (self.max_flows / 4).max(1_024)
        } else {
            map.capacity
        }
    }
}

/// What a map is made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    kind: u32,
    key_bytes: u32,
    value_bytes: u32,
    capacity: u32,
    flags: u32,
}

impl Shape {
    /// What differs, in words; `None` if nothing does.
    fn difference(&self, found: &Self) -> Option<String> {
        [
            ("type", found.kind, self.kind),
            ("key size", found.key_bytes, self.key_bytes),
            ("value size", found.value_bytes, self.value_bytes),
            ("max_entries", found.capacity, self.capacity),
            ("flags", found.flags, self.flags),
        ]
        .into_iter()
        .find(|(_, found, expected)| found != expected)
        .map(|(what, found, expected)| format!("{what} is {found}, expected {expected}"))
    }

    fn of_pinned(info: &MapInfo) -> anyhow::Result<Self> {
        Ok(Self {
            kind: info.map_type()? as u32,
            key_bytes: info.key_size(),
            value_bytes: info.value_size(),
            capacity: info.max_entries(),
            flags: info.map_flags(),
        })
    }

    fn expected(object: &Object, map: &MapSpec, sizes: Sizes) -> anyhow::Result<Self> {
        let wanted = object.maps.get(map.name).with_context(|| {
            format!("the kernel programs have no map `{}`; rebuild with `cargo xtask build`", map.name)
        })?;
        let mut capacity = sizes.capacity(map);
        if wanted.map_flags() & NO_COMMON_LRU != 0 {
            let cpus =
                aya::util::nr_cpus().map_err(|(path, error)| anyhow::anyhow!("cannot read `{path}`: {error}"))?;
            capacity = capacity.next_multiple_of(u32::try_from(cpus)?);
        }
        Ok(Self {
            kind: wanted.map_type(),
            key_bytes: wanted.key_size(),
            value_bytes: wanted.value_size(),
            capacity,
            flags: wanted.map_flags(),
        })
    }
}

/// Removes every pin that the object's maps cannot use, so that loading makes new ones; says why.
///
/// # Errors
/// If the object lacks a map or a pin cannot be removed.
pub fn check_pins(pins: &PinDir, object: &[u8], sizes: Sizes) -> anyhow::Result<()> {
    let object = Object::parse(object).context("cannot read the embedded kernel programs")?;
    let mut unusable = BTreeMap::new();
    for map in spec::ALL {
        let expected = Shape::expected(&object, map, sizes)?;
        let path = pins.map(map);
        if path.symlink_metadata().is_err() {
            continue;
        }
        // A pin that cannot be opened as a map, such as a program, is as good as a wrong map.
        let found = MapInfo::from_pin(&path).map_err(anyhow::Error::from).and_then(|info| Shape::of_pinned(&info));
        let difference = match found {
            Ok(found) => expected.difference(&found),
            Err(error) => Some(format!("it is not a map: {error:#}")),
        };
        if let Some(difference) = difference {
            unusable.insert(map.name, difference);
        }
    }
    if let Some(lost) = PLANNED.iter().find(|name| unusable.contains_key(*name)) {
        for name in PLANNED {
            unusable.entry(name).or_insert_with(|| format!("its ids belong together with those of `{lost}`"));
        }
        // They name services and backends by id, but nobody names them.
        for name in [spec::SOCKET_NAT.name, spec::SOCKETS.name] {
            unusable.entry(name).or_insert_with(|| format!("it has ids of `{lost}`"));
        }
    }
    for map in spec::ALL {
        if let Some(reason) = unusable.get(map.name) {
            let removed =
                pins.remove(&pins.map(map)).with_context(|| format!("cannot replace the map `{}`", map.name))?;
            if removed {
                warn!(map = map.name, reason, "the pinned map cannot be used; a new one takes its place");
            }
        }
    }
    Ok(())
}

/// The maps, open.
#[derive(Debug)]
pub struct Maps {
    open: BTreeMap<&'static str, MapData>,
    /// Those that are mapped into memory: once, whoever asks.
    mapped: Mutex<BTreeMap<&'static str, Arc<MappedArray>>>,
}

impl Maps {
    fn new(open: BTreeMap<&'static str, MapData>) -> Self {
        Self { open, mapped: Mutex::default() }
    }

    /// Opens every map by its pin.
    ///
    /// # Errors
    /// If one is missing.
    pub fn open(pins: &PinDir) -> anyhow::Result<Self> {
        let open = |map: &MapSpec| {
            let path = pins.map(map);
            let data = MapData::from_pin(&path).with_context(|| format!("cannot open the map `{}`", path.display()))?;
            Ok((map.name, data))
        };
        spec::ALL.iter().map(open).collect::<anyhow::Result<_>>().map(Self::new)
    }

    /// Another handle of one map.
    ///
    /// # Errors
    /// If the process has no file descriptor left.
    pub fn data(&self, map: &MapSpec) -> anyhow::Result<MapData> {
        let data = self.open.get(map.name).with_context(|| format!("there is no map `{}`", map.name))?;
        let fd =
            data.fd().as_fd().try_clone_to_owned().with_context(|| format!("cannot open the map `{}`", map.name))?;
        Ok(MapData::from_fd(fd)?)
    }

    /// An array of values of so many bytes in memory, the same for everybody who asks.
    ///
    /// # Errors
    /// If it cannot be mapped.
    pub fn mapped(&self, map: &MapSpec, value_bytes: usize) -> anyhow::Result<Arc<MappedArray>> {
        let mut mapped = self.mapped.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(array) = mapped.get(map.name) {
            return Ok(array.clone());
        }
        let array = MappedArray::new(self.data(map)?.fd(), value_bytes, self.capacity(map)?)
            .with_context(|| format!("cannot map `{}` into memory", map.name))?;
        let array = Arc::new(array);
        mapped.insert(map.name, array.clone());
        Ok(array)
    }

    /// Another handle of one map, for aya's typed views.
    ///
    /// # Errors
    /// See [`Self::data`].
    pub fn map(&self, map: &MapSpec) -> anyhow::Result<Map> {
        Ok(Map::from_map_data(self.data(map)?)?)
    }

    /// How many elements a map can hold.
    ///
    /// # Errors
    /// If the kernel does not say.
    pub fn capacity(&self, map: &MapSpec) -> anyhow::Result<u32> {
        let data = self.open.get(map.name).with_context(|| format!("there is no map `{}`", map.name))?;
        Ok(data.info()?.max_entries())
    }

    /// Pins again what somebody removed, so that the next start finds it.
    pub fn repin(&self, pins: &PinDir) {
        for map in spec::ALL {
            let path = pins.map(map);
            if path.symlink_metadata().is_ok() {
                continue;
            }
            let pinned = self.open.get(map.name).map(|data| data.pin(&path));
            match pinned {
                Some(Ok(())) => info!(map = map.name, "somebody removed the pin of the map; pinned it again"),
                Some(Err(error)) => warn!(map = map.name, %error, "cannot pin the map again"),
                None => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_difference_is_named() {
        let shape = Shape { kind: 1, key_bytes: 16, value_bytes: 64, capacity: 1024, flags: 0 };
        assert_eq!(shape.difference(&shape), None);
        for (other, words) in [
            (Shape { kind: 9, ..shape }, "type is 9, expected 1"),
            (Shape { key_bytes: 8, ..shape }, "key size is 8, expected 16"),
            (Shape { value_bytes: 8, ..shape }, "value size is 8, expected 64"),
            (Shape { capacity: 8, ..shape }, "max_entries is 8, expected 1024"),
            (Shape { flags: 1, ..shape }, "flags is 1, expected 0"),
        ] {
            assert_eq!(shape.difference(&other).as_deref(), Some(words));
        }
    }

    #[test]
    fn only_the_flow_tables_follow_max_flows() {
        let sizes = Sizes { max_flows: 8_192 };
        assert_eq!(sizes.capacity(&spec::FLOWS_V6), 8_192);
        assert_eq!(sizes.capacity(&spec::EMBRYOS_V4), 2_048);
        assert_eq!(sizes.capacity(&spec::SLOTS), spec::SLOTS.capacity);
    }
}
