//! Memory that was freed and is not used again.
#![expect(unsafe_code, reason = "a call of the C library")]

/// Gives what is free in the heap back to the kernel; after work that took far more than what stays. Some C libraries do
/// that by themselves, and have no such call.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: an integer only; the allocator locks itself.
    unsafe {
        libc::malloc_trim(0);
    }
}
