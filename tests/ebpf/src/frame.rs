//! Frames as memory.

/// Something at `start + offset` if it ends before `end`.
#[inline(always)]
pub fn at<'a, T: Copy>(start: usize, end: usize, offset: usize) -> Option<&'a mut T> {
    let found = start + offset;
    if found + size_of::<T>() > end {
        return None;
    }
    // SAFETY: in bounds; callers ask for integers and arrays of them only, and the architectures that the kernel's JIT
    // supports here load words at any address.
    Some(unsafe { &mut *(found as *mut T) })
}

/// Adds a difference to a ones' complement checksum (RFC 1624), as the bytes lie in memory.
#[inline(always)]
pub fn patched(checksum: u16, delta: u32) -> u16 {
    let mut sum = u32::from(!checksum) + delta;
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}
