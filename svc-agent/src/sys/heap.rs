//! The heap of the C library.
#![expect(unsafe_code, reason = "calls of the C library")]

/// Gives what is free in the heap back to the kernel; after work that took far more than what stays. Some C libraries do
/// that by themselves, and have no such call.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: an integer only; the allocator locks itself.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Has all threads allocate from one heap, which is then no larger than what they use together; to be called before there
/// are any. By default each of many processors gets a heap of its own, from which little ever goes back.
pub fn share() {
    #[cfg(target_env = "gnu")]
    // SAFETY: integers only; there is one thread.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}
