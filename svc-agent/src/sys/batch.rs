//! Batched reading of hash maps: a dump of a large table costs hundreds of times fewer system calls.
#![expect(unsafe_code, reason = "a system call with addresses in its arguments")]

use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, AsRawFd as _};
use std::ptr;

use svc_common::maps::MapType;

use super::bpf::bpf;

const MAP_LOOKUP_BATCH: libc::c_long = 24;

/// Entries asked for at once; more than the longest chain of a bucket that is not under attack.
const ENTRIES: u32 = 2_048;
const MAX_ENTRIES: u32 = 1 << 20;

#[repr(C)]
#[derive(Default)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

/// Calls `visit` for every entry of a hash map until it breaks.
///
/// Entries that come or go meanwhile may be missed or, rarely, seen twice.
///
/// # Errors
/// As the kernel says; `EINVAL` where there are no batches (before 5.6).
pub fn for_each<K: MapType, V: MapType>(
    map: impl AsFd,
    mut visit: impl FnMut(K, V) -> ControlFlow<()>,
) -> io::Result<()> {
    let mut capacity = ENTRIES;
    let mut keys = vec![0_u8; capacity as usize * size_of::<K>()];
    let mut values = vec![0_u8; capacity as usize * size_of::<V>()];
    // The kernel's position is a bucket number.
    let (mut position, mut next) = (0_u32, 0_u32);
    let mut first = true;
    loop {
        let mut attr = BatchAttr {
            in_batch: if first { 0 } else { ptr::from_ref(&position) as u64 },
            out_batch: ptr::from_mut(&mut next) as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: capacity,
            map: map.as_fd().as_raw_fd().cast_unsigned(),
            ..BatchAttr::default()
        };
        // SAFETY: the buffers have room for `count` keys and values of exactly the map's sizes (checked when the map was
        // adopted); the positions are words, as hash maps use them. All live until after the call.
        let result = unsafe { bpf(MAP_LOOKUP_BATCH, &mut attr) };
        let last = match result {
            Ok(_) => false,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
            // One bucket holds more than fits: ask again from the same position with more room.
            Err(error) if error.raw_os_error() == Some(libc::ENOSPC) && capacity < MAX_ENTRIES => {
                capacity *= 4;
                keys.resize(capacity as usize * size_of::<K>(), 0);
                values.resize(capacity as usize * size_of::<V>(), 0);
                continue;
            }
            Err(error) => return Err(error),
        };
        let filled = attr.count.min(capacity) as usize;
        let pairs = keys.chunks_exact(size_of::<K>()).zip(values.chunks_exact(size_of::<V>()));
        for (key, value) in pairs.take(filled) {
            let (Some(key), Some(value)) = (K::from_bytes(key), V::from_bytes(value)) else { continue };
            if visit(key, value).is_break() {
                return Ok(());
            }
        }
        if last {
            return Ok(());
        }
        (position, first) = (next, false);
    }
}
