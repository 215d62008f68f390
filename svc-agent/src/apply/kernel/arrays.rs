//! Values in shared memory, word by word.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use svc_common::maps::{Backend, MapSpec, MapType, backend_flags};

use crate::attach::maps::Maps;
use crate::sys::mmap::MappedArray;

/// Words of a value in the order of memory.
pub(super) fn words(bytes: &[u8]) -> impl Iterator<Item = u32> + '_ {
    bytes.as_chunks::<4>().0.iter().map(|word| u32::from_ne_bytes(*word))
}

pub(super) fn map_array<V>(maps: &Maps, map: &MapSpec) -> anyhow::Result<Arc<MappedArray>> {
    maps.mapped(map, size_of::<V>())
}

pub(super) fn outside(map: &MapSpec, index: u32) -> anyhow::Error {
    anyhow::anyhow!("`{}` has no element {index}", map.name)
}

/// Writes a backend so that nobody takes a half-written one for a whole one: while its address changes, its flags are
/// zero, which means that the id is free.
pub(super) fn set_backend<A: Copy>(
    array: &MappedArray,
    map: &MapSpec,
    id: u32,
    value: &Backend<A>,
) -> anyhow::Result<()>
where
    Backend<A>: MapType,
{
    // `flags` shares its word with `port`.
    let flags_at = std::mem::offset_of!(Backend<A>, flags) / 4;
    let word = |at| array.word(id, at).ok_or_else(|| outside(map, id));
    let flags_word = word(flags_at)?;
    let new: Vec<u32> = words(value.bytes()).collect();
    let same_target = (0..new.len())
        .filter(|at| *at != flags_at)
        .all(|at| word(at).is_ok_and(|word| Some(&word.load(Ordering::Relaxed)) == new.get(at)));
    if value.flags & backend_flags::PRESENT == 0 || !same_target {
        flags_word.store(0, Ordering::Release);
    }
    for (at, value) in new.iter().enumerate().filter(|(at, _)| *at != flags_at) {
        word(at)?.store(*value, Ordering::Release);
    }
    if let Some(value) = new.get(flags_at) {
        flags_word.store(*value, Ordering::Release);
    }
    Ok(())
}

/// Every backend that is in use, by id.
pub(super) fn read_backends<A: Copy>(array: &MappedArray) -> std::collections::HashMap<u32, Backend<A>>
where
    Backend<A>: MapType,
{
    (0..array.len())
        .filter_map(|id| Some((id, read_value::<Backend<A>>(array, id)?)))
        .filter(|(_, backend)| backend.flags != 0)
        .collect()
}

pub(super) fn read_value<V: MapType>(array: &MappedArray, index: u32) -> Option<V> {
    let mut bytes = Vec::with_capacity(size_of::<V>());
    for at in 0..size_of::<V>() / 4 {
        bytes.extend_from_slice(&array.word(index, at)?.load(Ordering::Relaxed).to_ne_bytes());
    }
    V::from_bytes(&bytes)
}

#[cfg(test)]
mod tests {
    use svc_common::maps::spec;
    use svc_common::net::Be16;

    use super::*;

    #[test]
    fn a_backend_reads_back_as_written_and_frees_its_id() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        let array = MappedArray::new(&file, 12, 8).unwrap();
        let flags = backend_flags::PRESENT | backend_flags::READY;
        let backend = Backend { addr: [10, 0, 0, 7], port: Be16::from_host(8080), flags, service: 5 };
        set_backend(&array, &spec::BACKENDS_V4, 3, &backend).unwrap();
        assert_eq!(read_backends::<[u8; 4]>(&array), [(3, backend)].into());
        set_backend(&array, &spec::BACKENDS_V4, 3, &Backend::<[u8; 4]>::default()).unwrap();
        assert!(read_backends::<[u8; 4]>(&array).is_empty());
        assert!(set_backend(&array, &spec::BACKENDS_V4, 8, &backend).is_err());
    }
}
