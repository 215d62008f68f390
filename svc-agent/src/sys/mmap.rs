//! Arrays that the kernel programs and the agent share in memory (`BPF_F_MMAPABLE`).
//!
//! Elements are read and written as 4- and 8-byte atomics only, because the kernel programs read them at any moment.
#![expect(unsafe_code, reason = "shared memory")]

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64};

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// A mapped array.
#[derive(Debug)]
pub struct MappedArray {
    start: NonNull<u8>,
    mapped_bytes: NonZeroUsize,
    /// Bytes from one element to the next: the value size rounded up to eight.
    stride: usize,
    value_bytes: usize,
    len: u32,
}

// SAFETY: the mapping belongs to this value until it is dropped, and is accessed through atomics only.
unsafe impl Send for MappedArray {}
// SAFETY: as above.
unsafe impl Sync for MappedArray {}

impl MappedArray {
    /// Maps an array of `len` values of `value_bytes` bytes.
    ///
    /// # Errors
    /// If the map was made without `BPF_F_MMAPABLE`, or is smaller than said.
    pub fn new(map: impl AsFd, value_bytes: usize, len: u32) -> io::Result<Self> {
        let stride = value_bytes.next_multiple_of(8);
        let bytes = stride.checked_mul(len as usize).and_then(NonZeroUsize::new);
        let bytes = bytes.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        // SAFETY: a new mapping at an address that the kernel chooses; nothing else refers to it.
        let start =
            unsafe { mmap(None, bytes, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED, map, 0) }?;
        Ok(Self { start: start.cast(), mapped_bytes: bytes, stride, value_bytes, len })
    }

    /// The number of elements.
    pub const fn len(&self) -> u32 {
        self.len
    }

    /// Whether there are no elements.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Word `word` (of four bytes) of an element; `None` if there is no such element or word.
    pub fn word(&self, index: u32, word: usize) -> Option<&AtomicU32> {
        let offset = self.offset(index, word.checked_mul(4)?, 4)?;
        // SAFETY: in bounds (`offset`), aligned (page start + multiples of four), valid while `self` lives.
        Some(unsafe { AtomicU32::from_ptr(self.start.add(offset).as_ptr().cast()) })
    }

    /// An element of eight bytes as one word; `None` if there is no such element or it is smaller.
    pub fn double(&self, index: u32) -> Option<&AtomicU64> {
        let offset = self.offset(index, 0, 8)?;
        // SAFETY: in bounds (`offset`), aligned (page start + multiples of eight), valid while `self` lives.
        Some(unsafe { AtomicU64::from_ptr(self.start.add(offset).as_ptr().cast()) })
    }

    fn offset(&self, index: u32, within: usize, bytes: usize) -> Option<usize> {
        (index < self.len && within + bytes <= self.value_bytes).then(|| index as usize * self.stride + within)
    }
}

impl Drop for MappedArray {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with this length; no reference outlives `self`. A failure leaves the mapping in place.
        let _kept = unsafe { munmap(self.start.cast(), self.mapped_bytes.get()) };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    #[test]
    fn elements_lie_a_multiple_of_eight_apart_and_bounds_hold() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        let array = MappedArray::new(&file, 12, 3).unwrap();
        array.word(1, 2).unwrap().store(7, Ordering::Relaxed);
        assert!(array.word(1, 3).is_none() && array.word(3, 0).is_none());
        assert_eq!(array.double(2).unwrap().load(Ordering::Relaxed), 0);
        let mut bytes = [0; 28];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut bytes, 0).unwrap();
        assert_eq!(bytes[24], 7);
    }
}
